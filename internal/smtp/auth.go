package smtp

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"

	"github.com/gopassreset/reset/internal/deadline"
)

// A mechanism is a way to log in (RFC 4954).
type mechanism struct {
	name      string
	initial   string   // response sent with the command, if not empty
	responses []string // to the server's challenges, whatever they say
}

// logIn uses the first mechanism that the server offers, or the next one if the
// server turns out not to support it.
func (s *session) logIn(ctx context.Context, server Server) error {
	mechanisms, err := s.mechanisms(ctx, server)
	if err != nil {
		return &Error{Stage: StageAuth, Fault: OfServer, cause: err}
	}
	var names []string
	var refused error
	for _, m := range mechanisms {
		names = append(names, m.name)
		if !s.offers("AUTH", m.name) {
			continue
		}
		refused = s.authenticate(m)
		if failure, ok := refused.(*Error); !ok || failure.Code != 504 {
			return refused
		}
	}
	if refused != nil {
		return refused
	}
	return &Error{Stage: StageAuth, Fault: OfServer, cause: errors.New("the server offers neither " + strings.Join(names, " nor "))}
}

// mechanisms returns those that fit the credentials, the preferred one first.
// CRAM-MD5 is not among them: its servers store the password in clear, and what
// it hides is hidden by TLS.
func (s *session) mechanisms(ctx context.Context, server Server) ([]mechanism, error) {
	user := server.Username
	if server.Token == nil {
		plain := "\x00" + user + "\x00" + server.Password
		s.secrets = []string{server.Password, encode(server.Password), encode(plain)}
		return []mechanism{
			{name: "PLAIN", initial: plain}, // RFC 4616
			{name: "LOGIN", responses: []string{user, server.Password}},
		}, nil
	}

	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, timeoutError(s.timeout))
	defer cancel()
	var token string
	err, answered := deadline.Call(ctx, 0, func() (err error) {
		token, err = server.Token(ctx)
		return err
	}, nil)
	switch {
	case !answered:
		return nil, fmt.Errorf("token: %w", context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("token: %w", err)
	case token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, errors.New("token: not an access token")
	}
	bearer := "n,a=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user) + ",\x01"
	if host, port, err := net.SplitHostPort(server.Addr); err == nil {
		bearer += "host=" + host + "\x01port=" + port + "\x01"
	}
	bearer += "auth=Bearer " + token + "\x01\x01"
	xoauth2 := "user=" + user + "\x01auth=Bearer " + token + "\x01\x01"
	s.secrets = []string{token, encode(bearer), encode(xoauth2)}
	return []mechanism{ // a challenge reports an error, after which the server refuses
		{name: "OAUTHBEARER", initial: bearer, responses: []string{"\x01"}}, // RFC 7628
		{name: "XOAUTH2", initial: xoauth2, responses: []string{""}},
	}, nil
}

func (s *session) authenticate(m mechanism) error {
	line := "AUTH " + m.name
	if m.initial != "" {
		line += " " + encode(m.initial)
	}
	for responses := m.responses; ; responses = responses[1:] {
		if err := s.write(StageAuth, line); err != nil {
			return err
		}
		code, text, err := s.reply(StageAuth, 0)
		switch {
		case err != nil:
			return err
		case code/100 == 2:
			return nil
		case code/100 != 3:
			return s.failed(StageAuth, s.timeout, &textproto.Error{Code: code, Msg: text})
		case len(responses) == 0:
			return &Error{Stage: StageAuth, Fault: OfServer, cause: errors.New("the server asks for more than " + m.name + " has")}
		}
		line = encode(responses[0])
	}
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
