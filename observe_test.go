package reset_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

// An observer counts operations, as "operation outcome".
type observer struct {
	mu     sync.Mutex
	counts map[string]int
}

type observed struct{}

func (o *observer) observe(ctx context.Context, operation string) (context.Context, func(string)) {
	return context.WithValue(ctx, observed{}, operation), func(outcome string) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if operation != "lease" && operation != "purge" { // of which there are as many as time passes
			o.counts[operation+" "+outcome]++
		}
	}
}

func (o *observer) want(t *testing.T, want map[string]int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !maps.Equal(o.counts, want) {
		t.Errorf("observed %v, want %v", o.counts, want)
	}
	o.counts = make(map[string]int)
}

func TestObserve(t *testing.T) {
	o := &observer{counts: make(map[string]int)}
	edit := func(c *reset.Config) {
		c.Observe, c.MaxRequests, c.PerClient = o.observe, 1, reset.NewMemoryLimiter(3, time.Hour)
	}
	inBubble(t, edit, func(t *testing.T, f *fixture) {
		f.store.Before = func(ctx context.Context, method string) error {
			if want := map[string]string{"Enqueue": "public_request", "Lease": "lease", "Settle": "settle", "Purge": "purge", "Revoke": "revoke"}[method]; want != "" && ctx.Value(observed{}) != want {
				t.Errorf("%s runs in the context of %v", method, ctx.Value(observed{}))
			}
			return nil
		}
		f.begin()
		activation := f.request(ann.Email)
		f.RequestReset(t.Context(), ann.Email, reset.RequestOptions{})
		f.RequestReset(t.Context(), "nobody", reset.RequestOptions{})
		pass(delivered)
		o.want(t, map[string]int{"trusted_request ok": 1, "trusted_request limited": 1, "trusted_request refused": 1, "send ok": 1, "settle ok": 1})

		for _, email := range []string{bob.Email, "nobody@example.com"} {
			f.forgot(email)
			o.want(t, map[string]int{"public_request ok": 1})
		}
		f.Forgot(t.Context(), "nobody", "192.0.2.1", reset.ForgotOptions{})
		f.forgot(bob.Email)
		f.Forgot(t.Context(), bob.Email, "192.0.2.1", reset.ForgotOptions{})
		o.want(t, map[string]int{"public_request ok": 1, "public_request refused": 1, "public_request limited": 1})

		f.ChangePassword(t.Context(), activation, "short")
		f.host.onHash = func(context.Context, string) error { return errors.New("no memory") }
		f.ChangePassword(t.Context(), activation, goodPassword)
		f.host.onHash = nil
		f.ChangePassword(t.Context(), activation, goodPassword)
		f.Revoke(t.Context(), ann.ID)
		pass(0)
		o.mu.Lock()
		delete(o.counts, "send ok")
		delete(o.counts, "settle ok")
		o.mu.Unlock()
		o.want(t, map[string]int{"redeem refused": 1, "redeem failed": 1, "redeem ok": 1, "revoke ok": 1})
	})
}

// A panic of an Observation, or of what it returns, ends neither the operation
// nor Run.
func TestObservationPanics(t *testing.T) {
	for _, operation := range []string{"public_request", "lease", "send", "settle", "purge"} {
		for _, atEnd := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", operation, atEnd), func(t *testing.T) {
				observe := func(ctx context.Context, o string) (context.Context, func(string)) {
					if o == operation && !atEnd {
						panic("boom")
					}
					return ctx, func(string) {
						if o == operation && atEnd {
							panic("boom")
						}
					}
				}
				inBubble(t, func(c *reset.Config) { c.Observe = observe }, func(t *testing.T, f *fixture) {
					f.begin()
					f.forgot("nobody@example.com")
					f.forgot(ann.Email)
					pass(delivered)
					f.wantSent(1)
					f.wantQueued(0)
				})
			})
		}
	}
}

func TestObservationWithoutContext(t *testing.T) {
	observe := func(context.Context, string) (context.Context, func(string)) { return nil, func(string) {} }
	inBubble(t, func(c *reset.Config) { c.Observe = observe }, func(t *testing.T, f *fixture) {
		f.begin()
		f.request(ann.Email)
		pass(delivered)
		f.wantSent(1)
	})
}

// An operation that panics has failed.
func TestObservePanic(t *testing.T) {
	o := &observer{counts: make(map[string]int)}
	inBubble(t, func(c *reset.Config) { c.Observe = o.observe }, func(t *testing.T, f *fixture) {
		f.mailer.do = func(context.Context, int, reset.Message) error { panic("boom") }
		f.request(ann.Email)
		f.begin()
		o.want(t, map[string]int{"trusted_request ok": 1, "send failed": 1, "settle ok": 1})
	})
}
