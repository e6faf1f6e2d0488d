package resettest

import (
	"errors"
	"slices"
	"time"

	"github.com/gopassreset/reset"
)

// historySentences are the promises of reset.HistoryStore.
func historySentences() []storeSentence {
	const (
		one   = "A request has one once Issue has issued an activation for it, and a mail while it is queued and bound to the user."
		notes = "A Note is recorded with its Settlement, also if the mail is gone, but not if it is held under another lease."
	)
	return []storeSentence{
		{"KeepHistory", "As long as it is 0, as before the first call, none are made and History returns none.", (*storeCheck).historyIsOff},
		{"History/order", "History returns the entries of a user, at most n, the latest ID first.", (*storeCheck).historyInOrder},
		{"History/requests", one, (*storeCheck).historyOfRequests},
		{"History/public requests", "Neither has one while it is bound to nobody.", (*storeCheck).historyOfNobody},
		{"History/queue", "A mail that is queued is Queued, with its Due and Attempts, and Leased since its lease began.", (*storeCheck).historyOfQueue},
		{"History/sent", "A mail that was removed after an Issue under its lease was sent then, unless a Note on that attempt says otherwise.", (*storeCheck).historyOfSent},
		{"History/withdrawn", "One that Redeem or Revoke has removed while it was not leased, or before such an Issue, is withdrawn.", (*storeCheck).historyOfWithdrawn},
		{"History/expired", "One that Purge has removed has expired.", (*storeCheck).historyOfExpired},
		{"History/Redeem", "Redeem ends the user's requests that have not expired: a.Request, and what has joined it, is redeemed, any other superseded.", (*storeCheck).historyOfRedeem},
		{"History/Revoke", "Revoke makes them revoked. An end is final.", (*storeCheck).historyOfRevoke},
		{"History/notes", notes, (*storeCheck).historyOfNotes},
		{"History/notes of others", "It is about the mail's own entry, unless it has an ID, and begins one where there is none.", (*storeCheck).historyOfOthers},
		{"History/attempts", "With a Refusal or an Outcome, or without Requests, the latest attempt has ended.", (*storeCheck).historyOfAttempts},
		{"History/kept", "An entry is kept from when it was made, whatever is recorded later. Then History does not return it, and Purge removes it.", (*storeCheck).historyIsKept},
		{"EraseHistory", "EraseHistory removes the entries of a user, and with them what counts for the budget of Issue. A mail that is queued stays, and has an entry again.", (*storeCheck).erasesHistory},
	}
}

const historyLifetime = 48 * time.Hour

// keepHistory turns the history of a HistoryStore on. For another store it skips
// the check: it promises none.
func (c *storeCheck) keepHistory() {
	c.Helper()
	c.historyStore().KeepHistory(historyLifetime)
}

func (c *storeCheck) historyStore() reset.HistoryStore {
	c.Helper()
	store, ok := c.store.(reset.HistoryStore)
	if !ok {
		c.Skip("the store is no HistoryStore")
	}
	if _, err := store.History(c.Context(), start, "nobody", 1); errors.Is(err, errors.ErrUnsupported) {
		c.Skip("the store is no HistoryStore")
	}
	return store
}

// wantHistory compares a user's entries, the latest first. Where an entry lacks
// Requests, 1 is meant.
func (c *storeCheck) wantHistory(now time.Time, userID string, want ...reset.HistoryEntry) {
	c.Helper()
	got, err := c.historyStore().History(c.Context(), now, userID, 100)
	if err != nil {
		c.Fatalf("History: %v", err)
	}
	for i, e := range want {
		e.Requests = max(e.Requests, 1)
		for _, t := range []*time.Time{&e.Leased, &e.Due, &e.Refused, &e.OutcomeAt, &e.Expires, &e.EndAt} {
			if !t.IsZero() {
				*t = t.UTC()
			}
		}
		want[i] = e
	}
	if !slices.Equal(got, want) {
		c.Errorf("History of %q at %s: got %+v, want %+v", userID, clock(now), got, want)
	}
}

// attempt leases the one mail that is due and issues an activation for it, at
// now, for a minute. It returns the mail, and how its entry begins.
func (c *storeCheck) attempt(now time.Time, userID string) (reset.Mail, reset.HistoryEntry) {
	c.Helper()
	m := c.leaseOne(now, now.Add(time.Minute))
	kind := reset.HistoryTrusted
	if m.UserID == "" {
		kind = reset.HistoryPublic
	}
	c.issue(now, c.activationFor(m, userID), 100, &m)
	return m, reset.HistoryEntry{ID: m.ID, Kind: kind, Attempts: m.Attempts, Expires: m.Expires}
}

// attemptPublic is attempt for a new public request.
func (c *storeCheck) attemptPublic(now time.Time, userID string) (reset.Mail, reset.HistoryEntry) {
	c.Helper()
	m := c.publicRequest(userID + "@example.com")
	m.Due, m.Expires = now, now.Add(lifetime)
	c.enqueue(m)
	return c.attempt(now, userID)
}

func remove(m reset.Mail) reset.Settlement {
	return reset.Settlement{Mail: m.ID, Lease: m.Lease, UserID: m.UserID}
}

func retry(m reset.Mail, at time.Time) reset.Settlement {
	return reset.Settlement{Mail: m.ID, Lease: m.Lease, Retry: at}
}

// withNote adds a note on the mail of a user.
func withNote(d reset.Settlement, userID string, n reset.Note) reset.Settlement {
	n.UserID = userID
	if n.Kind == "" {
		n.Kind = reset.HistoryTrusted
	}
	d.Note = &n
	return d
}

func sent(e reset.HistoryEntry, at time.Time) reset.HistoryEntry {
	e.Outcome, e.OutcomeAt = reset.OutcomeSent, at
	return e
}

func ended(e reset.HistoryEntry, end reset.RequestEnd, at time.Time) reset.HistoryEntry {
	e.End, e.EndAt = end, at
	return e
}

func (c *storeCheck) historyIsOff() {
	store := c.historyStore()
	off := func() {
		c.Helper()
		m, _ := c.attemptPublic(start, "a")
		c.settle(withNote(remove(m), "a", reset.Note{At: start, Outcome: reset.OutcomeUndeliverable}))
		c.issuedWithMail("a")
		c.wantHistory(start, "a")
		c.revoke("a")
		c.wantHistory(start, "a")
	}
	off()
	store.KeepHistory(historyLifetime)
	a := c.issued("b")
	c.wantHistory(start, "b", reset.HistoryEntry{ID: a.Request, Kind: reset.HistoryTrusted, Expires: a.Expires})
	store.KeepHistory(0)
	c.wantHistory(start, "b")
	off()
}

func (c *storeCheck) historyInOrder() {
	c.keepHistory()
	var want []reset.HistoryEntry
	for range 3 {
		a := c.issued("a")
		_, m := c.issuedWithMail("a")
		c.issued("b")
		want = slices.Insert(want, 0,
			reset.HistoryEntry{ID: m.ID, Kind: reset.HistoryTrusted, Queued: true, Due: m.Due},
			reset.HistoryEntry{ID: a.Request, Kind: reset.HistoryTrusted, Expires: a.Expires})
	}
	c.wantHistory(start, "a", want...)
	for n := range 8 {
		got, err := c.historyStore().History(c.Context(), start, "a", n)
		if err != nil || len(got) != min(n, 6) || len(got) > 0 && got[len(got)-1].ID != want[len(got)-1].ID {
			c.Errorf("History of at most %d of 6: got %+v, %v", n, got, err)
		}
	}
}

func (c *storeCheck) historyOfRequests() {
	c.keepHistory()
	a := c.issued("a")
	c.issue(start, c.sibling(a), 1, nil)
	without := reset.HistoryEntry{ID: a.Request, Kind: reset.HistoryTrusted, Expires: a.Expires}
	c.wantHistory(start, "a", without)
	if err := c.tryIssue(start, c.activation("a"), 1, nil); !errors.Is(err, reset.ErrTooManyRequests) {
		c.Fatalf("Issue over the cap: %v", err)
	}
	notification := c.notification("a")
	c.enqueue(notification)
	of := reset.HistoryEntry{ID: notification.ID, Kind: reset.HistoryNotification, Queued: true, Due: start}
	c.wantHistory(start, "a", of, without)

	c.lease(start, at(late), 1)
	m := c.publicRequest("a@example.com")
	c.enqueue(m)
	leased := c.leaseOne(start, at(time.Minute))
	joins := c.activationFor(m, "a")
	issued, err := c.store.Issue(c.Context(), start, joins, reset.Limits{MaxRequests: 1, Join: true}, &leased)
	if err != nil || issued.Request != a.Request {
		c.Fatalf("Issue: got %+v, %v, want it to join %v", issued, err, a.Request)
	}
	c.settle(remove(leased))
	got, err := c.historyStore().History(c.Context(), start, "a", 1)
	want := sent(reset.HistoryEntry{ID: m.ID, Kind: reset.HistoryPublic, Requests: 1, Attempts: 1, Joined: a.Request, Expires: a.Expires.UTC()}, start.UTC())
	if err != nil || len(got) != 1 || got[0] != want {
		c.Errorf("History after a mail has joined another request: got %+v, %v, want %+v", got, err, want)
	}
}

func (c *storeCheck) historyOfNobody() {
	c.keepHistory()
	c.enqueue(c.publicRequest("a@example.com"))
	for _, user := range []string{"", "a", "a@example.com"} {
		c.wantHistory(start, user)
	}
	m := c.leaseOne(start, at(time.Minute))
	c.settle(withNote(remove(m), "", reset.Note{At: start, Outcome: reset.OutcomeUserGone}))
	for _, user := range []string{"", "a", "a@example.com"} {
		c.wantHistory(start, user)
	}
}

func (c *storeCheck) historyOfQueue() {
	c.keepHistory()
	a, m := c.issuedWithMail("a")
	e := reset.HistoryEntry{ID: a.Request, Kind: reset.HistoryTrusted, Queued: true, Due: start}
	c.wantHistory(start, "a", e)
	leased := c.leaseOne(at(time.Second), at(time.Minute))
	e.Leased, e.Due, e.Attempts = at(time.Second), at(time.Minute), 1
	c.wantHistory(at(2*time.Second), "a", e)
	leased.Due = at(2 * time.Minute)
	c.issue(at(2*time.Second), c.activationFor(m, "a"), 100, &leased)
	e.Due, e.Expires = at(2*time.Minute), m.Expires
	c.wantHistory(at(2*time.Second), "a", e)
	c.settle(retry(leased, at(5*time.Minute)))
	e.Leased, e.Due = time.Time{}, at(5*time.Minute)
	c.wantHistory(at(2*time.Second), "a", e)
}

func (c *storeCheck) historyOfSent() {
	c.keepHistory()
	m, e := c.attemptPublic(start, "a")
	c.settle(withNote(retry(m, at(time.Minute)), "a", reset.Note{At: at(time.Second), Refusal: "450 later"}))
	e.Refused, e.Refusal, e.Attempts = at(time.Second), "450 later", 2
	m, _ = c.attempt(at(time.Minute), "a")
	c.settle(remove(m))
	c.wantHistory(at(time.Minute), "a", sent(e, at(time.Minute)))

	m, e = c.attemptPublic(at(time.Minute), "b")
	c.settle(remove(m), reset.Settlement{Mail: c.id(), Lease: c.id()})
	c.wantHistory(at(time.Minute), "b", sent(e, at(time.Minute)))

	m = c.publicRequest("c@example.com")
	m.Due = at(2 * time.Minute)
	c.enqueue(m)
	m, e = c.attempt(at(2*time.Minute), "c")
	c.settle(withNote(remove(m), "c", reset.Note{At: at(3 * time.Minute), Outcome: reset.OutcomeUndeliverable}))
	e.Outcome, e.OutcomeAt = reset.OutcomeUndeliverable, at(3*time.Minute)
	c.wantHistory(at(time.Minute), "c", e)

	a := c.activation("d")
	added := c.mailFor(a)
	added.Lease, added.Due, added.Attempts = c.id(), at(time.Minute), 1
	c.issue(start, a, 1, added)
	c.settle(remove(*added))
	c.wantHistory(start, "d", sent(reset.HistoryEntry{ID: added.ID, Kind: reset.HistoryTrusted, Attempts: 1, Expires: a.Expires}, start))
}

func (c *storeCheck) historyOfWithdrawn() {
	c.keepHistory()
	withdrawn := func(e reset.HistoryEntry, end reset.RequestEnd) reset.HistoryEntry {
		e.Outcome, e.OutcomeAt = reset.OutcomeWithdrawn, start
		return ended(e, end, start)
	}
	for _, redeems := range []bool{false, true} {
		user, end := "a", reset.RequestRevoked
		stop := func() { c.revoke(user) }
		if redeems {
			user, end = "b", reset.RequestSuperseded
			stop = func() {
				a := c.issued(user)
				c.redeem(start, a, c.notification(user))
			}
		}
		onItsWay, first := c.attemptPublic(start, user)
		freed, second := c.attemptPublic(start, user)
		c.settle(retry(freed, at(late)))
		freed, third := c.attemptPublic(start, user)
		c.settle(retry(freed, at(time.Second)))
		c.lease(at(time.Second), at(late), 1)
		_, leased := c.issuedWithMail(user)
		c.lease(start, at(late), 1)
		_, waits := c.issuedWithMail(user)
		stop()
		entry := func(m reset.Mail) reset.HistoryEntry {
			return reset.HistoryEntry{ID: m.ID, Kind: reset.HistoryTrusted, Expires: m.Expires}
		}
		want := []reset.HistoryEntry{
			withdrawn(entry(waits), end), withdrawn(entry(leased), end), withdrawn(third, end), withdrawn(second, end), ended(sent(first, start), end, start),
		}
		got, err := c.historyStore().History(c.Context(), start, user, 100)
		if err != nil || len(got) < len(want) {
			c.Fatalf("History: %d entries, %v", len(got), err)
		}
		for i, w := range want {
			w.Requests = 1
			for _, t := range []*time.Time{&w.OutcomeAt, &w.Expires, &w.EndAt} {
				*t = t.UTC()
			}
			if g := got[len(got)-len(want)+i]; g != w {
				c.Errorf("History of %q: got %+v, want %+v", user, g, w)
			}
		}
		// How it ended is recorded although the mail is gone.
		c.settle(withNote(remove(onItsWay), user, reset.Note{At: at(time.Second), Refusal: "550 no"}))
		got, err = c.historyStore().History(c.Context(), start, user, 100)
		if last := got[len(got)-1]; err != nil || last.Outcome != "" || last.Refusal != "550 no" {
			c.Errorf("History after the refusal of a mail that was removed: got %+v, %v", last, err)
		}
	}
}

func (c *storeCheck) historyOfExpired() {
	c.keepHistory()
	m, tried := c.attemptPublic(start, "a")
	c.settle(retry(m, at(late)))
	_, trusted := c.issuedWithMail("a")
	notification := c.notification("a")
	c.enqueue(notification, c.publicRequest("nobody@example.com"))
	c.purgeAll(at(notificationLifetime))
	expired := func(e reset.HistoryEntry, at time.Time) reset.HistoryEntry {
		e.Outcome, e.OutcomeAt = reset.OutcomeExpired, at
		return e
	}
	c.wantHistory(at(notificationLifetime), "a",
		expired(reset.HistoryEntry{ID: notification.ID, Kind: reset.HistoryNotification}, notification.Expires),
		expired(reset.HistoryEntry{ID: trusted.ID, Kind: reset.HistoryTrusted}, trusted.Expires),
		expired(tried, m.Expires))
	c.wantHistory(at(notificationLifetime), "")
}

func (c *storeCheck) historyOfRedeem() {
	c.keepHistory()
	old := c.activation("a")
	old.Expires = at(time.Minute)
	c.issue(start, old, 100, nil)
	other := c.issued("a")
	a := c.issued("a")
	m := c.publicRequest("a@example.com")
	c.enqueue(m)
	leased := c.leaseOne(start, at(time.Minute))
	issued, err := c.store.Issue(c.Context(), start, c.activationFor(m, "a"), reset.Limits{MaxRequests: 1, Join: true}, &leased)
	if err != nil {
		c.Fatalf("Issue: %v", err)
	}
	c.settle(remove(leased))
	c.issued("b")
	redeemed := map[reset.ID]reset.Activation{a.Request: a, other.Request: other}[issued.Request]
	n := c.notification("a")
	c.redeem(at(time.Minute), redeemed, n)
	end := func(id reset.ID) reset.RequestEnd {
		if id == issued.Request {
			return reset.RequestRedeemed
		}
		return reset.RequestSuperseded
	}
	without := func(a reset.Activation) reset.HistoryEntry {
		return reset.HistoryEntry{ID: a.Request, Kind: reset.HistoryTrusted, Expires: a.Expires}
	}
	joined := sent(reset.HistoryEntry{ID: m.ID, Kind: reset.HistoryPublic, Attempts: 1, Joined: issued.Request, Expires: issued.Expires}, start)
	c.wantHistory(at(time.Minute), "a",
		reset.HistoryEntry{ID: n.ID, Kind: reset.HistoryNotification, Queued: true, Due: n.Due},
		ended(joined, reset.RequestRedeemed, at(time.Minute)),
		ended(without(a), end(a.Request), at(time.Minute)), ended(without(other), end(other.Request), at(time.Minute)), without(old))

	leased = c.leaseOne(at(time.Minute), at(late))
	c.settle(withNote(remove(leased), "a", reset.Note{At: at(2 * time.Minute), Kind: reset.HistoryNotification, Attempts: 1, Outcome: reset.OutcomeSent}))
	got, err := c.historyStore().History(c.Context(), at(late), "a", 1)
	if want := sent(reset.HistoryEntry{ID: n.ID, Kind: reset.HistoryNotification, Requests: 1, Attempts: 1}, at(2*time.Minute).UTC()); err != nil || len(got) != 1 || got[0] != want {
		c.Errorf("History after a notification: got %+v, %v, want %+v", got, err, want)
	}
	if calls, err := c.tryRedeem(start, c.issued("c"), c.notification("c"), errors.New("fails")); err == nil || calls != 1 {
		c.Fatalf("Redeem: %v after %d calls of apply", err, calls)
	}
	if got, err := c.historyStore().History(c.Context(), start, "c", 9); err != nil || len(got) != 1 || got[0].End != "" {
		c.Errorf("History after a Redeem that failed: got %+v, %v", got, err)
	}
}

func (c *storeCheck) historyOfRevoke() {
	c.keepHistory()
	a, b := c.issued("a"), c.issued("b")
	of := func(a reset.Activation) reset.HistoryEntry {
		return reset.HistoryEntry{ID: a.Request, Kind: reset.HistoryTrusted, Expires: a.Expires}
	}
	revoke := func(now time.Time) {
		c.Helper()
		if err := c.store.Revoke(c.Context(), now, "a", time.Time{}); err != nil {
			c.Fatalf("Revoke: %v", err)
		}
	}
	revoke(at(time.Minute))
	revoke(at(2 * time.Minute))
	later := c.issued("a")
	revoke(at(lifetime))
	c.wantHistory(start, "a", of(later), ended(of(a), reset.RequestRevoked, at(time.Minute)))
	c.wantHistory(start, "b", of(b))
}

func (c *storeCheck) historyOfNotes() {
	c.keepHistory()
	m, e := c.attemptPublic(start, "a")
	refused := func(words string) reset.Note { return reset.Note{At: at(time.Second), Attempts: 1, Refusal: words} }
	other := m
	other.Lease = c.id()
	c.settle(withNote(remove(other), "a", refused("of another lease")))
	c.settle(withNote(retry(m, at(time.Minute)), "a", refused("450 later")), withNote(remove(other), "a", refused("of another lease")))
	e.Queued, e.Due, e.Refused, e.Refusal = true, at(time.Minute), at(time.Second), "450 later"
	c.wantHistory(start, "a", e)
	c.settle(withNote(remove(m), "a", refused("of an earlier lease")))
	c.wantHistory(start, "a", e)

	again := c.leaseOne(at(time.Minute), at(late))
	c.settle(remove(again))
	c.settle(withNote(remove(again), "a", reset.Note{At: at(2 * time.Minute), Outcome: reset.OutcomeUnconfirmed}))
	e.Queued, e.Due = false, time.Time{}
	e.Outcome, e.OutcomeAt = reset.OutcomeUnconfirmed, at(2*time.Minute)
	c.wantHistory(start, "a", e)
}

func (c *storeCheck) historyOfOthers() {
	c.keepHistory()
	first, e := c.attemptPublic(start, "a")
	c.enqueue(c.publicRequest("a@example.com"), c.publicRequest("a@example.com"))
	others := c.lease(start, at(time.Minute), 2)
	if len(others) != 2 {
		c.Fatalf("Lease returned %d mails, want 2", len(others))
	}
	c.settle(withNote(remove(others[0]), "a", reset.Note{ID: first.ID, At: start, Requests: 2, Kind: reset.HistoryPublic}), remove(others[1]))
	c.settle(remove(first))
	e.Requests = 3
	c.wantHistory(start, "a", sent(e, start))

	hour := c.id()
	want := reset.HistoryEntry{ID: hour, Kind: reset.HistoryPublic, Outcome: reset.OutcomeOverBudget}
	for n := range 2 {
		c.enqueue(c.publicRequest("b@example.com"))
		m := c.leaseOne(start, at(time.Minute))
		c.settle(withNote(remove(m), "b", reset.Note{ID: hour, At: at(time.Second), Requests: 5, Kind: reset.HistoryPublic, Outcome: reset.OutcomeOverBudget}))
		want.Requests, want.OutcomeAt = 5*(n+1), at(time.Second)
		c.wantHistory(start, "b", want)
	}
}

func (c *storeCheck) historyOfAttempts() {
	c.keepHistory()
	m, e := c.attemptPublic(start, "a")
	c.settle(withNote(retry(m, at(time.Minute)), "a", reset.Note{At: start, Attempts: 7, Refusal: "450 later"}))
	again := c.leaseOne(at(time.Minute), at(late))
	c.settle(remove(again)) // with no Issue in between
	e.Refused, e.Refusal, e.Attempts = start, "450 later", 7
	c.wantHistory(start, "a", e)

	m, e = c.attemptPublic(start, "b")
	c.settle(withNote(retry(m, at(time.Minute)), "b", reset.Note{At: start}))
	c.settle(remove(c.leaseOne(at(time.Minute), at(late))))
	c.wantHistory(start, "b", e)
}

func (c *storeCheck) historyIsKept() {
	c.keepHistory()
	budget := reset.Limits{MaxRequests: 100, MaxPerDay: 1}
	m := c.publicRequest("a@example.com")
	c.enqueue(m)
	m = c.leaseOne(start, at(time.Minute))
	if _, err := c.store.Issue(c.Context(), start, c.activationFor(m, "a"), budget, &m); err != nil {
		c.Fatalf("Issue: %v", err)
	}
	c.settle(withNote(remove(m), "a", reset.Note{At: at(late), Outcome: reset.OutcomeUndeliverable}))
	c.issued("a")
	for _, tt := range []struct {
		now  time.Time
		want int
	}{{at(historyLifetime - ms), 2}, {at(historyLifetime), 0}} {
		c.purgeAll(tt.now)
		for _, now := range []time.Time{start, tt.now} {
			got, err := c.historyStore().History(c.Context(), now, "a", 9)
			if err != nil || len(got) != tt.want {
				c.Errorf("History at %s, purged at %s: got %+v, %v, want %d entries", clock(now), clock(tt.now), got, err, tt.want)
			}
		}
	}
	c.issued("b")
	if got, err := c.historyStore().History(c.Context(), at(historyLifetime), "b", 9); err != nil || len(got) != 0 {
		c.Errorf("History of what is older than it is kept: got %+v, %v", got, err)
	}
}

func (c *storeCheck) erasesHistory() {
	c.keepHistory()
	m, _ := c.attemptPublic(start, "a")
	c.settle(remove(m))
	a, m := c.issuedWithMail("a")
	b := c.issued("b")
	if err := c.historyStore().EraseHistory(c.Context(), "a"); err != nil {
		c.Fatalf("EraseHistory: %v", err)
	}
	c.wantHistory(start, "a", reset.HistoryEntry{ID: m.ID, Kind: reset.HistoryTrusted, Queued: true, Due: start})
	c.wantHistory(start, "b", reset.HistoryEntry{ID: b.Request, Kind: reset.HistoryTrusted, Expires: b.Expires})
	c.wantLive(start, a, b)
	for _, user := range []string{"", "nobody"} {
		if err := c.historyStore().EraseHistory(c.Context(), user); err != nil {
			c.Errorf("EraseHistory of %q: %v", user, err)
		}
	}
	c.lease(start, at(late), 1)
	m = c.publicRequest("a@example.com")
	c.enqueue(m)
	m = c.leaseOne(start, at(time.Minute))
	if _, err := c.store.Issue(c.Context(), start, c.activationFor(m, "a"), reset.Limits{MaxRequests: 100, MaxPerHour: 1}, &m); err != nil {
		c.Errorf("Issue after EraseHistory: %v", err)
	}
}
