package smtp

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/textproto"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/gopassreset/reset/internal/failpoint"
)

// A session is one connection to the server.
type session struct {
	conn   *conn
	client *smtp.Client
	uses   int         // messages the server has accepted
	expiry *time.Timer // while idle
}

// connect opens a session that is ready for a message.
func connect(ctx context.Context, server Server) (*session, error) {
	dial := server.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	nc, err := dial(ctx, "tcp", server.Addr)
	if err != nil {
		return nil, failed(StageDial, err)
	}
	s := &session{conn: newConn(nc)}
	stop := context.AfterFunc(ctx, s.abort)
	defer stop()
	if err = s.open(ctx, server); err == nil && server.Username != "" {
		err = s.logIn(server.Username, server.Password)
	}
	if err != nil {
		s.abort()
		return nil, err
	}
	return s, nil
}

// open goes as far as the reply to EHLO, over TLS if the server has a
// configuration for it.
func (s *session) open(ctx context.Context, server Server) error {
	var nc net.Conn = s.conn
	if server.TLS != nil && !server.ImplicitTLS {
		if err := s.startTLS(server.Hello); err != nil {
			return err
		}
	}
	if server.TLS != nil {
		over := tls.Client(s.conn, tlsConfig(server))
		if err := over.HandshakeContext(ctx); err != nil {
			return failed(StageHandshake, err)
		}
		nc = over
		if !server.ImplicitTLS {
			nc = greetedConn{over, io.MultiReader(strings.NewReader("220 TLS\r\n"), over)}
		}
	}
	s.client = smtp.NewClient(nc)
	if err := s.client.Hello(server.Hello); err != nil {
		return failed(StageHello, err)
	}
	return nil
}

func tlsConfig(server Server) *tls.Config {
	host, _, _ := net.SplitHostPort(server.Addr)
	c := server.TLS.Clone()
	c.ServerName = cmp.Or(c.ServerName, host)
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	return c
}

// startTLS goes as far as the server's consent to TLS. The client can do this
// on its own, but only under the name of localhost, at which some servers hang
// up.
func (s *session) startTLS(hello string) error {
	plain := smtp.NewClient(s.conn)
	if err := plain.Hello(hello); err != nil {
		return failed(StageHello, err)
	}
	if ok, _ := plain.Extension("STARTTLS"); !ok {
		return failed(StageStartTLS, errors.New("the server does not offer it"))
	}
	text := textproto.NewConn(s.conn)
	if _, err := text.Cmd("STARTTLS"); err != nil {
		return failed(StageStartTLS, err)
	}
	if _, _, err := text.ReadResponse(220); err != nil {
		return failed(StageStartTLS, err)
	}
	return nil
}

func (s *session) logIn(username, password string) error {
	var mechanism sasl.Client
	switch {
	case s.client.SupportsAuth(sasl.Plain):
		mechanism = sasl.NewPlainClient("", username, password)
	case s.client.SupportsAuth(sasl.Login):
		mechanism = &loginClient{answers: []string{username, password}}
	default:
		return failed(StageAuth, errors.New("the server offers neither PLAIN nor LOGIN"))
	}
	if err := s.client.Auth(mechanism); err != nil {
		return failed(StageAuth, err)
	}
	return nil
}

// send is one mail transaction. It sends no RSET before: a session is only used
// again after the server has accepted a message, which ends the transaction.
func (s *session) send(e Envelope) error {
	if offered, _ := s.client.Extension("SMTPUTF8"); e.UTF8 && !offered {
		return failed(StageRcpt, errNoUTF8)
	}
	failpoint.Hit("dialled")
	if err := s.client.Mail(e.From, &smtp.MailOptions{UTF8: e.UTF8}); err != nil {
		return failed(StageMail, err)
	}
	if err := s.client.Rcpt(e.To, nil); err != nil {
		return failed(StageRcpt, err)
	}
	w, err := s.client.Data()
	if err != nil {
		return failed(StageData, err)
	}
	if _, err := w.Write(e.Data); err != nil {
		return failed(StageMessage, err)
	}
	if err := w.Close(); err != nil {
		return failed(StageMessage, err)
	}
	failpoint.Hit("accepted")
	return nil
}

// quit ends a session politely. Whether the server answers does not matter.
func (s *session) quit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, quitTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, s.abort)()
	s.client.Quit()
	s.abort()
}

// abort closes the connection, at any time and from any goroutine.
func (s *session) abort() { s.conn.Close() }

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
