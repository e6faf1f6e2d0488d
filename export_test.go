package reset

import (
	"io"
	"log/slog"
)

// What the tests of package reset_test need of the inside.

var (
	Members        = members
	LinkActivation = linkActivation
)

// SetMaxKeys makes room for fewer keys.
func (l *MemoryLimiter) SetMaxKeys(n int) { l.max = n }

// Keys returns how many keys are remembered.
func (l *MemoryLimiter) Keys() int { return len(l.buckets) }

// SetRandom replaces the random source.
func (s *Service) SetRandom(r io.Reader) { s.mint.random = r }

// An Event is an event as the tests see it.
type Event struct {
	Name  string
	Level slog.Level
	Attrs []string
}

// Events returns every event of the package.
func Events() (list []Event) {
	for _, e := range allEvents {
		list = append(list, Event{e.name, e.level, e.attrs})
	}
	return list
}

// LogCounts logs the events that were counted so far.
func (s *Service) LogCounts() { s.events.logCounts() }
