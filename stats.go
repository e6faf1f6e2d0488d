package reset

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A StatsStore is a Store that reports what it holds, as all stores of this
// module do. Service.Stats, Service.Health, Config.MaxQueued and the event
// queue_late need one.
type StatsStore interface {
	Store

	// Stats returns figures of the records at now. It changes nothing and is
	// cheap however many records there are: it may look at only the 10,000
	// mails, and as many activations, that expire next, of all realms together.
	Stats(ctx context.Context, now time.Time) (Stats, error)

	// Beat records that a process runs Run at now, and whether the mail system
	// is unavailable to it. Stats returns the latest time of each.
	Beat(ctx context.Context, now time.Time, mailerFails bool) error

	// Queued returns the number of mails in the queue that have not expired at
	// now, or limit if there are more. It changes nothing.
	Queued(ctx context.Context, now time.Time, limit int) (int, error)
}

// Stats are figures of a store.
type Stats struct {
	// Waiting is the number of mails that are queued and not leased, due or
	// not. It does not count expired ones.
	Waiting int
	// Leased is the number of mails that are leased and have not expired.
	Leased int
	// Expired is the number of mails that have expired before they were sent,
	// and have not been purged yet.
	Expired int
	// OldestDue is how long the due mail that has waited the longest has
	// waited: since its Due, or since its ID was made if that is later. It is
	// zero if no mail is due.
	OldestDue time.Duration
	// LiveRequests is the number of requests with a live activation.
	LiveRequests int
	// LastRun is the latest time at which some process ran Run, to within 15 s.
	// It is zero if none ever has.
	LastRun time.Time
	// MailerFailed is the latest time at which the mail system was unavailable
	// to such a process. It is zero if it never was.
	MailerFailed time.Time
	// Now is the time of the figures, on the clock that the others are of.
	// [Service.Stats] sets it.
	Now time.Time
}

const (
	beatEvery    = 15 * time.Second
	statsTimeout = 5 * time.Second
	maxBeatAge   = time.Minute // of a process that runs Run, or whose mail system fails
	lateAfter    = time.Minute
	countEvery   = time.Second // mails in the queue, and as often as that takes a tenth of the time
	fullTimeout  = time.Minute // after how long to try again when the queue is full
)

// delivers reports whether some process runs Run.
func (s Stats) delivers(now time.Time) bool { return now.Sub(s.LastRun) <= maxBeatAge }

// mailerFails reports whether mail waits for the mail system.
func (s Stats) mailerFails(now time.Time) bool { return now.Sub(s.MailerFailed) <= maxBeatAge }

// figures asks the store for its figures.
type figures struct {
	store  Store
	events eventLog
	asked  atomic.Int64 // when warnIfLate did, in Unix milliseconds

	mu      sync.Mutex
	full    bool      // the latest count
	countAt time.Time // the next one
}

func (f *figures) get(ctx context.Context, now time.Time) (Stats, error) {
	store, ok := f.store.(StatsStore)
	if !ok {
		return Stats{}, fmt.Errorf("reset: Config.Store is no StatsStore: %w", errors.ErrUnsupported)
	}
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	var stats Stats
	err := f.events.noPanic(ctx, func() (err error) {
		stats, err = store.Stats(ctx, now)
		return err
	})
	if err != nil {
		return Stats{}, wrap("stats", err)
	}
	stats.Now = now
	return stats, nil
}

// beat records that this process runs Run. A failure shows elsewhere.
func (f *figures) beat(ctx context.Context, now time.Time, mailerFails bool) {
	store, ok := f.store.(StatsStore)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	f.events.noPanic(ctx, func() error { return store.Beat(ctx, now, mailerFails) })
}

// warnIfLate reports mail that waits for longer than it should, at most once a
// minute. A mail system that fails is reported elsewhere.
func (f *figures) warnIfLate(ctx context.Context, now time.Time) {
	asked := f.asked.Load()
	since := now.Sub(time.UnixMilli(asked)) // less than 0 when the clock was set back
	if _, ok := f.store.(StatsStore); !ok || 0 <= since && since < lateAfter || !f.asked.CompareAndSwap(asked, now.UnixMilli()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second) // a request may wait for it
	defer cancel()
	stats, err := f.get(ctx, now)
	if err != nil || stats.OldestDue <= lateAfter || stats.mailerFails(now) {
		return
	}
	attrs := []any{"oldest", stats.OldestDue.Truncate(time.Second), "waiting", stats.Waiting}
	if !stats.LastRun.IsZero() {
		attrs = append(attrs, "last_run", stats.LastRun.UTC())
	}
	f.events.log(ctx, queueLate, attrs...)
}

// room returns a *LimitError if most mails are queued. One caller counts while
// the others go by the latest count; a store that cannot be asked is not full.
func (f *figures) room(ctx context.Context, now time.Time, most int) error {
	store, ok := f.store.(StatsStore)
	if !ok {
		return nil
	}
	began := time.Now() // on a clock that nobody sets
	f.mu.Lock()
	counts := !began.Before(f.countAt)
	if counts {
		f.countAt = began.Add(statsTimeout)
	}
	full := f.full
	f.mu.Unlock()
	if counts {
		// A client that hangs up must not leave the queue without its bound.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statsTimeout)
		defer cancel()
		n := 0
		err := f.events.noPanic(ctx, func() (err error) { n, err = store.Queued(ctx, now, most); return err })
		full = err == nil && n >= most
		f.mu.Lock()
		f.full = full
		f.countAt = began.Add(max(countEvery, 10*time.Since(began)))
		f.mu.Unlock()
	}
	if full {
		f.events.count(ctx, queueFull)
		return &LimitError{RetryAfter: fullTimeout, Full: true}
	}
	return nil
}
