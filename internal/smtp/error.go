package smtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
)

const maxShown = 300 // bytes of a reply in an error

// A Stage is how far an exchange got.
type Stage string

const (
	StageDial      Stage = "dial"
	StageHello     Stage = "hello" // the greeting and EHLO
	StageStartTLS  Stage = "starttls"
	StageHandshake Stage = "handshake"
	StageAuth      Stage = "auth"
	StageMail      Stage = "mail from"
	StageRcpt      Stage = "rcpt to"
	StageData      Stage = "data"
	StageMessage   Stage = "message" // its bytes and the reply to them
)

// namesRecipient reports whether the server knows the recipient, so that a
// failure may be due to the recipient or the message.
func (s Stage) namesRecipient() bool {
	return s == StageRcpt || s == StageData || s == StageMessage
}

// A Fault says whose a failure is.
type Fault int

const (
	Passing     Fault = iota // of this attempt, as far as can be seen
	OfMessage                // of this recipient or message: another attempt would fail, too
	OfServer                 // of the server, the sender or the settings: every message would meet it
	Unconfirmed              // of nobody: the server has probably accepted the message
)

// An Error says at which stage an exchange failed. Its text is one line and
// repeats no secret.
type Error struct {
	Stage    Stage
	Code     int    // of the server's reply; 0: there was none
	Enhanced string // the enhanced status code, as "5.1.1"; "": there was none (RFC 3463)
	Fault    Fault
	cause    error
}

func (e *Error) Error() string {
	return "smtp: " + string(e.Stage) + ": " + shorten(printable(e.cause.Error()))
}

func (e *Error) Unwrap() error { return e.cause }

var errNoUTF8 = errors.New("the address needs SMTPUTF8, which the server does not offer")

// A timeoutError is the end of a step that took too long.
type timeoutError time.Duration

func (e timeoutError) Error() string { return "timed out after " + time.Duration(e).String() }

func (e timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// failed makes an Error of what ended a step that had that much time.
func (s *session) failed(stage Stage, timeout time.Duration, err error) *Error {
	e := &Error{Stage: stage, cause: err}
	var reply *textproto.Error
	var noReply textproto.ProtocolError
	switch {
	case errors.As(err, &reply):
		e.Code, e.Enhanced = reply.Code, enhanced(reply.Code, reply.Msg)
		e.cause = fmt.Errorf("%03d %s", reply.Code, s.quote(reply.Msg))
		e.Fault = ofReply(stage, e.Code, e.Enhanced, reply.Msg)
	case errors.As(err, &noReply):
		e.cause = errors.New(s.quote(noReply.Error()))
	case errors.Is(err, os.ErrDeadlineExceeded):
		e.cause = timeoutError(timeout)
	case errors.Is(err, io.EOF):
		e.cause = errors.New("the server closed the connection")
	}
	if !stage.namesRecipient() {
		e.Fault = OfServer
	}
	return e
}

// ofReply says whose a refusal is. Which stage it is reported at means little:
// Postfix reports every refusal of a client, a name in EHLO or a sender as the
// reply to RCPT.
func ofReply(stage Stage, code int, enhanced, text string) Fault {
	refused := stage == StageRcpt && 550 <= code && code <= 553
	switch {
	case code == 421 || code == 454:
		return OfServer
	case enhanced != "" && code/100 == 5 && stage != StageData && slices.Contains(ofRecipient, enhanced):
		return OfMessage
	case enhanced == "" && refused && !aboutSender.MatchString(text):
		return OfMessage
	}
	return Passing
}

// ofRecipient are the enhanced status codes that are about a recipient
// (RFC 3463, 3.2 and 3.3, and RFC 7505).
var ofRecipient = []string{"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.0", "5.2.1", "5.2.2"}

// aboutSender finds refusals of servers without enhanced status codes, such as
// Exim, that are not about the recipient.
var aboutSender = regexp.MustCompile(`(?i)relay|sender|authenticat|\b(helo|ehlo|spf|dkim|dmarc)\b`)

// enhanced returns the enhanced status code of a reply: at the beginning
// (RFC 2034), or in parentheses, as qmail has it.
func enhanced(code int, text string) string {
	m := statusCode.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return m[1] + m[2]
}

var statusCode = regexp.MustCompile(`^#?([245]\.\d{1,3}\.\d{1,3})(?:[^\w.]|$)|\(#([245]\.\d{1,3}\.\d{1,3})\)`)

// isStale reports whether err can be due to the age of a connection, with
// nothing of the message sent over it yet.
func isStale(err error) bool {
	e, ok := err.(*Error)
	switch {
	case !ok || e.cause == errNoUTF8:
		return false
	case e.Stage == StageMail:
		return true
	case e.Stage == StageRcpt || e.Stage == StageData:
		return e.Code == 0 || e.Code == 421
	}
	return false
}

// quote makes one line of a server's words, fit for a log. Servers do repeat
// what they were sent: spam filters quote links.
func (s *session) quote(words string) string {
	words = printable(words)
	for _, secret := range slices.Concat(s.secrets, s.message) {
		if repeats(words, secret) {
			return "(the server's words are withheld: they repeat a secret)"
		}
	}
	return shorten(words)
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

func shorten(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}

// repeats reports whether text has some 12 bytes of a secret in it, or all of a
// shorter one.
func repeats(text, secret string) bool {
	n := min(len(secret), 12)
	for i := 0; n > 0 && i+n <= len(secret); i++ {
		if strings.Contains(text, secret[i:i+n]) {
			return true
		}
	}
	return false
}
