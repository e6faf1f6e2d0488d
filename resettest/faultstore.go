package resettest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gopassreset/reset"
)

var _ reset.Store = (*FaultStore)(nil)

// A FaultStore is a reset.Store for tests that calls another one. It counts
// calls, and can delay, block, fail or replace them. Where a method is named,
// that is its name in reset.Store, such as "Redeem".
//
// It is safe for concurrent use by many goroutines; its fields must be set
// before that.
type FaultStore struct {
	reset.Store // is called unless a field below replaces the method

	EnqueueFunc func(ctx context.Context, m reset.Mail) error
	IssueFunc   func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error)
	FindFunc    func(ctx context.Context, now time.Time, h reset.Hash) (reset.Activation, error)
	RedeemFunc  func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error
	RevokeFunc  func(ctx context.Context, now time.Time, userID string, quiet time.Time) error
	LeaseFunc   func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error)
	SettleFunc  func(ctx context.Context, done []reset.Settlement) error
	PurgeFunc   func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error)
	RealmFunc   func(name string) reset.Store

	// Before is called at the start of each call, which fails with the error
	// that Before returns. Defaults to nil: nothing is called.
	Before func(ctx context.Context, method string) error
	// After is called at the end of each call, with its error, and returns the
	// error that the caller gets. Defaults to nil: nothing is called.
	After func(ctx context.Context, method string, err error) error

	mu     sync.Mutex
	faults map[string]error
	calls  map[string]int
}

var storeMethods = []string{"Enqueue", "Issue", "Find", "Redeem", "Revoke", "Lease", "Settle", "Purge"}

// named returns the methods, or all if none is named.
func named(methods []string) []string {
	if len(methods) == 0 {
		return storeMethods
	}
	for _, method := range methods {
		if !slices.Contains(storeMethods, method) {
			panic("resettest: FaultStore: no method " + method)
		}
	}
	return methods
}

// Fail makes each call of the methods, or of all if none is named, fail with
// err and do nothing else. A nil err ends that. Fail panics if a name is not
// one of a method.
func (s *FaultStore) Fail(err error, methods ...string) {
	methods = named(methods)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults == nil {
		s.faults = make(map[string]error)
	}
	for _, method := range methods {
		s.faults[method] = err
	}
}

// Calls returns how often the methods, or all if none is named, were called. It
// panics if a name is not one of a method.
func (s *FaultStore) Calls(methods ...string) (n int) {
	methods = named(methods)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, method := range methods {
		n += s.calls[method]
	}
	return n
}

// call makes one call, whose work is f.
func (s *FaultStore) call(ctx context.Context, method string, f func() error) error {
	if err := s.begin(method); err != nil {
		return err
	}
	if s.Before != nil {
		if err := s.Before(ctx, method); err != nil {
			return err
		}
	}
	err := f()
	if s.After != nil {
		err = s.After(ctx, method, err)
	}
	return err
}

// begin counts a call and returns the error that Fail has set.
func (s *FaultStore) begin(method string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = make(map[string]int)
	}
	s.calls[method]++
	return s.faults[method]
}

// Enqueue implements reset.Store.
func (s *FaultStore) Enqueue(ctx context.Context, m reset.Mail) error {
	return s.call(ctx, "Enqueue", func() error {
		if s.EnqueueFunc != nil {
			return s.EnqueueFunc(ctx, m)
		}
		return s.Store.Enqueue(ctx, m)
	})
}

// Issue implements reset.Store.
func (s *FaultStore) Issue(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (issued reset.Activation, err error) {
	err = s.call(ctx, "Issue", func() (err error) {
		if s.IssueFunc != nil {
			issued, err = s.IssueFunc(ctx, now, a, limits, m)
		} else {
			issued, err = s.Store.Issue(ctx, now, a, limits, m)
		}
		return err
	})
	if err != nil {
		return reset.Activation{}, err
	}
	return issued, nil
}

// Find implements reset.Store.
func (s *FaultStore) Find(ctx context.Context, now time.Time, h reset.Hash) (a reset.Activation, err error) {
	err = s.call(ctx, "Find", func() (err error) {
		if s.FindFunc != nil {
			a, err = s.FindFunc(ctx, now, h)
		} else {
			a, err = s.Store.Find(ctx, now, h)
		}
		return err
	})
	if err != nil {
		return reset.Activation{}, err
	}
	return a, nil
}

// Redeem implements reset.Store.
func (s *FaultStore) Redeem(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	return s.call(ctx, "Redeem", func() error {
		if s.RedeemFunc != nil {
			return s.RedeemFunc(ctx, now, a, notification, apply)
		}
		return s.Store.Redeem(ctx, now, a, notification, apply)
	})
}

// Revoke implements reset.Store.
func (s *FaultStore) Revoke(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
	return s.call(ctx, "Revoke", func() error {
		if s.RevokeFunc != nil {
			return s.RevokeFunc(ctx, now, userID, quiet)
		}
		return s.Store.Revoke(ctx, now, userID, quiet)
	})
}

// Lease implements reset.Store.
func (s *FaultStore) Lease(ctx context.Context, now, until time.Time, n int) (mails []reset.Mail, err error) {
	err = s.call(ctx, "Lease", func() (err error) {
		if s.LeaseFunc != nil {
			mails, err = s.LeaseFunc(ctx, now, until, n)
		} else {
			mails, err = s.Store.Lease(ctx, now, until, n)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return mails, nil
}

// Settle implements reset.Store.
func (s *FaultStore) Settle(ctx context.Context, done []reset.Settlement) error {
	return s.call(ctx, "Settle", func() error {
		if s.SettleFunc != nil {
			return s.SettleFunc(ctx, done)
		}
		return s.Store.Settle(ctx, done)
	})
}

// Purge implements reset.Store.
func (s *FaultStore) Purge(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
	err = s.call(ctx, "Purge", func() (err error) {
		if s.PurgeFunc != nil {
			removed, unsent, err = s.PurgeFunc(ctx, now, n)
		} else {
			removed, unsent, err = s.Store.Purge(ctx, now, n)
		}
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	return removed, unsent, nil
}

// Stats implements reset.StatsStore if the Store below does. It is not counted
// and does not fail by itself.
func (s *FaultStore) Stats(ctx context.Context, now time.Time) (reset.Stats, error) {
	if below, ok := s.Store.(reset.StatsStore); ok {
		return below.Stats(ctx, now)
	}
	return reset.Stats{}, errors.ErrUnsupported
}

// Beat is like Stats.
func (s *FaultStore) Beat(ctx context.Context, now time.Time, mailerFails bool) error {
	if below, ok := s.Store.(reset.StatsStore); ok {
		return below.Beat(ctx, now, mailerFails)
	}
	return errors.ErrUnsupported
}

// Queued is like Stats.
func (s *FaultStore) Queued(ctx context.Context, now time.Time, limit int) (int, error) {
	if below, ok := s.Store.(reset.StatsStore); ok {
		return below.Queued(ctx, now, limit)
	}
	return 0, errors.ErrUnsupported
}

// KeepHistory implements reset.HistoryStore if the Store below does.
func (s *FaultStore) KeepHistory(d time.Duration) {
	if below, ok := s.Store.(reset.HistoryStore); ok {
		below.KeepHistory(d)
	}
}

// History is like Stats.
func (s *FaultStore) History(ctx context.Context, now time.Time, userID string, n int) ([]reset.HistoryEntry, error) {
	if below, ok := s.Store.(reset.HistoryStore); ok {
		return below.History(ctx, now, userID, n)
	}
	return nil, errors.ErrUnsupported
}

// EraseHistory is like Stats.
func (s *FaultStore) EraseHistory(ctx context.Context, userID string) error {
	if below, ok := s.Store.(reset.HistoryStore); ok {
		return below.EraseHistory(ctx, userID)
	}
	return errors.ErrUnsupported
}

// Realm implements reset.RealmStore if the Store below does, and otherwise
// returns nil. The view is a FaultStore with the same Before and After.
func (s *FaultStore) Realm(name string) reset.Store {
	if s.RealmFunc != nil {
		return s.RealmFunc(name)
	}
	if below, ok := s.Store.(reset.RealmStore); ok {
		return &FaultStore{Store: below.Realm(name), Before: s.Before, After: s.After}
	}
	return nil
}

// SetBaseURL is like Stats.
func (s *FaultStore) SetBaseURL(ctx context.Context, baseURL string) (last string, err error) {
	if below, ok := s.Store.(reset.RealmStore); ok {
		return below.SetBaseURL(ctx, baseURL)
	}
	return "", errors.ErrUnsupported
}

// Now implements reset.ClockStore if the Store below does. It is not counted and
// does not fail by itself.
func (s *FaultStore) Now(ctx context.Context) (time.Time, error) {
	if below, ok := s.Store.(reset.ClockStore); ok {
		return below.Now(ctx)
	}
	return time.Time{}, errors.ErrUnsupported
}
