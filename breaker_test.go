package reset_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

var errLogIn = fmt.Errorf("%w: 535 wrong password", reset.ErrUnavailable)

// queue has a trusted request of its own for each of n users, in their order.
func (f *fixture) queue(n int) {
	f.t.Helper()
	for i := range n {
		u := reset.User{ID: fmt.Sprint(1000 + i), Email: fmt.Sprintf("user%04d@example.com", i)}
		f.host.put(u)
		f.request(u.Email)
		time.Sleep(time.Millisecond)
	}
}

// A mail system that refuses the sender gets a few messages a minute until it is
// mended. All mail then leaves in its order.
func TestBreaker(t *testing.T) {
	const mails = 500
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		var mended atomic.Bool
		f.mailer.do = func(context.Context, int, reset.Message) error {
			if !mended.Load() {
				return errLogIn
			}
			time.Sleep(10 * time.Millisecond)
			return nil
		}
		f.queue(mails)
		f.begin()
		pass(time.Minute)
		if n := len(f.mailer.attempts()); n > 20+6 { // all workers; after 1, 3, 7, 15 and 31 s
			t.Errorf("%d attempts in the first minute, want at most 26", n)
		}
		pass(10 * time.Minute)
		before := len(f.mailer.attempts())
		pass(10 * time.Minute)
		if n := len(f.mailer.attempts()) - before; n < 9 || n > 11 {
			t.Errorf("%d attempts in ten minutes, want about one a minute", n)
		}
		mended.Store(true)
		before = len(f.mailer.attempts())
		pass(10 * time.Minute)
		var order []string
		for _, m := range f.mailer.attempts()[before:] {
			order = append(order, m.To)
		}
		if len(order) != mails {
			t.Errorf("%d mails, want %d", len(order), mails)
		}
		for i := range order { // workers may overtake each other
			if want := fmt.Sprintf("user%04d@example.com", i); slices.Index(order, want)-i > 20 {
				t.Errorf("mail to %s was sent in place %d", want, slices.Index(order, want))
			}
		}
		for _, e := range f.log.named("mail_sent") {
			if got := fmt.Sprint(e["attempt"]); got != "1" {
				t.Fatalf("a mail was sent in attempt %s, want 1", got)
			}
		}
		f.wantQueued(0)
		got := len(f.log.named("mailer_failing"))
		if got < 19 || got > 23 {
			t.Errorf("%d events mailer_failing in 21 minutes, want one a minute", got)
		}
		f.wantEvents(map[string]int{"mail_sent": mails, "mailer_failed": 1, "mailer_failing": got, "mailer_recovered": 1, "run_elsewhere": 1})
	})
}

// A mail system that takes some exchanges at a time gets as many.
func TestBreakerExchangesAtATime(t *testing.T) {
	const mails, most, each = 500, 2, 100 * time.Millisecond
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		var running, refused, last atomic.Int64
		f.mailer.do = func(context.Context, int, reset.Message) error {
			defer running.Add(-1)
			if running.Add(1) > most {
				refused.Add(1)
				return fmt.Errorf("%w: 421 too many connections", reset.ErrUnavailable)
			}
			time.Sleep(each)
			last.Store(time.Now().UnixNano())
			return nil
		}
		f.queue(mails)
		began := time.Now()
		f.begin()
		pass(5 * time.Minute)
		if took, pace := time.Unix(0, last.Load()).Sub(began), mails/most*each; took > pace*3/2 {
			t.Errorf("took %v, the mail system's own pace is %v", took, pace)
		}
		if n := refused.Load(); n > 20+5 { // probes after 1, 2, 4, 8 and 16 s
			t.Errorf("%d refusals, want one for each worker and each probe", n)
		}
		reports := len(f.log.named("mailer_throttled")) // one a minute, while probes fail
		if reports < 1 || reports > 2 {
			t.Errorf("%d events mailer_throttled, want 1 or 2", reports)
		}
		f.wantEvents(map[string]int{"mail_sent": mails, "mailer_throttled": reports, "run_elsewhere": 1})
		f.wantQueued(0)
	})
}

// A mail system that takes so many messages a second gets about as many.
func TestBreakerMessagesASecond(t *testing.T) {
	const mails, rate = 500, 14
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		var second, taken, last atomic.Int64
		f.mailer.do = func(context.Context, int, reset.Message) error {
			if now := time.Now().Unix(); second.Swap(now) != now {
				taken.Store(0)
			}
			if taken.Add(1) > rate {
				return fmt.Errorf("%w: 454 throttling failure", reset.ErrUnavailable)
			}
			last.Store(time.Now().UnixNano())
			return nil
		}
		f.queue(mails)
		began := time.Now()
		f.begin()
		pass(5 * time.Minute)
		if took, pace := time.Unix(0, last.Load()).Sub(began), mails*time.Second/rate; took > pace*3/2 {
			t.Errorf("took %v, the mail system's own pace is %v", took, pace)
		}
		if n := len(f.log.named("mailer_failed")); n > 1 {
			t.Errorf("%d events mailer_failed, want at most 1", n)
		}
		f.wantQueued(0)
	})
}

// What another message would not meet stops nothing.
func TestBreakerStaysClosed(t *testing.T) {
	for _, failure := range []error{errors.New("450 greylisted"), reset.ErrUndeliverable, reset.ErrUnconfirmed, context.DeadlineExceeded} {
		t.Run(failure.Error(), func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, f *fixture) {
				f.mailer.do = func(context.Context, int, reset.Message) error { return failure }
				f.queue(100)
				f.begin()
				pass(time.Second)
				f.wantSent(100)
			})
		})
	}
}

// While mail waits for the mail system, public requests for nobody are removed.
func TestBreakerPublicRequestsForNobody(t *testing.T) {
	inBubble(t, unlimited, func(t *testing.T, f *fixture) {
		f.mailer.do = func(context.Context, int, reset.Message) error { return errLogIn }
		f.begin()
		for i := range 100 {
			f.forgot(fmt.Sprintf("nobody%d@example.com", i))
		}
		pass(delivered)
		f.request(ann.Email)
		pass(time.Second)
		for i := range 100 {
			f.forgot(fmt.Sprintf("nobody%d@example.com", i))
		}
		f.Revoke(t.Context(), ann.ID)
		pass(2 * time.Minute)
		f.wantQueued(0)
	})
}

// Nor do they delay mail through a mail system that takes one message at a time,
// nor is that issued more often for them.
func TestBreakerFloodOfNobody(t *testing.T) {
	inBubble(t, unlimited, func(t *testing.T, f *fixture) {
		var exchanges atomic.Int64
		f.mailer.do = func(context.Context, int, reset.Message) error {
			defer exchanges.Add(-1)
			if exchanges.Add(1) > 1 {
				return reset.ErrUnavailable
			}
			<-time.After(200 * time.Millisecond)
			return nil
		}
		f.slowStore()
		f.begin()
		f.request(ann.Email)
		f.request(bob.Email) // is refused
		pass(10 * time.Second)
		for i := range 3000 {
			f.forgot(fmt.Sprintf("nobody%d@example.com", i))
		}
		pass(2 * time.Second)
		f.forgot(ann.Email)
		pass(8 * time.Second)
		f.wantEvent("mail_sent", 3)
		f.wantQueued(0)

		const users = 100
		for i := range users {
			u := reset.User{ID: fmt.Sprint("u", i), Email: fmt.Sprintf("u%d@example.com", i)}
			f.host.put(u)
			f.forgot(u.Email)
			for j := range 6 {
				f.forgot(fmt.Sprintf("nobody%d-%d@example.com", i, j))
			}
		}
		issued := f.store.Calls("Issue")
		pass(time.Minute)
		f.wantEvent("mail_sent", 3+users)
		if n := f.store.Calls("Issue") - issued; n > users+10 {
			t.Errorf("%d activations for %d mails", n, users)
		}
	})
}
