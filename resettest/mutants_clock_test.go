package resettest

import (
	"context"
	"testing"
	"time"
)

// A clocked store has a clock, which is wrong in the tests of mutants.
type clocked struct {
	*MemStore
	now func(now time.Time) time.Time
}

func (c *clocked) Now(context.Context) (time.Time, error) { return c.now(time.Now()), nil }

func TestClockMutants(t *testing.T) {
	calls := 0
	clock := func(name string, f func(now time.Time) time.Time) mutant[func(time.Time) time.Time] {
		return mutant[func(time.Time) time.Time]{name, f, []string{"Now"}}
	}
	specimen[func(time.Time) time.Time, *storeCheck]{
		sentences: clockSentences(),
		mutants: []mutant[func(time.Time) time.Time]{
			clock("stands still", func(time.Time) time.Time { return time.Now().Truncate(time.Hour) }),
			clock("whole seconds", func(now time.Time) time.Time { return now.Truncate(time.Second) }),
			clock("another zone", func(now time.Time) time.Time { return now.Add(5 * time.Hour) }),
			clock("runs backwards", func(now time.Time) time.Time { calls++; return now.Add(-time.Duration(calls) * time.Minute) }),
		},
		check: func(t testing.TB, now func(time.Time) time.Time) *storeCheck {
			return &storeCheck{TB: t, store: &clocked{new(MemStore), now}}
		},
	}.prove(t)
}
