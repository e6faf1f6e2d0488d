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
		r.host.put(reset.User{ID: ann.ID, Email: ann.Email, Name: "evil.com"})
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
			if m.Name != "" || strings.Contains(m.Text+m.HTML, "evil.com") {
				t.Errorf("%s mail has name %q and text\n%s", m.Kind, m.Name, m.Text)
			}
		}
	})
}

// A link with less than five minutes to live is not mailed.
func TestTooLateToMail(t *testing.T) {
	tests := []struct {
		name   string
		left   time.Duration
		sent   int
		events map[string]int
	}{
		{"less than 5 minutes", 5*time.Minute - time.Millisecond, 0, map[string]int{"mail_expired": 1}},
		{"5 minutes and a bit", 5*time.Minute + 2*time.Second, 1, map[string]int{"mail_sent": 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, r round) {
				now := time.Now()
				m := reset.Mail{ID: reset.ID{1}, Kind: reset.MailReset, Email: ann.Email, Due: now, Expires: now.Add(tt.left)}
				if err := r.store.Enqueue(t.Context(), m); err != nil {
					t.Fatal(err)
				}
				r.begin(t)
				pass(delivered)
				r.wantSent(t, tt.sent)
				r.wantEvents(t, tt.events)
				if finds, _, _ := r.host.calls(); finds != tt.sent {
					t.Errorf("%d look-ups, want %d", finds, tt.sent)
				}
				at := m.Expires.Add(-time.Second)
				if left, err := r.store.Lease(t.Context(), at, at, 1); len(left) > 0 || err != nil {
					t.Errorf("still queued: %v, %v", left, err)
				}
			})
		})
	}
}

// Nor is one with less than half of its time, where that is less than five
// minutes: with the shortest TTL mail is sent, and sent again.
func TestShortestTTL(t *testing.T) {
	edit := func(c *reset.Config) { c.TTL = 5 * time.Minute }
	inBubble(t, edit, func(t *testing.T, r round) {
		r.post.do = func(context.Context, int, reset.Message) error { return errors.New("greylisted") }
		r.begin(t)
		r.forgot(t, ann.Email)
		pass(5 * time.Minute)
		n := len(r.post.messages())
		if n != 3 && n != 4 { // at once, after 5 s, 30 s and perhaps 2 min, if that leaves half of the time
			t.Errorf("%d attempts, want 3 or 4", n)
		}
		r.wantEvents(t, map[string]int{"mail_failed": n - 1, "mail_expired": 1})
		drained(t, r.store)
	})
}

// A store that fails now and then does not slow Run down as one that is down.
func TestFailuresNowAndThen(t *testing.T) {
	store := new(resettest.FaultStore)
	var leases, failures atomic.Int64
	store.Before = func(_ context.Context, method string) error {
		if method == "Lease" && leases.Add(1)%3 == 0 {
			failures.Add(1)
			return errors.New("connection reset")
		}
		return nil
	}
	edit := func(c *reset.Config) {
		store.Store, c.Store, c.Workers = c.Store, store, 1
		unlimited(c)
	}
	inBubble(t, edit, func(t *testing.T, r round) {
		const mails = 60
		r.notifications(t, mails)
		began := time.Now()
		r.begin(t)
		for len(r.post.messages()) < mails {
			pass(100 * time.Millisecond)
		}
		most := time.Duration(failures.Load()) * 2 * pollSlack // the pause after the first in a row
		if took := time.Since(began); failures.Load() < 10 || took > most {
			t.Errorf("%d mails took %v with %d failures; want at most %v", mails, took, failures.Load(), most)
		}
	})
}

// An address without an account leaves no trace.
func TestPublicRequestForNobody(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.begin(t)
		r.forgot(t, "nobody@example.com")
		pass(delivered)
		r.wantSent(t, 0)
		r.wantEvents(t, map[string]int{})
		drained(t, r.store)
	})
}

func TestMessage(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		started := time.Now()
		r.begin(t)
		r.request(t, bob.Email)
		pass(delivered)
		m := r.wantSent(t, 1)[0]
		query := "?activation=" + activationOf(t, m)
		want := reset.Message{
			ID: m.ID, Kind: reset.MailReset, To: bob.Email, Name: bob.Name, Locale: bob.Locale,
			Link: baseURL + "/reset" + query, RevokeLink: baseURL + "/revoke" + query, Expires: m.Expires,
			Subject: m.Subject, Text: m.Text, HTML: m.HTML,
		}
		if m != want || m.ID == "" || m.Subject == "" || m.Text == "" || m.HTML == "" {
			t.Errorf("got %+v\nwant %+v", m, want)
		}
		if got := m.Expires.Sub(started); got != time.Hour {
			t.Errorf("lives %v, want 1 h", got)
		}
	})
}

// Two processes on one store share the work.
func TestTwoProcesses(t *testing.T) {
	inBubble(t, unlimited, func(t *testing.T, r round) {
		otherEvents := newEvents()
		other, _, _ := newService(t, r.host, func(c *reset.Config) {
			c.Store, c.Mailer, c.Logger = r.store, r.post, slog.New(otherEvents)
		})
		r.post.do = func(context.Context, int, reset.Message) error {
			<-time.After(time.Second)
			return nil
		}
		r.begin(t)
		run(t, other)
		const requests = 100
		for i := range requests {
			u := reset.User{ID: fmt.Sprint(1000 + i), Email: fmt.Sprintf("user%d@example.com", i)}
			r.host.put(u)
			r.forgot(t, u.Email)
		}
		pass(time.Minute)
		to := make(map[string]bool)
		for _, m := range r.wantSent(t, requests) {
			to[m.To] = true
		}
		if len(to) != requests {
			t.Errorf("mail to %d users, want %d", len(to), requests)
		}
		here, there := len(r.events.named("mail_sent")), len(otherEvents.named("mail_sent"))
		if here == 0 || there == 0 {
			t.Errorf("one process sent %d, the other %d", here, there)
		}
		drained(t, r.store)
	})
}

// A mail server that hangs holds up one worker: what that cannot send yet, it
// leaves to others.
func TestLeasesNoMoreThanItCanSend(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.Workers = 1 }, func(t *testing.T, r round) {
		r.post.do = func(context.Context, int, reset.Message) error {
			<-time.After(5 * time.Second)
			return nil
		}
		r.request(t, ann.Email)
		pass(time.Millisecond)
		r.request(t, bob.Email)
		r.begin(t)
		r.wantSent(t, 1)
		other, _, mailbox := newService(t, r.host, func(c *reset.Config) { c.Store = r.store })
		run(t, other)
		pass(time.Second)
		if sent := mailbox.Messages(); len(sent) != 1 || sent[0].To != bob.Email {
			t.Errorf("the other process sent %v, want one mail to %s", sent, bob.Email)
		}
	})
}

// An exchange with the mail server has 30 s.
func TestExchangeTime(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		var took time.Duration
		r.post.do = func(ctx context.Context, n int, _ reset.Message) error {
			if n > 0 {
				return nil
			}
			began := time.Now()
			<-ctx.Done()
			took = time.Since(began)
			return ctx.Err()
		}
		r.begin(t)
		r.request(t, ann.Email)
		pass(time.Minute)
		r.wantSent(t, 2)
		if took != 30*time.Second {
			t.Errorf("the server had %v, want 30 s", took)
		}
		drained(t, r.store)
	})
}

// The cap bounds public requests that come one after the other, until the first expires.
func TestCapOfPublicRequests(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.begin(t)
		for range 4 {
			r.forgot(t, ann.Email)
			pass(delivered)
		}
		r.wantSent(t, 3)
		r.wantEvents(t, map[string]int{"mail_sent": 3, "over_cap": 1})
		if got := r.events.named("over_cap")[0]["user"]; got != ann.ID {
			t.Errorf("over_cap names user %v, want %s", got, ann.ID)
		}
		drained(t, r.store)
		pass(time.Hour)
		r.forgot(t, ann.Email)
		pass(delivered)
		r.wantSent(t, 4)
	})
}

func TestNotificationLivesADay(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.post.do = func(context.Context, int, reset.Message) error { return errors.New("451 try later") }
		r.begin(t)
		started := time.Now()
		r.redeem(t, ann)
		pass(48 * time.Hour)
		lived := r.post.at[len(r.post.at)-1].Sub(started)
		if lived > 24*time.Hour || lived < 24*time.Hour-13*time.Minute-pollSlack {
			t.Errorf("the last of %d attempts came after %v, want nearly 24 h", len(r.post.at), lived)
		}
		if got := len(r.events.named("mail_expired")); got != 1 {
			t.Errorf("%d events mail_expired, want 1", got)
		}
	})
}

// Revoke takes back the mail of a request that waits for another attempt.
func TestRevokeTakesMailBack(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.post.do = func(context.Context, int, reset.Message) error { return errors.New("451 try later") }
		r.begin(t)
		r.forgot(t, ann.Email)
		pass(2*time.Second + pollSlack)
		m := r.wantSent(t, 1)[0]
		if err := r.Revoke(t.Context(), ann.ID); err != nil {
			t.Fatal(err)
		}
		pass(20 * time.Minute)
		r.wantSent(t, 1)
		if err := r.ChangePassword(t.Context(), activationOf(t, m), goodPassword); !errors.Is(err, reset.ErrInvalidActivation) {
			t.Errorf("ChangePassword = %v, want ErrInvalidActivation", err)
		}
		drained(t, r.store)
	})
}

// What is leased but not with the server when Run ends is another Run's at
// once.
func TestRunFreesLeases(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.host.onFind = func(context.Context, string) error {
			<-time.After(3 * time.Second)
			return nil
		}
		r.forgot(t, ann.Email)
		pass(2 * time.Second)
		stop := r.begin(t)
		pass(time.Second) // of the look-up
		stop()
		r.wantSent(t, 0)

		ended := time.Now()
		r.begin(t)
		pass(30 * time.Second)
		r.wantSent(t, 1)
		if took := r.post.at[0].Sub(ended); took > 3*time.Second+pollSlack {
			t.Errorf("sent %v later: the lease was not freed", took)
		}
	})
}

func TestRunEndsAtOnceWithoutWork(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		stop := r.begin(t)
		pass(time.Minute)
		began := time.Now()
		stop()
		if took := time.Since(began); took != 0 {
			t.Errorf("Run took %v to end", took)
		}
	})
}

// A lease without time for an exchange may be another's any moment: the server
// is not dialled under it.
func TestLeaseRunsOut(t *testing.T) {
	var late time.Time
	answerLate := func() { // the first time only
		if late.IsZero() {
			<-time.After(31 * time.Second)
			late = time.Now()
		}
	}
	tests := []struct {
		method string
		queue  func(*testing.T, round)
		delay  func(s *resettest.FaultStore)
	}{
		{"Issue", func(t *testing.T, r round) { r.forgot(t, ann.Email) }, func(s *resettest.FaultStore) {
			s.After = func(_ context.Context, method string, err error) error {
				if method == "Issue" {
					answerLate()
				}
				return err
			}
		}},
		{"Lease", func(t *testing.T, r round) { r.redeem(t, ann) }, func(s *resettest.FaultStore) {
			s.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
				mails, err := s.Store.Lease(ctx, now, until, n)
				if len(mails) > 0 {
					answerLate()
				}
				return mails, err
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.method, func(t *testing.T) {
			late = time.Time{}
			edit := func(c *reset.Config) {
				store := &resettest.FaultStore{Store: c.Store}
				tt.delay(store)
				c.Store = store
			}
			inBubble(t, edit, func(t *testing.T, r round) {
				r.begin(t)
				tt.queue(t, r)
				pass(2 * time.Minute)
				r.wantSent(t, 1)
				if got := r.post.at[0].Sub(late); got < 25*time.Second {
					t.Errorf("the server was dialled %v after the store's late answer, want a lease later", got)
				}
			})
		})
	}
}

// Whoever has lost a lease leaves the mail to the one who holds it.
func TestLeaseLostToAnother(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		var once sync.Once
		r.host.onFind = func(ctx context.Context, _ string) (err error) {
			once.Do(func() { // a worker whose clock is ahead
				later := time.Now().Add(2 * time.Minute)
				_, err = r.store.Lease(ctx, later, later.Add(time.Minute), 10)
			})
			return err
		}
		r.begin(t)
		r.forgot(t, ann.Email)
		pass(2 * time.Minute)
		r.wantSent(t, 0)
		r.wantEvents(t, map[string]int{})
		pass(2 * time.Minute) // and that worker has died
		r.wantSent(t, 1)
		drained(t, r.store)
	})
}

// Whatever the store fails at for a while, Run goes on once it works again.
func TestRecovers(t *testing.T) {
	tests := []struct {
		method string
		event  string
	}{
		{"Lease", "lease_failed"},
		{"Issue", "mail_failed"},
		{"Settle", "settle_failed"},
		{"Purge", "purge_failed"},
	}
	for _, tt := range tests {
		t.Run(tt.method, func(t *testing.T) {
			edit := func(c *reset.Config) {
				until := time.Now().Add(30 * time.Second)
				c.Store = &resettest.FaultStore{Store: c.Store, Before: func(_ context.Context, method string) error {
					if method == tt.method && time.Now().Before(until) {
						return errors.New("connection refused")
					}
					return nil
				}}
			}
			inBubble(t, edit, func(t *testing.T, r round) {
				r.begin(t)
				r.forgot(t, ann.Email)
				pass(5 * time.Minute)
				r.wantSent(t, 1)
				if len(r.events.named(tt.event)) == 0 {
					t.Errorf("no event %s\n%v", tt.event, r.events)
				}
				drained(t, r.store)
			})
		})
	}
}

// A store that stumbles is told again what was sent, before the lease runs out.
func TestSettlesAtTheThirdTry(t *testing.T) {
	edit := func(c *reset.Config) {
		tries := 0
		c.Store = &resettest.FaultStore{Store: c.Store, Before: func(_ context.Context, method string) error {
			if method != "Settle" {
				return nil
			}
			if tries++; tries < 3 {
				return errors.New("deadlock found")
			}
			return nil
		}}
	}
	inBubble(t, edit, func(t *testing.T, r round) {
		r.begin(t)
		r.forgot(t, ann.Email)
		pass(5 * time.Minute)
		r.wantSent(t, 1)
		r.wantEvents(t, map[string]int{"mail_sent": 1})
		drained(t, r.store)
	})
}

// Run removes more than fits in one call of Purge, and looks again later.
func TestPurgesAll(t *testing.T) {
	inBubble(t, unlimited, func(t *testing.T, r round) {
		wantNothing := func() {
			t.Helper()
			left, err := r.store.Purge(t.Context(), time.Now().Add(24*time.Hour), 1000)
			if left != 0 || err != nil {
				t.Errorf("%d records left, %v", left, err)
			}
		}
		for range 2500 {
			r.forgot(t, ann.Email)
		}
		pass(time.Hour + 2*time.Second)
		r.begin(t)
		wantNothing()
		r.forgot(t, ann.Email)
		pass(time.Hour + 2*time.Second + 2*time.Minute)
		r.wantSent(t, 1)
		wantNothing()
	})
}

// Mails that failed together do not come again together.
func TestJitter(t *testing.T) {
	const mails = 50
	edit := func(c *reset.Config) { c.Workers = mails }
	inBubble(t, edit, func(t *testing.T, r round) {
		r.post.do = func(context.Context, int, reset.Message) error { return errors.New("421 try later") }
		r.notifications(t, mails)
		stop := r.begin(t)
		stop()
		r.wantSent(t, mails)
		now, times := time.Now(), make(map[time.Duration]bool)
		for wait := 3500 * time.Millisecond; wait <= 6500*time.Millisecond; wait += 100 * time.Millisecond { // 5 s ± 30 %
			again, err := r.store.Lease(t.Context(), now.Add(wait), now.Add(time.Hour), mails)
			if err != nil {
				t.Fatal(err)
			}
			if len(again) > 0 {
				times[wait] = true
			}
		}
		if len(times) < 15 { // of 31; 50 mails leave out six on average
			t.Errorf("%d mails are tried again at %d times only", mails, len(times))
		}
	})
}

// The defaults that the README tells of.
func TestDefaults(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		block := make(chan struct{})
		defer close(block)
		var most, busy atomic.Int64
		r.post.do = func(context.Context, int, reset.Message) error {
			most.Store(max(most.Load(), busy.Add(1)))
			<-block
			return nil
		}
		for i := range 21 {
			err := r.Forgot(t.Context(), fmt.Sprintf("user%d@example.com", i), "192.0.2.1", reset.ForgotOptions{})
			if limited := errors.Is(err, reset.ErrTooManyRequests); limited != (i == 20) || !limited && err != nil {
				t.Errorf("public request %d of a client: %v", i+1, err)
			}
		}
		r.notifications(t, 30)
		r.begin(t)
		pass(delivered)
		if got := most.Load(); got != 20 {
			t.Errorf("%d mails are sent at a time, want 20", got)
		}
	})
}
