package reset

import (
	"context"
	"math"
	"sync"
	"time"
)

const (
	minBreak    = time.Second
	maxBreak    = time.Minute
	reportEvery = time.Minute     // between lines about a mail system that is unavailable
	calmTime    = time.Minute     // without a break: the mail system is available again
	forgetTime  = 2 * time.Minute // without a failure: any number of exchanges is tried again
)

// A breaker keeps a mail system that fails from meeting every mail in the queue.
// At first it limits nothing. A failure of the mail system lowers the limit to
// the exchanges that are still going on, which it may be able to bear; at zero
// that is a break. After a pause one exchange beyond the limit is a probe. Its
// success raises the limit by one, a failure doubles the pause. After a break
// the pause is short, and the first success ends it.
type breaker struct {
	events eventLog

	mu       sync.Mutex
	running  int  // turns
	limited  bool // since the first failure
	limit    int  // turns at a time, if limited
	bound    int  // the limit from which on a probe waits for the pause
	probing  bool
	pause    time.Duration
	probeAt  time.Time
	failedAt time.Time // the latest failure

	down      bool // since a break, until calmTime has passed since the latest one
	downSince time.Time
	brokenAt  time.Time // the latest break
	reportAt  time.Time // the earliest time of the next line
	failures  int       // since downSince, or since the latest line
	sent      int
	cause     error // of the latest failure
}

func newBreaker(events eventLog) *breaker {
	return &breaker{events: events}
}

// A turn is the permission for one exchange.
type turn struct {
	began time.Time
	probe bool
}

// An outcome is what a turn has shown of the mail system.
type outcome int

const (
	noExchange outcome = iota // nothing
	inconclusive
	available
	unavailable
)

// begin returns at most n turns, or after how long to ask again.
func (b *breaker) begin(now time.Time, n int) (turns []turn, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isForgotten(now) {
		b.limited = false
	} else {
		n = min(n, b.limit-b.running)
	}
	for range n {
		turns = append(turns, turn{began: now})
	}
	if len(turns) == 0 {
		if wait := b.untilProbe(now); wait > 0 {
			return nil, wait
		}
		b.probing = true
		turns = []turn{{began: now, probe: true}}
	}
	b.running += len(turns)
	return turns, 0
}

// beginUnlimited returns a turn if there is no limit.
func (b *breaker) beginUnlimited(now time.Time) (t turn, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.isForgotten(now) {
		return turn{}, false
	}
	b.limited = false
	b.running++
	return turn{began: now}, true
}

// allows returns how many mails may be leased, as many as begin would give
// turns, or after how long to ask again.
func (b *breaker) allows(now time.Time) (n int, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isForgotten(now) {
		return math.MaxInt, 0
	}
	if n := b.limit - b.running; n > 0 {
		return n, 0
	}
	if wait := b.untilProbe(now); wait > 0 {
		return 0, wait
	}
	return 1, 0
}

// limits reports whether there is a limit.
func (b *breaker) limits(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.isForgotten(now)
}

// isForgotten reports whether there is no limit.
func (b *breaker) isForgotten(now time.Time) bool {
	return !b.limited || b.limit > 0 && !now.Before(b.failedAt.Add(forgetTime))
}

// untilProbe returns how long a probe has to wait.
func (b *breaker) untilProbe(now time.Time) time.Duration {
	switch {
	case b.probing || b.running > b.limit:
		return minBreak
	case b.limit == 0 || b.limit >= b.bound:
		return max(0, b.probeAt.Sub(now))
	}
	return 0
}

// end ends a turn. cause is why the mail system is unavailable.
func (b *breaker) end(ctx context.Context, now time.Time, t turn, o outcome, cause error) {
	b.mu.Lock()
	b.running--
	if t.probe {
		b.probing = false
	}
	goesDown := false
	switch {
	case o == unavailable:
		goesDown = b.fail(now, t, cause)
	case o == available:
		b.sent++
		if t.probe {
			b.limit++
			b.bound = max(b.bound, b.limit)
			b.probeAt = now.Add(b.pause)
		}
	}
	b.mu.Unlock()

	if goesDown {
		b.events.log(ctx, mailerFailed, "error", cause)
	}
}

// fail lowers the limit, and reports whether the mail system is unavailable as of
// now. Turns that began before the latest failure are part of it: they do not
// prolong the pause.
func (b *breaker) fail(now time.Time, t turn, cause error) (goesDown bool) {
	b.cause = cause
	b.failures++
	wasZero := b.limited && b.limit == 0
	if !b.limited || b.running < b.limit {
		b.limited, b.limit = true, b.running
	}
	b.bound = b.limit
	if b.limit == 0 {
		b.bound = math.MaxInt
	}
	isBreak := b.limit == 0 && !wasZero
	if isBreak || t.probe || t.began.After(b.failedAt) {
		if isBreak {
			b.pause = 0
		}
		b.pause = min(max(2*b.pause, minBreak), maxBreak)
		b.probeAt = now.Add(b.pause)
		b.failedAt = now
	}
	if b.limit == 0 {
		b.brokenAt = now
	}
	if b.limit > 0 || b.down {
		return false
	}
	b.down, b.downSince, b.failures, b.sent = true, now, 1, 0
	b.reportAt = now.Add(reportEvery)
	return true
}

// report logs, at most once a minute, how a mail system does that has failed.
func (b *breaker) report(ctx context.Context, now time.Time) {
	b.mu.Lock()
	attrs := []any{"since", b.downSince.UTC(), "failures", b.failures, "sent", b.sent}
	var e event
	switch {
	case !b.down && b.failures > 0 && !now.Before(b.reportAt):
		b.failures = 0
		b.reportAt = now.Add(reportEvery)
		e, attrs = mailerThrottled, []any{"limit", b.limit, "error", b.cause}
	case !b.down:
	case b.limit > 0 && !now.Before(b.brokenAt.Add(calmTime)):
		b.down, b.failures = false, 0
		e = mailerRecovered
	case !now.Before(b.reportAt):
		b.reportAt = now.Add(reportEvery)
		e, attrs = mailerFailing, append(attrs, "error", b.cause)
	}
	b.mu.Unlock()

	if e.name != "" {
		b.events.log(ctx, e, attrs...)
	}
}

// isDown reports whether the mail system is unavailable, or was a minute ago.
func (b *breaker) isDown() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down
}
