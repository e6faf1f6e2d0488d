package resettest

import (
	"fmt"
	"time"

	"github.com/gopassreset/reset"
)

func issueSentences() []storeSentence {
	const (
		adds     = "Issue adds a if fewer than limits.MaxRequests requests of a.UserID are live, under any concurrency"
		over     = "Otherwise it changes nothing and returns a *LimitError whose RetryAfter is the time until fewer are live."
		joins    = "If a.Request already has a live activation, a joins it, whatever limits.MaxRequests is."
		held     = "Any other mail must still be held under its lease, and be a public request or a mail of the same user; otherwise Issue changes nothing and returns ErrGone."
		addsMail = "A mail that Lease has not returned (m.WasDue is zero) is added in the same transaction, under the lease m.Lease unless that is zero."
		renews   = "It is bound to a.UserID and its lease is renewed until m.Due."
		finds    = "Find returns the live activation with hash h, or ErrInvalidActivation. An activation is live from Issue until it expires, is redeemed or is revoked."
	)
	return []storeSentence{
		{"Issue/adds up to max", adds, (*storeCheck).issueUpToMax},
		{"Issue/returns", "and returns it as it is now stored", (*storeCheck).issueReturns},
		{"Issue/counts the live", adds, (*storeCheck).issueCountsTheLive},
		{"Issue/RetryAfter", over, (*storeCheck).issueRetryAfter},
		{"Issue/over the cap", over, (*storeCheck).issueOverTheCap},
		{"Issue/over the cap with a lease", over, (*storeCheck).issueOverTheCapLeased},
		{"Issue/joins", joins, (*storeCheck).issueJoins},
		{"Issue/joins only the live", joins, (*storeCheck).issueJoinsOnlyTheLive},
		{"Issue/counts once", "A request counts once, however many activations it has.", (*storeCheck).issueCountsOnce},
		{"Issue/adds its mail", addsMail, (*storeCheck).issueAddsMail},
		{"Issue/adds its mail leased", addsMail, (*storeCheck).issueAddsLeasedMail},
		{"Issue/all or nothing", "Each method is one transaction and is all or nothing", (*storeCheck).issueIsOneTransaction},
		{"Issue/lost lease", held, (*storeCheck).issueLostLease},
		{"Issue/mail of another user", held, (*storeCheck).issueMailOfAnother},
		{"Issue/mail of the same user", held, (*storeCheck).issueMailOfTheSame},
		{"Issue/binds", renews, (*storeCheck).issueBinds},
		{"Issue/renews", renews, (*storeCheck).issueRenews},
		{"Find/live", finds, (*storeCheck).find},
		{"Find/expiry", finds, (*storeCheck).findExpiry},
	}
}

func (c *storeCheck) issueUpToMax() {
	for _, max := range []int{1, 2, 3, 10, 100} {
		user := fmt.Sprint("user ", max)
		var activations []reset.Activation
		for range max {
			a := c.activation(user)
			c.issue(start, a, max, nil)
			activations = append(activations, a)
		}
		over := c.activation(user)
		c.wantLimit(c.tryIssue(start, over, max, nil), lifetime)
		c.wantLimit(c.tryIssue(start, over, 1, nil), lifetime)
		c.wantLive(start, activations...)
		c.wantDead(start, over)
		c.issue(start, over, max+1, nil)
		c.wantLive(start, over)
	}
}

func (c *storeCheck) issueReturns() {
	a := c.activation("a")
	a.Expires = at(lifetime + 900*time.Microsecond).In(time.FixedZone("east", 14*3600))
	got, err := c.store.Issue(c.Context(), start, a, reset.Limits{MaxRequests: 1}, nil)
	if err != nil {
		c.Fatalf("Issue: %v", err)
	}
	c.wantLive(start, got)
	got, err = c.store.Issue(c.Context(), start, c.activation("a"), reset.Limits{MaxRequests: 1}, nil)
	if err == nil || got != (reset.Activation{}) {
		c.Errorf("Issue over the cap: got %+v, %v, want none and an error", got, err)
	}
}

func (c *storeCheck) issueCountsTheLive() {
	c.issued("expired")
	c.issue(at(lifetime), c.activation("expired"), 1, nil)

	c.redeem(start, c.issued("used"), c.notification("used"))
	c.issue(start, c.activation("used"), 1, nil)

	c.issued("revoked")
	c.revoke("revoked")
	c.issue(start, c.activation("revoked"), 1, nil)

	public := c.publicRequest("mail@example.com")
	mail := c.publicRequest("mail@example.com")
	mail.UserID = "mail"
	c.enqueue(public, mail) // mails do not count for the cap
	c.issue(start, c.activation("mail"), 1, nil)

	c.issued("other")
	c.issued("other")
	c.issue(start, c.activation("nobody else"), 1, nil)
}

func (c *storeCheck) issueRetryAfter() {
	// Out of order, so that neither the first nor the last row decides.
	for _, minutes := range []int{30, 10, 50, 20, 40} {
		a := c.activation("a")
		a.Expires = at(time.Duration(minutes) * time.Minute)
		c.issue(start, a, 5, nil)
		b := c.sibling(a) // does not count again
		c.issue(start, b, 5, nil)
	}
	for max, minutes := range map[int]time.Duration{5: 10, 4: 20, 3: 30, 2: 40, 1: 50} {
		wait := minutes*time.Minute - 7*ms
		over := c.activation("a")
		err := c.tryIssue(at(7*ms), over, max, nil)
		c.wantLimit(err, wait)
		c.wantIs("Issue", err, reset.ErrTooManyRequests)
	}
	// The wait is exact.
	over := c.activation("a")
	c.wantLimit(c.tryIssue(at(30*time.Minute-ms), over, 3, nil), ms)
	c.issue(at(30*time.Minute), over, 3, nil)
}

func (c *storeCheck) issueOverTheCap() {
	first, mail := c.issuedWithMail("a")
	over := c.activation("a")
	over.Expires = at(2 * lifetime)
	err := c.tryIssue(at(time.Minute), over, 1, c.mailFor(over))
	c.wantLimit(err, lifetime-time.Minute)
	c.wantDead(start, over)
	c.wantLive(at(lifetime-ms), first)
	c.wantDead(at(lifetime), first)
	c.wantMails(at(late), mail)
	c.wantMails(at(lifetime))
	c.issue(at(lifetime), over, 1, c.mailFor(over))
}

func (c *storeCheck) issueOverTheCapLeased() {
	c.issued("a")
	public := c.publicRequest("a@example.com")
	c.enqueue(public)
	leased := c.leaseOne(start, at(time.Minute))
	renewed := leased
	renewed.Due = at(10 * time.Minute)
	over := c.activationFor(public, "a")
	c.wantLimit(c.tryIssue(start, over, 1, &renewed), lifetime)
	c.wantDead(start, over)
	c.revoke("a") // does not concern a public request
	c.wantMails(at(time.Minute - ms))
	c.wantMails(at(time.Minute), public)
}

func (c *storeCheck) issueJoins() {
	a, mail := c.issuedWithMail("a")
	other := c.issued("a")
	b := c.sibling(a)
	c.issue(start, b, 1, nil)
	leased := c.leaseOne(start, at(time.Minute))
	renewed := leased
	renewed.Due = at(2 * time.Minute)
	d := c.sibling(a)
	c.issue(start, d, 1, &renewed)
	c.wantLive(start, a, b, d, other)
	c.wantMails(at(2*time.Minute - ms))
	c.wantMails(at(2*time.Minute), mail)
	c.wantLimit(c.tryIssue(start, c.activation("a"), 2, nil), lifetime)
	c.redeem(start, b, c.notification("a"))
	c.wantDead(start, a, b, d, other)
}

func (c *storeCheck) issueJoinsOnlyTheLive() {
	revoked := c.issued("a")
	c.revoke("a")
	c.issued("a")
	c.wantLimit(c.tryIssue(start, c.sibling(revoked), 1, nil), lifetime)

	expired := c.activation("b")
	expired.Expires = at(time.Minute)
	c.issue(start, expired, 2, nil)
	c.issued("b")
	c.wantLimit(c.tryIssue(at(time.Minute), c.sibling(expired), 1, nil), lifetime-time.Minute)

	a := c.activation("c") // a mail makes no request live
	m := c.mailFor(a)
	c.enqueue(*m)
	c.issued("c")
	c.wantLimit(c.tryIssue(start, a, 1, nil), lifetime)
}

func (c *storeCheck) issueCountsOnce() {
	a := c.issued("a")
	for range 5 {
		c.issue(start, c.sibling(a), 1, nil)
	}
	b := c.activation("a")
	c.issue(start, b, 2, nil)
	c.wantLimit(c.tryIssue(start, c.activation("a"), 2, nil), lifetime)
}

func (c *storeCheck) issueAddsMail() {
	a, m := c.activation("a"), reset.Mail{}
	m = *c.mailFor(a)
	m.Email, m.Name, m.Locale, m.Due = "typed@example.com", "Änne", "de-AT", at(time.Minute)
	c.issue(start, a, 1, &m)
	c.wantLive(start, a)
	c.wantMails(at(time.Minute - ms))
	got := c.leaseOne(at(time.Minute), at(2*time.Minute))
	if !equalFacts(got, m) || got.Attempts != 1 {
		c.Errorf("Lease returned %+v, want %+v with one attempt", got, m)
	}
	c.issue(start, c.activation("b"), 1, nil) // without any
	c.wantMails(at(2*time.Minute), m)
}

func (c *storeCheck) issueAddsLeasedMail() {
	for i, settles := range []bool{true, false} {
		a := c.activation(fmt.Sprint("user ", i))
		m := c.mailFor(a)
		m.Lease, m.Due, m.Attempts = c.id(), at(time.Minute), 1
		c.issue(start, a, 1, m)
		c.wantLive(start, a)
		c.wantMails(at(time.Minute - ms))
		c.settle(reset.Settlement{Mail: m.ID, Lease: c.id()}) // another lease
		if settles {
			c.settle(reset.Settlement{Mail: m.ID, Lease: m.Lease})
			c.wantMails(at(time.Minute))
			continue
		}
		if got := c.leaseOne(at(time.Minute), at(2*time.Minute)); got.ID != m.ID || got.Attempts != 2 {
			c.Errorf("Lease returned %v with %d attempts, want %v with 2", got.ID, got.Attempts, m.ID)
		}
	}
}

// The mail's ID is taken. If the store refuses it, the activation is not kept.
func (c *storeCheck) issueIsOneTransaction() {
	a := c.activation("a")
	c.enqueue(*c.mailFor(a))
	err := c.tryIssue(start, a, 1, c.mailFor(a))
	if live := c.isLive(start, a); live != (err == nil) {
		c.Errorf("Issue of a mail that is queued already: error %v, and the activation is live: %t", err, live)
	}

	b := c.issued("b") // the same for an activation
	again := c.activation("b")
	again.Hash = b.Hash
	if err := c.tryIssue(start, again, 9, c.mailFor(again)); err == nil {
		c.Errorf("Issue added a second activation with one hash")
	}
	c.wantLive(start, b)
	c.wantMails(start, *c.mailFor(a))
}

func (c *storeCheck) issueLostLease() {
	lost := func(name string, lose func(leased reset.Mail), now time.Duration, left ...reset.Mail) {
		c.Helper()
		public := c.publicRequest(name + "@example.com")
		c.enqueue(public)
		leased := c.leaseOne(start, at(time.Minute))
		lose(leased)
		leased.Due = at(10 * time.Minute)
		a := c.activationFor(leased, "a")
		c.wantIs("Issue of a mail that was "+name, c.tryIssue(at(now), a, 1, &leased), reset.ErrGone)
		c.wantDead(start, a)
		c.revoke("a") // would remove a bound mail
		for _, m := range left {
			m.ID, m.Email = public.ID, public.Email
			c.wantMails(at(3*time.Minute - ms))
			c.wantMails(at(3*time.Minute), m)
		}
		for _, m := range c.leaseAll(at(late), at(lifetime)) {
			c.settle(reset.Settlement{Mail: m.ID, Lease: m.Lease})
		}
	}
	end := func(m reset.Mail, retry time.Time) reset.Settlement {
		return reset.Settlement{Mail: m.ID, Lease: m.Lease, UserID: m.UserID, Retry: retry}
	}
	left := c.publicRequest("")
	lost("settled", func(m reset.Mail) { c.settle(end(m, time.Time{})) }, 0)
	lost("freed", func(m reset.Mail) { c.settle(end(m, at(3*time.Minute))) }, 0, left)
	lost("leased anew", func(reset.Mail) { c.leaseOne(at(time.Minute), at(3*time.Minute)) }, time.Minute, left)
	lost("freed and leased anew", func(m reset.Mail) {
		c.settle(end(m, at(time.Second)))
		c.leaseOne(at(time.Second), at(3*time.Minute))
	}, time.Second, left)
	lost("purged", func(m reset.Mail) {
		c.purgeAll(at(lifetime))
	}, 0)

	never := c.publicRequest("never@example.com")
	never.Lease, never.WasDue = c.id(), start
	a := c.activationFor(never, "a")
	c.wantIs("Issue of a mail that never was", c.tryIssue(start, a, 1, &never), reset.ErrGone)
	c.wantDead(start, a)

	bound, _ := c.issuedWithMail("b")
	leased := c.leaseOne(start, at(time.Minute))
	c.revoke("b")
	again := c.sibling(bound)
	c.wantIs("Issue of a mail that was revoked", c.tryIssue(start, again, 1, &leased), reset.ErrGone)
	c.wantDead(start, again)
}

func (c *storeCheck) issueMailOfAnother() {
	a, m := c.issuedWithMail("a")
	leased := c.leaseOne(start, at(time.Minute))
	stolen := leased
	stolen.Due = at(10 * time.Minute)
	for _, userID := range []string{"a", "b", ""} { // whatever UserID the caller passes
		stolen.UserID = userID
		b := c.activationFor(leased, "b")
		c.wantIs("Issue of a mail of another user", c.tryIssue(start, b, 9, &stolen), reset.ErrGone)
		c.wantDead(start, b)
	}
	c.revoke("b")
	c.wantLive(start, a)
	c.wantMails(at(time.Minute - ms))
	c.wantMails(at(time.Minute), m)
}

func (c *storeCheck) issueMailOfTheSame() {
	a, _ := c.issuedWithMail("a")
	for i := range 3 {
		now := time.Duration(i) * time.Minute
		leased := c.leaseOne(at(now), at(now+time.Minute))
		if leased.UserID != "a" || leased.Attempts != i+1 {
			c.Errorf("Lease %d returned %+v", i+1, leased)
		}
		b := c.sibling(a)
		c.issue(at(now), b, 1, &leased)
		c.wantLive(at(now), a, b)
	}
}

func (c *storeCheck) issueBinds() {
	for _, user := range []string{"a", "b"} {
		c.enqueue(c.publicRequest(user + "@example.com"))
	}
	var bound []reset.Mail
	for i, m := range c.leaseAll(start, at(time.Minute)) {
		user := []string{"a", "b"}[i]
		m.Due = at(time.Minute)
		c.issue(start, c.activationFor(m, user), 1, &m)
		m.UserID = user
		bound = append(bound, m)
	}
	c.wantMails(at(time.Minute), bound...)
	c.revoke("a")
	c.wantMails(at(late), bound[1])
}

func (c *storeCheck) issueRenews() {
	c.enqueue(c.publicRequest("a@example.com"))
	leased := c.leaseOne(start, at(time.Minute))
	leased.Due = at(10 * time.Minute)
	a := c.activationFor(leased, "a")
	c.issue(at(time.Second), a, 1, &leased)
	c.wantLive(start, a)
	c.wantMails(at(10*time.Minute - ms))

	leased.Due = at(20 * time.Minute) // under the same lease, once more
	c.issue(at(2*time.Second), c.sibling(a), 1, &leased)
	c.wantMails(at(20*time.Minute - ms))

	again := c.leaseOne(at(20*time.Minute), at(21*time.Minute))
	if again.Attempts != 2 || again.Lease == leased.Lease || again.UserID != "a" {
		c.Errorf("after a lease that was renewed until %s: got %+v, want the second attempt, of user %q", clock(leased.Due), again, "a")
	}
}

func (c *storeCheck) find() {
	a, b := c.issued("a"), c.issued("b")
	sibling := c.sibling(a)
	c.issue(start, sibling, 1, nil)
	for range 3 { // Find changes nothing
		c.wantLive(start, a, b, sibling)
	}
	unknown := c.activation("a")
	got, err := c.store.Find(c.Context(), start, unknown.Hash)
	c.wantIs("Find of an unknown activation", err, reset.ErrInvalidActivation)
	if got != (reset.Activation{}) {
		c.Errorf("Find of an unknown activation returned %+v", got)
	}
	if _, err = c.store.Find(canceled(c.Context()), start, a.Hash); err != nil && isVerdict(err) {
		c.Errorf("Find under a cancelled context: got %v, which is a verdict", err)
	}
}

func (c *storeCheck) findExpiry() {
	a := c.issued("a")
	c.wantLive(at(lifetime-ms), a)
	c.wantDead(at(lifetime), a)
	c.wantDead(at(lifetime+ms), a)
	c.wantDead(at(1000*lifetime), a)
	c.wantLive(at(-time.Hour), a) // it was not purged
}
