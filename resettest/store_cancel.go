package resettest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gopassreset/reset"
)

func cancelSentences() []storeSentence {
	const quote = "Each method is one transaction and is all or nothing, also if ctx is cancelled"
	return []storeSentence{
		{"Cancel/Enqueue", quote, (*storeCheck).cancelEnqueue},
		{"Cancel/Issue", quote, (*storeCheck).cancelIssue},
		{"Cancel/Issue with a lease", quote, (*storeCheck).cancelIssueLeased},
		{"Cancel/Redeem", quote, (*storeCheck).cancelRedeem},
		{"Cancel/apply", quote, (*storeCheck).cancelApply},
		{"Cancel/failing apply", quote, (*storeCheck).cancelFailingApply},
		{"Cancel/Revoke", quote, (*storeCheck).cancelRevoke},
		{"Cancel/Lease", quote, (*storeCheck).cancelLease},
		{"Cancel/Settle", quote, (*storeCheck).cancelSettle},
		{"Cancel/Purge", quote, (*storeCheck).cancelPurge},
	}
}

// A fuse is a context that is cancelled when it is read for the n-th time. With
// n = 1, 2, 3, … it stops a method at each point where the method can stop.
type fuse struct {
	context.Context
	left atomic.Int64
	blow context.CancelFunc
}

func (f *fuse) Done() <-chan struct{} {
	f.burn()
	return f.Context.Done()
}

func (f *fuse) Err() error {
	f.burn()
	return f.Context.Err()
}

func (f *fuse) burn() {
	if f.left.Add(-1) == 0 {
		f.blow()
	}
}

// sweep calls f under contexts that are cancelled later and later, the first
// before the call, until one outlasts the call. Each call gets its own name for
// a user or an address. The last call succeeds.
//
// The effect of a cancelled call may show only after it has returned: check it
// after the sweep.
func sweep(ctx context.Context, f func(ctx context.Context, name string)) {
	for n, step := int64(1), int64(1); n < 1000; n += step {
		if n > 12 {
			step = 1 + n/8
		}
		ctx, cancel := context.WithCancel(ctx)
		fuse := &fuse{Context: ctx, blow: cancel}
		fuse.left.Store(n)
		if n == 1 {
			cancel()
		}
		f(fuse, fmt.Sprint("cancelled ", n))
		outlasted := ctx.Err() == nil
		cancel()
		if outlasted {
			return
		}
	}
}

// isVerdict reports whether err describes what the store holds, which a call
// that was stopped has not read.
func isVerdict(err error) bool {
	return errors.Is(err, reset.ErrInvalidActivation) || errors.Is(err, reset.ErrGone) || errors.Is(err, reset.ErrTooManyRequests)
}

// wantAllOrNothing checks how many of the effects of one call took place.
func (c *storeCheck) wantAllOrNothing(op string, err error, got, all int) {
	c.Helper()
	switch {
	case err == nil && got != all:
		c.Errorf("%s succeeded with %d of %d effects", op, got, all)
	case got != 0 && got != all:
		c.Errorf("%s was cancelled (%v) with %d of %d effects", op, err, got, all)
	case err != nil && isVerdict(err):
		c.Errorf("%s was cancelled and returned the verdict %v", op, err)
	}
}

// drain removes all mail and returns it.
func (c *storeCheck) drain() []reset.Mail {
	c.Helper()
	mails := c.leaseAll(at(late), at(lifetime))
	for _, m := range mails {
		c.settle(reset.Settlement{Mail: m.ID, Lease: m.Lease})
	}
	return mails
}

// byAddress counts mails by address.
func byAddress(mails []reset.Mail) map[string]int {
	n := make(map[string]int)
	for _, m := range mails {
		n[m.Email]++
	}
	return n
}

func count(conditions ...bool) (n int) {
	for _, is := range conditions {
		if is {
			n++
		}
	}
	return n
}

func (c *storeCheck) cancelEnqueue() {
	errs := make(map[string]error)
	sweep(c.Context(), func(ctx context.Context, name string) {
		errs[name] = c.store.Enqueue(ctx, c.publicRequest(name))
	})
	got := byAddress(c.drain())
	for name, err := range errs {
		c.wantAllOrNothing("Enqueue", err, got[name], 1)
	}
}

func (c *storeCheck) cancelIssue() {
	errs := make(map[reset.Activation]error)
	sweep(c.Context(), func(ctx context.Context, user string) {
		a := c.activation(user)
		_, errs[a] = c.store.Issue(ctx, start, a, reset.Limits{MaxRequests: 1}, c.mailFor(a))
	})
	mails := byAddress(c.drain())
	for a, err := range errs {
		c.wantAllOrNothing("Issue", err, count(c.isLive(start, a))+mails[a.Email], 2)
	}
}

func (c *storeCheck) cancelIssueLeased() {
	errs := make(map[reset.Activation]error)
	sweep(c.Context(), func(ctx context.Context, user string) {
		a := c.activation(user)
		public := c.publicRequest(a.Email)
		public.ID = a.Request
		c.enqueue(public)
		leased := c.leaseOne(start, at(time.Minute))
		leased.Due = at(10 * time.Minute)
		_, errs[a] = c.store.Issue(ctx, start, a, reset.Limits{MaxRequests: 1}, &leased)
	})
	old := byAddress(c.leaseAll(at(time.Minute), at(20*time.Minute)))
	renewed := c.leaseAll(at(10*time.Minute), at(20*time.Minute))
	for a, err := range errs {
		bound := slices.ContainsFunc(renewed, func(m reset.Mail) bool { return m.ID == a.Request && m.UserID == a.UserID })
		c.wantAllOrNothing("Issue", err, count(c.isLive(start, a), old[a.Email] == 0, bound), 3)
	}
}

func (c *storeCheck) cancelRedeem() {
	type result struct {
		err   error
		calls int
	}
	results := make(map[*fixture]result)
	sweep(c.Context(), func(ctx context.Context, user string) {
		s := c.fixture(user)
		calls := 0
		err := c.store.Redeem(ctx, start, s.activations[0], s.notification, func(context.Context) error {
			calls++
			return nil
		})
		results[s] = result{err, calls}
	})
	mails := c.drain()
	for s, r := range results {
		s.wantConsistent(mails, r.err, r.calls)
	}
}

func (c *storeCheck) cancelApply() {
	s := c.fixture("a")
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	calls := 0
	err := c.store.Redeem(ctx, start, s.activations[0], s.notification, func(context.Context) error {
		calls++
		cancel()
		return nil
	})
	c.redeem(start, c.issued("b"), c.notification("b"))
	s.wantConsistent(c.drain(), err, calls)
}

func (c *storeCheck) cancelFailingApply() {
	s := c.fixture("a")
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	err := c.store.Redeem(ctx, start, s.activations[0], c.notification("a"), func(context.Context) error {
		cancel()
		return context.Canceled
	})
	c.wantIs("Redeem", err, context.Canceled)
	if c.elsewhere {
		s.wantLost(start)
	} else {
		s.wantUntouched(start)
	}
}

// wantConsistent checks a Redeem that was cancelled at some point and whose
// apply succeeds if it is called. mails are all that are queued afterwards.
func (s *fixture) wantConsistent(mails []reset.Mail, err error, calls int) {
	s.Helper()
	has := func(want reset.Mail) bool {
		return slices.ContainsFunc(mails, func(m reset.Mail) bool { return m.ID == want.ID })
	}
	live, mail, notification := s.count(start, s.activations), has(s.mail), has(s.notification)
	var consistent bool
	switch {
	case live == 0 && !mail && notification: // redeemed
		consistent = calls == 1
	case live == len(s.activations) && mail && !notification: // untouched
		consistent = calls <= 1 && err != nil
	case live == 0 && mail && !notification: // a claim without an outcome
		consistent = s.elsewhere && calls == 0 && err != nil
	}
	if !consistent {
		s.Errorf("Redeem was cancelled: %v after %d calls of apply; %d of %d activations are live, mail: %t, notification: %t",
			err, calls, live, len(s.activations), mail, notification)
	}
	if err != nil && isVerdict(err) {
		s.Errorf("Redeem was cancelled and returned the verdict %v", err)
	}
}

func (c *storeCheck) cancelRevoke() {
	errs := make(map[*fixture]error)
	sweep(c.Context(), func(ctx context.Context, user string) {
		s := c.fixture(user)
		errs[s] = c.store.Revoke(ctx, start, user, time.Time{})
	})
	mails := byAddress(c.drain())
	for s, err := range errs {
		gone := len(s.activations) - c.count(start, s.activations) + 1 - mails[s.mail.Email]
		c.wantAllOrNothing("Revoke", err, gone, len(s.activations)+1)
	}
}

// Each call leases until another time, which later identifies its leases.
func (c *storeCheck) cancelLease() {
	const n = 3
	var errs []error
	until := func(i int) time.Time { return at(time.Minute + time.Duration(i)*time.Second) }
	sweep(c.Context(), func(ctx context.Context, name string) {
		for range n {
			c.enqueue(c.publicRequest(name))
		}
		mails, err := c.store.Lease(ctx, start, until(len(errs)), n)
		if err == nil && len(mails) != n || err != nil && len(mails) != 0 {
			c.Errorf("Lease returned %d mails and the error %v", len(mails), err)
		}
		errs = append(errs, err)
	})
	left := n*len(errs) - len(c.leaseAll(start, at(lifetime)))
	for i, err := range errs {
		leased := len(c.leaseAll(until(i), at(lifetime)))
		c.wantAllOrNothing("Lease", err, leased, n)
		left -= leased
	}
	if left != 0 {
		c.Errorf("%d mails are missing", left)
	}
}

func (c *storeCheck) cancelSettle() {
	const n = 4
	errs := make(map[string]error)
	sweep(c.Context(), func(ctx context.Context, name string) {
		for range n {
			c.enqueue(c.publicRequest(name))
		}
		var done []reset.Settlement
		for i, m := range c.leaseAll(start, at(20*time.Minute)) {
			done = append(done, reset.Settlement{Mail: m.ID, Lease: m.Lease})
			if i%2 == 0 {
				done[i].Retry = at(time.Minute)
			}
		}
		errs[name] = c.store.Settle(ctx, done)
	})
	freed := byAddress(c.leaseAll(at(time.Minute), at(30*time.Minute)))
	held := byAddress(c.leaseAll(at(20*time.Minute), at(30*time.Minute)))
	for name, err := range errs {
		removed := n - freed[name] - held[name]
		c.wantAllOrNothing("Settle", err, freed[name]+removed, n)
	}
}

// Records of a later call expire earlier, so that no call purges another's.
func (c *storeCheck) cancelPurge() {
	const n = 4
	type batch struct {
		activations []reset.Activation
		err         error
	}
	batches := make(map[string]batch)
	expires := at(late)
	sweep(c.Context(), func(ctx context.Context, user string) {
		var b batch
		for range n {
			a := c.activation(user)
			a.Expires = expires
			c.issue(start, a, n, c.mailFor(a))
			b.activations = append(b.activations, a)
		}
		removed, _, err := c.store.Purge(ctx, expires, 100)
		if err != nil && removed != 0 {
			c.Errorf("Purge returned %d and the error %v", removed, err)
		}
		b.err = err
		batches[user] = b
		expires = expires.Add(-time.Second)
	})
	mails := byAddress(c.leaseAll(start, at(time.Second)))
	for user, b := range batches {
		gone := n - c.count(start, b.activations) + n - mails[user+"@example.com"]
		c.wantAllOrNothing("Purge", b.err, gone, 2*n)
	}
}
