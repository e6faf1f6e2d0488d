package reset

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopassreset/reset/internal/wall"
)

// A ClockStore is a Store with a clock that all processes share: that of its
// database server, as with the stores of this module on PostgreSQL, MySQL and
// MariaDB. A Service takes the time from it, so that the clocks of machines may
// be wrong, or jump.
type ClockStore interface {
	Store

	// Now returns the time of the store's clock, to the millisecond or finer.
	// It returns an error that wraps [errors.ErrUnsupported] if there is none.
	Now(ctx context.Context) (time.Time, error)
}

const (
	clockEvery   = time.Minute     // between two looks at the store's clock
	clockRetry   = 5 * time.Second // after one that failed
	clockTimeout = time.Second
	maxSkew      = 5 * time.Second
	doubtTimeout = 5 * time.Minute // after a jump of the clock
)

// A clock has the time of the store. Between two looks it counts on by itself,
// whatever happens to the clock of the machine. For a store without a clock it
// has the time of the machine.
type clock struct {
	store  ClockStore // nil: none
	events eventLog
	latest atomic.Pointer[reading]

	looking chan struct{} // holds a token while a caller looks at the store's clock

	mu    sync.Mutex
	seen  time.Time // on the machine's clock, when it was read last
	at    time.Time // that moment
	jumps time.Time // when the clock jumped last: the store's, or else the machine's
}

// A reading is what the store's clock showed.
type reading struct {
	at   time.Time // when, as this process counts time
	time time.Time
	good time.Duration // for how long
	skew time.Duration // how far the store's clock is ahead of the machine's
	none bool          // the store has no clock
}

func (r *reading) now() time.Time { return r.time.Add(time.Since(r.at)).Round(0) }

func newClock(s Store, events eventLog) *clock {
	store, _ := s.(ClockStore)
	return &clock{store: store, events: events, looking: make(chan struct{}, 1)}
}

// now returns the time for the store. Once a minute a caller waits for a look
// at the store's clock.
func (c *clock) now(ctx context.Context) time.Time {
	r := c.reading(ctx)
	if r == nil || r.none {
		return c.machine(ctx)
	}
	return r.now()
}

// last returns the time without a look at the store's clock, for callers that
// may hold the only connection to it.
func (c *clock) last() time.Time {
	if r := c.latest.Load(); r != nil && !r.none {
		return r.now()
	}
	return wall.Now()
}

// reading returns nil for a store that has no clock.
func (c *clock) reading(ctx context.Context) *reading {
	if c.store == nil {
		return nil
	}
	r := c.latest.Load()
	if r != nil && time.Since(r.at) < r.good {
		return r
	}
	select {
	case c.looking <- struct{}{}:
	default:
		if r != nil {
			return r
		}
		c.looking <- struct{}{}
	}
	defer func() { <-c.looking }()
	if next := c.latest.Load(); next != r { // of another caller, meanwhile
		return next
	}
	next := c.look(ctx, r)
	c.latest.Store(next)
	return next
}

// look reads the store's clock. What fails is made up for by the last reading,
// or by the machine's clock.
func (c *clock) look(ctx context.Context, last *reading) *reading {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clockTimeout)
	defer cancel()
	began := time.Now()
	var now time.Time
	err := c.events.noPanic(ctx, func() (err error) {
		now, err = inTime(ctx, 0, func() (time.Time, error) { return c.store.Now(ctx) })
		return err
	})
	took := time.Since(began)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return &reading{at: began, good: 100 * 365 * 24 * time.Hour, none: true}
	case err != nil && last != nil:
		return &reading{at: time.Now(), time: last.now(), good: clockRetry, skew: last.skew}
	case err != nil:
		return &reading{at: time.Now(), time: wall.Now(), good: clockRetry}
	}
	r := &reading{at: began.Add(took / 2), time: now, good: clockEvery}
	if last != nil && r.now().Sub(last.now()).Abs() > maxSkew {
		c.mu.Lock()
		c.jumps = time.Now()
		c.mu.Unlock()
	}
	r.skew = r.now().Sub(wall.Now()).Round(time.Millisecond)
	if r.skew.Abs() > maxSkew && (last == nil || (r.skew-last.skew).Abs() > maxSkew) {
		c.events.log(ctx, clockSkew, "store_ahead", r.skew)
	}
	return r
}

// machine reads the machine's clock, and notices if it has jumped.
func (c *clock) machine(ctx context.Context) time.Time {
	now, at := wall.Now(), time.Now()
	c.mu.Lock()
	jump := now.Round(0).Sub(c.seen) - at.Sub(c.at)
	jumped := !c.at.IsZero() && jump.Abs() > maxSkew
	c.seen, c.at = now.Round(0), at
	if jumped {
		c.jumps = at
	}
	c.mu.Unlock()
	if jumped {
		c.events.log(ctx, clockSkew, "jump", jump.Round(time.Millisecond))
	}
	return now
}

// doubtful reports whether the clock has jumped a short time ago. What is too old
// by it may be young.
func (c *clock) doubtful(ctx context.Context) bool {
	if r := c.reading(ctx); r == nil || r.none {
		c.machine(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.jumps.IsZero() && time.Since(c.jumps) < doubtTimeout
}

// agreed reports whether the clocks agree, so that what has expired may be
// removed.
func (c *clock) agreed(ctx context.Context) bool {
	if r := c.reading(ctx); r != nil && !r.none && r.skew.Abs() > maxSkew {
		return false
	}
	return !c.doubtful(ctx)
}
