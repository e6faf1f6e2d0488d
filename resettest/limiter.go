package resettest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

// TestLimiter tests a limiter that allows each key n events at once and n more
// over each period; it may spread those over the period as it likes. Each
// subtest tests one promise of reset.Limiter on a limiter from open, which must
// not have counted anything yet.
//
// Allow gets times from the year 1970 to the year 2222.
func TestLimiter(t *testing.T, open func(t *testing.T) reset.Limiter, n int, period time.Duration) {
	for _, s := range limiterSentences() {
		t.Run(s.name, func(t *testing.T) {
			cite(t, s.quote)
			s.check(&limiterCheck{TB: t, limiter: open(t), n: n, period: period})
		})
	}
}

func limiterSentences() []sentence[*limiterCheck] {
	const counts = "Allow counts one event for key and returns nil, or counts nothing and returns a *LimitError"
	return []sentence[*limiterCheck]{
		{"counts", counts, (*limiterCheck).counts},
		{"RetryAfter", "RetryAfter is positive, and long enough: after it a call is allowed, unless others were allowed meanwhile.", (*limiterCheck).retryAfter},
		{"refusals", counts + ": a refused call never prolongs the wait.", (*limiterCheck).refusals},
		{"refills", "limiters that allow each key n events at once and n more over each period", (*limiterCheck).refills},
		{"keys", "Keys compare as bytes.", (*limiterCheck).keys},
		{"goroutines", "It is safe for concurrent use by many goroutines.", (*limiterCheck).goroutines},
		{"time", "A Limiter knows the time only from now.", (*limiterCheck).time},
		{"cancelled", "Calls whose ctx has ended are never allowed beyond the limit, and disturb no later call.", (*limiterCheck).cancelled},
	}
}

type limiterCheck struct {
	testing.TB
	limiter reset.Limiter
	n       int
	period  time.Duration
}

// allow returns how long to wait, zero if the event was allowed.
func (c *limiterCheck) allow(key string, now time.Time) time.Duration {
	c.Helper()
	err := c.limiter.Allow(c.Context(), key, now)
	if err == nil {
		return 0
	}
	var limit *reset.LimitError
	if !errors.As(err, &limit) {
		c.Fatalf("Allow: got error %v, want a *LimitError", err)
	}
	if limit.RetryAfter <= 0 {
		c.Fatalf("Allow at %s: got RetryAfter %v, want more than 0", clock(now), limit.RetryAfter)
	}
	return limit.RetryAfter
}

// use makes n events, which must be allowed, and returns how long to wait after
// them.
func (c *limiterCheck) use(key string, now time.Time) time.Duration {
	c.Helper()
	for i := range c.n {
		if wait := c.allow(key, now); wait > 0 {
			c.Fatalf("Allow %d of %d for %q at %s: wait for %v", i+1, c.n, key, clock(now), wait)
		}
	}
	wait := c.allow(key, now)
	if wait == 0 {
		c.Fatalf("Allow for %q at %s: more than %d events", key, clock(now), c.n)
	}
	return wait
}

func (c *limiterCheck) counts() {
	c.use("key", start)
	err := c.limiter.Allow(c.Context(), "key", start)
	if !errors.Is(err, reset.ErrTooManyRequests) {
		c.Errorf("Allow: got error %v, want one that matches ErrTooManyRequests", err)
	}
}

func (c *limiterCheck) retryAfter() {
	wait := c.use("key", start)
	if wait > c.period {
		c.Errorf("Allow: got RetryAfter %v, longer than the period of %v", wait, c.period)
	}
	if more := c.allow("key", start.Add(wait)); more > 0 {
		c.Errorf("Allow after the wait of %v: wait for %v", wait, more)
	}
}

func (c *limiterCheck) refusals() {
	const tries = 50
	wait := c.use("key", start)
	for i := range time.Duration(tries) {
		passed := wait * i / tries
		left := c.allow("key", start.Add(passed))
		if left == 0 {
			return // earlier than RetryAfter said, which does no harm
		}
		if left > wait-passed+ms {
			c.Fatalf("Allow again, after %v of %v: wait for %v", passed, wait, left)
		}
	}
	if more := c.allow("key", start.Add(wait)); more > 0 {
		c.Errorf("Allow again and again during the wait of %v: wait for %v", wait, more)
	}
}

func (c *limiterCheck) refills() {
	c.use("key", start)
	allowed := 0
	for i := range time.Duration(10 * c.n) {
		if c.allow("key", start.Add(c.period*(i+1)/time.Duration(10*c.n))) == 0 {
			allowed++
		}
	}
	if allowed > c.n {
		c.Errorf("Allow: %d events in the period after the first %d, want at most %d", allowed, c.n, c.n)
	}
	c.use("key", start.Add(2*c.period+ms))
	c.use("idle", start)
	c.use("idle", start.Add(100*c.period)) // an idle key saves up no more than n
}

func (c *limiterCheck) keys() {
	for _, key := range append(lookalikes(), "", "192.0.2.1", "192.0.2.10", "2001:db8::1", "a@example.com") {
		c.use(key, start)
	}
}

func (c *limiterCheck) goroutines() {
	const keys = 3
	var allowed [keys]atomic.Int64
	parallel(keys*(3*c.n+10), func(i int) {
		err := c.limiter.Allow(c.Context(), fmt.Sprint("key ", i%keys), start)
		switch {
		case err == nil:
			allowed[i%keys].Add(1)
		case !errors.Is(err, reset.ErrTooManyRequests):
			c.Errorf("Allow: %v", err)
		}
	})
	for i := range allowed {
		if got := allowed[i].Load(); got != int64(c.n) {
			c.Errorf("key %d of %d: %d events, want %d", i+1, keys, got, c.n)
		}
	}
}

func (c *limiterCheck) time() {
	for _, year := range []int{1970, 2001, 2222} {
		now := time.Date(year, 2, 3, 4, 5, 6, 7e6, time.UTC)
		key := fmt.Sprint(year)
		wait := c.use(key, now)
		if more := c.allow(key, now.Add(wait)); more > 0 {
			c.Errorf("Allow in %d, after the wait of %v: wait for %v", year, wait, more)
		}
	}
}

func (c *limiterCheck) cancelled() {
	ctx := canceled(c.Context())
	allowed := 0
	for range c.n + 3 {
		if c.limiter.Allow(ctx, "key", start) == nil {
			allowed++
		}
	}
	if allowed > c.n {
		c.Errorf("Allow under a cancelled context: %d events, want at most %d", allowed, c.n)
	}
	if c.allow("key", start.Add(2*c.period+ms)) > 0 {
		c.Errorf("Allow does not recover from cancelled calls")
	}
}
