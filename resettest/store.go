package resettest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

// TestStore tests a store in the mode "one transaction". Each subtest tests one
// promise of reset.Store, or of reset.RealmStore, reset.ClockStore,
// reset.StatsStore or reset.HistoryStore if the store is one, on a store from open, which must be empty
// and used by nothing else. If the store must be closed, open does so in
// t.Cleanup.
//
// TestStore reads what a cancelled call has done as soon as the call returns. A
// server may still be working then: wrap such a store in a FaultStore whose
// After waits until it has finished.
//
// TestStore uses one handle and no query. The store's own tests must show that
// its promises hold between processes and after a restart, and that apply runs
// inside the transaction.
func TestStore(t *testing.T, open func(t *testing.T) reset.Store) {
	testStore(t, open, false)
}

// TestStoreElsewhere is TestStore for a store in the mode "users elsewhere".
func TestStoreElsewhere(t *testing.T, open func(t *testing.T) reset.Store) {
	testStore(t, open, true)
}

func testStore(t *testing.T, open func(t *testing.T) reset.Store, elsewhere bool) {
	for _, s := range slices.Concat(storeSentences(elsewhere), realmSentences(elsewhere), clockSentences(), statsSentences(), historySentences()) {
		t.Run(s.name, func(t *testing.T) {
			cite(t, s.quote)
			s.check(&storeCheck{TB: t, store: open(t), elsewhere: elsewhere})
		})
	}
}

type storeSentence = sentence[*storeCheck]

func storeSentences(elsewhere bool) []storeSentence {
	users := sameDatabaseSentences()
	if elsewhere {
		users = elsewhereSentences()
	}
	return slices.Concat(
		generalSentences(), issueSentences(), budgetSentences(), redeemSentences(), mailSentences(),
		cancelSentences(), raceSentences(), users,
	)
}

// start is when most checks begin: any time will do for a store.
var start = time.Date(2001, 2, 3, 4, 5, 6, 789e6, time.UTC)

// at returns the time after start.
func at(d time.Duration) time.Time { return start.Add(d) }

const (
	ms = time.Millisecond
	// Records of a check expire after an hour, notifications after a day.
	lifetime             = time.Hour
	notificationLifetime = 24 * time.Hour
	// late is a time when every lease of a check has ended and nothing has
	// expired.
	late = 59 * time.Minute
)

// A storeCheck is one check of one store. Its methods end the test if a call of
// the store fails that must succeed.
type storeCheck struct {
	testing.TB
	store     reset.Store
	elsewhere bool
	last      atomic.Uint64
	whole     *storeCheck // of the store that this view belongs to
}

// next returns a number that no other record of the store has.
func (c *storeCheck) next() uint64 {
	if c.whole != nil {
		return c.whole.next()
	}
	return c.last.Add(1)
}

func (c *storeCheck) id() (id reset.ID) {
	binary.BigEndian.PutUint64(id[:8], uint64(start.UnixMilli())<<16)
	binary.BigEndian.PutUint64(id[8:], c.next())
	return id
}

func (c *storeCheck) hash() reset.Hash {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, c.next()))
}

// activation returns an activation of a new request.
func (c *storeCheck) activation(userID string) reset.Activation {
	return reset.Activation{
		Hash: c.hash(), Request: c.id(), UserID: userID, Email: userID + "@example.com", Expires: at(lifetime),
	}
}

// sibling returns another activation of a's request.
func (c *storeCheck) sibling(a reset.Activation) reset.Activation {
	a.Hash = c.hash()
	return a
}

// activationFor returns an activation of the request of m.
func (c *storeCheck) activationFor(m reset.Mail, userID string) reset.Activation {
	a := c.activation(userID)
	a.Request, a.Expires = m.ID, m.Expires
	return a
}

func (c *storeCheck) publicRequest(address string) reset.Mail {
	return reset.Mail{
		ID: c.id(), Kind: reset.MailReset, Email: address, Locale: "de", Due: start, Expires: at(lifetime),
	}
}

// mailFor returns the mail of a's request.
func (c *storeCheck) mailFor(a reset.Activation) *reset.Mail {
	return &reset.Mail{
		ID: a.Request, Kind: reset.MailReset, UserID: a.UserID, Email: a.Email, Due: start, Expires: a.Expires,
	}
}

func (c *storeCheck) notification(userID string) reset.Mail {
	return reset.Mail{
		ID: c.id(), Kind: reset.MailNotification, UserID: userID, Email: userID + "@example.com",
		Name: "User " + userID, Locale: "pt-BR", Due: start, Expires: at(notificationLifetime),
	}
}

func (c *storeCheck) enqueue(mails ...reset.Mail) {
	c.Helper()
	for _, m := range mails {
		if err := c.store.Enqueue(c.Context(), m); err != nil {
			c.Fatalf("Enqueue: %v", err)
		}
	}
}

func (c *storeCheck) tryIssue(now time.Time, a reset.Activation, max int, m *reset.Mail) error {
	_, err := c.store.Issue(c.Context(), now, a, reset.Limits{MaxRequests: max}, m)
	return err
}

func (c *storeCheck) issue(now time.Time, a reset.Activation, max int, m *reset.Mail) {
	c.Helper()
	if err := c.tryIssue(now, a, max, m); err != nil {
		c.Fatalf("Issue: %v", err)
	}
}

// issued issues a request without mail at start and returns its activation.
func (c *storeCheck) issued(userID string) reset.Activation {
	c.Helper()
	a := c.activation(userID)
	c.issue(start, a, 100, nil)
	return a
}

// issuedWithMail is issued with a mail that is bound to the user.
func (c *storeCheck) issuedWithMail(userID string) (reset.Activation, reset.Mail) {
	c.Helper()
	a := c.activation(userID)
	m := c.mailFor(a)
	c.issue(start, a, 100, m)
	return a, *m
}

func (c *storeCheck) revoke(userID string) {
	c.Helper()
	if err := c.store.Revoke(c.Context(), start, userID, time.Time{}); err != nil {
		c.Fatalf("Revoke: %v", err)
	}
}

func (c *storeCheck) lease(now, until time.Time, n int) []reset.Mail {
	c.Helper()
	mails, err := c.store.Lease(c.Context(), now, until, n)
	if err != nil {
		c.Fatalf("Lease: %v", err)
	}
	return mails
}

// leaseOne leases the one mail that is due.
func (c *storeCheck) leaseOne(now, until time.Time) reset.Mail {
	c.Helper()
	mails := c.lease(now, until, 10)
	if len(mails) != 1 {
		c.Fatalf("Lease at %s returned %d mails, want 1", clock(now), len(mails))
	}
	return mails[0]
}

func (c *storeCheck) settle(done ...reset.Settlement) {
	c.Helper()
	if err := c.store.Settle(c.Context(), done); err != nil {
		c.Fatalf("Settle: %v", err)
	}
}

// redeem redeems a, which must succeed.
func (c *storeCheck) redeem(now time.Time, a reset.Activation, notification reset.Mail) {
	c.Helper()
	if calls, err := c.tryRedeem(now, a, notification, nil); err != nil || calls != 1 {
		c.Fatalf("Redeem: %v after %d calls of apply, want success after 1", err, calls)
	}
}

// tryRedeem redeems with an apply that returns result.
func (c *storeCheck) tryRedeem(now time.Time, a reset.Activation, notification reset.Mail, result error) (calls int, err error) {
	err = c.store.Redeem(c.Context(), now, a, notification, func(context.Context) error {
		calls++
		return result
	})
	return calls, err
}

// wantRefused redeems a, which must not be live.
func (c *storeCheck) wantRefused(now time.Time, a reset.Activation) {
	c.Helper()
	calls, err := c.tryRedeem(now, a, c.notification(a.UserID), nil)
	if !errors.Is(err, reset.ErrInvalidActivation) || calls != 0 {
		c.Errorf("Redeem at %s: %v after %d calls of apply, want ErrInvalidActivation after 0", clock(now), err, calls)
	}
}

// purge returns how many records it removed.
func (c *storeCheck) purge(now time.Time, n int) int {
	c.Helper()
	removed, _, err := c.store.Purge(c.Context(), now, n)
	if err != nil {
		c.Fatalf("Purge: %v", err)
	}
	if removed < 0 || removed > n {
		c.Fatalf("Purge of at most %d returned %d", n, removed)
	}
	return removed
}

func (c *storeCheck) purgeAll(now time.Time) {
	c.Helper()
	for c.purge(now, 100) == 100 {
	}
}

func (c *storeCheck) isLive(now time.Time, a reset.Activation) bool {
	c.Helper()
	got, err := c.store.Find(c.Context(), now, a.Hash)
	switch {
	case errors.Is(err, reset.ErrInvalidActivation):
		return false
	case err != nil:
		c.Fatalf("Find: %v", err)
	case !equalActivations(got, a):
		c.Errorf("Find returned %+v, want %+v", got, a)
	}
	return true
}

func (c *storeCheck) wantLive(now time.Time, activations ...reset.Activation) {
	c.Helper()
	for i, a := range activations {
		if !c.isLive(now, a) {
			c.Errorf("activation %d of %d, of %q, is not live at %s", i+1, len(activations), a.UserID, clock(now))
		}
	}
}

func (c *storeCheck) wantDead(now time.Time, activations ...reset.Activation) {
	c.Helper()
	for i, a := range activations {
		if c.isLive(now, a) {
			c.Errorf("activation %d of %d, of %q, is live at %s", i+1, len(activations), a.UserID, clock(now))
		}
	}
}

// leaseAll leases and returns all mail that is due.
func (c *storeCheck) leaseAll(now, until time.Time) []reset.Mail {
	c.Helper()
	var all []reset.Mail
	for {
		mails := c.lease(now, until, 100)
		if len(mails) == 0 {
			return all
		}
		all = append(all, mails...)
		if len(all) > 10_000 {
			c.Fatalf("Lease at %s returned over 10,000 mails", clock(now))
		}
	}
}

// wantMails leases all mail that is due, for a minute, and compares its facts.
func (c *storeCheck) wantMails(now time.Time, want ...reset.Mail) {
	c.Helper()
	got := c.leaseAll(now, now.Add(time.Minute))
	missing := slices.Clone(want)
	for _, g := range got {
		i := slices.IndexFunc(missing, func(m reset.Mail) bool { return m.ID == g.ID })
		if i < 0 {
			c.Errorf("at %s: unexpected or repeated mail %+v", clock(now), g)
			continue
		}
		if w := missing[i]; !equalFacts(g, w) {
			c.Errorf("at %s: got the mail %+v, want %+v", clock(now), g, w)
		}
		missing = slices.Delete(missing, i, i+1)
	}
	for _, m := range missing {
		c.Errorf("at %s: missing the mail %+v", clock(now), m)
	}
}

func (c *storeCheck) wantIs(op string, err, want error) {
	c.Helper()
	if !errors.Is(err, want) {
		c.Errorf("%s: got error %v, want %v", op, err, want)
	}
}

// wantLimit checks the error of an Issue over the cap.
func (c *storeCheck) wantLimit(err error, retryAfter time.Duration) {
	c.Helper()
	var limit *reset.LimitError
	if !errors.As(err, &limit) {
		c.Errorf("Issue: got error %v, want a *LimitError", err)
		return
	}
	if limit.RetryAfter != retryAfter {
		c.Errorf("Issue: got RetryAfter %v, want %v", limit.RetryAfter, retryAfter)
	}
}

// count returns how many of the activations are live.
func (c *storeCheck) count(now time.Time, activations []reset.Activation) (n int) {
	c.Helper()
	for _, a := range activations {
		if c.isLive(now, a) {
			n++
		}
	}
	return n
}

// clock formats a time as an offset from start.
func clock(t time.Time) string {
	d := t.Sub(start)
	if d < -365*24*time.Hour || d > 365*24*time.Hour {
		return t.UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("start%+v", d)
}

func equalActivations(a, b reset.Activation) bool {
	same := a.Expires.Equal(b.Expires)
	a.Expires, b.Expires = time.Time{}, time.Time{}
	return same && a == b
}

// equalFacts compares all fields that a lease does not change.
func equalFacts(a, b reset.Mail) bool {
	same := a.Expires.Equal(b.Expires)
	for _, m := range []*reset.Mail{&a, &b} {
		m.Due, m.WasDue, m.Expires, m.Attempts, m.Lease = time.Time{}, time.Time{}, time.Time{}, 0, reset.ID{}
	}
	return same && a == b
}
