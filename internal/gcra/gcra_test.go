package gcra_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/gopassreset/reset/internal/gcra"
)

func TestLimits(t *testing.T) {
	rate, err := gcra.NewRate(20, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string][]gcra.Limit{
		"192.0.2.1": {{"192.0.2.1", 3_000_000, 60_000_000}},
		"2001:db8:1234:5678::/64": {
			{"2001:db8:1234:5678::/64", 3_000_000, 60_000_000}, {"2001:db8:1234::/48", 300_000, 60_000_000},
			{"2001:db8:1200::/40", 60_000, 60_000_000}, {"2001:db8::/32", 12_000, 60_000_000},
		},
	} {
		if got := rate.Limits(key); !slices.Equal(got, want) {
			t.Errorf("Limits(%q) = %v, want %v", key, got, want)
		}
	}
}

// As many events as anybody can ask for are no limit.
func TestNoLimit(t *testing.T) {
	for _, n := range []int{1 << 30, math.MaxInt} {
		rate, err := gcra.NewRate(n, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range rate.Limits("2001:db8:1234:5678::/64") {
			if l.Interval != 1 || l.Bucket < 1<<30 {
				t.Errorf("%d events: %+v", n, l)
			}
		}
	}
}

func TestWait(t *testing.T) {
	for _, tt := range []struct {
		n         int
		period    time.Duration
		now, full int64
		want      time.Duration
	}{
		{3, 3 * time.Second, 0, 0, -2 * time.Second},
		{3, 3 * time.Second, 0, 2_000_000, 0},
		{3, 3 * time.Second, 0, 3_000_000, time.Second},
		{3, 3 * time.Second, 0, 9_000_000, time.Second}, // of a clock that was ahead
		{3, 3 * time.Second, 1_000_000, 3_000_000, 0},
		{1, time.Second, 0, 1, time.Microsecond},
		{7, time.Second, 0, 7 * 142_858, 142_858 * time.Microsecond}, // rounded up
		{1000, time.Microsecond, 0, 1000, time.Microsecond},
		{1, 1, 0, 1, time.Microsecond},
	} {
		rate, err := gcra.NewRate(tt.n, tt.period)
		if err != nil {
			t.Fatal(err)
		}
		if got := rate.Limits("key")[0].Wait(tt.now, tt.full); got != tt.want {
			t.Errorf("%d in %v at %d, full at %d: Wait = %v, want %v", tt.n, tt.period, tt.now, tt.full, got, tt.want)
		}
	}
}

func TestNewRate(t *testing.T) {
	for _, tt := range []struct {
		n      int
		period time.Duration
	}{{0, time.Second}, {-1, time.Second}, {1, 0}, {1, -1}} {
		if _, err := gcra.NewRate(tt.n, tt.period); err == nil {
			t.Errorf("NewRate(%d, %v) succeeded", tt.n, tt.period)
		}
	}
}
