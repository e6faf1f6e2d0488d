package resettest

import (
	"errors"
	"time"

	"github.com/gopassreset/reset"
)

// clockSentences are the promises of reset.ClockStore.
func clockSentences() []storeSentence {
	const clock = "Now returns the time of the store's clock, to the millisecond or finer."
	return []storeSentence{
		{"Now", clock, (*storeCheck).clockRuns},
	}
}

// clockRuns compares the store's clock with this machine's, which should not be
// far from it.
func (c *storeCheck) clockRuns() {
	before := c.now()
	for range 100 {
		now := c.now()
		if now.Before(before) {
			c.Errorf("Now returned %v after %v", now, before)
		}
		if off := time.Until(now).Abs(); off > time.Hour {
			c.Fatalf("Now returned %v, %v from the time here", now, off)
		}
		if now.Nanosecond()%int(time.Second) != 0 && !now.Equal(before) {
			return
		}
		before = now
	}
	c.Errorf("Now returned %v again and again, or whole seconds only", before)
}

// now returns the time of a ClockStore. For another store it skips the check: it
// promises none.
func (c *storeCheck) now() time.Time {
	c.Helper()
	store, ok := c.store.(reset.ClockStore)
	if !ok {
		c.Skip("the store is no ClockStore")
	}
	now, err := store.Now(c.Context())
	if errors.Is(err, errors.ErrUnsupported) {
		c.Skip("the store is no ClockStore")
	}
	if err != nil {
		c.Fatalf("Now: %v", err)
	}
	return now
}
