// Package storebun keeps the records of package reset in the database that the
// host has already, through its own *bun.DB: SQLite, PostgreSQL (9.5 or later),
// MySQL (8 or later) or MariaDB (10.6 or later), with any driver. It starts no
// goroutine, opens nothing and closes nothing.
//
//	if err := storebun.CreateSchema(ctx, db); err != nil { … }
//	store, err := storebun.New(ctx, db)
//
// # One transaction
//
// A password is saved in the transaction that uses up the activation, ends the
// other activations of the user and queues the mail that tells of it. For that
// the host's SetPassword writes through the transaction, which its context
// leads to:
//
//	func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
//		db := storebun.IDB(ctx, u.db)
//		_, err := db.NewUpdate().Table("users").Set("hash = ?", hash).Where("id = ?", userID).Exec(ctx)
//		return err
//	}
//
// A host that uses database/sql takes [Tx] instead. The transaction is READ
// COMMITTED on PostgreSQL and MySQL. On SQLite, where a host that forgets it
// would wait for itself, SetPassword has 2 s; for the lock a call waits as the
// host's busy_timeout says. Package storesqlite gets it sooner where much is
// written.
//
// Where the users are in another database, say so with [Options].
package storebun

import (
	"context"
	"fmt"
	"strings"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/sqlstore"
)

var _ reset.Store = (*Store)(nil)

// A Store is a reset.Store, whose methods it has, in a database of the host.
// Times are kept as Unix milliseconds and strings as bytes.
//
// Where the context has a transaction, of [WithTx] or of SetPassword, Revoke
// joins it; the other methods never do.
type Store struct{ *store }

type store = sqlstore.Store

// Options say what is different from the default.
type Options struct {
	// UsersElsewhere says that the host's users are not in the store's
	// database, so that SetPassword can't take part in its transaction; see
	// reset.Store.Redeem for what is promised then.
	UsersElsewhere bool
}

// New returns a Store on a database in which [CreateSchema] has been called and
// the host keeps its users, too. It fails if the schema is missing or of
// another version, and if the server or a setting of it would not let the Store
// keep its promises. db stays the host's.
func New(ctx context.Context, db *bun.DB) (*Store, error) { return Options{}.New(ctx, db) }

// New is like the function New, with options.
func (o Options) New(ctx context.Context, db *bun.DB) (*Store, error) {
	s, err := o.new(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("storebun: %w", err)
	}
	return s, nil
}

func (o Options) new(ctx context.Context, db *bun.DB) (*Store, error) {
	d, err := sqlstore.DialectOf(db)
	if err != nil {
		return nil, err
	}
	schema, err := sqlstore.SchemaOf(db.Dialect().Name())
	if err != nil {
		return nil, err
	}
	if err := schema.Check(ctx, db); err != nil {
		return nil, err
	}
	s := sqlstore.New(backend{db, d}, d, o.UsersElsewhere)
	if err := sqlstore.Probe(ctx, s); err != nil {
		return nil, err
	}
	return &Store{s}, nil
}

// CreateSchema creates the tables of the Store, whose names begin with
// "reset_", or brings those of an older release up to date. It may be called
// every time a process starts, also by several at once.
func CreateSchema(ctx context.Context, db *bun.DB) error {
	schema, err := sqlstore.SchemaOf(db.Dialect().Name())
	if err == nil {
		err = schema.Create(ctx, db)
	}
	if err != nil {
		return fmt.Errorf("storebun: create schema: %w", err)
	}
	return nil
}

// DDL returns what CreateSchema does to a database whose schema has the version
// from, as SQL text, for hosts that have their own migrations. In version 0
// there is nothing yet; the version of a database is in its table reset_schema.
func DDL(name dialect.Name, from int) (string, error) {
	schema, err := sqlstore.SchemaOf(name)
	if err != nil {
		return "", fmt.Errorf("storebun: %w", err)
	}
	script, err := schema.Script(from)
	if err != nil {
		return "", fmt.Errorf("storebun: %w", err)
	}
	var text strings.Builder
	for _, statement := range script {
		text.WriteString(statement + ";\n\n")
	}
	return text.String(), nil
}

// IDB returns the transaction that ctx leads to, or db if there is none.
func IDB(ctx context.Context, db bun.IDB) bun.IDB {
	if tx, ok := sqlstore.TxFrom(ctx); ok {
		return tx
	}
	return db
}

// Tx returns the transaction that ctx leads to, for hosts that use
// database/sql: its field Tx is the *sql.Tx. It is not to be committed or
// rolled back.
func Tx(ctx context.Context) (tx bun.Tx, ok bool) { return sqlstore.TxFrom(ctx) }

// WithTx returns a context with which reset.Service.Revoke joins tx, a
// transaction of the host on the store's database: what is revoked is revoked
// when tx is committed. If Revoke fails, tx must be rolled back. Call it before
// the user's row is written: a reset takes its locks in that order. On MySQL tx
// should be READ COMMITTED: at REPEATABLE READ, its default, requests of other
// users may wait until tx is over. As any transaction, tx may be the one that a
// server undoes to end a deadlock; only the host can run it again.
func WithTx(ctx context.Context, tx bun.Tx) context.Context { return sqlstore.WithTx(ctx, tx) }

// A backend uses the pool of the host.
type backend struct {
	db *bun.DB
	d  *sqlstore.Dialect
}

func (b backend) Read(ctx context.Context, f sqlstore.Op) error { return b.WriteOne(ctx, f) }

func (b backend) WriteOne(ctx context.Context, f sqlstore.Op) error {
	return b.d.Retry(ctx, func() error { return f(ctx, b.db) })
}

func (b backend) Write(ctx context.Context, f sqlstore.Op) error {
	return sqlstore.InTx(ctx, b.d, b.Begin, f)
}

func (b backend) Begin(ctx context.Context) (*sqlstore.Tx, error) {
	if !b.d.IsSQLite() {
		tx, err := b.db.BeginTx(ctx, b.d.TxOptions)
		return sqlstore.NewTx(tx), err
	}
	conn, err := b.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	giveBack := func() { _ = conn.Close() }
	tx, err := sqlstore.BeginSQLite(ctx, b.d, conn, giveBack)
	if err != nil {
		giveBack()
	}
	return tx, err
}
