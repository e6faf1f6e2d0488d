package resettest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gopassreset/reset"
)

func budgetSentences() []storeSentence {
	const (
		counts = "Each public request that Issue binds counts for its user's budget, also after it was sent, revoked or redeemed."
		binds  = "Issue binds at most limits.MaxPerHour of them in any hour and limits.MaxPerDay in any 24 hours"
		waits  = "a *LimitError whose RetryAfter is the time until it would bind one"
		joins  = "If the user has too many live requests and limits.Join is set, a joins the live request that expires last: it takes the Request and Expires of that."
		quiet  = "Until quiet, Issue binds no public request to the user."
	)
	return []storeSentence{
		{"Join/the last", joins, (*storeCheck).joinsTheLast},
		{"Join/mail of another request", joins, (*storeCheck).joinsWithMail},
		{"Join/only over the cap", joins, (*storeCheck).joinsOnlyOverTheCap},
		{"Budget/an hour", binds, (*storeCheck).budgetOfAnHour},
		{"Budget/a day", binds, (*storeCheck).budgetOfADay},
		{"Budget/one user's", counts, (*storeCheck).budgetOfOneUser},
		{"Budget/sent, revoked, redeemed", counts, (*storeCheck).budgetOutlives},
		{"Budget/purged", binds, (*storeCheck).budgetWhenPurged},
		{"Budget/RetryAfter", waits, (*storeCheck).budgetRetryAfter},
		{"Budget/changes nothing", "Otherwise it changes nothing", (*storeCheck).budgetChangesNothing},
		{"Budget/mail that is bound", "Mail that is bound to the user already does not count.", (*storeCheck).budgetOfBoundMail},
		{"Budget/clock", "A clock that jumps back revives nothing that was redeemed, revoked or purged.", (*storeCheck).budgetWhenClockJumps},
		{"Quiet/until", quiet, (*storeCheck).quietUntil},
		{"Quiet/the latest", "Of several times the latest counts; the zero time sets none.", (*storeCheck).quietTheLatest},
		{"Quiet/bound mail", "Mail that is bound to the user already does not count.", (*storeCheck).quietBoundMail},
		{"Race/budget", binds, (*storeCheck).raceBudget},
	}
}

// mail binds a public request to a user and sends it.
func (c *storeCheck) mail(now time.Time, user string, limits reset.Limits) (reset.Activation, error) {
	c.Helper()
	m := c.publicRequest(user + "@example.com")
	m.Due, m.Expires = now, now.Add(lifetime)
	c.enqueue(m)
	leased := c.leaseOne(now, now.Add(time.Minute))
	a, err := c.store.Issue(c.Context(), now, c.activationFor(leased, user), limits, &leased)
	c.settle(reset.Settlement{Mail: leased.ID, Lease: leased.Lease})
	return a, err
}

func (c *storeCheck) wantMailed(now time.Time, user string, limits reset.Limits) {
	c.Helper()
	if _, err := c.mail(now, user, limits); err != nil {
		c.Errorf("Issue for a public request of %q at %s: %v", user, clock(now), err)
	}
}

func (c *storeCheck) wantOverBudget(now time.Time, user string, limits reset.Limits, retryAfter time.Duration) {
	c.Helper()
	_, err := c.mail(now, user, limits)
	c.wantLimit(err, retryAfter)
}

func (c *storeCheck) joinsTheLast() {
	var last reset.Activation
	for _, minutes := range []int{20, 40, 30} {
		a := c.activation("a")
		a.Expires = at(time.Duration(minutes) * time.Minute)
		c.issue(start, a, 9, nil)
		if minutes == 40 {
			last = a
		}
	}
	gone := c.issued("a") // would be the last
	c.redeem(start, c.issued("b"), c.notification("b"))
	other := c.issued("b")
	joins := c.activation("a")
	got, err := c.store.Issue(c.Context(), start, joins, reset.Limits{MaxRequests: 4, Join: true}, nil)
	if err != nil || got.Request != gone.Request || !got.Expires.Equal(gone.Expires) || got.Hash != joins.Hash || got.UserID != "a" {
		c.Errorf("Issue over the cap: got %+v, %v, want it to join %+v", got, err, gone)
	}
	c.wantLive(start, got)
	got, err = c.store.Issue(c.Context(), at(lifetime-ms), c.activation("b"), reset.Limits{MaxRequests: 1, Join: true}, nil)
	if err != nil || got.Request != other.Request {
		c.Errorf("Issue over the cap of another user: got %+v, %v, want it to join %+v", got, err, other)
	}

	c.revoke("a")
	for _, a := range []reset.Activation{last, c.activation("a")} {
		a.Hash = c.hash()
		c.issue(start, a, 2, nil)
	}
	short := c.activation("a")
	short.Expires = at(time.Minute)
	got, err = c.store.Issue(c.Context(), start, short, reset.Limits{MaxRequests: 2, Join: true}, nil)
	if err != nil || got.Request == last.Request || got.Request == short.Request || !got.Expires.Equal(at(lifetime)) {
		c.Errorf("Issue over the cap: got %+v, %v, want it to join the request that expires last", got, err)
	}
	c.wantLive(at(lifetime-ms), got) // as long as that
}

func (c *storeCheck) joinsWithMail() {
	first, mail := c.issuedWithMail("a")
	c.settleAll(start)
	limits := reset.Limits{MaxRequests: 1, Join: true}
	m := c.publicRequest("a@example.com")
	c.enqueue(m)
	for i := range 2 { // the second attempt joins again
		now := at(time.Duration(i) * time.Minute)
		leased := c.leaseOne(now, now.Add(time.Minute))
		got, err := c.store.Issue(c.Context(), now, c.activationFor(m, "a"), limits, &leased)
		if err != nil || got.Request != mail.ID {
			c.Errorf("Issue over the cap, attempt %d: got %+v, %v, want it to join %v", i+1, got, err, mail.ID)
		}
		c.wantLive(now, first, got)
	}
	c.redeem(at(time.Minute), first, c.notification("a"))
	if mails := c.leaseAll(at(late), at(lifetime)); len(mails) != 1 || mails[0].Kind != reset.MailNotification {
		c.Errorf("after Redeem %+v are queued, want the notification only", mails)
	}
}

// settleAll removes all mail that is due.
func (c *storeCheck) settleAll(now time.Time) {
	c.Helper()
	for _, m := range c.leaseAll(now, now.Add(time.Minute)) {
		c.settle(reset.Settlement{Mail: m.ID, Lease: m.Lease})
	}
}

func (c *storeCheck) joinsOnlyOverTheCap() {
	c.issued("a")
	limits := reset.Limits{MaxRequests: 2, Join: true}
	second := c.activation("a")
	second.Expires = at(time.Minute)
	got, err := c.store.Issue(c.Context(), start, second, limits, nil)
	if err != nil || !equalActivations(got, second) {
		c.Errorf("Issue under the cap: got %+v, %v, want %+v", got, err, second)
	}
	sibling := c.sibling(second) // of its own request, though another expires last
	got, err = c.store.Issue(c.Context(), start, sibling, limits, nil)
	if err != nil || !equalActivations(got, sibling) {
		c.Errorf("Issue of another activation of a live request: got %+v, %v, want %+v", got, err, sibling)
	}
	c.wantLimit(c.tryIssue(start, c.activation("a"), 1, nil), lifetime)
}

// hourly and daily leave out each other's limit.
var (
	hourly = reset.Limits{MaxRequests: 100, MaxPerHour: 2}
	daily  = reset.Limits{MaxRequests: 100, MaxPerDay: 3}
)

func (c *storeCheck) budgetOfAnHour() {
	c.wantMailed(start, "a", hourly)
	c.wantMailed(at(30*time.Minute), "a", hourly)
	c.wantOverBudget(at(30*time.Minute), "a", hourly, 30*time.Minute)
	c.wantOverBudget(at(time.Hour-ms), "a", hourly, ms)
	c.wantMailed(at(time.Hour), "a", hourly) // the hour is any, not the clock's
	c.wantOverBudget(at(time.Hour), "a", hourly, 30*time.Minute)
	c.wantMailed(at(90*time.Minute), "a", hourly)
	for range 5 {
		c.wantMailed(at(90*time.Minute), "a", reset.Limits{MaxRequests: 100})
	}
}

func (c *storeCheck) budgetOfADay() {
	for i := range 3 {
		c.wantMailed(at(time.Duration(i)*time.Hour), "a", daily)
	}
	c.wantOverBudget(at(3*time.Hour), "a", daily, 21*time.Hour)
	c.wantOverBudget(at(24*time.Hour-ms), "a", daily, ms)
	c.wantMailed(at(24*time.Hour), "a", daily)
	c.wantOverBudget(at(24*time.Hour), "a", daily, time.Hour)
}

func (c *storeCheck) budgetOfOneUser() {
	for _, user := range []string{"a", "A", "a ", "b"} {
		c.wantMailed(start, user, hourly)
		c.wantMailed(start, user, hourly)
	}
	c.wantOverBudget(start, "a", hourly, time.Hour)
	// Nor do trusted requests and notifications count.
	for range 3 {
		c.issuedWithMail("c")
		c.enqueue(c.notification("c"))
	}
	c.settleAll(start)
	c.wantMailed(start, "c", hourly)
	c.wantMailed(start, "c", hourly)
	c.issuedWithMail("c") // which are not refused either
}

func (c *storeCheck) budgetOutlives() {
	a, err := c.mail(start, "a", hourly)
	if err != nil {
		c.Fatalf("Issue: %v", err)
	}
	c.revoke("a")
	c.wantDead(start, a)
	a, err = c.mail(at(time.Minute), "a", hourly)
	if err != nil {
		c.Fatalf("Issue: %v", err)
	}
	c.redeem(at(time.Minute), a, c.notification("a"))
	c.settleAll(at(time.Minute))
	c.wantOverBudget(at(2*time.Minute), "a", hourly, 58*time.Minute)
}

func (c *storeCheck) budgetWhenPurged() {
	for range 3 {
		c.wantMailed(start, "a", daily)
	}
	c.purgeAll(at(24*time.Hour - ms))
	c.wantOverBudget(at(24*time.Hour-ms), "a", daily, ms)
	c.purgeAll(at(25 * time.Hour))
	if n := c.purge(at(48*time.Hour), 100); n != 0 {
		c.Errorf("Purge found %d records that expired earlier", n)
	}
	c.wantMailed(start, "a", daily) // what was purged does not come back
}

func (c *storeCheck) budgetRetryAfter() {
	both := reset.Limits{MaxRequests: 100, MaxPerHour: 2, MaxPerDay: 3}
	for _, minutes := range []int{0, 90, 100} {
		c.wantMailed(at(time.Duration(minutes)*time.Minute), "a", both)
	}
	c.wantOverBudget(at(100*time.Minute), "a", both, 24*time.Hour-100*time.Minute)
	both.MaxPerDay = 4
	c.wantOverBudget(at(100*time.Minute), "a", both, 50*time.Minute)
	both.MaxPerHour = 1
	c.wantOverBudget(at(100*time.Minute), "a", both, time.Hour)
}

func (c *storeCheck) budgetChangesNothing() {
	c.wantMailed(start, "a", hourly)
	c.wantMailed(start, "a", hourly)
	m := c.publicRequest("a@example.com")
	c.enqueue(m)
	leased := c.leaseOne(at(30*time.Minute), at(31*time.Minute))
	renewed := leased
	renewed.Due = at(40 * time.Minute)
	over := c.activationFor(m, "a")
	_, err := c.store.Issue(c.Context(), at(30*time.Minute), over, hourly, &renewed)
	c.wantLimit(err, 30*time.Minute)
	c.wantDead(start, over)
	c.revoke("a") // does not concern what is not bound
	c.wantMails(at(31*time.Minute - ms))
	c.wantMails(at(31*time.Minute), m)
	c.settleAll(at(32 * time.Minute))
	c.wantMailed(at(time.Hour), "a", hourly) // nor does the refused one count
	c.wantMailed(at(time.Hour), "a", hourly)
}

func (c *storeCheck) budgetOfBoundMail() {
	m := c.publicRequest("a@example.com")
	c.enqueue(m)
	attempt := func(now time.Time) error {
		leased := c.leaseOne(now, now.Add(time.Second))
		leased.Due = now.Add(time.Second)
		_, err := c.store.Issue(c.Context(), now, c.activationFor(m, "a"), hourly, &leased)
		return err
	}
	for i := range 4 {
		if err := attempt(at(time.Duration(i) * time.Second)); err != nil {
			c.Errorf("Issue, attempt %d: %v", i+1, err)
		}
	}
	now := at(30 * time.Second)
	other := c.publicRequest("a@example.com")
	other.Due = at(-time.Second)
	c.enqueue(other)
	mails := c.lease(now, at(2*time.Minute), 1)
	if len(mails) != 1 || mails[0].ID != other.ID {
		c.Fatalf("Lease returned %+v, want %v", mails, other.ID)
	}
	if _, err := c.store.Issue(c.Context(), now, c.activationFor(other, "a"), hourly, &mails[0]); err != nil {
		c.Errorf("Issue of the second public request: %v", err)
	}
	if err := attempt(at(40 * time.Second)); err != nil { // over the budget by now
		c.Errorf("Issue of the first one again: %v", err)
	}
	c.settleAll(at(50 * time.Second))
	c.wantOverBudget(at(50*time.Second), "a", hourly, 10*time.Second+59*time.Minute)
}

func (c *storeCheck) budgetWhenClockJumps() {
	c.wantMailed(at(2*time.Hour), "a", hourly)
	c.wantMailed(at(2*time.Hour), "a", hourly)
	if _, err := c.mail(start, "a", hourly); !errors.Is(err, reset.ErrTooManyRequests) {
		c.Errorf("Issue of a third public request by a clock that was set back: %v", err)
	}
}

// revokeUntil revokes and sets until when no public request is mailed.
func (c *storeCheck) revokeUntil(user string, quiet time.Time) {
	c.Helper()
	if err := c.store.Revoke(c.Context(), start, user, quiet); err != nil {
		c.Fatalf("Revoke: %v", err)
	}
}

var anyNumber = reset.Limits{MaxRequests: 100}

func (c *storeCheck) quietUntil() {
	c.revokeUntil("a", at(time.Hour))
	c.wantOverBudget(start, "a", anyNumber, time.Hour)
	c.wantOverBudget(at(time.Hour-ms), "a", anyNumber, ms)
	c.wantMailed(at(time.Minute), "b", anyNumber)
	c.issuedWithMail("a") // trusted
	c.settleAll(at(2 * time.Minute))
	c.purgeAll(at(time.Hour - ms))
	c.wantOverBudget(at(time.Hour-ms), "a", anyNumber, ms)
	c.redeem(at(2*time.Minute), c.issued("a"), c.notification("a"))
	c.settleAll(at(2 * time.Minute))
	c.wantOverBudget(at(time.Hour-ms), "a", anyNumber, ms)
	c.wantMailed(at(time.Hour), "a", anyNumber)
}

func (c *storeCheck) quietTheLatest() {
	c.revokeUntil("a", at(10*time.Minute))
	c.revokeUntil("a", at(20*time.Minute))
	c.revokeUntil("a", at(15*time.Minute))
	c.revoke("a")
	c.wantOverBudget(at(15*time.Minute), "a", anyNumber, 5*time.Minute)
	c.wantMailed(at(20*time.Minute), "a", anyNumber)
	c.revokeUntil("a", at(30*time.Minute))
	c.wantOverBudget(at(20*time.Minute), "a", anyNumber, 10*time.Minute)
	c.revoke("b")
	c.wantMailed(at(20*time.Minute), "b", anyNumber)
	c.revokeUntil("", at(30*time.Minute)) // nobody
	c.wantMailed(at(20*time.Minute), "b", anyNumber)
}

// What a trusted caller requests during that time is sent as always.
func (c *storeCheck) quietBoundMail() {
	c.revokeUntil("a", at(lifetime))
	a, _ := c.issuedWithMail("a")
	leased := c.leaseOne(start, at(time.Minute))
	if _, err := c.store.Issue(c.Context(), start, c.sibling(a), hourly, &leased); err != nil {
		c.Errorf("Issue of the mail of a trusted request: %v", err)
	}
}

func (c *storeCheck) raceBudget() {
	const n = 20
	for i := range n {
		c.enqueue(c.publicRequest(fmt.Sprintf("a+%d@example.com", i)))
	}
	leased := c.leaseAll(start, at(time.Minute))
	activations := make([]reset.Activation, len(leased))
	for i, m := range leased {
		activations[i] = c.activationFor(m, "a")
	}
	var mailed atomic.Int32
	parallel(len(leased), func(i int) {
		m := leased[i]
		m.Due = at(10 * time.Minute)
		if _, err := c.store.Issue(c.Context(), start, activations[i], hourly, &m); err == nil {
			mailed.Add(1)
		} else {
			c.wantLimit(err, time.Hour)
		}
	})
	if got := mailed.Load(); int(got) != hourly.MaxPerHour {
		c.Errorf("%d public requests of one user were mailed, want %d", got, hourly.MaxPerHour)
	}
}
