package reset

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"strconv"
	"strings"
	"time"

	"github.com/gopassreset/reset/internal/smtp"
)

const exchangeMost = 30 * time.Second // the default of SMTPMailer.Timeout

// An SMTPMailer is the [Mailer] that hands each message to a mail server, over
// SMTP (RFC 5321). Addr and From are required:
//
//	&reset.SMTPMailer{
//		Addr:     "smtp.example.com:587",
//		From:     "Example <no-reply@example.com>",
//		Username: "no-reply@example.com",
//		Password: os.Getenv("SMTP_PASSWORD"),
//	}
//
// It insists on TLS 1.2 or later with a valid certificate, and on
// authentication if it has a Username: a server that offers less gets no mail.
//
// A connection waits up to 5 s for the next message, at most 8 do; see Close.
// The fields must not change once the mailer is in use.
type SMTPMailer struct {
	// Addr is the server, as "host:port". On port 465 TLS comes first
	// (RFC 8314), on any other it is demanded by STARTTLS (RFC 3207).
	Addr string

	// From is the sender, as "no-reply@example.com" or
	// "Example <no-reply@example.com>". Its address gets the bounces, its
	// domain stands in the Message-ID.
	From string

	// ReplyTo is where answers go, in the form of From. Default: From.
	ReplyTo string

	// Username and Password log in, by the mechanism PLAIN or else LOGIN.
	// Default: no log-in.
	Username, Password string

	// TLSConfig is for a certificate authority of your own, or a client
	// certificate. Its ServerName defaults to the host of Addr, its MinVersion
	// to TLS 1.2, below which it is raised. Default: an empty one.
	TLSConfig *tls.Config

	// ImplicitTLS starts with TLS also on a port other than 465.
	ImplicitTLS bool

	// InsecureNoTLS uses no TLS at all: whoever is on the way to the server can
	// read the links, and take accounts over. It is meant for a server on this
	// machine, and is refused together with a Username for any other.
	InsecureNoTLS bool

	// HelloName is how the mailer introduces itself; some servers insist on the
	// sending machine's full name. Default: "localhost".
	HelloName string

	// Timeout bounds a whole exchange, from the look-up of the server's name to
	// its last answer. Default: 30 s. Run gives it no more than that.
	Timeout time.Duration

	client smtp.Client
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
}

var _ Mailer = (*SMTPMailer)(nil)

// Check returns the first mistake that can be found in the fields, by name. It
// connects to nothing. Send would return the same error, but only once there is
// a message.
func (m *SMTPMailer) Check() error {
	_, err := m.settings()
	return err
}

// Send hands msg to the server. Its error wraps [ErrUndeliverable] if the
// address is at fault, or if the server refused the recipient or the message
// itself for good, with a reply of 5xx. Every other failure is the server's or
// the configuration's and may pass: no connection, no TLS, a log-in refused, a
// sender refused, any reply of 4xx, a time-out. The error tells at which stage
// the exchange failed, and has no secret in it.
//
// After a failure in the middle of an exchange the server may have accepted the
// message all the same.
func (m *SMTPMailer) Send(ctx context.Context, msg Message) error {
	c, err := m.settings()
	if err != nil {
		return err
	}
	e, err := compose(msg, c.from, c.replyTo, time.Now())
	if err != nil {
		return err
	}
	err = m.client.Send(ctx, c.server, e)
	var failure *smtp.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &failure) && failure.Permanent():
		return fmt.Errorf("%w: %w", ErrUndeliverable, err)
	}
	return fmt.Errorf("reset: %w", err)
}

// Close says goodbye to the server on the idle connections, which otherwise
// happens by itself after 5 s. It disturbs no Send, and the mailer may be used
// afterwards.
func (m *SMTPMailer) Close() error {
	m.client.Close()
	return nil
}

// smtpSettings are the checked fields of an SMTPMailer.
type smtpSettings struct {
	from, replyTo *mail.Address // replyTo may be nil
	server        smtp.Server
}

func (m *SMTPMailer) settings() (c smtpSettings, err error) {
	wrong := func(field, format string, args ...any) (smtpSettings, error) {
		return smtpSettings{}, fmt.Errorf("reset: SMTPMailer."+field+" "+format, args...)
	}
	host, port, err := net.SplitHostPort(m.Addr)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || n == 0 || host == "" {
		return wrong("Addr", "is %q, not of the form host:port", m.Addr)
	}
	if c.from, err = parseMailbox(m.From); err != nil {
		return wrong("From", "is %q: %w", m.From, err)
	}
	if m.ReplyTo != "" {
		if c.replyTo, err = parseMailbox(m.ReplyTo); err != nil {
			return wrong("ReplyTo", "is %q: %w", m.ReplyTo, err)
		}
	}
	if (m.Username == "") != (m.Password == "") {
		return wrong("Username", "and Password are needed both or neither")
	}
	if strings.Contains(m.Username+m.Password, "\x00") {
		return wrong("Username", "or Password has a NUL, which no server can be told")
	}
	c.server = smtp.Server{
		Addr:        m.Addr,
		ImplicitTLS: m.ImplicitTLS || port == "465",
		Hello:       cmp.Or(m.HelloName, "localhost"),
		Username:    m.Username,
		Password:    m.Password,
		Timeout:     cmp.Or(m.Timeout, exchangeMost),
		Dial:        m.dial,
	}
	switch {
	case !m.InsecureNoTLS:
		c.server.TLS = cmp.Or(m.TLSConfig, new(tls.Config))
	case c.server.ImplicitTLS || m.TLSConfig != nil:
		return wrong("InsecureNoTLS", "excludes port 465, ImplicitTLS and TLSConfig")
	case m.Username != "" && !isLoopback(host):
		return wrong("InsecureNoTLS", "would show the password to everybody on the way to %s", host)
	}
	if strings.ContainsFunc(c.server.Hello, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return wrong("HelloName", "is %q, not a host's name", m.HelloName)
	}
	if c.server.Timeout < 0 {
		return wrong("Timeout", "is negative")
	}
	return c, nil
}
