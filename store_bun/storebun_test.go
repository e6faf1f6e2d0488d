package storebun_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	_ "modernc.org/sqlite"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/bunpool"
	"github.com/gopassreset/reset/internal/sqlstore"
	"github.com/gopassreset/reset/resettest"
	storebun "github.com/gopassreset/reset/store_bun"
)

var start = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

// wal has the settings that a host should have. Tests do not wait for the disk.
const wal = "_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)"

// openFile returns a database in a new file as a host opens it, with parameters
// of the driver.
func openFile(t *testing.T, params string) *bun.DB {
	t.Helper()
	sqldb, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "test.db")+"?"+params)
	if err != nil {
		t.Fatal(err)
	}
	db := bun.NewDB(sqldb, sqlitedialect.New())
	t.Cleanup(func() { db.Close() })
	return db
}

func newStore(t *testing.T, db *bun.DB, o storebun.Options) *storebun.Store {
	t.Helper()
	if err := storebun.CreateSchema(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	s, err := storebun.NewWith(t.Context(), db, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	for _, test := range []struct {
		name, params string
		conns        int
	}{
		{"WAL", wal, 0},
		{"one connection", wal, 1},
		{"no WAL", "_pragma=busy_timeout(5000)&_pragma=synchronous(OFF)", 0},
		{"nothing set, one connection", "_pragma=synchronous(OFF)", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			resettest.TestStore(t, func(t *testing.T) reset.Store {
				db := openFile(t, test.params)
				db.SetMaxOpenConns(test.conns)
				return newStore(t, db, storebun.Options{})
			})
		})
	}
}

func TestStoreElsewhere(t *testing.T) {
	resettest.TestStoreElsewhere(t, func(t *testing.T) reset.Store {
		return newStore(t, openFile(t, wal), storebun.Options{UsersElsewhere: true})
	})
}

// A host has one user, "a", with the password "old" and an activation.
type host struct {
	*testing.T
	db         *bun.DB
	store      *storebun.Store
	activation reset.Activation
}

func newHost(t *testing.T, params string, conns int) *host {
	t.Helper()
	db := openFile(t, params)
	db.SetMaxOpenConns(conns)
	h := &host{t, db, newStore(t, db, storebun.Options{}), reset.Activation{
		Hash: sha256.Sum256([]byte("a")), Request: id(1), UserID: "a", Email: "a@example.com", Expires: start.Add(time.Hour),
	}}
	h.exec("CREATE TABLE users (id TEXT PRIMARY KEY, hash TEXT)")
	h.exec("INSERT INTO users VALUES ('a', 'old')")
	if _, err := h.store.Issue(t.Context(), start, h.activation, reset.Limits{MaxRequests: 1}, nil); err != nil {
		t.Fatal(err)
	}
	return h
}

func id(n int) (id reset.ID) {
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

func (h *host) exec(query string, args ...any) {
	h.Helper()
	if _, err := h.db.ExecContext(h.Context(), query, args...); err != nil {
		h.Fatal(err)
	}
}

func (h *host) redeem(ctx context.Context, apply func(context.Context) error) error {
	notification := reset.Mail{ID: id(2), Kind: reset.MailNotification, UserID: "a", Email: "a@example.com", Due: start, Expires: start.Add(time.Hour)}
	return h.store.Redeem(ctx, start, h.activation, notification, apply)
}

// want checks the password, and that the activation and the notification agree.
func (h *host) want(password string) {
	h.Helper()
	var got string
	if err := h.db.QueryRowContext(h.Context(), "SELECT hash FROM users WHERE id = 'a'").Scan(&got); err != nil || got != password {
		h.Errorf("got password %q, %v, want %q", got, err, password)
	}
	var activations, mails int
	if err := h.db.QueryRowContext(h.Context(), "SELECT (SELECT COUNT(*) FROM reset_activations), (SELECT COUNT(*) FROM reset_mails)").Scan(&activations, &mails); err != nil {
		h.Fatal(err)
	}
	if changed := password != "old"; (activations == 0) != changed || (mails == 1) != changed {
		h.Errorf("with password %q there are %d activations and %d notifications", password, activations, mails)
	}
}

// Every way in which a host may write.
func TestOneTransaction(t *testing.T) {
	const update = "UPDATE users SET hash = 'new' WHERE id = 'a'"
	ways := map[string]func(h *host, ctx context.Context) error{
		"IDB": func(h *host, ctx context.Context) error {
			_, err := storebun.IDB(ctx, h.db).ExecContext(ctx, update)
			return err
		},
		"query builder": func(h *host, ctx context.Context) error {
			_, err := storebun.IDB(ctx, h.db).NewUpdate().Table("users").Set("hash = ?", "new").Where("id = ?", "a").Exec(ctx)
			return err
		},
		"database/sql": func(h *host, ctx context.Context) error {
			tx, ok := storebun.Tx(ctx)
			if !ok {
				return errors.New("no transaction")
			}
			_, err := tx.Tx.ExecContext(ctx, update)
			return err
		},
		"nested": func(h *host, ctx context.Context) error {
			return storebun.IDB(ctx, h.db).RunInTx(ctx, nil, func(ctx context.Context, _ bun.Tx) error {
				_, err := storebun.IDB(ctx, h.db).ExecContext(ctx, update)
				return err
			})
		},
		"Revoke as well": func(h *host, ctx context.Context) error {
			_, err := storebun.IDB(ctx, h.db).ExecContext(ctx, update)
			return errors.Join(err, h.store.Revoke(ctx, start, "a", time.Time{}))
		},
	}
	failure := errors.New("failure")
	ends := map[string]struct {
		end      func() error
		password string
	}{
		"success": {func() error { return nil }, "new"},
		"failure": {func() error { return failure }, "old"},
		"panic":   {func() error { panic(failure) }, "old"},
		"exit":    {func() error { runtime.Goexit(); return nil }, "old"},
	}
	for way, write := range ways {
		for name, end := range ends {
			t.Run(way+"/"+name, func(t *testing.T) {
				h := newHost(t, wal, 1)
				over := make(chan struct{})
				go func() { // for runtime.Goexit
					defer close(over)
					defer func() {
						if p := recover(); p != nil && p != failure {
							t.Errorf("Redeem panicked with %v", p)
						}
					}()
					err := h.redeem(t.Context(), func(ctx context.Context) error {
						if err := write(h, ctx); err != nil {
							t.Errorf("write: %v", err)
						}
						return end.end()
					})
					if (err == nil) != (end.password == "new") {
						t.Errorf("Redeem: %v", err)
					}
				}()
				<-over
				h.want(end.password)
			})
		}
	}
}

// One statement past the transaction waits for what that has locked.
func TestPartlyForgottenTransaction(t *testing.T) {
	for name, params := range map[string]string{"waits": wal, "hardly waits": "_pragma=journal_mode(WAL)&_pragma=busy_timeout(1)"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, params, 0)
			err := h.redeem(t.Context(), func(ctx context.Context) error {
				if _, err := storebun.IDB(ctx, h.db).ExecContext(ctx, "UPDATE users SET hash = 'new' WHERE id = 'a'"); err != nil {
					return err
				}
				_, err := h.db.ExecContext(ctx, "UPDATE users SET hash = 'newer' WHERE id = 'a'")
				return err
			})
			if err == nil || !strings.Contains(err.Error(), "write all of them through it") {
				t.Errorf("Redeem: got error %v, want one that says what may have been forgotten", err)
			}
			h.want("old")
		})
	}
}

// A host that writes past the transaction waits for its own lock, its own
// connection, or not at all.
// Nothing is committed of a SetPassword whose context ended on the way, whatever
// it returns: a driver may have left statements out.
func TestCancelledSetPassword(t *testing.T) {
	h := newHost(t, wal, 0)
	ctx, cancel := context.WithCancel(t.Context())
	err := h.redeem(ctx, func(ctx context.Context) error {
		_, err := storebun.IDB(ctx, h.db).ExecContext(ctx, "UPDATE users SET hash = 'new' WHERE id = 'a'")
		cancel()
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Redeem = %v, want one that wraps context.Canceled", err)
	}
	h.want("old")
}

func TestForgottenTransaction(t *testing.T) {
	for _, test := range []struct {
		name, params string
		conns        int
	}{
		{"waits for the lock", wal, 0},
		{"waits for the connection", wal, 1},
		{"hardly waits", "_pragma=journal_mode(WAL)&_pragma=busy_timeout(1)", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, test.params, test.conns)
			began, wrote := time.Now(), make(chan error, 1)
			err := h.redeem(t.Context(), func(ctx context.Context) error {
				_, err := h.db.ExecContext(ctx, "UPDATE users SET hash = 'new' WHERE id = 'a'")
				wrote <- err
				return err
			})
			if err == nil || !strings.Contains(err.Error(), "storebun.IDB") {
				t.Errorf("Redeem: got error %v, want one that says what was forgotten", err)
			}
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("Redeem took %v", took)
			}
			if err := <-wrote; err == nil {
				t.Errorf("the host's write succeeded behind the error")
			}
			h.want("old")
			if err := h.redeem(t.Context(), func(ctx context.Context) error {
				if h.store.TransactionUsed(ctx) {
					t.Error("TransactionUsed before it was")
				}
				_, err := storebun.IDB(ctx, h.db).ExecContext(ctx, "UPDATE users SET hash = 'new' WHERE id = 'a'")
				if !h.store.TransactionUsed(ctx) {
					t.Error("TransactionUsed does not see that it was")
				}
				return err
			}); err != nil {
				t.Errorf("Redeem with the transaction: %v", err)
			}
			h.want("new")
		})
	}
}

// For an apply that uses the transaction and exceeds its time, Redeem reports a
// deadline. A late return of nil does not commit.
func TestSlowApply(t *testing.T) {
	h := newHost(t, wal, 0)
	goOn, over := make(chan struct{}), make(chan error, 1)
	err := h.redeem(t.Context(), func(ctx context.Context) error {
		_, err := storebun.IDB(ctx, h.db).ExecContext(ctx, "UPDATE users SET hash = 'new' WHERE id = 'a'")
		<-goOn
		over <- err
		return nil
	})
	if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "storebun.IDB") {
		t.Errorf("Redeem: got error %v, want a deadline that was missed", err)
	}
	close(goOn)
	if err := <-over; err != nil {
		t.Errorf("the write in the transaction: %v", err)
	}
	h.want("old")
}

func TestWithTx(t *testing.T) {
	for _, commit := range []bool{true, false} {
		h := newHost(t, wal, 1) // a Revoke outside of the transaction would wait forever
		tx, err := h.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.store.Revoke(storebun.WithTx(t.Context(), tx), start, "a", time.Time{}); err != nil {
			t.Errorf("Revoke: %v", err)
		}
		if commit {
			err = tx.Commit()
		} else {
			err = tx.Rollback()
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.store.Find(t.Context(), start, h.activation.Hash)
		if revoked := errors.Is(err, reset.ErrInvalidActivation); revoked != commit {
			t.Errorf("commit: %t, then Find returned %v", commit, err)
		}
	}
}

func TestWithoutTransaction(t *testing.T) {
	db := openFile(t, wal)
	if got := storebun.IDB(t.Context(), db); got != bun.IDB(db) {
		t.Errorf("IDB without a transaction returned %v", got)
	}
	if _, ok := storebun.Tx(t.Context()); ok {
		t.Errorf("Tx without a transaction returned one")
	}
}

func TestNewRefuses(t *testing.T) {
	for _, test := range []struct {
		name, spoil, want string
	}{
		{"no schema", "DROP TABLE reset_schema", "CreateSchema"},
		{"no version", "DELETE FROM reset_schema", "version 0, not 2"},
		{"newer", "UPDATE reset_schema SET version = 3", "newer release"},
		{"a table missing", "DROP TABLE reset_locks", "no such table"},
		{"read-only", "PRAGMA query_only = 1", "readonly database"},
	} {
		t.Run(test.name, func(t *testing.T) {
			db := openFile(t, wal)
			db.SetMaxOpenConns(1)
			newStore(t, db, storebun.Options{})
			if _, err := db.ExecContext(t.Context(), test.spoil); err != nil {
				t.Fatal(err)
			}
			_, err := storebun.New(t.Context(), db)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("New: got error %v, want one that says %q", err, test.want)
			}
		})
	}
}

// Settings of a pool that would hurt later are refused. The database is the
// host's, in memory or in a file.
func TestNewRefusesPools(t *testing.T) {
	for _, test := range []struct {
		name, dsn string
		conns     int
		want      string // "" if New succeeds
	}{
		{"memory", ":memory:", 0, "a database of its own in memory: name a file, or call SetMaxOpenConns(1)"},
		{"memory, two connections", ":memory:", 2, "a database of its own in memory"},
		{"memory, one connection", ":memory:", 1, ""},
		{"memory, shared", "file:TestNewRefusesPools?mode=memory&cache=shared&_pragma=busy_timeout(5000)", 0, ""},
		{"no busy_timeout", "FILE", 0, "has no busy_timeout"},
		{"no busy_timeout, one connection", "FILE", 1, ""},
		{"busy_timeout", "FILE?_pragma=busy_timeout(1)", 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dsn := strings.Replace(test.dsn, "FILE", "file:"+filepath.Join(t.TempDir(), "test.db"), 1)
			sqldb, err := sql.Open("sqlite", dsn)
			if err != nil {
				t.Fatal(err)
			}
			db := bun.NewDB(sqldb, sqlitedialect.New())
			defer db.Close()
			db.SetMaxOpenConns(test.conns)
			_, err = storebun.New(t.Context(), db)
			if err == nil || !strings.Contains(err.Error(), "CreateSchema") && !strings.Contains(err.Error(), "busy_timeout") {
				t.Errorf("New without a schema: got error %v", err)
			}
			if err := storebun.CreateSchema(t.Context(), db); err != nil {
				t.Fatal(err)
			}
			_, err = storebun.New(t.Context(), db)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("New: got error %v, want %q", err, test.want)
			}
		})
	}
}

// A setting that was made on one connection of the pool is none.
func TestNewRefusesOnePragma(t *testing.T) {
	db := openFile(t, "")
	if err := storebun.CreateSchema(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "PRAGMA busy_timeout = 5000"); err != nil {
		t.Fatal(err)
	}
	if _, err := storebun.New(t.Context(), db); err == nil || !strings.Contains(err.Error(), "busy_timeout") {
		t.Errorf("New: got error %v", err)
	}
}

func TestCreateSchemaAtOnce(t *testing.T) {
	db := openFile(t, wal)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := storebun.CreateSchema(t.Context(), db); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	newStore(t, db, storebun.Options{})
}

// Version 1 called notifications "notice" and knew no realms.
func TestMigration(t *testing.T) {
	db := openFile(t, wal)
	schema, err := sqlstore.SQLite.Schema()
	if err != nil {
		t.Fatal(err)
	}
	pool, err := bunpool.New(db)
	if err != nil {
		t.Fatal(err)
	}
	if err := schema[:1].Create(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	h := &host{T: t, db: db}
	expires := start.Add(time.Hour).UnixMilli()
	h.exec("INSERT INTO reset_activations VALUES (?, ?, ?, ?, ?, NULL)", bytes.Repeat([]byte{1}, 32), id(1), []byte("a"), []byte("a@example.com"), expires)
	for i, kind := range []string{"reset", "notice"} {
		h.exec("INSERT INTO reset_mails VALUES (?, ?, ?, ?, NULL, NULL, ?, ?, 2, NULL)", id(1+i), []byte(kind), []byte("a"), []byte("a@example.com"), start.UnixMilli()+int64(i), expires)
	}
	h.exec("INSERT INTO reset_locks VALUES (?, NULL, 0, ?)", []byte("a"), expires)

	if _, err := storebun.New(t.Context(), db); err == nil || !strings.Contains(err.Error(), "version 1, not 2") {
		t.Errorf("New before the migration: %v", err)
	}
	broken := slices.Concat(schema[:1], [][]string{{schema[1][0], "SYNTAX ERROR"}})
	if err := broken.Create(t.Context(), pool); err == nil {
		t.Errorf("a migration with an error succeeded")
	}
	var wg sync.WaitGroup
	for range 5 { // nothing is left of the broken one
		wg.Go(func() {
			if err := storebun.CreateSchema(t.Context(), db); err != nil {
				t.Errorf("CreateSchema: %v", err)
			}
		})
	}
	wg.Wait()
	s, err := storebun.New(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	mails, err := s.Lease(t.Context(), start.Add(time.Second), start.Add(time.Minute), 9)
	if err != nil || len(mails) != 2 || mails[0].Kind != reset.MailReset || mails[1].Kind != reset.MailNotification || mails[1].Attempts != 3 {
		t.Errorf("Lease after the migration: %+v, %v", mails, err)
	}
	a, err := s.Find(t.Context(), start, reset.Hash(bytes.Repeat([]byte{1}, 32)))
	if err != nil || a.UserID != "a" {
		t.Errorf("Find after the migration: %+v, %v", a, err)
	}
	notification := reset.Mail{ID: id(9), Kind: reset.MailNotification, UserID: "a", Due: start, Expires: start.Add(time.Hour)}
	if err := s.Redeem(t.Context(), start, a, notification, func(context.Context) error { return nil }); err != nil {
		t.Errorf("Redeem after the migration: %v", err)
	}
	h.exec("UPDATE reset_schema SET version = 3")
	if err := storebun.CreateSchema(t.Context(), db); err == nil || !strings.Contains(err.Error(), "version 3") {
		t.Errorf("CreateSchema of the older release: %v", err)
	}
}

func TestDDL(t *testing.T) {
	text, err := storebun.DDL(dialect.SQLite, 0)
	if err != nil {
		t.Fatal(err)
	}
	db := openFile(t, wal)
	if _, err := db.ExecContext(t.Context(), text); err != nil {
		t.Fatal(err)
	}
	if _, err := storebun.New(t.Context(), db); err != nil {
		t.Errorf("New on what DDL creates: %v", err)
	}
	for _, name := range []dialect.Name{dialect.PG, dialect.MySQL} {
		if text, err := storebun.DDL(name, 0); err != nil || strings.Count(text, "CREATE TABLE") != 6 {
			t.Errorf("DDL(%v, 0): %v, %s", name, err, text)
		}
		if text, err := storebun.DDL(name, 2); err != nil || text != "" {
			t.Errorf("DDL(%v, 2): %v, %s, want nothing", name, err, text)
		}
	}
	for _, from := range []int{-1, 3} {
		if _, err := storebun.DDL(dialect.SQLite, from); err == nil {
			t.Errorf("DDL from version %d succeeded", from)
		}
	}
	if _, err := storebun.DDL(dialect.Oracle, 0); err == nil {
		t.Errorf("DDL for Oracle succeeded")
	}
}

// Transactions that read first lock before they read, or they would have read in
// vain.
func TestWritersWaitForTheirTurn(t *testing.T) {
	hook := &recorder{}
	db := openFile(t, wal)
	if err := storebun.CreateSchema(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, db.WithQueryHook(hook), storebun.Options{})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			a := reset.Activation{
				Hash: sha256.Sum256([]byte{byte(i)}), Request: id(i), UserID: fmt.Sprint("user ", i%10), Expires: start.Add(time.Hour),
			}
			if _, err := s.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 3}, nil); err != nil && !errors.Is(err, reset.ErrTooManyRequests) {
				t.Errorf("Issue: %v", err)
			}
		})
	}
	wg.Wait()
	for _, err := range hook.errs {
		t.Errorf("a statement failed: %v", err)
	}
}

// The host's hooks see the statements as they are sent, with strings in
// hexadecimal: no character in them can have a meaning.
func TestQueryHooks(t *testing.T) {
	hook := &recorder{}
	db := openFile(t, wal).WithQueryHook(hook)
	s := newStore(t, db, storebun.Options{})
	hook.queries = nil
	m := reset.Mail{ID: id(1), Kind: reset.MailReset, Email: "it's@example.com", Due: start, Expires: start.Add(time.Hour)}
	if err := s.Enqueue(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("X'%x'", m.Email)
	if len(hook.queries) != 1 || !strings.Contains(hook.queries[0], want) {
		t.Errorf("Enqueue made the queries %q, want one with %s", hook.queries, want)
	}
}

// A recorder is a query hook that keeps what it sees.
type recorder struct {
	mu      sync.Mutex
	queries []string
	errs    []error
}

func (r *recorder) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (r *recorder) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queries = append(r.queries, e.Query)
	if e.Err != nil {
		r.errs = append(r.errs, e.Err)
	}
}

// The core knows neither bun nor a driver, and storebun no driver.
func TestImports(t *testing.T) {
	for pkg, forbidden := range map[string][]string{
		"github.com/gopassreset/reset":           {"github.com/uptrace/", "modernc.org/", "database/sql"},
		"github.com/gopassreset/reset/store_sql": {"github.com/uptrace/", "modernc.org/"},
		"github.com/gopassreset/reset/store_bun": {"modernc.org/", "sqlitedialect", "pgdialect", "mysqldialect"},
	} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		for dep := range strings.Lines(string(out)) {
			if slices.ContainsFunc(forbidden, func(s string) bool { return strings.Contains(dep, s) }) {
				t.Errorf("%s depends on %s", pkg, dep)
			}
		}
	}
}
