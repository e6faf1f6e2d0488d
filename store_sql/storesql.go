// Package storesql keeps the records of package reset in a database that the
// host already has, through its own *sql.DB: SQLite, PostgreSQL (9.5 or later),
// MySQL (8 or later) or MariaDB (10.6 or later), with any driver. It starts no
// goroutine, opens nothing and closes nothing.
//
//	if err := storesql.CreateSchema(ctx, db, storesql.PostgreSQL); err != nil { … }
//	store, err := storesql.New(ctx, db, storesql.PostgreSQL)
//
// Hosts that use bun have package storebun, and those that use pgx without
// database/sql have package storepgx. The tables are the same, and processes
// with any of these may share them.
//
// # One transaction
//
// A new password is saved in the transaction that redeems the activation, ends
// the user's other activations and queues the notification. Therefore the
// host's SetPassword writes through the transaction in its context:
//
//	func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
//		tx, ok := storesql.Tx(ctx)
//		if !ok {
//			return fmt.Errorf("%w: no transaction", reset.ErrNotChanged)
//		}
//		result, err := tx.ExecContext(ctx, "UPDATE users SET hash = $1 WHERE id = $2", hash, userID)
//		if err != nil {
//			return err
//		}
//		if n, err := result.RowsAffected(); err != nil || n == 0 {
//			return errors.Join(err, reset.ErrNoUser)
//		}
//		_, err = tx.ExecContext(ctx, "DELETE FROM sessions WHERE user_id = $1", userID)
//		return err
//	}
//
// The transaction is READ COMMITTED on PostgreSQL and MySQL. On SQLite
// SetPassword has 2 s, since a host that bypasses the transaction blocks on its
// own lock; waiting for the lock is up to the host's busy_timeout, and New
// refuses a pool of several connections without one, as it does one on
// ":memory:", where each would have a database of its own. Package storesqlite
// gets the lock sooner where much is written.
//
// If the users are in another database, set [Options].UsersElsewhere.
//
// # Drivers
//
// On PostgreSQL the driver must take "$1" for an argument, as pgx and lib/pq do,
// and on the others "?". The driver of MySQL saves a round trip for each
// statement with "?interpolateParams=true" in its DSN.
//
// # Connection poolers
//
// Behind PgBouncer in transaction mode, or another pooler that gives each
// transaction any connection, pgx needs default_query_exec_mode=exec,
// cache_describe or simple_protocol in its connection string. [New] tries this
// out, on two connections at once, and errors that come from it say what to set.
//
// # Clusters
//
// On a MariaDB Galera cluster every connection needs wsrep_sync_wait = 7, with
// "?wsrep_sync_wait=7" in a DSN of go-sql-driver for instance, and in a MySQL
// replication group of several primaries group_replication_consistency = BEFORE.
// SetPassword may then run on two nodes at once for one user; one of the
// transactions is committed, the other one rolled back.
package storesql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/sqlstore"
)

var (
	_ reset.ClockStore   = (*Store)(nil)
	_ reset.RealmStore   = (*Store)(nil)
	_ reset.HistoryStore = (*Store)(nil)
	_ reset.StatsStore   = (*Store)(nil)
)

// A Dialect is a kind of database. The zero value is none.
type Dialect struct{ sql *sqlstore.Dialect }

// The dialects. MariaDB has that of MySQL.
var (
	SQLite     = Dialect{sqlstore.SQLite}
	PostgreSQL = Dialect{sqlstore.PostgreSQL}
	MySQL      = Dialect{sqlstore.MySQL}
)

var (
	errNoDialect = errors.New("no dialect: it must be storesql.SQLite, PostgreSQL or MySQL")
	errNoDB      = errors.New("db is nil")
)

func poolOn(db *sql.DB, d Dialect) (sqlstore.Pool, error) {
	switch {
	case d.sql == nil:
		return sqlstore.Pool{}, errNoDialect
	case db == nil:
		return sqlstore.Pool{}, errNoDB
	}
	return sqlstore.SQLPool(db, d.sql), nil
}

// A Store implements reset.Store in a database of the host. Times are stored as
// Unix milliseconds and strings as bytes.
type Store struct{ sql *sqlstore.Store }

// Options change how a Store works. The zero value is the default.
type Options struct {
	// UsersElsewhere says that the host's users are not in the store's
	// database, so that SetPassword can't join its transaction;
	// [reset.Store].Redeem documents what is promised then. Defaults to false.
	UsersElsewhere bool
	// TablePrefix begins the names of the tables, with a schema in front, or on
	// MySQL a database, if they are not in the connection's: "auth.reset_". It
	// has lower-case letters, digits, _ and at most one dot. Defaults to
	// "reset_".
	TablePrefix string
}

// New returns a Store on a database that also holds the host's users, after
// [CreateSchema]. It fails if the schema is missing or has another version, and
// if the server or one of its settings would break a promise of the Store. db
// stays the host's.
func New(ctx context.Context, db *sql.DB, d Dialect) (*Store, error) {
	return NewWith(ctx, db, d, Options{})
}

// NewWith is like New, with options.
func NewWith(ctx context.Context, db *sql.DB, d Dialect, o Options) (*Store, error) {
	s, err := newStore(ctx, db, d, o)
	if err != nil {
		return nil, fmt.Errorf("storesql: %w", err)
	}
	return s, nil
}

func newStore(ctx context.Context, db *sql.DB, d Dialect, o Options) (*Store, error) {
	pool, err := poolOn(db, d)
	if err != nil {
		return nil, err
	}
	s, err := pool.Open(ctx, o.UsersElsewhere, o.TablePrefix)
	if err != nil {
		return nil, err
	}
	return &Store{s}, nil
}

// Enqueue implements [reset.Store].
func (s *Store) Enqueue(ctx context.Context, m reset.Mail) error { return s.sql.Enqueue(ctx, m) }

// Issue implements [reset.Store].
func (s *Store) Issue(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
	return s.sql.Issue(ctx, now, a, limits, m)
}

// Find implements [reset.Store].
func (s *Store) Find(ctx context.Context, now time.Time, h reset.Hash) (reset.Activation, error) {
	return s.sql.Find(ctx, now, h)
}

// Redeem implements [reset.Store]. The context of apply carries the
// transaction, for [Tx], unless the users are elsewhere.
func (s *Store) Redeem(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	return s.sql.Redeem(ctx, now, a, notification, apply)
}

// TransactionUsed reports whether SetPassword has taken the transaction that ctx
// carries. It is true where the users are elsewhere.
func (s *Store) TransactionUsed(ctx context.Context) bool { return s.sql.TransactionUsed(ctx) }

// Revoke implements [reset.Store]. It joins the transaction in ctx: that of
// [WithTx], or of a SetPassword that a Store on the same db has called.
// EraseHistory does, and no other method.
func (s *Store) Revoke(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
	return s.sql.Revoke(ctx, now, userID, quiet)
}

// Lease implements [reset.Store].
func (s *Store) Lease(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
	return s.sql.Lease(ctx, now, until, n)
}

// Settle implements [reset.Store].
func (s *Store) Settle(ctx context.Context, done []reset.Settlement) error {
	return s.sql.Settle(ctx, done)
}

// Purge implements [reset.Store].
func (s *Store) Purge(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
	return s.sql.Purge(ctx, now, n)
}

// Realm implements [reset.RealmStore].
func (s *Store) Realm(name string) reset.Store { return &Store{s.sql.Realm(name)} }

// SetBaseURL implements [reset.RealmStore].
func (s *Store) SetBaseURL(ctx context.Context, baseURL string) (last string, err error) {
	return s.sql.SetBaseURL(ctx, baseURL)
}

// Now implements [reset.ClockStore]. SQLite has no clock of its own.
func (s *Store) Now(ctx context.Context) (time.Time, error) { return s.sql.Now(ctx) }

// Stats implements [reset.StatsStore].
func (s *Store) Stats(ctx context.Context, now time.Time) (reset.Stats, error) {
	return s.sql.Stats(ctx, now)
}

// Queued implements [reset.StatsStore].
func (s *Store) Queued(ctx context.Context, now time.Time, limit int) (int, error) {
	return s.sql.Queued(ctx, now, limit)
}

// Beat implements [reset.StatsStore].
func (s *Store) Beat(ctx context.Context, now time.Time, mailerFails bool) error {
	return s.sql.Beat(ctx, now, mailerFails)
}

// KeepHistory implements [reset.HistoryStore].
func (s *Store) KeepHistory(d time.Duration) { s.sql.KeepHistory(d) }

// History implements [reset.HistoryStore].
func (s *Store) History(ctx context.Context, now time.Time, userID string, n int) ([]reset.HistoryEntry, error) {
	return s.sql.History(ctx, now, userID, n)
}

// EraseHistory implements [reset.HistoryStore]. It joins the transaction in ctx,
// as Revoke does.
func (s *Store) EraseHistory(ctx context.Context, userID string) error {
	return s.sql.EraseHistory(ctx, userID)
}

// CreateSchema creates the Store's tables, whose names begin with "reset_", or
// brings those of an older release up to date. Call it whenever a process
// starts; several may do so at once. Where nothing is missing it needs no right
// to create tables.
func CreateSchema(ctx context.Context, db *sql.DB, d Dialect) error {
	return CreateSchemaWith(ctx, db, d, Options{})
}

// CreateSchemaWith is like CreateSchema, for NewWith with the same options.
func CreateSchemaWith(ctx context.Context, db *sql.DB, d Dialect, o Options) error {
	pool, err := poolOn(db, d)
	if err == nil {
		err = pool.CreateSchema(ctx, o.TablePrefix)
	}
	if err != nil {
		return fmt.Errorf("storesql: create schema: %w", err)
	}
	return nil
}

// DDL returns as SQL what CreateSchema does to a database whose schema has
// version from, for hosts that run their own migrations. Version 0 has no
// tables; the table reset_schema holds a database's version.
func DDL(d Dialect, from int) (string, error) { return DDLWith(d, from, Options{}) }

// DDLWith is like DDL, for NewWith with the same options.
func DDLWith(d Dialect, from int, o Options) (text string, err error) {
	err = errNoDialect
	if d.sql != nil {
		text, err = d.sql.DDL(from, o.TablePrefix)
	}
	if err != nil {
		return "", fmt.Errorf("storesql: %w", err)
	}
	return text, nil
}

// Tx returns the transaction in ctx. The host must not commit it or roll it
// back. It also returns that of package storebun or storesqlite.
func Tx(ctx context.Context) (tx *sql.Tx, ok bool) { return sqlstore.SQLTxFrom(ctx) }

// WithTx returns a context with which [reset.Service].Revoke joins tx, a
// transaction of the host on the store's database: it takes effect when tx is
// committed. If Revoke fails, roll tx back. Call Revoke before writing the
// user's row, since a reset takes its locks in that order. On MySQL, begin tx at
// READ COMMITTED: at REPEATABLE READ, its default, requests of other users may
// wait for the end of tx. A server may roll tx back to end a deadlock; only the
// host can run it again.
func WithTx(ctx context.Context, tx *sql.Tx) context.Context { return sqlstore.WithSQLTx(ctx, tx) }
