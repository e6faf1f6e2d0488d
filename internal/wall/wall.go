// Package wall is the clock of the machine, which tests can set wrong. Nothing
// outside of this repository's modules can import it.
package wall

import (
	"sync/atomic"
	"time"
)

var skew atomic.Int64

// Now returns what the clock of the machine shows.
func Now() time.Time {
	d := time.Duration(skew.Load())
	if d == 0 {
		return time.Now()
	}
	return time.Now().Round(0).Add(d) // elapsed time stays right
}

// Skew sets the clock ahead by d, which may be negative, for this process only.
func Skew(d time.Duration) { skew.Store(int64(d)) }
