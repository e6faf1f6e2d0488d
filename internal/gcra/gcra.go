// Package gcra has the arithmetic of limiters that processes share: the generic
// cell rate algorithm, which keeps one time for each key. That is when the key's
// bucket will be full again, in Unix microseconds. Each event moves it by an
// interval, and it is never ahead of now by more than a whole bucket.
package gcra

import (
	"errors"
	"slices"
	"time"

	"github.com/gopassreset/reset/internal/clientkey"
)

// A Rate is n events at once and n more over each period.
type Rate struct {
	n      int
	period time.Duration
}

// NewRate returns an error unless n and period are positive.
func NewRate(n int, period time.Duration) (Rate, error) {
	if n <= 0 || period <= 0 {
		return Rate{}, errors.New("n and period must be positive")
	}
	return Rate{n, period}, nil
}

// Burst returns how many events a key may have at once.
func (r Rate) Burst() int { return r.n }

// A Limit is one that an event is charged to. Durations are in microseconds.
type Limit struct {
	Key      string
	Interval int64 // refills one event
	Bucket   int64 // refills a whole bucket
}

// Limits returns the limits of an event: that of its key, then those of the
// networks that the key belongs to, the widest last.
func (r Rate) Limits(key string) []Limit {
	limits := []Limit{r.limit(key, 1)}
	for _, n := range slices.Backward(clientkey.Networks(key)) {
		limits = append(limits, r.limit(n.Key, n.Factor))
	}
	return limits
}

// maxEvents is as good as no limit.
const maxEvents = 1 << 40

// limit rounds intervals up, so that no key gets more than its limit.
func (r Rate) limit(key string, factor int) Limit {
	events := min(int64(r.n), maxEvents) * int64(factor)
	period := int64((r.period + time.Microsecond - 1) / time.Microsecond)
	interval := (period + events - 1) / events
	return Limit{key, interval, events * interval}
}

// Latest returns the latest time of a key that may have another event at now.
func (l Limit) Latest(now int64) int64 { return now + l.Bucket - l.Interval }

// Wait returns how long a key with the given time has to wait at now for its
// next event, and zero or less if it has not.
func (l Limit) Wait(now, full int64) time.Duration {
	full = min(full, now+l.Bucket) // the clock may have been ahead
	return time.Duration(full-l.Latest(now)) * time.Microsecond
}
