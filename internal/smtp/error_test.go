package smtp_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gopassreset/reset/internal/smtptest"
)

// Only a reply of 5xx to RCPT or to the message gives a message up.
func TestRefusals(t *testing.T) {
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
			m := plainSender(t, s)
			m.Username, m.Password = username, password
			err := m.send(t.Context())
			if err == nil || isPermanent(err) != tt.permanent {
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

// Errors go to logs. Servers quote what they refuse.
func TestErrorsKeepSecrets(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + username + "\x00" + password))
	for _, tt := range []struct{ moment, reply string }{
		{"AUTH", "535 no such password: " + password},
		{"AUTH", "535 AUTH PLAIN " + plain + " failed"},
		{"AUTH", "334 " + base64.StdEncoding.EncodeToString([]byte(password))},
		{"AUTH", password},
		{"MAIL", "450 " + password},
		{"message", "554 5.7.1 bad link https://app.example.com/reset?" + secret},
		{"message", "554-5.7.1 bad link\r\n554 5.7.1 ?activation=3D" + secret[len(secret)-16:] + "="},
		{"message", "451 bad link " + strings.Repeat(".", 290) + secret},
		{"message", "no reply at all, but " + secret},
	} {
		script := safeScript(ca)
		script.On = map[string]smtptest.Action{tt.moment: smtptest.SayAndHangUp(tt.reply)}
		s := smtptest.Listen(t, script)
		err := safeSender(t, s, ca).send(t.Context())
		if err == nil {
			t.Fatalf("%s: no error", tt.reply)
		}
		if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, secret[len(secret)-12:]) || strings.Contains(text, password) || strings.Contains(text, plain) {
			t.Errorf("%s: error %q", tt.reply, text)
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			if strings.Contains(fmt.Sprintf("%#v", e), secret[len(secret)-12:]) {
				t.Errorf("%s: %#v", tt.reply, e)
			}
		}
		s.WaitClosed(t)
	}
}
