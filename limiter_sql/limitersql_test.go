package limitersql_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
	"github.com/uptrace/bun/dialect/mysqldialect"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	_ "modernc.org/sqlite"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/limitertest"
	limitersql "github.com/gopassreset/reset/limiter_sql"
	"github.com/gopassreset/reset/resettest"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

const howTo = `needs servers. To run it on all databases:

	RESET_TEST_POSTGRES=postgres://postgres@127.0.0.1:5432/test \
	RESET_TEST_MYSQL='root@tcp(127.0.0.1:3306)/test' \
	go test ./limiter_sql`

// A database is one kind, with a way to make an empty one that is dropped at the
// end of a test. Its data source name is what children get.
type database struct {
	name  string
	env   string // of the server's address; "" if it needs none
	fresh func(t testing.TB, address string) (dsn string)
	open  func(dsn string) (*bun.DB, error)
}

var (
	sqliteFile     = database{"SQLite", "", freshFile, openFile}
	postgresServer = database{"PostgreSQL", "RESET_TEST_POSTGRES", freshPostgres, openPostgres}
	mysqlServer    = database{"MySQL", "RESET_TEST_MYSQL", freshMySQL, openMySQL}
	storeFile      = database{"SQLite of a Store", "", freshFile, openStore}
	databases      = []database{sqliteFile, storeFile, postgresServer, mysqlServer}
)

// TestMain says on which servers nothing is tested: go test shows the skips of a
// package that passes only with -v.
func TestMain(m *testing.M) {
	limitertest.Child(openChild)
	for _, d := range databases {
		if d.env != "" && os.Getenv(d.env) == "" && os.Getenv("CI") != "true" {
			fmt.Println("testing: warning: no tests to run") // go test adds it to its summary
			fmt.Printf("on %s: limiter_sql %s\n", d.name, howTo)
		}
	}
	os.Exit(m.Run())
}

// openChild opens the limiter of a child, whose database spec names.
func openChild(ctx context.Context, spec string) (reset.Limiter, error) {
	name, dsn, _ := strings.Cut(spec, "\n")
	for _, d := range databases {
		if d.name != name {
			continue
		}
		db, err := d.open(dsn)
		if err != nil {
			return nil, err
		}
		return limitersql.New(ctx, db, "children", limitertest.ChildLimit, limitertest.ChildPeriod)
	}
	return nil, fmt.Errorf("no database %s", name)
}

// onEach runs f on an empty database of each kind.
func onEach(t *testing.T, f func(t *testing.T, d database, dsn string)) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) { f(t, d, d.empty(t)) })
	}
}

// empty returns the data source name of an empty database.
func (d database) empty(t testing.TB) (dsn string) {
	t.Helper()
	address := os.Getenv(d.env)
	switch {
	case d.env == "" || address != "":
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is not set", d.env)
	default:
		t.Skipf("%s is not set: %s", d.env, howTo)
	}
	return d.fresh(t, address)
}

// connect opens a database until the test ends.
func (d database) connect(t testing.TB, dsn string) *bun.DB {
	t.Helper()
	db, err := d.open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20)
	t.Cleanup(func() { db.Close() })
	return db
}

// prepared is connect after CreateSchema.
func (d database) prepared(t testing.TB, dsn string) *bun.DB {
	t.Helper()
	db := d.connect(t, dsn)
	if err := limitersql.CreateSchema(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	return db
}

// fresh returns a limiter that has not counted anything.
func fresh(t testing.TB, db *bun.DB, n int, period time.Duration) *limitersql.Limiter {
	t.Helper()
	l, err := limitersql.New(t.Context(), db, rand.Text(), n, period)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func freshFile(t testing.TB, _ string) string { return filepath.Join(t.TempDir(), "app.db") }

func openFile(dsn string) (*bun.DB, error) {
	db, err := sql.Open("sqlite", "file:"+dsn+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)")
	if err != nil {
		return nil, err
	}
	return bun.NewDB(db, sqlitedialect.New()), nil
}

// openStore opens the file in which a host lets storesqlite keep its own tables.
func openStore(dsn string) (*bun.DB, error) {
	store, err := storesqlite.Open(dsn)
	if err != nil {
		return nil, err
	}
	return store.DB(), nil
}

func freshPostgres(t testing.TB, address string) string {
	t.Helper()
	name := freshName()
	makeAndDrop(t, "pgx", address, "CREATE SCHEMA "+name, "DROP SCHEMA "+name+" CASCADE")
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("search_path", name)
	query.Set("synchronous_commit", "off") // no test loses power
	u.RawQuery = query.Encode()
	return u.String()
}

func openPostgres(dsn string) (*bun.DB, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	return bun.NewDB(stdlib.OpenDB(*config), pgdialect.New()), nil
}

func freshMySQL(t testing.TB, address string) string {
	t.Helper()
	config, err := mysql.ParseDSN(address)
	if err != nil {
		t.Fatal(err)
	}
	name := freshName()
	makeAndDrop(t, "mysql", address, "CREATE DATABASE "+name, "DROP DATABASE "+name)
	config.DBName = name
	return config.FormatDSN()
}

func openMySQL(dsn string) (*bun.DB, error) {
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		return nil, err
	}
	return bun.NewDB(db, mysqldialect.New()), nil
}

func freshName() string { return "reset_test_" + strings.ToLower(rand.Text()) }

func makeAndDrop(t testing.TB, driver, address, create, drop string) {
	t.Helper()
	admin, err := sql.Open(driver, address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.ExecContext(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer admin.Close()
		if _, err := admin.ExecContext(context.Background(), drop); err != nil {
			t.Error(err)
		}
	})
}

func TestLimiter(t *testing.T) {
	onEach(t, func(t *testing.T, d database, dsn string) {
		db := d.prepared(t, dsn)
		limitertest.Run(t, func(t *testing.T, n int, period time.Duration) reset.Limiter { return fresh(t, db, n, period) })
	})
}

// The driver of MySQL can count rows that an UPDATE has found, not changed.
func TestFoundRows(t *testing.T) {
	db := mysqlServer.prepared(t, mysqlServer.empty(t)+"?clientFoundRows=true")
	resettest.TestLimiter(t, func(t *testing.T) reset.Limiter { return fresh(t, db, 3, time.Minute) }, 3, time.Minute)
}

func TestProcesses(t *testing.T) {
	onEach(t, func(t *testing.T, d database, dsn string) {
		db := d.prepared(t, dsn)
		for _, n := range []int{4, 10} {
			if _, err := db.ExecContext(t.Context(), "DELETE FROM reset_limits"); err != nil {
				t.Fatal(err)
			}
			limitertest.Processes(t, n, d.name+"\n"+dsn)
		}
	})
}

// Calls of clients that share networks lock each other's rows, and none of them
// fails.
func TestNetworksInParallel(t *testing.T) {
	onEach(t, func(t *testing.T, d database, dsn string) {
		const n, clients, calls = 2, 16, 20
		db := d.prepared(t, dsn)
		l := fresh(t, db, n, time.Hour)
		now := time.Now()
		var mu sync.Mutex
		allowed := 0
		var wg sync.WaitGroup
		for c := range clients {
			wg.Go(func() {
				for i := range calls {
					err := l.Allow(t.Context(), fmt.Sprintf("2001:db8:1:%x::/64", (c+i)%clients), now)
					mu.Lock()
					switch {
					case err == nil:
						allowed++
					case !errors.Is(err, reset.ErrTooManyRequests):
						t.Errorf("Allow: %v", err)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if allowed != 10*n { // what the /48 may
			t.Errorf("%d events of one /48 were allowed, want %d", allowed, 10*n)
		}
	})
}

// New keys of a process whose clock is ahead by two hours remove no row that
// others still need.
func TestPurgeOfClockAhead(t *testing.T) {
	onEach(t, func(t *testing.T, d database, dsn string) {
		db := d.prepared(t, dsn)
		l := fresh(t, db, 1, time.Minute)
		now := time.Now()
		if err := l.Allow(t.Context(), "greedy", now); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			if err := l.Allow(t.Context(), fmt.Sprint("new ", i), now.Add(2*time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Allow(t.Context(), "greedy", now); !errors.Is(err, reset.ErrTooManyRequests) {
			t.Errorf("one event more than its limit: %v", err)
		}
	})
}

// New keys remove the rows of those whose buckets are full.
func TestPurge(t *testing.T) {
	onEach(t, func(t *testing.T, d database, dsn string) {
		db := d.prepared(t, dsn)
		l := fresh(t, db, 1, time.Second)
		now := time.Now()
		for i := range 20 {
			if err := l.Allow(t.Context(), fmt.Sprint("old ", i), now); err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(4 * time.Hour) // clocks may differ by some
		for i := range 10 {
			if err := l.Allow(t.Context(), fmt.Sprint("new ", i), now); err != nil {
				t.Fatal(err)
			}
		}
		if rows, err := db.NewSelect().Table("reset_limits").Count(t.Context()); rows != 10 || err != nil {
			t.Errorf("%d rows are left, %v; want 10", rows, err)
		}
	})
}

func TestCreateSchema(t *testing.T) {
	onEach(t, func(t *testing.T, d database, dsn string) {
		db := d.connect(t, dsn)
		if _, err := limitersql.New(t.Context(), db, "client", 1, time.Second); err == nil || !strings.Contains(err.Error(), "CreateSchema") {
			t.Errorf("New without a table: got error %v, want one that names CreateSchema", err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := limitersql.CreateSchema(t.Context(), db); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, name := range []string{"one", "two"} { // count apart
			l, err := limitersql.New(t.Context(), db, name, 1, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Allow(t.Context(), "key", time.Now()); err != nil {
				t.Errorf("the first event of limiter %s: %v", name, err)
			}
		}
	})
}

func TestDDL(t *testing.T) {
	onEach(t, func(t *testing.T, d database, dsn string) {
		db := d.connect(t, dsn)
		ddl, err := limitersql.DDL(db.Dialect().Name())
		if err != nil {
			t.Fatal(err)
		}
		for statement := range strings.SplitSeq(strings.TrimSuffix(ddl, ";\n"), ";\n") {
			if _, err := db.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		fresh(t, db, 1, time.Second)
	})
	if _, err := limitersql.DDL(dialect.Oracle); err == nil {
		t.Error("DDL of Oracle succeeded")
	}
}

func TestNewRefuses(t *testing.T) {
	db := sqliteFile.prepared(t, sqliteFile.empty(t))
	for _, tt := range []struct {
		want   string
		name   string
		n      int
		period time.Duration
	}{
		{"positive", "client", 0, time.Second},
		{"positive", "client", 1, 0},
		{"name", "", 1, time.Second},
	} {
		_, err := limitersql.New(t.Context(), db, tt.name, tt.n, tt.period)
		if err == nil || !strings.HasPrefix(err.Error(), "limitersql: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New: got error %v, want %q", err, tt.want)
		}
	}
}

// A table that is locked, and one that is gone, have public requests refused in
// time.
func TestServiceRefusesInTime(t *testing.T) {
	locks := map[string][]string{
		sqliteFile.name:     {"BEGIN EXCLUSIVE"},
		storeFile.name:      {"BEGIN EXCLUSIVE"},
		postgresServer.name: {"BEGIN", "LOCK TABLE reset_limits"},
		mysqlServer.name:    {"LOCK TABLES reset_limits WRITE"},
	}
	onEach(t, func(t *testing.T, d database, dsn string) {
		db := d.prepared(t, dsn)
		l := fresh(t, db, 3, time.Hour)
		if err := limitertest.Allow(l, "key"); err != nil {
			t.Fatal(err)
		}
		conn, err := d.connect(t, dsn).Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, statement := range locks[d.name] {
			if _, err := conn.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		limitertest.RefusesInTime(t, l)
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // closes the connection, and so ends its locks
		if _, err := db.ExecContext(t.Context(), "DROP TABLE reset_limits"); err != nil {
			t.Fatal(err)
		}
		limitertest.RefusesInTime(t, l)
	})
}

func BenchmarkAllow(b *testing.B) {
	for _, d := range databases {
		for _, key := range []string{"192.0.2.1", "2001:db8::/64"} {
			b.Run(d.name+"/"+key, func(b *testing.B) {
				l := fresh(b, d.prepared(b, d.empty(b)), 1_000_000, time.Second)
				for b.Loop() {
					if err := l.Allow(b.Context(), key, time.Now()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
