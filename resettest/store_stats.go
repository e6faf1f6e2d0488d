package resettest

import (
	"errors"
	"time"

	"github.com/gopassreset/reset"
)

// statsSentences are the promises of reset.StatsStore.
func statsSentences() []storeSentence {
	const figures = "Stats returns figures of the records at now."
	return []storeSentence{
		{"Stats/mails", figures, (*storeCheck).statsOfMails},
		{"Stats/oldest", figures, (*storeCheck).statsOfOldest},
		{"Stats/requests", figures, (*storeCheck).statsOfRequests},
		{"Stats/changes nothing", "It changes nothing", (*storeCheck).statsChangeNothing},
		{"Queued", "Queued returns the number of mails in the queue that have not expired at now, or limit if there are more.", (*storeCheck).countsQueued},
		{"Beat", "Beat records that a process runs Run at now, and whether the mail system is unavailable to it. Stats returns the latest time of each.", (*storeCheck).beats},
	}
}

// stats returns the figures of a StatsStore. For another store it skips the
// check: it promises none.
func (c *storeCheck) stats(now time.Time) reset.Stats {
	c.Helper()
	store, ok := c.store.(reset.StatsStore)
	if !ok {
		c.Skip("the store is no StatsStore")
	}
	stats, err := store.Stats(c.Context(), now)
	if errors.Is(err, errors.ErrUnsupported) {
		c.Skip("the store is no StatsStore")
	}
	if err != nil {
		c.Fatalf("Stats: %v", err)
	}
	return stats
}

func (c *storeCheck) wantStats(now time.Time, want reset.Stats) {
	c.Helper()
	if got := c.stats(now); got != want {
		c.Errorf("Stats at %s: got %+v, want %+v", clock(now), got, want)
	}
}

func (c *storeCheck) statsOfMails() {
	c.wantStats(start, reset.Stats{})
	c.enqueue(c.publicRequest("a@example.com"), c.publicRequest("b@example.com"), c.notification("c"))
	c.wantStats(start, reset.Stats{Waiting: 3})
	leased := c.lease(start, at(time.Minute), 2)
	c.wantStats(start, reset.Stats{Waiting: 1, Leased: 2})
	c.settle(
		reset.Settlement{Mail: leased[0].ID, Lease: leased[0].Lease},
		reset.Settlement{Mail: leased[1].ID, Lease: leased[1].Lease, Retry: at(2 * time.Hour)})
	c.wantStats(start, reset.Stats{Waiting: 2})

	got := c.stats(at(notificationLifetime - ms))
	if got.Waiting+got.Expired != 2 || got.Expired < 1 {
		c.Errorf("Stats after an hour: %+v, want one mail waiting or two, as one of two has expired", got)
	}
	c.wantStats(at(notificationLifetime), reset.Stats{Expired: 2})
	c.purgeAll(at(notificationLifetime))
	c.wantStats(at(notificationLifetime), reset.Stats{})
}

func (c *storeCheck) statsOfOldest() {
	old, first, second, later := c.publicRequest("a@example.com"), c.publicRequest("b@example.com"), c.publicRequest("c@example.com"), c.publicRequest("d@example.com")
	old.Due = at(-lifetime) // before its ID was made
	first.Due, second.Due, later.Due = at(5*time.Second), at(10*time.Second), at(time.Minute)
	c.enqueue(later)
	c.wantStats(at(time.Minute-ms), reset.Stats{Waiting: 1})
	c.enqueue(second, first)
	c.wantStats(at(15*time.Second), reset.Stats{Waiting: 3, OldestDue: 10 * time.Second})
	c.enqueue(old)
	c.wantStats(at(15*time.Second), reset.Stats{Waiting: 4, OldestDue: 15 * time.Second})
	c.lease(at(15*time.Second), at(time.Minute), 3)
	c.wantStats(at(20*time.Second), reset.Stats{Waiting: 1, Leased: 3})
	c.wantStats(at(61*time.Second), reset.Stats{Waiting: 1, Leased: 3, OldestDue: time.Second})
	c.wantStats(at(lifetime), reset.Stats{Expired: 4})
}

func (c *storeCheck) statsOfRequests() {
	a := c.issued("a")
	c.issue(start, c.sibling(a), 1, nil)
	b := c.issued("b")
	c.issued("c")
	c.wantStats(start, reset.Stats{LiveRequests: 3})
	c.revoke("c")
	c.wantStats(start, reset.Stats{LiveRequests: 2})
	c.redeem(start, b, c.notification("b"))
	c.wantStats(start, reset.Stats{LiveRequests: 1, Waiting: 1})
	c.wantStats(at(lifetime-ms), reset.Stats{LiveRequests: 1, Waiting: 1, OldestDue: lifetime - ms})
	c.wantStats(at(lifetime), reset.Stats{Waiting: 1, OldestDue: lifetime})
}

func (c *storeCheck) statsChangeNothing() {
	a, m := c.issuedWithMail("a")
	c.stats(at(2 * lifetime))
	c.wantLive(start, a)
	c.wantMails(start, m)
}

func (c *storeCheck) beats() {
	beat := func(now time.Time, mailerFails bool) {
		c.Helper()
		if err := c.store.(reset.StatsStore).Beat(c.Context(), now, mailerFails); err != nil {
			c.Fatalf("Beat: %v", err)
		}
	}
	c.wantStats(start, reset.Stats{})
	utc := start.UTC()
	beat(start, false)
	c.wantStats(start, reset.Stats{LastRun: utc})
	beat(at(time.Second), true)
	beat(at(2*time.Second), false)
	beat(at(-time.Second), true) // of a process whose clock is slow
	c.wantStats(start, reset.Stats{LastRun: utc.Add(2 * time.Second), MailerFailed: utc.Add(time.Second)})
	c.purgeAll(at(notificationLifetime))
	c.wantStats(start, reset.Stats{LastRun: utc.Add(2 * time.Second), MailerFailed: utc.Add(time.Second)})
}

func (c *storeCheck) countsQueued() {
	c.stats(start) // or skip
	old := c.publicRequest("old@example.com")
	old.Expires = at(-time.Hour)
	c.enqueue(old, c.publicRequest("a@example.com"), c.notification("b"))
	c.lease(start, at(time.Minute), 2)
	for _, tt := range []struct{ limit, want int }{{1, 1}, {2, 2}, {3, 2}, {100, 2}} {
		got, err := c.store.(reset.StatsStore).Queued(c.Context(), start, tt.limit)
		if err != nil || got != tt.want {
			c.Errorf("Queued with the limit %d: got %d, %v, want %d", tt.limit, got, err, tt.want)
		}
	}
}
