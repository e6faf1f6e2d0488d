package storesql_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
	storesql "github.com/gopassreset/reset/store_sql"
)

// Package servertest has the tests on PostgreSQL and MariaDB.

var start = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

// openFile returns a database in a new file. Tests do not wait for the disk.
func openFile(t *testing.T, conns int) *sql.DB {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(conns)
	t.Cleanup(func() { db.Close() })
	return db
}

func newStore(t *testing.T, db *sql.DB, o storesql.Options) *storesql.Store {
	t.Helper()
	if err := storesql.CreateSchema(t.Context(), db, storesql.SQLite); err != nil {
		t.Fatal(err)
	}
	s, err := storesql.NewWith(t.Context(), db, storesql.SQLite, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	for name, conns := range map[string]int{"any number of connections": 0, "one connection": 1} {
		t.Run(name, func(t *testing.T) {
			resettest.TestStore(t, func(t *testing.T) reset.Store { return newStore(t, openFile(t, conns), storesql.Options{}) })
		})
	}
}

func TestStoreElsewhere(t *testing.T) {
	resettest.TestStoreElsewhere(t, func(t *testing.T) reset.Store {
		return newStore(t, openFile(t, 0), storesql.Options{UsersElsewhere: true})
	})
}

func TestWrongDialect(t *testing.T) {
	for _, d := range []storesql.Dialect{storesql.PostgreSQL, storesql.MySQL} {
		db := openFile(t, 1)
		_, err := storesql.New(t.Context(), db, d)
		for call, err := range map[string]error{"New": err, "CreateSchema": storesql.CreateSchema(t.Context(), db, d)} {
			if err == nil || !strings.Contains(err.Error(), "the database is SQLite, not ") {
				t.Errorf("%s: got error %v, want one that names the database", call, err)
			}
		}
	}
}

func id(n int) (id reset.ID) {
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

// A host has one user, "a", with the password "old" and an activation.
type host struct {
	*testing.T
	db         *sql.DB
	store      *storesql.Store
	activation reset.Activation
}

func newHost(t *testing.T, conns int) *host {
	t.Helper()
	db := openFile(t, conns)
	h := &host{t, db, newStore(t, db, storesql.Options{}), reset.Activation{
		Hash: sha256.Sum256([]byte("a")), Request: id(1), UserID: "a", Email: "a@example.com", Expires: start.Add(time.Hour),
	}}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE users (id TEXT PRIMARY KEY, hash TEXT); INSERT INTO users VALUES ('a', 'old')"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.store.Issue(t.Context(), start, h.activation, reset.Limits{MaxRequests: 1}, nil); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) redeem(apply func(context.Context) error) error {
	notification := reset.Mail{ID: id(2), Kind: reset.MailNotification, UserID: "a", Email: "a@example.com", Due: start, Expires: start.Add(time.Hour)}
	return h.store.Redeem(h.Context(), start, h.activation, notification, apply)
}

// want checks the password, and that the activation agrees.
func (h *host) want(password string) {
	h.Helper()
	var got string
	var activations int
	err := h.db.QueryRowContext(h.Context(), "SELECT hash, (SELECT COUNT(*) FROM reset_activations) FROM users").Scan(&got, &activations)
	if err != nil || got != password || (activations == 0) != (password == "new") {
		h.Errorf("got password %q with %d activations, %v, want %q", got, activations, err, password)
	}
}

const update = "UPDATE users SET hash = 'new' WHERE id = 'a'"

func TestOneTransaction(t *testing.T) {
	failure := errors.New("failure")
	for _, end := range []error{failure, nil} {
		h := newHost(t, 1)
		err := h.redeem(func(ctx context.Context) error {
			tx, ok := storesql.Tx(ctx)
			if !ok {
				t.Fatal("no transaction")
			}
			_, err := tx.ExecContext(ctx, update)
			return errors.Join(err, h.store.Revoke(ctx, start, "a", time.Time{}), end)
		})
		if !errors.Is(err, end) || end == nil && err != nil {
			t.Errorf("Redeem: got error %v, want %v", err, end)
		}
		h.want(map[bool]string{true: "new", false: "old"}[end == nil])
	}
}

func TestForgottenTransaction(t *testing.T) {
	h := newHost(t, 0)
	err := h.redeem(func(ctx context.Context) error {
		_, err := h.db.ExecContext(ctx, update)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "storesql.Tx") {
		t.Errorf("Redeem: got error %v, want one that says what was forgotten", err)
	}
	h.want("old")
}

func TestWithTx(t *testing.T) {
	for _, commit := range []bool{true, false} {
		h := newHost(t, 1) // a Revoke outside of the transaction would wait forever
		tx, err := h.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.store.Revoke(storesql.WithTx(t.Context(), tx), start, "a", time.Time{}); err != nil {
			t.Errorf("Revoke: %v", err)
		}
		end := tx.Rollback
		if commit {
			end = tx.Commit
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		_, err = h.store.Find(t.Context(), start, h.activation.Hash)
		if revoked := errors.Is(err, reset.ErrInvalidActivation); revoked != commit {
			t.Errorf("commit: %t, then Find returned %v", commit, err)
		}
	}
}

func TestWithoutTransaction(t *testing.T) {
	if _, ok := storesql.Tx(t.Context()); ok {
		t.Errorf("Tx without a transaction returned one")
	}
}

func TestNewRefuses(t *testing.T) {
	db := openFile(t, 0)
	for _, test := range []struct {
		dialect storesql.Dialect
		want    string
	}{
		{storesql.Dialect{}, "storesql: no dialect"},
		{storesql.SQLite, "CreateSchema"},
		{storesql.PostgreSQL, "the database is SQLite"},
	} {
		if _, err := storesql.New(t.Context(), db, test.dialect); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("New: got error %v, want one that says %q", err, test.want)
		}
	}
	if err := storesql.CreateSchema(t.Context(), db, storesql.Dialect{}); err == nil {
		t.Errorf("CreateSchema without a dialect succeeded")
	}
	if _, err := storesql.New(t.Context(), nil, storesql.SQLite); err == nil || err.Error() != "storesql: db is nil" {
		t.Errorf("New without a database: %v", err)
	}
}

func TestDDL(t *testing.T) {
	text, err := storesql.DDL(storesql.SQLite, 0)
	if err != nil {
		t.Fatal(err)
	}
	db := openFile(t, 0)
	if _, err := db.ExecContext(t.Context(), text); err != nil {
		t.Fatal(err)
	}
	if _, err := storesql.New(t.Context(), db, storesql.SQLite); err != nil {
		t.Errorf("New on what DDL creates: %v", err)
	}
	for _, test := range []struct {
		dialect storesql.Dialect
		from    int
	}{{storesql.Dialect{}, 0}, {storesql.MySQL, -1}} {
		if _, err := storesql.DDL(test.dialect, test.from); err == nil {
			t.Errorf("DDL(%v) succeeded", test)
		}
	}
}
