package reset_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

// wantHealth checks that the error of Health has a text, or that there is none.
func (f *fixture) wantHealth(text string) {
	f.t.Helper()
	err := f.Health(f.t.Context())
	if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
		f.t.Errorf("Health = %v, want %q", err, text)
	}
}

func TestHealth(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.wantHealth("no process has called Run")
		stop := f.begin()
		f.wantHealth("")
		pass(time.Hour)
		f.wantHealth("")
		stop()
		pass(30 * time.Second)
		f.wantHealth("")
		pass(time.Minute)
		f.wantHealth("no process has run Run for 1m")
	})
}

// Mail that waits makes a host unhealthy, unless it waits for a mail system
// that is down.
func TestHealthOfQueue(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.store.Fail(errors.New("permission denied"), "Lease")
		f.request(ann.Email)
		f.begin()
		pass(5*time.Minute - time.Second)
		f.wantHealth("")
		pass(2 * time.Second)
		f.wantHealth("a mail has been due for 5m1s")
		f.store.Fail(nil, "Lease")
		pass(time.Minute)
		f.wantHealth("")

		f.mailer.do = func(context.Context, int, reset.Message) error { return reset.ErrUnavailable }
		f.request(bob.Email)
		pass(10 * time.Minute)
		f.wantHealth("")
		if got, err := f.Stats(t.Context()); err != nil || got.OldestDue < 5*time.Minute || got.MailerFailed.IsZero() {
			t.Errorf("Stats = %+v, %v", got, err)
		}
	})
}

// A store without figures is asked for an activation that it cannot have.
func TestHealthWithoutStats(t *testing.T) {
	f := newFixture(t, newHost(ann), func(c *reset.Config) { c.Store = struct{ reset.Store }{c.Store} })
	if _, err := f.Stats(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Stats: %v", err)
	}
	f.wantHealth("")
	f.store.Fail(errors.New("connection refused"))
	f.wantHealth("health: connection refused")
}

func TestStats(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.request(ann.Email)
		f.forgot(bob.Email)
		got, err := f.Stats(t.Context())
		got.Now = got.Now.UTC()
		if want := (reset.Stats{Waiting: 2, LiveRequests: 1, Now: time.Now().UTC()}); err != nil || got != want {
			t.Errorf("Stats = %+v, %v, want %+v", got, err, want)
		}
	})
}

// Mail that waits for more than a minute is reported once a minute, by any
// process that queues or sends mail.
func TestQueueLate(t *testing.T) {
	late := map[string]any{"oldest": float64(3 * time.Minute), "waiting": 1.}
	inBubble(t, nil, func(t *testing.T, f *fixture) { // queues
		f.request(ann.Email)
		pass(3 * time.Minute)
		f.request(bob.Email)
		f.request(bob.Email)
		late["waiting"] = 2.
		f.wantRecords("queue_late", late)
	})
	inBubble(t, nil, func(t *testing.T, f *fixture) { // runs, but cannot lease
		f.store.Fail(errors.New("permission denied"), "Lease")
		f.request(ann.Email)
		f.begin()
		pass(3*time.Minute + 30*time.Second)
		if n := len(f.log.named("queue_late")); n < 2 || n > 3 {
			t.Errorf("%d records within 2.5 minutes", n)
		}
	})
	inBubble(t, nil, func(t *testing.T, f *fixture) { // waits for the mail system
		f.mailer.do = func(context.Context, int, reset.Message) error { return reset.ErrUnavailable }
		f.begin()
		f.request(ann.Email)
		pass(10 * time.Minute)
		f.wantEvent("queue_late", 0)
	})
}

// The bound of the queue holds, and ends, although the clock was set back.
func TestMaxQueuedClockSetBack(t *testing.T) {
	const limit = 1000
	inBubble(t, func(c *reset.Config) { unlimited(c); c.MaxQueued = limit }, func(t *testing.T, f *fixture) {
		f.forgot("nobody@example.com")
		skew(t, -2*time.Hour)
		for range limit {
			f.Forgot(t.Context(), ann.Email, "192.0.2.1", reset.ForgotOptions{})
		}
		pass(time.Minute)
		if err := f.Forgot(t.Context(), ann.Email, "192.0.2.1", reset.ForgotOptions{}); !errors.Is(err, reset.ErrTooManyRequests) {
			t.Errorf("Forgot beside a full queue: %v", err)
		}
		f.begin()
		pass(time.Minute)
		skew(t, -4*time.Hour)
		pass(time.Minute)
		f.forgot(ann.Email)
	})
}

// Public requests beyond MaxQueued are refused, whoever has an account, until
// there is room. Trusted ones are not.
func TestMaxQueued(t *testing.T) {
	const limit = 1000
	inBubble(t, func(c *reset.Config) { unlimited(c); c.MaxQueued = limit }, func(t *testing.T, f *fixture) {
		forgot := func(email string) error {
			return f.Forgot(t.Context(), email, "192.0.2.1", reset.ForgotOptions{})
		}
		for range limit {
			f.forgot("nobody@example.com")
		}
		pass(2 * time.Second)
		for _, email := range []string{ann.Email, "nobody@example.com", ann.Email} {
			var full *reset.LimitError
			if err := forgot(email); !errors.As(err, &full) || !full.Full || full.RetryAfter != time.Minute {
				t.Errorf("Forgot(%q) beside a full queue: %v, want a *LimitError that is Full", email, err)
			}
		}
		pass(time.Minute)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for _, ctx := range []context.Context{gone, t.Context()} { // the first counts
			if err := f.Forgot(ctx, ann.Email, "192.0.2.1", reset.ForgotOptions{}); !errors.Is(err, reset.ErrTooManyRequests) {
				t.Errorf("Forgot after a client has hung up: %v, want the queue full", err)
			}
		}
		f.request(bob.Email)
		f.begin()
		pass(10 * time.Second)
		if err := forgot(ann.Email); err != nil {
			t.Errorf("Forgot when there is room again: %v", err)
		}
		f.LogCounts()
		f.wantRecords("queue_full", map[string]any{"count": 1.}, map[string]any{"count": 2.}, map[string]any{"count": 2.})
	})
}
