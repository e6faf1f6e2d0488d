package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/uptrace/bun"
)

// A Tx is a transaction on a connection that somebody wants back.
type Tx struct {
	bun.Tx
	// over is called once Commit or Rollback has been tried, with the error of
	// Commit or errUndo. What it returns is the outcome.
	over func(err error) error
}

var errUndo = errors.New("undo")

// NewTx returns a transaction that ends as bun's does.
func NewTx(tx bun.Tx) *Tx {
	return &Tx{Tx: tx, over: func(err error) error { return err }}
}

func (t *Tx) commit() error {
	if err := t.over(t.Tx.Commit()); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// commitInTime does not wait for an answer longer than ctx lasts. Not every
// driver binds COMMIT to the context of BEGIN; a server that has gone silent
// would hold the caller until TCP gives up.
func (t *Tx) commitInTime(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- t.commit() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done: // what is known is said
		return err
	default:
		return fmt.Errorf("commit: no answer: %w", context.Cause(ctx))
	}
}

// commitIn ends a transaction as its dialect allows: on SQLite the outcome is
// known soon, and a connection whose transaction is not over is of no use.
func (d *Dialect) commitIn(ctx context.Context, t *Tx) error {
	if d.IsSQLite() {
		return t.commit()
	}
	return t.commitInTime(ctx)
}

// rollback has nothing to tell: a transaction that can't be rolled back is
// gone, or its connection is.
func (t *Tx) rollback() {
	_ = t.Tx.Rollback()
	_ = t.over(errUndo)
}

// BeginSQLite begins a transaction on one connection, which is given back
// through giveBack when the transaction is over. If it fails, there is none and
// the connection remains the caller's.
//
// It is not bound to ctx, since database/sql then rolls back on a goroutine of
// its own, which may come to it when the connection is at other work already.
func BeginSQLite(ctx context.Context, d *Dialect, conn bun.Conn, giveBack func()) (*Tx, error) {
	ctx = context.WithoutCancel(ctx)
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	// Whatever BEGIN is with this connection, a statement that could write
	// takes the lock. After one that reads it would be too late for that if
	// somebody else has written in between.
	if err := exec(ctx, tx, `DELETE FROM reset_locks WHERE user_id IS NULL`); err != nil {
		_ = tx.Rollback()
		return nil, err
	}
	return &Tx{Tx: tx, over: func(err error) error {
		defer giveBack()
		return overSQLite(ctx, d, conn.Conn, err)
	}}, nil
}

// overSQLite tries again what must not fail. After a COMMIT that had to wait
// for readers and failed, the transaction is still open, though not in the eyes
// of database/sql.
func overSQLite(ctx context.Context, d *Dialect, conn Conn, err error) error {
	if d.Busy(err) {
		err = d.Retry(ctx, func() error { return exec(ctx, conn, "COMMIT") })
	}
	if err != nil {
		_ = exec(ctx, conn, "ROLLBACK")
	}
	return err
}

// InTx runs f in a transaction, again as long as it loses races.
func InTx(ctx context.Context, d *Dialect, begin func(context.Context) (*Tx, error), f Op) error {
	return d.Retry(ctx, func() error {
		tx, err := begin(ctx)
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if err := f(ctx, tx); err != nil {
			tx.rollback()
			return err
		}
		return d.commitIn(ctx, tx)
	})
}

const (
	retryTime  = 5 * time.Second
	minBackOff = time.Millisecond
	maxBackOff = 50 * time.Millisecond
)

// Retry calls f until it fails for another reason than a lost race, for at most
// 5 s and no longer than ctx lasts.
func (d *Dialect) Retry(ctx context.Context, f func() error) error {
	start, backOff := time.Now(), minBackOff
	for {
		err := f()
		if !d.Busy(err) || time.Since(start) > retryTime {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(rand.N(backOff)):
		}
		backOff = min(2*backOff, maxBackOff)
	}
}

type txKey struct{}

// joined is what a context says of a transaction.
type joined struct {
	tx    bun.Tx
	asked atomic.Bool // somebody has taken it
}

// WithTx returns a context that hands tx on.
func WithTx(ctx context.Context, tx bun.Tx) context.Context {
	return context.WithValue(ctx, txKey{}, &joined{tx: tx})
}

// TxFrom returns the transaction of a context.
func TxFrom(ctx context.Context) (bun.Tx, bool) {
	j, _ := ctx.Value(txKey{}).(*joined)
	if j == nil {
		return bun.Tx{}, false
	}
	j.asked.Store(true)
	return j.tx, true
}

// asked reports whether the transaction of ctx was taken.
func asked(ctx context.Context) bool {
	j, _ := ctx.Value(txKey{}).(*joined)
	return j != nil && j.asked.Load()
}
