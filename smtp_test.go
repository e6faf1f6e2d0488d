package reset_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
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

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/smtptest"
	"github.com/gopassreset/reset/resettest"
)

const (
	smtpUser     = "no-reply@example.com"
	smtpPassword = "correct horse battery"
)

// plainMailer sends to s without TLS. The test closes it.
func plainMailer(t *testing.T, s *smtptest.Server) *reset.SMTPMailer {
	m := &reset.SMTPMailer{Addr: s.Addr, From: "Example <no-reply@example.com>", InsecureNoTLS: true}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestSMTPMailer(t *testing.T) {
	resettest.TestMailer(t, func(t *testing.T) reset.Mailer {
		return plainMailer(t, smtptest.Listen(t, smtptest.Script{}))
	})
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
		{"taro.yamada@docomo.ne.jp", false, []string{"MAIL FROM:<no-reply@example.com>", "RCPT TO:<taro.yamada@docomo.ne.jp>"}},
		{"taro..yamada@docomo.ne.jp", false, []string{"MAIL FROM:<no-reply@example.com>", `RCPT TO:<"taro..yamada"@docomo.ne.jp>`}},
		{"taro.@docomo.ne.jp", false, []string{"MAIL FROM:<no-reply@example.com>", `RCPT TO:<"taro."@docomo.ne.jp>`}},
		{".taro@docomo.ne.jp", false, []string{"MAIL FROM:<no-reply@example.com>", `RCPT TO:<".taro"@docomo.ne.jp>`}},
		{"...@docomo.ne.jp", false, []string{"MAIL FROM:<no-reply@example.com>", `RCPT TO:<"..."@docomo.ne.jp>`}},
		{"ü..@docomo.ne.jp", true, []string{"MAIL FROM:<no-reply@example.com> SMTPUTF8", `RCPT TO:<"ü.."@docomo.ne.jp>`}},
		{"a@abc_d.example", false, []string{"MAIL FROM:<no-reply@example.com>", "RCPT TO:<a@abc_d.example>"}},
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
			t.Errorf("To %q: %v, the server got %q; want ErrUndeliverable", tt.to, err, lines)
		case tt.want != nil && (err != nil || !slices.Equal(lines[1:3], tt.want)):
			t.Errorf("To %q: %v, the server got %q; want %q", tt.to, err, lines, tt.want)
		}
	}
}

// EHLO has the domain of the sender, or an address literal if that is no full
// name. Bounces may have an address of their own.
func TestSMTPSender(t *testing.T) {
	for _, tt := range []struct {
		from, hello, bounces string
		want                 []string
	}{
		{"Example <no-reply@example.com>", "", "", []string{"EHLO example.com", "MAIL FROM:<no-reply@example.com>"}},
		{"no-reply@bücher.example", "", "", []string{"EHLO xn--bcher-kva.example", "MAIL FROM:<no-reply@xn--bcher-kva.example>"}},
		{"root@localhost", "", "", []string{"EHLO [127.0.0.1]", "MAIL FROM:<root@localhost>"}},
		{"no-reply@example.com", "app.example.net", "bounces+1@example.net", []string{"EHLO app.example.net", "MAIL FROM:<bounces+1@example.net>"}},
	} {
		s := smtptest.Listen(t, smtptest.Script{})
		m := plainMailer(t, s)
		m.From, m.HelloName, m.EnvelopeFrom = tt.from, tt.hello, tt.bounces
		if err := m.Send(t.Context(), newMessage()); err != nil {
			t.Fatal(err)
		}
		if got := s.Sessions()[0].Lines[:2]; !slices.Equal(got, tt.want) {
			t.Errorf("From %q: the server got %q, want %q", tt.from, got, tt.want)
		}
		if from := parseMail(t, []byte(s.Messages()[0])).Header.Get("From"); strings.Contains(from, "bounces") {
			t.Errorf("From: %s", from)
		}
	}
}

func TestSMTPUnixSocket(t *testing.T) {
	s := smtptest.ListenAt(t, "unix", filepath.Join(t.TempDir(), "smtp"), smtptest.Script{})
	m := plainMailer(t, s)
	m.Addr = "unix:" + s.Addr
	if err := m.Send(t.Context(), newMessage()); err != nil || len(s.Messages()) != 1 {
		t.Errorf("%d messages, error %v; want 1", len(s.Messages()), err)
	}
}

// Send lasts no longer than it says, however slow each step is.
func TestSMTPSendTimeout(t *testing.T) {
	ca := smtptest.NewAuthority(t)
	synctest.Test(t, func(t *testing.T) {
		slow := func(usual smtptest.Action) smtptest.Action {
			return func(c *smtptest.Conn) bool {
				time.Sleep(59 * time.Second)
				return usual(c)
			}
		}
		steps := map[string]smtptest.Action{
			"greeting": slow(smtptest.Say("220 hello")), "EHLO": slow(smtptest.Say("250-test", "250-STARTTLS", "250 AUTH PLAIN LOGIN")),
			"handshake": slow((*smtptest.Conn).Handshake), "AUTH 1": slow(smtptest.Say("504 5.5.4 no")), "AUTH 2": slow(smtptest.Say("235 ok")),
			"MAIL": slow(smtptest.Say("250 ok")), "RCPT": slow(smtptest.Say("250 ok")), "message": smtptest.Hang,
		}
		s := smtptest.New(t, smtptest.Script{TLS: ca.Server("smtp.example.com"), On: steps})
		m := plainMailer(t, s)
		m.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
			time.Sleep(59 * time.Second)
			return s.Dial(ctx, network, addr)
		})
		m.Addr, m.InsecureNoTLS, m.TLSConfig, m.Timeout = "smtp.example.com:587", false, ca.Client(), time.Minute
		m.Username, m.Password = smtpUser, smtpPassword
		start := time.Now()
		err := m.Send(t.Context(), newMessage())
		if d := time.Since(start); d < 18*time.Minute || d > m.SendTimeout() {
			t.Errorf("Send took %v: %v; SendTimeout is %v", d, err, m.SendTimeout())
		}
	})
}

// A server that takes minutes to accept a mail gets it once.
func TestSMTPSlowDot(t *testing.T) {
	for _, wait := range []time.Duration{35 * time.Second, 2 * time.Minute, 9 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{"message": func(c *smtptest.Conn) bool {
				time.Sleep(wait)
				return smtptest.Say("250 accepted")(c)
			}}})
			m := plainMailer(t, s)
			m.Addr = "localhost:25"
			m.SetDial(s.Dial)
			f := newFixture(t, newHost(ann), func(c *reset.Config) { c.Mailer = m })
			f.begin()
			f.forgot(ann.Email)
			pass(30 * time.Minute)
			if n := len(s.Messages()); n != 1 {
				t.Errorf("the server got %d messages, want 1", n)
			}
			f.wantEvent("mail_sent", 1)
			f.wantQueued(0)
		})
	}
}

// Addresses that the server refuses do not hold up others, however many come
// first.
func TestSMTPDeadAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{"RCPT": func(c *smtptest.Conn) bool {
			if strings.Contains(c.Line(), "dead") {
				return smtptest.Say("550 5.1.1 nobody of that name")(c)
			}
			return smtptest.Say("250 ok")(c)
		}}})
		m := plainMailer(t, s)
		m.Addr = "localhost:25"
		m.SetDial(s.Dial)
		h := newHost(ann, bob)
		f := newFixture(t, h, func(c *reset.Config) { c.Mailer = m })
		f.begin()
		for i := range 60 {
			address := fmt.Sprintf("dead%d@example.net", i)
			h.put(reset.User{ID: fmt.Sprint("dead", i), Email: address})
			if err := f.Forgot(t.Context(), address, fmt.Sprintf("10.%d.0.1", i), reset.ForgotOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		pass(3 * time.Second)
		f.forgot(ann.Email)
		f.request(bob.Email)
		pass(30 * time.Second)
		f.wantEvent("mail_sent", 2)
	})
}

// Errors go to logs. They have one prefix and do not repeat a link that a server
// quotes.
func TestSMTPErrors(t *testing.T) {
	for _, tt := range []struct{ moment, reply, want string }{
		{"RCPT", "550 5.1.1 nobody of that name", reset.ErrUndeliverable.Error() + ": smtp: rcpt to: 550 5.1.1 nobody of that name"},
		{"RCPT", "554 5.7.1 relay access denied", "reset: smtp: rcpt to: 554 5.7.1 relay access denied"},
		{"MAIL", "550 5.7.1 not this sender", reset.ErrUnavailable.Error() + ": smtp: mail from: 550 5.7.1 not this sender"},
		{"message", "451 4.7.1 bad link " + newMessage().Link, "reset: smtp: message: 451 (the server's words are withheld: they repeat a secret)"},
		{"message", "451 4.7.1 bad link " + newMessage().RevokeLink, "reset: smtp: message: 451 (the server's words are withheld: they repeat a secret)"},
	} {
		s := smtptest.Listen(t, smtptest.Script{On: map[string]smtptest.Action{tt.moment: smtptest.Say(tt.reply)}})
		err := plainMailer(t, s).Send(t.Context(), newMessage())
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: error %q, want %q", tt.reply, err, tt.want)
		}
		for _, sentinel := range []error{reset.ErrUndeliverable, reset.ErrUnavailable, reset.ErrUnconfirmed} {
			if want := strings.HasPrefix(tt.want, sentinel.Error()); errors.Is(err, sentinel) != want {
				t.Errorf("%s: error %q is %q: %v, want %v", tt.reply, err, sentinel, !want, want)
			}
		}
	}
}

func noToken(context.Context) (string, error) { return "", errors.New("no token") }

func TestSMTPCheck(t *testing.T) {
	for _, tt := range []struct {
		change func(*reset.SMTPMailer)
		want   string // part of the error; "" for none
	}{
		{func(m *reset.SMTPMailer) {}, ""},
		{func(m *reset.SMTPMailer) { m.Addr = "" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp.example.com" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = ":587" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp.example.com:" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp.example.com:no-such-service" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp.example.com:smtp" }, ""},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp.example.com:Submission" }, ""},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp.example.com:submissions" }, ""},
		{func(m *reset.SMTPMailer) { m.InsecureNoTLS, m.Addr = true, "smtp.example.com:smtps" }, "InsecureNoTLS"},
		{func(m *reset.SMTPMailer) { m.Addr = "unix:" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "unix:/run/smtp" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr, m.InsecureNoTLS = "unix:/run/smtp", true }, ""},
		{func(m *reset.SMTPMailer) {
			m.Addr, m.InsecureNoTLS, m.Username, m.Password = "unix:/run/smtp", true, "u", "p"
		}, ""},
		{func(m *reset.SMTPMailer) {
			m.Addr, m.TLSConfig = "unix:/run/smtp", &tls.Config{ServerName: "smtp.example.com"}
		}, ""},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp.example.com:0" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp.example.com:65536" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "smtp://smtp.example.com:587" }, "Addr"},
		{func(m *reset.SMTPMailer) { m.Addr = "[2001:db8::1]:587" }, ""},
		{func(m *reset.SMTPMailer) { m.From = "" }, "From"},
		{func(m *reset.SMTPMailer) { m.From = "Example" }, "From"},
		{func(m *reset.SMTPMailer) { m.From = "a@example.com, b@example.com" }, "From"},
		{func(m *reset.SMTPMailer) { m.From = "a@example.com\r\nBcc: b@example.com" }, "From"},
		{func(m *reset.SMTPMailer) { m.From = "jürgen@example.com" }, "From"},
		{func(m *reset.SMTPMailer) { m.From = `"Foo, Inc." <a@example.com>` }, ""},
		{func(m *reset.SMTPMailer) { m.EnvelopeFrom = "bounces@example.com" }, ""},
		{func(m *reset.SMTPMailer) { m.EnvelopeFrom = "Bounces <bounces@example.com>" }, "EnvelopeFrom"},
		{func(m *reset.SMTPMailer) { m.EnvelopeFrom = "bounces" }, "EnvelopeFrom"},
		{func(m *reset.SMTPMailer) { m.EnvelopeFrom = "a@example.com> SIZE=1" }, "EnvelopeFrom"},
		{func(m *reset.SMTPMailer) { m.From = `"a b"@example.com` }, "From"},
		{func(m *reset.SMTPMailer) { m.From = "Bücher <a@bücher.example>" }, ""},
		{func(m *reset.SMTPMailer) { m.ReplyTo = "nobody" }, "ReplyTo"},
		{func(m *reset.SMTPMailer) { m.ReplyTo = "Help <help@example.com>" }, ""},
		{func(m *reset.SMTPMailer) { m.Username = "u" }, "Username"},
		{func(m *reset.SMTPMailer) { m.Password = "p" }, "Username"},
		{func(m *reset.SMTPMailer) { m.Username, m.Password = "u\x00", "p" }, "Username"},
		{func(m *reset.SMTPMailer) { m.Username, m.Password = "u", "p" }, ""},
		{func(m *reset.SMTPMailer) { m.Username, m.Token = "u", noToken }, ""},
		{func(m *reset.SMTPMailer) { m.Token = noToken }, "Token"},
		{func(m *reset.SMTPMailer) { m.Username, m.Password, m.Token = "u", "p", noToken }, "Token"},
		{func(m *reset.SMTPMailer) { m.Username, m.Token = "u\x01", noToken }, "Username"},
		{func(m *reset.SMTPMailer) {
			m.InsecureNoTLS, m.Username, m.Token, m.Addr = true, "u", noToken, "10.0.0.1:25"
		}, "InsecureNoTLS"},
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

// A server of the library go-smtp.
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
	parsed := parseMail(t, data)
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
	e := smtpEnv(t)
	ca, env := e.ca, e.get
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
						header := parseMail(t, data).Header
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
func waitMaildir(t *testing.T, dir, id string) (data []byte) {
	eventually(t, "delivery of "+id, func() bool {
		files, err := filepath.Glob(filepath.Join(dir, "new", "*"))
		if err != nil {
			t.Error(err)
		}
		for _, name := range files {
			if data, err = os.ReadFile(name); err == nil && bytes.Contains(data, []byte("<"+id+"@example.com>")) {
				os.Remove(name)
				return true
			}
		}
		return false
	})
	return data
}

// A relay with a mistake in its settings refuses everybody, at RCPT as Postfix
// does by default. Once it is mended all mail arrives, each once.
func TestSMTPRelayMended(t *testing.T) {
	env := smtpEnv(t)
	const users = 10
	for _, tt := range []struct{ name, port, mistake, said string }{
		{"helo", "2601", "reject_non_fqdn_helo_hostname", "rcpt to: 504 5.5.2"},
		{"client", "2602", "reject", "rcpt to: 554 5.7.1"},
		{"sender", "2603", "reject_sender_login_mismatch", "rcpt to: 553 5.7.1"},
		{"relaying", "2604", "reject_unauth_destination", "rcpt to: 554 5.7.1"},
		{"deferred", "2605", "defer_unauth_destination", "rcpt to: 454 4.7.1"},
		{"at once", "2606", "reject_sender_login_mismatch", "mail from: 553 5.7.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			restrict := func(list string) {
				if err := os.WriteFile(filepath.Join(env.get("_WRONG"), tt.port), []byte(list), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			m := &reset.SMTPMailer{Addr: "127.0.0.1:" + tt.port, From: "no-reply@example.com", TLSConfig: &tls.Config{RootCAs: env.ca}}
			if tt.name == "helo" {
				m.HelloName = "localhost"
			}
			defer m.Close()
			f := newFixture(t, newHost(), func(c *reset.Config) { c.Mailer = m })
			domain := strings.ToLower(rand.Text()) + ".example.net"
			for i := range users { // the dots need quotes
				u := reset.User{ID: fmt.Sprint(i), Email: fmt.Sprintf("user..%d@%s", i, domain)}
				f.host.put(u)
				f.request(u.Email)
			}

			restrict("127.0.0.1 " + tt.mistake)
			f.run()
			if !eventually(t, "failure", func() bool { return len(f.log.named("mailer_failed")) > 0 }) {
				return
			}
			if log := f.log.String(); !strings.Contains(log, tt.said) {
				t.Errorf("no %q in\n%v", tt.said, log)
			}
			f.wantEvent("mail_sent", 0)
			restrict("")
			eventually(t, "delivery", func() bool {
				return len(f.log.named("mail_sent")) == users && len(deliveredTo(t, env.get("_RELAY_MAILDIR"), domain)) == users
			})
			f.wantQueued(0)
			to := deliveredTo(t, env.get("_RELAY_MAILDIR"), domain)
			slices.Sort(to)
			if n := len(slices.Compact(to)); n != users {
				t.Errorf("mail to %d users, want %d", n, users)
			}
		})
	}
}

// deliveredTo returns the recipients in a domain, one for each mail.
func deliveredTo(t *testing.T, maildir, domain string) (to []string) {
	files, err := filepath.Glob(filepath.Join(maildir, "new", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if recipient := parseMail(t, data).Header.Get("Delivered-To"); strings.HasSuffix(recipient, "@"+domain) {
			to = append(to, recipient)
		}
	}
	return to
}

// eventually reports whether something is done within a minute.
func eventually(t *testing.T, what string, done func() bool) bool {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 3000 {
		if done() {
			return true
		}
		<-tick.C
	}
	t.Errorf("no %s in a minute", what)
	return false
}

// The environment that .ci/smtp.sh prints.
type smtpEnvironment struct {
	*testing.T
	ca *x509.CertPool
}

func (e smtpEnvironment) get(name string) string {
	value := os.Getenv("RESET_TEST_SMTP" + name)
	if value == "" {
		e.Fatalf("RESET_TEST_SMTP%s is not set: see .ci/smtp.sh", name)
	}
	return value
}

func smtpEnv(t *testing.T) smtpEnvironment {
	t.Helper()
	if os.Getenv("RESET_TEST_SMTP") == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("RESET_TEST_SMTP is not set: see .ci/smtp.sh")
		}
		t.Skip("RESET_TEST_SMTP is not set: see .ci/smtp.sh")
	}
	e := smtpEnvironment{t, x509.NewCertPool()}
	pem, err := os.ReadFile(e.get("_CA"))
	if err != nil {
		t.Fatal(err)
	}
	if !e.ca.AppendCertsFromPEM(pem) {
		t.Fatalf("%s has no certificate", e.get("_CA"))
	}
	return e
}
