package reset

import (
	"container/heap"
	"container/list"
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/gopassreset/reset/internal/clientkey"
)

// A Limiter decides how often something may happen for a key. It is safe for
// concurrent use by many goroutines. Package resettest has the test suite for
// limiters that allow each key n events at once and n more over each period.
//
// A Limiter may also have the method
//
//	Burst() int
//
// which returns how many events it allows one key at once. New compares it with
// [Config].Workers.
type Limiter interface {
	// Allow counts one event for key and returns nil, or counts nothing and
	// returns a *LimitError: a refused call never prolongs the wait. RetryAfter
	// is positive, and long enough: after it a call is allowed, unless others
	// were allowed meanwhile. Keys compare as bytes. A Limiter knows the time
	// only from now.
	//
	// Any other error is a failure of the limiter, on which the Service refuses
	// what would have sent mail. After 200 ms the Service stops waiting, which
	// is such a failure too. Calls whose ctx has ended are never allowed beyond
	// the limit, and disturb no later call.
	Allow(ctx context.Context, key string, now time.Time) error
}

// Unlimited is the Limiter that allows everything.
var Unlimited Limiter = unlimited{}

type unlimited struct{}

func (unlimited) Allow(context.Context, string, time.Time) error { return nil }

func (unlimited) Burst() int { return math.MaxInt }

// maxKeys bounds the memory of a MemoryLimiter to about 20 MB.
const maxKeys = 1 << 16

// A MemoryLimiter is a Limiter within one process. It has a token bucket of
// golang.org/x/time/rate for each key, full at first. A key that is an IPv6 /64
// prefix, as [ClientIPBehind] returns it, is also charged to its /48 at 10
// times the rate, since one subscriber commonly holds a whole /48, to its /40
// at 50 and to its /32 at 250 times the rate.
//
// It remembers at most 65,536 keys. A new key replaces the one seen longest
// ago, except that a bucket which was exhausted is kept until it is full again.
// If every bucket is still refilling, new keys are refused until one is full.
// A MemoryLimiter starts no goroutine, and the Service waits for it without a
// timeout. Create it with NewMemoryLimiter.
//
// Behind n processes a key has n times the limit; packages limiterredis and
// limitersql have limiters whose counts processes share.
type MemoryLimiter struct {
	mu        sync.Mutex
	limit     rate.Limit
	burst     int
	max       int
	buckets   map[string]*bucket
	seen      list.List   // of *bucket, seen longest ago first
	exhausted refillQueue // buckets that may not be forgotten before they are full
}

const maxBurst = 1 << 24 // is as good as no limit

// NewMemoryLimiter returns a MemoryLimiter that allows each key n events at
// once and n more over each period. It panics unless n and period are positive.
func NewMemoryLimiter(n int, period time.Duration) *MemoryLimiter {
	if n <= 0 || period <= 0 {
		panic("reset: NewMemoryLimiter: n and period must be positive")
	}
	return &MemoryLimiter{
		limit:   rate.Limit(float64(n) / period.Seconds()),
		burst:   n,
		max:     maxKeys,
		buckets: make(map[string]*bucket),
	}
}

// A bucket is in exactly one of the limiter's two queues.
type bucket struct {
	key    string
	tokens *rate.Limiter
	seen   *list.Element // its place in MemoryLimiter.seen, or nil
	index  int           // its place in MemoryLimiter.exhausted, where seen is nil
	full   time.Time     // when an exhausted bucket will be full again
}

// Burst returns how many events one key may have at once.
func (l *MemoryLimiter) Burst() int { return l.burst }

// Allow implements Limiter. Its error is nil or a *LimitError.
func (l *MemoryLimiter) Allow(_ context.Context, key string, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetFull(now)

	// The networks come first: a call that one of them refuses must not add a
	// bucket, which would evict another key's.
	var wait time.Duration
	var charged []*bucket
	for _, n := range append(clientkey.Networks(key), clientkey.Network{Key: key, Factor: 1}) {
		if l.buckets[n.Key] == nil && wait > 0 {
			continue
		}
		b, err := l.bucket(n.Key, n.Factor, charged, now)
		if err != nil {
			return err
		}
		wait = max(wait, b.wait(now))
		charged = append(charged, b)
	}
	if wait > 0 {
		return &LimitError{RetryAfter: wait}
	}
	for _, b := range charged {
		b.tokens.AllowN(now, 1)
		l.file(b, now)
	}
	return nil
}

// bucket returns the bucket of a key. A new bucket may evict any other one
// except those in keep.
func (l *MemoryLimiter) bucket(key string, factor int, keep []*bucket, now time.Time) (*bucket, error) {
	b := l.buckets[key]
	if b != nil {
		if b.seen != nil {
			l.seen.MoveToBack(b.seen)
		}
		return b, nil
	}
	if len(l.buckets) >= l.max {
		oldest := l.seen.Front()
		for oldest != nil && slices.Contains(keep, oldest.Value.(*bucket)) {
			oldest = oldest.Next()
		}
		if oldest == nil {
			wait := time.Second
			if len(l.exhausted) > 0 {
				wait = l.exhausted[0].full.Sub(now)
			}
			return nil, &LimitError{RetryAfter: wait, Full: true}
		}
		l.forget(oldest.Value.(*bucket))
	}
	b = &bucket{key: key, tokens: rate.NewLimiter(l.limit*rate.Limit(factor), min(l.burst, maxBurst)*factor)}
	b.seen = l.seen.PushBack(b)
	l.buckets[key] = b
	return b, nil
}

// forgetFull forgets the exhausted buckets that are full again: a new bucket
// would equal them.
func (l *MemoryLimiter) forgetFull(now time.Time) {
	for len(l.exhausted) > 0 && !l.exhausted[0].full.After(now) {
		l.forget(l.exhausted[0])
	}
}

func (l *MemoryLimiter) forget(b *bucket) {
	if b.seen != nil {
		l.seen.Remove(b.seen)
	} else {
		heap.Remove(&l.exhausted, b.index)
	}
	delete(l.buckets, b.key)
}

// wait returns how long it takes until the bucket has a token.
func (b *bucket) wait(now time.Time) time.Duration {
	missing := max(0, 1-b.tokens.TokensAt(now))
	return time.Duration(math.Ceil(missing / float64(b.tokens.Limit()) * 1e9))
}

// file moves a bucket from which a token was taken to the right queue.
func (l *MemoryLimiter) file(b *bucket, now time.Time) {
	left := b.tokens.TokensAt(now)
	missing := (float64(b.tokens.Burst()) - left) / float64(b.tokens.Limit())
	full := now.Add(time.Duration(missing * float64(time.Second)))
	switch {
	case b.seen == nil: // exhausted before, and not full since
		b.full = full
		heap.Fix(&l.exhausted, b.index)
	case left < 1:
		l.seen.Remove(b.seen)
		b.seen, b.full = nil, full
		heap.Push(&l.exhausted, b)
	}
}

// refillQueue is a heap of buckets; the one that is full soonest is on top.
type refillQueue []*bucket

func (q refillQueue) Len() int           { return len(q) }
func (q refillQueue) Less(i, j int) bool { return q[i].full.Before(q[j].full) }
func (q refillQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *refillQueue) Push(x any) {
	b := x.(*bucket)
	b.index = len(*q)
	*q = append(*q, b)
}

func (q *refillQueue) Pop() any {
	old := *q
	b := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return b
}
