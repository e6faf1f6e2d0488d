package smtp

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/textproto"
	"strings"
	"unicode"

	"github.com/emersion/go-smtp"
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

// An Error says at which stage an exchange failed. Its text is one line and
// repeats no secret.
type Error struct {
	Stage Stage
	Code  int // of the server's reply; 0: there was none
	cause error
}

func failed(stage Stage, cause error) error { return &Error{Stage: stage, cause: cause} }

func (e *Error) Error() string { return "smtp: " + string(e.Stage) + ": " + e.cause.Error() }

func (e *Error) Unwrap() error { return e.cause }

var errNoUTF8 = errors.New("the address needs SMTPUTF8, which the server does not offer")

// Permanent reports whether the server refused this recipient or this message,
// so that another attempt would fail, too. A reply of 53x never is: it says that
// the log-in is missing or wrong.
func (e *Error) Permanent() bool {
	said := (e.Stage == StageRcpt || e.Stage == StageMessage) && e.Code/100 == 5 && e.Code/10 != 53
	return said || e.cause == errNoUTF8
}

// reply returns what err has from the server: the code of its reply, or 0 if
// there was none, and its words.
func reply(err error) (code int, words string) {
	var bySMTP *smtp.SMTPError
	var byText *textproto.Error
	var noReply textproto.ProtocolError
	switch {
	case errors.As(err, &bySMTP):
		words = bySMTP.Message
		if e := bySMTP.EnhancedCode; e != smtp.EnhancedCodeNotSet {
			words = fmt.Sprintf("%d.%d.%d %s", e[0], e[1], e[2], words)
		}
		return bySMTP.Code, words
	case errors.As(err, &byText):
		return byText.Code, byText.Msg
	case errors.As(err, &noReply):
		return 0, noReply.Error()
	}
	return 0, ""
}

// isStale reports whether err can be due to the age of a connection, with
// nothing of the message sent over it yet.
func isStale(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.cause == errNoUTF8 {
		return false
	}
	code, _ := reply(err)
	switch e.Stage {
	case StageMail:
		return true
	case StageRcpt, StageData:
		return code == 0 || code == 421
	}
	return false
}

// explain makes the error of an exchange what Send returns.
func explain(ctx context.Context, server Server, e Envelope, err error) error {
	var failure *Error
	if !errors.As(err, &failure) {
		return err
	}
	code, words := reply(err)
	failure.Code = code
	switch {
	case code != 0:
		failure.cause = fmt.Errorf("%03d %s", code, quote(words, server, e))
	case words != "":
		failure.cause = errors.New(quote(words, server, e))
	case ctx.Err() != nil:
		failure.cause = context.Cause(ctx)
	}
	return failure
}

// quote makes one line of a server's words, fit for a log. Servers do repeat
// what they were sent: spam filters quote links.
func quote(words string, server Server, e Envelope) string {
	words = strings.ToValidUTF8(words, "\uFFFD")
	words = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, words)
	encode := base64.StdEncoding.EncodeToString
	secrets := append([]string{
		server.Password, encode([]byte(server.Password)), encode([]byte("\x00" + server.Username + "\x00" + server.Password)),
	}, e.Secrets...)
	for _, secret := range secrets {
		if repeats(words, secret) {
			return "(the server's words are withheld: they repeat a secret)"
		}
	}
	if len(words) > maxShown {
		words = strings.ToValidUTF8(words[:maxShown], "") + "…"
	}
	return words
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
