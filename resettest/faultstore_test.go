package resettest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

func TestFaultStorePassesOn(t *testing.T) {
	resettest.TestStore(t, func(*testing.T) reset.Store {
		return &resettest.FaultStore{Store: new(resettest.MemStore)}
	})
}

// storeCalls calls each method of a store.
var storeCalls = map[string]func(ctx context.Context, s reset.Store) error{
	"Enqueue": func(ctx context.Context, s reset.Store) error { return s.Enqueue(ctx, reset.Mail{}) },
	"Issue": func(ctx context.Context, s reset.Store) error {
		_, err := s.Issue(ctx, now, reset.Activation{}, reset.Limits{MaxRequests: 1}, nil)
		return err
	},
	"Find": func(ctx context.Context, s reset.Store) error {
		_, err := s.Find(ctx, now, reset.Hash{})
		return err
	},
	"Redeem": func(ctx context.Context, s reset.Store) error {
		return s.Redeem(ctx, now, reset.Activation{}, reset.Mail{}, nil)
	},
	"Revoke": func(ctx context.Context, s reset.Store) error { return s.Revoke(ctx, now, "", time.Time{}) },
	"Lease": func(ctx context.Context, s reset.Store) error {
		_, err := s.Lease(ctx, now, now, 1)
		return err
	},
	"Settle": func(ctx context.Context, s reset.Store) error { return s.Settle(ctx, nil) },
	"Purge": func(ctx context.Context, s reset.Store) error {
		_, _, err := s.Purge(ctx, now, 1)
		return err
	},
}

// replaced is a FaultStore whose every method returns err.
func replaced(err error) *resettest.FaultStore {
	return &resettest.FaultStore{
		EnqueueFunc: func(context.Context, reset.Mail) error { return err },
		IssueFunc: func(context.Context, time.Time, reset.Activation, reset.Limits, *reset.Mail) (reset.Activation, error) {
			return reset.Activation{}, err
		},
		FindFunc: func(context.Context, time.Time, reset.Hash) (reset.Activation, error) { return reset.Activation{}, err },
		RedeemFunc: func(context.Context, time.Time, reset.Activation, reset.Mail, func(context.Context) error) error {
			return err
		},
		RevokeFunc: func(context.Context, time.Time, string, time.Time) error { return err },
		LeaseFunc:  func(context.Context, time.Time, time.Time, int) ([]reset.Mail, error) { return nil, err },
		SettleFunc: func(context.Context, []reset.Settlement) error { return err },
		PurgeFunc:  func(context.Context, time.Time, int) (int, int, error) { return 0, 0, err },
	}
}

// Each step of a call can fail, and ends the call.
func TestFaultStore(t *testing.T) {
	failure, before, work, after := errors.New("failure"), errors.New("before"), errors.New("work"), errors.New("after")
	for method, call := range storeCalls {
		t.Run(method, func(t *testing.T) {
			s := replaced(work)
			want := func(want error) {
				t.Helper()
				if got := call(t.Context(), s); got != want {
					t.Errorf("got error %v, want %v", got, want)
				}
			}
			want(work)
			s.After = func(_ context.Context, m string, err error) error {
				if m != method || err != work {
					t.Errorf("After got %s and the error %v, want %s and %v", m, err, method, work)
				}
				return after
			}
			want(after)
			s.Before = func(_ context.Context, m string) error {
				if m != method {
					t.Errorf("Before got %s, want %s", m, method)
				}
				return before
			}
			want(before)
			s.Fail(failure, method)
			want(failure)
			s.Fail(nil)
			want(before)
			if got, all := s.Calls(method), s.Calls(); got != 5 || all != 5 {
				t.Errorf("got %d calls of %d, want 5 of 5", got, all)
			}
		})
	}
}

func TestFaultStoreUnknownMethod(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Calls did not panic")
		}
	}()
	new(resettest.FaultStore).Calls("Fulfil")
}
