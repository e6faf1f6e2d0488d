package reset

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/gopassreset/reset/internal/failpoint"
)

const (
	exchangeMost = 30 * time.Second // the default of SMTPMailer.Timeout
	quitMost     = 2 * time.Second  // a goodbye, which changes nothing any more
	idleMost     = 5 * time.Second  // how long a connection waits for its next message
	idleConns    = 8                // how many wait
	usesMost     = 100              // messages over one connection
	replyMost    = 64 << 10         // bytes of a server's reply
	replyShown   = 300              // bytes of a reply in an error
)

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

	mu   sync.Mutex
	idle []*smtpSession // the one used last is the last
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
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
	l, err := c.compose(msg, time.Now())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout,
		fmt.Errorf("no end after %v: %w", c.timeout, context.DeadlineExceeded))
	defer cancel()
	return m.explain(ctx, msg, m.deliver(ctx, c, l))
}

// Close says goodbye to the server on the connections that wait for a message,
// which otherwise happens by itself after 5 s. It disturbs no Send, and the
// mailer may be used afterwards.
func (m *SMTPMailer) Close() error {
	m.mu.Lock()
	idle := m.idle
	m.idle = nil
	m.mu.Unlock()

	var wg sync.WaitGroup
	for _, s := range idle {
		s.expiry.Stop()
		wg.Go(func() { s.quit(context.Background()) })
	}
	wg.Wait()
	return nil
}

// smtpSettings are the checked fields of an SMTPMailer.
type smtpSettings struct {
	from, replyTo *mail.Address // replyTo may be nil
	tls           *tls.Config   // nil: none
	implicit      bool          // TLS comes before SMTP
	hello         string
	timeout       time.Duration
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
	c.implicit = m.ImplicitTLS || port == "465"
	switch {
	case !m.InsecureNoTLS:
		c.tls = m.tlsConfig(host)
	case c.implicit || m.TLSConfig != nil:
		return wrong("InsecureNoTLS", "excludes port 465, ImplicitTLS and TLSConfig")
	case m.Username != "" && !isLoopback(host):
		return wrong("InsecureNoTLS", "would show the password to everybody on the way to %s", host)
	}
	c.hello = cmp.Or(m.HelloName, "localhost")
	if strings.ContainsFunc(c.hello, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return wrong("HelloName", "is %q, not a host's name", m.HelloName)
	}
	if c.timeout = cmp.Or(m.Timeout, exchangeMost); c.timeout < 0 {
		return wrong("Timeout", "is negative")
	}
	return c, nil
}

func (m *SMTPMailer) tlsConfig(host string) *tls.Config {
	c := m.TLSConfig.Clone()
	if c == nil {
		c = new(tls.Config)
	}
	c.ServerName = cmp.Or(c.ServerName, host)
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	return c
}

// deliver sends over a connection that is open already, if there is one. Such a
// connection can have died meanwhile, or the server can have had enough of it,
// so it gets a second chance on a new one.
func (m *SMTPMailer) deliver(ctx context.Context, c smtpSettings, l letter) error {
	if ctx.Err() != nil {
		return failed(stageDial, context.Cause(ctx))
	}
	if s := m.takeIdle(); s != nil {
		if err := m.transact(ctx, s, l); !isStale(err) || ctx.Err() != nil {
			return err
		}
	}
	s, err := m.connect(ctx, c)
	if err != nil {
		return err
	}
	return m.transact(ctx, s, l)
}

// transact sends one letter and keeps or ends the session.
func (m *SMTPMailer) transact(ctx context.Context, s *smtpSession, l letter) error {
	stop := context.AfterFunc(ctx, s.abort)
	err := s.send(l)
	open := stop()
	code, _ := serverSaid(err)
	switch {
	case err == nil && open && m.keepIdle(s):
	case err == nil || code != 0:
		s.quit(ctx)
	default:
		s.abort()
	}
	return err
}

func (m *SMTPMailer) takeIdle() *smtpSession {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.idle)
	if n == 0 {
		return nil
	}
	s := m.idle[n-1]
	m.idle = slices.Delete(m.idle, n-1, n)
	s.expiry.Stop()
	return s
}

// keepIdle keeps s for the next message, unless it has had its share or enough
// others wait.
func (m *SMTPMailer) keepIdle(s *smtpSession) bool {
	s.uses++
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.uses >= usesMost || len(m.idle) >= idleConns {
		return false
	}
	m.idle = append(m.idle, s)
	s.expiry = time.AfterFunc(idleMost, func() {
		if m.dropIdle(s) {
			s.quit(context.Background())
		}
	})
	return true
}

// dropIdle reports whether s was still waiting.
func (m *SMTPMailer) dropIdle(s *smtpSession) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.idle, s)
	if i >= 0 {
		m.idle = slices.Delete(m.idle, i, i+1)
	}
	return i >= 0
}

// connect opens a session that is ready for a letter.
func (m *SMTPMailer) connect(ctx context.Context, c smtpSettings) (*smtpSession, error) {
	dial := m.dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", m.Addr)
	if err != nil {
		return nil, failed(stageDial, err)
	}
	s := &smtpSession{conn: newSMTPConn(conn)}
	stop := context.AfterFunc(ctx, s.abort)
	defer stop()
	if err = s.open(ctx, c); err == nil && m.Username != "" {
		err = s.logIn(m.Username, m.Password)
	}
	if err != nil {
		s.abort()
		return nil, err
	}
	return s, nil
}

// An smtpSession is one connection to the server.
type smtpSession struct {
	conn   *smtpConn
	client *smtp.Client
	uses   int         // letters the server has accepted
	expiry *time.Timer // while idle
}

// open goes as far as the server's extensions, over TLS if it is to be used.
func (s *smtpSession) open(ctx context.Context, c smtpSettings) error {
	var conn net.Conn = s.conn
	if c.tls != nil && !c.implicit {
		if err := s.startTLS(c.hello); err != nil {
			return err
		}
	}
	if c.tls != nil {
		over := tls.Client(s.conn, c.tls)
		if err := over.HandshakeContext(ctx); err != nil {
			return failed(stageTLS, err)
		}
		conn = over
		if !c.implicit {
			conn = greetedConn{over, io.MultiReader(strings.NewReader("220 TLS\r\n"), over)}
		}
	}
	s.client = smtp.NewClient(conn)
	if err := s.client.Hello(c.hello); err != nil {
		return failed(stageHello, err)
	}
	return nil
}

// startTLS goes as far as the server's consent to TLS. The client can do this
// on its own, but only under the name of localhost, at which some servers hang
// up.
func (s *smtpSession) startTLS(hello string) error {
	plain := smtp.NewClient(s.conn)
	if err := plain.Hello(hello); err != nil {
		return failed(stageHello, err)
	}
	if ok, _ := plain.Extension("STARTTLS"); !ok {
		return failed(stageStartTLS, errors.New("the server does not offer it"))
	}
	text := textproto.NewConn(s.conn)
	if _, err := text.Cmd("STARTTLS"); err != nil {
		return failed(stageStartTLS, err)
	}
	if _, _, err := text.ReadResponse(220); err != nil {
		return failed(stageStartTLS, err)
	}
	return nil
}

func (s *smtpSession) logIn(username, password string) error {
	var mechanism sasl.Client
	switch {
	case s.client.SupportsAuth(sasl.Plain):
		mechanism = sasl.NewPlainClient("", username, password)
	case s.client.SupportsAuth(sasl.Login):
		mechanism = &loginClient{answers: []string{username, password}}
	default:
		return failed(stageAuth, errors.New("the server offers neither PLAIN nor LOGIN"))
	}
	if err := s.client.Auth(mechanism); err != nil {
		return failed(stageAuth, err)
	}
	return nil
}

// send is one mail transaction. It sends no RSET before: a session is only used
// again after the server has accepted a letter, which ends the transaction.
func (s *smtpSession) send(l letter) error {
	if offered, _ := s.client.Extension("SMTPUTF8"); l.utf8 && !offered {
		return fmt.Errorf("%w: smtp: the address needs SMTPUTF8, which the server does not offer", ErrUndeliverable)
	}
	failpoint.Hit("dialled")
	if err := s.client.Mail(l.from, &smtp.MailOptions{UTF8: l.utf8}); err != nil {
		return failed(stageMail, err)
	}
	if err := s.client.Rcpt(l.to, nil); err != nil {
		return failed(stageRcpt, err)
	}
	w, err := s.client.Data()
	if err != nil {
		return failed(stageData, err)
	}
	if _, err := w.Write(l.data); err != nil {
		return failed(stageMessage, err)
	}
	if err := w.Close(); err != nil {
		return failed(stageMessage, err)
	}
	failpoint.Hit("accepted")
	return nil
}

// quit ends a session politely. Whether the server answers does not matter.
func (s *smtpSession) quit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, quitMost)
	defer cancel()
	defer context.AfterFunc(ctx, s.abort)()
	s.client.Quit()
	s.abort()
}

// abort closes the connection. It works at any time and from any goroutine.
func (s *smtpSession) abort() { s.conn.Close() }

// loginClient is the mechanism LOGIN: the user name and the password are each
// the answer to a prompt, whose wording differs between servers.
type loginClient struct{ answers []string }

func (c *loginClient) Start() (mechanism string, initial []byte, err error) {
	return sasl.Login, nil, nil
}

func (c *loginClient) Next([]byte) ([]byte, error) {
	if len(c.answers) == 0 {
		return nil, sasl.ErrUnexpectedServerChallenge
	}
	answer := c.answers[0]
	c.answers = c.answers[1:]
	return []byte(answer), nil
}

// An smtpConn bounds what a server can say. It ends a reply that is too long.
// And a Read never goes beyond the end of a line, so that bytes which follow
// the reply to STARTTLS are not lost in a buffer but make the TLS handshake
// fail, whoever has put them there.
type smtpConn struct {
	net.Conn
	r    *bufio.Reader
	left int // bytes that the server may send until it is written to
}

func newSMTPConn(c net.Conn) *smtpConn {
	return &smtpConn{Conn: c, r: bufio.NewReader(c), left: replyMost}
}

func (c *smtpConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, fmt.Errorf("a reply of more than %d bytes", replyMost)
	}
	if _, err := c.r.Peek(1); err != nil {
		return 0, err
	}
	n := min(len(p), c.left, c.r.Buffered())
	line, _ := c.r.Peek(n) // cannot fail: it is buffered
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		n = i + 1
	}
	c.left -= n
	return c.r.Read(p[:n])
}

func (c *smtpConn) Write(p []byte) (int, error) {
	c.left = replyMost
	return c.Conn.Write(p)
}

// A greetedConn gives the client the greeting that it waits for and that no
// server sends a second time after STARTTLS.
type greetedConn struct {
	net.Conn
	r io.Reader
}

func (c greetedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// The stages of an exchange, as errors name them.
const (
	stageDial     = "dial"
	stageHello    = "hello" // the greeting and EHLO
	stageStartTLS = "starttls"
	stageTLS      = "handshake"
	stageAuth     = "auth"
	stageMail     = "mail from"
	stageRcpt     = "rcpt to"
	stageData     = "data"
	stageMessage  = "message" // its bytes and the reply to them
)

// An smtpError tells at which stage an exchange failed.
type smtpError struct {
	stage string
	cause error
}

func failed(stage string, cause error) error { return &smtpError{stage, cause} }

func (e *smtpError) Error() string { return e.stage + ": " + e.cause.Error() }

func (e *smtpError) Unwrap() error { return e.cause }

// serverSaid returns what err has from the server: the code of its reply, or 0
// if there was none, and its words.
func serverSaid(err error) (code int, words string) {
	var bySMTP *smtp.SMTPError
	var byText *textproto.Error
	var noReply textproto.ProtocolError
	switch {
	case errors.As(err, &bySMTP):
		words = bySMTP.Message
		if e := bySMTP.EnhancedCode; e != smtp.EnhancedCodeNotSet {
			words = fmt.Sprintf("%d.%d.%d %s", e[0], e[1], e[2], words)
		}
		return bySMTP.Code, words
	case errors.As(err, &byText):
		return byText.Code, byText.Msg
	case errors.As(err, &noReply):
		return 0, noReply.Error()
	}
	return 0, ""
}

// isStale reports whether err can be due to the age of a connection, with
// nothing of the letter sent over it yet.
func isStale(err error) bool {
	var e *smtpError
	if !errors.As(err, &e) {
		return false
	}
	code, _ := serverSaid(err)
	switch e.stage {
	case stageMail:
		return true
	case stageRcpt, stageData:
		return code == 0 || code == 421
	}
	return false
}

// isPermanent reports whether a refusal is one of this recipient or message. A
// reply of 53x never is: it says that the log-in is missing or wrong.
func isPermanent(stage string, code int) bool {
	return (stage == stageRcpt || stage == stageMessage) && code/100 == 5 && code/10 != 53
}

// explain makes the error of an exchange what Send returns.
func (m *SMTPMailer) explain(ctx context.Context, msg Message, err error) error {
	var e *smtpError
	if !errors.As(err, &e) {
		return err
	}
	code, words := serverSaid(err)
	switch {
	case code != 0:
		e.cause = fmt.Errorf("%03d %s", code, m.quote(words, msg))
	case words != "":
		e.cause = errors.New(m.quote(words, msg))
	case ctx.Err() != nil:
		e.cause = context.Cause(ctx)
	}
	if isPermanent(e.stage, code) {
		return fmt.Errorf("%w: smtp: %w", ErrUndeliverable, e)
	}
	return fmt.Errorf("reset: smtp: %w", e)
}

// quote makes one line of a server's words, fit for a log. Servers do repeat
// what they were sent: spam filters quote links.
func (m *SMTPMailer) quote(words string, msg Message) string {
	words = strings.ToValidUTF8(words, "\uFFFD")
	words = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, words)
	_, link, _ := strings.Cut(msg.Link, "?")
	_, revokeLink, _ := strings.Cut(msg.RevokeLink, "?")
	encode := base64.StdEncoding.EncodeToString
	for _, secret := range []string{
		link, revokeLink, m.Password, encode([]byte(m.Password)), encode([]byte("\x00" + m.Username + "\x00" + m.Password)),
	} {
		if repeats(words, secret) {
			return "(the server's words are withheld: they repeat a secret)"
		}
	}
	if len(words) > replyShown {
		words = strings.ToValidUTF8(words[:replyShown], "") + "…"
	}
	return words
}

// repeats reports whether text has some 12 bytes of a secret in it, or all of a
// shorter one.
func repeats(text, secret string) bool {
	n := min(len(secret), 12)
	for i := 0; n > 0 && i+n <= len(secret); i++ {
		if strings.Contains(text, secret[i:i+n]) {
			return true
		}
	}
	return false
}
