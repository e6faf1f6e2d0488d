package smtp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/gopassreset/reset/internal/smtp"
	"github.com/gopassreset/reset/internal/smtptest"
)

// A server that reads nothing leaves the client in the middle of a message.
func TestDeafServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{"DATA": func(c *smtptest.Conn) bool {
			smtptest.Say("354 go on")(c)
			<-time.After(31 * time.Second)
			return false
		}}})
		m := plainSender(t, s)
		e := envelope()
		e.Data = bytes.Repeat([]byte("long line\r\n"), 5_000)
		start := time.Now()
		err := m.Send(t.Context(), m.Server, e)
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != 30*time.Second || !strings.Contains(err.Error(), "smtp: message: ") {
			t.Errorf("Send took %v: %v; want 30 s", d, err)
		}
		s.WaitClosed(t)
	})
}

// A server that drips its reply does not prolong a step.
func TestDrip(t *testing.T) {
	for _, moment := range []string{"greeting", "EHLO", "MAIL", "RCPT", "DATA", "message"} {
		t.Run(moment, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{
					moment: smtptest.Flood(goodCode(moment)+"-wait\r\n", time.Second),
				}})
				m := plainSender(t, s)
				m.Timeout = 10 * time.Second
				want := m.Timeout
				if moment == "message" {
					want = smtp.DotTimeout
				}
				start := time.Now()
				err := m.send(t.Context())
				if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != want {
					t.Errorf("Send took %v: %v; want %v and a deadline exceeded", d, err, want)
				}
				s.WaitClosed(t)
			})
		})
	}
}

// goodCode returns the code of the usual reply at a moment.
func goodCode(moment string) string {
	switch moment {
	case "greeting":
		return "220"
	case "DATA":
		return "354"
	}
	return "250"
}

func TestLongReplies(t *testing.T) {
	for _, moment := range []string{"greeting", "EHLO", "MAIL", "RCPT", "DATA", "message"} {
		code := goodCode(moment)
		for name, reply := range map[string]smtptest.Action{
			"endless":         smtptest.Flood(code+"-and then\r\n", 0),
			"endless line":    smtptest.Flood(code+"-and then", 0),
			"10 MB":           smtptest.Say(strings.Repeat(code+"-and then\r\n", 10<<20/14) + code + " ok"),
			"a line of 10 MB": smtptest.Say(code + " " + strings.Repeat("x", 10<<20)),
		} {
			t.Run(moment+" "+name, func(t *testing.T) {
				s := smtptest.Listen(t, smtptest.Script{On: map[string]smtptest.Action{moment: reply}})
				err := plainSender(t, s).send(t.Context())
				if err == nil || faultOf(err) == smtp.OfMessage || errors.Is(err, context.DeadlineExceeded) || len(err.Error()) > 500 {
					t.Errorf("error %.1000v, want a short one of another kind", err)
				}
				s.WaitClosed(t)
			})
		}
	}
	t.Run("a long one that is allowed", func(t *testing.T) {
		s := smtptest.Listen(t, smtptest.Script{On: map[string]smtptest.Action{
			"RCPT": smtptest.Say(strings.Repeat("550-5.1.1 no, \x1b and \xff\r\n", 1000) + "550 5.1.1 no"),
		}})
		err := plainSender(t, s).send(t.Context())
		if faultOf(err) != smtp.OfMessage || len(err.Error()) > 500 || strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("error %q", err)
		}
	})
}

// Bytes that an attacker adds to the reply to STARTTLS are no reply, even if TLS
// follows.
func TestInjectedReplies(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	script := safeScript(ca)
	script.On = map[string]smtptest.Action{"STARTTLS": func(c *smtptest.Conn) bool {
		return smtptest.Say("220 go on", "250-evil", "250 AUTH PLAIN")(c) && c.Handshake()
	}}
	s := smtptest.Listen(t, script)
	err := safeSender(t, s, ca).send(t.Context())
	if err == nil || !strings.Contains(err.Error(), "smtp: handshake: ") {
		t.Errorf("error %v, want one of stage handshake", err)
	}
	s.WaitClosed(t)
	if want := []string{"EHLO", "STARTTLS"}; !slices.Equal(s.Lines(), want) {
		t.Errorf("the server got %q, want %q", s.Lines(), want)
	}
}

// FuzzReplies is a server that says anything.
func FuzzReplies(f *testing.F) {
	f.Add([]byte("220 a\r\n250-a\r\n250 AUTH PLAIN\r\n235 ok\r\n250 ok\r\n250 ok\r\n354 ok\r\n250 ok\r\n"))
	f.Add([]byte("220-\r\n220 \r\n502 \r\n250\r\n550-x\r\n550 \x00\x1b\r\n"))
	f.Add([]byte("220 a\r\n250 AUTH LOGIN\r\n334 \r\n334 \r\n235 \r\n550 5.1.1 a\r\n"))
	f.Add([]byte("99\r\n-\r\n"))
	f.Fuzz(func(t *testing.T, replies []byte) {
		conn := &deafConn{Reader: bytes.NewReader(replies)}
		m := &sender{Server: smtp.Server{
			Hello: "app.example.com", Timeout: 30 * time.Second, Username: username, Password: password,
			Dial: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		}}
		err := m.send(t.Context())
		m.Close()
		if !conn.closed {
			t.Error("the connection was not closed")
		}
		if err == nil {
			if !bytes.Contains(replies, []byte("250")) {
				t.Errorf("Send succeeded on %q", replies)
			}
			return
		}
		if text := err.Error(); len(text) > 500 || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("error %q", text)
		}
	})
}

// A deafConn has its replies ready and ignores the client.
type deafConn struct {
	io.Reader
	net.Conn
	closed bool
}

func (c *deafConn) Read(p []byte) (int, error)  { return c.Reader.Read(p) }
func (c *deafConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *deafConn) SetDeadline(time.Time) error { return nil }
func (c *deafConn) Close() error                { c.closed = true; return nil }
