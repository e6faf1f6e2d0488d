package smtp_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	_ "github.com/gopassreset/reset/internal/bubble"
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

// PIPELINING needs fewer round trips, and changes neither the message nor what
// errors say. A server that would take the message all the same gets none.
func TestPipelining(t *testing.T) {
	for _, tt := range []struct {
		name   string
		on     map[string]smtptest.Action
		want   string // the error
		fault  smtp.Fault
		writes int // with pipelining: EHLO, the commands, and the message or QUIT
	}{
		{"accepted", nil, "", -1, 3},
		{"sender refused", map[string]smtptest.Action{"MAIL": smtptest.Say("550 5.7.1 no"), "RCPT": smtptest.Say("503 no"), "DATA": smtptest.Say("503 no")}, "smtp: mail from: 550 5.7.1 no", smtp.OfServer, 3},
		{"recipient refused", map[string]smtptest.Action{"RCPT": smtptest.Say("550 5.1.1 no"), "DATA": smtptest.Say("554 no valid recipients")}, "smtp: rcpt to: 550 5.1.1 no", smtp.OfMessage, 3},
		{"recipient refused, message agreed to", map[string]smtptest.Action{"RCPT": smtptest.Say("450 4.2.1 no")}, "smtp: rcpt to: 450 4.2.1 no", smtp.Passing, 2},
		{"recipient refused, no further reply", map[string]smtptest.Action{"RCPT": smtptest.Say("450 4.2.1 no"), "DATA": smtptest.Hang}, "smtp: rcpt to: 450 4.2.1 no", smtp.Passing, 2},
		{"message refused", map[string]smtptest.Action{"DATA": smtptest.Say("452 4.3.1 no")}, "smtp: data: 452 4.3.1 no", smtp.Passing, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := smtptest.New(t, smtptest.Script{Offers: []string{"PIPELINING"}, On: tt.on})
				m := plainSender(t, s)
				writes := 0
				m.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := s.Dial(ctx, network, addr)
					return writeCounter{c, &writes}, err
				}
				err := m.send(t.Context())
				if faultOf(err) != tt.fault || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
					t.Errorf("error %v of fault %v, want %q of fault %v", err, faultOf(err), tt.want, tt.fault)
				}
				if writes != tt.writes {
					t.Errorf("%d writes, want %d", writes, tt.writes)
				}
				m.Close()
				s.WaitClosed(t)
				if n := len(s.Messages()); (n == 1) != (err == nil) {
					t.Errorf("%d messages, error %v", n, err)
				}
			})
		})
	}
}

type writeCounter struct {
	net.Conn
	n *int
}

func (c writeCounter) Write(p []byte) (int, error) {
	*c.n++
	return c.Conn.Write(p)
}

// moments are those at which a server can fall silent or hang up, in their
// order, with what errors say of them.
var moments = []struct {
	moment, stage string
	fault         smtp.Fault
}{
	{"greeting", "hello", smtp.OfServer}, {"EHLO", "hello", smtp.OfServer}, {"STARTTLS", "starttls", smtp.OfServer},
	{"handshake", "handshake", smtp.OfServer}, {"EHLO 2", "hello", smtp.OfServer}, {"AUTH", "auth", smtp.OfServer},
	{"MAIL", "mail from", smtp.OfServer}, {"RCPT", "rcpt to", smtp.Passing}, {"DATA", "data", smtp.Passing}, {"message", "message", smtp.Passing},
}

// A code may have no text (RFC 5321, 4.2), and its first digit is what counts
// (4.3.2).
func TestReplyForms(t *testing.T) {
	for moment, replies := range map[string][]string{
		"greeting": {"220", "220-", "220 "},
		"EHLO":     {"250", "251 hello"},
		"AUTH":     {"235", "250 ok"},
		"MAIL":     {"250", "200 ok"},
		"RCPT":     {"250", "251 not here, but will forward", "252 cannot say"},
		"go-ahead": {"354", "350 go on"},
		"message":  {"250", "250 ", "250\tok", "200 ok", "251 ok", "250-ok\r\n250", "250-ok\r\nwhat\r\n251 what\r\n250 ok"},
	} {
		for _, reply := range replies {
			t.Run(moment+" "+reply, func(t *testing.T) {
				if strings.HasSuffix(reply, "-") {
					reply += "\r\n" + reply[:3]
				}
				script := smtptest.Script{Offers: []string{"AUTH PLAIN"}, On: map[string]smtptest.Action{moment: smtptest.Say(reply)}}
				m := plainSender(t, smtptest.New(t, script))
				if moment == "AUTH" {
					m.Username, m.Password = username, password
				}
				if err := m.send(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
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
				wait, fault := m.Timeout, tt.fault
				if tt.moment == "message" {
					wait, fault = 10*time.Minute, smtp.Unconfirmed
				}
				start := time.Now()
				err := m.send(t.Context())
				if want := fmt.Sprintf("smtp: %s: timed out after %v", tt.stage, wait); !errors.Is(err, context.DeadlineExceeded) || err.Error() != want || faultOf(err) != fault {
					t.Errorf("error %v of fault %v, want %q of fault %v", err, faultOf(err), want, fault)
				}
				if d := time.Since(start); d != wait {
					t.Errorf("Send took %v, want %v", d, wait)
				}
				s.WaitClosed(t)
			})
		})
	}
}

// A server may take minutes for its last reply. If the connection ends after such
// a wait, the message has probably arrived.
func TestSlowDot(t *testing.T) {
	for _, tt := range []struct {
		wait time.Duration
		then smtptest.Action
		want smtp.Fault
	}{
		{35 * time.Second, smtptest.Say("250 accepted"), -1},
		{2 * time.Minute, smtptest.Say("250 accepted"), -1},
		{9 * time.Minute, smtptest.Say("250 accepted"), -1},
		{9 * time.Minute, smtptest.Say("451 4.3.0 aborted"), smtp.Passing},
		{29 * time.Second, smtptest.HangUp, smtp.Passing},
		{30 * time.Second, smtptest.HangUp, smtp.Unconfirmed},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{"message": func(c *smtptest.Conn) bool {
				<-time.After(tt.wait)
				return tt.then(c)
			}}})
			m := plainSender(t, s)
			if err := m.send(t.Context()); faultOf(err) != tt.want {
				t.Errorf("after %v: error %v of fault %v, want fault %v", tt.wait, err, faultOf(err), tt.want)
			}
			m.Close()
			s.WaitClosed(t)
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
			if err := m.send(ctx); !errors.Is(err, context.Canceled) || faultOf(err) != smtp.Passing {
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
	if err := m.send(t.Context()); faultOf(err) != smtp.OfServer || !strings.Contains(err.Error(), "smtp: dial: ") {
		t.Errorf("nobody listens: error %v, want the server's of stage dial", err)
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
			if faultOf(err) != tt.fault || !strings.Contains(err.Error(), "smtp: "+tt.stage+": ") {
				t.Errorf("error %v of fault %v, want one of stage %q and fault %v", err, faultOf(err), tt.stage, tt.fault)
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

// Without a safe connection the server gets nothing but the name of the client.
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
			if faultOf(err) != smtp.OfServer || !strings.Contains(err.Error(), "smtp: "+tt.stage+": ") {
				t.Errorf("error %v, want one of stage %q", err, tt.stage)
			}
			s.WaitClosed(t)
			for _, verb := range s.Lines() {
				if !slices.Contains([]string{"EHLO", "HELO", "STARTTLS"}, verb) {
					t.Errorf("the server got %q", s.Lines())
				}
			}
		})
	}
}

// Keywords are in any case (RFC 5321, 2.4), and old servers write AUTH with an
// equals sign.
func TestKeywords(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	for _, offers := range [][]string{
		{"smtputf8", "Auth Plain"}, {"SmtpUtf8", "auth plain"}, {"SMTPUTF8", "AUTH=LOGIN PLAIN"}, {"SMTPUTF8 ", "AUTH  LOGIN\tPLAIN "},
		{"SMTPUTF8", "AUTH LOGIN", "AUTH=PLAIN"},
	} {
		s := smtptest.Listen(t, smtptest.Script{TLS: ca.Server("smtp.example.com"), Offers: offers, On: map[string]smtptest.Action{
			"EHLO 1": smtptest.Say("250-test", "250 StartTls"),
		}})
		m := safeSender(t, s, ca)
		e := envelope()
		e.To, e.UTF8 = "jürgen@example.org", true
		if err := m.Send(t.Context(), m.Server, e); err != nil {
			t.Errorf("offers %q: %v", offers, err)
		}
		m.Close()
		s.WaitClosed(t)
		want := []string{"EHLO", "STARTTLS", "TLS", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "QUIT"}
		if got := s.Lines(); !slices.Equal(got, want) {
			t.Errorf("offers %q: the server got %q, want %q", offers, got, want)
		}
	}
}

// Without a name the client introduces itself by its address.
func TestAddressLiteral(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		s := smtptest.ListenAt(t, "tcp", addr, smtptest.Script{})
		m := plainSender(t, s)
		m.Hello = ""
		if err := m.send(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := "EHLO [127.0.0.1]"
		if addr == "[::1]:0" {
			want = "EHLO [IPv6:::1]"
		}
		if got := s.Sessions()[0].Lines[0]; got != want {
			t.Errorf("at %s the server got %q, want %q", addr, got, want)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	s := smtptest.ListenAt(t, "unix", filepath.Join(t.TempDir(), "smtp"), smtptest.Script{})
	m := plainSender(t, s)
	m.Network = "unix"
	if err := m.send(t.Context()); err != nil || len(s.Messages()) != 1 {
		t.Errorf("%d messages, error %v; want 1", len(s.Messages()), err)
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

// QUIT does not outlast the context.
func TestQuitInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{
			"RCPT": func(c *smtptest.Conn) bool {
				<-time.After(29 * time.Second)
				return smtptest.Say("450 4.2.1 busy")(c)
			},
			"QUIT": smtptest.Hang,
		}})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		start := time.Now()
		err := plainSender(t, s).send(ctx)
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
