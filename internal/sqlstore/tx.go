package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/deadline"
	"github.com/gopassreset/reset/internal/failpoint"
)

// A Tx is a transaction on a connection that must be given back.
type Tx struct {
	Conn
	native     any     // as the host knows it: a bun.Tx, *sql.Tx or pgx.Tx
	sql        *sql.Tx // the same in database/sql, or nil
	doCommit   func() error
	doRollback func() error
	// over is called once Commit or Rollback has been tried, with the error of
	// Commit or errUndo. What it returns is the outcome.
	over func(err error) error
	// lent means that somebody else still uses the transaction and will end it.
	lent bool
}

var errUndo = errors.New("undo")

// NewTx returns a transaction with the statements of c. native is what a host
// joins, and sqlTx is that in database/sql, or nil.
func NewTx(c Conn, native any, sqlTx *sql.Tx, commit, rollback func() error) *Tx {
	return &Tx{Conn: c, native: native, sql: sqlTx, doCommit: commit, doRollback: rollback, over: func(err error) error { return err }}
}

func begin(ctx context.Context, p Pool) (*Tx, error) { return p.BeginTx(ctx, p.Dialect.TxOptions) }

func (t *Tx) commit() error {
	if err := t.over(t.doCommit()); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// commitInTime does not wait for an answer longer than ctx lasts. Some drivers
// do not bind COMMIT to the context of BEGIN; a server that has gone silent
// would hold the caller until TCP gives up.
func commitInTime(ctx context.Context, t *Tx) error {
	err, answered := deadline.Call(ctx, 0, t.commit, nil)
	if !answered {
		return fmt.Errorf("commit: no answer: %w", context.Cause(ctx))
	}
	return err
}

// undo ignores errors: a transaction that can't be rolled back is gone, or its
// connection is.
func (t *Tx) undo() {
	_ = t.doRollback()
	_ = t.over(errUndo)
}

// end commits the transaction if f returns nil, and rolls it back if f fails or
// panics, unless f has lent it.
func (t *Tx) end(ctx context.Context, d *Dialect, f func() error) error {
	succeeded := false
	defer func() {
		if !succeeded && !t.lent {
			t.undo()
		}
	}()
	if err := f(); err != nil {
		return err
	}
	succeeded = true
	failpoint.Hit("committing")
	return d.commit(ctx, t)
}

// InTx runs f in a transaction, and again while it loses races.
func InTx(ctx context.Context, d *Dialect, begin func(context.Context) (*Tx, error), f Op) error {
	return d.Retry(ctx, func() error {
		tx, err := begin(ctx)
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if err := f(ctx, tx); err != nil {
			tx.undo()
			return err
		}
		return d.commit(ctx, tx)
	})
}

const (
	retryTimeout = 5 * time.Second
	minBackOff   = time.Millisecond
	maxBackOff   = 50 * time.Millisecond
)

// Retry calls f until it succeeds or fails for another reason than a lost race,
// for at most 5 s and no longer than ctx lasts. Then its error is a
// reset.ErrBusy.
func (d *Dialect) Retry(ctx context.Context, f func() error) error {
	return retry(ctx, d.Busy, f)
}

func retry(ctx context.Context, busy func(error) bool, f func() error) error {
	start, backOff := time.Now(), minBackOff
	for {
		err := f()
		if !busy(err) {
			return explain(err)
		}
		if time.Since(start) > retryTimeout {
			return busyError{err}
		}
		select {
		case <-ctx.Done():
			return busyError{err}
		case <-time.After(rand.N(backOff)):
		}
		backOff = min(2*backOff, maxBackOff)
	}
}

// A busyError is a reset.ErrBusy that says why.
type busyError struct{ error }

func (busyError) Is(target error) bool { return target == reset.ErrBusy }

func (e busyError) Unwrap() error { return e.error }

type txKey struct{}

// A joinable is the transaction in a context.
type joinable struct {
	database any // of the store that has begun it, see Pool; nil: a host has
	native   any
	sql      *sql.Tx // or nil
	conn     func(*Dialect) Conn
	joined   atomic.Bool // the host has taken it
}

// WithSQLTx returns a context that carries tx.
func WithSQLTx(ctx context.Context, tx *sql.Tx) context.Context {
	return WithConn(ctx, tx, tx, func(d *Dialect) Conn { return d.plain(tx) })
}

// WithConn returns a context that carries a transaction, see NewTx. conn returns
// what a Store uses it through.
func WithConn(ctx context.Context, native any, sqlTx *sql.Tx, conn func(*Dialect) Conn) context.Context {
	return context.WithValue(ctx, txKey{}, &joinable{native: native, sql: sqlTx, conn: conn})
}

// TxFrom returns the transaction of a context if it is a T.
func TxFrom[T any](ctx context.Context) (tx T, ok bool) {
	j, _ := ctx.Value(txKey{}).(*joinable)
	if j == nil {
		return tx, false
	}
	if tx, ok = j.native.(T); ok {
		j.joined.Store(true)
	}
	return tx, ok
}

// SQLTxFrom returns the transaction of a context if it is one of database/sql
// or bun.
func SQLTxFrom(ctx context.Context) (*sql.Tx, bool) {
	j, _ := ctx.Value(txKey{}).(*joinable)
	if j == nil || j.sql == nil {
		return nil, false
	}
	j.joined.Store(true)
	return j.sql, true
}

// joined returns the transaction of a context, unless it is of another database.
// That the store has joined it says nothing of the host.
func (s *Store) joined(ctx context.Context) (Conn, bool) {
	j, _ := ctx.Value(txKey{}).(*joinable)
	if j == nil || j.database != nil && j.database != s.database {
		return nil, false
	}
	return s.names.on(j.conn(s.dialect)), true
}

// joinedBy reports whether the host has taken the transaction of ctx.
func joinedBy(ctx context.Context) bool {
	j, _ := ctx.Value(txKey{}).(*joinable)
	return j != nil && j.joined.Load()
}
