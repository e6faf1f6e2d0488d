package reset_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

func TestDeliveryPanics(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.post.do = func(_ context.Context, n int, _ reset.Message) error {
			if n == 0 {
				panic("mailer")
			}
			return nil
		}
		var once sync.Once
		r.host.onFind = func(context.Context, string) error {
			once.Do(func() { panic("users") })
			return nil
		}
		r.forgot(t, ann.Email)
		run(t, r.Service)
		pass(2 * time.Minute)
		if n := len(r.post.messages()); n != 2 {
			t.Errorf("%d attempts; want one that panics and one that succeeds", n)
		}
		panics := r.events.named("panic")
		if len(panics) != 2 {
			t.Errorf("%d events panic; want 2", len(panics))
		}
		for _, p := range panics { // where it was, though on a goroutine of its own
			if stack, _ := p["stack"].(string); !strings.Contains(stack, "TestDeliveryPanics") {
				t.Errorf("event panic with the stack\n%s", stack)
			}
		}
	})
}

// A mailer or an account look-up that never returns costs an attempt, not a
// worker, and does not keep Run from ending.
func TestHostHangs(t *testing.T) {
	for _, where := range []string{"Mailer", "Users"} {
		t.Run(where, func(t *testing.T) {
			inBubble(t, func(c *reset.Config) { unlimited(c); c.Workers = 1 }, func(t *testing.T, r round) {
				never := make(chan struct{})
				var works atomic.Bool
				hang := func(address string) error {
					if address == ann.Email && !works.Load() {
						<-never
					}
					return nil
				}
				switch where {
				case "Mailer":
					r.post.do = func(_ context.Context, _ int, m reset.Message) error { return hang(m.To) }
				case "Users":
					r.host.onFind = func(_ context.Context, address string) error { return hang(address) }
				}
				r.forgot(t, ann.Email)
				stop := run(t, r.Service)
				pass(10 * time.Second)
				r.request(t, bob.Email)
				pass(time.Minute)
				sent := 0
				for _, m := range r.post.messages() {
					if m.To == bob.Email {
						sent++
					}
				}
				if sent != 1 {
					t.Errorf("%d mails to another user within a minute, want 1\n%v", sent, r.events)
				}
				if n := len(r.events.named("mail_failed")); n == 0 {
					t.Error("nobody was told")
				}
				works.Store(true)
				pass(10 * time.Minute)
				if n := len(r.events.named("mail_sent")); n != 2 {
					t.Errorf("%d events mail_sent, want 2\n%v", n, r.events)
				}
				stop()
				close(never)
			})
		})
	}
}

// Run ends though a mailer does not, and says so.
func TestRunEndsWithoutMailer(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		never := make(chan struct{})
		r.post.do = func(context.Context, int, reset.Message) error { <-never; return nil }
		r.request(t, ann.Email)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		pass(time.Second)
		cancel()
		pass(20 * time.Second)
		select {
		case err := <-ended:
			if err == nil {
				t.Error("Run = nil though it had to cut an exchange off")
			}
		default:
			t.Error("Run goes on")
		}
		close(never)
	})
}
