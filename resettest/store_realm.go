package resettest

import (
	"errors"
	"strings"
	"time"

	"github.com/gopassreset/reset"
)

// realmSentences are the promises of reset.RealmStore.
func realmSentences(elsewhere bool) []storeSentence {
	const none = "No method of a view returns, counts, changes or leases a record of another realm"
	sentences := []storeSentence{
		{"Realm/activations", none, (*storeCheck).realmsOfActivations},
		{"Realm/cap", none, (*storeCheck).realmsOfCaps},
		{"Realm/mails", none, (*storeCheck).realmsOfMails},
		{"Realm/leases", none, (*storeCheck).realmsOfLeases},
		{"Realm/budgets", none, (*storeCheck).realmsOfBudgets},
		{"Realm/Revoke", none, (*storeCheck).realmsOfRevoke},
		{"Realm/Redeem", none, (*storeCheck).realmsOfRedeem},
		{"Realm/Stats", none, (*storeCheck).realmsOfStats},
		{"Realm/History", none, (*storeCheck).realmsOfHistory},
		{"Realm/Purge", "except that Purge removes the expired records of all realms", (*storeCheck).realmsOfPurge},
		{"Realm/views", "Views with the same name share their records; the store itself is the view with the name \"\".", (*storeCheck).realmsOfViews},
		{"Realm/names", "Names compare as bytes and have at most 64 of them.", (*storeCheck).realmNames},
		{"Realm/SetBaseURL", "SetBaseURL records the BaseURL of a Service that uses the realm, and returns the one recorded before, or \"\" if there is none.", (*storeCheck).baseURLs},
	}
	if elsewhere { // in the other mode no call may come from apply
		sentences = append(sentences, storeSentence{"Realm/claims", none, (*storeCheck).realmsOfClaims})
	}
	return sentences
}

// in returns the check of a view for a realm. For a store that has none it skips
// the check: it promises nothing.
func (c *storeCheck) in(realm string) *storeCheck {
	c.Helper()
	store, ok := c.store.(reset.RealmStore)
	if !ok {
		c.Skip("the store is no RealmStore")
	}
	view := store.Realm(realm)
	if view == nil {
		c.Skip("the store is no RealmStore")
	}
	return &storeCheck{TB: c.TB, store: view, elsewhere: c.elsewhere, whole: c}
}

// others returns the realms beside "a".
func (c *storeCheck) others() []*storeCheck {
	c.Helper()
	return []*storeCheck{c, c.in("b")}
}

func (c *storeCheck) realmsOfActivations() {
	in := c.in("a")
	a := in.issued("user")
	in.wantLive(start, a)
	for _, other := range c.others() {
		other.wantDead(start, a)
		other.wantRefused(start, a)
	}
	in.redeem(start, a, in.notification("user"))
}

func (c *storeCheck) realmsOfCaps() {
	a := c.in("a").issued("user")
	for _, other := range c.others() {
		b := other.activation("user")
		other.issue(start, b, 1, nil)
		other.wantLimit(other.tryIssue(start, other.activation("user"), 1, nil), lifetime)
		got, err := other.store.Issue(c.Context(), start, other.activation("user"), reset.Limits{MaxRequests: 1, Join: true}, nil)
		if err != nil || got.Request != b.Request {
			c.Errorf("Issue over the cap: got %+v, %v, want it to join %v and not %v of another realm", got, err, b.Request, a.Request)
		}
		// A request of another realm is none to join.
		other.wantLimit(other.tryIssue(start, other.sibling(a), 1, nil), lifetime)
	}
}

func (c *storeCheck) realmsOfMails() {
	in := c.in("a")
	m, notification := in.publicRequest("user@example.com"), in.notification("user")
	in.enqueue(m, notification)
	for _, other := range c.others() {
		other.wantMails(start)
	}
	in.wantMails(start, m, notification)
}

func (c *storeCheck) realmsOfLeases() {
	in := c.in("a")
	m := in.publicRequest("user@example.com")
	in.enqueue(m)
	leased := in.leaseOne(start, at(time.Minute))
	for _, other := range c.others() {
		renewed := leased
		renewed.Due = at(10 * time.Minute)
		a := other.activationFor(m, "user")
		c.wantIs("Issue of a mail of another realm", other.issueMail(start, a, renewed), reset.ErrGone)
		other.wantDead(start, a)
		in.wantDead(start, a)
		other.settle(reset.Settlement{Mail: leased.ID, Lease: leased.Lease})
		other.settle(reset.Settlement{Mail: leased.ID, Lease: leased.Lease, Retry: start})
		other.settle(
			reset.Settlement{Mail: leased.ID, Lease: leased.Lease, Retry: at(10 * time.Minute), Held: true},
			reset.Settlement{Mail: other.id(), Lease: other.id()})
	}
	in.wantMails(at(time.Minute - ms))
	in.wantMails(at(time.Minute), m)
}

func (c *storeCheck) issueMail(now time.Time, a reset.Activation, m reset.Mail) error {
	_, err := c.store.Issue(c.Context(), now, a, reset.Limits{MaxRequests: 100}, &m)
	return err
}

func (c *storeCheck) realmsOfBudgets() {
	in := c.in("a")
	in.wantMailed(start, "user", hourly)
	in.wantMailed(start, "user", hourly)
	in.wantOverBudget(start, "user", hourly, time.Hour)
	in.revokeUntil("quiet", at(time.Hour))
	for _, other := range c.others() {
		other.wantMailed(start, "user", hourly)
		other.wantMailed(start, "user", hourly)
		other.wantMailed(start, "quiet", hourly)
	}
}

func (c *storeCheck) realmsOfRevoke() {
	in := c.in("a")
	a, m := in.issuedWithMail("user")
	for _, other := range c.others() {
		other.issuedWithMail("user")
		other.revoke("user")
		other.wantMails(start)
	}
	in.wantLive(start, a)
	in.wantMails(start, m)
}

func (c *storeCheck) realmsOfRedeem() {
	in := c.in("a")
	a, m := in.issuedWithMail("user")
	for _, other := range c.others() {
		b, _ := other.issuedWithMail("user")
		notification := other.notification("user")
		other.redeem(start, b, notification)
		other.wantDead(start, b)
		other.wantMails(start, notification)
	}
	in.wantLive(start, a)
	in.wantMails(start, m)
}

func (c *storeCheck) realmsOfClaims() {
	in := c.in("a")
	err := in.inApply(start, in.issued("user"), in.notification("user"), func() error {
		for _, other := range c.others() {
			b := other.issued("user")
			other.redeem(start, b, other.notification("user"))
			other.wantDead(start, b)
		}
		return nil
	})
	if err != nil {
		c.Errorf("Redeem: %v", err)
	}
}

func (c *storeCheck) realmsOfStats() {
	in := c.in("a")
	in.issuedWithMail("user")
	in.enqueue(in.publicRequest("user@example.com"))
	in.stats(start)
	if err := in.store.(reset.StatsStore).Beat(c.Context(), start, true); err != nil {
		c.Errorf("Beat: %v", err)
	}
	for _, other := range c.others() {
		other.wantStats(start, reset.Stats{})
	}
}

func (c *storeCheck) realmsOfPurge() {
	in := c.in("a")
	in.wantMailed(start, "user", hourly)
	a, _ := in.issuedWithMail("user")
	b := c.issued("user")
	c.in("b").purgeAll(at(lifetime - ms))
	in.wantLive(start, a)
	c.wantLive(start, b)
	c.in("b").purgeAll(at(lifetime))
	in.wantDead(start, a)
	c.wantDead(start, b)
	in.wantMails(at(late))
	if n := in.purge(at(lifetime), 100); n != 0 {
		c.Errorf("Purge found %d records that another view has purged", n)
	}
}

func (c *storeCheck) realmsOfViews() {
	a := c.in("a").issued("user")
	c.in("a").wantLive(start, a)
	c.in("b").in("a").wantLive(start, a)
	whole := c.issued("user")
	c.in("").wantLive(start, whole)
	c.in("a").in("").wantLive(start, whole)
	c.in("a").wantDead(start, whole)
	if _, ok := c.in("a").store.(reset.RealmStore); !ok {
		c.Errorf("the view is no RealmStore")
	}
}

func (c *storeCheck) realmsOfHistory() {
	in := c.in("a")
	in.keepHistory()
	m, e := in.attemptPublic(start, "user")
	waits := in.notification("user")
	waits.Due = at(late)
	in.enqueue(waits)
	for _, other := range c.others() {
		other.keepHistory()
		other.wantHistory(start, "user")
		other.settle(withNote(remove(m), "user", reset.Note{ID: other.id(), At: start, Outcome: reset.OutcomeExpired, Kind: reset.HistoryPublic}))
		other.revoke("user")
		if err := other.historyStore().EraseHistory(c.Context(), "user"); err != nil {
			c.Fatalf("EraseHistory: %v", err)
		}
	}
	in.settle(remove(m))
	of := reset.HistoryEntry{ID: waits.ID, Kind: reset.HistoryNotification, Queued: true, Due: waits.Due}
	in.wantHistory(start, "user", of, sent(e, start))
	c.purgeAll(at(notificationLifetime))
	of.Queued, of.Due, of.Outcome, of.OutcomeAt = false, time.Time{}, reset.OutcomeExpired, waits.Expires
	in.wantHistory(start, "user", of, sent(e, start))
}

func (c *storeCheck) realmNames() {
	names := []string{"a", "A", "a ", " a", "á", "a\x00", "\xff", "%", "'", strings.Repeat("x", 64), strings.Repeat("x", 63)}
	var issued []reset.Activation
	for _, name := range names {
		issued = append(issued, c.in(name).issued("user"))
	}
	for i, name := range names {
		in := c.in(name)
		for j, a := range issued {
			if got := in.isLive(start, a); got != (i == j) {
				c.Errorf("an activation of the realm %q is live in %q: %t", names[j], name, got)
			}
		}
	}
	long := c.in(strings.Repeat("x", 65))
	if _, err := long.store.Issue(c.Context(), start, long.activation("user"), reset.Limits{MaxRequests: 1}, nil); err == nil {
		c.Errorf("Issue in a realm whose name has 65 bytes succeeded")
	}
	if err := long.store.Enqueue(c.Context(), long.publicRequest("user@example.com")); err == nil {
		c.Errorf("Enqueue in a realm whose name has 65 bytes succeeded")
	}
}

func (c *storeCheck) baseURLs() {
	c.in("a").wantBaseURL("https://a.example.com", "")
	c.in("a").wantBaseURL("https://a.example.com", "https://a.example.com")
	c.in("b").wantBaseURL("https://b.example.com", "")
	c.in("").wantBaseURL("https://example.com", "")
	c.in("a").wantBaseURL("https://b.example.com", "https://a.example.com")
	c.in("a").wantBaseURL("https://a.example.com", "https://b.example.com")
}

func (c *storeCheck) wantBaseURL(set, want string) {
	c.Helper()
	got, err := c.store.(reset.RealmStore).SetBaseURL(c.Context(), set)
	if errors.Is(err, errors.ErrUnsupported) {
		c.Skip("the store is no RealmStore")
	}
	if err != nil || got != want {
		c.Errorf("SetBaseURL(%q) = %q, %v, want %q", set, got, err, want)
	}
}
