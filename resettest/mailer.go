package resettest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

// TestMailer tests a mailer as its caller sees it. Each subtest tests one
// promise of reset.Mailer on a mailer from open, whose mail system accepts mail
// to any address at example.com.
//
// TestMailer does not see what arrives. The mailer's own tests must show that a
// hostile field becomes no header, that mail has one recipient and that a text
// arrives unchanged.
func TestMailer(t *testing.T, open func(t *testing.T) reset.Mailer) {
	for _, s := range mailerSentences() {
		t.Run(s.name, func(t *testing.T) {
			cite(t, s.quote)
			s.check(&mailerCheck{TB: t, mailer: open(t)})
		})
	}
}

func mailerSentences() []sentence[*mailerCheck] {
	const accepts = "Send hands m to the mail system and returns nil once it has accepted m, whatever the texts contain."
	return []sentence[*mailerCheck]{
		{"accepts", accepts, (*mailerCheck).accepts},
		{"accepts any text", accepts, (*mailerCheck).acceptsAnyText},
		{"accepts another attempt", "Send may get a message again, with the same ID", (*mailerCheck).acceptsAnotherAttempt},
		{"goroutines", "It is safe for concurrent use by many goroutines.", (*mailerCheck).goroutines},
		{"hostile address", "Send returns such an error unless m.To is one plain address.", (*mailerCheck).hostileAddress},
		{"hostile fields", "No field of m may add a header or a recipient: Send encodes or ignores such a value, or returns such an error.", (*mailerCheck).hostileFields},
		{"cancelled", "After any other error, a cancelled ctx included, the Service retries until m expires.", (*mailerCheck).cancelled},
	}
}

type mailerCheck struct {
	testing.TB
	mailer reset.Mailer
}

// messages returns one message of each kind.
func messages() []reset.Message {
	return []reset.Message{{
		ID: "00e36e9e2bd5000000000000000000a1", Kind: reset.MailReset, To: "user@example.com", Name: "Zoë 用户", Locale: "de",
		Link: "https://app.example.com/reset?activation=AAAA", RevokeLink: "https://app.example.com/revoke?activation=AAAA",
		Expires: start, Subject: "Neues Paßwort", Text: "Hallo Zoë,\n\nhttps://app.example.com/reset?activation=AAAA\n",
		HTML: `<p>Hallo Zoë, <a href="https://app.example.com/reset?activation=AAAA">hier</a></p>`,
	}, {
		ID: "00e36e9e2bd5000000000000000000a2", Kind: reset.MailNotification, To: "First.Last+tag@example.com",
		Link: "https://app.example.com/forgot", Expires: start, Subject: "Your password was changed", Text: "It was.",
	}}
}

func (c *mailerCheck) send(m reset.Message) {
	c.Helper()
	if err := c.mailer.Send(c.Context(), m); err != nil {
		c.Errorf("Send to %q: %v", m.To, err)
	}
}

func (c *mailerCheck) accepts() {
	for _, m := range messages() {
		c.send(m)
	}
}

func (c *mailerCheck) acceptsAnyText() {
	for _, text := range []string{
		"", ".", ".\r\n.", "..\n.\n", "\r\n.\r\nQUIT\r\n", "From me", "bare \r and \n", "no end", "\n\n\n", "\t",
		strings.Repeat("long ", 1000), strings.Repeat("x", 5000), strings.Repeat("Ω", 5000), strings.Repeat("line\n", 20_000),
		"\ufeffmark", "\u2028separator", "=20 =\n", "--boundary--", "{{.Link}} %s </html>",
	} {
		m := messages()[0]
		m.Text, m.HTML = text, text
		c.send(m)
	}
}

func (c *mailerCheck) acceptsAnotherAttempt() {
	for range 3 {
		c.send(messages()[0])
	}
}

func (c *mailerCheck) goroutines() {
	parallel(20, func(i int) {
		m := messages()[i%2]
		m.ID, m.To = fmt.Sprintf("%032x", i), fmt.Sprintf("user%d@example.com", i)
		c.send(m)
	})
}

func (c *mailerCheck) hostileAddress() {
	for _, to := range []string{
		"", " ", "user", "@example.com", "user@", "a@example.com, b@example.com", "a@example.com;b@example.com", "a@example.com b@example.com",
		"User <user@example.com>", "<user@example.com>", "user@example.com>", "user@example.com (comment)",
		"user@example.com\r\nBcc: other@example.com", "user@example.com\nSubject: x", "user@example.com\r", "us\x00er@example.com",
		"user@example.com> SIZE=1", "user@example.com>\r\nRCPT TO:<other@example.com", "user@exam\u2028ple.com",
		strings.Repeat("x", 300) + "@example.com",
	} {
		m := messages()[0]
		m.To = to
		if err := c.mailer.Send(c.Context(), m); !errors.Is(err, reset.ErrUndeliverable) {
			c.Errorf("Send to %q: got error %v, want one that wraps ErrUndeliverable", to, err)
		}
	}
}

// A hostile field is refused or encoded. Any other error would be retried until
// the mail expires.
func (c *mailerCheck) hostileFields() {
	for _, s := range []string{
		"a\r\nBcc: other@example.com", "a\nBcc: other@example.com", "a\rBcc: other@example.com", "a\r\n\r\nbody",
		"a\x00b", "a\u2028b\u0085c", "\xff\xfe", "=?utf-8?q?a=0D=0ABcc:_other@example.com?=", `"quoted" <other@example.com>`,
		strings.Repeat("x", 5000), strings.Repeat("Ω", 3000), "\x1b[31m", "",
	} {
		for field, set := range map[string]func(*reset.Message){
			"ID":      func(m *reset.Message) { m.ID = s },
			"Name":    func(m *reset.Message) { m.Name = s },
			"Subject": func(m *reset.Message) { m.Subject = s },
			"Locale":  func(m *reset.Message) { m.Locale = s },
			"Link":    func(m *reset.Message) { m.Link = s },
		} {
			m := messages()[0]
			set(&m)
			if err := c.mailer.Send(c.Context(), m); err != nil && !errors.Is(err, reset.ErrUndeliverable) {
				c.Errorf("Send with %s %.40q: got error %v, want none or one that wraps ErrUndeliverable", field, s, err)
			}
		}
	}
}

func (c *mailerCheck) cancelled() {
	expired, cancel := context.WithDeadline(c.Context(), time.Unix(0, 0))
	defer cancel()
	for _, ctx := range []context.Context{canceled(c.Context()), expired} {
		if err := c.mailer.Send(ctx, messages()[0]); errors.Is(err, reset.ErrUndeliverable) {
			c.Errorf("Send under a cancelled context gave the message up: %v", err)
		}
	}
	c.send(messages()[0]) // later mail is sent
}
