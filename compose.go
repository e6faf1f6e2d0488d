package reset

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/mail"
	"net/textproto"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jordan-wright/email"

	"github.com/gopassreset/reset/internal/smtp"
)

const (
	lineShould = 76 // bytes; RFC 2047, 2: of a line with encoded-words
	wordMost   = 75 // bytes; RFC 2047, 2: of one encoded-word
	plainMost  = 60 // bytes of text that stands in a header as it is
)

// compose puts a message into its envelope. It refuses an address that cannot be
// one; all other text may be anything, and is encoded. replyTo may be nil.
//
// The MIME parts are the work of package email. The header fields of a message
// are written here: the package writes them in random order, does not fold
// them, and takes names apart at their commas.
func compose(msg Message, from, replyTo *mail.Address, now time.Time) (smtp.Envelope, error) {
	if _, reason := canonicalAddress(msg.To); reason != "" {
		return smtp.Envelope{}, fmt.Errorf("%w: smtp: address: %s", ErrUndeliverable, reason)
	}
	to, err := asciiDomain(msg.To)
	if err != nil {
		return smtp.Envelope{}, fmt.Errorf("%w: smtp: address: %w", ErrUndeliverable, err)
	}

	var b bytes.Buffer
	writeField(&b, "From", mailboxWords(from.Name, from.Address)...)
	if replyTo != nil {
		writeField(&b, "Reply-To", mailboxWords(replyTo.Name, replyTo.Address)...)
	}
	writeField(&b, "To", mailboxWords(msg.Name, to)...)
	if msg.Subject != "" {
		writeField(&b, "Subject", textWords(msg.Subject)...)
	}
	writeField(&b, "Date", now.UTC().Format(time.RFC1123Z))
	writeField(&b, "Message-ID", "<"+messageID(msg.ID)+from.Address[strings.LastIndex(from.Address, "@"):]+">")
	writeField(&b, "Auto-Submitted", "auto-generated")           // RFC 3834
	writeField(&b, "X-Auto-Response-Suppress", "OOF, AutoReply") // the same for Exchange
	writeField(&b, "MIME-Version", "1.0")

	parts := email.Email{
		Text: []byte(lineEnds.Replace(msg.Text)),
		HTML: []byte(lineEnds.Replace(msg.HTML)),
		// What is there but empty is neither made up nor written.
		Headers: textproto.MIMEHeader{"From": nil, "Date": nil, "Message-Id": nil, "MIME-Version": nil},
	}
	rest, err := parts.Bytes()
	if err != nil {
		return smtp.Envelope{}, fmt.Errorf("reset: smtp: mime: %w", err)
	}
	b.Write(rest)
	_, link, _ := strings.Cut(msg.Link, "?")
	_, revokeLink, _ := strings.Cut(msg.RevokeLink, "?")
	return smtp.Envelope{
		From: from.Address, To: to, UTF8: !isASCII(to),
		Data: b.Bytes(), Secrets: []string{link, revokeLink},
	}, nil
}

// lineEnds spares mime/quotedprintable a CR alone, after which it can lose an LF.
var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// parseMailbox parses the sender's address, with or without a name. It must
// not depend on SMTPUTF8, which not every recipient's server has.
func parseMailbox(s string) (*mail.Address, error) {
	a, err := mail.ParseAddress(s)
	if err != nil {
		return nil, err
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

// asciiDomain returns a checked address as it is stored, but for a domain in
// Unicode, which becomes its A-labels: every server knows these.
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

// textWords returns text as words of an unstructured field. Between encoded
// words, space and folds are no part of the text (RFC 2047, 6.2).
func textWords(text string) []string {
	if isPlain(text) && strings.TrimSpace(text) == text {
		return []string{text}
	}
	return encodedWords(text)
}

var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// mailboxWords returns a checked address with a display name as words.
func mailboxWords(name, address string) []string {
	switch {
	case name == "":
		return []string{address}
	case isPlain(name):
		return []string{`"` + quoter.Replace(name) + `"`, "<" + address + ">"}
	}
	return append(encodedWords(name), "<"+address+">")
}

// isPlain reports whether text needs no encoding: it is short, printable ASCII
// and has nothing that anybody could take for an encoded-word.
func isPlain(text string) bool {
	return len(text) <= plainMost && !strings.Contains(text, "=?") &&
		!strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// encodedWords writes text as encoded-words of the Q encoding with the characters
// that are allowed everywhere, also in a display name (RFC 2047, 5.3).
func encodedWords(text string) (words []string) {
	const start, end = "=?utf-8?q?", "?="
	word := make([]byte, 0, wordMost)
	word = append(word, start...)
	for _, r := range text { // a character must not be split; what is not UTF-8 becomes U+FFFD
		var buf [3 * utf8.UTFMax]byte
		code := appendQ(buf[:0], r)
		if len(word)+len(code)+len(end) > wordMost {
			words = append(words, string(append(word, end...)))
			word = append(word[:0], start...)
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
