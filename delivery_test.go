package reset_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

// fails returns a Mailer's answer to every message.
func fails(text string) func(context.Context, int, reset.Message) error {
	return func(context.Context, int, reset.Message) error { return errors.New(text) }
}

func TestMessage(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		started := time.Now()
		f.begin()
		f.request(bob.Email)
		pass(delivered)
		m := f.wantSent(1)[0]
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
			t.Errorf("expires after %v, want 1 h", got)
		}
	})
}

// A name that mail programs may link is left out of both kinds of mail.
func TestMessageName(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.host.put(reset.User{ID: ann.ID, Email: ann.Email, Name: "evil.com"})
		f.begin()
		f.request(ann.Email)
		pass(delivered)
		f.redeem(ann)
		pass(delivered)
		for _, m := range f.wantSent(2) {
			if m.Name != "" || strings.Contains(m.Text+m.HTML, "evil.com") {
				t.Errorf("%s mail has the name %q and the text\n%s", m.Kind, m.Name, m.Text)
			}
		}
	})
}

// A notification goes to the address that the user had at the change, without
// a look-up, whatever happens to the account meanwhile. It has no activation.
func TestNotification(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.redeem(ann)
		if err := f.Revoke(t.Context(), ann.ID); err != nil {
			t.Fatal(err)
		}
		f.host.remove(ann.Email)
		finds, _, _ := f.host.calls()
		pass(23 * time.Hour)
		f.begin()
		m := f.wantSent(1)[0]
		want := reset.Message{
			ID: m.ID, Kind: reset.MailNotification, To: ann.Email, Name: ann.Name, Locale: ann.Locale,
			Link: baseURL + "/forgot", Expires: m.Expires, Subject: m.Subject, Text: m.Text, HTML: m.HTML,
		}
		if m != want || strings.Contains(m.Text+m.HTML, "activation=") {
			t.Errorf("got %+v\nwant %+v", m, want)
		}
		if after, _, _ := f.host.calls(); after != finds {
			t.Error("the user was looked up")
		}
	})
}

// A mail that fails is sent again until it expires: a link until it has 5
// minutes left, a notification for 24 hours.
func TestRetries(t *testing.T) {
	steps := []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute}
	for _, tt := range []struct {
		kind  reset.MailKind
		queue func(*fixture)
		last  time.Duration // after which no attempt begins
	}{
		{reset.MailReset, func(f *fixture) { f.request(ann.Email) }, 55 * time.Minute},
		{reset.MailNotification, func(f *fixture) { f.redeem(ann) }, 24 * time.Hour},
	} {
		t.Run(string(tt.kind), func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, f *fixture) {
				f.mailer.do = fails("421 try later")
				f.begin()
				started := time.Now()
				tt.queue(f)
				pass(48 * time.Hour)
				sent, at := f.mailer.attempts(), f.mailer.at
				for i := 1; i < len(at); i++ {
					step := steps[min(i, len(steps))-1]
					if d := at[i].Sub(at[i-1]); d < step*7/10 || d > step*13/10+pollSlack {
						t.Errorf("attempt %d came after %v, want %v ± 30 %%", i+1, d, step)
					}
				}
				if last := at[len(at)-1].Sub(started); last > tt.last || last < tt.last-13*time.Minute-pollSlack {
					t.Errorf("the last of %d attempts came after %v, want nearly %v", len(at), last, tt.last)
				}
				events := map[string]int{"mail_failed": len(sent) - 1, "mail_expired": 1}
				if tt.kind == reset.MailNotification {
					events["password_changed"] = 1
				}
				f.wantEvents(events)
				f.wantQueued(0)
				links := make(map[string]bool)
				for _, m := range sent {
					links[m.Link] = true
					if m.ID != sent[0].ID {
						t.Errorf("attempts have the IDs %s and %s", sent[0].ID, m.ID)
					}
				}
				if tt.kind == reset.MailReset && len(links) != len(sent) {
					t.Errorf("%d links in %d attempts", len(links), len(sent))
				}
			})
		})
	}
}

// A link is mailed if it has 5 minutes left, or half of its TTL where that is
// less.
func TestTooLateToMail(t *testing.T) {
	for _, tt := range []struct {
		ttl, left time.Duration
		event     string
	}{
		{time.Hour, 5*time.Minute - time.Millisecond, "mail_expired"},
		{time.Hour, 5*time.Minute + 2*time.Second, "mail_sent"},
		{6 * time.Minute, 3*time.Minute - time.Millisecond, "mail_expired"},
		{6 * time.Minute, 3*time.Minute + 2*time.Second, "mail_sent"},
	} {
		inBubble(t, func(c *reset.Config) { c.TTL = tt.ttl }, func(t *testing.T, f *fixture) {
			now := time.Now()
			m := reset.Mail{ID: reset.ID{1}, Kind: reset.MailReset, Email: ann.Email, Due: now, Expires: now.Add(tt.left)}
			if err := f.store.Enqueue(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			f.begin()
			f.wantEvents(map[string]int{tt.event: 1})
			if finds, _, _ := f.host.calls(); finds != len(f.mailer.attempts()) {
				t.Errorf("%d look-ups for %d mails", finds, len(f.mailer.attempts()))
			}
			if left, err := f.store.Lease(t.Context(), m.Expires.Add(-time.Second), m.Expires, 1); len(left) > 0 || err != nil {
				t.Errorf("still queued: %v, %v", left, err)
			}
		})
	}
}

// The links of all attempts work, since each may have been delivered. A retry
// joins its request, whatever the cap.
func TestAttemptsStayValid(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.MaxRequests = 1 }, func(t *testing.T, f *fixture) {
		f.mailer.do = func(_ context.Context, n int, _ reset.Message) error {
			if n < 3 {
				return errors.New("no answer to DATA")
			}
			return nil
		}
		f.forgot(ann.Email)
		f.run()
		pass(10 * time.Minute)
		sent := f.wantSent(4)
		if err := f.ChangePassword(t.Context(), activationOf(t, sent[0]), goodPassword); err != nil {
			t.Errorf("the first link: %v", err)
		}
		if err := f.ChangePassword(t.Context(), activationOf(t, sent[3]), goodPassword); !errors.Is(err, reset.ErrInvalidActivation) {
			t.Errorf("the last link after a change: %v, want ErrInvalidActivation", err)
		}
	})
}

func TestUndeliverable(t *testing.T) {
	for name, queue := range map[string]func(*fixture){
		"public request": func(f *fixture) { f.forgot(ann.Email) },
		"request":        func(f *fixture) { f.request(ann.Email) },
		"notification":   func(f *fixture) { f.redeem(ann) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, f *fixture) {
				f.mailer.do = func(context.Context, int, reset.Message) error {
					return fmt.Errorf("550 no such mailbox: %w", reset.ErrUndeliverable)
				}
				f.begin()
				queue(f)
				pass(time.Hour)
				f.wantSent(1)
				f.wantEvent("mail_undeliverable", 1)
				f.wantQueued(0)
			})
		})
	}
}

// Public requests for one address that are leased together become one mail.
func TestPublicRequestsMerge(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		for range 3 {
			f.forgot(ann.Email)
		}
		f.forgot(bob.Email)
		pass(2 * time.Second)
		f.begin()
		f.wantSent(2)
		f.wantQueued(0)
		if a, b := f.mailer.sent[0].To, f.mailer.sent[1].To; a == b {
			t.Errorf("two mails to %s", a)
		}
	})
}

// One link answers an old request and a new one, and lives as long as the new one.
func TestPublicRequestsMergeIntoTheLatest(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.forgot(ann.Email)
		pass(53 * time.Minute)
		fresh := time.Now()
		f.forgot(ann.Email)
		pass(2 * time.Second)
		f.mailer.do = func(context.Context, int, reset.Message) error {
			if time.Since(fresh) < 3*time.Minute {
				return errors.New("451 4.7.1 greylisted")
			}
			return nil
		}
		f.begin()
		pass(10 * time.Minute)
		f.wantEvent("mail_sent", 1)
		for _, m := range f.mailer.attempts() {
			if life := m.Expires.Sub(fresh); life < 59*time.Minute {
				t.Errorf("the link ends %v after the latest request", life)
			}
		}
	})
}

// A user gets at most three mails an hour and twelve a day for public requests,
// whatever the TTL, while somebody makes ten requests a minute all day, also if
// the user replies to each mail with "it wasn't me".
func TestBudgetOfMail(t *testing.T) {
	for _, tt := range []struct {
		ttl     time.Duration
		revokes bool
	}{{5 * time.Minute, false}, {5 * time.Minute, true}, {time.Hour, false}, {time.Hour, true}} {
		t.Run(fmt.Sprintf("TTL %v, revokes: %t", tt.ttl, tt.revokes), func(t *testing.T) {
			edit := func(c *reset.Config) { c.TTL = tt.ttl }
			inBubble(t, edit, func(t *testing.T, f *fixture) {
				f.begin()
				b := pagesOf(f)
				const requests = 26 * 60 * 10
				revoked := 0
				for range requests {
					f.forgot(ann.Email)
					pass(6 * time.Second)
					if tt.revokes && len(f.mailer.sent) > revoked {
						b.submit("/revoke", "check", b.open("/revoke", activationOf(t, f.mailer.sent[revoked])))
						revoked++
					}
				}
				at := f.mailer.at
				if len(at) <= 12 { // some on the second day
					t.Errorf("%d mails in 26 hours", len(at))
				}
				for i, first := range at {
					if i+3 < len(at) && at[i+3].Sub(first) < time.Hour {
						t.Errorf("4 mails within %v", at[i+3].Sub(first))
					}
					if i+12 < len(at) && at[i+12].Sub(first) < 24*time.Hour {
						t.Errorf("13 mails within %v", at[i+12].Sub(first))
					}
				}
				events := map[string]int{"mail_sent": len(at), "over_budget": requests - len(at)}
				if tt.revokes {
					events["revoked_by_user"] = len(at)
				}
				f.wantEvents(events)
				if got := f.log.named("over_budget")[0]["user"]; got != ann.ID {
					t.Errorf("over_budget has the user %v, want %s", got, ann.ID)
				}
				// Trusted requests and notifications have no budget.
				if _, err := f.RequestReset(t.Context(), ann.Email, reset.RequestOptions{MaxRequests: 9}); err != nil {
					t.Error(err)
				}
				pass(delivered)
				f.redeem(ann)
				pass(delivered)
				f.wantSent(len(at) + 2)
				f.wantQueued(0)
			})
		})
	}
}

// "It wasn't me" leaves the user in peace for the life of a link.
func TestQuietAfterRevoke(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.MaxMailsPerHour = 100 }, func(t *testing.T, f *fixture) {
		f.begin()
		f.forgot(ann.Email)
		pass(delivered)
		b := pagesOf(f)
		b.submit("/revoke", "check", b.open("/revoke", activationOf(t, f.mailer.sent[0])))
		revoked := time.Now()
		for range 10 {
			f.forgot(ann.Email)
			pass(5 * time.Minute)
		}
		f.wantSent(1)
		f.request(ann.Email)
		pass(delivered)
		f.wantSent(2)
		pass(time.Until(revoked.Add(time.Hour)))
		f.forgot(ann.Email)
		pass(delivered)
		f.wantSent(3)
		if err := f.Revoke(t.Context(), ann.ID); err != nil { // of the host
			t.Fatal(err)
		}
		f.forgot(ann.Email)
		pass(delivered)
		f.wantSent(4)
	})
}

// Somebody else's requests do not keep a user out: at the cap a public request
// brings the link of the newest request again.
func TestPublicRequestJoins(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.begin()
		for range 3 {
			f.activation(ann)
			pass(10 * time.Minute)
		}
		last := time.Now().Add(50 * time.Minute)
		f.mailer.do = func(_ context.Context, n int, _ reset.Message) error {
			if n == 0 {
				return errors.New("not now")
			}
			return nil
		}
		f.forgot(ann.Email)
		pass(time.Minute) // two attempts
		sent := f.wantSent(2)
		for _, m := range sent {
			if !m.Expires.Equal(last) {
				t.Errorf("the link expires at %v, want %v with the newest request", m.Expires, last)
			}
		}
		f.wantQueued(0)
		if err := f.ChangePassword(t.Context(), activationOf(t, sent[1]), goodPassword); err != nil {
			t.Errorf("ChangePassword: %v", err)
		}
		if err := f.ChangePassword(t.Context(), activationOf(t, sent[0]), goodPassword); !errors.Is(err, reset.ErrInvalidActivation) {
			t.Errorf("ChangePassword with the link of the first attempt: %v", err)
		}
	})
}

// A public request does not join a request whose link would hardly be of use:
// that ends soon, and makes room for one of its own.
func TestPublicRequestWaitsForRoom(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.begin()
		for range 3 {
			f.activation(ann)
		}
		pass(57 * time.Minute)
		f.forgot(ann.Email)
		asked := time.Now()
		pass(2 * time.Minute)
		f.wantSent(0)
		pass(time.Minute + 2*pollSlack)
		if m := f.wantSent(1)[0]; !m.Expires.Equal(asked.Add(time.Hour)) {
			t.Errorf("the link expires at %v, want %v", m.Expires, asked.Add(time.Hour))
		}
		f.wantQueued(0)
	})
}

// While it waits it keeps its class: its place in the queue never depends on who
// has an account.
func TestPublicRequestWaitsInItsClass(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.begin()
		for range 3 {
			f.activation(ann)
		}
		pass(57 * time.Minute)
		f.forgot(ann.Email)
		pass(delivered)
		later := time.Now().Add(10 * time.Minute)
		mails, err := f.store.Store.Lease(t.Context(), later, later, 2)
		if err != nil || len(mails) != 1 || mails[0].Class != 1 {
			t.Errorf("queued: %+v, %v; want one mail of class 1", mails, err)
		}
	})
}

// Processes on one store share the work: each mail is sent once.
func TestProcessesShare(t *testing.T) {
	inBubble(t, unlimited, func(t *testing.T, f *fixture) {
		other := newFixture(t, f.host, func(c *reset.Config) { c.Store, c.Mailer, c.Workers = f.store, f.mailer, 4 })
		f.mailer.do = func(context.Context, int, reset.Message) error {
			<-time.After(time.Second)
			return nil
		}
		f.begin()
		other.begin()
		const requests = 100
		for i := range requests {
			u := reset.User{ID: fmt.Sprint(1000 + i), Email: fmt.Sprintf("user%d@example.com", i)}
			f.host.put(u)
			f.forgot(u.Email)
		}
		pass(time.Minute)
		to := make(map[string]bool)
		for _, m := range f.wantSent(requests) {
			to[m.To] = true
		}
		if len(to) != requests {
			t.Errorf("mail to %d users, want %d", len(to), requests)
		}
		if here, there := len(f.log.named("mail_sent")), len(other.log.named("mail_sent")); here == 0 || there == 0 {
			t.Errorf("one process sent %d mails, the other %d", here, there)
		}
		f.wantQueued(0)
	})
}

// While the mail server is slow Run holds no more mails than it sends at a time
// and will send next; the rest is for other processes.
func TestLeasesNoMoreThanItCanSend(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.Workers = 1 }, func(t *testing.T, f *fixture) {
		f.mailer.do = func(context.Context, int, reset.Message) error {
			<-time.After(5 * time.Second)
			return nil
		}
		f.request(ann.Email)
		f.request(ann.Email)
		pass(time.Millisecond)
		f.request(bob.Email)
		f.begin()
		f.wantSent(1)
		other := newFixture(t, f.host, func(c *reset.Config) { c.Store = f.store })
		other.begin()
		if m := other.wantSent(1)[0]; m.To != bob.Email {
			t.Errorf("the other process sent mail to %s, want %s", m.To, bob.Email)
		}
	})
}

func TestWorkers(t *testing.T) {
	for _, tt := range []struct{ workers, want int }{{0, 20}, {3, 3}} {
		inBubble(t, func(c *reset.Config) { c.Workers = tt.workers }, func(t *testing.T, f *fixture) {
			block := make(chan struct{})
			defer close(block)
			f.mailer.do = func(context.Context, int, reset.Message) error { <-block; return nil }
			f.notifications(tt.want + 10)
			f.begin()
			pass(delivered)
			f.wantSent(tt.want)
		})
	}
}

// An exchange with the mail server has 30 s.
func TestSendTimeout(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.mailer.do = func(ctx context.Context, n int, _ reset.Message) error {
			if n > 0 {
				return nil
			}
			began := time.Now()
			<-ctx.Done()
			if took := time.Since(began); took != 30*time.Second {
				t.Errorf("the exchange had %v, want 30 s", took)
			}
			return ctx.Err()
		}
		f.begin()
		f.request(ann.Email)
		pass(time.Minute)
		f.wantSent(2)
		f.wantQueued(0)
	})
}

// A lease lasts as long as the exchange, so that no other process sends the mail
// meanwhile.
func TestSlowExchange(t *testing.T) {
	for _, wait := range []time.Duration{35 * time.Second, 2 * time.Minute, 9 * time.Minute} {
		t.Run(wait.String(), func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, f *fixture) {
				f.mailer.do = func(ctx context.Context, _ int, _ reset.Message) error {
					select {
					case <-time.After(wait):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				for range 2 {
					newFixture(t, f.host, func(c *reset.Config) { c.Store, c.Mailer = f.store, patientMailer{f.mailer} }).begin()
				}
				f.request(ann.Email)
				f.redeem(bob)
				pass(30 * time.Minute)
				f.wantSent(2)
				f.wantQueued(0)
			})
		})
	}
}

// A patientMailer may take longer than others.
type patientMailer struct{ *mailer }

func (patientMailer) SendTimeout() time.Duration { return 10 * time.Minute }

// A lease that cannot be renewed, because the host's transaction has locked its
// user, keeps no other lease from that.
func TestRenewals(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.mailer.do = func(context.Context, int, reset.Message) error {
			time.Sleep(3 * time.Minute)
			return nil
		}
		locked := reset.ID{} // of the first notification
		until := time.Now().Add(2 * time.Minute)
		f.store.SettleFunc = func(ctx context.Context, done []reset.Settlement) error {
			for _, d := range done {
				if d.Mail == locked && time.Now().Before(until) {
					<-ctx.Done()
					return ctx.Err()
				}
			}
			return f.store.Store.Settle(ctx, done)
		}
		f.notifications(2)
		for range 2 {
			newFixture(t, f.host, func(c *reset.Config) { c.Store, c.Mailer = f.store, patientMailer{f.mailer} }).begin()
		}
		pass(20 * time.Minute)
		attempts := 0
		for _, m := range f.mailer.attempts() {
			if m.ID != locked.String() {
				attempts++
			}
		}
		if attempts != 1 {
			t.Errorf("the other mail was sent %d times", attempts)
		}
	})
}

// A mail without confirmation has probably arrived. It is sent once more, much
// later, and never again.
func TestUnconfirmed(t *testing.T) {
	for _, tt := range []struct {
		kind  string
		ttl   time.Duration
		queue func(*fixture)
		after time.Duration
	}{
		{"reset", time.Hour, func(f *fixture) { f.request(ann.Email) }, 27*time.Minute + 30*time.Second},
		{"public", time.Hour, func(f *fixture) { f.forgot(ann.Email) }, 27*time.Minute + 30*time.Second},
		{"short-lived reset", 10 * time.Minute, func(f *fixture) { f.request(ann.Email) }, 2*time.Minute + 30*time.Second},
		{"notification", time.Hour, func(f *fixture) { f.redeem(ann) }, 12 * time.Hour},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			inBubble(t, func(c *reset.Config) { c.TTL = tt.ttl }, func(t *testing.T, f *fixture) {
				f.mailer.do = func(context.Context, int, reset.Message) error {
					time.Sleep(10 * time.Second)
					return fmt.Errorf("%w: timed out", reset.ErrUnconfirmed)
				}
				f.begin()
				tt.queue(f)
				pass(48 * time.Hour)
				f.wantSent(2)
				if got, want := f.mailer.at[1].Sub(f.mailer.at[0]), 10*time.Second+tt.after; got < want || got > want+pollSlack {
					t.Errorf("sent once more after %v, want %v", got, want)
				}
				f.wantEvent("mail_unconfirmed", 2)
				f.wantQueued(0)
			})
		})
	}
}

// Records of a mail identify it, the attempt, the user and what went wrong.
func TestMailRecords(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.mailer.do = func(_ context.Context, n int, _ reset.Message) error {
			return []error{errors.New("451 greylisted"), nil, fmt.Errorf("550: %w", reset.ErrUndeliverable)}[n]
		}
		f.begin()
		f.forgot(ann.Email)
		pass(time.Minute)
		f.request(bob.Email)
		pass(delivered)
		sent := f.wantSent(3)
		for _, want := range []map[string]any{
			{"event": "mail_failed", "mail": sent[0].ID, "kind": "reset", "attempt": 1.0, "user": ann.ID, "error": "451 greylisted"},
			{"event": "mail_sent", "mail": sent[0].ID, "kind": "reset", "attempt": 2.0, "user": ann.ID},
			{"event": "mail_undeliverable", "mail": sent[2].ID, "kind": "reset", "attempt": 1.0, "user": bob.ID, "error": "550: reset: undeliverable"},
		} {
			records := f.log.named(want["event"].(string))
			if len(records) != 1 {
				t.Fatalf("%d records of %s, want 1", len(records), want["event"])
			}
			got := records[0]
			for _, attr := range []string{"time", "level", "msg"} {
				delete(got, attr)
			}
			if !maps.Equal(got, want) {
				t.Errorf("record %v\nwant %v", got, want)
			}
		}
	})
}

// Revoke removes the mail of a request that waits for another attempt.
func TestRevokeRemovesMail(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.mailer.do = fails("451 try later")
		f.begin()
		f.forgot(ann.Email)
		pass(delivered)
		m := f.wantSent(1)[0]
		if err := f.Revoke(t.Context(), ann.ID); err != nil {
			t.Fatal(err)
		}
		pass(20 * time.Minute)
		f.wantSent(1)
		if err := f.ChangePassword(t.Context(), activationOf(t, m), goodPassword); !errors.Is(err, reset.ErrInvalidActivation) {
			t.Errorf("ChangePassword = %v, want ErrInvalidActivation", err)
		}
		f.wantQueued(0)
	})
}

// When its context ends, Run gives exchanges 10 s, begins no other, and frees
// the mail that it still holds.
func TestRunEnds(t *testing.T) {
	for _, tt := range []struct {
		name               string
		find, send         time.Duration // how long each takes
		began              int           // exchanges by then
		took               time.Duration
		cut                bool
		queuedAgain, total int // exchanges of another process, and of both
	}{
		{"idle", 0, 0, 1, 0, false, 0, 1},
		{"in a look-up", 3 * time.Second, 0, 0, 2 * time.Second, false, 1, 1},
		{"in an exchange", 0, 9 * time.Second, 1, 8 * time.Second, false, 0, 1},
		{"in a long exchange", 0, 20 * time.Second, 1, 10 * time.Second, true, 1, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, f *fixture) {
				f.host.onFind = func(context.Context, string) error { <-time.After(tt.find); return nil }
				f.mailer.do = func(ctx context.Context, n int, _ reset.Message) error {
					if n > 0 {
						return nil
					}
					select {
					case <-time.After(tt.send):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				f.forgot(ann.Email)
				pass(2 * time.Second)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- f.Run(ctx) }()
				pass(time.Second)
				f.wantSent(tt.began)
				start := time.Now()
				cancel()
				if err := <-ended; (err != nil) != tt.cut || time.Since(start) != tt.took {
					t.Errorf("Run ended after %v with %v", time.Since(start), err)
				}
				f.begin()
				pass(10 * time.Second) // less than a lease
				f.wantSent(tt.total)
			})
		})
	}
}

// Run frees all that it holds when it ends, however much that is.
func TestRunFreesAll(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.Workers = 1000 }, func(t *testing.T, f *fixture) {
		f.mailer.do = func(context.Context, int, reset.Message) error { <-time.After(8 * time.Second); return nil }
		f.notifications(3000)
		stop := f.begin()
		pass(3 * time.Second)
		stop()
		if s, err := f.Stats(t.Context()); err != nil || s.Leased > 0 || s.Waiting == 0 {
			t.Errorf("after Run: %+v, %v", s, err)
		}
	})
}

// A mail whose own activation is being redeemed waits for the outcome.
func TestMailWaitsForClaim(t *testing.T) {
	edit := func(c *reset.Config) {
		c.MaxRequests = 1
		c.Store = &resettest.FaultStore{Store: &resettest.MemStore{UsersElsewhere: true}}
	}
	inBubble(t, edit, func(t *testing.T, f *fixture) {
		f.mailer.do = func(_ context.Context, n int, _ reset.Message) error {
			if n == 0 {
				return errors.New("451 4.7.1 greylisted")
			}
			return nil
		}
		f.host.onSet = func(context.Context, string) error {
			<-time.After(20 * time.Second) // beyond the second attempt
			return reset.ErrNotChanged
		}
		f.begin()
		activation := f.request(ann.Email)
		pass(time.Second)
		if err := f.ChangePassword(t.Context(), activation, goodPassword); !errors.Is(err, reset.ErrNotChanged) {
			t.Errorf("ChangePassword: %v", err)
		}
		pass(10 * time.Minute)
		f.wantEvent("mail_sent", 1)
		f.wantQueued(0)
	})
}

// A lease without time for an exchange may be another's any moment: the server
// is not dialled under it.
func TestLeaseRunsOut(t *testing.T) {
	for _, tt := range []struct {
		method string
		queue  func(*fixture)
	}{
		{"Issue", func(f *fixture) { f.forgot(ann.Email) }},
		{"Lease", func(f *fixture) { f.redeem(ann) }},
	} {
		t.Run(tt.method, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, f *fixture) {
				began, late := false, false
				f.store.After = func(_ context.Context, method string, err error) error {
					if began && method == tt.method && !late {
						late = true
						<-time.After(31 * time.Second)
					}
					return err
				}
				f.mailer.do = func(ctx context.Context, _ int, _ reset.Message) error {
					soon := time.Now().Add(29 * time.Second)
					if m, err := f.store.Store.Lease(ctx, soon, soon.Add(time.Minute), 1); len(m) > 0 || err != nil {
						t.Errorf("the mail that is being sent may be leased 29 s from now (%v)", err)
					}
					return nil
				}
				tt.queue(f)
				pass(2 * time.Second)
				began = true
				f.begin()
				pass(3 * time.Minute)
				f.wantSent(1)
				if !late {
					t.Errorf("%s was not called", tt.method)
				}
			})
		})
	}
}

// A worker that has lost its lease leaves the mail to the one that holds it.
func TestLeaseLost(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		lost := false
		f.host.onFind = func(ctx context.Context, _ string) (err error) {
			if !lost { // to a worker whose clock is ahead
				lost = true
				later := time.Now().Add(2 * time.Minute)
				_, err = f.store.Lease(ctx, later, later.Add(time.Minute), 10)
			}
			return err
		}
		f.begin()
		f.forgot(ann.Email)
		pass(2 * time.Minute)
		f.wantSent(0)
		f.wantEvents(map[string]int{})
		pass(2 * time.Minute) // that worker has died
		f.wantSent(1)
		f.wantQueued(0)
	})
}

// An activation that was issued ahead of its exchange may have lost its lease, or
// its user have revoked it, when the exchange begins.
func TestLostWhileReady(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(*fixture) error
	}{
		{"lease", func(f *fixture) error { // to a worker whose clock is ahead
			later := time.Now().Add(70 * time.Second)
			_, err := f.store.Store.Lease(f.t.Context(), later, later.Add(time.Hour), 10)
			return err
		}},
		{"request", func(f *fixture) error { return f.Revoke(f.t.Context(), ann.ID) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(c *reset.Config) { c.Workers = 1 }, func(t *testing.T, f *fixture) {
				const before = 50
				f.mailer.do = func(_ context.Context, _ int, m reset.Message) error {
					if m.To == bob.Email {
						<-time.After(20 * time.Second)
					}
					return nil
				}
				f.store.Before = func(_ context.Context, method string) error {
					if method == "Lease" { // slower than the mailer: Run works ahead
						<-time.After(10 * time.Millisecond)
					}
					return nil
				}
				f.notifications(before)
				f.begin()
				pass(time.Minute)
				f.request(bob.Email)
				pass(time.Second)
				issued := f.store.Calls("Issue")
				f.request(ann.Email)
				pass(3 * time.Second)
				if f.store.Calls("Issue") < issued+2 { // one was for the caller
					t.Fatal("nothing was issued ahead")
				}
				if err := tt.lose(f); err != nil {
					t.Fatal(err)
				}
				pass(30 * time.Second)
				f.wantSent(before + 1)
			})
		})
	}
}

// Of public requests that were leased together, those whose lease is still held
// are mailed although the first has lost its own.
func TestLeaseOfFirstLost(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.forgot(ann.Email)
		f.forgot(ann.Email)
		pass(2 * time.Second)
		var lost atomic.Bool
		f.store.Before = func(ctx context.Context, method string) error {
			if method != "Issue" || lost.Swap(true) {
				return nil
			}
			later := time.Now().Add(2 * time.Minute) // of a worker whose clock is ahead
			_, err := f.store.Store.Lease(ctx, later, later.Add(time.Minute), 1)
			return err
		}
		f.begin()
		pass(10 * time.Second)
		f.wantSent(1)
	})
}

// A store that fails for some minutes, at one method or all, costs no mail and
// doubles none.
func TestStoreRecovers(t *testing.T) {
	for _, tt := range []struct{ method, event string }{
		{"Lease", "lease_failed"}, {"Issue", "mail_failed"}, {"Settle", "settle_failed"}, {"Purge", "purge_failed"}, {"", "lease_failed"},
	} {
		t.Run(tt.method, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, f *fixture) {
				f.forgot(ann.Email)
				methods := []string{tt.method}
				if tt.method == "" {
					methods = nil
				}
				f.store.Fail(errors.New("connection refused"), methods...)
				f.begin()
				pass(10 * time.Minute)
				if n := len(f.log.named(tt.event)); n == 0 || n > 100 {
					t.Errorf("%d events %s in 10 minutes\n%v", n, tt.event, f.log)
				}
				f.store.Fail(nil, methods...)
				pass(20 * time.Minute)
				f.wantSent(1)
				f.wantEvent("mail_sent", 1)
				f.wantQueued(0)
			})
		})
	}
}

// A store that fails now and then does not slow Run down like one that is down.
func TestFailuresNowAndThen(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.Workers = 1 }, func(t *testing.T, f *fixture) {
		leases, failures := 0, 0
		f.store.Before = func(_ context.Context, method string) error {
			if method != "Lease" {
				return nil
			}
			if leases++; leases%3 > 0 {
				return nil
			}
			failures++
			return errors.New("connection reset")
		}
		const mails = 150
		f.notifications(mails)
		began := time.Now()
		f.begin()
		for len(f.mailer.attempts()) < mails {
			pass(100 * time.Millisecond)
		}
		most := time.Duration(failures) * 2 * pollSlack // the pause after the first in a row
		if took := time.Since(began); failures < 10 || took > most {
			t.Errorf("%d mails took %v with %d failures, want at most %v", mails, took, failures, most)
		}
	})
}

// Settle is called three times before its lease runs out.
func TestSettleIsRetried(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.store.Before = func(_ context.Context, method string) error {
			if method == "Settle" && f.store.Calls("Settle") < 3 {
				return errors.New("deadlock found")
			}
			return nil
		}
		f.begin()
		f.forgot(ann.Email)
		pass(5 * time.Minute)
		f.wantSent(1)
		f.wantEvents(map[string]int{"mail_sent": 1})
		f.wantQueued(0)
	})
}

// Run removes more records than fit in one call of Purge, a day after they have
// expired.
func TestPurgesAll(t *testing.T) {
	inBubble(t, unlimited, func(t *testing.T, f *fixture) {
		wantLeft := func(want int) {
			t.Helper()
			left, _, err := f.store.Purge(t.Context(), time.Now().Add(-24*time.Hour), 1000)
			if left != want || err != nil {
				t.Errorf("%d records are left, want %d; %v", left, want, err)
			}
		}
		for range 2500 {
			f.forgot(ann.Email)
		}
		f.activation(bob)
		pass(25*time.Hour + 2*time.Second)
		f.begin()
		wantLeft(0)
		f.forgot(ann.Email)
		pass(delivered)
		f.wantSent(1)
		before := f.store.Calls("Purge")
		pass(26 * time.Hour)
		if got := f.store.Calls("Purge") - before; got < 20*60 {
			t.Errorf("Purge was called %d times in 26 hours", got)
		}
		wantLeft(0)
	})
}

// However much has expired, purging leaves half of the time to others.
func TestPurgeRests(t *testing.T) {
	inBubble(t, unlimited, func(t *testing.T, f *fixture) {
		for range 2500 {
			f.forgot(ann.Email)
		}
		pass(25*time.Hour + 2*time.Second)
		f.store.Before = func(_ context.Context, method string) error {
			if method == "Purge" {
				<-time.After(time.Second)
			}
			return nil
		}
		f.begin()
		pass(19500 * time.Millisecond)
		if n := f.store.Calls("Purge"); n != 10 {
			t.Errorf("in 19.5 s Purge, which takes a second, was called %d times, want 10", n)
		}
	})
}

// A notification makes Run look at the queue. A public request, which is due
// later, does not: a flood of them would make Run do little else.
func TestWhatWakesRun(t *testing.T) {
	inBubble(t, unlimited, func(t *testing.T, f *fixture) {
		f.begin()
		before := f.store.Calls("Lease")
		for range 100 {
			f.forgot(ann.Email)
			synctest.Wait()
		}
		if n := f.store.Calls("Lease") - before; n > 0 {
			t.Errorf("100 public requests made Run look %d times", n)
		}
		f.redeem(ann)
		synctest.Wait()
		if f.store.Calls("Lease") == before {
			t.Error("a notification did not wake Run")
		}
	})
}

// Requests of trusted callers and notifications go before public requests, so
// that a flood of these does not hold them up.
func TestOrder(t *testing.T) {
	inBubble(t, func(c *reset.Config) { unlimited(c); c.Workers = 1 }, func(t *testing.T, f *fixture) {
		for range 500 {
			f.forgot(ann.Email)
			pass(time.Second)
		}
		f.redeem(bob)
		f.request(bob.Email)
		f.begin()
		pass(time.Minute)
		var first []string
		for _, m := range f.mailer.attempts()[:2] {
			first = append(first, string(m.Kind)+" "+m.To)
		}
		slices.Sort(first)
		if want := []string{"notification " + bob.Email, "reset " + bob.Email}; !slices.Equal(first, want) {
			t.Errorf("first came %q, want %q", first, want)
		}
	})
}

// Mails that failed together are not all tried again together.
func TestJitter(t *testing.T) {
	const mails = 50
	inBubble(t, func(c *reset.Config) { c.Workers = mails }, func(t *testing.T, f *fixture) {
		f.mailer.do = fails("421 try later")
		f.notifications(mails)
		f.begin()()
		f.wantSent(mails)
		now, times := time.Now(), 0
		for wait := 3500 * time.Millisecond; wait <= 6500*time.Millisecond; wait += 100 * time.Millisecond { // 5 s ± 30 %
			again, err := f.store.Lease(t.Context(), now.Add(wait), now.Add(time.Hour), mails)
			if err != nil {
				t.Fatal(err)
			}
			times += min(1, len(again))
		}
		if times < 15 { // of 31; 50 mails leave six out on average
			t.Errorf("%d mails are tried again at %d times", mails, times)
		}
	})
}
