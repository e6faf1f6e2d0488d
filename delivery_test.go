package reset_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

// A postman is a Mailer that keeps what it is given, with the time, and does
// with the n-th message, counted from 0, what do says.
type postman struct {
	do func(ctx context.Context, n int, m reset.Message) error

	mu   sync.Mutex
	sent []reset.Message
	at   []time.Time
}

func (p *postman) Send(ctx context.Context, m reset.Message) error {
	p.mu.Lock()
	n := len(p.sent)
	p.sent, p.at = append(p.sent, m), append(p.at, time.Now())
	p.mu.Unlock()
	if p.do == nil {
		return nil
	}
	return p.do(ctx, n, m)
}

func (p *postman) messages() []reset.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]reset.Message(nil), p.sent...)
}

// A round is a service with a postman, in a bubble of synctest.
type round struct {
	*reset.Service
	host   *host
	store  *resettest.MemStore
	post   *postman
	events *events
}

// inBubble runs f with a service by the fake clock of a bubble of synctest.
func inBubble(t *testing.T, edit func(*reset.Config), f func(t *testing.T, r round)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := round{host: newHost(ann, bob), post: new(postman), events: newEvents()}
		r.Service, r.store, _ = newService(t, r.host, func(c *reset.Config) {
			c.Mailer, c.Logger = r.post, slog.New(r.events)
			if edit != nil {
				edit(c)
			}
		})
		f(t, r)
	})
}

func (r round) request(t *testing.T, email string) string {
	t.Helper()
	id, err := r.RequestReset(t.Context(), email, reset.RequestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (r round) forgot(t *testing.T, email string) {
	t.Helper()
	if err := r.Forgot(t.Context(), email, "192.0.2.1", reset.ForgotOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestDeliverySchedule(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		down := errors.New("421 try later")
		r.post.do = func(context.Context, int, reset.Message) error { return down }
		first := r.request(t, ann.Email)
		stop := run(t, r.Service)
		pass(2 * time.Hour)
		stop()

		want := []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute}
		if n := len(r.post.at); n < 6 || n > 10 {
			t.Errorf("%d attempts within an hour; want 6 to 10", n)
		}
		for i := 1; i < len(r.post.at); i++ {
			d, w := r.post.at[i].Sub(r.post.at[i-1]), want[min(i, len(want))-1]
			if d < w*7/10 || d > w*13/10+2*time.Second { // 2 s for looking at the queue
				t.Errorf("attempt %d came after %v; want %v ± 30 %%", i+1, d, w)
			}
		}
		if last := r.post.sent[len(r.post.sent)-1]; r.post.at[len(r.post.at)-1].After(last.Expires.Add(-5 * time.Minute)) {
			t.Error("a link was mailed that lived less than 5 minutes")
		}
		if n := len(r.events.named("mail_failed")); n < len(r.post.sent)-1 {
			t.Errorf("%d events for %d failed attempts", n, len(r.post.sent))
		}
		if n := len(r.events.named("mail_expired")); n != 1 {
			t.Errorf("%d events mail_expired; want 1", n)
		}
		drained(t, r.store)
		ids := map[string]bool{first: true}
		for _, m := range r.post.sent {
			ids[activationOf(t, m)] = true
			if m.ID != r.post.sent[0].ID {
				t.Errorf("attempts have the Message.IDs %s and %s", r.post.sent[0].ID, m.ID)
			}
		}
		if len(ids) != len(r.post.sent)+1 {
			t.Errorf("%d activations for %d attempts and the answer", len(ids), len(r.post.sent))
		}
	})
}

func TestDeliveryAttemptsStayValid(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.MaxRequests = 1 }, func(t *testing.T, r round) {
		r.post.do = func(_ context.Context, n int, _ reset.Message) error {
			if n < 3 {
				return errors.New("no answer to DATA")
			}
			return nil
		}
		r.forgot(t, ann.Email)
		run(t, r.Service)
		pass(10 * time.Minute)
		sent := r.post.messages()
		if len(sent) != 4 {
			t.Fatalf("%d attempts; want 4: a retry joins its request though the cap is 1", len(sent))
		}
		if err := r.ChangePassword(t.Context(), activationOf(t, sent[0]), "a new secret of mine"); err != nil {
			t.Errorf("the first attempt's link: %v", err)
		}
		if err := r.ChangePassword(t.Context(), activationOf(t, sent[3]), "another secret"); !errors.Is(err, reset.ErrInvalidActivation) {
			t.Errorf("the last attempt's link after a change: %v; want ErrInvalidActivation", err)
		}
	})
}

func TestDeliveryGivesUp(t *testing.T) {
	for _, kind := range []string{"reset", "notification"} {
		t.Run(kind, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, r round) {
				r.post.do = func(_ context.Context, _ int, m reset.Message) error {
					if string(m.Kind) != kind {
						return nil
					}
					return fmt.Errorf("550 no such mailbox: %w", reset.ErrUndeliverable)
				}
				id := r.request(t, ann.Email)
				run(t, r.Service)
				pass(time.Second)
				if err := r.ChangePassword(t.Context(), id, "a new secret of mine"); err != nil {
					t.Fatal(err)
				}
				pass(time.Hour)
				if n := len(r.post.messages()); n != 2 {
					t.Errorf("%d messages; want 2", n)
				}
				if n := len(r.events.named("mail_undeliverable")); n != 1 {
					t.Errorf("%d events mail_undeliverable; want 1", n)
				}
				drained(t, r.store)
			})
		})
	}
}

func TestDeliveryTo(t *testing.T) {
	for _, tt := range []struct {
		name, asked string
		answer      reset.User // of FindByEmail, whatever it is asked
		to          string     // "" for no mail
	}{
		{"stored address", "ANN@example.com", reset.User{ID: "1", Email: "Ann@Example.COM"}, "Ann@Example.COM"},
		{"dotless i", "mıke@example.com", reset.User{ID: "1", Email: "mike@example.com"}, ""},
		{"accent-insensitive", "jurgen@example.com", reset.User{ID: "1", Email: "jürgen@example.com"}, ""},
		{"padded", "ann@example.com", reset.User{ID: "1", Email: "ann@example.com "}, ""},
		{"another", "ann@example.com", bob, ""},
		{"no id", "ann@example.com", reset.User{Email: "ann@example.com"}, ""},
		{"nobody", "nobody@example.com", reset.User{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(c *reset.Config) { c.Users = answerer{c.Users, tt.answer} }, func(t *testing.T, r round) {
				r.forgot(t, tt.asked)
				run(t, r.Service)
				pass(2 * time.Hour)
				var to []string
				for _, m := range r.post.messages() {
					to = append(to, m.To)
				}
				if got := strings.Join(to, " "); got != tt.to {
					t.Errorf("mail to %q; want %q", got, tt.to)
				}
				drained(t, r.store)
				if tt.to == "" && strings.Contains(r.events.String(), tt.asked) {
					t.Errorf("the log names an address without account:\n%v", r.events)
				}
			})
		})
	}
}

// An answerer knows one user by every address.
type answerer struct {
	reset.Users
	user reset.User
}

func (a answerer) FindByEmail(context.Context, string) (reset.User, error) {
	if a.user == (reset.User{}) {
		return reset.User{}, reset.ErrNoUser
	}
	return a.user, nil
}

func TestDeliveryMergesPublicRequests(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.Workers = 10 }, func(t *testing.T, r round) {
		for range 3 {
			r.forgot(t, ann.Email)
		}
		r.forgot(t, bob.Email)
		pass(3 * time.Second) // all are due when Run begins
		run(t, r.Service)
		pass(time.Minute)
		count := make(map[string]int)
		for _, m := range r.post.messages() {
			count[m.To]++
		}
		if count[ann.Email] != 1 || count[bob.Email] != 1 {
			t.Errorf("mails: %v; want one for each address", count)
		}
		drained(t, r.store)
	})
}

func TestDeliveryOverCap(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		for range 3 {
			if _, err := r.RequestReset(t.Context(), ann.Email, reset.RequestOptions{PreventEmailSending: true}); err != nil {
				t.Fatal(err)
			}
		}
		r.forgot(t, ann.Email)
		run(t, r.Service)
		pass(time.Minute)
		if n := len(r.post.messages()); n != 0 {
			t.Errorf("%d mails over the cap", n)
		}
		if n := len(r.events.named("over_cap")); n != 1 {
			t.Errorf("%d events over_cap; want 1", n)
		}
		drained(t, r.store)
	})
}

func TestDeliveryNotification(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		id, err := r.RequestReset(t.Context(), ann.Email, reset.RequestOptions{PreventEmailSending: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.ChangePassword(t.Context(), id, "a new secret of mine"); err != nil {
			t.Fatal(err)
		}
		// Whoever has taken the account over changes the address at once.
		if err := r.Revoke(t.Context(), ann.ID); err != nil {
			t.Fatal(err)
		}
		r.host.remove(ann.Email)
		pass(23 * time.Hour)
		finds, _, _ := r.host.calls()
		run(t, r.Service)
		pass(time.Minute)
		sent := r.post.messages()
		if len(sent) != 1 || sent[0].Kind != reset.MailNotification || sent[0].To != ann.Email || sent[0].Name != ann.Name || sent[0].Locale != ann.Locale {
			t.Fatalf("sent %+v; want one notification to the address of the change", sent)
		}
		if sent[0].Link != baseURL+"/forgot" || sent[0].RevokeLink != "" || strings.Contains(sent[0].Text+sent[0].HTML, "activation=") {
			t.Error("the notification carries a credential")
		}
		if after, _, _ := r.host.calls(); after != finds {
			t.Error("the notification took a lookup")
		}
	})
}

func TestDeliveryOnce(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.PerClient = reset.Unlimited }, func(t *testing.T, r round) {
		want := make(map[string]bool)
		for i := range 200 {
			u := reset.User{ID: fmt.Sprint(1000 + i), Email: fmt.Sprintf("user%d@example.com", i)}
			r.host.put(u)
			r.forgot(t, u.Email)
			want[u.Email] = true
		}
		for range 3 {
			run(t, r.Service)
		}
		pass(time.Minute)
		for _, m := range r.post.messages() {
			if !want[m.To] {
				t.Errorf("%s has two mails, or one too many", m.To)
			}
			delete(want, m.To)
		}
		if len(want) > 0 {
			t.Errorf("%d public requests got no mail", len(want))
		}
	})
}

func TestDeliveryEnd(t *testing.T) {
	for _, tt := range []struct {
		name  string
		takes time.Duration
		cut   bool
	}{{"in time", 9 * time.Second, false}, {"too late", 11 * time.Second, true}} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, r round) {
				r.post.do = func(ctx context.Context, n int, _ reset.Message) error {
					if n > 0 {
						return nil
					}
					select {
					case <-time.After(tt.takes):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				r.request(t, ann.Email)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- r.Run(ctx) }()
				synctest.Wait() // the exchange is under way
				if n := len(r.post.messages()); n != 1 {
					t.Fatalf("%d exchanges under way", n)
				}
				r.request(t, bob.Email)
				start := time.Now()
				cancel()
				err := <-done
				if took := time.Since(start); took > 10*time.Second || (err != nil) != tt.cut {
					t.Errorf("Run ended after %v with %v", took, err)
				}
				// What is left is free for another process, at once or after the
				// back-off, not after the lease.
				run(t, r.Service)
				pass(8 * time.Second)
				want := 2
				if tt.cut {
					want = 3
				}
				if n := len(r.post.messages()); n != want {
					t.Errorf("%d exchanges in all; want %d", n, want)
				}
			})
		})
	}
}

func TestDeliveryLostLease(t *testing.T) {
	store, stolen := new(resettest.FaultStore), false
	inBubble(t, func(c *reset.Config) { store.Store, c.Store = c.Store, store }, func(t *testing.T, r round) {
		store.Before = func(_ context.Context, method string) error {
			if method != "Issue" {
				return nil
			}
			// Slower than the lease lasts, and deaf to its context; meanwhile
			// another process has taken the mail.
			<-time.After(61 * time.Second)
			stolen = true
			if _, err := r.store.Lease(t.Context(), time.Now(), time.Now().Add(time.Minute), 1); err != nil {
				t.Error(err)
			}
			return nil
		}
		r.forgot(t, ann.Email)
		stop := run(t, r.Service)
		pass(70 * time.Second)
		stop()
		if n := len(r.post.messages()); n != 0 || !stolen {
			t.Errorf("%d mails under a lost lease (lost: %t)", n, stolen)
		}
	})
}

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

func TestDeliveryStoreFaults(t *testing.T) {
	store := new(resettest.FaultStore)
	inBubble(t, func(c *reset.Config) { store.Store, c.Store = c.Store, store }, func(t *testing.T, r round) {
		r.forgot(t, ann.Email)
		store.Fail(errors.New("database is down"))
		run(t, r.Service)
		pass(5 * time.Minute)
		store.Fail(nil)
		pass(time.Minute)
		if n := len(r.post.messages()); n != 1 {
			t.Errorf("%d mails after the store came back; want 1", n)
		}
		if n := len(r.events.named("lease_failed")); n == 0 || n > 100 {
			t.Errorf("%d events lease_failed in 5 minutes", n)
		}
	})
}

func TestDeliveryElsewhere(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.forgot(t, ann.Email)
		r.forgot(t, ann.Email)
		if n := len(r.events.named("run_elsewhere")); n != 1 {
			t.Errorf("%d events run_elsewhere; want 1", n)
		}
	})
}

func TestDeliveryPurges(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		for range 3 {
			r.forgot(t, "nobody@example.com")
		}
		if _, err := r.RequestReset(t.Context(), ann.Email, reset.RequestOptions{PreventEmailSending: true}); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Hour)
		run(t, r.Service)
		pass(time.Second)
		if n, err := r.store.Purge(t.Context(), time.Now(), 1000); err != nil || n != 0 {
			t.Errorf("Run has left %d expired records, %v", n, err)
		}
	})
}

// TestNoSecrets looks for secrets, and for an address without account, in all
// that is logged over a run in which everything goes wrong once.
func TestNoSecrets(t *testing.T) {
	const password = "canary password 7"
	inBubble(t, nil, func(t *testing.T, r round) {
		secrets := []string{password, hashPrefix + password, "stranger@example.com"}
		r.post.do = func(_ context.Context, n int, m reset.Message) error {
			if n == 0 {
				panic(m)
			}
			if n == 1 {
				return errors.New("421 try later")
			}
			return nil
		}
		failures := 0
		r.host.onSet = func(context.Context, string) error {
			if failures++; failures == 1 {
				return errors.New("deadlock")
			}
			return nil
		}
		id := r.request(t, ann.Email)
		secrets = append(secrets, id)
		r.forgot(t, "stranger@example.com")
		run(t, r.Service)
		pass(5 * time.Minute)
		for _, p := range []string{password, password, password} {
			r.ChangePassword(t.Context(), id, p)
		}
		pass(5 * time.Minute)
		if r.host.password(ann.ID) != password {
			t.Fatal("the password was not changed")
		}
		for _, m := range r.post.messages() {
			if m.Kind == reset.MailReset {
				secrets = append(secrets, activationOf(t, m))
			}
		}
		log := r.events.String()
		for _, secret := range secrets {
			if strings.Contains(log, secret) {
				t.Errorf("the log holds %q:\n%s", secret, log)
			}
		}
		if len(secrets) < 6 || len(r.events.named("mail_failed")) < 2 {
			t.Errorf("the run was too smooth: %d secrets\n%s", len(secrets), log)
		}
	})
}

// A public request is due later, so it does not make Run look at the queue: whoever asks
// a lot would make it do little else. A request does.
func TestWhatWakesRun(t *testing.T) {
	store := new(resettest.FaultStore)
	inBubble(t, func(c *reset.Config) {
		unlimited(c)
		store.Store, c.Store = c.Store, store
	}, func(t *testing.T, r round) {
		r.begin(t)
		before := store.Calls("Lease")
		for range 100 {
			r.forgot(t, ann.Email)
			synctest.Wait()
		}
		if got := store.Calls("Lease"); got != before {
			t.Errorf("100 public requests made Run look %d times", got-before)
		}
		r.request(t, ann.Email)
		synctest.Wait()
		if store.Calls("Lease") == before {
			t.Error("a request did not wake Run")
		}
	})
}

// However many asks wait, what a trusted caller asks for and the notification of a
// change go first: the public must not be able to hold them up.
func TestPublicRequestsDoNotHoldUpOthers(t *testing.T) {
	inBubble(t, func(c *reset.Config) { unlimited(c); c.Workers = 1 }, func(t *testing.T, r round) {
		activation := prevented(t, r.Service, bob)
		for range 500 {
			r.forgot(t, ann.Email)
			pass(time.Second)
		}
		if err := r.ChangePassword(t.Context(), activation, goodPassword); err != nil {
			t.Fatal(err)
		}
		r.request(t, bob.Email)
		r.begin(t)
		pass(time.Minute)
		var first []string
		for _, m := range r.post.messages()[:2] {
			first = append(first, string(m.Kind)+" "+m.To)
		}
		slices.Sort(first)
		if want := []string{"notification " + bob.Email, "reset " + bob.Email}; !slices.Equal(first, want) {
			t.Errorf("first came %q, want %q", first, want)
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

// A store that only fails to settle does not make a mail come again and again.
func TestSentOnceThoughNotSettled(t *testing.T) {
	store := new(resettest.FaultStore)
	inBubble(t, func(c *reset.Config) { store.Store, c.Store = c.Store, store }, func(t *testing.T, r round) {
		store.Fail(errors.New("DELETE denied"), "Settle")
		r.forgot(t, ann.Email)
		stop := run(t, r.Service)
		pass(30 * time.Minute)
		if n := len(r.post.messages()); n != 1 {
			t.Errorf("%d mails, want 1", n)
		}
		if n := len(r.events.named("settle_failed")); n < 10 {
			t.Errorf("%d events settle_failed in 30 min", n)
		}
		store.Fail(nil)
		pass(2 * time.Minute)
		stop()
		drained(t, r.store)
		if n := len(r.post.messages()); n != 1 {
			t.Errorf("%d mails once the store works, want 1", n)
		}
	})
}

// A name that mail programs may link is left out of the message, in both kinds
// of mail.
func TestDeliveryName(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.host.put(reset.User{ID: ann.ID, Email: ann.Email, Name: "evil.example"})
		activation := r.request(t, ann.Email)
		run(t, r.Service)
		pass(time.Minute)
		if err := r.ChangePassword(t.Context(), activation, "nine grey herons"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		sent := r.post.messages()
		if len(sent) != 2 {
			t.Fatalf("%d mails sent, want 2", len(sent))
		}
		for _, m := range sent {
			if m.Name != "" || strings.Contains(m.Text+m.HTML, "evil.example") {
				t.Errorf("%s mail has name %q and text\n%s", m.Kind, m.Name, m.Text)
			}
		}
	})
}
