package sqlstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/failpoint"
)

const (
	claimTime = 60 * time.Second
	// What apply has where the users are elsewhere: its outcome must be known
	// before the claim ends.
	elsewhereTime = 45 * time.Second
	// What the transaction has that writes an outcome down.
	settleTime = 10 * time.Second
	// What apply has on SQLite, where a host that forgets the transaction waits
	// for itself, and then what an apply has that heeds its context.
	sqliteTime  = 2 * time.Second
	sqliteGrace = 500 * time.Millisecond
)

// Redeem implements reset.Store.
func (s *Store) Redeem(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	if s.elsewhere {
		return s.redeemElsewhere(ctx, now, a, notification, apply)
	}
	return s.redeemHere(ctx, now, a, notification, apply)
}

// redeemHere runs all of its own statements before apply: as long as that has
// not begun, a lost race can be run again.
func (s *Store) redeemHere(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	// Begin gets the context that leads to the transaction, for bun hands it to
	// those who nest another one.
	j := &joined{}
	ctx = context.WithValue(ctx, txKey{}, j)
	var tx *Tx
	err := s.dialect.Retry(ctx, func() (err error) {
		if tx, err = s.backend.Begin(ctx); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if err = s.use(ctx, tx, now, a, notification); err != nil {
			tx.rollback()
		}
		return err
	})
	if err != nil {
		return err
	}
	j.tx = tx.Tx
	if s.dialect.IsSQLite() {
		return s.finishInTime(ctx, tx, apply)
	}
	return s.finish(ctx, tx, func(ctx context.Context) error {
		if err := apply(ctx); err != nil {
			return err
		}
		return stands(ctx, tx, notification.ID)
	})
}

// stands returns an error if the transaction is not what it was: a deadlock
// makes MySQL undo all of it, and what follows is on its own, COMMIT included;
// PostgreSQL answers COMMIT with a ROLLBACK that not every driver reports.
func stands(ctx context.Context, tx *Tx, notification reset.ID) error {
	found, err := exists(ctx, tx, `SELECT id FROM reset_mails WHERE id = ?`, notification[:])
	if err == nil && !found {
		err = errors.New("the database undid the transaction, and SetPassword did not return the error")
	}
	return err
}

func (s *Store) finish(ctx context.Context, tx *Tx, apply func(context.Context) error) error {
	applied := false
	defer func() { // also if apply panics
		if !applied {
			tx.rollback()
		}
	}()
	if err := apply(ctx); err != nil {
		return err
	}
	applied = true
	failpoint.Hit("committing")
	return s.dialect.commitIn(ctx, tx)
}

// errForgotten is the hint for a host that waits for its own transaction.
var errForgotten = errors.New("SetPassword did not use the transaction that locks the database: write through storebun.IDB(ctx, db) or storebun.Tx(ctx)")

// finishInTime does not wait for an apply that waits for the transaction
// instead of using it. Drivers do not leave that wait when the context ends, so
// apply gets a goroutine of its own, which keeps the transaction until apply
// has returned: what the host writes late must never come true behind an error.
func (s *Store) finishInTime(ctx context.Context, tx *Tx, apply func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, sqliteTime)
	defer cancel()
	result, left := make(chan result), make(chan struct{})
	go call(ctx, apply, result, left, tx.rollback)
	patience := time.NewTimer(sqliteTime + sqliteGrace)
	defer patience.Stop()
	select {
	case r := <-result:
		return s.finish(ctx, tx, func(context.Context) error { return s.hint(ctx, r.get()) })
	case <-patience.C:
		close(left)
		return s.overdue(ctx)
	}
}

func (s *Store) overdue(ctx context.Context) error {
	if !asked(ctx) {
		return errForgotten
	}
	return fmt.Errorf("SetPassword took longer than %v: %w", sqliteTime, context.DeadlineExceeded)
}

// hint adds to err what was forgotten, if that is why.
func (s *Store) hint(ctx context.Context, err error) error {
	if err == nil || asked(ctx) || !s.dialect.Busy(err) && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w (%w)", err, errForgotten)
}

// A result is how a function has ended.
type result struct {
	err      error
	returned bool
	panicked any
}

// get ends in the same way.
func (r result) get() error {
	switch {
	case r.panicked != nil:
		panic(r.panicked)
	case !r.returned:
		runtime.Goexit()
	}
	return r.err
}

// call sends how apply ends to out, or calls abandon if the caller has left.
func call(ctx context.Context, apply func(context.Context) error, out chan<- result, left <-chan struct{}, abandon func()) {
	var r result
	defer func() {
		if !r.returned {
			r.panicked = recover() // nil after runtime.Goexit
		}
		select {
		case out <- r:
		case <-left:
			abandon()
		}
	}()
	r.err = apply(ctx)
	r.returned = true
}

// An outcome is what a claim comes to. The zero value is what it comes to if
// nobody knows.
type outcome int

const (
	unknown    outcome = iota // the activations stay used up
	changed                   // they are removed
	notChanged                // they are live again
)

// redeemElsewhere claims the user's activations in one transaction and settles
// the claim in another, with apply in between.
func (s *Store) redeemElsewhere(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	// What is claimed would be lost if the caller, a browser perhaps, went away.
	applyCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), elsewhereTime)
	defer cancel()
	claim := newID(now)
	settle := func(o outcome) error { return s.writeOutcome(ctx, a, claim, o, notification) }

	err := s.backend.Write(ctx, func(ctx context.Context, c Conn) error { return s.claim(ctx, c, now, a, claim) })
	if IsVerdict(err) {
		return err
	}
	if err == nil {
		err = cmp.Or(ctx.Err(), applyCtx.Err())
	}
	if err != nil { // perhaps it was committed all the same
		return errors.Join(err, settle(notChanged))
	}
	return settleAfter(applyCtx, apply, settle)
}

func settleAfter(ctx context.Context, apply func(context.Context) error, settle func(outcome) error) (err error) {
	result := unknown
	defer func() { // also if apply panics
		err = errors.Join(err, settle(result))
	}()
	err = apply(ctx)
	var refused *reset.PasswordError
	switch {
	case err == nil:
		result = changed
		failpoint.Hit("committing")
	case errors.Is(err, reset.ErrNotChanged), errors.As(err, &refused):
		result = notChanged
	}
	return err
}

// writeOutcome works when the caller has gone, too: the outcome would be lost.
func (s *Store) writeOutcome(ctx context.Context, a reset.Activation, claim reset.ID, o outcome, notification reset.Mail) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	err := s.backend.Write(ctx, func(ctx context.Context, c Conn) error {
		return s.settleClaim(ctx, c, a, claim, o, notification)
	})
	if err != nil {
		return fmt.Errorf("settle claim: %w", err)
	}
	return nil
}
