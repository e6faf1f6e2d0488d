package smtp

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/textproto"
	"strings"
	"time"

	"github.com/gopassreset/reset/internal/failpoint"
)

// A session is one connection to the server.
type session struct {
	conn       *conn           // as dialled
	text       *textproto.Conn // over TLS, if there is any
	extensions map[string]string
	timeout    time.Duration // of each step
	secrets    []string      // of the log-in, which no error may repeat
	message    []string      // secrets of the message
	unread     int           // replies to commands that were sent together with one that has failed
	uses       int           // messages the server has accepted
	expiry     *time.Timer   // while idle
}

// connect opens a session that is ready for a message.
func connect(ctx context.Context, server Server) (*session, error) {
	nc, err := dial(ctx, server)
	if err != nil {
		return nil, &Error{Stage: StageDial, Fault: OfServer, cause: err}
	}
	s := &session{conn: newConn(nc), timeout: server.Timeout}
	s.talkOver(s.conn)
	stop := context.AfterFunc(ctx, s.abort)
	defer stop()
	opened := false
	defer func() { // also if Server.Token panics
		if !opened {
			s.abort()
		}
	}()
	if err := s.open(ctx, server); err != nil {
		return nil, err
	}
	opened = true
	return s, nil
}

func dial(ctx context.Context, server Server) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, server.Timeout, timeoutError(server.Timeout))
	defer cancel()
	dial := server.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	nc, err := dial(ctx, cmp.Or(server.Network, "tcp"), server.Addr)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nc, err
}

// open goes as far as the log-in, over TLS if the server has a configuration
// for it.
func (s *session) open(ctx context.Context, server Server) error {
	if server.ImplicitTLS {
		if err := s.handshake(ctx, server); err != nil {
			return err
		}
	}
	if _, _, err := s.reply(StageHello, 2); err != nil { // the greeting
		return err
	}
	hello := server.Hello
	if hello == "" {
		hello = literal(s.conn.LocalAddr())
	}
	if err := s.hello(hello); err != nil {
		return err
	}
	if server.TLS != nil && !server.ImplicitTLS {
		if err := s.startTLS(ctx, server); err != nil {
			return err
		}
		if err := s.hello(hello); err != nil {
			return err
		}
	}
	if server.Username == "" {
		return nil
	}
	return s.logIn(ctx, server)
}

// hello learns the extensions, of which a server that knows only HELO has none.
func (s *session) hello(name string) error {
	text, err := s.command(StageHello, 2, "EHLO "+name)
	s.extensions = make(map[string]string)
	if failure := (*Error)(nil); errors.As(err, &failure) && (failure.Code == 500 || failure.Code == 502) {
		_, err = s.command(StageHello, 2, "HELO "+name)
		return err
	}
	_, lines, _ := strings.Cut(text, "\n") // after the server's name
	for line := range strings.Lines(lines) {
		fields := strings.Fields(strings.ToUpper(line))
		if len(fields) == 0 {
			continue
		}
		keyword, first, _ := strings.Cut(fields[0], "=") // AUTH=LOGIN is older than RFC 4954
		s.extensions[keyword] += " " + strings.Join(append([]string{first}, fields[1:]...), " ")
	}
	return err
}

// offers reports whether the server has an extension, with a parameter if one
// is given.
func (s *session) offers(keyword, parameter string) bool {
	parameters, ok := s.extensions[keyword]
	return ok && (parameter == "" || strings.Contains(parameters+" ", " "+parameter+" "))
}

func (s *session) startTLS(ctx context.Context, server Server) error {
	if !s.offers("STARTTLS", "") {
		return &Error{Stage: StageStartTLS, Fault: OfServer, cause: errors.New("the server does not offer it")}
	}
	if _, err := s.command(StageStartTLS, 2, "STARTTLS"); err != nil {
		return err
	}
	return s.handshake(ctx, server)
}

func (s *session) handshake(ctx context.Context, server Server) error {
	host, _, _ := net.SplitHostPort(server.Addr)
	c := server.TLS.Clone()
	c.ServerName = cmp.Or(c.ServerName, host)
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	over := tls.Client(s.conn, c)
	s.conn.SetDeadline(time.Now().Add(s.timeout))
	if err := over.HandshakeContext(ctx); err != nil {
		return s.failed(StageHandshake, s.timeout, err)
	}
	s.talkOver(over)
	return nil
}

// talkOver has room for a message, which then leaves in one piece.
func (s *session) talkOver(c io.ReadWriteCloser) {
	s.text = textproto.NewConn(c)
	s.text.W = bufio.NewWriterSize(c, 16<<10)
}

// send is one mail transaction. It sends no RSET before: a session is only used
// again after the server has accepted a message, which ends the transaction.
func (s *session) send(e Envelope) error {
	s.message = e.Secrets
	parameters := ""
	if s.offers("8BITMIME", "") {
		parameters = " BODY=8BITMIME"
	}
	if e.UTF8 {
		if !s.offers("SMTPUTF8", "") {
			return &Error{Stage: StageRcpt, Fault: OfMessage, cause: errNoUTF8}
		}
		parameters += " SMTPUTF8"
	}
	failpoint.Hit("dialled")
	err := s.commands(
		command{StageMail, 2, "MAIL FROM:<" + e.From + ">" + parameters},
		command{StageRcpt, 2, "RCPT TO:<" + e.To + ">"},
		command{StageData, 3, "DATA"},
	)
	if err != nil {
		return err
	}
	s.conn.SetDeadline(time.Now().Add(s.timeout))
	w := s.text.DotWriter()
	if _, err = w.Write(e.Data); err == nil {
		err = w.Close()
	}
	if err != nil {
		return s.failed(StageMessage, s.timeout, err)
	}
	if err := s.awaitDot(); err != nil {
		return err
	}
	failpoint.Hit("accepted")
	return nil
}

// awaitDot reads the reply to the final dot. A server that takes longer for it
// than any other step may is busy with the message: if the connection ends
// then, it has probably accepted it. So it has if its reply is no refusal.
func (s *session) awaitDot() error {
	start := time.Now()
	s.conn.SetDeadline(start.Add(DotTimeout))
	_, _, err := s.readReply(2)
	if err == nil {
		return nil
	}
	failure := s.failed(StageMessage, DotTimeout, err)
	noReply := textproto.ProtocolError("")
	garbled := errors.As(err, &noReply) || 0 < failure.Code && failure.Code < 400
	if garbled || failure.Code == 0 && time.Since(start) >= s.timeout {
		failure.Fault = Unconfirmed
	}
	return failure
}

// A command is a line that must be answered by a code which begins with the
// digit want.
type command struct {
	stage Stage
	want  int
	line  string
}

// commands makes commands: together where the server offers that (RFC 2920),
// else one after the other.
func (s *session) commands(all ...command) error {
	sent := 0
	for i, c := range all {
		if sent == i {
			var lines []string
			for sent < len(all) && (sent == i || s.offers("PIPELINING", "")) {
				lines = append(lines, all[sent].line)
				sent++
			}
			if err := s.write(c.stage, lines...); err != nil {
				return err
			}
		}
		s.unread = sent - i - 1
		if _, _, err := s.reply(c.stage, c.want); err != nil {
			return err
		}
	}
	return nil
}

// command sends a line and returns the text of the reply, whose code must begin
// with the digit want.
func (s *session) command(stage Stage, want int, line string) (text string, err error) {
	if err := s.write(stage, line); err != nil {
		return "", err
	}
	_, text, err = s.reply(stage, want)
	return text, err
}

func (s *session) write(stage Stage, lines ...string) error {
	for _, line := range lines {
		if strings.ContainsAny(line, "\r\n") {
			return &Error{Stage: stage, Fault: OfServer, cause: errors.New("a line break in a command")}
		}
	}
	s.conn.SetDeadline(time.Now().Add(s.timeout))
	if err := s.text.PrintfLine("%s", strings.Join(lines, "\r\n")); err != nil {
		return s.failed(stage, s.timeout, err)
	}
	return nil
}

// reply accepts any code if want is 0.
func (s *session) reply(stage Stage, want int) (code int, text string, err error) {
	s.conn.SetDeadline(time.Now().Add(s.timeout))
	code, text, err = s.readReply(want)
	if err != nil {
		return 0, "", s.failed(stage, s.timeout, err)
	}
	return code, text, nil
}

// quit ends a session politely. Whether the server answers does not matter.
func (s *session) quit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, quitTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, s.abort)()
	s.timeout = quitTimeout
	defer s.abort()
	for range s.unread {
		// A server that has agreed to DATA would take QUIT for the message.
		if code, _, err := s.reply("quit", 0); err != nil || code/100 == 3 {
			return
		}
	}
	s.command("quit", 2, "QUIT")
}

// abort closes the connection, at any time and from any goroutine.
func (s *session) abort() { s.conn.Close() }

// literal returns an address as EHLO may have it in place of a name (RFC 5321,
// 4.1.3).
func literal(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	switch {
	case !ok:
		return "localhost"
	case tcp.IP.To4() != nil:
		return "[" + tcp.IP.String() + "]"
	}
	return "[IPv6:" + tcp.IP.String() + "]"
}
