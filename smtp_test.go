package reset_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/failpoint"
	"github.com/gopassreset/reset/internal/smtptest"
	"github.com/gopassreset/reset/resettest"
)

const (
	smtpUser     = "no-reply@example.com"
	smtpPassword = "correct horse battery"
)

// plainMailer sends to s without TLS. The test closes it.
func plainMailer(t *testing.T, s *smtptest.Server) *reset.SMTPMailer {
	m := &reset.SMTPMailer{Addr: "localhost:25", From: "Example <no-reply@example.com>", InsecureNoTLS: true}
	if s.Addr == "" {
		m.SetDial(s.Dial)
	} else {
		m.Addr = s.Addr
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// safeMailer sends to s with TLS and a log-in.
func safeMailer(t *testing.T, s *smtptest.Server, ca *smtptest.Authority) *reset.SMTPMailer {
	m := plainMailer(t, s)
	m.InsecureNoTLS, m.TLSConfig = false, ca.Client()
	m.TLSConfig.ServerName = "smtp.example.com"
	m.Username, m.Password = smtpUser, smtpPassword
	return m
}

// safeScript is a server as it should be.
func safeScript(ca *smtptest.Authority) smtptest.Script {
	return smtptest.Script{TLS: ca.Server("smtp.example.com"), Offers: []string{"PIPELINING", "8BITMIME", "AUTH LOGIN PLAIN"}}
}

func TestSMTPMailer(t *testing.T) {
	resettest.TestMailer(t, func(t *testing.T) reset.Mailer {
		return plainMailer(t, smtptest.Listen(t, smtptest.Script{}))
	})
}

func TestSMTPTalk(t *testing.T) {
	s := smtptest.Listen(t, smtptest.Script{Offers: []string{"8BITMIME", "SIZE 1000000", "DSN"}})
	m := plainMailer(t, s)
	m.HelloName = "app.example.com"
	msg := newMessage()
	msg.Text = ".\n..\n.QUIT\n"
	if err := m.Send(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	m.Close()
	s.WaitClosed(t)
	want := []string{"EHLO app.example.com", "MAIL FROM:<no-reply@example.com> BODY=8BITMIME", "RCPT TO:<alice@example.org>", "DATA", "QUIT"}
	sessions := s.Sessions()
	if len(sessions) != 1 || !slices.Equal(sessions[0].Lines, want) || len(sessions[0].Messages) != 1 {
		t.Fatalf("sessions %q, want one of %q", sessions, want)
	}
	sent := sessions[0].Messages[0]
	checkLines(t, []byte(sent))
	for line := range strings.Lines(sent) {
		if strings.HasPrefix(line, ".") && !strings.HasPrefix(line, "..") {
			t.Errorf("line %q is not dot-stuffed", line)
		}
	}
	got, _ := readParts(t, parseLetter(t, []byte(strings.ReplaceAll(sent, "\r\n..", "\r\n."))))
	if got != crlf(msg.Text) {
		t.Errorf("text %q, want %q", got, crlf(msg.Text))
	}
}

func TestSMTPTalkWithTLS(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + smtpUser + "\x00" + smtpPassword))
	user := base64.StdEncoding.EncodeToString([]byte(smtpUser))
	password := base64.StdEncoding.EncodeToString([]byte(smtpPassword))
	mail := []string{"MAIL FROM:<no-reply@example.com>", "RCPT TO:<alice@example.org>", "DATA", "QUIT"}
	for _, tt := range []struct {
		name     string
		implicit bool
		offer    string
		want     []string
	}{
		{"STARTTLS", false, "AUTH LOGIN PLAIN", []string{"EHLO me.example.com", "STARTTLS", "TLS", "EHLO me.example.com", "AUTH PLAIN " + plain}},
		{"implicit", true, "AUTH PLAIN", []string{"TLS", "EHLO me.example.com", "AUTH PLAIN " + plain}},
		{"LOGIN", true, "AUTH LOGIN CRAM-MD5", []string{"TLS", "EHLO me.example.com", "AUTH LOGIN", user, password}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script := safeScript(ca)
			script.Implicit, script.Offers = tt.implicit, []string{tt.offer}
			s := smtptest.Listen(t, script)
			m := safeMailer(t, s, ca)
			m.ImplicitTLS, m.HelloName = tt.implicit, "me.example.com"
			if err := m.Send(t.Context(), newMessage()); err != nil {
				t.Fatal(err)
			}
			m.Close()
			s.WaitClosed(t)
			want := slices.Concat(tt.want, mail)
			if got := s.Sessions(); len(got) != 1 || !slices.Equal(got[0].Lines, want) || len(got[0].Messages) != 1 {
				t.Errorf("sessions %q, want one of %q", got, want)
			}
		})
	}
}

// Only a reply of 5xx to RCPT or to the message gives a message up.
func TestSMTPRefusals(t *testing.T) {
	for _, tt := range []struct {
		moment, stage, reply string
		permanent            bool
	}{
		{"greeting", "hello", "421 4.3.2 not now", false},
		{"greeting", "hello", "554 5.7.1 no service for you", false},
		{"EHLO", "hello", "421 4.3.2 not now", false},
		{"EHLO", "hello", "550 5.7.1 who are you", false},
		{"AUTH", "auth", "454 4.7.0 later", false},
		{"AUTH", "auth", "530 5.7.0 not without TLS", false},
		{"AUTH", "auth", "535 5.7.8 wrong", false},
		{"AUTH", "auth", "554 5.7.8 wrong", false},
		{"MAIL", "mail from", "421 4.3.2 closing", false},
		{"MAIL", "mail from", "451 4.3.0 aborted", false},
		{"MAIL", "mail from", "452 4.3.1 full", false},
		{"MAIL", "mail from", "530 5.7.0 log in first", false},
		{"MAIL", "mail from", "550 5.7.1 not this sender", false},
		{"MAIL", "mail from", "553 5.7.1 not this sender", false},
		{"RCPT", "rcpt to", "421 4.3.2 closing", false},
		{"RCPT", "rcpt to", "450 4.2.1 greylisted", false},
		{"RCPT", "rcpt to", "451 4.3.0 aborted", false},
		{"RCPT", "rcpt to", "452 4.2.2 full", false},
		{"RCPT", "rcpt to", "530 5.7.0 log in first", false},
		{"RCPT", "rcpt to", "535 5.7.8 log in first", false},
		{"RCPT", "rcpt to", "550 5.1.1 nobody of that name", true},
		{"RCPT", "rcpt to", "551 5.1.6 moved", true},
		{"RCPT", "rcpt to", "553 5.1.3 not an address", true},
		{"RCPT", "rcpt to", "554 5.7.1 no", true},
		{"RCPT", "rcpt to", "550", false}, // not a whole reply
		{"DATA", "data", "421 4.3.2 closing", false},
		{"DATA", "data", "451 4.3.0 aborted", false},
		{"DATA", "data", "503 5.5.1 what recipient", false},
		{"DATA", "data", "554 5.5.1 no", false},
		{"message", "message", "421 4.3.2 closing", false},
		{"message", "message", "450 4.2.1 busy", false},
		{"message", "message", "451 4.3.0 aborted", false},
		{"message", "message", "452 4.3.1 full", false},
		{"message", "message", "550 5.7.1 spam", true},
		{"message", "message", "551 5.7.1 spam", true},
		{"message", "message", "552 5.3.4 too big", true},
		{"message", "message", "553 5.7.1 spam", true},
		{"message", "message", "554 5.6.0 spam", true},
		{"RCPT", "rcpt to", "550-5.1.1 nobody\r\n550-5.1.1 of that\r\n550 5.1.1 name", true},
	} {
		t.Run(tt.moment+" "+tt.reply[:3], func(t *testing.T) {
			s := smtptest.New(t, smtptest.Script{
				Offers: []string{"AUTH PLAIN"},
				On:     map[string]smtptest.Action{tt.moment: smtptest.Say(tt.reply)},
			})
			m := plainMailer(t, s)
			m.Username, m.Password = smtpUser, smtpPassword
			err := m.Send(t.Context(), newMessage())
			if err == nil || errors.Is(err, reset.ErrUndeliverable) != tt.permanent {
				t.Fatalf("error %v, want ErrUndeliverable: %v", err, tt.permanent)
			}
			if text := err.Error(); !strings.Contains(text, "smtp: "+tt.stage+": ") || !strings.Contains(text, tt.reply[:3]) || strings.ContainsAny(text, "\r\n") {
				t.Errorf("error %q, want the stage %q and the reply in a line", text, tt.stage)
			}
			if n := m.Idle(); n != 0 {
				t.Errorf("%d connections wait after a failure", n)
			}
			s.WaitClosed(t)
			if n := strings.Count(strings.Join(s.Lines(), " "), "RCPT"); n > 1 {
				t.Errorf("%d times RCPT", n)
			}
		})
	}
}

// smtpMoments are those at which a server can fall silent or hang up, in their
// order, with the name that errors have for them.
var smtpMoments = []struct{ moment, stage string }{
	{"greeting", "hello"}, {"EHLO", "hello"}, {"STARTTLS", "starttls"}, {"handshake", "handshake"}, {"EHLO 2", "hello"},
	{"AUTH", "auth"}, {"MAIL", "mail from"}, {"RCPT", "rcpt to"}, {"DATA", "data"}, {"message", "message"},
}

func TestSMTPHang(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	for _, tt := range smtpMoments {
		t.Run(tt.moment, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // which fails if a goroutine is left
				script := safeScript(ca)
				script.On = map[string]smtptest.Action{tt.moment: smtptest.Hang}
				s := smtptest.New(t, script)
				m := safeMailer(t, s, ca)
				start := time.Now()
				err := m.Send(t.Context(), newMessage())
				if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, reset.ErrUndeliverable) || !strings.Contains(err.Error(), "smtp: "+tt.stage+": ") {
					t.Errorf("error %v, want a deadline exceeded at stage %q", err, tt.stage)
				}
				if d := time.Since(start); d != 30*time.Second {
					t.Errorf("Send took %v, want 30 s", d)
				}
				s.WaitClosed(t)
			})
		})
	}
}

// A server that reads nothing leaves the client in the middle of a message.
func TestSMTPDeafServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{"DATA": func(c *smtptest.Conn) bool {
			smtptest.Say("354 go on")(c)
			<-time.After(31 * time.Second)
			return false
		}}})
		msg := newMessage()
		msg.Text = strings.Repeat("long ", 10_000)
		start := time.Now()
		err := plainMailer(t, s).Send(t.Context(), msg)
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != 30*time.Second || !strings.Contains(err.Error(), "smtp: message: ") {
			t.Errorf("Send took %v: %v; want 30 s", d, err)
		}
		s.WaitClosed(t)
	})
}

func TestSMTPCancelled(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	for _, tt := range smtpMoments {
		t.Run(tt.moment, func(t *testing.T) {
			script := safeScript(ca)
			script.On = map[string]smtptest.Action{tt.moment: smtptest.Hang}
			s := smtptest.Listen(t, script)
			m := safeMailer(t, s, ca)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-s.Hung
				cancel()
			}()
			if err := m.Send(ctx, newMessage()); !errors.Is(err, context.Canceled) || errors.Is(err, reset.ErrUndeliverable) {
				t.Errorf("error %v, want %v", err, context.Canceled)
			}
			s.WaitClosed(t)
		})
	}

	s := smtptest.New(t, smtptest.Script{})
	m := plainMailer(t, s)
	if err := m.Send(t.Context(), newMessage()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Send(ctx, newMessage()); !errors.Is(err, context.Canceled) || m.Idle() != 1 || len(s.Messages()) != 1 {
		t.Errorf("Send with a cancelled context: %v, %d messages, %d connections wait", err, len(s.Messages()), m.Idle())
	}
}

func TestSMTPNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &reset.SMTPMailer{Addr: l.Addr().String(), From: "no-reply@example.com"}
	l.Close()
	if err := m.Send(t.Context(), newMessage()); err == nil || errors.Is(err, reset.ErrUndeliverable) || !strings.Contains(err.Error(), "smtp: dial: ") {
		t.Errorf("nobody listens: error %v, want one of stage dial", err)
	}
	synctest.Test(t, func(t *testing.T) {
		m.SetDial(func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, errors.New("i/o timeout")
		})
		start := time.Now()
		err := m.Send(t.Context(), newMessage())
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != 30*time.Second || !strings.Contains(err.Error(), "smtp: dial: ") {
			t.Errorf("Send took %v: %v; want 30 s", d, err)
		}
	})
}

func TestSMTPHangUp(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	for _, tt := range smtpMoments {
		t.Run(tt.moment, func(t *testing.T) {
			script := safeScript(ca)
			script.On = map[string]smtptest.Action{tt.moment: smtptest.HangUp}
			s := smtptest.Listen(t, script)
			m := safeMailer(t, s, ca)
			err := m.Send(t.Context(), newMessage())
			if err == nil || errors.Is(err, reset.ErrUndeliverable) || !strings.Contains(err.Error(), "smtp: "+tt.stage+": ") {
				t.Errorf("error %v, want one of stage %q", err, tt.stage)
			}
			s.WaitClosed(t)
			if n := len(s.Sessions()); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
}

// A server that always says a bit more does not prolong the exchange.
func TestSMTPDrip(t *testing.T) {
	for _, moment := range []string{"greeting", "EHLO", "MAIL", "RCPT", "DATA", "message"} {
		t.Run(moment, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{
					moment: smtptest.Flood(goodCode(moment)+"-wait\r\n", time.Second),
				}})
				m := plainMailer(t, s)
				m.Timeout = 10 * time.Second
				start := time.Now()
				err := m.Send(t.Context(), newMessage())
				if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != m.Timeout {
					t.Errorf("Send took %v: %v; want %v and a deadline exceeded", d, err, m.Timeout)
				}
				s.WaitClosed(t)
			})
		})
	}
}

// goodCode is what a moment's reply begins with if all is well.
func goodCode(moment string) string {
	switch moment {
	case "greeting":
		return "220"
	case "DATA":
		return "354"
	}
	return "250"
}

func TestSMTPTimeoutOfContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{"RCPT": smtptest.Hang}})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		err := plainMailer(t, s).Send(ctx, newMessage())
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != 3*time.Second {
			t.Errorf("Send took %v: %v; want 3 s", d, err)
		}
	})
}

func TestSMTPLongReplies(t *testing.T) {
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
				err := plainMailer(t, s).Send(t.Context(), newMessage())
				if err == nil || errors.Is(err, reset.ErrUndeliverable) || errors.Is(err, context.DeadlineExceeded) || len(err.Error()) > 500 {
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
		err := plainMailer(t, s).Send(t.Context(), newMessage())
		if !errors.Is(err, reset.ErrUndeliverable) || len(err.Error()) > 500 || strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("error %q", err)
		}
	})
}

// Without a safe connection nothing is told but the name of the mailer.
func TestSMTPInsistsOnTLS(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	old := ca.Server("smtp.example.com")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for _, tt := range []struct {
		name, stage string
		tls         *tls.Config
		on          map[string]smtptest.Action
	}{
		{"not offered", "starttls", nil, nil},
		{"not offered, no EHLO", "starttls", nil, map[string]smtptest.Action{"EHLO": smtptest.Say("502 what?")}},
		{"refused", "starttls", ca.Server("smtp.example.com"), map[string]smtptest.Action{"STARTTLS": smtptest.Say("454 4.7.0 not now")}},
		{"refused for good", "starttls", ca.Server("smtp.example.com"), map[string]smtptest.Action{"STARTTLS": smtptest.Say("501 no")}},
		{"no handshake", "handshake", ca.Server("smtp.example.com"), map[string]smtptest.Action{"handshake": smtptest.SayAndHangUp("250 ok", "250 ok")}},
		{"unknown authority", "handshake", smtptest.NewAuthority(t).Server("smtp.example.com"), nil},
		{"another host", "handshake", ca.Server("smtp.example.net"), nil},
		{"expired", "handshake", ca.Expired("smtp.example.com"), nil},
		{"TLS 1.1", "handshake", old, nil},
		{"injected replies", "handshake", ca.Server("smtp.example.com"), map[string]smtptest.Action{
			"STARTTLS": smtptest.SayAndHangUp("220 go on", "220 hello", "250 AUTH PLAIN", "235 ok", "250 ok", "250 ok"),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script := smtptest.Script{TLS: tt.tls, Offers: []string{"AUTH PLAIN LOGIN"}, On: tt.on}
			s := smtptest.Listen(t, script)
			m := safeMailer(t, s, ca)
			m.TLSConfig.MinVersion = tls.VersionTLS10 // is raised
			err := m.Send(t.Context(), newMessage())
			if err == nil || errors.Is(err, reset.ErrUndeliverable) || !strings.Contains(err.Error(), "smtp: "+tt.stage+": ") {
				t.Errorf("error %v, want one of stage %q", err, tt.stage)
			}
			s.WaitClosed(t)
			for _, verb := range s.Lines() {
				if !slices.Contains([]string{"EHLO", "HELO", "STARTTLS"}, verb) {
					t.Errorf("the server was told %q", s.Lines())
				}
			}
		})
	}
}

// What somebody on the way adds to the reply to STARTTLS is no reply, even if
// TLS follows.
func TestSMTPInjectedReplies(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	script := safeScript(ca)
	script.On = map[string]smtptest.Action{"STARTTLS": func(c *smtptest.Conn) bool {
		return smtptest.Say("220 go on", "250-evil", "250 AUTH PLAIN")(c) && c.Handshake()
	}}
	s := smtptest.Listen(t, script)
	err := safeMailer(t, s, ca).Send(t.Context(), newMessage())
	if err == nil || !strings.Contains(err.Error(), "smtp: handshake: ") {
		t.Errorf("error %v, want one of stage handshake", err)
	}
	s.WaitClosed(t)
	if want := []string{"EHLO", "STARTTLS"}; !slices.Equal(s.Lines(), want) {
		t.Errorf("the server was told %q, want %q", s.Lines(), want)
	}
}

func TestSMTPInsistsOnAuth(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	for _, offers := range [][]string{nil, {"AUTH"}, {"AUTH CRAM-MD5 XOAUTH2"}} {
		script := safeScript(ca)
		script.Offers = offers
		s := smtptest.Listen(t, script)
		err := safeMailer(t, s, ca).Send(t.Context(), newMessage())
		if err == nil || errors.Is(err, reset.ErrUndeliverable) || !strings.Contains(err.Error(), "smtp: auth: ") {
			t.Errorf("offers %q: error %v, want one of stage auth", offers, err)
		}
		s.WaitClosed(t)
		if want := []string{"EHLO", "STARTTLS", "TLS", "EHLO"}; !slices.Equal(s.Lines(), want) {
			t.Errorf("offers %q: the server was told %q, want %q", offers, s.Lines(), want)
		}
	}
}

// Prompts without end do not get the password twice.
func TestSMTPAuthPrompts(t *testing.T) {
	s := smtptest.Listen(t, smtptest.Script{Offers: []string{"AUTH LOGIN"}, On: map[string]smtptest.Action{
		"AUTH": smtptest.Say(slices.Repeat([]string{"334 UGFzc3dvcmQ6"}, 10)...),
	}})
	m := plainMailer(t, s)
	m.Username, m.Password = smtpUser, smtpPassword
	if err := m.Send(t.Context(), newMessage()); err == nil || !strings.Contains(err.Error(), "smtp: auth: ") {
		t.Errorf("error %v, want one of stage auth", err)
	}
	s.WaitClosed(t)
	told := strings.Join(s.Sessions()[0].Lines, "\n")
	if n := strings.Count(told, base64.StdEncoding.EncodeToString([]byte(smtpPassword))); n != 1 {
		t.Errorf("the server was told %q", told)
	}
}

func TestSMTPRecipient(t *testing.T) {
	for _, tt := range []struct {
		to      string
		offered bool
		want    []string // nil: undeliverable
	}{
		{"jürgen@example.org", true, []string{"MAIL FROM:<no-reply@example.com> SMTPUTF8", "RCPT TO:<jürgen@example.org>"}},
		{"jürgen@example.org", false, nil},
		{"alice@example.org\r\nRCPT TO:<evil@example.net>", true, nil},
		{"alice@example.org", true, []string{"MAIL FROM:<no-reply@example.com>", "RCPT TO:<alice@example.org>"}},
		{"Alice@bücher.example", false, []string{"MAIL FROM:<no-reply@example.com>", "RCPT TO:<Alice@xn--bcher-kva.example>"}},
	} {
		script := smtptest.Script{}
		if tt.offered {
			script.Offers = []string{"SMTPUTF8"}
		}
		s := smtptest.Listen(t, script)
		m := plainMailer(t, s)
		msg := newMessage()
		msg.To = tt.to
		err := m.Send(t.Context(), msg)
		m.Close()
		s.WaitClosed(t)
		var lines []string
		for _, session := range s.Sessions() {
			lines = append(lines, session.Lines...)
		}
		switch {
		case tt.want == nil && (!errors.Is(err, reset.ErrUndeliverable) || slices.Contains(s.Lines(), "MAIL")):
			t.Errorf("To %q: %v, the server was told %q; want ErrUndeliverable", tt.to, err, lines)
		case tt.want != nil && (err != nil || !slices.Equal(lines[1:3], tt.want)):
			t.Errorf("To %q: %v, the server was told %q; want %q", tt.to, err, lines, tt.want)
		}
	}
}

// Errors go to logs. Servers quote what they refuse.
func TestSMTPErrorsKeepSecrets(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	activation := "AbCdEfGhIjKlMnOpQrStUvWx"
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + smtpUser + "\x00" + smtpPassword))
	for _, tt := range []struct{ moment, reply string }{
		{"AUTH", "535 no such password: " + smtpPassword},
		{"AUTH", "535 AUTH PLAIN " + plain + " failed"},
		{"AUTH", "334 " + base64.StdEncoding.EncodeToString([]byte(smtpPassword))},
		{"AUTH", smtpPassword},
		{"MAIL", "450 " + smtpPassword},
		{"message", "554 5.7.1 bad link https://app.example.com/reset?activation=" + activation},
		{"message", "554-5.7.1 bad link\r\n554 5.7.1 ?activation=3D" + activation[:16] + "="},
		{"message", "451 bad link " + strings.Repeat(".", 290) + activation},
		{"message", "no reply at all, but " + activation},
	} {
		script := safeScript(ca)
		script.On = map[string]smtptest.Action{tt.moment: smtptest.SayAndHangUp(tt.reply)}
		s := smtptest.Listen(t, script)
		err := safeMailer(t, s, ca).Send(t.Context(), newMessage())
		if err == nil {
			t.Fatalf("%s: no error", tt.reply)
		}
		if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, activation[:12]) || strings.Contains(text, smtpPassword) || strings.Contains(text, plain) {
			t.Errorf("%s: error %q", tt.reply, text)
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			if strings.Contains(fmt.Sprintf("%#v", e), activation[:12]) {
				t.Errorf("%s: %#v", tt.reply, e)
			}
		}
		s.WaitClosed(t)
	}
}

func TestSMTPCheck(t *testing.T) {
	for _, tt := range []struct {
		change func(*reset.SMTPMailer)
		want   string // part of the error; "" for none
	}{
		{func(m *reset.SMTPMailer) {}, ""},
		{func(m *reset.SMTPMailer) { m.Addr = "" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp.example.com" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = ":587" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp.example.com:smtp" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp.example.com:0" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp.example.com:65536" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp://smtp.example.com:587" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "[2001:db8::1]:587" }, ""},
		{func(m *reset.SMTPMailer) { m.From = "" }, "From"},
		{func(m *reset.SMTPMailer) { m.From = "Example" }, "From"},
		{func(m *reset.SMTPMailer) { m.From = "a@example.com, b@example.com" }, "From"},
		{func(m *reset.SMTPMailer) { m.From = "a@example.com\r\nBcc: b@example.com" }, "From"},
		{func(m *reset.SMTPMailer) { m.From = "jürgen@example.com" }, "From"},
		{func(m *reset.SMTPMailer) { m.From = `"a b"@example.com` }, "From"},
		{func(m *reset.SMTPMailer) { m.From = "Bücher <a@bücher.example>" }, ""},
		{func(m *reset.SMTPMailer) { m.ReplyTo = "nobody" }, "ReplyTo"},
		{func(m *reset.SMTPMailer) { m.ReplyTo = "Help <help@example.com>" }, ""},
		{func(m *reset.SMTPMailer) { m.Username = "u" }, "Username"},
		{func(m *reset.SMTPMailer) { m.Password = "p" }, "Username"},
		{func(m *reset.SMTPMailer) { m.Username, m.Password = "u\x00", "p" }, "Username"},
		{func(m *reset.SMTPMailer) { m.Username, m.Password = "u", "p" }, ""},
		{func(m *reset.SMTPMailer) { m.InsecureNoTLS = true }, ""},
		{func(m *reset.SMTPMailer) { m.InsecureNoTLS, m.ImplicitTLS = true, true }, "InsecureNoTLS"},
		{func(m *reset.SMTPMailer) { m.InsecureNoTLS, m.TLSConfig = true, new(tls.Config) }, "InsecureNoTLS"},
		{func(m *reset.SMTPMailer) { m.InsecureNoTLS, m.Addr = true, "smtp.example.com:465" }, "InsecureNoTLS"},
		{func(m *reset.SMTPMailer) { m.InsecureNoTLS, m.Username, m.Password = true, "u", "p" }, "InsecureNoTLS"},
		{func(m *reset.SMTPMailer) {
			m.InsecureNoTLS, m.Username, m.Password, m.Addr = true, "u", "p", "10.0.0.1:25"
		}, "InsecureNoTLS"},
		{func(m *reset.SMTPMailer) {
			m.InsecureNoTLS, m.Username, m.Password, m.Addr = true, "u", "p", "127.0.0.1:25"
		}, ""},
		{func(m *reset.SMTPMailer) {
			m.InsecureNoTLS, m.Username, m.Password, m.Addr = true, "u", "p", "[::1]:25"
		}, ""},
		{func(m *reset.SMTPMailer) {
			m.InsecureNoTLS, m.Username, m.Password, m.Addr = true, "u", "p", "localhost:25"
		}, ""},
		{func(m *reset.SMTPMailer) { m.HelloName = "a b" }, "HelloName"},
		{func(m *reset.SMTPMailer) { m.HelloName = "a\r\nMAIL FROM:<x>" }, "HelloName"},
		{func(m *reset.SMTPMailer) { m.HelloName = "[192.0.2.1]" }, ""},
		{func(m *reset.SMTPMailer) { m.Timeout = -1 }, "Timeout"},
	} {
		m := &reset.SMTPMailer{Addr: "smtp.example.com:587", From: "Example <no-reply@example.com>"}
		m.SetDial(func(context.Context, string, string) (net.Conn, error) { return nil, io.ErrUnexpectedEOF })
		tt.change(m)
		err := m.Check()
		if (err == nil) != (tt.want == "") || err != nil && !strings.HasPrefix(err.Error(), "reset: SMTPMailer."+tt.want+" ") {
			t.Errorf("Check: %v, want an error of %q", err, tt.want)
		}
		sent := m.Send(t.Context(), newMessage())
		if errors.Is(sent, reset.ErrUndeliverable) || errors.Is(sent, io.ErrUnexpectedEOF) != (err == nil) {
			t.Errorf("Check: %v, but Send: %v", err, sent)
		}
	}
}

func TestSMTPReuse(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	s := smtptest.Listen(t, safeScript(ca))
	m := safeMailer(t, s, ca)
	for range 3 {
		if err := m.Send(t.Context(), newMessage()); err != nil {
			t.Fatal(err)
		}
	}
	m.Close()
	s.WaitClosed(t)
	want := []string{"EHLO", "STARTTLS", "TLS", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA", "QUIT"}
	if got := s.Lines(); !slices.Equal(got, want) || len(s.Sessions()) != 1 {
		t.Errorf("the server was told %q on %d connections, want %q on one", got, len(s.Sessions()), want)
	}
}

func TestSMTPIdleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := smtptest.New(t, smtptest.Script{})
		m := plainMailer(t, s)
		for _, tt := range []struct {
			wait  time.Duration
			conns int
		}{{0, 1}, {4 * time.Second, 1}, {4 * time.Second, 1}, {6 * time.Second, 2}} {
			<-time.After(tt.wait)
			if err := m.Send(t.Context(), newMessage()); err != nil {
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

// What may have happened to a connection while it waited is no failure.
func TestSMTPStaleConnection(t *testing.T) {
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
			m := plainMailer(t, s)
			for range 2 {
				if err := m.Send(t.Context(), newMessage()); err != nil {
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
			m := plainMailer(t, s)
			if err := m.Send(t.Context(), newMessage()); err != nil {
				t.Fatal(err)
			}
			err := m.Send(t.Context(), newMessage())
			s.WaitClosed(t)
			if n := len(s.Sessions()); err == nil || n != 1 {
				t.Errorf("error %v over %d connections, want one over 1", err, n)
			}
		})
	}
	t.Run("again", func(t *testing.T) {
		closed := smtptest.Script{On: map[string]smtptest.Action{"MAIL 2": smtptest.HangUp}}
		s := smtptest.Listen(t, closed, smtptest.Script{On: map[string]smtptest.Action{"MAIL": smtptest.HangUp}})
		m := plainMailer(t, s)
		if err := m.Send(t.Context(), newMessage()); err != nil {
			t.Fatal(err)
		}
		if err := m.Send(t.Context(), newMessage()); err == nil || len(s.Sessions()) != 2 {
			t.Errorf("error %v over %d connections, want one over 2", err, len(s.Sessions()))
		}
		s.WaitClosed(t)
	})
}

// One time-out holds for both connections.
func TestSMTPStaleConnectionHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slowly := func(c *smtptest.Conn) bool {
			<-time.After(20 * time.Second)
			return false
		}
		s := smtptest.New(t,
			smtptest.Script{On: map[string]smtptest.Action{"MAIL 2": slowly}},
			smtptest.Script{On: map[string]smtptest.Action{"RCPT": smtptest.Hang}})
		m := plainMailer(t, s)
		if err := m.Send(t.Context(), newMessage()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		err := m.Send(t.Context(), newMessage())
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != 30*time.Second {
			t.Errorf("Send took %v: %v; want 30 s", d, err)
		}
	})
}

func TestSMTPManyAtOnce(t *testing.T) {
	const n = 50
	gate := make(chan struct{})
	s := smtptest.Listen(t, smtptest.Script{On: map[string]smtptest.Action{
		"greeting": func(c *smtptest.Conn) bool {
			<-gate // until all are here, so that each Send has a connection of its own
			return smtptest.Say("220 hello")(c)
		},
	}})
	m := plainMailer(t, s)
	var wg sync.WaitGroup
	var all sync.WaitGroup
	all.Add(n)
	m.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		all.Done()
		return new(net.Dialer).DialContext(ctx, network, addr)
	})
	for range n {
		wg.Go(func() {
			if err := m.Send(t.Context(), newMessage()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(gate)
	wg.Wait()
	if got := m.Idle(); got == 0 || got > 8 {
		t.Errorf("%d connections wait, want 1 to 8", got)
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

// No connection is used for ever.
func TestSMTPConnectionShare(t *testing.T) {
	s := smtptest.New(t, smtptest.Script{})
	m := plainMailer(t, s)
	for range 250 {
		if err := m.Send(t.Context(), newMessage()); err != nil {
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

// Once the message is accepted, nothing is a failure.
func TestSMTPQuit(t *testing.T) {
	for name, quit := range map[string]smtptest.Action{
		"hang": smtptest.Hang, "hang up": smtptest.HangUp, "refused": smtptest.Say("500 no"), "flood": smtptest.Flood("221-bye\r\n", time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{"QUIT": quit}})
				m := plainMailer(t, s)
				if err := m.Send(t.Context(), newMessage()); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				if err := m.Close(); err != nil || time.Since(start) > 2*time.Second {
					t.Errorf("Close: %v after %v", err, time.Since(start))
				}
				s.WaitClosed(t)
			})
		})
	}
}

// Neither does saying goodbye prolong an exchange that has failed.
func TestSMTPQuitInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{
			"RCPT": func(c *smtptest.Conn) bool {
				<-time.After(29 * time.Second)
				return smtptest.Say("450 4.2.1 busy")(c)
			},
			"QUIT": smtptest.Hang,
		}})
		start := time.Now()
		err := plainMailer(t, s).Send(t.Context(), newMessage())
		if d := time.Since(start); err == nil || !strings.Contains(err.Error(), "smtp: rcpt to: 450 ") || d != 30*time.Second {
			t.Errorf("Send took %v: %v; want 30 s and the reply", d, err)
		}
		s.WaitClosed(t)
	})
}

func TestSMTPFailpoints(t *testing.T) {
	s := smtptest.New(t, smtptest.Script{})
	m := plainMailer(t, s)
	seen := make(map[string]int) // how many commands the server had at each
	failpoint.Arm(func(name string) { seen[name] = len(s.Lines()) })
	defer failpoint.Arm(nil)
	if err := m.Send(t.Context(), newMessage()); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2 || seen["dialled"] != 1 || seen["accepted"] != 4 {
		t.Errorf("failpoints %v, want dialled after EHLO and accepted after DATA", seen)
	}
}

// FuzzSMTPReplies is a server that says anything.
func FuzzSMTPReplies(f *testing.F) {
	f.Add([]byte("220 a\r\n250-a\r\n250 AUTH PLAIN\r\n235 ok\r\n250 ok\r\n250 ok\r\n354 ok\r\n250 ok\r\n"))
	f.Add([]byte("220-\r\n220 \r\n502 \r\n250\r\n550-x\r\n550 \x00\x1b\r\n"))
	f.Add([]byte("220 a\r\n250 AUTH LOGIN\r\n334 \r\n334 \r\n235 \r\n550 5.1.1 a\r\n"))
	f.Add([]byte("99\r\n-\r\n"))
	f.Fuzz(func(t *testing.T, replies []byte) {
		m := &reset.SMTPMailer{
			Addr: "localhost:25", From: "no-reply@example.com", InsecureNoTLS: true,
			Username: smtpUser, Password: smtpPassword,
		}
		conn := &deafConn{Reader: bytes.NewReader(replies)}
		m.SetDial(func(context.Context, string, string) (net.Conn, error) { return conn, nil })
		err := m.Send(t.Context(), newMessage())
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

// A deafConn has said all beforehand.
type deafConn struct {
	io.Reader
	net.Conn
	closed bool
}

func (c *deafConn) Read(p []byte) (int, error)  { return c.Reader.Read(p) }
func (c *deafConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *deafConn) SetDeadline(time.Time) error { return nil }
func (c *deafConn) Close() error                { c.closed = true; return nil }

// The server half of the library whose client half is used.
func TestSMTPGoServer(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	for _, implicit := range []bool{false, true} {
		t.Run(fmt.Sprintf("implicit %v", implicit), func(t *testing.T) {
			var b goBackend
			server := smtp.NewServer(smtp.BackendFunc(b.newSession))
			server.TLSConfig = ca.Server("127.0.0.1")
			server.EnableSMTPUTF8 = true
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			m := &reset.SMTPMailer{
				Addr: l.Addr().String(), From: "Example <no-reply@example.com>", Username: smtpUser, Password: smtpPassword,
				TLSConfig: ca.Client(), ImplicitTLS: implicit,
			}
			if implicit {
				l = tls.NewListener(l, server.TLSConfig)
			}
			var wg sync.WaitGroup
			wg.Go(func() { server.Serve(l) })
			defer wg.Wait()
			defer server.Close()
			defer m.Close()

			for _, to := range []string{"alice@example.org", "jürgen@example.org"} {
				msg := newMessage()
				msg.To, msg.Name = to, "Jürgen Ü. 日本語"
				if err := m.Send(t.Context(), msg); err != nil {
					t.Fatal(err)
				}
				got := b.last()
				if got.user != smtpUser || !got.tls || got.from != "no-reply@example.com" || !slices.Equal(got.to, []string{to}) {
					t.Errorf("envelope %+v", got)
				}
				checkDelivered(t, got.data, msg)
			}

			wrong := reset.SMTPMailer{Addr: m.Addr, From: m.From, TLSConfig: m.TLSConfig, ImplicitTLS: implicit, Username: smtpUser, Password: "wrong"}
			if err := wrong.Send(t.Context(), newMessage()); err == nil || errors.Is(err, reset.ErrUndeliverable) || !strings.Contains(err.Error(), "smtp: auth: 535") {
				t.Errorf("with a wrong password: %v", err)
			}
		})
	}
}

// checkDelivered checks a message as a server has stored it.
func checkDelivered(t *testing.T, data []byte, msg reset.Message) {
	t.Helper()
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")) // stores differ
	parsed := parseLetter(t, data)
	to, err := parsed.Header.AddressList("To")
	if err != nil || len(to) != 1 || to[0].Address != msg.To || to[0].Name != msg.Name {
		t.Errorf("To: %v, %v", to, err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(parsed.Header.Get("Subject"))
	if err != nil || subject != msg.Subject {
		t.Errorf("Subject: %q, %v", subject, err)
	}
	if got, want := parsed.Header.Get("Message-Id"), "<"+msg.ID+"@example.com>"; got != want {
		t.Errorf("Message-ID: %q, want %q", got, want)
	}
	text, html := readParts(t, parsed)
	if crlf(text) != crlf(msg.Text) || crlf(html) != crlf(msg.HTML) {
		t.Errorf("text %q, html %q", text, html)
	}
}

// goBackend keeps the messages of a go-smtp server.
type goBackend struct {
	mu   sync.Mutex
	mail []goMail
}

type goMail struct {
	user, from string
	to         []string
	tls        bool
	data       []byte
}

func (b *goBackend) last() goMail {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mail[len(b.mail)-1]
}

func (b *goBackend) newSession(c *smtp.Conn) (smtp.Session, error) {
	_, overTLS := c.TLSConnectionState()
	return &goSession{backend: b, mail: goMail{tls: overTLS}}, nil
}

type goSession struct {
	backend *goBackend
	mail    goMail
}

func (s *goSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *goSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != smtpUser || password != smtpPassword {
			return smtp.ErrAuthFailed
		}
		s.mail.user = user
		return nil
	}), nil
}

func (s *goSession) Mail(from string, _ *smtp.MailOptions) error {
	if s.mail.user == "" {
		return smtp.ErrAuthRequired
	}
	s.mail.from = from
	return nil
}

func (s *goSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mail.to = append(s.mail.to, to)
	return nil
}

func (s *goSession) Data(r io.Reader) (err error) {
	if s.mail.data, err = io.ReadAll(r); err != nil {
		return err
	}
	s.backend.mu.Lock()
	defer s.backend.mu.Unlock()
	s.backend.mail = append(s.backend.mail, s.mail)
	return nil
}

func (s *goSession) Reset()        { s.mail = goMail{user: s.mail.user, tls: s.mail.tls} }
func (s *goSession) Logout() error { return nil }

// TestSMTPRealServer needs a mail server that was not written for it and keeps
// its mail in a Maildir, as .ci/smtp.sh starts one.
func TestSMTPRealServer(t *testing.T) {
	if os.Getenv("RESET_TEST_SMTP") == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("RESET_TEST_SMTP is not set: see .ci/smtp.sh")
		}
		t.Skip("RESET_TEST_SMTP is not set: see .ci/smtp.sh")
	}
	env := func(name string) string {
		value := os.Getenv("RESET_TEST_SMTP" + name)
		if value == "" {
			t.Fatalf("RESET_TEST_SMTP%s is not set: see .ci/smtp.sh", name)
		}
		return value
	}
	pem, err := os.ReadFile(env("_CA"))
	if err != nil {
		t.Fatal(err)
	}
	ca := x509.NewCertPool()
	if !ca.AppendCertsFromPEM(pem) {
		t.Fatalf("%s has no certificate", env("_CA"))
	}
	maildir := env("_MAILDIR")

	plain := &reset.SMTPMailer{Addr: env(""), From: "Example <no-reply@example.com>", InsecureNoTLS: true}
	startTLS := &reset.SMTPMailer{
		Addr: env("_TLS"), From: "Example <no-reply@example.com>", Username: env("_USER"), Password: env("_PASSWORD"),
		TLSConfig: &tls.Config{RootCAs: ca},
	}
	implicit := &reset.SMTPMailer{
		Addr: env("_IMPLICIT"), From: "Example <no-reply@example.com>", Username: env("_USER"), Password: env("_PASSWORD"),
		TLSConfig: &tls.Config{RootCAs: ca}, ImplicitTLS: true,
	}
	for _, tt := range []struct {
		name, protocol string
		mailer         *reset.SMTPMailer
	}{{"plain", "ESMTP", plain}, {"STARTTLS", "ESMTPSA", startTLS}, {"implicit TLS", "ESMTPSA", implicit}} {
		t.Run(tt.name, func(t *testing.T) {
			defer tt.mailer.Close()
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					for i := range 5 {
						msg := newMessage()
						msg.ID = rand.Text()
						if i%2 == 1 {
							msg.To = "jürgen@example.org"
						}
						msg.Name, msg.Subject = `Jürgen "J." O'Neill, 日本`, strings.Repeat("Ein neues Paßwort wählen ", 10)
						msg.Text = ".\r\n..\r\n.hidden\r\nÄ " + strings.Repeat("long ", 400) + "\r\n" + msg.Text
						if err := tt.mailer.Send(t.Context(), msg); err != nil {
							t.Error(err)
							return
						}
						data := waitMaildir(t, maildir, msg.ID)
						checkDelivered(t, data, msg)
						protocol := " with " + tt.protocol
						if i%2 == 1 {
							protocol = strings.Replace(protocol, "ESMTP", "UTF8SMTP", 1) // RFC 6531, 4.3
						}
						header := parseLetter(t, data).Header
						if got := header.Get("Received"); !strings.Contains(got, protocol+" ") {
							t.Errorf("Received: %s; want it%s", got, protocol)
						}
						if to, from := header.Get("Delivered-To"), header.Get("Return-Path"); to != msg.To || from != "<no-reply@example.com>" {
							t.Errorf("delivered to %s from %s", to, from)
						}
					}
				})
			}
			wg.Wait()
		})
	}

	for name, change := range map[string]func(*reset.SMTPMailer){
		"wrong password":    func(m *reset.SMTPMailer) { m.Password = "wrong" },
		"unknown authority": func(m *reset.SMTPMailer) { m.TLSConfig = nil },
		"another name":      func(m *reset.SMTPMailer) { m.TLSConfig = &tls.Config{RootCAs: ca, ServerName: "smtp.example.com"} },
		"log-in missing":    func(m *reset.SMTPMailer) { m.Username, m.Password = "", "" },
		"no TLS there":      func(m *reset.SMTPMailer) { m.Addr = plain.Addr },
	} {
		t.Run(name, func(t *testing.T) {
			m := &reset.SMTPMailer{Addr: startTLS.Addr, From: startTLS.From, TLSConfig: startTLS.TLSConfig, Username: startTLS.Username, Password: startTLS.Password}
			change(m)
			err := m.Send(t.Context(), newMessage())
			if err == nil || errors.Is(err, reset.ErrUndeliverable) {
				t.Errorf("error %v, want one that is not ErrUndeliverable", err)
			}
			t.Log(err)
		})
	}
	t.Run("nobody of that name", func(t *testing.T) {
		defer startTLS.Close()
		msg := newMessage()
		msg.To = "nobody@example.org"
		err := startTLS.Send(t.Context(), msg)
		if !errors.Is(err, reset.ErrUndeliverable) || !strings.Contains(err.Error(), "smtp: rcpt to: 550 ") {
			t.Errorf("error %v, want ErrUndeliverable", err)
		}
		t.Log(err)
	})
}

// waitMaildir returns the message with an ID once it is delivered.
func waitMaildir(t *testing.T, dir, id string) []byte {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		files, err := filepath.Glob(filepath.Join(dir, "new", "*"))
		if err != nil {
			t.Error(err)
			return nil
		}
		for _, name := range files {
			if data, err := os.ReadFile(name); err == nil && bytes.Contains(data, []byte("<"+id+"@example.com>")) {
				os.Remove(name)
				return data
			}
		}
		<-tick.C
	}
	t.Errorf("the message %s was not delivered", id)
	return nil
}
