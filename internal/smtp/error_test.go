package smtp_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gopassreset/reset/internal/smtp"
	"github.com/gopassreset/reset/internal/smtptest"
)

// The code of a reply says whose failure it is, the stage hardly does: Postfix
// reports every refusal of a client, a name in EHLO or a sender at RCPT.
func TestReplies(t *testing.T) {
	const (
		passing = smtp.Passing
		message = smtp.OfMessage
		server  = smtp.OfServer
	)
	for _, tt := range []struct {
		moment, reply string
		want          smtp.Fault
	}{
		{"greeting", "421 4.3.2 not now", server},
		{"greeting", "554 5.7.1 no service for you", server},
		{"EHLO", "421 4.3.2 not now", server},
		{"EHLO", "550 5.7.1 who are you", server},
		{"EHLO", "504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname", server},
		{"AUTH", "432 4.3.2 Concurrent connections limit exceeded", server},
		{"AUTH", "454 4.7.0 later", server},
		{"AUTH", "530 5.7.0 not without TLS", server},
		{"AUTH", "535 5.7.8 wrong", server},
		{"AUTH", "535 5.1.1 wrong", server},
		{"MAIL", "421 4.3.2 closing", server},
		{"MAIL", "451 4.3.0 aborted", server},
		{"MAIL", "452 4.3.1 full", server},
		{"MAIL", "530 5.7.0 log in first", server},
		{"MAIL", "550 5.1.1 not this sender", server},
		{"MAIL", "553 5.7.1 not this sender", server},
		{"DATA", "451 4.3.0 aborted", passing},
		{"DATA", "503 5.5.1 what recipient", passing},
		{"DATA", "550 5.1.1 what recipient", passing},
		{"DATA", "554 5.5.1 Error: no valid recipients", passing},

		// This recipient.
		{"RCPT", "550 5.1.1 nobody of that name", message},
		{"RCPT", "450 5.1.1 not even a reply", passing},
		{"RCPT", "554 5.1.1 nobody of that name", message},
		{"RCPT", "550 5.1.2 no such domain", message},
		{"RCPT", "553 5.1.3 not an address", message},
		{"RCPT", "551 5.1.6 moved", message},
		{"RCPT", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", message},
		{"RCPT", "550 5.2.0 mailbox", message},
		{"RCPT", "550 5.2.1 The email account that you tried to reach is disabled", message},
		{"RCPT", "552 5.2.2 Mailbox full", message},
		{"RCPT", "550-5.1.1 nobody\r\n550-5.1.1 of that\r\n550 5.1.1 name", message},
		{"RCPT", "550 5.1.1", message},
		{"RCPT", "550 5.1.1: Recipient address rejected", message},
		{"RCPT", "550 #5.1.1 nobody", message},
		{"RCPT", "511 sorry, no mailbox here by that name (#5.1.1 - chkuser)", passing},
		{"RCPT", "550 sorry, no mailbox here by that name. (#5.1.1)", message},
		{"RCPT", "550 Unknown user", message},
		{"RCPT", "550 No such person at this address", message},
		{"RCPT", "551 User not local; please try <b@example.net>", message},
		{"RCPT", "552 Requested mail action aborted: exceeded storage allocation", message},
		{"RCPT", "553 Requested action not taken: mailbox name not allowed", message},
		{"message", "550 5.1.1 nobody of that name", message},
		{"message", "552 5.2.2 Mailbox full", message},

		// The server, the sender or the settings.
		{"RCPT", "504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname", passing},
		{"RCPT", "554 5.7.1 <a@example.org>: Relay access denied", passing},
		{"RCPT", "454 4.7.1 <a@example.org>: Relay access denied", server},
		{"RCPT", "553 5.7.1 <b@example.net>: Sender address rejected: not owned by user c", passing},
		{"RCPT", "550 5.1.8 <b@example.net>: Sender address rejected: Domain not found", passing},
		{"RCPT", "550 5.1.7 <b@>: Sender address rejected", passing},
		{"RCPT", "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", passing},
		{"RCPT", "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", passing},
		{"RCPT", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", passing},
		{"RCPT", "550 5.4.5 Daily user sending limit exceeded", passing},
		{"RCPT", "550 5.1.90 Your message can't be sent because you've reached your daily limit", passing},
		{"RCPT", "550 5.1.11 no", passing},
		{"RCPT", "550 5.1.0 Address rejected", passing},
		{"RCPT", "550 5.2.3 no", passing},
		{"RCPT", "550 5.2.21 no", passing},
		{"RCPT", "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", passing},
		{"RCPT", "550 relay not permitted", passing},
		{"RCPT", "550-Verification failed for <b@example.net>\r\n550 Sender verify failed", passing},
		{"RCPT", "550 Relaying denied. Proper authentication required", passing},
		{"RCPT", "550 Invalid HELO", passing},
		{"RCPT", "550 SPF check failed", passing},
		{"RCPT", "530 5.7.0 log in first", passing},
		{"RCPT", "535 5.7.8 log in first", passing},
		{"RCPT", "554 no", passing},
		{"RCPT", "500 what", passing},
		{"RCPT", "550", message}, // the text may be missing
		{"RCPT", "550-\r\n550", message},
		{"RCPT", "550x no", passing},
		{"RCPT", "450x\r\n550 no", passing},
		{"RCPT", "421 4.3.2 closing", server},
		{"RCPT", "450 4.2.1 greylisted", passing},
		{"RCPT", "450 4.1.1 unverified address", passing},
		{"RCPT", "451 4.3.0 aborted", passing},
		{"RCPT", "452 4.2.2 full", passing},
		{"message", "421 4.3.2 closing", server},
		{"message", "454 Throttling failure: Maximum sending rate exceeded.", server},
		{"message", "450 4.2.1 busy", passing},
		{"message", "451 4.3.0 aborted", passing},
		{"message", "452 4.3.1 full", passing},
		{"message", "550 5.7.1 spam", passing},
		{"message", "550 5.7.26 This mail is unauthenticated: DMARC", passing},
		{"message", "552 5.3.4 too big", passing},
		{"message", "554 5.6.0 spam", passing},
		{"message", "554 Message rejected: Email address is not verified.", passing},
		{"message", "550 no", passing},
		{"message", "553 no", passing},
		{"message", "250x ok", smtp.Unconfirmed}, // the server has the message
		{"message", "354 go on", smtp.Unconfirmed},
	} {
		t.Run(tt.moment+" "+tt.reply, func(t *testing.T) {
			s := smtptest.New(t, smtptest.Script{
				Offers: []string{"AUTH PLAIN"},
				On:     map[string]smtptest.Action{tt.moment: smtptest.Say(tt.reply)},
			})
			m := plainSender(t, s)
			m.Username, m.Password = username, password
			err := m.send(t.Context())
			if got := faultOf(err); got != tt.want {
				t.Errorf("error %v of fault %v, want fault %v", err, got, tt.want)
			}
			if text := err.Error(); !strings.Contains(text, tt.reply[:3]) || strings.ContainsAny(text, "\r\n") {
				t.Errorf("error %q, want the reply in a line", text)
			}
			if n := m.Idle(); n != 0 {
				t.Errorf("%d connections are idle after a failure", n)
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
