package resettest

import (
	"fmt"
	"slices"
	"time"

	"github.com/gopassreset/reset"
)

func mailSentences() []storeSentence {
	const (
		leases = "Lease returns at most n mails (none if n is 0) with Due <= now < Expires, the lowest Class first, within it the earliest Due, and none that another call holds."
		stored = "Each is returned as it is now stored: with Due = until, a fresh Lease and Attempts one higher. WasDue is its Due before."
		ends   = "Settle ends leases: it removes each mail whose Retry is zero and frees each other one, to be due at Retry in the given Class."
		spends = "If the attempt is Unspent, Attempts becomes one lower again."
		renews = "If the mail is still Held, its lease does not end but is renewed until Retry, and its Class stays."
		alone  = "A mail that is gone or held under another lease is left alone; that is no error."
		purges = "Purge removes at most n records (n is at most 1,000) that expired at or before now."
	)
	return []storeSentence{
		{"Enqueue/a row of its own", "Enqueue adds m, always as a row of its own, whatever else is queued for the same address.", (*storeCheck).enqueueAdds},
		{"Enqueue/as it is", "It stores records and decides races; it merges nothing, looks up no user and applies no policy.", (*storeCheck).enqueueKeeps},
		{"Lease/at most n", leases, (*storeCheck).leaseAtMost},
		{"Lease/due", leases, (*storeCheck).leaseDue},
		{"Lease/order", leases, (*storeCheck).leaseOrder},
		{"Lease/class", leases, (*storeCheck).leaseClass},
		{"Lease/none twice", leases, (*storeCheck).leaseNoneTwice},
		{"Lease/as stored", stored, (*storeCheck).leaseAsStored},
		{"Lease/every kind", leases, (*storeCheck).leaseEveryKind},
		{"Settle/removes", ends, (*storeCheck).settleRemoves},
		{"Settle/frees", ends, (*storeCheck).settleFrees},
		{"Settle/class", ends, (*storeCheck).settleClass},
		{"Settle/unspent", spends, (*storeCheck).settleUnspent},
		{"Settle/renews", renews, (*storeCheck).settleRenews},
		{"Settle/gone", alone, (*storeCheck).settleGone},
		{"Settle/another lease", alone, (*storeCheck).settleAnotherLease},
		{"Settle/many", ends, (*storeCheck).settleMany},
		{"Purge/the expired", purges, (*storeCheck).purgeExpired},
		{"Purge/at most n", "A result below n means nothing expired remains", (*storeCheck).purgeAtMost},
		{"Purge/unsent", "It returns how many it removed, and how many of them were mails, which were never sent.", (*storeCheck).purgeUnsent},
		{"Purge/boundary", purges, (*storeCheck).purgeBoundary},
		{"Purge/the cap", purges, (*storeCheck).purgeKeepsCap},
	}
}

func (c *storeCheck) enqueueAdds() {
	var want []reset.Mail
	add := func() {
		m := c.publicRequest("a@example.com")
		c.enqueue(m)
		want = append(want, m)
	}
	add()
	add()
	c.lease(start, at(time.Minute), 1) // one of them is leased
	add()
	c.wantMails(at(time.Minute), want...)
}

func (c *storeCheck) enqueueKeeps() {
	bound, notification := c.publicRequest("not canonical, not even an address"), c.notification("nobody")
	bound.UserID, bound.Name = "nobody", "Nobody"
	old, empty := c.publicRequest("Ä@EXAMPLE.com"), reset.Mail{ID: c.id(), Kind: reset.MailReset, Due: start, Expires: at(lifetime)}
	old.Due = at(-10000 * time.Hour)
	notification.Expires = at(100000 * time.Hour)
	c.enqueue(bound, notification, old, empty)
	c.wantMails(start, bound, notification, old, empty)
	c.wantMails(at(100000*time.Hour-ms), notification)
}

func (c *storeCheck) leaseAtMost() {
	for range 7 {
		c.enqueue(c.publicRequest("a@example.com"))
	}
	for i, want := range []int{0, 3, 1, 3, 0} {
		n := []int{0, 3, 1, 100, 100}[i]
		if got := len(c.lease(start, at(time.Minute), n)); got != want {
			c.Errorf("Lease %d of at most %d returned %d mails, want %d", i+1, n, got, want)
		}
	}
}

func (c *storeCheck) leaseDue() {
	m := c.publicRequest("a@example.com")
	m.Due, m.Expires = at(10*time.Minute), at(20*time.Minute)
	c.enqueue(m)
	c.wantMails(at(0))
	c.wantMails(at(10*time.Minute - ms))
	c.wantMails(at(20 * time.Minute))
	c.wantMails(at(20*time.Minute + ms))
	c.wantMails(at(200 * time.Hour))
	c.wantMails(at(10*time.Minute), m)
	c.wantMails(at(20*time.Minute-ms), m)

	never := c.publicRequest("never@example.com")
	never.Due, never.Expires = at(10*time.Minute), at(10*time.Minute)
	c.enqueue(never)
	c.wantMails(at(10 * time.Minute))
}

func (c *storeCheck) leaseOrder() {
	const n = 9
	for i := range n {
		m := c.publicRequest("a@example.com")
		m.Due = at(time.Duration(i*4%n) * time.Second) // not in the order of arrival
		m.Expires = at(lifetime - time.Duration(i*7%n)*time.Second)
		c.enqueue(m)
	}
	// Lease returns the new Due, so the order is recorded here.
	byID := make(map[reset.ID]int)
	for _, m := range c.lease(at(time.Minute), at(2*time.Minute), n) {
		byID[m.ID] = len(byID)
		c.settle(reset.Settlement{Mail: m.ID, Lease: m.Lease, Retry: at(10*time.Minute - time.Duration(byID[m.ID])*time.Second)})
	}
	// The last one is due first now: the order is the reverse.
	place := n
	for _, size := range []int{2, 3, 1, 100} {
		for _, m := range c.lease(at(10*time.Minute), at(11*time.Minute), size) {
			place--
			if byID[m.ID] != place {
				c.Errorf("Lease returned a mail in place %d, want in place %d", n-1-byID[m.ID], n-1-place)
			}
		}
	}
	if place != 0 {
		c.Errorf("Lease returned %d mails, want %d", n-place, n)
	}
}

// Due times are in the opposite order, and one mail of the lowest class is not
// due yet.
func (c *storeCheck) leaseClass() {
	classes := []int{32_767, 300, 7, 1, 0}
	for i, class := range classes {
		m := c.publicRequest("a@example.com")
		m.Class, m.Due = class, at(time.Duration(i)*time.Second)
		c.enqueue(m)
	}
	later := c.publicRequest("later@example.com")
	later.Due = at(2 * time.Minute)
	c.enqueue(later)
	var got []int
	for _, size := range []int{1, 3, 10} {
		for _, m := range c.lease(at(time.Minute), at(10*time.Minute), size) {
			got = append(got, m.Class)
		}
	}
	slices.Reverse(classes)
	if size := 1; len(got) > size {
		slices.Sort(got[size:min(4, len(got))]) // one Lease may return its mails in any order
	}
	if !slices.Equal(got, classes) {
		c.Errorf("Lease returned the classes %v, want %v", got, classes)
	}
}

func (c *storeCheck) settleClass() {
	low, high := c.publicRequest("low@example.com"), c.publicRequest("high@example.com")
	low.Class, high.Class = 1, 2
	c.enqueue(low, high)
	for _, m := range c.leaseAll(start, at(time.Minute)) {
		c.settle(reset.Settlement{Mail: m.ID, Lease: m.Lease, Retry: at(5 * time.Minute), Class: 9, Held: true})
		next := reset.Settlement{Mail: m.ID, Lease: m.Lease, Retry: at(time.Second), Class: m.Class}
		if m.ID == low.ID { // is due earlier, but goes later
			next.Retry, next.Class, low.Class = start, 3, 3
		}
		c.settle(next)
	}
	for _, want := range []reset.Mail{high, low} {
		if got := c.lease(at(time.Second), at(time.Minute), 1); len(got) != 1 || !equalFacts(got[0], want) {
			c.Errorf("Lease returned %+v, want %+v", got, want)
		}
	}
}

func (c *storeCheck) leaseNoneTwice() {
	first, second := c.publicRequest("a@example.com"), c.publicRequest("a@example.com")
	second.Due = at(time.Second)
	c.enqueue(first, second)
	if got := c.leaseOne(start, at(time.Minute)); got.ID != first.ID {
		c.Errorf("leased %v first, want %v", got.ID, first.ID)
	}
	if got := c.leaseOne(at(time.Second), at(time.Minute)); got.ID != second.ID {
		c.Errorf("leased %v next, want %v", got.ID, second.ID)
	}
	c.wantMails(at(time.Second))
	c.wantMails(at(time.Minute - ms))
	c.wantMails(at(time.Minute), first, second)
	c.wantMails(at(2*time.Minute - ms))
	c.wantMails(at(2*time.Minute), first, second)
}

func (c *storeCheck) leaseAsStored() {
	m := c.publicRequest("a@example.com")
	c.enqueue(m)
	leases := map[reset.ID]bool{{}: true}
	wasDue := m.Due
	for i := range 4 {
		now, until := at(time.Duration(i)*time.Minute), at(time.Duration(i+1)*time.Minute)
		got := c.leaseOne(now, until)
		if !equalFacts(got, m) {
			c.Errorf("Lease %d returned %+v, want the facts of %+v", i+1, got, m)
		}
		if !got.Due.Equal(until) || got.Attempts != i+1 {
			c.Errorf("Lease %d returned attempt %d until %s, want %d until %s", i+1, got.Attempts, clock(got.Due), i+1, clock(until))
		}
		if !got.WasDue.Equal(wasDue) {
			c.Errorf("Lease %d returned WasDue %s, want %s", i+1, clock(got.WasDue), clock(wasDue))
		}
		wasDue = until
		if leases[got.Lease] {
			c.Errorf("Lease %d returned the lease %v, which is not fresh", i+1, got.Lease)
		}
		leases[got.Lease] = true
		if i == 1 { // attempts are kept when the mail is freed
			c.settle(reset.Settlement{Mail: got.ID, Lease: got.Lease, Retry: until})
		}
	}
}

func (c *storeCheck) leaseEveryKind() {
	_, bound := c.issuedWithMail("a")
	public, notification := c.publicRequest("a@example.com"), c.notification("a")
	c.enqueue(public, notification)
	c.wantMails(start, bound, public, notification)
}

func (c *storeCheck) settleRemoves() {
	gone, kept := c.publicRequest("gone@example.com"), c.publicRequest("kept@example.com")
	c.enqueue(gone)
	leased := c.leaseOne(start, at(time.Minute))
	c.enqueue(kept)
	c.settle(reset.Settlement{Mail: leased.ID, Lease: leased.Lease})
	c.wantMails(at(late), kept)

	bound, _ := c.issuedWithMail("a") // the activation stays
	leased = c.leaseOne(start, at(time.Minute))
	c.settle(reset.Settlement{Mail: leased.ID, Lease: leased.Lease})
	c.wantLive(start, bound)

	overdue := c.publicRequest("overdue@example.com") // the lease is over, but no other call holds it
	c.enqueue(overdue)
	leased = c.leaseOne(start, at(time.Second))
	c.settle(reset.Settlement{Mail: leased.ID, Lease: leased.Lease})
	c.wantMails(at(time.Minute))
}

func (c *storeCheck) settleFrees() {
	a, m := c.issuedWithMail("a")
	leased := c.leaseOne(start, at(20*time.Minute))
	c.settle(reset.Settlement{Mail: leased.ID, Lease: leased.Lease, Retry: at(10 * time.Minute)})
	c.wantLive(start, a)
	c.wantMails(at(10*time.Minute - ms))
	got := c.leaseOne(at(10*time.Minute), at(11*time.Minute))
	if !equalFacts(got, m) || got.Attempts != 2 || got.Lease == leased.Lease {
		c.Errorf("Lease returned %+v, want %+v in its second attempt", got, m)
	}
	// Later than the lease, and at once.
	c.settle(reset.Settlement{Mail: got.ID, Lease: got.Lease, Retry: at(30 * time.Minute)})
	c.wantMails(at(30*time.Minute - ms))
	got = c.leaseOne(at(30*time.Minute), at(40*time.Minute))
	c.settle(reset.Settlement{Mail: got.ID, Lease: got.Lease, Retry: start})
	c.wantMails(start, m)
}

// settleUnspent gives a mail back as it was.
func (c *storeCheck) settleUnspent() {
	m, spent := c.publicRequest("a@example.com"), c.publicRequest("b@example.com")
	c.enqueue(m, spent)
	for _, l := range c.leaseAll(start, at(time.Minute)) {
		c.settle(reset.Settlement{Mail: l.ID, Lease: l.Lease, Retry: l.WasDue, Unspent: l.ID == m.ID})
	}
	again := c.leaseAll(start, at(time.Minute))
	if len(again) != 2 {
		c.Errorf("Lease returned %d mails, want 2", len(again))
	}
	for _, got := range again {
		want := 2
		if got.ID == m.ID {
			want = 1
		}
		if got.Attempts != want || !got.WasDue.Equal(start) {
			c.Errorf("Lease returned attempt %d, due %s, want %d, due %s", got.Attempts, clock(got.WasDue), want, clock(start))
		}
	}
}

func (c *storeCheck) settleRenews() {
	m := c.publicRequest("a@example.com")
	c.enqueue(m)
	held := c.leaseOne(start, at(time.Minute))
	renewal := reset.Settlement{Mail: m.ID, Lease: held.Lease, Retry: at(5 * time.Minute), Held: true}
	c.settle(renewal)
	c.settle(reset.Settlement{Mail: m.ID, Lease: c.id(), Retry: start, Held: true}) // another lease
	c.wantMails(at(5*time.Minute - ms))
	c.settle(reset.Settlement{Mail: m.ID, Lease: held.Lease, Retry: at(10 * time.Minute)}) // it is the same lease
	c.settle(renewal)                                                                      // which has ended
	c.wantMails(at(10*time.Minute - ms))
	if got := c.leaseOne(at(10*time.Minute), at(11*time.Minute)); got.Attempts != 2 {
		c.Errorf("Lease returned attempt %d, want 2", got.Attempts)
	}
	c.settle(renewal) // lost
	c.wantMails(at(11*time.Minute), m)
}

func (c *storeCheck) settleGone() {
	c.settle()
	c.settle(reset.Settlement{Mail: c.id(), Lease: c.id()}, reset.Settlement{Mail: c.id(), Lease: c.id(), Retry: start})
	m := c.publicRequest("a@example.com")
	c.enqueue(m)
	leased := c.leaseOne(start, at(time.Minute))
	c.settle(
		reset.Settlement{Mail: c.id(), Lease: c.id(), Retry: start},
		reset.Settlement{Mail: leased.ID, Lease: leased.Lease}, // is settled nevertheless
		reset.Settlement{Mail: c.id(), Lease: leased.Lease},
	)
	c.settle(reset.Settlement{Mail: leased.ID, Lease: leased.Lease, Retry: at(time.Minute)})
	c.wantMails(at(late))
}

func (c *storeCheck) settleAnotherLease() {
	m := c.publicRequest("a@example.com")
	c.enqueue(m)
	first := c.leaseOne(start, at(time.Minute))
	stale := []reset.Settlement{
		{Mail: first.ID, Lease: first.Lease},
		{Mail: first.ID, Lease: first.Lease, Retry: start},
		{Mail: first.ID, Lease: c.id()},
		{Mail: first.ID, Lease: c.id(), Retry: start},
	}
	second := c.leaseOne(at(time.Minute), at(3*time.Minute))
	for _, s := range stale {
		c.settle(s)
	}
	c.wantMails(at(3*time.Minute - ms))
	c.settle(reset.Settlement{Mail: m.ID, Lease: second.Lease, Retry: at(2 * time.Minute)})
	for _, s := range stale { // nor is a mail that is not leased
		c.settle(s)
	}
	c.settle(reset.Settlement{Mail: m.ID, Lease: second.Lease})
	c.wantMails(at(2*time.Minute - ms))
	c.wantMails(at(2*time.Minute), m)
}

func (c *storeCheck) settleMany() {
	const n = 50
	for i := range n {
		c.enqueue(c.publicRequest(fmt.Sprintf("a%d@example.com", i)))
	}
	var done []reset.Settlement
	var left []reset.Mail
	for i, m := range c.leaseAll(start, at(time.Minute)) {
		switch i % 3 {
		case 0:
			done = append(done, reset.Settlement{Mail: m.ID, Lease: m.Lease})
		case 1:
			done = append(done, reset.Settlement{Mail: m.ID, Lease: m.Lease, Retry: at(time.Duration(i) * time.Second)})
			left = append(left, m)
		case 2: // stays leased
			left = append(left, m)
		}
	}
	c.settle(done...)
	c.wantMails(start)
	c.wantMails(at(time.Minute), left...)
}

func (c *storeCheck) purgeExpired() {
	var dead, live []reset.Activation
	var kept []reset.Mail
	for i := range 6 {
		a := c.activation(fmt.Sprint("user ", i%3)) // each user has both
		a.Expires = at(time.Duration(1+i%2) * 10 * time.Minute)
		m := c.mailFor(a)
		m.Due = at(time.Duration(i) * time.Second)
		c.issue(start, a, 9, m)
		if i%2 == 0 {
			dead = append(dead, a)
		} else {
			live = append(live, a)
			kept = append(kept, *m)
		}
	}
	notification := c.notification("a")
	c.enqueue(notification)
	c.lease(start, at(time.Minute), 1) // a leased one expires like others
	c.purgeAll(at(10 * time.Minute))
	c.wantDead(start, dead...)
	c.wantLive(start, live...)
	if c.purge(at(10*time.Minute), 100) != 0 {
		c.Errorf("Purge removed records though none were left")
	}
	c.wantMails(at(10*time.Minute-ms), append(kept, notification)...)
}

func (c *storeCheck) purgeAtMost() {
	// Public requests first: every store keeps exactly one record of each.
	for range 5 {
		c.enqueue(c.publicRequest("a@example.com"))
	}
	for i, want := range []int{2, 2, 1, 0} {
		if got := c.purge(at(lifetime), 2); got != want {
			c.Errorf("Purge %d of at most 2 of 5 mails returned %d, want %d", i+1, got, want)
		}
	}
	c.wantMails(start)

	var activations []reset.Activation
	for i := range 7 {
		activations = append(activations, c.issued(fmt.Sprint("user ", i%2)))
	}
	left := len(activations)
	for last := 3; last == 3; {
		last = c.purge(at(lifetime), 3)
		now := c.count(start, activations)
		if left-now > last {
			c.Errorf("Purge returned %d and removed %d", last, left-now)
		}
		left = now
	}
	if left != 0 {
		c.Errorf("%d expired activations are left after a Purge that removed fewer than it was allowed", left)
	}
}

func (c *storeCheck) purgeBoundary() {
	a, m := c.issuedWithMail("a")
	if got := c.purge(at(lifetime-ms), 100); got != 0 {
		c.Errorf("Purge removed %d records a millisecond too early", got)
	}
	c.wantLive(at(lifetime-ms), a)
	c.wantMails(at(lifetime-ms-time.Minute), m)
	if got := c.purge(at(lifetime), 100); got < 2 {
		c.Errorf("Purge removed %d records that expire now, want the activation and the mail", got)
	}
	c.wantDead(start, a)
	c.wantMails(at(lifetime - ms))
}

func (c *storeCheck) purgeKeepsCap() {
	for range 3 {
		c.issued("a")
	}
	short := c.activation("a")
	short.Expires = at(time.Minute)
	c.issue(start, short, 4, nil)
	c.purgeAll(at(time.Minute))
	c.wantLimit(c.tryIssue(at(time.Minute), c.activation("a"), 3, nil), lifetime-time.Minute)
	c.issue(at(time.Minute), c.activation("a"), 4, nil)
}

func (c *storeCheck) purgeUnsent() {
	c.issuedWithMail("a")
	c.issued("b")
	c.enqueue(c.publicRequest("a@example.com"), c.publicRequest("b@example.com"))
	c.wantMailed(at(-time.Hour), "c", anyNumber) // is none
	sent := c.lease(start, at(time.Minute), 1)
	c.settle(reset.Settlement{Mail: sent[0].ID, Lease: sent[0].Lease})
	unsent := 0
	for removed := 2; removed == 2; {
		var some int
		var err error
		removed, some, err = c.store.Purge(c.Context(), at(lifetime), 2)
		if err != nil {
			c.Fatalf("Purge: %v", err)
		}
		unsent += some
	}
	if unsent != 2 {
		c.Errorf("Purge removed %d unsent mails, want 2", unsent)
	}
}
