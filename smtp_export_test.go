package reset

import (
	"context"
	"net"
	"time"
)

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
