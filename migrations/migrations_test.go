package migrations_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/uptrace/bun/dialect"

	"github.com/gopassreset/reset/migrations"
	storebun "github.com/gopassreset/reset/store_bun"
)

var update = flag.Bool("update", false, "write the files")

// steps are the versions of the schema that releases had, and the way down from
// each to the one before.
var steps = []struct {
	version int
	down    string
}{
	{2, drop("reset_activations", "reset_mails", "reset_locks", "reset_history", "reset_realms", "reset_schema")},
}

// The files are what storebun.DDL returns; go test ./migrations -update writes
// them.
func TestFiles(t *testing.T) {
	want := make(map[string]string)
	for folder, name := range map[string]dialect.Name{"postgres": dialect.PG, "mysql": dialect.MySQL, "sqlite": dialect.SQLite} {
		var sums atlasSums
		from := 0
		for i, step := range steps {
			up := ddl(t, name, from)
			up, ok := strings.CutSuffix(up, ddl(t, name, step.version))
			if !ok {
				t.Fatalf("DDL(%v, %d) does not end with DDL(%v, %d)", name, from, name, step.version)
			}
			up = strings.TrimSpace(up) + "\n"
			from = step.version
			file := fmt.Sprintf("%05d_reset", i+1)
			want["goose/"+folder+"/"+file+".sql"] = "-- +goose Up\n" + up + "\n-- +goose Down\n" + step.down
			want["migrate/"+folder+"/"+file+".up.sql"] = up
			want["migrate/"+folder+"/"+file+".down.sql"] = step.down
			want["atlas/"+folder+"/"+file+".sql"] = up
			sums.add(file+".sql", up)
		}
		if rest := ddl(t, name, from); rest != "" {
			t.Errorf("the schema of %v has statements behind the last of steps:\n%s", name, rest)
		}
		want["atlas/"+folder+"/atlas.sum"] = sums.String()
	}
	if *update {
		write(t, want)
		return
	}
	for name, text := range want {
		if got, err := migrations.FS.ReadFile(name); err != nil || string(got) != text {
			t.Errorf("%s is not what storebun.DDL returns (%v); run go test ./migrations -update", name, err)
		}
	}
	err := fs.WalkDir(migrations.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if _, ok := want[name]; err == nil && !d.IsDir() && !ok {
			t.Errorf("%s is left over; run go test ./migrations -update", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func drop(tables ...string) string {
	return "DROP TABLE " + strings.Join(tables, ";\n\nDROP TABLE ") + ";\n"
}

func ddl(t *testing.T, name dialect.Name, from int) string {
	t.Helper()
	text, err := storebun.DDL(name, from)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func write(t *testing.T, files map[string]string) {
	t.Helper()
	for _, tool := range []string{"goose", "migrate", "atlas"} {
		if err := os.RemoveAll(tool); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.FromSlash(path.Dir(name)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.FromSlash(name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// atlasSums is the content of atlas.sum: the hash of each file and those before
// it, and the hash of these hashes.
type atlasSums struct{ files, names bytes.Buffer }

func (s *atlasSums) add(name, text string) {
	s.files.WriteString(name + text)
	s.names.WriteString(name + " h1:" + hash(s.files.String()) + "\n")
}

func (s *atlasSums) String() string {
	return "h1:" + hash(strings.NewReplacer(" h1:", "", "\n", "").Replace(s.names.String())) + "\n" + s.names.String()
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}
