// Package sqlstore is the common part of the stores in SQL databases: the schema,
// and the methods of reset.Store on transactions that a Backend provides.
package sqlstore

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/gopassreset/reset"
)

var (
	_ reset.StatsStore   = (*Store)(nil)
	_ reset.HistoryStore = (*Store)(nil)
)

// An Op is the body of a transaction. It may run several times, each time after
// it was rolled back.
type Op func(ctx context.Context, c Conn) error

// A Backend provides transactions.
type Backend interface {
	// Read runs f, which makes one statement that only reads.
	Read(ctx context.Context, f Op) error
	// WriteOne runs f, which makes one statement.
	WriteOne(ctx context.Context, f Op) error
	// WriteRow is WriteOne for a statement that goes through an index with
	// several entries for one value: it locks no gaps between them.
	WriteRow(ctx context.Context, f Op) error
	// Write runs f in a transaction. On SQLite it locks out other writers from
	// its start.
	Write(ctx context.Context, f Op) error
	// Begin starts such a transaction for one caller.
	Begin(ctx context.Context) (*Tx, error)
}

// A Store is a reset.StatsStore.
type Store struct {
	backend   Backend
	database  any // comparable: what tells databases apart
	dialect   *Dialect
	names     *names
	realm     []byte // of every record; not nil
	elsewhere bool
	keep      *atomic.Int64 // time.Duration; of the history
}

// New returns a Store. database is a comparable value that tells its database
// from others. With usersElsewhere, apply does not take part in
// transactions.
func New(b Backend, database any, d *Dialect, usersElsewhere bool) *Store {
	return &Store{backend: b, database: database, dialect: d, realm: []byte{}, elsewhere: usersElsewhere, keep: new(atomic.Int64)}
}

// IsVerdict reports whether an Op ended with an answer rather than a failure.
// Such an Op has changed nothing, or only added the lock row of a user, which
// reveals nothing: it need not be rolled back.
func IsVerdict(err error) bool {
	return errors.Is(err, reset.ErrTooManyRequests) || errors.Is(err, reset.ErrGone) || errors.Is(err, reset.ErrInvalidActivation)
}

func (s *Store) lock(ctx context.Context, c Conn, userID string, until time.Time) error {
	return s.dialect.lock(ctx, s, c, userID, until)
}

// Enqueue implements reset.Store.
func (s *Store) Enqueue(ctx context.Context, m reset.Mail) error {
	return s.backend.WriteOne(ctx, func(ctx context.Context, c Conn) error {
		return s.insertMail(ctx, c, m)
	})
}

// Issue implements reset.Store.
func (s *Store) Issue(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
	if err := s.checkIssue(a, limits, m); err != nil {
		return reset.Activation{}, err
	}
	if s.dialect.issueAtOnce != nil {
		if done, err := s.issueAtOnce(ctx, now, a, limits, m); done || err != nil {
			return orNone(a, err)
		}
	}
	var issued reset.Activation
	err := s.backend.Write(ctx, func(ctx context.Context, c Conn) error {
		issued = a
		return s.issue(ctx, c, now, &issued, limits, m)
	})
	return orNone(issued, err)
}

// orNone returns a as it was stored, unless that failed.
func orNone(a reset.Activation, err error) (reset.Activation, error) {
	if err != nil {
		return reset.Activation{}, err
	}
	a.Expires = fromMillis(a.Expires.UnixMilli())
	return a, nil
}

// Find implements reset.Store.
func (s *Store) Find(ctx context.Context, now time.Time, h reset.Hash) (a reset.Activation, err error) {
	err = s.backend.Read(ctx, func(ctx context.Context, c Conn) (err error) {
		a, err = s.find(ctx, c, now, h)
		return err
	})
	if err != nil {
		return reset.Activation{}, err
	}
	return a, nil
}

// Revoke implements reset.Store. It joins the transaction of ctx if there is
// one.
func (s *Store) Revoke(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
	revoke := func(ctx context.Context, c Conn) error { return s.revoke(ctx, c, now, userID, quiet) }
	if c, ok := s.joined(ctx); ok {
		return revoke(ctx, c)
	}
	return s.backend.Write(ctx, revoke)
}

// Lease implements reset.Store. It begins no transaction if nothing is due, as is
// mostly the case.
func (s *Store) Lease(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
	if n < 1 {
		return nil, nil
	}
	for {
		var due []any
		err := s.backend.Read(ctx, func(ctx context.Context, c Conn) (err error) {
			due, err = s.dueIDs(ctx, c, now, n)
			return err
		})
		if err != nil || len(due) == 0 {
			return nil, err
		}
		var mails []reset.Mail
		err = s.backend.Write(ctx, func(ctx context.Context, c Conn) (err error) {
			mails, err = s.lease(ctx, c, now, until, n, due)
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(mails) > 0 || !s.dialect.leaseByKey {
			return mails, nil
		}
		// Somebody else has leased what was due: look again.
	}
}

// Settle implements reset.Store.
func (s *Store) Settle(ctx context.Context, done []reset.Settlement) error {
	switch len(done) {
	case 0:
		return nil
	case 1:
		return s.dialect.settleOne(ctx, s, done[0])
	}
	return s.backend.Write(ctx, func(ctx context.Context, c Conn) error { return s.dialect.settleAll(ctx, s, c, done) })
}

// Purge implements reset.Store.
func (s *Store) Purge(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
	if n < 1 {
		return 0, 0, nil
	}
	var p purged
	err = s.backend.Write(ctx, func(ctx context.Context, c Conn) (err error) {
		p, err = s.dialect.purge(ctx, s, c, now, n)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	return p.removed, p.unsent, nil
}
