package resettest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopassreset/reset"
)

func raceSentences() []storeSentence {
	const (
		limit = "Issue adds a if fewer than limits.MaxRequests requests of a.UserID are live, under any concurrency"
		one   = "Of concurrent calls for one user at most one at a time runs apply and exactly one succeeds."
		safe  = "A Store is safe for concurrent use by many goroutines and many processes."
		lease = "the lowest Class first, within it the earliest Due, and none that another call holds."
	)
	return []storeSentence{
		{"Race/cap", limit, (*storeCheck).raceIssues},
		{"Race/cap of many users", limit, (*storeCheck).raceIssuesOfMany},
		{"Race/cap of public requests", limit, (*storeCheck).raceIssuesOfPublicRequests},
		{"Race/one activation", one, (*storeCheck).raceOneActivation},
		{"Race/activations of one user", one, (*storeCheck).raceTwoActivations},
		{"Race/users", safe, (*storeCheck).raceUsers},
		{"Race/leases", lease, (*storeCheck).raceLeases},
		{"Race/Enqueue", "Enqueue adds m, always as a row of its own", (*storeCheck).raceEnqueues},
		{"Race/Redeem and Revoke", safe, (*storeCheck).raceRedeemRevoke},
		{"Race/Redeem and Purge", safe, (*storeCheck).raceRedeemPurge},
		{"Race/Redeem and Issue", safe, (*storeCheck).raceRedeemIssue},
		{"Race/Revoke and Issue", safe, (*storeCheck).raceRevokeIssue},
		{"Race/everything", safe, (*storeCheck).raceEverything},
	}
}

// rounds is how often two calls race. Each round has its own user.
const rounds = 10

func (c *storeCheck) raceIssues() {
	const n, max = 100, 3
	c.issue(at(-time.Minute), c.activation("b"), 1, nil) // another user
	activations := make([]reset.Activation, n)
	errs := make([]error, n)
	for i := range activations {
		activations[i] = c.activation("a")
	}
	parallel(n, func(i int) {
		errs[i] = c.tryIssue(at(time.Minute), activations[i], max, c.mailFor(activations[i]))
	})
	var want []reset.Mail
	for i, err := range errs {
		if err == nil {
			want = append(want, *c.mailFor(activations[i]))
			c.wantLive(at(time.Minute), activations[i])
		} else {
			c.wantLimit(err, lifetime-time.Minute)
			c.wantDead(at(time.Minute), activations[i])
		}
	}
	if len(want) != max {
		c.Errorf("%d of %d parallel Issues succeeded, want %d", len(want), n, max)
	}
	c.wantMails(at(time.Minute), want...)
}

func (c *storeCheck) raceIssuesOfMany() {
	const users, each, max = 5, 10, 2
	activations := make([]reset.Activation, users*each)
	for i := range activations {
		activations[i] = c.activation(fmt.Sprint("user ", i%users))
	}
	var issued [users]atomic.Int32
	parallel(len(activations), func(i int) {
		err := c.tryIssue(start, activations[i], max, nil)
		if err == nil {
			issued[i%users].Add(1)
		} else {
			c.wantLimit(err, lifetime)
		}
	})
	for i := range issued {
		if got := issued[i].Load(); got != max {
			c.Errorf("user %d of %d has %d requests, want %d", i, users, got, max)
		}
	}
	if got := c.count(start, activations); got != users*max {
		c.Errorf("%d activations are live, want %d", got, users*max)
	}
}

// Workers issue public requests, each under its own lease.
func (c *storeCheck) raceIssuesOfPublicRequests() {
	const n, max = 20, 3
	for range n {
		c.enqueue(c.publicRequest("a@example.com"))
	}
	leased := c.leaseAll(start, at(time.Minute))
	activations := make([]reset.Activation, len(leased))
	for i, m := range leased {
		activations[i] = c.activationFor(m, "a")
	}
	var issued atomic.Int32
	parallel(len(leased), func(i int) {
		m := leased[i]
		m.Due = at(10 * time.Minute)
		if err := c.tryIssue(start, activations[i], max, &m); err == nil {
			issued.Add(1)
		} else {
			c.wantLimit(err, lifetime)
		}
	})
	live := c.count(start, activations)
	if issued.Load() != max || live != max {
		c.Errorf("%d of %d parallel Issues succeeded and %d activations are live, want %d", issued.Load(), n, live, max)
	}
	if got := len(c.leaseAll(at(time.Minute), at(2*time.Minute))); got != n-max {
		c.Errorf("%d leases were not renewed, want %d", got, n-max)
	}
}

// raceRedeems redeems each activation, all of one user, several times at once.
func (c *storeCheck) raceRedeems(activations ...reset.Activation) {
	c.Helper()
	const n = 20
	notifications := make([]reset.Mail, n)
	for i := range notifications {
		notifications[i] = c.notification("a")
	}
	var running, calls, succeeded atomic.Int32
	var winner atomic.Int32
	parallel(n, func(i int) {
		err := c.store.Redeem(c.Context(), start, activations[i%len(activations)], notifications[i], func(context.Context) error {
			calls.Add(1)
			if running.Add(1) != 1 {
				c.Errorf("apply runs twice at a time")
			}
			for range 100 {
				runtime.Gosched()
			}
			running.Add(-1)
			return nil
		})
		switch {
		case err == nil:
			succeeded.Add(1)
			winner.Store(int32(i))
		case !errors.Is(err, reset.ErrInvalidActivation):
			c.Errorf("Redeem: got error %v, want ErrInvalidActivation", err)
		}
	})
	if succeeded.Load() != 1 || calls.Load() != 1 {
		c.Errorf("%d of %d parallel Redeems succeeded, apply was called %d times; want 1 and 1", succeeded.Load(), n, calls.Load())
	}
	c.wantDead(start, activations...)
	c.wantMails(start, notifications[winner.Load()])
}

func (c *storeCheck) raceOneActivation() {
	c.raceRedeems(c.issued("a"))
}

func (c *storeCheck) raceTwoActivations() {
	a := c.issued("a")
	sibling := c.sibling(a)
	c.issue(start, sibling, 9, nil)
	c.raceRedeems(a, sibling, c.issued("a"))
}

func (c *storeCheck) raceUsers() {
	const n = 20
	activations, notifications := make([]reset.Activation, n), make([]reset.Mail, n)
	for i := range n {
		user := fmt.Sprint("user ", i)
		activations[i], notifications[i] = c.issued(user), c.notification(user)
	}
	parallel(n, func(i int) {
		err := c.store.Redeem(c.Context(), start, activations[i], notifications[i], func(context.Context) error { return nil })
		if err != nil {
			c.Errorf("Redeem of user %d: %v", i, err)
		}
	})
	c.wantDead(start, activations...)
	c.wantMails(start, notifications...)
}

func (c *storeCheck) raceLeases() {
	const mails, workers = 100, 10
	for i := range mails {
		m := c.publicRequest("a@example.com")
		m.Due = at(-time.Duration(i%7) * time.Second)
		c.enqueue(m)
	}
	var mu sync.Mutex
	leased := make(map[reset.ID]int)
	parallel(workers, func(int) {
		for range 5 {
			got, err := c.store.Lease(c.Context(), start, at(time.Minute), 3)
			if err != nil {
				c.Errorf("Lease: %v", err)
			}
			if len(got) > 3 {
				c.Errorf("Lease returned %d mails, want at most 3", len(got))
			}
			mu.Lock()
			for _, m := range got {
				leased[m.ID]++
			}
			mu.Unlock()
		}
	})
	for _, m := range c.leaseAll(start, at(time.Minute)) {
		leased[m.ID]++
	}
	for id, n := range leased {
		if n != 1 {
			c.Errorf("the mail %v was leased %d times", id, n)
		}
	}
	if len(leased) != mails {
		c.Errorf("%d mails were leased, want %d", len(leased), mails)
	}
}

func (c *storeCheck) raceEnqueues() {
	want := make([]reset.Mail, 50)
	for i := range want {
		want[i] = c.publicRequest("a@example.com")
	}
	parallel(len(want), func(i int) {
		if err := c.store.Enqueue(c.Context(), want[i]); err != nil {
			c.Errorf("Enqueue: %v", err)
		}
	})
	c.wantMails(start, want...)
}

// raceRedeem races one Redeem against f and checks that it was all or nothing.
// f returns whether Redeem may be refused.
func (c *storeCheck) raceRedeem(now time.Time, f func(user string) (mayRefuse bool)) {
	c.Helper()
	for i := range rounds {
		s := c.fixture(fmt.Sprint("user ", i))
		var calls atomic.Int32
		var err error
		var mayRefuse bool
		parallel(2, func(i int) {
			if i == 1 {
				mayRefuse = f(s.user)
				return
			}
			err = c.store.Redeem(c.Context(), now, s.activations[0], s.notification, func(context.Context) error {
				calls.Add(1)
				return nil
			})
		})
		want := int32(1)
		if err != nil {
			want = 0
			c.wantIs("Redeem", err, reset.ErrInvalidActivation)
			if !mayRefuse {
				c.Errorf("Redeem: %v, though nothing ended the activation", err)
			}
		}
		if calls.Load() != want {
			c.Errorf("Redeem: %v after %d calls of apply", err, calls.Load())
		}
		c.wantDead(start, s.activations...)
		notifications := 0
		for _, m := range c.leaseAll(at(lifetime), at(lifetime+time.Second)) {
			if m.ID == s.notification.ID {
				notifications++
			}
			c.settle(reset.Settlement{Mail: m.ID, Lease: m.Lease, UserID: m.UserID})
		}
		if notifications != int(want) {
			c.Errorf("Redeem: %v, and %d notifications are queued", err, notifications)
		}
	}
}

func (c *storeCheck) raceRedeemRevoke() {
	c.raceRedeem(start, func(user string) bool {
		if err := c.store.Revoke(c.Context(), start, user, time.Time{}); err != nil {
			c.Errorf("Revoke: %v", err)
		}
		return true
	})
}

func (c *storeCheck) raceRedeemPurge() {
	c.raceRedeem(at(lifetime-ms), func(string) bool {
		for range 3 {
			if _, _, err := c.store.Purge(c.Context(), at(lifetime), 100); err != nil {
				c.Errorf("Purge: %v", err)
			}
		}
		return true
	})
}

func (c *storeCheck) raceRedeemIssue() {
	for i := range rounds {
		user := fmt.Sprint("user ", i)
		a, b := c.issued(user), c.activation(user)
		var redeemed, issued error
		parallel(2, func(i int) {
			if i == 0 {
				redeemed = c.store.Redeem(c.Context(), start, a, c.notification(user), func(context.Context) error { return nil })
			} else {
				issued = c.tryIssue(start, b, 1, nil)
			}
		})
		if redeemed != nil {
			c.Errorf("Redeem: %v", redeemed)
		}
		if issued != nil { // it came first
			c.wantLimit(issued, lifetime)
			c.wantDead(start, b)
		}
		c.wantDead(start, a)
	}
	if got := len(c.leaseAll(start, at(time.Minute))); got != rounds {
		c.Errorf("%d notifications are queued, want %d", got, rounds)
	}
}

func (c *storeCheck) raceRevokeIssue() {
	for i := range rounds {
		user := fmt.Sprint("user ", i)
		a, b := c.issued(user), c.activation(user)
		m := c.mailFor(b)
		parallel(2, func(i int) {
			if i == 0 {
				if err := c.store.Revoke(c.Context(), start, user, time.Time{}); err != nil {
					c.Errorf("Revoke: %v", err)
				}
			} else if err := c.tryIssue(start, b, 2, m); err != nil {
				c.Errorf("Issue: %v", err)
			}
		})
		c.wantDead(start, a)
		live, mails := c.isLive(start, b), len(c.drain())
		if live != (mails == 1) {
			c.Errorf("after Issue against Revoke the activation is live: %t, and %d mails are queued", live, mails)
		}
	}
}

// All methods at once, on few users; afterwards every record must be accounted
// for.
func (c *storeCheck) raceEverything() {
	const workers, steps, users, max = 8, 12, 3, 3
	var mu sync.Mutex
	var issued []reset.Activation
	notifications := make(map[reset.ID]bool)
	parallel(workers, func(worker int) {
		for step := range steps {
			user := fmt.Sprint("user ", (worker+step)%users)
			a := c.activation(user)
			err := c.tryIssue(start, a, max, c.mailFor(a))
			if err != nil && !errors.Is(err, reset.ErrTooManyRequests) {
				c.Errorf("Issue: %v", err)
			}
			if err == nil {
				mu.Lock()
				issued = append(issued, a)
				mu.Unlock()
			}
			switch step % 4 {
			case 0:
				notification := c.notification(user)
				err := c.store.Redeem(c.Context(), start, a, notification, func(context.Context) error { return nil })
				if err != nil && !errors.Is(err, reset.ErrInvalidActivation) {
					c.Errorf("Redeem: %v", err)
				}
				if err == nil {
					mu.Lock()
					notifications[notification.ID] = true
					mu.Unlock()
				}
			case 1:
				mails, err := c.store.Lease(c.Context(), start, at(time.Minute), 2)
				if err != nil {
					c.Errorf("Lease: %v", err)
				}
				var done []reset.Settlement
				for _, m := range mails {
					done = append(done, reset.Settlement{Mail: m.ID, Lease: m.Lease, Retry: start})
				}
				if err := c.store.Settle(c.Context(), done); err != nil {
					c.Errorf("Settle: %v", err)
				}
			case 2:
				if _, _, err := c.store.Purge(c.Context(), start, 10); err != nil {
					c.Errorf("Purge: %v", err)
				}
			case 3:
				if worker == 0 {
					if err := c.store.Revoke(c.Context(), start, user, time.Time{}); err != nil {
						c.Errorf("Revoke: %v", err)
					}
				}
			}
		}
	})
	live := make(map[reset.ID]string)
	for _, a := range issued {
		if c.isLive(start, a) {
			live[a.Request] = a.UserID
		}
	}
	if len(live) > users*max {
		c.Errorf("%d requests are live, want at most %d", len(live), users*max)
	}
	for _, m := range c.drain() {
		switch {
		case m.Kind == reset.MailNotification && notifications[m.ID]:
			delete(notifications, m.ID)
		case m.Kind == reset.MailReset && live[m.ID] == m.UserID:
			delete(live, m.ID)
		default:
			c.Errorf("unexpected or repeated mail %+v", m)
		}
	}
	if len(notifications) > 0 || len(live) > 0 {
		c.Errorf("%d notifications and %d reset mails are missing", len(notifications), len(live))
	}
}
