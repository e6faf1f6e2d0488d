package smtp_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset/internal/smtp"
	"github.com/gopassreset/reset/internal/smtptest"
)

const (
	username = "no-reply@example.com"
	password = "correct horse battery"
	secret   = "activation=AbCdEfGhIjKlMnOpQrStUvWx"
)

// A sender is a client and its server's settings.
type sender struct {
	smtp.Client
	smtp.Server
}

func (s *sender) send(ctx context.Context) error { return s.Client.Send(ctx, s.Server, envelope()) }

func envelope() smtp.Envelope {
	return smtp.Envelope{
		From: "no-reply@example.com", To: "alice@example.org",
		Data:    []byte("Subject: hello\r\n\r\nhttps://app.example.com/reset?" + secret + "\r\n"),
		Secrets: []string{secret},
	}
}

// plainSender sends to s without TLS. The test closes it.
func plainSender(t *testing.T, s *smtptest.Server) *sender {
	m := &sender{Server: smtp.Server{Addr: s.Addr, Hello: "app.example.com", Timeout: 30 * time.Second}}
	if s.Addr == "" {
		m.Dial = s.Dial
	}
	t.Cleanup(m.Close)
	return m
}

// safeSender sends to s with TLS and a log-in.
func safeSender(t *testing.T, s *smtptest.Server, ca *smtptest.Authority) *sender {
	m := plainSender(t, s)
	m.TLS = ca.Client()
	m.TLS.ServerName = "smtp.example.com"
	m.Username, m.Password = username, password
	return m
}

// faultOf returns -1 if err is no *smtp.Error.
func faultOf(err error) smtp.Fault {
	var failure *smtp.Error
	if !errors.As(err, &failure) {
		return -1
	}
	return failure.Fault
}

// safeScript is a server that offers everything.
func safeScript(ca *smtptest.Authority) smtptest.Script {
	return smtptest.Script{TLS: ca.Server("smtp.example.com"), Offers: []string{"PIPELINING", "8BITMIME", "AUTH LOGIN PLAIN"}}
}

func TestReuse(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	s := smtptest.Listen(t, safeScript(ca))
	m := safeSender(t, s, ca)
	for range 3 {
		if err := m.send(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	m.Close()
	s.WaitClosed(t)
	want := []string{"EHLO", "STARTTLS", "TLS", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA", "QUIT"}
	if got := s.Lines(); !slices.Equal(got, want) || len(s.Sessions()) != 1 {
		t.Errorf("the server got %q on %d connections, want %q on one", got, len(s.Sessions()), want)
	}
}

func TestIdleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := smtptest.New(t, smtptest.Script{})
		m := plainSender(t, s)
		for _, tt := range []struct {
			wait  time.Duration
			conns int
		}{{0, 1}, {4 * time.Second, 1}, {4 * time.Second, 1}, {6 * time.Second, 2}} {
			<-time.After(tt.wait)
			if err := m.send(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := len(s.Sessions()); got != tt.conns {
				t.Errorf("%d connections, want %d", got, tt.conns)
			}
		}
		<-time.After(6 * time.Second)
		synctest.Wait()
		for _, session := range s.Sessions() {
			if got := session.Lines[len(session.Lines)-1]; got != "QUIT" {
				t.Errorf("the last command of a connection was %q, want QUIT", got)
			}
		}
		if m.Idle() != 0 {
			t.Errorf("%d connections wait", m.Idle())
		}
		s.WaitClosed(t)
	})
}

// A connection that died while it was idle is no failure.
func TestStaleConnection(t *testing.T) {
	for name, on := range map[string]map[string]smtptest.Action{
		"closed":            {"MAIL 2": smtptest.HangUp},
		"421":               {"MAIL 2": smtptest.SayAndHangUp("421 4.4.2 too slow")},
		"too many messages": {"MAIL 2": smtptest.Say("550 5.5.1 too many messages")},
		"MAIL not a reply":  {"MAIL 2": smtptest.Say("hello?")},
		"RCPT closed":       {"RCPT 2": smtptest.HangUp},
		"RCPT 421":          {"RCPT 2": smtptest.SayAndHangUp("421 4.4.2 too many messages")},
		"DATA closed":       {"DATA 2": smtptest.HangUp},
	} {
		t.Run(name, func(t *testing.T) {
			s := smtptest.Listen(t, smtptest.Script{On: on})
			m := plainSender(t, s)
			for range 2 {
				if err := m.send(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			m.Close()
			s.WaitClosed(t)
			if n, conns := len(s.Messages()), len(s.Sessions()); n != 2 || conns != 2 {
				t.Errorf("%d messages over %d connections, want 2 over 2", n, conns)
			}
		})
	}
	for name, on := range map[string]map[string]smtptest.Action{
		"RCPT refused":      {"RCPT 2": smtptest.Say("550 5.1.1 nobody")},
		"RCPT put off":      {"RCPT 2": smtptest.Say("450 4.2.1 greylisted")},
		"message lost":      {"message 2": smtptest.HangUp},
		"message put off":   {"message 2": smtptest.Say("451 4.3.0 aborted")},
		"closed in between": {"message 2": smtptest.SayAndHangUp("421 4.3.2 closing")},
	} {
		t.Run(name, func(t *testing.T) {
			s := smtptest.Listen(t, smtptest.Script{On: on})
			m := plainSender(t, s)
			if err := m.send(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := m.send(t.Context())
			s.WaitClosed(t)
			if n := len(s.Sessions()); err == nil || n != 1 {
				t.Errorf("error %v over %d connections, want one over 1", err, n)
			}
		})
	}
	t.Run("again", func(t *testing.T) {
		closed := smtptest.Script{On: map[string]smtptest.Action{"MAIL 2": smtptest.HangUp}}
		s := smtptest.Listen(t, closed, smtptest.Script{On: map[string]smtptest.Action{"MAIL": smtptest.HangUp}})
		m := plainSender(t, s)
		if err := m.send(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.send(t.Context()); err == nil || len(s.Sessions()) != 2 {
			t.Errorf("error %v over %d connections, want one over 2", err, len(s.Sessions()))
		}
		s.WaitClosed(t)
	})
}

func TestManyAtOnce(t *testing.T) {
	const n = 50
	gate := make(chan struct{})
	s := smtptest.Listen(t, smtptest.Script{On: map[string]smtptest.Action{
		"greeting": func(c *smtptest.Conn) bool {
			<-gate // until all are here, so that each Send has a connection of its own
			return smtptest.Say("220 hello")(c)
		},
	}})
	m := plainSender(t, s)
	var wg sync.WaitGroup
	var all sync.WaitGroup
	all.Add(n)
	m.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		all.Done()
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	for range n {
		wg.Go(func() {
			if err := m.send(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(gate)
	wg.Wait()
	if got := m.Idle(); got != n {
		t.Errorf("%d connections wait, want %d", got, n)
	}
	m.Close()
	if got := m.Idle(); got != 0 {
		t.Errorf("%d connections wait after Close", got)
	}
	s.WaitClosed(t)
	if got := len(s.Messages()); got != n {
		t.Errorf("%d messages, want %d", got, n)
	}
	for _, session := range s.Sessions() {
		if got := session.Lines[len(session.Lines)-1]; got != "QUIT" {
			t.Errorf("the last command of a connection was %q, want QUIT", got)
		}
	}
}

// A connection is used 100 times.
func TestConnectionShare(t *testing.T) {
	s := smtptest.New(t, smtptest.Script{})
	m := plainSender(t, s)
	for range 250 {
		if err := m.send(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var got []int
	for _, session := range s.Sessions() {
		got = append(got, len(session.Messages))
	}
	if want := []int{100, 100, 50}; !slices.Equal(got, want) {
		t.Errorf("messages over each connection: %v, want %v", got, want)
	}
}
