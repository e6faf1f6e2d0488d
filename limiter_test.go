package reset_test

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

func wait(t *testing.T, l reset.Limiter, key string, at time.Time) *reset.LimitError {
	t.Helper()
	err := l.Allow(t.Context(), key, at)
	if err == nil {
		return nil
	}
	var limit *reset.LimitError
	if !errors.As(err, &limit) || !errors.Is(err, reset.ErrTooManyRequests) || limit.RetryAfter <= 0 {
		t.Fatalf("Allow(%q) = %v; want nil or a *LimitError", key, err)
	}
	return limit
}

func TestMemoryLimiterRefills(t *testing.T) {
	l := reset.NewMemoryLimiter(3, time.Minute) // one every 20 s
	for i := range 3 {
		if e := wait(t, l, "a", noon); e != nil {
			t.Fatalf("event %d: %v", i, e)
		}
	}
	for range 100 { // refused calls do not prolong the wait
		if e := wait(t, l, "a", noon); e == nil || e.RetryAfter.Round(time.Millisecond) != 20*time.Second {
			t.Fatalf("RetryAfter = %v; want 20 s", e)
		}
	}
	if e := wait(t, l, "b", noon); e != nil {
		t.Errorf("another key is refused: %v", e)
	}
	if e := wait(t, l, "a", noon.Add(19*time.Second)); e == nil {
		t.Error("allowed 1 s too early")
	}
	if e := wait(t, l, "a", noon.Add(20*time.Second)); e != nil {
		t.Errorf("refused when the time was up: %v", e)
	}
	if e := wait(t, l, "a", noon.Add(-time.Hour)); e == nil {
		t.Error("a clock that jumps back gives an event away")
	}
}

// Calls that a site's limit refuses evict no other key.
func TestMemoryLimiterSiteEvictsNone(t *testing.T) {
	l := reset.NewMemoryLimiter(20, time.Minute)
	for range 19 {
		if e := wait(t, l, "192.0.2.1", noon); e != nil {
			t.Fatal(e)
		}
	}
	for i := range 66_000 { // more than it remembers
		wait(t, l, fmt.Sprintf("2001:db8:1:%x::/64", i), noon)
	}
	if e := wait(t, l, "192.0.2.1", noon); e != nil {
		t.Errorf("the last of 20 is refused: %v", e)
	}
	if e := wait(t, l, "192.0.2.1", noon); e == nil {
		t.Error("the 21st is allowed: the others were forgotten")
	}
}

func TestMemoryLimiterSite(t *testing.T) {
	l := reset.NewMemoryLimiter(2, time.Minute)
	allowed := 0
	for i := range 1000 { // many /64 of one /48
		if wait(t, l, fmt.Sprintf("2001:db8:1:%x::/64", i), noon) == nil {
			allowed++
		}
	}
	if allowed != 20 {
		t.Errorf("%d events of one /48 are allowed; want 20", allowed)
	}
	if e := wait(t, l, "2001:db8:2::/64", noon); e != nil {
		t.Errorf("another /48 is refused: %v", e)
	}
	// What the /48 refuses must not be charged to the /64.
	if e := wait(t, l, "2001:db8:1:ffff::/64", noon); e == nil || e.RetryAfter.Round(time.Millisecond) != 3*time.Second {
		t.Errorf("RetryAfter = %v; want 3 s, the refill of the /48", e)
	}
	for range 2 {
		if e := wait(t, l, "2001:db8:1:ffff::/64", noon.Add(6*time.Second)); e != nil {
			t.Errorf("the /64 was charged for a refused event: %v", e)
		}
	}
}

// Many /48 of one /40, and many /40 of one /32.
func TestMemoryLimiterNetworks(t *testing.T) {
	for _, tt := range []struct {
		format string // of the /48
		want   int
	}{
		{"2001:db8:12%02x::/64", 2 * 50},
		{"2001:db8:%02x00::/64", 2 * 250},
	} {
		l := reset.NewMemoryLimiter(2, time.Minute)
		allowed := 0
		for range 20 {
			for i := range 256 {
				if wait(t, l, fmt.Sprintf(tt.format, i), noon) == nil {
					allowed++
				}
			}
		}
		if allowed != tt.want {
			t.Errorf("%d events of %s are allowed; want %d", allowed, tt.format, tt.want)
		}
		if e := wait(t, l, "2001:db9::/64", noon); e != nil {
			t.Errorf("another /32 is refused: %v", e)
		}
	}
}

// Both the /64 and its /48 are exhausted: the longer wait is the right one.
func TestMemoryLimiterLongestWait(t *testing.T) {
	l := reset.NewMemoryLimiter(1, time.Minute)
	for i := range 10 {
		if e := wait(t, l, fmt.Sprintf("2001:db8:1:%x::/64", i), noon); e != nil {
			t.Fatal(e)
		}
	}
	if e := wait(t, l, "2001:db8:1:5::/64", noon); e == nil || e.RetryAfter.Round(time.Millisecond) != time.Minute {
		t.Errorf("RetryAfter = %v; want 1 m", e)
	}
}

func TestMemoryLimiterForgetsTheOldest(t *testing.T) {
	l := reset.NewMemoryLimiter(2, time.Minute)
	l.SetMaxKeys(10)
	wait(t, l, "exhausted", noon)
	wait(t, l, "exhausted", noon)
	for i := range 10_000 { // pressure
		wait(t, l, fmt.Sprint(i), noon)
	}
	if n := l.Keys(); n > 10 {
		t.Errorf("%d keys are remembered; want 10 at most", n)
	}
	if wait(t, l, "exhausted", noon) == nil {
		t.Error("an exhausted key was forgotten under pressure")
	}
	// 30 s later it gives one event; it is not full before 60 s have passed.
	if e := wait(t, l, "exhausted", noon.Add(30*time.Second)); e != nil {
		t.Errorf("refused when the time was up: %v", e)
	}
	for i := range 100 {
		wait(t, l, fmt.Sprint("again", i), noon.Add(59*time.Second))
	}
	if e := wait(t, l, "exhausted", noon.Add(59*time.Second)); e == nil {
		t.Error("an exhausted key was forgotten before it was full")
	}
}

func TestMemoryLimiterFull(t *testing.T) {
	l := reset.NewMemoryLimiter(1, time.Minute)
	l.SetMaxKeys(3)
	for i := range 3 {
		wait(t, l, fmt.Sprint(i), noon.Add(time.Duration(i)*time.Second))
	}
	e := wait(t, l, "new", noon.Add(3*time.Second))
	if e == nil || !e.Full || e.RetryAfter.Round(time.Millisecond) != 57*time.Second {
		t.Errorf("a new key in a full table: %+v; want Full, RetryAfter 57 s", e)
	}
	if e := wait(t, l, "new", noon.Add(60*time.Second)); e != nil {
		t.Errorf("refused after the first was full again: %v", e)
	}
}

func TestMemoryLimiterManyKeys(t *testing.T) {
	l := reset.NewMemoryLimiter(20, time.Minute)
	for i := range 200_000 {
		wait(t, l, fmt.Sprint(i), noon)
	}
	if n := l.Keys(); n != 1<<16 {
		t.Errorf("%d keys are remembered; want 65536", n)
	}
}

// A million addresses of one /64 are one client, whose requests beyond the limit
// leave nothing behind, whatever address they are for.
func TestMillionAddresses(t *testing.T) {
	const n, requests = 1_000_000, 10_000
	limiter := reset.NewMemoryLimiter(20, time.Hour)
	f := newFixture(t, newHost(), func(c *reset.Config) { c.PerClient = limiter })
	client := reset.ClientIPBehind()
	allowed := 0
	for i := range n {
		key := client(&http.Request{RemoteAddr: fmt.Sprintf("[2001:db8:1:2:%x:%x::]:443", i>>16+1, i&0xffff)})
		var err error
		if i < requests {
			err = f.Forgot(t.Context(), fmt.Sprintf("user%d@example.com", i), key, reset.ForgotOptions{})
		} else {
			err = limiter.Allow(t.Context(), key, time.Now())
		}
		if err == nil {
			allowed++
		}
	}
	if keys := limiter.Keys(); allowed != 20 || f.writes() != 20 || keys != 4 { // the /64, its /48, /40 and /32
		t.Errorf("%d requests are allowed, %d stored, %d keys remembered; want 20, 20, 4", allowed, f.writes(), keys)
	}
	f.wantEvent("client_limited", requests-20)
	if records := len(f.log.all()); records > 10 {
		t.Errorf("%d records", records)
	}
}

func TestMemoryLimiterParallel(t *testing.T) {
	l := reset.NewMemoryLimiter(50, time.Hour)
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if l.Allow(t.Context(), "2001:db8::/64", noon) == nil {
				allowed.Add(1)
			}
		})
	}
	wg.Wait()
	if n := allowed.Load(); n != 50 {
		t.Errorf("%d of 200 parallel events are allowed; want 50", n)
	}
}

func TestUnlimited(t *testing.T) {
	for range 1000 {
		if err := reset.Unlimited.Allow(t.Context(), "a", noon); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkMemoryLimiter(b *testing.B) {
	l := reset.NewMemoryLimiter(20, time.Minute)
	keys := make([]string, 100_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("2001:db8:%x:%x::/64", i>>4, i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Allow(b.Context(), keys[i%len(keys)], noon.Add(time.Duration(i)*time.Millisecond))
	}
}

// A new /64 in a /48 that is full again while other buckets are not.
func TestMemoryLimiterSiteFullAgain(t *testing.T) {
	l := reset.NewMemoryLimiter(1, time.Minute)
	for i := range 10 {
		if e := wait(t, l, fmt.Sprintf("2001:db8:1:%x::/64", i), noon); e != nil {
			t.Fatal(e)
		}
	}
	wait(t, l, "192.0.2.1", noon.Add(30*time.Second))
	for i, want := range []bool{true, false} {
		if got := wait(t, l, "2001:db8:1:ffff::/64", noon.Add(65*time.Second)) == nil; got != want {
			t.Errorf("event %d of a new /64: allowed %v, want %v", i, got, want)
		}
	}
}

// FuzzMemoryLimiter compares it with buckets that are never forgotten. Each
// pair of bytes is a key and the seconds that have passed.
func FuzzMemoryLimiter(f *testing.F) {
	const n, period = 2, 60 // seconds
	f.Add([]byte{0, 0, 1, 0, 2, 0, 3, 0, 8, 30, 4, 35, 4, 0})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 30, 0, 255, 9, 1})
	f.Fuzz(func(t *testing.T, steps []byte) {
		l := reset.NewMemoryLimiter(n, period*time.Second)
		type bucket struct{ tokens, most, at float64 }
		buckets := make(map[string]*bucket)
		find := func(key string, most, at float64) *bucket {
			b := buckets[key]
			if b == nil {
				b = &bucket{most, most, at}
				buckets[key] = b
			}
			b.tokens, b.at = min(b.most, b.tokens+(at-b.at)*b.most/period), at
			return b
		}
		now := 0.0
		for ; len(steps) >= 2; steps = steps[2:] {
			k := int(steps[0] % 64)
			now += float64(steps[1])
			key, charged := fmt.Sprint(k), []*bucket{}
			if k < 60 { // of two sites
				key = fmt.Sprintf("2001:db8:%x:%x::/64", k%2, k)
				charged = append(charged, find(fmt.Sprint("site ", k%2), 10*n, now))
			}
			charged = append(charged, find(key, n, now))
			least := min(charged[0].tokens, charged[len(charged)-1].tokens)
			if math.Abs(least-1) < 1e-6 {
				return // either answer is right
			}
			if got := wait(t, l, key, noon.Add(time.Duration(now)*time.Second)) == nil; got != (least > 1) {
				t.Fatalf("%s after %v s, with %v tokens: allowed %v", key, now, least, got)
			}
			for _, b := range charged {
				if least > 1 {
					b.tokens--
				}
			}
		}
	})
}
