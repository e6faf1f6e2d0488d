// Package sqlstore is what the stores in SQL databases have in common: the
// schema, and the methods of reset.Store over transactions that somebody else
// provides.
package sqlstore

import (
	"context"
	"database/sql"
	"time"

	"github.com/gopassreset/reset"
)

var _ reset.Store = (*Store)(nil)

// A Conn is where statements go, with "?" for each argument: a *bun.DB,
// bun.Conn or bun.Tx, or, on SQLite, their counterparts in database/sql.
type Conn interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// An Op is the inside of a transaction. It may be run several times, each time
// after it was undone.
type Op func(ctx context.Context, c Conn) error

// A Backend provides transactions.
type Backend interface {
	// Read runs f, which makes one statement that only reads.
	Read(ctx context.Context, f Op) error
	// WriteOne runs f, which makes one statement.
	WriteOne(ctx context.Context, f Op) error
	// Write runs f in a transaction. On SQLite nobody else writes from its
	// start.
	Write(ctx context.Context, f Op) error
	// Begin starts such a transaction, not shared with anybody.
	Begin(ctx context.Context) (*Tx, error)
}

// A Store is a reset.Store.
type Store struct {
	backend   Backend
	dialect   *Dialect
	elsewhere bool
}

// New returns a Store. With usersElsewhere, apply does not take part in
// transactions.
func New(b Backend, d *Dialect, usersElsewhere bool) *Store {
	return &Store{backend: b, dialect: d, elsewhere: usersElsewhere}
}

// Enqueue implements reset.Store.
func (s *Store) Enqueue(ctx context.Context, m reset.Mail) error {
	return s.backend.WriteOne(ctx, func(ctx context.Context, c Conn) error {
		return insertMail(ctx, c, m)
	})
}

// Issue implements reset.Store.
func (s *Store) Issue(ctx context.Context, now time.Time, a reset.Activation, max int, m *reset.Mail) error {
	return s.backend.Write(ctx, func(ctx context.Context, c Conn) error {
		return s.issue(ctx, c, now, a, max, m)
	})
}

// Find implements reset.Store.
func (s *Store) Find(ctx context.Context, now time.Time, h reset.Hash) (a reset.Activation, err error) {
	err = s.backend.Read(ctx, func(ctx context.Context, c Conn) (err error) {
		a, err = find(ctx, c, now, h)
		return err
	})
	if err != nil {
		return reset.Activation{}, err
	}
	return a, nil
}

// Revoke implements reset.Store. It joins the transaction of ctx, if there is
// one.
func (s *Store) Revoke(ctx context.Context, userID string) error {
	revoke := func(ctx context.Context, c Conn) error { return s.revoke(ctx, c, userID) }
	if tx, ok := TxFrom(ctx); ok {
		return revoke(ctx, tx)
	}
	return s.backend.Write(ctx, revoke)
}

// Lease implements reset.Store. It begins no transaction where nothing is due,
// as it mostly is.
func (s *Store) Lease(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
	due := false
	err := s.backend.Read(ctx, func(ctx context.Context, c Conn) (err error) {
		due, err = s.anyDue(ctx, c, now)
		return err
	})
	if err != nil || !due || n < 1 {
		return nil, err
	}
	var mails []reset.Mail
	err = s.backend.Write(ctx, func(ctx context.Context, c Conn) (err error) {
		mails, err = s.lease(ctx, c, now, until, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	return mails, nil
}

// Settle implements reset.Store.
func (s *Store) Settle(ctx context.Context, done []reset.Settlement) error {
	switch {
	case len(done) > 1:
		return s.backend.Write(ctx, func(ctx context.Context, c Conn) error { return s.settleAll(ctx, c, done) })
	case len(done) == 0:
		return nil
	case s.dialect.innoDB && done[0].Retry.IsZero():
		return s.removeMail(ctx, done[0])
	}
	return s.backend.WriteOne(ctx, func(ctx context.Context, c Conn) error { return settle(ctx, c, done[0]) })
}

// Purge implements reset.Store.
func (s *Store) Purge(ctx context.Context, now time.Time, n int) (int, error) {
	if n < 1 {
		return 0, nil
	}
	purge := s.purge
	if s.dialect.innoDB {
		purge = s.purgeInnoDB
	}
	removed := 0
	err := s.backend.Write(ctx, func(ctx context.Context, c Conn) (err error) {
		removed, err = purge(ctx, c, now, n)
		return err
	})
	if err != nil {
		return 0, err
	}
	return removed, nil
}
