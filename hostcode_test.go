package reset_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

// Where the host's code fails or panics, the call fails: it changes nothing,
// holds nothing, and succeeds once the fault is over. The value of a panic is
// not logged: it may hold a secret.
func TestHostFails(t *testing.T) {
	fault := errors.New("disk full: /var/lib/app.db")
	const secret = "secret of the panic"
	for _, tt := range []struct {
		place string
		nth   int    // call of that place in each request
		path  string // of the handler
	}{
		{"PerAddress", 1, resetPath},
		{"FindByEmail", 1, resetPath},
		{"Issue", 1, resetPath},
		{"Find", 1, newPath},
		{"FindByEmail", 1, newPath},
		{"CheckPassword", 1, newPath},
		{"Find", 2, newPath},
		{"HashPassword", 1, newPath},
		{"Redeem", 1, newPath},
		{"SetPassword", 1, newPath},
	} {
		for _, panics := range []bool{false, true} {
			on, calls := false, 0
			hook := func(place string) error {
				if !on || place != tt.place {
					return nil
				}
				if calls++; calls%tt.nth > 0 {
					return nil
				}
				if panics {
					panic(secret)
				}
				return fault
			}
			h := newHost(ann)
			h.onFind = func(context.Context, string) error { return hook("FindByEmail") }
			h.onHash = func(context.Context, string) error { return hook("HashPassword") }
			h.onSet = func(context.Context, string) error { return hook("SetPassword") }
			f := newTrusted(t, h, func(c *reset.Config) {
				c.CheckPassword = func(context.Context, reset.User, string) error { return hook("CheckPassword") }
				c.PerAddress = limiterFunc(func(context.Context, string, time.Time) error { return hook("PerAddress") })
			})
			f.store.Before = func(_ context.Context, method string) error { return hook(method) }

			body := `{"email":"ann@example.com"}`
			if tt.path == newPath {
				body = newPassword(f.activation(ann), goodPassword)
			}
			on = true
			n := 2 * runtime.GOMAXPROCS(0) // more than there are hash slots
			for range n {
				wantAnswer(t, f.post(tt.path, body), 500, unknownErrorBody)
			}
			on = false
			if panics {
				f.wantEvent("panic", n)
			} else {
				f.wantEvent("request_failed", n)
				if !strings.Contains(f.log.String(), fault.Error()) {
					t.Errorf("the log lacks %q\n%v", fault, f.log)
				}
			}
			if strings.Contains(f.log.String(), secret) {
				t.Errorf("the log has the value of a panic\n%v", f.log)
			}
			f.wantPassword(ann, "")
			f.wantQueued(0)
			if w := f.post(tt.path, body); w.Code != 200 {
				t.Errorf("afterwards: %d %s", w.Code, w.Body)
			}
			if t.Failed() {
				t.Fatalf("that was call %d of %s for %s, panics: %t", tt.nth, tt.place, tt.path, panics)
			}
		}
	}
}

// A panic while mail is sent costs an attempt, and its stack is logged.
func TestDeliveryPanics(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.mailer.do = func(_ context.Context, n int, _ reset.Message) error {
			if n == 0 {
				panic("mailer")
			}
			return nil
		}
		found := false
		f.host.onFind = func(context.Context, string) error {
			if !found {
				found = true
				panic("users")
			}
			return nil
		}
		f.forgot(ann.Email)
		f.run()
		pass(2 * time.Minute)
		f.wantSent(2)
		f.wantEvents(map[string]int{"run_elsewhere": 1, "panic": 2, "mail_failed": 2, "mail_sent": 1})
		for _, p := range f.log.named("panic") {
			if stack, _ := p["stack"].(string); !strings.Contains(stack, "TestDeliveryPanics") {
				t.Errorf("the stack is that of another goroutine\n%s", stack)
			}
		}
	})
}

// Users that end the goroutine, as a test's Fatal does, hold neither other mail
// nor the end of Run.
func TestHostExits(t *testing.T) {
	inBubble(t, func(c *reset.Config) { unlimited(c); c.Workers = 1 }, func(t *testing.T, f *fixture) {
		f.host.onFind = func(_ context.Context, address string) error {
			if address == ann.Email {
				runtime.Goexit()
			}
			return nil
		}
		stop := f.run()
		for range 20 {
			f.forgot(ann.Email)
		}
		f.forgot(bob.Email)
		pass(delivered)
		f.wantSent(1)
		stop()
	})
}

// A Logger that panics stops nothing.
func TestLoggerPanics(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.Logger = slog.New(panicking{}) }, func(t *testing.T, f *fixture) {
		f.begin()
		activation := f.request(ann.Email)
		f.forgot(bob.Email)
		pass(2 * time.Minute) // until what was counted is logged
		f.wantSent(2)
		if err := f.ChangePassword(t.Context(), activation, goodPassword); err != nil {
			t.Error(err)
		}
		f.mailer.do = func(context.Context, int, reset.Message) error { panic("no mail") }
		f.forgot(bob.Email)
		pass(delivered)
	})
}

// panicking is a slog.Handler.
type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool  { return true }
func (panicking) Handle(context.Context, slog.Record) error { panic("no log") }

// A Mailer or Users that never returns costs an attempt, and no worker. It does
// not keep Run from ending.
func TestHostHangs(t *testing.T) {
	for _, where := range []string{"Mailer", "Users"} {
		t.Run(where, func(t *testing.T) {
			inBubble(t, func(c *reset.Config) { c.Workers = 1 }, func(t *testing.T, f *fixture) {
				never := make(chan struct{})
				defer close(never)
				var works atomic.Bool
				hang := func(at, address string) error {
					if !works.Load() && at == where && address == ann.Email {
						<-never
					}
					return nil
				}
				f.mailer.do = func(_ context.Context, _ int, m reset.Message) error { return hang("Mailer", m.To) }
				f.host.onFind = func(_ context.Context, address string) error { return hang("Users", address) }
				f.forgot(ann.Email)
				stop := f.run()
				pass(10 * time.Second)
				f.request(bob.Email)
				pass(time.Minute)
				if !slices.ContainsFunc(f.mailer.Messages(), func(m reset.Message) bool { return m.To == bob.Email }) {
					t.Errorf("no mail to another user within a minute\n%v", f.log)
				}
				if len(f.log.named("mail_failed")) == 0 {
					t.Error("no event mail_failed")
				}
				works.Store(true)
				pass(10 * time.Minute)
				f.wantEvent("mail_sent", 2)
				stop()
			})
		})
	}
}

// Run ends 10 s after its context even if a Mailer never returns, and reports
// the exchange.
func TestRunEndsWithoutMailer(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		never := make(chan struct{})
		defer close(never)
		f.mailer.do = func(context.Context, int, reset.Message) error { <-never; return nil }
		f.request(ann.Email)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- f.Run(ctx) }()
		pass(20 * time.Second)
		select {
		case err := <-ended:
			if err == nil {
				t.Error("Run = nil, want an error for the exchange")
			}
		default:
			t.Error("Run goes on")
		}
	})
}
