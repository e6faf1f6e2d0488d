package sqlstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/failpoint"
)

// Redeem implements reset.Store.
func (s *Store) Redeem(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	if s.elsewhere {
		return s.redeemElsewhere(ctx, now, a, notification, apply)
	}
	return s.redeemHere(ctx, now, a, notification, apply)
}

// TransactionUsed reports whether apply has taken the transaction of ctx, or had
// none to take.
func (s *Store) TransactionUsed(ctx context.Context) bool { return s.elsewhere || joinedBy(ctx) }

// redeemHere runs all of its own statements before apply: until apply begins, a
// lost race can be run again.
func (s *Store) redeemHere(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	// Begin gets the context that carries the transaction, since bun hands it
	// on to nested transactions.
	j := &joinable{database: s.database}
	ctx = context.WithValue(ctx, txKey{}, j)
	var tx *Tx
	err := s.dialect.Retry(ctx, func() (err error) {
		if tx, err = s.backend.Begin(ctx); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if err = s.use(ctx, tx, now, a, notification); err != nil {
			tx.undo()
		}
		return err
	})
	if err != nil {
		return err
	}
	j.native, j.sql = tx.native, tx.sql
	j.conn = func(*Dialect) Conn { return tx.Conn }
	err = s.dialect.finish(ctx, s, tx, notification.ID, apply)
	if !errors.Is(err, errLostRace) {
		return err
	}
	// If the winner was another Redeem or a Revoke, there is a verdict.
	if _, verdict := s.Find(ctx, now, a.Hash); errors.Is(verdict, reset.ErrInvalidActivation) {
		return fmt.Errorf("%w (%w)", verdict, err)
	}
	return err
}

// use does everything that Redeem does besides apply.
func (s *Store) use(ctx context.Context, c Conn, now time.Time, a reset.Activation, notification reset.Mail) error {
	if err := s.lock(ctx, c, a.UserID, now); err != nil {
		return err
	}
	err := writeOneActivation(ctx, c, s.dialect.deleteByUser("reset_activations")+whereLive,
		s.realm, text(a.UserID), a.Hash[:], now.UnixMilli())
	if err != nil {
		return err
	}
	if err := s.removeAll(ctx, c, a.UserID, ending{now, a.Request}); err != nil {
		return err
	}
	return s.insertMail(ctx, c, notification)
}

// whereLive finds the live activation with a hash, through the index of users.
const whereLive = ` WHERE realm = ? AND user_id = ? AND hash = ? AND ` + unexpired + ` AND claim IS NULL`

// writeOneActivation returns ErrInvalidActivation unless query changes a row. A
// row that is changed, and counted, is certainly there, whatever the isolation
// level and however many nodes of a cluster take writes.
func writeOneActivation(ctx context.Context, c Conn, query string, args ...any) error {
	n, err := execCount(ctx, c, query, args...)
	switch {
	case err != nil:
		return err
	case n == 0:
		return reset.ErrInvalidActivation
	case n != 1:
		return fmt.Errorf("%d activations have one hash", n)
	}
	return nil
}

// finishServer is finish for PostgreSQL and MySQL. Before it commits, it checks
// that the transaction still exists: a deadlock makes MySQL roll it back, and
// what follows, COMMIT included, runs on its own; PostgreSQL answers COMMIT
// with a ROLLBACK that some drivers do not report.
//
// A cluster of several writable nodes may roll it back at any moment up to
// COMMIT, when another node has changed the same rows.
func finishServer(ctx context.Context, s *Store, tx *Tx, notification reset.ID, apply func(context.Context) error) error {
	err := tx.end(ctx, s.dialect, func() error {
		if err := apply(ctx); err != nil {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				err = fmt.Errorf("%w (%w)", err, bypassed(ctx))
			}
			return err
		}
		found, err := exists(ctx, tx, `SELECT id FROM reset_mails WHERE `+s.dialect.inRealm+` AND id = ?`, s.realm, notification[:])
		if err == nil && !found {
			err = errors.New("the database rolled the transaction back, and SetPassword did not return the error")
		}
		return err
	})
	if ctx.Err() == nil && s.dialect.Busy(err) {
		err = fmt.Errorf("%w: %w", errLostRace, err)
	}
	return err
}

var (
	errBypassed       = errors.New("SetPassword did not use the transaction that locks the user: write through storebun.IDB(ctx, db), storebun.Tx(ctx), storesql.Tx(ctx) or storepgx.Tx(ctx)")
	errPartlyBypassed = errors.New("if a statement of SetPassword does not use the transaction, it waits for what the transaction has locked: write all of them through it")
)

// bypassed says what may have kept an apply waiting until its time was over.
func bypassed(ctx context.Context) error {
	if joinedBy(ctx) {
		return errPartlyBypassed
	}
	return errBypassed
}

// errLostRace means that apply has run in vain.
var errLostRace = errors.New("the database ended the transaction; nothing was changed, try again")

const (
	claimTimeout = 60 * time.Second
	// applyTimeout bounds apply where the users are elsewhere: its outcome must
	// be known before the claim ends.
	applyTimeout = 45 * time.Second
	// outcomeTimeout bounds the transaction that records an outcome.
	outcomeTimeout = 10 * time.Second
)

// An outcome is how a claim ends.
type outcome int

const (
	unknown    outcome = iota // the activations stay used
	changed                   // they are removed
	notChanged                // they are live again
)

// redeemElsewhere claims the user's activations in one transaction and settles
// the claim in another, with apply in between.
func (s *Store) redeemElsewhere(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	// apply goes on if the caller, perhaps a browser, goes away: what was
	// claimed would be lost.
	applyCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
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
	if err != nil { // the claim may have been committed all the same
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

// writeOutcome also works when the caller has gone: the outcome would be lost.
func (s *Store) writeOutcome(ctx context.Context, a reset.Activation, claim reset.ID, o outcome, notification reset.Mail) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeTimeout)
	defer cancel()
	err := s.backend.Write(ctx, func(ctx context.Context, c Conn) error {
		return s.settleClaim(ctx, c, a, claim, o, notification)
	})
	if err != nil {
		return fmt.Errorf("settle claim: %w", err)
	}
	return nil
}

// claim makes the user's live activations not live and keeps others from
// claiming until the claim is settled or has timed out.
func (s *Store) claim(ctx context.Context, c Conn, now time.Time, a reset.Activation, claim reset.ID) error {
	until := now.Add(claimTimeout).UnixMilli()
	if err := lockByRow(ctx, s, c, a.UserID, now); err != nil { // on SQLite, too: the row holds the claim
		return err
	}
	held, err := exists(ctx, c, `SELECT user_id FROM reset_locks WHERE realm = ? AND user_id = ? AND claim_until > ?`,
		s.realm, text(a.UserID), now.UnixMilli())
	if err != nil {
		return err
	}
	if held {
		return reset.ErrInvalidActivation
	}
	claimRows := `UPDATE ` + s.dialect.byUser("reset_activations") + ` SET claim = ?`
	err = writeOneActivation(ctx, c, claimRows+whereLive, claim[:], s.realm, text(a.UserID), a.Hash[:], now.UnixMilli())
	if err != nil {
		return err
	}
	err = exec(ctx, c, claimRows+` WHERE realm = ? AND user_id = ? AND `+unexpired+` AND claim IS NULL`,
		claim[:], s.realm, text(a.UserID), now.UnixMilli())
	if err != nil {
		return err
	}
	return exec(ctx, c,
		`UPDATE reset_locks SET claim = ?, claim_until = ?, expires = CASE WHEN expires < ? THEN ? ELSE expires END WHERE realm = ? AND user_id = ?`,
		claim[:], until, until, until, s.realm, text(a.UserID))
}

// settleClaim ends a claim.
func (s *Store) settleClaim(ctx context.Context, c Conn, a reset.Activation, claim reset.ID, outcome outcome, notification reset.Mail) error {
	if err := lockByRow(ctx, s, c, a.UserID, time.UnixMilli(0)); err != nil {
		return err
	}
	var err error
	switch outcome {
	case changed:
		if err = s.removeAll(ctx, c, a.UserID, ending{claim.Time(), a.Request}); err == nil {
			err = s.insertMail(ctx, c, notification)
		}
	case notChanged:
		err = exec(ctx, c, `UPDATE `+s.dialect.byUser("reset_activations")+` SET claim = NULL WHERE realm = ? AND user_id = ? AND claim = ?`,
			s.realm, text(a.UserID), claim[:])
	}
	if err != nil {
		return err
	}
	return exec(ctx, c, `UPDATE reset_locks SET claim = NULL, claim_until = 0 WHERE realm = ? AND user_id = ? AND claim = ?`, s.realm, text(a.UserID), claim[:])
}
