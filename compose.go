package reset

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jordan-wright/email"

	"github.com/gopassreset/reset/internal/smtp"
)

const (
	maxLine    = 998 // bytes; RFC 5322, 2.1.1
	lineShould = 76  // bytes; RFC 2047, 2: of a line with encoded-words
	maxWord    = 75  // bytes; RFC 2047, 2: of one encoded-word
)

// A sender is what all messages of a mailer have in common.
type sender struct {
	from, replyTo *mail.Address // replyTo may be nil
	envelope      string        // the address for bounces
	header        []field
}

// A field is a header field that needs no encoding.
type field struct{ name, value string }

// compose puts a message into its envelope. It refuses an address that cannot be
// one; all other text may be anything, and is encoded.
//
// The MIME parts are the work of package email. The header fields of a message
// are written here: the package writes them in random order, does not fold
// them, and takes names apart at their commas.
func compose(msg Message, s sender, now time.Time) (smtp.Envelope, error) {
	if _, reason := canonicalAddress(msg.To); reason != "" {
		return smtp.Envelope{}, fmt.Errorf("%w: smtp: address: %s", ErrUndeliverable, reason)
	}
	to, err := asciiDomain(msg.To)
	if err != nil {
		return smtp.Envelope{}, fmt.Errorf("%w: smtp: address: %w", ErrUndeliverable, err)
	}

	var b bytes.Buffer
	writeMailbox(&b, "From", *s.from)
	if s.replyTo != nil {
		writeMailbox(&b, "Reply-To", *s.replyTo)
	}
	writeMailbox(&b, "To", mail.Address{Name: msg.Name, Address: to})
	if msg.Subject != "" {
		writeText(&b, "Subject", msg.Subject)
	}
	writeField(&b, "Date", now.UTC().Format(time.RFC1123Z))
	writeField(&b, "Message-ID", "<"+messageID(msg.ID)+"@"+domainOf(s.from.Address)+">")
	writeField(&b, "Auto-Submitted", "auto-generated")           // RFC 3834
	writeField(&b, "X-Auto-Response-Suppress", "OOF, AutoReply") // the same for Exchange
	for _, f := range s.header {
		writeField(&b, f.name, f.value)
	}
	writeField(&b, "MIME-Version", "1.0")

	parts := email.Email{
		Text: []byte(unixLines(msg.Text)),
		HTML: []byte(unixLines(msg.HTML)),
		// What is there but empty is neither made up nor written.
		Headers: textproto.MIMEHeader{"From": nil, "Date": nil, "Message-Id": nil, "MIME-Version": nil},
	}
	rest, err := parts.Bytes()
	if err != nil {
		return smtp.Envelope{}, fmt.Errorf("reset: smtp: mime: %w", err)
	}
	b.Grow(len(rest))
	b.Write(rest)
	_, link, _ := strings.Cut(msg.Link, "?")
	_, revokeLink, _ := strings.Cut(msg.RevokeLink, "?")
	return smtp.Envelope{
		From: quoteLocal(s.envelope), To: quoteLocal(to), UTF8: !isASCII(to),
		Data: b.Bytes(), Secrets: []string{link, revokeLink},
	}, nil
}

var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// unixLines spares mime/quotedprintable a CR alone, after which it can lose an LF.
func unixLines(text string) string {
	if !strings.Contains(text, "\r") { // a Replacer would copy it all the same
		return text
	}
	return lineEnds.Replace(text)
}

// parseMailbox parses the sender's address, with or without a name. It must
// not depend on SMTPUTF8, which not every recipient's server has.
func parseMailbox(s string) (*mail.Address, error) {
	a, err := mail.ParseAddress(s)
	if err != nil {
		return nil, cmp.Or(needsQuotes(s), err)
	}
	if _, reason := canonicalAddress(a.Address); reason != "" {
		return nil, errors.New(reason)
	}
	if a.Address, err = asciiDomain(a.Address); err != nil {
		return nil, err
	}
	if !isASCII(a.Address) {
		return nil, errors.New("the local part is not ASCII")
	}
	return a, nil
}

// needsQuotes returns an error if quotes around the name would make a mailbox of
// s, as they do of "Foo, Inc. <foo@example.com>".
func needsQuotes(s string) error {
	i := strings.LastIndexByte(s, '<')
	if i < 0 {
		return nil
	}
	name := strings.Trim(s[:i], ` "`)
	quoted := `"` + quoter.Replace(name) + `" ` + s[i:]
	if _, err := mail.ParseAddress(quoted); name == "" || err != nil {
		return nil
	}
	return fmt.Errorf("the name must be in quotes: %s", quoted)
}

// domainOf returns the domain of a checked address.
func domainOf(address string) string { return address[strings.LastIndex(address, "@")+1:] }

// quoteLocal returns a checked address as it is written in envelopes and header
// fields: with a local part in quotes if it is not a dot-atom (RFC 5321, 4.1.2).
func quoteLocal(address string) string {
	local, domain, _ := strings.Cut(address, "@")
	if slices.Contains(strings.Split(local, "."), "") {
		return `"` + quoter.Replace(local) + `"@` + domain
	}
	return address
}

// asciiDomain returns a checked address as it is stored, except that a domain in
// Unicode becomes its A-labels, which every server knows.
func asciiDomain(address string) (string, error) {
	local, domain, _ := strings.Cut(address, "@")
	if isASCII(domain) {
		return address, nil
	}
	domain, ok := canonicalDomain(domain)
	if !ok {
		return "", errors.New("not a domain")
	}
	return local + "@" + domain, nil
}

// messageID returns the left side of the Message-ID. It is id itself if that
// can stand there, as the ids of the Service can.
func messageID(id string) string {
	switch {
	case id == "":
		return rand.Text()
	case len(id) <= maxLocal && !strings.ContainsFunc(id, func(r rune) bool { return r >= utf8.RuneSelf || !isAtext(byte(r)) }):
		return id
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(id)))
}

// writeText writes a header field of unstructured text.
func writeText(b *bytes.Buffer, name, text string) {
	room := lineShould - len(name) - len(": ")
	if isPlain(text) && len(text) <= room && strings.TrimSpace(text) == text {
		writeField(b, name, text)
		return
	}
	writeField(b, name, encodedWords(text, room)...)
}

var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// writeMailbox writes a header field of a checked address with any name.
func writeMailbox(b *bytes.Buffer, name string, a mail.Address) {
	address := quoteLocal(a.Address)
	if a.Name == "" {
		writeField(b, name, address)
		return
	}
	room := lineShould - len(name) - len(": ")
	words := []string{`"` + quoter.Replace(a.Name) + `"`}
	if !isPlain(a.Name) || len(words[0]) > room {
		words = encodedWords(a.Name, room)
	}
	writeField(b, name, append(words, "<"+address+">")...)
}

// writeField writes a header field, folded between words.
func writeField(b *bytes.Buffer, name string, words ...string) {
	b.WriteString(name)
	b.WriteByte(':')
	length := len(name) + 1
	for i, w := range words {
		if i > 0 && length+1+len(w) > lineShould {
			b.WriteString("\r\n")
			length = 0
		}
		b.WriteByte(' ')
		b.WriteString(w)
		length += 1 + len(w)
	}
	b.WriteString("\r\n")
}

// isPlain reports whether text needs no encoding: it is printable ASCII and has
// nothing that could be taken for an encoded-word.
func isPlain(text string) bool {
	return !strings.Contains(text, "=?") &&
		!strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// encodedWords writes text as encoded-words of the Q encoding with the
// characters that are allowed everywhere, also in a display name (RFC 2047,
// 5.3). The first word has at most room bytes. Between encoded-words, space and
// folds are no part of the text (6.2).
func encodedWords(text string, room int) (words []string) {
	const start, end = "=?utf-8?q?", "?="
	word := make([]byte, 0, maxWord)
	word = append(word, start...)
	room = min(room, maxWord)
	for _, r := range text { // a character must not be split; what is not UTF-8 becomes U+FFFD
		var buf [3 * utf8.UTFMax]byte
		code := appendQ(buf[:0], r)
		if len(word)+len(code)+len(end) > room {
			words = append(words, string(append(word, end...)))
			word = append(word[:0], start...)
			room = maxWord
		}
		word = append(word, code...)
	}
	return append(words, string(append(word, end...)))
}

func appendQ(b []byte, r rune) []byte {
	switch {
	case r == ' ':
		return append(b, '_')
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return append(b, byte(r))
	}
	for _, c := range []byte(string(r)) {
		b = fmt.Appendf(b, "=%02X", c)
	}
	return b
}
