package servertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/bunpool"
	storebun "github.com/gopassreset/reset/store_bun"
	storesql "github.com/gopassreset/reset/store_sql"
)

// The host of these tests keeps its users in the store's database.

func createUsers(t *testing.T, db *bun.DB) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE users (id VARCHAR(255) NOT NULL PRIMARY KEY, hash VARCHAR(255) NOT NULL)"); err != nil {
		t.Fatal(err)
	}
}

func createUser(t *testing.T, db *bun.DB, id string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), "INSERT INTO users (id, hash) VALUES (?, 'old')", id); err != nil {
		t.Fatal(err)
	}
}

func setPassword(ctx context.Context, db *bun.DB, id, hash string) error {
	_, err := execIn(ctx, db, "UPDATE users SET hash = ? WHERE id = ?", hash, id)
	return err
}

func password(t *testing.T, db *bun.DB, id string) (hash string) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT hash FROM users WHERE id = ?", id).Scan(&hash); err != nil {
		t.Fatal(err)
	}
	return hash
}

// A host that writes past the transaction of Redeem is noticed. On a server
// nothing else shows it.
func TestTransactionUsed(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 2)
		store := newStore(t, db, storebun.Options{})
		createUsers(t, db)
		for i, test := range []struct {
			write func(context.Context, string) error
			used  bool
		}{
			{func(ctx context.Context, user string) error { return setPassword(ctx, db, user, "new") }, true},
			{func(ctx context.Context, user string) error {
				_, err := db.ExecContext(ctx, "UPDATE users SET hash = 'new' WHERE id = ?", user)
				return err
			}, false},
			{func(ctx context.Context, user string) error { // a function that other changes of a password use as well
				_, err := db.ExecContext(ctx, "UPDATE users SET hash = 'new' WHERE id = ?", user)
				return errors.Join(err, store.Revoke(ctx, start, user, time.Time{}))
			}, false},
		} {
			user := fmt.Sprint("user", i)
			createUser(t, db, user)
			a := activation(1+i, user)
			if _, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
				t.Fatal(err)
			}
			if err := store.Redeem(t.Context(), start, a, notification(10+i, user), func(ctx context.Context) error {
				err := test.write(ctx, user)
				if got := store.TransactionUsed(ctx); got != test.used {
					t.Errorf("%s: TransactionUsed = %v, want %v", user, got, test.used)
				}
				return err
			}); err != nil {
				t.Errorf("%s: %v", user, err)
			}
		}
	})
}

// One statement past the transaction waits for what that has locked, until the
// time of the request is over. The error says so.
func TestPartlyForgottenTransaction(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 2)
		store := newStore(t, db, storebun.Options{})
		createUsers(t, db)
		createUser(t, db, "a")
		a := activation(1, "a")
		if _, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := store.Redeem(ctx, start, a, notification(10, "a"), func(ctx context.Context) error {
			if err := setPassword(ctx, db, "a", "new"); err != nil {
				return err
			}
			_, err := db.ExecContext(ctx, "UPDATE users SET hash = 'newer' WHERE id = 'a'")
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "write all of them through it") {
			t.Errorf("Redeem: got error %v, want one that says what may have been forgotten", err)
		}
		if _, err := store.Find(t.Context(), start, a.Hash); err != nil {
			t.Errorf("Find: %v, want the activation still live", err)
		}
	})
}

func TestOneTransaction(t *testing.T) {
	failure := errors.New("failure")
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 2)
		store := newStore(t, db, storebun.Options{})
		createUsers(t, db)
		createUser(t, db, "a")
		a := activation(1, "a")
		if _, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, mailFor(a)); err != nil {
			t.Fatal(err)
		}
		bySQL := func(ctx context.Context) error {
			tx, ok := storebun.Tx(ctx)
			if !ok {
				return errors.New("no transaction")
			}
			_, err := tx.Tx.ExecContext(ctx, "UPDATE users SET hash = 'new' WHERE id = 'a'")
			return err
		}
		byBun := func(ctx context.Context) error { return setPassword(ctx, db, "a", "new") }
		for _, test := range []struct {
			name  string
			write func(context.Context) error
			end   func() error
		}{
			{"bun, failure", byBun, func() error { return failure }},
			{"bun, panic", byBun, func() error { panic(failure) }},
			{"database/sql, failure", bySQL, func() error { return failure }},
			{"database/sql, panic", bySQL, func() error { panic(failure) }},
			{"database/sql, success", bySQL, func() error { return nil }},
		} {
			var err error
			func() {
				defer func() {
					if p := recover(); p != nil {
						err = fmt.Errorf("panic: %v", p)
					}
				}()
				err = store.Redeem(t.Context(), start, a, notification(2, "a"), func(ctx context.Context) error {
					if err := test.write(ctx); err != nil {
						t.Errorf("%s: write: %v", test.name, err)
					}
					return test.end()
				})
			}()
			want, left := "old", 1
			if err == nil {
				want, left = "new", 0
			}
			if got := password(t, db, "a"); got != want {
				t.Errorf("%s: Redeem returned %v, and the password is %q, want %q", test.name, err, got, want)
			}
			if got := count(t, db, "SELECT COUNT(*) FROM reset_activations"); got != left {
				t.Errorf("%s: Redeem returned %v, and %d activations are left, want %d", test.name, err, got, left)
			}
		}
		if got := password(t, db, "a"); got != "new" {
			t.Errorf("after the last Redeem, the password is %q", got)
		}
	})
}

// A host that swallows the error that ended its transaction does not get success
// for half of it.
func TestStands(t *testing.T) {
	undo := map[kind]func(ctx context.Context, tx bun.Tx){
		kindPostgres: func(ctx context.Context, tx bun.Tx) {
			if _, err := tx.ExecContext(ctx, "SELECT 1/0"); err == nil {
				t.Error("1/0 is no error")
			}
		},
		kindMySQL: func(ctx context.Context, tx bun.Tx) { // as it does itself, for the victim of a deadlock
			if _, err := tx.ExecContext(ctx, "ROLLBACK"); err != nil {
				t.Errorf("ROLLBACK: %v", err)
			}
		},
	}
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 2)
		store := newStore(t, db, storebun.Options{})
		a := activation(1, "a")
		if _, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, mailFor(a)); err != nil {
			t.Fatal(err)
		}
		err := store.Redeem(t.Context(), start, a, notification(2, "a"), func(ctx context.Context) error {
			tx, ok := storebun.Tx(ctx)
			if !ok {
				return errors.New("no transaction")
			}
			undo[s.kind](ctx, tx)
			return nil
		})
		if err == nil || errors.Is(err, reset.ErrInvalidActivation) {
			t.Errorf("Redeem in a transaction that was undone: got error %v, want a failure", err)
		}
		if _, err := store.Find(t.Context(), start, a.Hash); err != nil {
			t.Errorf("afterwards, Find: %v", err)
		}
		mails, err := store.Lease(t.Context(), start, start.Add(time.Minute), 9)
		if err != nil || len(mails) != 1 || mails[0].ID != a.Request {
			t.Errorf("afterwards, Lease: got %+v, %v, want the reset mail", mails, err)
		}
	})
}

func TestWithTx(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 2)
		store := newStore(t, db, storebun.Options{})
		a := activation(1, "a")
		if _, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
			t.Fatal(err)
		}
		for _, result := range []error{errors.New("failure"), nil} {
			err := db.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
				if err := store.Revoke(storebun.WithTx(ctx, tx), start, "a", time.Time{}); err != nil {
					t.Errorf("Revoke: %v", err)
				}
				return result
			})
			if !errors.Is(err, result) {
				t.Fatal(err)
			}
			_, err = store.Find(t.Context(), start, a.Hash)
			if revoked := errors.Is(err, reset.ErrInvalidActivation); revoked != (result == nil) {
				t.Errorf("the host's transaction ended with %v, then Find returned %v", result, err)
			}
		}
	})
}

// Collations do not apply to the store's strings.
func TestCollations(t *testing.T) {
	lookalikes := []string{"mike", "MIKE", "Mike", "mıke", "mike ", "mike  ", "mike\x00", "míke", "ｍike", "miKe", "mi\u212ae", "ﬁ", "fi", "ſ", "s", "ß", "ss"}
	if len(slices.Compact(slices.Sorted(slices.Values(lookalikes)))) != len(lookalikes) {
		t.Fatal("a lookalike is there twice")
	}
	onEach(t, func(t *testing.T, s server) {
		store := s.store(t, 2, storebun.Options{})
		for i, name := range lookalikes {
			if _, err := store.Issue(t.Context(), start, activation(i, name), reset.Limits{MaxRequests: 1}, nil); err != nil {
				t.Errorf("Issue for %q: %v", name, err)
			}
		}
		for i, name := range lookalikes {
			if err := store.Revoke(t.Context(), start, name, time.Time{}); err != nil {
				t.Errorf("Revoke of %q: %v", name, err)
			}
			for j, other := range lookalikes[i:] {
				if got, err := store.Find(t.Context(), start, activation(i+j, other).Hash); j == 0 != (err != nil) || err == nil && got.UserID != other {
					t.Errorf("Find for %q after Revoke of %q: %q, %v", other, name, got.UserID, err)
				}
			}
		}
	})
}

// A Dialect that is not the database's is named instead of what it breaks.
func TestWrongDialect(t *testing.T) {
	dialects := map[kind]storesql.Dialect{kindSQLite: storesql.SQLite, kindPostgres: storesql.PostgreSQL, kindMySQL: storesql.MySQL}
	onEach(t, func(t *testing.T, s server) {
		for _, db := range []*bun.DB{s.empty(t, 1), s.open(t, 2)} {
			for name, d := range dialects {
				if name == s.kind {
					continue
				}
				_, err := storesql.New(t.Context(), db.DB, d)
				for call, err := range map[string]error{"New": err, "CreateSchema": storesql.CreateSchema(t.Context(), db.DB, d)} {
					if want := "the database is " + string(s.kind); err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("%s with the dialect of %s: got error %v, want %q in it", call, name, err, want)
					}
				}
			}
		}
	})
}

func TestCreateSchemaAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.empty(t, 10)
		createSchemaAtOnce(t, db)
		newStore(t, db, storebun.Options{})
	})
}

// createSchemaAtOnce does what processes do that start together.
func createSchemaAtOnce(t *testing.T, db *bun.DB) {
	t.Helper()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := storebun.CreateSchema(t.Context(), db); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A database of version 1 has rows, and a migration that failed half-way.
func TestMigration(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.empty(t, 10)
		pool, err := bunpool.New(db)
		if err != nil {
			t.Fatal(err)
		}
		schema, err := pool.Dialect.Schema()
		if err != nil {
			t.Fatal(err)
		}
		if err := schema[:1].Create(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
		a, expires := activation(1, "a"), start.Add(time.Hour).UnixMilli()
		mustExec(t, db, "INSERT INTO reset_activations VALUES (?, ?, ?, ?, ?, NULL)", a.Hash[:], a.Request[:], []byte("a"), []byte(a.Email), expires)
		for n, kind := range []string{"reset", "notice"} {
			mail := id(1 + n)
			mustExec(t, db, "INSERT INTO reset_mails VALUES (?, ?, ?, ?, NULL, NULL, ?, ?, 2, NULL)", mail[:], []byte(kind), []byte("a"), []byte(a.Email), start.UnixMilli()+int64(n), expires)
		}
		mustExec(t, db, "INSERT INTO reset_locks VALUES (?, NULL, 0, ?)", []byte("a"), expires)
		for n := range len(schema[1]) {
			broken := slices.Concat(schema[:1], [][]string{append(slices.Clone(schema[1][:n]), "SYNTAX ERROR")})
			if err := broken.Create(t.Context(), pool); err == nil {
				t.Errorf("a migration with an error succeeded")
			}
		}
		createSchemaAtOnce(t, db)
		store := newStore(t, db, storebun.Options{})
		mails, err := store.Lease(t.Context(), start.Add(time.Second), start.Add(time.Minute), 9)
		if err != nil || len(mails) != 2 || mails[0].Kind != reset.MailReset || mails[1].Kind != reset.MailNotification || mails[1].Attempts != 3 {
			t.Errorf("Lease after the migration: %+v, %v", mails, err)
		}
		if got, err := store.Find(t.Context(), start, a.Hash); err != nil || got != a {
			t.Errorf("Find after the migration: got %+v, %v, want %+v", got, err, a)
		}
		if err := store.Redeem(t.Context(), start, a, notification(3, "a"), func(context.Context) error { return nil }); err != nil {
			t.Errorf("Redeem after the migration: %v", err)
		}
	})
}

func TestDDL(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.empty(t, 2)
		text, err := storebun.DDL(db.Dialect().Name(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for statement := range strings.SplitSeq(text, ";\n") {
			if statement = strings.TrimSpace(statement); statement == "" {
				continue
			}
			if _, err := db.ExecContext(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
		newStore(t, db, storebun.Options{})
		if err := storebun.CreateSchema(t.Context(), db); err != nil {
			t.Errorf("CreateSchema on what DDL creates: %v", err)
		}
	})
}

// Two stores keep their tables apart by their names, one of them in another
// schema or database.
func TestTablePrefix(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.empty(t, 10)
		elsewhere := freshName()
		create, drop := "CREATE SCHEMA "+elsewhere, "DROP SCHEMA "+elsewhere
		if s.kind == kindPostgres {
			drop += " CASCADE"
		}
		mustExec(t, db, create)
		t.Cleanup(func() {
			if _, err := db.ExecContext(context.WithoutCancel(t.Context()), drop); err != nil {
				t.Error(err)
			}
		})
		for _, prefix := range []string{"", "my_", elsewhere + ".reset_", elsewhere + ".my_"} {
			o := storebun.Options{TablePrefix: prefix}
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					if err := storebun.CreateSchemaWith(t.Context(), db, o); err != nil {
						t.Errorf("CreateSchemaWith %q: %v", prefix, err)
					}
				})
			}
			wg.Wait()
			store := newStore(t, db, o)
			useOnce(t, prefix, store)
			a := activation(70, "b")
			if _, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
				t.Errorf("%q: Issue: %v", prefix, err)
			}
			err := store.Redeem(t.Context(), start, a, notification(71, "b"), func(ctx context.Context) error {
				return store.Revoke(ctx, start, "b", start.Add(time.Hour))
			})
			if err != nil {
				t.Errorf("%q: Redeem with a Revoke: %v", prefix, err)
			}
			if err := revokeInTx(t.Context(), db, store, "b"); err != nil {
				t.Errorf("%q: Revoke in a transaction of the host: %v", prefix, err)
			}
			if _, err := store.Now(t.Context()); err != nil {
				t.Errorf("%q: Now: %v", prefix, err)
			}
			if _, err := store.Stats(t.Context(), start); err != nil {
				t.Errorf("%q: Stats: %v", prefix, err)
			}
		}
		if got := count(t, db, "SELECT COUNT(*) FROM information_schema.tables WHERE table_name IN ('my_mails', 'reset_mails') AND table_schema IN ('"+elsewhere+"', "+
			map[kind]string{kindPostgres: "CURRENT_SCHEMA()", kindMySQL: "DATABASE()"}[s.kind]+")"); got != 4 {
			t.Errorf("there are %d tables of mails, want 4", got)
		}
	})
}

// A table of the host that has one of the names is not adopted.
func TestForeignTables(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		for _, table := range []string{"reset_activations", "reset_mails", "reset_locks", "reset_history", "reset_realms", "reset_schema"} {
			db := s.empty(t, 1)
			mustExec(t, db, "CREATE TABLE "+table+" (id INTEGER NOT NULL PRIMARY KEY, owner INTEGER)")
			if err := storebun.CreateSchema(t.Context(), db); err == nil || !strings.Contains(err.Error(), table) && !strings.Contains(err.Error(), "version") {
				t.Errorf("CreateSchema beside a host's %s: %v", table, err)
			}
			if got := count(t, db, "SELECT COUNT(*) FROM "+table+" WHERE owner IS NULL"); got != 0 {
				t.Errorf("the host's %s has %d rows", table, got)
			}
		}
	})
}

func TestNewRefuses(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		tests := []struct{ name, spoil, want string }{
			{"no schema", "DROP TABLE reset_schema", "CreateSchema"},
			{"a column missing", "ALTER TABLE reset_mails DROP COLUMN locale", "reset_mails"},
			{"a column of another type", map[kind]string{
				kindPostgres: "ALTER TABLE reset_history ALTER COLUMN user_id TYPE VARCHAR(300) USING 'x'",
				kindMySQL:    "ALTER TABLE reset_history MODIFY user_id VARCHAR(100) NOT NULL",
			}[s.kind], "reset_history"},
			{"newer", "UPDATE reset_schema SET version = 3", "newer release"},
			{"a table missing", "DROP TABLE reset_locks", "can't be written to"},
		}
		switch s.kind {
		case kindPostgres:
			tests = append(tests, []struct{ name, spoil, want string }{
				{"read-only", "SET default_transaction_read_only = on", "read-only"},
			}...)
		case kindMySQL:
			tests = append(tests, []struct{ name, spoil, want string }{
				{"autocommit", "SET autocommit = 0", "autocommit"},
				{"completion type", "SET completion_type = CHAIN", "completion_type"},
				{"select limit", "SET sql_select_limit = 1000", "sql_select_limit"},
				{"engine", "ALTER TABLE reset_locks ENGINE = MyISAM", "InnoDB"},
				{"read-only", "SET SESSION TRANSACTION READ ONLY", "READ ONLY"},
			}...)
		}
		for _, test := range tests {
			db := s.open(t, 1) // what is set is so for the only connection
			if _, err := db.ExecContext(t.Context(), test.spoil); err != nil {
				t.Fatal(err)
			}
			_, err := storebun.New(t.Context(), db)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: got error %v, want one that says %q", test.name, err, test.want)
			}
		}
	})
}

// The settings of hosts and servers do not matter.
func TestSettings(t *testing.T) {
	settings := map[dialect.Name][]string{
		dialect.PG: {
			"default_transaction_isolation = 'serializable'",
			"standard_conforming_strings = off",
			"default_transaction_isolation = 'repeatable read'",
			"bytea_output = 'escape'",
			"client_encoding = 'LATIN1'",
		},
		dialect.MySQL: {
			"SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
			"SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
			"sql_mode = ''",
			"sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH'",
			"names 'latin1'",
			"sql_safe_updates = 1",
		},
	}
	onEach(t, func(t *testing.T, s server) {
		for name, list := range settings {
			for _, setting := range list {
				db := s.open(t, 1)
				if db.Dialect().Name() != name {
					continue
				}
				if _, err := db.ExecContext(t.Context(), "SET "+setting); err != nil {
					t.Fatal(err)
				}
				useOnce(t, setting, newStore(t, db, storebun.Options{}))
			}
		}
	})
}

// useOnce calls every method.
func useOnce(t *testing.T, setting string, store reset.Store) {
	t.Helper()
	a := activation(1, "ä\\'\x00\xff")
	m := mailFor(a)
	ctx := t.Context()
	check := func(op string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %s: %v", setting, op, err)
		}
	}
	check("Enqueue", store.Enqueue(ctx, publicRequest(7)))
	_, err := store.Issue(ctx, start, a, reset.Limits{MaxRequests: 1}, m)
	check("Issue", err)
	if got, err := store.Find(ctx, start, a.Hash); err != nil || got != a {
		t.Errorf("%s: Find: got %+v, %v, want %+v", setting, got, err, a)
	}
	mails, err := store.Lease(ctx, start, start.Add(1), 9)
	if err != nil || len(mails) != 2 {
		t.Errorf("%s: Lease: got %+v, %v, want 2 mails", setting, mails, err)
	}
	for _, m := range mails {
		check("Settle", store.Settle(ctx, []reset.Settlement{{Mail: m.ID, Lease: m.Lease, Retry: start}}))
	}
	check("Redeem", store.Redeem(ctx, start, a, notification(3, a.UserID), func(context.Context) error { return nil }))
	check("Revoke", store.Revoke(ctx, start, a.UserID, time.Time{}))
	if n, _, err := store.Purge(ctx, a.Expires, 100); err != nil || n < 2 {
		t.Errorf("%s: Purge: got %d, %v, want at least the public request and the notification", setting, n, err)
	}
}
