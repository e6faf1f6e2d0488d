package reset_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

// pollSlack is how much later than due a mail may be leased: Run looks every
// second, give or take 30 %.
const pollSlack = 1300 * time.Millisecond

// delivered is when a public request has been seen to: it is due within 2 s.
const delivered = 4 * time.Second

// pass lets time go by in a bubble, and waits until what that has set off is
// done.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// begin starts Run in a bubble and waits until it has.
func (r round) begin(t *testing.T) (stop func()) {
	stop = run(t, r.Service)
	synctest.Wait()
	return stop
}

// redeem has a password changed, which queues a notification.
func (r round) redeem(t *testing.T, u reset.User) {
	t.Helper()
	if err := r.ChangePassword(t.Context(), prevented(t, r.Service, u), goodPassword); err != nil {
		t.Fatal(err)
	}
}

// notifications queues n of them.
func (r round) notifications(t *testing.T, n int) {
	t.Helper()
	now := time.Now()
	for i := range n {
		m := reset.Mail{
			ID: reset.ID{byte(i)}, Kind: reset.MailNotification, UserID: ann.ID, Email: ann.Email,
			Due: now, Expires: now.Add(time.Hour),
		}
		if err := r.store.Enqueue(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

func (r round) wantSent(t *testing.T, n int) []reset.Message {
	t.Helper()
	sent := r.post.messages()
	if len(sent) != n {
		t.Fatalf("%d attempts, want %d\n%v", len(sent), n, r.events)
	}
	return sent
}

// wantEvents checks how often each event was logged, and that there was no
// other.
func (r round) wantEvents(t *testing.T, want map[string]int) {
	t.Helper()
	got := make(map[string]int)
	for _, record := range r.events.all() {
		name, _ := record["event"].(string)
		got[name]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("events %v, want %v\n%v", got, want, r.events)
	}
}

func unlimited(c *reset.Config) { c.PerClient = reset.Unlimited }

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

// Where two accounts have the address nobody gets a mail, and the operator is
// told.
func TestManyUsers(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.host.onFind = func(context.Context, string) error { return reset.ErrManyUsers }
		r.begin(t)
		r.forgot(t, ann.Email)
		if id, err := r.RequestReset(t.Context(), ann.Email, reset.RequestOptions{}); id != "" || err != nil {
			t.Errorf("RequestReset returned %q, %v", id, err)
		}
		pass(delivered)
		r.wantSent(t, 0)
		r.wantEvents(t, map[string]int{"user_ambiguous": 2})
		drained(t, r.store)
	})
}

// A client that is refused only because others fill the limiter is an event.
func TestLimiterFull(t *testing.T) {
	full := limiterFunc(func(context.Context, string, time.Time) error {
		return &reset.LimitError{RetryAfter: time.Second, Full: true}
	})
	inBubble(t, func(c *reset.Config) { c.PerClient = full }, func(t *testing.T, r round) {
		if err := r.Forgot(t.Context(), ann.Email, "192.0.2.1", reset.ForgotOptions{}); !errors.Is(err, reset.ErrTooManyRequests) {
			t.Errorf("Forgot returned %v", err)
		}
		r.wantEvents(t, map[string]int{"limiter_full": 1})
		drained(t, r.store)
	})
}

// What a database may take for the same address is another one.
func TestLookAlikes(t *testing.T) {
	tests := []struct{ asked, stored string }{
		{"mıke@example.com", "mike@example.com"}, // dotless i
		{"miſe@example.com", "mise@example.com"}, // long s
		{"ﬁnn@example.com", "finn@example.com"},  // ligature
		{"rené@example.com", "rene@example.com"},
		{"mike@example.com", "not an address"},
	}
	for _, tt := range tests {
		t.Run(tt.asked, func(t *testing.T) {
			user := reset.User{ID: "1", Email: tt.stored}
			inBubble(t, func(c *reset.Config) { c.Users = answerer{c.Users, user} }, func(t *testing.T, r round) {
				r.begin(t)
				r.forgot(t, tt.asked)
				pass(delivered)
				r.wantSent(t, 0)
				r.wantEvents(t, map[string]int{"user_mismatch": 1})
				drained(t, r.store)
			})
		})
	}
}

// A mail that was queued for one user never goes to another who has the
// address by then.
func TestAddressChangedHands(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.request(t, ann.Email)
		r.host.put(reset.User{ID: "9", Email: ann.Email})
		r.begin(t)
		pass(delivered)
		r.wantSent(t, 0)
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

// Where Run works, nothing is said of another process.
func TestRunHere(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.begin(t)
		r.forgot(t, ann.Email)
		r.wantEvents(t, map[string]int{})
	})
}

// What a public request sets off begins at a random time within 2 s, each as likely.
func TestPublicRequestsBeginAtRandom(t *testing.T) {
	const n, parts = 800, 8
	inBubble(t, unlimited, func(t *testing.T, r round) {
		now := time.Now()
		for range n {
			r.forgot(t, ann.Email)
		}
		total := 0
		for i := range parts {
			mails, err := r.store.Lease(t.Context(), now.Add(2*time.Second*time.Duration(i+1)/parts), now.Add(time.Hour), n)
			if err != nil {
				t.Fatal(err)
			}
			total += len(mails)
			if got := len(mails); got < n/parts/2 || got > n/parts*2 { // five standard deviations and more
				t.Errorf("%d of %d public requests are due in part %d of %d", got, n, i+1, parts)
			}
		}
		if total != n {
			t.Errorf("%d of %d public requests are due within 2 s", total, n)
		}
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
