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

// Idle returns how many connections wait for a message.
func (m *SMTPMailer) Idle() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.idle)
}

// Compose returns the bytes that Send would send.
func (m *SMTPMailer) Compose(msg Message, now time.Time) ([]byte, error) {
	c, err := m.settings()
	if err != nil {
		return nil, err
	}
	l, err := c.compose(msg, now)
	return l.data, err
}
