// Package bunpool is the pool of package sqlstore on a *bun.DB, apart from it so
// that hosts without bun do not link bun.
package bunpool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"

	"github.com/gopassreset/reset/internal/sqlstore"
)

// New returns a Pool.
func New(db *bun.DB) (sqlstore.Pool, error) {
	if db == nil {
		return sqlstore.Pool{}, errors.New("db is nil")
	}
	d, err := DialectOf(db)
	if err != nil {
		return sqlstore.Pool{}, err
	}
	return sqlstore.Pool{
		Conn:     on(db, db.DB),
		Dialect:  d,
		Database: db.DB,
		BeginTx:  func(ctx context.Context, o *sql.TxOptions) (*sqlstore.Tx, error) { return begun(db.BeginTx(ctx, o)) },
		Session: func(ctx context.Context) (*sqlstore.Session, error) {
			conn, err := db.Conn(ctx)
			if err != nil {
				return nil, err
			}
			return Session(conn), nil
		},
		Size: func() int { return db.Stats().MaxOpenConnections },
	}, nil
}

// Session returns a Session on a connection.
func Session(conn bun.Conn) *sqlstore.Session {
	return &sqlstore.Session{
		Conn:    on(conn, conn.Conn),
		BeginTx: func(ctx context.Context, o *sql.TxOptions) (*sqlstore.Tx, error) { return begun(conn.BeginTx(ctx, o)) },
		Close:   conn.Close,
		Raw:     conn.Conn,
	}
}

func begun(tx bun.Tx, err error) (*sqlstore.Tx, error) {
	if err != nil {
		return nil, err
	}
	return sqlstore.NewTx(on(tx, tx.Tx), tx, tx.Tx, tx.Commit, tx.Rollback), nil
}

// WithTx returns a context that carries tx.
func WithTx(ctx context.Context, tx bun.Tx) context.Context {
	return sqlstore.WithConn(ctx, tx, tx.Tx, func(*sqlstore.Dialect) sqlstore.Conn { return on(tx, tx.Tx) })
}

// DialectOf returns the dialect of a database.
func DialectOf(db *bun.DB) (*sqlstore.Dialect, error) { return DialectNamed(db.Dialect().Name()) }

// DialectNamed returns the dialect that has a name in bun.
func DialectNamed(name dialect.Name) (*sqlstore.Dialect, error) {
	switch name {
	case dialect.SQLite:
		return sqlstore.SQLite, nil
	case dialect.PG:
		return sqlstore.PostgreSQL, nil
	case dialect.MySQL:
		return sqlstore.MySQL, nil
	}
	return nil, fmt.Errorf("%v is neither SQLite nor PostgreSQL nor MySQL", name)
}
