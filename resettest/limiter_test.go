package resettest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

func TestMemoryLimiter(t *testing.T) {
	for _, test := range []struct {
		n      int
		period time.Duration
	}{
		{1, time.Second},
		{3, 100 * time.Millisecond},
		{20, time.Minute},
		{7, 24 * time.Hour},
	} {
		t.Run(fmt.Sprintf("%d in %v", test.n, test.period), func(t *testing.T) {
			resettest.TestLimiter(t, func(*testing.T) reset.Limiter {
				return reset.NewMemoryLimiter(test.n, test.period)
			}, test.n, test.period)
		})
	}
}
