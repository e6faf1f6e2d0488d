// Package storepgx keeps the records of package reset in a PostgreSQL database
// (9.5 or later) that the host already has, through its own *pgxpool.Pool. It
// starts no goroutine, opens nothing and closes nothing.
//
//	if err := storepgx.CreateSchema(ctx, pool); err != nil { … }
//	store, err := storepgx.New(ctx, pool)
//
// The tables are those of packages storebun and storesql, and processes with any
// of these may share them. Here a transaction needs fewer round trips: BEGIN,
// COMMIT and statements without an answer travel with the next one.
//
// # One transaction
//
// A new password is saved in the transaction that redeems the activation, ends
// the user's other activations and queues the notification. Therefore the
// host's SetPassword writes through the transaction in its context, itself or
// with code that sqlc has generated:
//
//	func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
//		tx, ok := storepgx.Tx(ctx)
//		if !ok {
//			return fmt.Errorf("%w: no transaction", reset.ErrNotChanged)
//		}
//		queries := u.queries.WithTx(tx)
//		n, err := queries.SetPassword(ctx, db.SetPasswordParams{ID: userID, Hash: hash}) // an :execrows
//		if err == nil && n == 0 {
//			err = reset.ErrNoUser
//		}
//		if err != nil {
//			return err
//		}
//		return queries.DeleteSessions(ctx, userID)
//	}
//
// The transaction is READ COMMITTED. If the users are in another database, set
// [Options].UsersElsewhere.
//
// # Connection poolers
//
// Behind PgBouncer in transaction mode, or another pooler that gives each
// transaction any connection, the pool needs default_query_exec_mode=exec,
// cache_describe or simple_protocol in its connection string. [New] tries this
// out, on two connections at once.
package storepgx

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/sqlstore"
)

var (
	_ reset.ClockStore   = (*Store)(nil)
	_ reset.RealmStore   = (*Store)(nil)
	_ reset.HistoryStore = (*Store)(nil)
	_ reset.StatsStore   = (*Store)(nil)
)

// A Store implements reset.Store in a database of the host. Times are stored as
// Unix milliseconds and strings as bytes.
type Store struct{ sql *sqlstore.Store }

// Options change how a Store works. The zero value is the default.
type Options struct {
	// UsersElsewhere says that the host's users are not in the store's
	// database, so that SetPassword can't join its transaction;
	// [reset.Store].Redeem documents what is promised then. Defaults to false.
	UsersElsewhere bool
	// TablePrefix begins the names of the tables, with a schema in front if
	// they are not in the search path: "auth.reset_". It has lower-case letters,
	// digits, _ and at most one dot. Defaults to "reset_".
	TablePrefix string
}

// New returns a Store on a database that also holds the host's users, after
// [CreateSchema]. It fails if the schema is missing or has another version, and
// if the server or one of its settings would break a promise of the Store. pool
// stays the host's.
func New(ctx context.Context, pool *pgxpool.Pool) (*Store, error) {
	return NewWith(ctx, pool, Options{})
}

var errNoPool = errors.New("storepgx: pool is nil")

// NewWith is like New, with options.
func NewWith(ctx context.Context, pool *pgxpool.Pool, o Options) (*Store, error) {
	if pool == nil {
		return nil, errNoPool
	}
	s, err := poolOn(pool).Open(ctx, o.UsersElsewhere, o.TablePrefix)
	if err != nil {
		return nil, fmt.Errorf("storepgx: %w", err)
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
// [WithTx], or of a SetPassword that a Store on the same pool has called.
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

// Now implements [reset.ClockStore].
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
// starts; several may do so at once.
func CreateSchema(ctx context.Context, pool *pgxpool.Pool) error {
	return CreateSchemaWith(ctx, pool, Options{})
}

// CreateSchemaWith is like CreateSchema, for NewWith with the same options.
func CreateSchemaWith(ctx context.Context, pool *pgxpool.Pool, o Options) error {
	if pool == nil {
		return errNoPool
	}
	if err := poolOn(pool).CreateSchema(ctx, o.TablePrefix); err != nil {
		return fmt.Errorf("storepgx: create schema: %w", err)
	}
	return nil
}

// DDL returns as SQL what CreateSchema does to a database whose schema has
// version from, for hosts that run their own migrations. Version 0 has no
// tables; the table reset_schema holds a database's version.
func DDL(from int) (string, error) { return DDLWith(from, Options{}) }

// DDLWith is like DDL, for NewWith with the same options.
func DDLWith(from int, o Options) (string, error) {
	text, err := sqlstore.PostgreSQL.DDL(from, o.TablePrefix)
	if err != nil {
		return "", fmt.Errorf("storepgx: %w", err)
	}
	return text, nil
}

// Tx returns the transaction in ctx. The host must not commit it or roll it
// back.
func Tx(ctx context.Context) (tx pgx.Tx, ok bool) { return sqlstore.TxFrom[pgx.Tx](ctx) }

// WithTx returns a context with which [reset.Service].Revoke joins tx, a
// transaction of the host on the store's database: it takes effect when tx is
// committed. If Revoke fails, roll tx back. Call Revoke before writing the
// user's row, since a reset takes its locks in that order. The server may roll
// tx back to end a deadlock; only the host can run it again.
func WithTx(ctx context.Context, tx pgx.Tx) context.Context {
	return sqlstore.WithConn(ctx, tx, nil, func(*sqlstore.Dialect) sqlstore.Conn { return conn{tx} })
}
