package smtp_test

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset/internal/smtp"
	"github.com/gopassreset/reset/internal/smtptest"
)

func TestInsistsOnAuth(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	for _, offers := range [][]string{nil, {"AUTH"}, {"AUTH CRAM-MD5 XOAUTH2 PLAIN-CLIENTTOKEN"}} {
		script := safeScript(ca)
		script.Offers = offers
		s := smtptest.Listen(t, script)
		err := safeSender(t, s, ca).send(t.Context())
		if faultOf(err) != smtp.OfServer || !strings.Contains(err.Error(), "smtp: auth: ") {
			t.Errorf("offers %q: error %v, want one of stage auth", offers, err)
		}
		s.WaitClosed(t)
		if want := []string{"EHLO", "STARTTLS", "TLS", "EHLO"}; !slices.Equal(s.Lines(), want) {
			t.Errorf("offers %q: the server got %q, want %q", offers, s.Lines(), want)
		}
	}
}

// A server that prompts without end does not get the password twice.
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
	got := strings.Join(s.Sessions()[0].Lines, "\n")
	if n := strings.Count(got, base64.StdEncoding.EncodeToString([]byte(password))); n != 1 {
		t.Errorf("the server got %q, want the password once", got)
	}
}

// A server may offer a mechanism that it does not support. A wrong password it
// gets once.
func TestNextMechanism(t *testing.T) {
	for _, tt := range []struct {
		reply string
		want  []string // the server's end of AUTH
		ok    bool
	}{
		{"504 5.5.4 mechanism not supported", []string{"AUTH PLAIN", "AUTH LOGIN"}, true},
		{"535 5.7.8 wrong", []string{"AUTH PLAIN"}, false},
		{"454 4.7.0 later", []string{"AUTH PLAIN"}, false},
	} {
		s := smtptest.Listen(t, smtptest.Script{Offers: []string{"AUTH PLAIN LOGIN"}, On: map[string]smtptest.Action{
			"AUTH 1": smtptest.Say(tt.reply),
		}})
		m := plainSender(t, s)
		m.Username, m.Password = username, password
		if err := m.send(t.Context()); (err == nil) != tt.ok {
			t.Errorf("%s: error %v", tt.reply, err)
		}
		if got := authLines(s); !slices.Equal(got, tt.want) {
			t.Errorf("%s: the server got %q, want %q", tt.reply, got, tt.want)
		}
	}
}

// authLines returns which mechanisms were tried.
func authLines(s *smtptest.Server) (lines []string) {
	for _, line := range s.Sessions()[0].Lines {
		if verb, rest, _ := strings.Cut(line, " "); verb == "AUTH" {
			mechanism, _, _ := strings.Cut(rest, " ")
			lines = append(lines, "AUTH "+mechanism)
		}
	}
	return lines
}

func TestToken(t *testing.T) {
	const token = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
	for _, tt := range []struct{ offers, mechanism, want string }{
		{"AUTH PLAIN LOGIN XOAUTH2", "XOAUTH2", "user=me,=@example.com\x01auth=Bearer " + token + "\x01\x01"},
		{"AUTH XOAUTH2 OAUTHBEARER", "OAUTHBEARER", "n,a=me=2C=3D@example.com,\x01host=127.0.0.1\x01port={port}\x01auth=Bearer " + token + "\x01\x01"},
	} {
		s := smtptest.Listen(t, smtptest.Script{Offers: []string{tt.offers}})
		m := plainSender(t, s)
		m.Username = "me,=@example.com"
		m.Token = func(context.Context) (string, error) { return token, nil }
		if err := m.send(t.Context()); err != nil {
			t.Errorf("%s: %v", tt.offers, err)
		}
		_, port, _ := strings.Cut(s.Addr, ":")
		want := "AUTH " + tt.mechanism + " " + base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(tt.want, "{port}", port)))
		if got := s.Sessions()[0].Lines[1]; got != want {
			t.Errorf("%s: the server got %q, want %q", tt.offers, got, want)
		}
	}
}

// A server reports what is wrong with a token in a challenge, which is answered
// before it refuses. The token is in no error.
func TestTokenRefused(t *testing.T) {
	const token = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
	for mechanism, answer := range map[string]string{"XOAUTH2": "", "OAUTHBEARER": "AQ=="} {
		for _, reply := range []string{"535 5.7.3 Authentication unsuccessful", "535 5.7.3 no such token: " + token[4:]} {
			s := smtptest.Listen(t, smtptest.Script{Offers: []string{"AUTH " + mechanism}, On: map[string]smtptest.Action{
				"AUTH": smtptest.Say("334 eyJzdGF0dXMiOiI0MDAifQ=="),
				answer: smtptest.Say(reply),
			}})
			m := plainSender(t, s)
			m.Username = username
			m.Token = func(context.Context) (string, error) { return token, nil }
			err := m.send(t.Context())
			if faultOf(err) != smtp.OfServer || !strings.HasPrefix(err.Error(), "smtp: auth: 535 ") || strings.Contains(err.Error(), token[4:16]) {
				t.Errorf("%s: error %v", mechanism, err)
			}
		}
	}
}

func TestTokenFails(t *testing.T) {
	cause := errors.New("no connection")
	var late chan struct{}
	for name, token := range map[string]func(context.Context) (string, error){
		"error":      func(context.Context) (string, error) { return "", cause },
		"empty":      func(context.Context) (string, error) { return "", nil },
		"line break": func(context.Context) (string, error) { return "a\r\nb", nil },
		"control":    func(context.Context) (string, error) { return "a\x01b", nil },
		"hangs": func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", context.Cause(ctx)
		},
		"ignores its context": func(context.Context) (string, error) {
			<-late
			return "token", nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := smtptest.New(t, smtptest.Script{Offers: []string{"AUTH XOAUTH2"}})
				m := plainSender(t, s)
				m.Username, m.Token = username, token
				late = make(chan struct{})
				defer close(late)
				start := time.Now()
				err := m.send(t.Context())
				if faultOf(err) != smtp.OfServer || !strings.HasPrefix(err.Error(), "smtp: auth: token: ") || errors.Is(err, cause) != (name == "error") {
					t.Errorf("error %v, want the server's, of the token", err)
				}
				if d := time.Since(start); d > m.Timeout {
					t.Errorf("Send took %v, want at most %v", d, m.Timeout)
				}
				s.WaitClosed(t)
				if len(authLines(s)) != 0 {
					t.Errorf("the server got %q", authLines(s))
				}
			})
		})
	}
}

func TestTokenPanics(t *testing.T) {
	s := smtptest.New(t, smtptest.Script{Offers: []string{"AUTH XOAUTH2"}})
	m := plainSender(t, s)
	m.Username, m.Token = username, func(context.Context) (string, error) { panic("no token") }
	func() {
		defer func() {
			if p := recover(); p != "no token" {
				t.Errorf("Send panicked with %v", p)
			}
		}()
		m.send(t.Context())
	}()
	s.WaitClosed(t)
}
