package smtp_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset/internal/failpoint"
	"github.com/gopassreset/reset/internal/smtp"
	"github.com/gopassreset/reset/internal/smtptest"
)

func TestTalk(t *testing.T) {
	s := smtptest.Listen(t, smtptest.Script{Offers: []string{"8BITMIME", "SIZE 1000000", "DSN"}})
	m := plainSender(t, s)
	e := envelope()
	e.Data = append(e.Data, ".\r\n..\r\n.QUIT\r\n"...)
	if err := m.Send(t.Context(), m.Server, e); err != nil {
		t.Fatal(err)
	}
	m.Close()
	s.WaitClosed(t)
	want := []string{"EHLO app.example.com", "MAIL FROM:<no-reply@example.com> BODY=8BITMIME", "RCPT TO:<alice@example.org>", "DATA", "QUIT"}
	sessions := s.Sessions()
	if len(sessions) != 1 || !slices.Equal(sessions[0].Lines, want) || len(sessions[0].Messages) != 1 {
		t.Fatalf("sessions %q, want one of %q", sessions, want)
	}
	want = []string{strings.ReplaceAll(string(e.Data), "\r\n.", "\r\n..")}
	if got := sessions[0].Messages; !slices.Equal(got, want) {
		t.Errorf("messages %q, want %q", got, want)
	}
}

func TestTalkWithTLS(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + username + "\x00" + password))
	user64 := base64.StdEncoding.EncodeToString([]byte(username))
	password64 := base64.StdEncoding.EncodeToString([]byte(password))
	mail := []string{"MAIL FROM:<no-reply@example.com>", "RCPT TO:<alice@example.org>", "DATA", "QUIT"}
	for _, tt := range []struct {
		name     string
		implicit bool
		offer    string
		want     []string
	}{
		{"STARTTLS", false, "AUTH LOGIN PLAIN", []string{"EHLO me.example.com", "STARTTLS", "TLS", "EHLO me.example.com", "AUTH PLAIN " + plain}},
		{"implicit", true, "AUTH PLAIN", []string{"TLS", "EHLO me.example.com", "AUTH PLAIN " + plain}},
		{"LOGIN", true, "AUTH LOGIN CRAM-MD5", []string{"TLS", "EHLO me.example.com", "AUTH LOGIN", user64, password64}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script := safeScript(ca)
			script.Implicit, script.Offers = tt.implicit, []string{tt.offer}
			s := smtptest.Listen(t, script)
			m := safeSender(t, s, ca)
			m.ImplicitTLS, m.Hello = tt.implicit, "me.example.com"
			if err := m.send(t.Context()); err != nil {
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

// moments are those at which a server can fall silent or hang up, in their
// order, with the name that errors have for them.
var moments = []struct{ moment, stage string }{
	{"greeting", "hello"}, {"EHLO", "hello"}, {"STARTTLS", "starttls"}, {"handshake", "handshake"}, {"EHLO 2", "hello"},
	{"AUTH", "auth"}, {"MAIL", "mail from"}, {"RCPT", "rcpt to"}, {"DATA", "data"}, {"message", "message"},
}

func TestHang(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	for _, tt := range moments {
		t.Run(tt.moment, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // which fails if a goroutine is left
				script := safeScript(ca)
				script.On = map[string]smtptest.Action{tt.moment: smtptest.Hang}
				s := smtptest.New(t, script)
				m := safeSender(t, s, ca)
				start := time.Now()
				err := m.send(t.Context())
				if !errors.Is(err, context.DeadlineExceeded) || isPermanent(err) || !strings.Contains(err.Error(), "smtp: "+tt.stage+": ") {
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

func TestCancelled(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	for _, tt := range moments {
		t.Run(tt.moment, func(t *testing.T) {
			script := safeScript(ca)
			script.On = map[string]smtptest.Action{tt.moment: smtptest.Hang}
			s := smtptest.Listen(t, script)
			m := safeSender(t, s, ca)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-s.Hung
				cancel()
			}()
			if err := m.send(ctx); !errors.Is(err, context.Canceled) || isPermanent(err) {
				t.Errorf("error %v, want %v", err, context.Canceled)
			}
			s.WaitClosed(t)
		})
	}

	s := smtptest.New(t, smtptest.Script{})
	m := plainSender(t, s)
	if err := m.send(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.send(ctx); !errors.Is(err, context.Canceled) || m.Idle() != 1 || len(s.Messages()) != 1 {
		t.Errorf("Send with a cancelled context: %v, %d messages, %d connections wait", err, len(s.Messages()), m.Idle())
	}
}

func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &sender{Server: smtp.Server{Addr: l.Addr().String(), Timeout: 30 * time.Second}}
	l.Close()
	if err := m.send(t.Context()); err == nil || isPermanent(err) || !strings.Contains(err.Error(), "smtp: dial: ") {
		t.Errorf("nobody listens: error %v, want one of stage dial", err)
	}
	synctest.Test(t, func(t *testing.T) {
		m.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, errors.New("i/o timeout")
		}
		start := time.Now()
		err := m.send(t.Context())
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != 30*time.Second || !strings.Contains(err.Error(), "smtp: dial: ") {
			t.Errorf("Send took %v: %v; want 30 s", d, err)
		}
	})
}

func TestHangUp(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	for _, tt := range moments {
		t.Run(tt.moment, func(t *testing.T) {
			script := safeScript(ca)
			script.On = map[string]smtptest.Action{tt.moment: smtptest.HangUp}
			s := smtptest.Listen(t, script)
			m := safeSender(t, s, ca)
			err := m.send(t.Context())
			if err == nil || isPermanent(err) || !strings.Contains(err.Error(), "smtp: "+tt.stage+": ") {
				t.Errorf("error %v, want one of stage %q", err, tt.stage)
			}
			s.WaitClosed(t)
			if n := len(s.Sessions()); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
}

func TestTimeoutOfContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{"RCPT": smtptest.Hang}})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		err := plainSender(t, s).send(ctx)
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != 3*time.Second {
			t.Errorf("Send took %v: %v; want 3 s", d, err)
		}
	})
}

// Without a safe connection nothing is told but the name of the mailer.
func TestInsistsOnTLS(t *testing.T) {
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
			m := safeSender(t, s, ca)
			m.TLS.MinVersion = tls.VersionTLS10 // is raised
			err := m.send(t.Context())
			if err == nil || isPermanent(err) || !strings.Contains(err.Error(), "smtp: "+tt.stage+": ") {
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

func TestInsistsOnAuth(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	for _, offers := range [][]string{nil, {"AUTH"}, {"AUTH CRAM-MD5 XOAUTH2"}} {
		script := safeScript(ca)
		script.Offers = offers
		s := smtptest.Listen(t, script)
		err := safeSender(t, s, ca).send(t.Context())
		if err == nil || isPermanent(err) || !strings.Contains(err.Error(), "smtp: auth: ") {
			t.Errorf("offers %q: error %v, want one of stage auth", offers, err)
		}
		s.WaitClosed(t)
		if want := []string{"EHLO", "STARTTLS", "TLS", "EHLO"}; !slices.Equal(s.Lines(), want) {
			t.Errorf("offers %q: the server was told %q, want %q", offers, s.Lines(), want)
		}
	}
}

// Prompts without end do not get the password twice.
func TestAuthPrompts(t *testing.T) {
	s := smtptest.Listen(t, smtptest.Script{Offers: []string{"AUTH LOGIN"}, On: map[string]smtptest.Action{
		"AUTH": smtptest.Say(slices.Repeat([]string{"334 UGFzc3dvcmQ6"}, 10)...),
	}})
	m := plainSender(t, s)
	m.Username, m.Password = username, password
	if err := m.send(t.Context()); err == nil || !strings.Contains(err.Error(), "smtp: auth: ") {
		t.Errorf("error %v, want one of stage auth", err)
	}
	s.WaitClosed(t)
	told := strings.Join(s.Sessions()[0].Lines, "\n")
	if n := strings.Count(told, base64.StdEncoding.EncodeToString([]byte(password))); n != 1 {
		t.Errorf("the server was told %q", told)
	}
}

// Once the message is accepted, nothing is a failure.
func TestQuit(t *testing.T) {
	for name, quit := range map[string]smtptest.Action{
		"hang": smtptest.Hang, "hang up": smtptest.HangUp, "refused": smtptest.Say("500 no"), "flood": smtptest.Flood("221-bye\r\n", time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{"QUIT": quit}})
				m := plainSender(t, s)
				if err := m.send(t.Context()); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				if m.Close(); time.Since(start) > 2*time.Second {
					t.Errorf("Close took %v", time.Since(start))
				}
				s.WaitClosed(t)
			})
		})
	}
}

// Neither does saying goodbye prolong an exchange that has failed.
func TestQuitInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{
			"RCPT": func(c *smtptest.Conn) bool {
				<-time.After(29 * time.Second)
				return smtptest.Say("450 4.2.1 busy")(c)
			},
			"QUIT": smtptest.Hang,
		}})
		start := time.Now()
		err := plainSender(t, s).send(t.Context())
		if d := time.Since(start); err == nil || !strings.Contains(err.Error(), "smtp: rcpt to: 450 ") || d != 30*time.Second {
			t.Errorf("Send took %v: %v; want 30 s and the reply", d, err)
		}
		s.WaitClosed(t)
	})
}

func TestFailpoints(t *testing.T) {
	s := smtptest.New(t, smtptest.Script{})
	m := plainSender(t, s)
	seen := make(map[string]int) // how many commands the server had at each
	failpoint.Arm(func(name string) { seen[name] = len(s.Lines()) })
	defer failpoint.Arm(nil)
	if err := m.send(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2 || seen["dialled"] != 1 || seen["accepted"] != 4 {
		t.Errorf("failpoints %v, want dialled after EHLO and accepted after DATA", seen)
	}
}
