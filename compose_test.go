package reset_test

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gopassreset/reset"
)

var composeTime = time.Date(2025, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))

func newMailer() *reset.SMTPMailer {
	return &reset.SMTPMailer{Addr: "smtp.example.com:587", From: "Example App <no-reply@example.com>"}
}

func newMessage() reset.Message {
	return reset.Message{
		ID:         "0195600000aabbccddeeff0011223344",
		Kind:       reset.MailReset,
		To:         "alice@example.org",
		Name:       "Alice",
		Link:       "https://app.example.com/reset?activation=AbCdEfGhIjKlMnOpQrStUvWx",
		RevokeLink: "https://app.example.com/revoke?activation=AbCdEfGhIjKlMnOpQrStUvWx",
		Subject:    "Choose a new password",
		Text:       "Hello Alice,\n\nhttps://app.example.com/reset?activation=AbCdEfGhIjKlMnOpQrStUvWx\n",
		HTML:       "<p>Hello Alice,</p>\n<p><a href=\"https://app.example.com/reset?activation=AbCdEfGhIjKlMnOpQrStUvWx\">Choose</a></p>\n",
	}
}

func TestCompose(t *testing.T) {
	m := newMailer()
	m.ReplyTo = "Example Support <support@example.com>"
	data, err := m.Compose(newMessage(), composeTime)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(data), "Content-Type")
	want := strings.Join([]string{
		`From: "Example App" <no-reply@example.com>`,
		`Reply-To: "Example Support" <support@example.com>`,
		`To: "Alice" <alice@example.org>`,
		`Subject: Choose a new password`,
		`Date: Tue, 04 Mar 2025 04:06:07 +0000`,
		`Message-ID: <0195600000aabbccddeeff0011223344@example.com>`,
		`Auto-Submitted: auto-generated`,
		`X-Auto-Response-Suppress: OOF, AutoReply`,
		`MIME-Version: 1.0`,
		``,
	}, "\r\n")
	if head != want {
		t.Errorf("header\n%s\nwant\n%s", head, want)
	}
	parsed := parseMail(t, data)
	for _, name := range []string{"From", "Reply-To", "To", "Subject", "Date", "Message-Id", "Mime-Version", "Content-Type", "Auto-Submitted"} {
		if n := len(parsed.Header[name]); n != 1 {
			t.Errorf("%d fields %s, want 1", n, name)
		}
	}
	if kind, _, _ := mime.ParseMediaType(parsed.Header.Get("Content-Type")); kind != "multipart/alternative" {
		t.Errorf("Content-Type %s", kind)
	}
	text, html := readParts(t, parsed)
	if text != crlf(newMessage().Text) || html != crlf(newMessage().HTML) {
		t.Errorf("text %q, html %q", text, html)
	}
}

func TestComposeOnePart(t *testing.T) {
	for _, tt := range []struct{ text, html, kind string }{
		{"text\n", "", "text/plain"},
		{"", "<p>html\n", "text/html"},
	} {
		msg := newMessage()
		msg.Text, msg.HTML = tt.text, tt.html
		data, err := newMailer().Compose(msg, composeTime)
		if err != nil {
			t.Fatal(err)
		}
		parsed := parseMail(t, data)
		if kind, _, _ := mime.ParseMediaType(parsed.Header.Get("Content-Type")); kind != tt.kind {
			t.Errorf("Content-Type %s, want %s", kind, tt.kind)
		}
		got, err := io.ReadAll(quotedprintable.NewReader(parsed.Body))
		if want := crlf(tt.text + tt.html); err != nil || string(got) != want {
			t.Errorf("body %q, %v; want %q", got, err, want)
		}
	}
}

// Any name or subject is one header field that reads back as it was.
func TestComposeFields(t *testing.T) {
	long := strings.Repeat("x", 3000)
	for _, text := range []string{
		"", " ", "  Alice  ", "Alice  B", "Doe, Jane", "x, evil@example.net, y", `O"Brien \ "quoted\"`, "a <evil@example.net>", "(comment)", "a@b", "J. R. R.; group:",
		"Jürgen", "日本語の名前", "Ελένη, Παπαδοπούλου (x)", "🙂", strings.Repeat("日本語", 200), "é" + long, long, strings.Repeat("many words ", 300),
		"=?utf-8?q?evil?=", "=?utf-8?q?a?= =?utf-8?q?b?=", "a =?", "?=", "\t", "a\tb",
		"a\r\nBcc: evil@example.net", "a\nBcc: evil@example.net", "a\rBcc: evil@example.net", "\r\n\r\nbody", "a\r\n b", "\r", "\n",
		"a\x00b", "\x00", "\x1b[31m", "\x7f", "a\u2028Bcc: evil@example.net", "\u2029", "\u0085", "\u202eabc", "\ufeff", "a\u00a0b", "a\xffb",
	} {
		checkFields(t, text, text)
	}
}

func FuzzComposeFields(f *testing.F) {
	for _, s := range []string{"Alice", "Doe, Jane", "a\r\nBcc: b@c", "=?utf-8?b?YQ==?=", "日本", "\x00", "\u2028", `"\`, "a\xff", strings.Repeat("x ", 90)} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, name, subject string) { checkFields(t, name, subject) })
}

func checkFields(t *testing.T, name, subject string) {
	t.Helper()
	m := newMailer()
	msg := newMessage()
	msg.Name, msg.Subject, msg.ID = name, subject, name
	data, err := m.Compose(msg, composeTime)
	if err != nil {
		t.Fatalf("Compose(%q, %q): %v", name, subject, err)
	}
	checkLines(t, data)
	header, body, _ := bytes.Cut(data, []byte("\r\n\r\n"))
	for line := range bytes.Lines(header) {
		line = bytes.TrimSpace(line)
		if _, value, _ := bytes.Cut(line, []byte(": ")); len(line) > 76 && bytes.ContainsAny(value, " ") {
			t.Errorf("name %q, subject %q: line %q has %d bytes, want at most 76", name, subject, line, len(line))
		}
	}
	if !isASCII(string(header)) || bytes.ContainsFunc(header, func(r rune) bool { return r < ' ' && r != '\r' && r != '\n' }) {
		t.Errorf("name %q, subject %q: header %q", name, subject, header)
	}
	if !bytes.HasPrefix(body, []byte("--")) {
		t.Errorf("name %q, subject %q: the body begins with %.40q", name, subject, body)
	}
	parsed := parseMail(t, data)
	if _, ok := parsed.Header["Bcc"]; ok || len(parsed.Header["To"]) != 1 || len(parsed.Header) > 10 {
		t.Errorf("name %q, subject %q: header %v", name, subject, parsed.Header)
	}
	to, err := parsed.Header.AddressList("To")
	if want := validUTF8(name); err != nil || len(to) != 1 || to[0].Name != want || to[0].Address != msg.To {
		t.Errorf("name %q: To is %q, %v", name, parsed.Header.Get("To"), err)
	}
	got, err := new(mime.WordDecoder).DecodeHeader(parsed.Header.Get("Subject"))
	if want := validUTF8(subject); err != nil || got != want {
		t.Errorf("subject %q reads back as %q, %v; want %q", subject, got, err, want)
	}
	id := parsed.Header.Get("Message-Id")
	if a, err := mail.ParseAddress(id); err != nil || "<"+a.Address+">" != id || len(id) > 100 {
		t.Errorf("ID %q: Message-ID %q, %v", name, id, err)
	}
}

// validUTF8 has U+FFFD for each byte that is not UTF-8.
func validUTF8(s string) string { return string([]rune(s)) }

// checkLines checks what SMTP demands of a message's lines.
func checkLines(t *testing.T, data []byte) {
	t.Helper()
	if !bytes.HasSuffix(data, []byte("\r\n")) {
		data = append(bytes.Clone(data), "\r\n"...)
	}
	for line := range bytes.Lines(data) {
		line, ok := bytes.CutSuffix(line, []byte("\r\n"))
		if !ok || bytes.ContainsAny(line, "\r\n\x00") {
			t.Errorf("line %.80q has a CR, LF or NUL of its own", line)
		}
		if len(line) > 998 {
			t.Errorf("line %.80q… has %d bytes, want at most 998", line, len(line))
		}
	}
}

func TestComposeBodies(t *testing.T) {
	for _, body := range []string{
		".", "..", ".\n", "\n.\n", "\r\n.\r\n", "\n..\n.x\n", "a\r\n.\r\nMAIL FROM:<x@y>\r\n", "a\n.\nQUIT\n", ".\r", "\r.\r",
		"a\rb", "a\nb", "a\r\nb", "a\r\r\nb", "a\n\rb", "\r", "\n", "\r\n", "a\ré\nb\n",
		"trailing \n", "trailing\t", "=", "=3D", "From me\n", "\x00\x1a\x7f", "日本語\n", "\u2028", "a\xffb",
		strings.Repeat("x", 5000), strings.Repeat("日", 5000), strings.Repeat("x", 75) + ".", strings.Repeat(".", 5000), strings.Repeat(" ", 5000),
		strings.Repeat("line\n", 5000),
	} {
		checkBody(t, body)
	}
}

func FuzzComposeBody(f *testing.F) {
	for _, s := range []string{".\r\n", "a\rb", "=\n", strings.Repeat(".", 200), "\xff", " \t\n"} {
		f.Add(s)
	}
	f.Fuzz(checkBody)
}

func checkBody(t *testing.T, body string) {
	t.Helper()
	msg := newMessage()
	msg.Text, msg.HTML = body, body+"!"
	data, err := newMailer().Compose(msg, composeTime)
	if err != nil {
		t.Fatalf("body %.80q: %v", body, err)
	}
	checkLines(t, data)
	if body == "" {
		return
	}
	text, html := readParts(t, parseMail(t, data))
	if want := crlf(body); text != want {
		t.Errorf("text %.80q, want %.80q", text, want)
	}
	if want := crlf(body + "!"); html != want {
		t.Errorf("html %.80q, want %.80q", html, want)
	}
}

func TestComposeAddresses(t *testing.T) {
	for _, tt := range []struct{ stored, want string }{
		{"alice@example.org", "alice@example.org"},
		{"Alice.B@Example.ORG", "Alice.B@Example.ORG"},
		{"a@bücher.example", "a@xn--bcher-kva.example"},
		{"jürgen@example.org", "jürgen@example.org"},
		{"taro..yamada@docomo.ne.jp", "taro..yamada@docomo.ne.jp"},
		{".taro.@abc_d.example", ".taro.@abc_d.example"},
		{"!#$%&'*+-/=?^_`{|}~@example.org", "!#$%&'*+-/=?^_`{|}~@example.org"},
		{strings.Repeat("l", 64) + "@example.org", strings.Repeat("l", 64) + "@example.org"},
	} {
		msg := newMessage()
		msg.To = tt.stored
		data, err := newMailer().Compose(msg, composeTime)
		if err != nil {
			t.Errorf("To %q: %v", tt.stored, err)
			continue
		}
		checkLines(t, data)
		to, err := parseMail(t, data).Header.AddressList("To")
		if err != nil || len(to) != 1 || to[0].Address != tt.want || to[0].Name != msg.Name {
			t.Errorf("To %q reads back as %v, %v; want %q", tt.stored, to, err, tt.want)
		}
	}
	for _, bad := range []string{
		"", "alice", "@example.org", "alice@", "a@b@c", "alice@example.org, bob@example.org", "Alice <alice@example.org>", `"a b"@example.org`,
		"alice@example.org\r\nBcc: evil@example.net", "alice@example.org\n", "a\x00@example.org", "a\u2028@example.org", "alice@example.org>", "alice@example.org> SIZE=1",
		"a@[192.0.2.1]", "a@exa mple.org", "a\xff@example.org", strings.Repeat("l", 65) + "@example.org",
	} {
		msg := newMessage()
		msg.To = bad
		if data, err := newMailer().Compose(msg, composeTime); !errors.Is(err, reset.ErrUndeliverable) || data != nil {
			t.Errorf("To %q: %q, %v; want ErrUndeliverable", bad, data, err)
		}
	}
}

func TestComposeHeader(t *testing.T) {
	m := newMailer()
	m.Header = map[string]string{"X-PM-TrackLinks": "None", "X-Mailgun-Track-Clicks": "no", "X-MSYS-API": `{"options":  {"click_tracking": false}}`}
	data, err := m.Compose(newMessage(), composeTime)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range m.Header {
		if want := "\r\n" + name + ": " + value + "\r\n"; strings.Count(string(data), want) != 1 {
			t.Errorf("%q is not there once in\n%s", want, data)
		}
	}

	for name, value := range map[string]string{
		"": "x", "X A": "x", "X:": "x", "X-Ä": "x", "X\r\nBcc": "x", "X-A\x00": "x",
		"X-Empty": "", "X-Blank": " ", "X-CRLF": "a\r\nBcc: b@example.net", "X-LF": "a\nb", "X-CR": "a\rb", "X-NUL": "a\x00b",
		"X-Tab": "a\tb", "X-Latin": "é", "X-LS": "a\u2028b", "X-Long": strings.Repeat("x", 1000),
		"From": "a@example.com", "to": "a@example.com", "CC": "a@example.com", "bcc": "a@example.com", "Reply-To": "a@example.com",
		"subject": "x", "Date": "x", "message-id": "x", "MIME-Version": "2.0", "content-type": "text/html", "Content-Language": "de",
		"Auto-Submitted": "no", "Return-Path": "<a@example.com>", "Received": "x", "Resent-To": "a@example.com",
	} {
		m := newMailer()
		m.Header = map[string]string{name: value}
		if err := m.Check(); err == nil || !strings.HasPrefix(err.Error(), "reset: SMTPMailer.Header ") {
			t.Errorf("Header %q: %q: error %v, want one of Header", name, value, err)
		}
	}
}

// An error about a name that lacks quotes shows it with them.
func TestParseMailboxQuotes(t *testing.T) {
	for from, want := range map[string]string{
		"Foo, Inc. <no-reply@example.com>":       `"Foo, Inc." <no-reply@example.com>`,
		"Foo; Bar <no-reply@example.com>":        `"Foo; Bar" <no-reply@example.com>`,
		"Foo: Bar <no-reply@example.com>":        `"Foo: Bar" <no-reply@example.com>`,
		"Foo @ Bar <no-reply@example.com>":       `"Foo @ Bar" <no-reply@example.com>`,
		"[Foo] <no-reply@example.com>":           `"[Foo]" <no-reply@example.com>`,
		`Foo \ Bar <no-reply@example.com>`:       `"Foo \\ Bar" <no-reply@example.com>`,
		"Jürgen, Müller & Co <a@bücher.example>": `"Jürgen, Müller & Co" <a@bücher.example>`,
	} {
		m := newMailer()
		m.From = from
		if err := m.Check(); err == nil || !strings.HasSuffix(err.Error(), "the name must be in quotes: "+want) {
			t.Errorf("From %s: error %v, want one that shows %s", from, err, want)
		}
		if m.From = want; m.Check() != nil {
			t.Errorf("From %s: error %v", want, m.Check())
		}
	}
}

func TestComposeMessageID(t *testing.T) {
	id := func(id string) string {
		msg := newMessage()
		msg.ID = id
		data, err := newMailer().Compose(msg, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return parseMail(t, data).Header.Get("Message-Id")
	}
	if got, want := id("0195aa"), "<0195aa@example.com>"; got != want {
		t.Errorf("Message-ID %q, want %q", got, want)
	}
	for _, odd := range []string{"a b", "a@b", "a\r\nb", "日", strings.Repeat("a", 65)} {
		if one, two := id(odd), id(odd); one != two || one == id(odd+"!") || len(one) != 78 {
			t.Errorf("ID %q: Message-ID %q, then %q", odd, one, two)
		}
	}
	if one, two := id(""), id(""); one == two {
		t.Errorf("two messages without an ID have one Message-ID")
	}
}

func parseMail(t *testing.T, data []byte) *mail.Message {
	t.Helper()
	parsed, err := mail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%v in %q", err, data)
	}
	return parsed
}

func readParts(t *testing.T, m *mail.Message) (text, html string) {
	t.Helper()
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	r := multipart.NewReader(m.Body, params["boundary"])
	for _, part := range []struct {
		kind string
		to   *string
	}{{"text/plain; charset=UTF-8", &text}, {"text/html; charset=UTF-8", &html}} {
		p, err := r.NextPart() // decodes quoted-printable
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Header.Get("Content-Type"); got != part.kind {
			t.Errorf("part %q, want %q", got, part.kind)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		*part.to = string(b)
	}
	if _, err := r.NextPart(); err != io.EOF {
		t.Errorf("after the last part: %v", err)
	}
	return text, html
}

// crlf ends lines as mail does. A CR alone ends one, too.
func crlf(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	s = strings.ReplaceAll(s, "\r", "\n")
	return strings.ReplaceAll(s, "\n", "\r\n")
}

func BenchmarkCompose(b *testing.B) {
	m := newMailer()
	msg := newMessage()
	msg.Name = "Jürgen"
	data, err := m.Compose(msg, composeTime)
	if err != nil || !utf8.Valid(data) {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Compose(msg, composeTime); err != nil {
			b.Fatal(err)
		}
	}
}
