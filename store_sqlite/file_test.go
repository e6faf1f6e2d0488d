package storesqlite_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/figure"
	"github.com/gopassreset/reset/internal/sqlstore"
	"github.com/gopassreset/reset/resettest"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

func mustRename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func mustCopy(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func mustRemove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// A file that is moved, deleted or replaced under load: no request is accepted
// afterwards, none that was accepted is lost with a file that is still there,
// and the health of the service says what has happened.
func TestFileMoved(t *testing.T) {
	const clients, before, after = 8, 20, 5 // requests of each
	for _, test := range []struct {
		name  string
		fault func(t *testing.T, path, to string)
		// The file that has what was accepted: to is where it was moved to.
		// "" if there is none.
		left func(path, to string) string
		says string
	}{
		{"moved", func(t *testing.T, path, to string) { mustRename(t, path, to) },
			func(_, to string) string { return to }, "was moved or deleted"},
		{"moved with the files beside it", func(t *testing.T, path, to string) {
			for _, suffix := range []string{"-shm", "-wal", ""} {
				mustRename(t, path+suffix, to+suffix)
			}
		}, func(_, to string) string { return to }, "was moved or deleted"},
		{"the folder moved", func(t *testing.T, path, to string) { mustRename(t, filepath.Dir(path), to) },
			func(path, to string) string { return filepath.Join(to, filepath.Base(path)) }, "was moved or deleted"},
		{"deleted", func(t *testing.T, path, _ string) { mustRemove(t, path) },
			func(_, _ string) string { return "" }, "was moved or deleted"},
		{"replaced by a copy", func(t *testing.T, path, to string) {
			mustCopy(t, path, to+".copy")
			mustRename(t, path, to)
			mustRename(t, to+".copy", path)
		}, func(_, to string) string { return to }, "was replaced by another file"},
		{"-wal deleted", func(t *testing.T, path, _ string) { mustRemove(t, path+"-wal") },
			func(path, _ string) string { return path }, "-wal was moved or deleted"},
		{"-shm replaced", func(t *testing.T, path, to string) {
			mustCopy(t, path+"-shm", to)
			mustRename(t, to, path+"-shm")
		}, func(path, _ string) string { return path }, "-shm was replaced by another file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path, to := filepath.Join(dir, "data", "app.db"), filepath.Join(dir, "elsewhere")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			s := openPath(t, path, storesqlite.Options{})
			svc, err := reset.New(reset.Config{
				Users: users{s.DB()}, Store: s, Mailer: new(resettest.Mailbox), BaseURL: "https://app.example.com/account",
				PerClient: reset.Unlimited, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			a := activation(1, "a")
			if _, err := s.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
				t.Fatal(err)
			}

			var mu sync.Mutex
			var accepted []string
			var late atomic.Int64
			var moved atomic.Bool
			var wg, loaded sync.WaitGroup
			loaded.Add(clients)
			for client := range clients {
				wg.Go(func() {
					refused := 0
					for i := 0; refused < after; i++ {
						if i == before {
							loaded.Done()
						}
						began, email := moved.Load(), fmt.Sprintf("%d.%d@example.com", client, i)
						err := svc.Forgot(t.Context(), email, "192.0.2.1", reset.ForgotOptions{})
						switch {
						case err == nil:
							mu.Lock()
							accepted = append(accepted, email)
							mu.Unlock()
							if began {
								late.Add(1)
							}
						case !strings.Contains(err.Error(), " while it was open"):
							t.Errorf("Forgot: %v", err)
							fallthrough
						default:
							refused++
						}
					}
				})
			}
			loaded.Wait()
			test.fault(t, path, to)
			moved.Store(true)
			wg.Wait()
			if n := late.Load(); n > 0 {
				t.Errorf("%d requests were accepted afterwards", n)
			}
			for what, err := range map[string]error{
				"Health": svc.Health(t.Context()),
				"Redeem": s.Redeem(t.Context(), start, a, notification(2, "a"), func(context.Context) error {
					t.Error("Redeem called apply")
					return nil
				}),
				"Find": func() error { _, err := s.Find(t.Context(), start, a.Hash); return err }(),
			} {
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("%s afterwards: %v", what, err)
				}
			}

			left := test.left(path, to)
			if left == to { // as a process finds it after this one was killed
				mustCopy(t, left, to+".alone")
				wantQueued(t, to+".alone", accepted)
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			figure.Report(t, "requests accepted after a fault of the file", int(late.Load()), clients*after)
			if left != "" {
				wantQueued(t, left, accepted)
			}
		})
	}
}

// wantQueued opens a file and looks for mail to every address.
func wantQueued(t *testing.T, path string, addresses []string) {
	t.Helper()
	s := openPath(t, path, storesqlite.Options{})
	lost := 0
	for _, address := range addresses {
		var n int
		if err := s.DB().QueryRowContext(t.Context(), "SELECT COUNT(*) FROM reset_mails WHERE CAST(email AS TEXT) = ?", address).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n != 1 {
			lost++
		}
	}
	figure.Report(t, "requests accepted before, and lost", lost, len(addresses))
	if lost > 0 || len(addresses) == 0 {
		t.Errorf("%d of %d accepted requests are not in %s", lost, len(addresses), filepath.Base(path))
	}
}

// A file that is moved in the middle of a transaction: nobody hears of a success.
func TestFileMovedMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	s := openPath(t, path, storesqlite.Options{})
	a := activation(1, "a")
	if _, err := s.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
		t.Fatal(err)
	}
	move := func() error { return os.Rename(path, path+".away") }
	for name, write := range map[string]func() error{
		"a batch": func() error {
			errs, err := s.Together([]sqlstore.Op{func(context.Context, sqlstore.Conn) error { return move() }})
			return errors.Join(append(errs, err)...)
		},
		"Redeem": func() error {
			return s.Redeem(t.Context(), start, a, notification(2, "a"), func(context.Context) error { return move() })
		},
	} {
		if err := write(); err == nil || !strings.Contains(err.Error(), "was moved") {
			t.Errorf("%s: %v", name, err)
		}
		mustRename(t, path+".away", path)
		if err := s.Enqueue(t.Context(), publicRequest(len(name))); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}

// A file that comes back is used on. Meanwhile no connection is opened to
// another one, and none is created.
func TestFileComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	s := openPath(t, path, storesqlite.Options{})
	s.DB().SetMaxIdleConns(0) // each statement opens a connection
	mustRename(t, path, path+".away")
	if err := s.DB().PingContext(t.Context()); err == nil {
		t.Error("a connection was opened to a file that is gone")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was created: %v", err)
	}
	mustCopy(t, path+".away", path)
	if err := s.DB().PingContext(t.Context()); err == nil {
		t.Error("a connection was opened to a copy")
	}
	mustRename(t, path+".away", path)
	if err := s.Enqueue(t.Context(), publicRequest(1)); err != nil {
		t.Errorf("Enqueue when the file is back: %v", err)
	}
	if got := count(t, s, "reset_mails"); got != 1 {
		t.Errorf("%d mails are queued", got)
	}
}

// A link to the file is followed. Its new target is another file.
func TestFileBehindLink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "app.db")
	for _, target := range []string{"one.db", "two.db"} {
		openPath(t, filepath.Join(dir, target), storesqlite.Options{})
	}
	if err := os.Symlink("one.db", link); err != nil {
		t.Skip(err)
	}
	s := openPath(t, link, storesqlite.Options{})
	if err := s.Enqueue(t.Context(), publicRequest(1)); err != nil {
		t.Fatal(err)
	}
	mustRemove(t, link)
	if err := os.Symlink("two.db", link); err != nil {
		t.Fatal(err)
	}
	if err := s.Enqueue(t.Context(), publicRequest(2)); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("Enqueue with a link to another file: %v", err)
	}
}
