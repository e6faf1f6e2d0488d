package reset

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gopassreset/reset/internal/smtp"
)

const smtpTimeout = 30 * time.Second // the default of SMTPMailer.Timeout

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
// A connection stays open for the next message for 5 s; see Close. Where the
// server offers PIPELINING (RFC 2920) it is used. The fields must not change once
// the mailer is in use.
type SMTPMailer struct {
	// Addr is the server, as "host:port" with a port in digits or by name,
	// or "unix:/path" for a socket on this machine. On port 465 (submissions)
	// TLS comes first (RFC 8314), on any other it is demanded by STARTTLS
	// (RFC 3207).
	Addr string

	// From is the sender, as "no-reply@example.com" or
	// "Example <no-reply@example.com>". Its domain stands in the Message-ID.
	From string

	// EnvelopeFrom is the address that gets the bounces (RFC 5321, 4.4).
	// Default: the address of From.
	EnvelopeFrom string

	// ReplyTo is where answers go, in the form of From. Default: From.
	ReplyTo string

	// Header has more header fields for every message, such as a provider's
	// switch for click tracking, which must be off for links that are secret.
	// A value is printable ASCII. Fields that the mailer writes itself are
	// refused.
	Header map[string]string

	// Username and Password log in, by the mechanism PLAIN or else LOGIN.
	// Default: no log-in.
	Username, Password string

	// Token replaces Password by an OAuth 2 access token for Username, for the
	// mechanism OAUTHBEARER (RFC 7628) or else XOAUTH2. It is called for each
	// new connection, has Timeout, and should return a token from a cache while
	// that is valid.
	Token func(ctx context.Context) (string, error)

	// TLSConfig is for a certificate authority of your own, or a client
	// certificate. Its ServerName defaults to the host of Addr, its MinVersion
	// to TLS 1.2, below which it is raised. Default: an empty one.
	TLSConfig *tls.Config

	// ImplicitTLS starts with TLS also on a port other than 465.
	ImplicitTLS bool

	// InsecureNoTLS uses no TLS at all: anybody between here and the server can
	// read the links, and take accounts over. It is meant for a server on this
	// machine, and is refused together with a Username for any other.
	InsecureNoTLS bool

	// HelloName is how the mailer introduces itself in EHLO; some servers insist
	// on the sending machine's full name. Default: the domain of From, or if
	// that has no dot the address of the connection's own end, as "[192.0.2.1]".
	HelloName string

	// Timeout bounds each step of an exchange: the connection, the TLS handshake
	// and each reply. Only the reply to the message itself has 10 minutes
	// (RFC 5321, 4.5.3.2.6). Default: 30 s.
	Timeout time.Duration

	once    sync.Once // of what follows from the fields
	server  smtp.Server
	sender  sender
	mistake error
	client  smtp.Client

	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

var _ Mailer = (*SMTPMailer)(nil)

// Check returns the first mistake that can be found in the fields, by name. It
// connects to nothing. Send would return the same error, but only once there is
// a message.
func (m *SMTPMailer) Check() error {
	_, _, err := m.settings()
	return err
}

// SendTimeout returns the longest time that Send can take: with the default
// Timeout, 20 minutes.
func (m *SMTPMailer) SendTimeout() time.Duration {
	return smtp.Steps*cmp.Or(m.Timeout, smtpTimeout) + smtp.DotTimeout
}

// Send hands msg to the server. Its error wraps
//
//   - [ErrUndeliverable] if the address is at fault, or if the server refused
//     this recipient: by the enhanced status code 5.1.1, 5.1.2, 5.1.3, 5.1.6,
//     5.1.10 or 5.2.0 to 5.2.2, as the reply to RCPT or to the message, or
//     without such a code by 550 to 553 as the reply to RCPT; not from the third
//     recipient in a row on
//   - [ErrUnavailable] if the server, the sender or the settings are at fault:
//     no connection, no TLS, a log-in or sender refused, any reply of 421 or
//     454, or the same refusal for three recipients in a row; where it is about
//     the recipient, for the third, the sixth, the twelfth and so on
//   - [ErrUnconfirmed] if the reply to the message did not come in time, or is
//     not a valid reply
//
// or neither of them after any other failure, which may pass. The error says at
// which stage the exchange failed, and repeats no secret.
func (m *SMTPMailer) Send(ctx context.Context, msg Message) error {
	m.once.Do(func() { m.server, m.sender, m.mistake = m.settings() })
	if m.mistake != nil {
		return m.mistake
	}
	e, err := compose(msg, m.sender, time.Now())
	if err != nil {
		return err
	}
	err = m.client.Send(ctx, m.server, e)
	var failure *smtp.Error
	if !errors.As(err, &failure) {
		return err
	}
	switch failure.Fault {
	case smtp.OfMessage:
		return fmt.Errorf("%w: %w", ErrUndeliverable, err)
	case smtp.OfServer:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case smtp.Unconfirmed:
		return fmt.Errorf("%w: %w", ErrUnconfirmed, err)
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

// settings returns the checked fields.
func (m *SMTPMailer) settings() (server smtp.Server, s sender, err error) {
	wrong := func(field, format string, args ...any) (smtp.Server, sender, error) {
		return smtp.Server{}, sender{}, fmt.Errorf("reset: SMTPMailer."+field+" "+format, args...)
	}
	server = smtp.Server{
		ImplicitTLS: m.ImplicitTLS,
		Hello:       m.HelloName,
		Username:    m.Username,
		Password:    m.Password,
		Token:       m.Token,
		Timeout:     cmp.Or(m.Timeout, smtpTimeout),
		Dial:        m.dial,
	}
	path, local := strings.CutPrefix(m.Addr, "unix:")
	if server.Network, server.Addr = "unix", path; !local {
		host, port, err := splitPort(m.Addr)
		if err != nil {
			return wrong("Addr", "is %q, not of the form host:port or unix:/path: %w", m.Addr, err)
		}
		server.Network, server.Addr = "tcp", net.JoinHostPort(host, port)
		server.ImplicitTLS = m.ImplicitTLS || port == "465"
		local = isLoopback(host)
	} else if path == "" {
		return wrong("Addr", "is %q, without a path", m.Addr)
	}

	if s.from, err = parseMailbox(m.From); err != nil {
		return wrong("From", "is %q: %w", m.From, err)
	}
	if s.envelope = s.from.Address; m.EnvelopeFrom != "" {
		bounces, err := parseMailbox(m.EnvelopeFrom)
		if err == nil && bounces.Name != "" {
			err = errors.New("not an address alone")
		}
		if err != nil {
			return wrong("EnvelopeFrom", "is %q: %w", m.EnvelopeFrom, err)
		}
		s.envelope = bounces.Address
	}
	if m.ReplyTo != "" {
		if s.replyTo, err = parseMailbox(m.ReplyTo); err != nil {
			return wrong("ReplyTo", "is %q: %w", m.ReplyTo, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Header)) {
		if err := checkField(name, m.Header[name]); err != nil {
			return wrong("Header", "has %q: %w", name, err)
		}
		s.header = append(s.header, field{name, m.Header[name]})
	}

	switch {
	case m.Token != nil && (m.Username == "" || m.Password != ""):
		return wrong("Token", "needs a Username and no Password")
	case m.Token == nil && (m.Username == "") != (m.Password == ""):
		return wrong("Username", "and Password must be set together; if one comes from an environment variable, that is not set")
	case strings.Contains(m.Username+m.Password, "\x00"):
		return wrong("Username", "or Password has a NUL, which SMTP cannot transmit")
	case m.Token != nil && strings.Contains(m.Username, "\x01"):
		return wrong("Username", "has a control character, which a log-in by token cannot transmit")
	}
	switch {
	case !m.InsecureNoTLS:
		server.TLS = cmp.Or(m.TLSConfig, new(tls.Config))
		if server.Network == "unix" && server.TLS.ServerName == "" {
			return wrong("Addr", "is a socket: set InsecureNoTLS, or TLSConfig with a ServerName")
		}
	case server.ImplicitTLS || m.TLSConfig != nil:
		return wrong("InsecureNoTLS", "excludes port 465, ImplicitTLS and TLSConfig")
	case m.Username != "" && !local:
		return wrong("InsecureNoTLS", "would show the log-in to everybody on the way to %s", m.Addr)
	}
	if strings.ContainsFunc(m.HelloName, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return wrong("HelloName", "is %q, not a host's name", m.HelloName)
	}
	if domain := domainOf(s.from.Address); m.HelloName == "" && strings.Contains(domain, ".") {
		server.Hello = domain
	}
	if m.Timeout < 0 {
		return wrong("Timeout", "is negative")
	}
	return server, s, nil
}

// mailPorts are the services that submit mail. Not every machine has the list
// that net.LookupPort reads.
var mailPorts = map[string]int{"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465}

// splitPort returns the port in digits.
func splitPort(addr string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(addr)
	if err != nil {
		return "", "", err
	}
	number, known := mailPorts[strings.ToLower(port)]
	if !known {
		number, err = net.LookupPort("tcp", port)
	}
	switch {
	case err != nil:
		return "", "", err
	case host == "" || strings.ContainsAny(host, "/ "):
		return "", "", errors.New("no host")
	case number == 0:
		return "", "", errors.New("no port")
	}
	return host, strconv.Itoa(number), nil
}

// checkField checks a header field that is added to every message.
func checkField(name, value string) error {
	printable := func(s string) bool {
		return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
	}
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	switch {
	case name == "" || strings.ContainsAny(name, ": ") || !printable(name):
		return errors.New("not the name of a header field")
	case slices.Contains(ownFields, canonical) || strings.HasPrefix(canonical, "Content-") || strings.HasPrefix(canonical, "Resent-"):
		return errors.New("the mailer writes it, or the mail servers do")
	case strings.TrimSpace(value) == "" || !printable(value):
		return errors.New("its value is empty or has characters other than printable ASCII")
	case len(name)+len(": ")+len(value) > maxLine:
		return fmt.Errorf("longer than %d bytes", maxLine)
	}
	return nil
}

var ownFields = []string{
	"From", "Reply-To", "To", "Cc", "Bcc", "Subject", "Date", "Message-Id", "Mime-Version",
	"Auto-Submitted", "X-Auto-Response-Suppress", "Return-Path", "Received",
}
