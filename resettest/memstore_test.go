package resettest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

func TestMemStore(t *testing.T) {
	resettest.TestStore(t, func(*testing.T) reset.Store { return new(resettest.MemStore) })
}

func TestMemStoreElsewhere(t *testing.T) {
	resettest.TestStoreElsewhere(t, func(*testing.T) reset.Store {
		return &resettest.MemStore{UsersElsewhere: true}
	})
}

var now = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

// issue issues a request for a user whose name is a letter.
func issue(t *testing.T, s reset.Store, user byte) reset.Activation {
	t.Helper()
	a := reset.Activation{Hash: reset.Hash{user}, Request: reset.ID{user}, UserID: string(user), Expires: now.Add(time.Hour)}
	if _, err := s.Issue(t.Context(), now, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
		t.Fatal(err)
	}
	return a
}

// A host's SetPassword may read the store, and may revoke as it does when a
// password is changed by other means.
func TestMemStoreInsideApply(t *testing.T) {
	s := new(resettest.MemStore)
	a, b, d := issue(t, s, 'a'), issue(t, s, 'b'), issue(t, s, 'd')
	failure := errors.New("apply failed")
	for _, result := range []error{failure, nil} {
		err := s.Redeem(t.Context(), now, a, reset.Mail{ID: reset.ID{1}, Kind: reset.MailNotification}, func(ctx context.Context) error {
			if _, err := s.Find(ctx, now, a.Hash); err != nil {
				t.Errorf("Find inside apply: %v", err)
			}
			if err := s.Revoke(ctx, time.Now(), "b", time.Time{}); err != nil {
				t.Errorf("Revoke of another user inside apply: %v", err)
			}
			if err := s.Revoke(ctx, time.Now(), "a", time.Time{}); err != nil {
				t.Errorf("Revoke of the user inside apply: %v", err)
			}
			if _, err := s.Issue(ctx, now, a, reset.Limits{MaxRequests: 1}, nil); err == nil {
				t.Errorf("Issue for the user inside apply succeeded")
			}
			err := s.Redeem(ctx, now, d, reset.Mail{ID: reset.ID{2}, Kind: reset.MailNotification}, func(context.Context) error { return failure })
			if !errors.Is(err, failure) {
				t.Errorf("Redeem for another user inside apply: %v", err)
			}
			return result
		})
		if !errors.Is(err, result) {
			t.Errorf("Redeem: got error %v, want %v", err, result)
		}
		if _, err := s.Find(t.Context(), now, a.Hash); (err == nil) != (result != nil) {
			t.Errorf("Find after apply returned %v: %v", result, err)
		}
	}
	if _, err := s.Find(t.Context(), now, b.Hash); !errors.Is(err, reset.ErrInvalidActivation) {
		t.Errorf("Find of an activation that was revoked inside apply: %v", err)
	}
}

// A call for the user of a running Redeem waits until that ends, or its context.
func TestMemStoreWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(resettest.MemStore)
		a := issue(t, s, 'a')
		leave := make(chan struct{})
		go func() {
			_ = s.Redeem(t.Context(), now, a, reset.Mail{ID: reset.ID{1}}, func(context.Context) error {
				<-leave
				return errors.New("apply failed")
			})
		}()
		synctest.Wait()
		issue(t, s, 'b') // does not wait

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Revoke(ctx, time.Now(), "a", time.Time{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Revoke while apply runs: got error %v, want DeadlineExceeded", err)
		}
		revoked := make(chan error)
		go func() { revoked <- s.Revoke(t.Context(), time.Now(), "a", time.Time{}) }()
		synctest.Wait()
		select {
		case err := <-revoked:
			t.Errorf("Revoke did not wait for apply: %v", err)
		default:
		}
		close(leave)
		if err := <-revoked; err != nil {
			t.Errorf("Revoke: %v", err)
		}
		if _, err := s.Find(t.Context(), now, a.Hash); !errors.Is(err, reset.ErrInvalidActivation) {
			t.Errorf("Find after Revoke: %v", err)
		}
	})
}

func TestMemStoreRefuses(t *testing.T) {
	s := new(resettest.MemStore)
	m := reset.Mail{ID: reset.ID{1}, Kind: reset.MailReset, Due: now, Expires: now.Add(time.Hour)}
	for _, want := range []bool{true, false} {
		if err := s.Enqueue(t.Context(), m); (err == nil) != want {
			t.Errorf("Enqueue: %v; want success: %t", err, want)
		}
	}
	a := issue(t, s, 'a')
	for _, max := range []int{0, -1} {
		if _, err := s.Issue(t.Context(), now, a, reset.Limits{MaxRequests: max}, nil); err == nil || errors.Is(err, reset.ErrTooManyRequests) {
			t.Errorf("Issue with max %d: got error %v, want one that is no *LimitError", max, err)
		}
	}
}
