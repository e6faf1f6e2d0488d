package reset_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
)

// direct makes a trusted request and reports whether its mail was sent without
// a lease.
func (f *fixture) direct(email string) bool {
	f.t.Helper()
	sent, leases := len(f.mailer.attempts()), f.store.Calls("Lease")
	f.request(email)
	synctest.Wait()
	return len(f.mailer.attempts()) > sent && f.store.Calls("Lease") == leases
}

// Trusted mail is sent at once if Run has an exchange to spare: with the
// activation that it was queued with, by one look-up and two transactions.
func TestDirect(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.begin()
		before := f.store.Calls()
		activation := f.request(ann.Email)
		synctest.Wait()
		if m := f.wantSent(1)[0]; !strings.HasSuffix(m.Link, "="+activation) || m.To != ann.Email {
			t.Errorf("mailed %s to %s, want the activation %s for %s", m.Link, m.To, activation, ann.Email)
		}
		finds, _, _ := f.host.calls()
		if n := f.store.Calls() - before; finds != 1 || n != 2 || f.store.Calls("Settle") != 1 {
			t.Errorf("%d look-ups, %d calls of the store", finds, n)
		}
		f.wantQueued(0)
	})
}

// Mail that cannot be sent is retried like any other.
func TestDirectRetries(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.mailer.do = func(_ context.Context, n int, _ reset.Message) error {
			if n == 0 {
				return errors.New("451 try again")
			}
			return nil
		}
		f.begin()
		f.request(ann.Email)
		pass(time.Minute)
		sent := f.wantSent(2)
		if sent[0].ID != sent[1].ID || sent[0].Link == sent[1].Link {
			t.Errorf("attempts: %+v, want one ID and an activation for each", sent)
		}
		f.wantQueued(0)
	})
}

// An exchange that was reserved for a request is given back when that fails.
func TestDirectGivesBack(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.Workers = 1 }, func(t *testing.T, f *fixture) {
		stop := f.begin()
		for _, fail := range []func() error{
			func() error { return errors.New("disk full") },
			func() error { return &reset.LimitError{RetryAfter: time.Minute} },
			func() error { panic("store") },
		} {
			f.store.Before = func(context.Context, string) error { return fail() }
			func() {
				defer func() { _ = recover() }()
				if _, err := f.RequestReset(t.Context(), ann.Email, reset.RequestOptions{}); err == nil {
					t.Error("RequestReset succeeded")
				}
			}()
			f.store.Before = nil
			synctest.Wait()
		}
		if !f.direct(ann.Email) {
			t.Error("no exchange was left")
		}
		stop()
		f.request(bob.Email)
		f.wantQueued(1) // no Run would send it now
	})
}

// Of several Runs any may end.
func TestDirectRuns(t *testing.T) {
	for i := range 2 {
		inBubble(t, nil, func(t *testing.T, f *fixture) {
			runs := []func(){f.begin(), f.begin()}
			runs[i]()
			pass(pollSlack)
			if !f.direct(ann.Email) {
				t.Errorf("Run %d has ended, and the other does not send at once", i)
			}
		})
	}
}

// While the store takes long to queue a mail, neither other mail nor the end of
// Run waits for it longer than for the store otherwise. The mail is then sent
// once its lease has run out.
func TestDirectTakesLong(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.Workers = 1 }, func(t *testing.T, f *fixture) {
		stop := f.begin()
		for _, wait := range []func(){
			func() { f.notifications(1); pass(11 * time.Second); f.wantSent(1) },
			func() { stop(); f.begin() },
		} {
			slow := make(chan struct{})
			f.store.After = func(_ context.Context, method string, err error) error {
				if method == "Issue" {
					<-slow
				}
				return err
			}
			go func() { _, _ = f.RequestReset(context.Background(), ann.Email, reset.RequestOptions{}) }()
			synctest.Wait()
			f.store.After = nil
			wait()
			close(slow)
		}
		pass(2 * time.Minute)
		f.wantSent(3)
		f.wantQueued(0)
	})
}

// Mail waits in the queue while all exchanges are used or the mail system is
// unavailable.
func TestDirectWaits(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.Workers = 1 }, func(t *testing.T, f *fixture) {
		release := make(chan error)
		f.mailer.do = func(context.Context, int, reset.Message) error { return <-release }
		f.begin()
		f.request(ann.Email)
		synctest.Wait()
		f.request(bob.Email)
		synctest.Wait()
		f.wantSent(1)
		release <- reset.ErrUnavailable
		synctest.Wait()
		if f.direct(ann.Email) {
			t.Error("sent while the mail system was unavailable")
		}
		close(release)
		pass(time.Minute)
		f.wantQueued(0)
	})
}
