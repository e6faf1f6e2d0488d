package servertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/mysqldialect"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
	storepgx "github.com/gopassreset/reset/store_pgx"
	storesql "github.com/gopassreset/reset/store_sql"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// sqliteFile is the third database. It needs no server.
var sqliteFile = server{name: "SQLite", kind: kindSQLite}

// onAll runs f on each server and on SQLite, side by side.
func onAll(t *testing.T, f func(t *testing.T, s server)) {
	t.Run(sqliteFile.name, func(t *testing.T) {
		t.Parallel()
		f(t, sqliteFile)
	})
	onEach(t, func(t *testing.T, s server) {
		t.Parallel()
		f(t, s)
	})
}

// A place is where a host keeps its tables and the store's: a database that any
// number of processes can open.
type place struct {
	Kind      kind
	API       api
	DSN       string
	Elsewhere string // the DSN of the users' database, if it is another one
}

// newPlace makes a place that is gone when the test is over.
func newPlace(t testing.TB, s server, elsewhere bool) place {
	t.Helper()
	p := place{Kind: s.kind, API: s.api, DSN: newDSN(t, s)}
	if elsewhere {
		p.Elsewhere = newDSN(t, s)
	}
	p.createUsers(t)
	return p
}

func (p place) createUsers(t testing.TB) {
	t.Helper()
	h := openHost(t, p)
	for _, create := range []string{
		"CREATE TABLE users (id VARCHAR(255) NOT NULL PRIMARY KEY, email VARCHAR(255) NOT NULL, hash VARCHAR(255) NOT NULL)",
		"CREATE UNIQUE INDEX users_email ON users (email)",
		"CREATE TABLE sessions (user_id VARCHAR(255) NOT NULL PRIMARY KEY)", // a replication group insists on a key
	} {
		if _, err := h.users.db.ExecContext(t.Context(), create); err != nil {
			t.Fatal(err)
		}
	}
	h.close()
}

func newDSN(t testing.TB, s server) string {
	t.Helper()
	if s.kind == kindSQLite {
		return filepath.Join(t.TempDir(), "app.db")
	}
	address, name := s.address(t), freshName()
	create, drop := "CREATE SCHEMA "+name, "DROP SCHEMA "+name
	driver := "pgx"
	dsn := ""
	if s.kind == kindMySQL {
		config, err := mysql.ParseDSN(address)
		if err != nil {
			t.Fatal(err)
		}
		config.DBName = name
		driver, dsn = "mysql", config.FormatDSN()
	} else {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("search_path", name)
		q.Set("application_name", name) // distinguishes its connections from those of other places
		u.RawQuery = q.Encode()
		dsn, drop = u.String(), drop+" CASCADE"
	}
	admin, err := sql.Open(driver, address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.ExecContext(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer admin.Close()
		if _, err := admin.ExecContext(context.WithoutCancel(t.Context()), drop); err != nil {
			t.Error(err)
		}
	})
	return dsn
}

// A host has a place open.
type host struct {
	place
	store reset.Store
	db    *bun.DB    // the store's
	pools *connected // nil on storesqlite
	users accounts
	close func()
}

const hostConns = 12

func (p place) open(ctx context.Context) (*host, error) {
	h := &host{place: p}
	var err error
	if p.Kind == kindSQLite && p.API == apiBun {
		store, err := storesqlite.OpenWith(p.DSN, storesqlite.Options{UsersElsewhere: p.Elsewhere != ""})
		if err != nil {
			return nil, err
		}
		h.store, h.db = store, store.DB()
		h.close = func() { store.Close() }
	} else {
		if h.db, err = openDB(p.Kind, p.DSN); err != nil {
			return nil, err
		}
		store, err := connect(ctx, p.API, h.db, p.Elsewhere != "")
		if err != nil {
			return nil, err
		}
		h.store, h.pools = store.wholeStore, store
		h.close = func() { store.close(); h.db.Close() }
	}
	h.users = accounts{h.db}
	if p.Elsewhere != "" {
		if h.users.db, err = openDB(p.Kind, p.Elsewhere); err != nil {
			return nil, err
		}
		closeStore := h.close
		h.close = func() { closeStore(); h.users.db.Close() }
	}
	return h, nil
}

func openDB(k kind, dsn string) (*bun.DB, error) {
	var db *bun.DB
	switch k {
	case kindSQLite:
		sqldb, err := sql.Open("sqlite", "file:"+dsn+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_txlock=immediate")
		if err != nil {
			return nil, err
		}
		db = bun.NewDB(sqldb, sqlitedialect.New())
	case kindPostgres:
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			return nil, err
		}
		db = bun.NewDB(stdlib.OpenDB(*config), pgdialect.New())
	default:
		config, err := mysql.ParseDSN(dsn)
		if err != nil {
			return nil, err
		}
		config.Logger = &mysql.NopLogger{} // it logs every connection that a test cuts
		connector, err := mysql.NewConnector(config)
		if err != nil {
			return nil, err
		}
		db = bun.NewDB(sql.OpenDB(connector), mysqldialect.New())
	}
	db.SetMaxOpenConns(hostConns)
	db.SetMaxIdleConns(hostConns)
	return db, nil
}

func openHost(t testing.TB, p place) *host {
	t.Helper()
	h, err := p.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h
}

// settled waits until the servers have ended what was cut off, by a cancelled
// call, a lost connection or the death of a process: what was sent by then still
// comes true. others have the same place open.
func (h *host) settled(t *testing.T, others ...*host) {
	t.Helper()
	if h.Kind == kindSQLite {
		return
	}
	all := append(others, h)
	awaitQuiet(t, h.Kind, h.db, func() (n int) {
		for _, h := range all {
			n += h.pools.connections()
		}
		return n
	})
	if h.users.db != h.db {
		awaitQuiet(t, h.Kind, h.users.db, func() (n int) {
			for _, h := range all {
				n += h.users.db.Stats().OpenConnections
			}
			return n
		})
	}
}

// awaitQuiet waits until a database has no transaction and no more connections
// than are open.
func awaitQuiet(t *testing.T, k kind, db *bun.DB, open func() int) {
	t.Helper()
	if k == kindPgBouncer { // keeps connections of its own and may pass a statement on a little later
		quiet := 0
		poll(t, func() bool {
			quiet++
			if count(t, db, "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()") > 0 {
				quiet = 0
			}
			return quiet == 2
		})
		return
	}
	connections := "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = current_setting('application_name')"
	busy := func() int { return count(t, db, connections+" AND state <> 'idle' AND pid <> pg_backend_pid()") }
	if k == kindMySQL {
		connections = "SELECT COUNT(*) FROM " + threadsOf(t, db)
		busy = func() int { return transactions(t, db, ", ACTIVE ") }
	}
	poll(t, func() bool {
		n, err := number(t.Context(), db, connections) // fails on a node whose cluster has just lost another
		return err == nil && n <= open() && busy() == 0
	})
}

// transactions counts those of InnoDB in a database whose status line contains
// something. information_schema.innodb_trx would not do: it repeats its answer until
// nobody has queried it for 100 ms.
func transactions(t *testing.T, db *bun.DB, something string) (n int) {
	t.Helper()
	var kind, name, status, ids string
	if err := db.QueryRowContext(t.Context(), "SHOW ENGINE INNODB STATUS").Scan(&kind, &name, &status); err != nil {
		t.Fatal(err)
	}
	err := db.QueryRowContext(t.Context(), "SELECT CONCAT(',', GROUP_CONCAT(id), ',') FROM "+threadsOf(t, db)).Scan(&ids)
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(status, "LIST OF TRANSACTIONS FOR EACH SESSION")
	for _, text := range strings.Split(list, "---TRANSACTION ")[1:] {
		thread := threadID.FindStringSubmatch(text)
		if thread != nil && strings.Contains(ids, ","+thread[1]+",") && strings.Contains(text, something) {
			n++
		}
	}
	return n
}

// threadsOf returns a table of the ids of the connections to a database.
func threadsOf(t *testing.T, db *bun.DB) string {
	t.Helper()
	if isMariaDB(t, db) {
		return "(SELECT id FROM information_schema.processlist WHERE db = DATABASE()) threads"
	}
	// MySQL's processlist fails on a statement whose arguments are bytes.
	return "(SELECT processlist_id AS id FROM performance_schema.threads WHERE processlist_db = DATABASE()) threads"
}

func isMariaDB(t *testing.T, db *bun.DB) bool {
	t.Helper()
	return count(t, db, "SELECT VERSION() LIKE '%MariaDB%'") == 1
}

var threadID = regexp.MustCompile(`(?:MySQL|MariaDB) thread id (\d+)`)

// poll waits until done returns true, for at most 2 minutes.
func poll(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(2 * time.Minute); !done(); <-tick.C {
		if time.Now().After(late) {
			t.Fatal("timed out after 2 minutes")
		}
	}
}

// service returns a service that hands its mail to the server at an address.
func (h *host) service(mailServer string, log slog.Handler) (*reset.Service, error) {
	return reset.New(reset.Config{
		Users: h.users,
		Store: prompt(h.store),
		Mailer: &reset.SMTPMailer{
			Addr: mailServer, From: "Example <no-reply@example.com>", InsecureNoTLS: true,
		},
		BaseURL:   "https://app.example.com/account",
		PerClient: anybody{},
		Logger:    slog.New(log),
	})
}

// anybody is a limiter that limits nobody.
type anybody struct{}

func (anybody) Allow(context.Context, string, time.Time) error { return nil }

// prompt returns a store whose public requests are due at once.
func prompt(s reset.Store) reset.Store {
	return &resettest.FaultStore{Store: s, EnqueueFunc: func(ctx context.Context, m reset.Mail) error {
		m.Due = m.Expires.Add(-time.Hour)
		return s.Enqueue(ctx, m)
	}}
}

// drain runs the service until no mail is queued.
func (h *host) drain(ctx context.Context, service *reset.Service) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute) // a call that a server did not answer may leave leases, of 60 s
	defer cancel()
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- service.Run(run) }()
	err := h.waitUntilSent(ctx)
	stop()
	return errors.Join(err, <-ended)
}

func (h *host) waitUntilSent(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := number(ctx, h.db, "SELECT COUNT(*) FROM reset_mails")
		if err != nil {
			return err
		}
		if left == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d mails are left: %w", left, ctx.Err())
		}
	}
}

// number returns what a query has for its only result.
func number(ctx context.Context, db bun.IDB, query string, args ...any) (n int, err error) {
	err = db.QueryRowContext(ctx, query, args...).Scan(&n)
	return n, err
}

// accounts are the host's: a password and sessions for each user.
type accounts struct{ db *bun.DB }

func emailOf(user string) string { return user + "@example.com" }

func hashOf(password string) string { return "hash of " + password }

func (u accounts) add(t testing.TB, users ...string) {
	t.Helper()
	for _, user := range users {
		if _, err := u.db.ExecContext(t.Context(), "INSERT INTO users (id, email, hash) VALUES (?, ?, 'old')", user, emailOf(user)); err != nil {
			t.Fatal(err)
		}
		if _, err := u.db.ExecContext(t.Context(), "INSERT INTO sessions (user_id) VALUES (?)", user); err != nil {
			t.Fatal(err)
		}
	}
}

// state returns a user's password and how many sessions there are.
func (u accounts) state(t testing.TB, user string) (hash string, sessions int) {
	t.Helper()
	err := u.db.QueryRowContext(t.Context(),
		"SELECT hash, (SELECT COUNT(*) FROM sessions WHERE user_id = ?) FROM users WHERE id = ?", user, user).Scan(&hash, &sessions)
	if err != nil {
		t.Fatal(err)
	}
	return hash, sessions
}

func (u accounts) FindByEmail(ctx context.Context, address string) (user reset.User, err error) {
	err = u.db.QueryRowContext(ctx, "SELECT id, email FROM users WHERE email = ?", address).Scan(&user.ID, &user.Email)
	if errors.Is(err, sql.ErrNoRows) {
		return user, reset.ErrNoUser
	}
	return user, err
}

func (accounts) HashPassword(_ context.Context, password string) (string, error) {
	return hashOf(password), nil
}

func (u accounts) SetPassword(ctx context.Context, userID, hash string) error {
	_, joined := storesql.Tx(ctx)
	if _, ok := storepgx.Tx(ctx); ok || joined {
		return save(ctx, u.db, userID, hash)
	}
	return u.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error { return save(ctx, tx, userID, hash) })
}

func save(ctx context.Context, db bun.IDB, userID, hash string) error {
	n, err := execIn(ctx, db, "UPDATE users SET hash = ? WHERE id = ?", hash, userID)
	if err != nil {
		return err
	}
	if n == 0 {
		return reset.ErrNoUser
	}
	_, err = execIn(ctx, db, "DELETE FROM sessions WHERE user_id = ?", userID)
	return err
}

// mustExec makes a statement that must not fail.
func mustExec(t testing.TB, db bun.IDB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", strings.TrimSpace(query), err)
	}
}
