package reset

import (
	"context"
	"io"
	"log/slog"
	"net"
	"time"
)

// Internals for package reset_test.

var (
	Members        = members
	LinkActivation = linkActivation
)

// SetMaxKeys makes room for fewer keys.
func (l *MemoryLimiter) SetMaxKeys(n int) { l.max = n }

// Keys returns how many keys are remembered.
func (l *MemoryLimiter) Keys() int { return len(l.buckets) }

// Mint returns an activation as it is made for a user.
func (s *Service) Mint(u User) (string, error) {
	activation, _, err := s.mint.activation(u, ID{}, time.Time{})
	return activation, err
}

// SetRandom replaces the random source.
func (s *Service) SetRandom(r io.Reader) { s.mint.random = r }

// Routes returns what Handler and Pages answer, as "GET /reset".
func (s *Service) Routes() (list []string) {
	for path := range s.trustedRoutes() {
		list = append(list, "POST "+path)
	}
	for path, route := range newPages(s).routes {
		list = append(list, "GET "+path)
		if route.post != nil {
			list = append(list, "POST "+path)
		}
	}
	return list
}

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

// Fairness is what gives public requests their class.
type Fairness struct{ f fairness }

func (f *Fairness) Class(client string, now time.Time) int { return f.f.class(client, now) }

// Keys returns how many keys are remembered.
func (f *Fairness) Keys() int { return len(f.f.now) }

// SetDial replaces the network.
func (m *SMTPMailer) SetDial(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	m.dial = dial
}

// Idle returns the number of idle connections.
func (m *SMTPMailer) Idle() int { return m.client.Idle() }

// Compose returns the bytes that Send would send.
func (m *SMTPMailer) Compose(msg Message, now time.Time) ([]byte, error) {
	_, s, err := m.settings()
	if err != nil {
		return nil, err
	}
	e, err := compose(msg, s, now)
	return e.Data, err
}
