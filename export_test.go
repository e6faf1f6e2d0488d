package reset

import "io"

// What the tests of package reset_test need of the inside.

var (
	Members  = members
	IsCommon = isCommon
)

// SetMaxKeys makes room for fewer keys.
func (l *MemoryLimiter) SetMaxKeys(n int) { l.max = n }

// Keys returns how many keys are remembered.
func (l *MemoryLimiter) Keys() int { return len(l.buckets) }

// SetRandom replaces the random source.
func (s *Service) SetRandom(r io.Reader) { s.random = r }
