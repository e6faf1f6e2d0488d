package ui

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/unicode/bidi"
)

// A duration is a number of hours, minutes or seconds, such as 59 minutes.
type duration struct {
	n    int
	unit string // a message of that unit has it as the last part of its key
}

// roundDown states how long something is still valid, and never more than that.
func roundDown(d time.Duration) duration {
	if d >= 2*time.Hour {
		return duration{int(d / time.Hour), "hours"}
	}
	return duration{max(1, int(d/time.Minute)), "minutes"}
}

// roundUp states how long to wait, and never less than that.
func roundUp(d time.Duration) duration {
	switch {
	case d > 2*time.Hour:
		return duration{int((d + time.Hour - 1) / time.Hour), "hours"}
	case d > 2*time.Minute:
		return duration{int((d + time.Minute - 1) / time.Minute), "minutes"}
	}
	return duration{max(1, int((d+time.Second-1)/time.Second)), "seconds"}
}

// A translator fills in the messages of one locale for one brand.
type translator struct {
	*locale
	brand string
}

// plain returns a message without any escaping, for titles and subjects.
func (t translator) plain(key string, args ...any) (string, error) {
	return t.translate(asIs, asIs, key, args)
}

// A pageTranslator translates for the templates of pages.
type pageTranslator struct{ translator }

// T returns a message as HTML. <bdi> isolates the direction of each value.
func (t pageTranslator) T(key string, args ...any) (template.HTML, error) {
	value := func(s string) string { return "<bdi>" + template.HTMLEscapeString(s) + "</bdi>" }
	s, err := t.translate(template.HTMLEscapeString, value, key, args)
	return template.HTML(s), err
}

// An htmlTranslator translates for the HTML part of mail.
type htmlTranslator struct{ translator }

// T returns a message as HTML. Gmail, Outlook and Yahoo drop <bdi>, so invisible
// characters inside it isolate the direction of each value, too.
func (t htmlTranslator) T(key string, args ...any) (template.HTML, error) {
	value := func(s string) string { return "<bdi>" + template.HTMLEscapeString(t.isolate(s)) + "</bdi>" }
	s, err := t.translate(template.HTMLEscapeString, value, key, args)
	return template.HTML(s), err
}

// A textTranslator translates for the text part of mail.
type textTranslator struct{ translator }

// T returns a message as plain text. Invisible characters isolate the direction
// of each value.
func (t textTranslator) T(key string, args ...any) (string, error) {
	return t.translate(asIs, t.isolate, key, args)
}

// isolate wraps s in U+2068 and U+2069 where its direction may differ from that
// of the message.
func (t translator) isolate(s string) string {
	if !t.rtl && !strings.ContainsFunc(s, isRightToLeft) {
		return s
	}
	return "\u2068" + s + "\u2069"
}

func isRightToLeft(r rune) bool {
	p, _ := bidi.LookupRune(r)
	return p.Class() == bidi.R || p.Class() == bidi.AL
}

func asIs(s string) string { return s }

// translate fills in a message. args alternate names and values. A value is a
// string, an int or a duration; the one named "n" selects the plural form, and
// a duration also selects the message of its unit. The literals of the message
// pass through literal, string values through value.
func (t translator) translate(literal, value func(string) string, key string, args []any) (string, error) {
	values := map[string]string{"brand": value(t.brand)}
	n := 0
	for i := 0; i+1 < len(args); i += 2 {
		name, ok := args[i].(string)
		if !ok {
			return "", fmt.Errorf("message %q: argument %d is not a name", key, i+1)
		}
		switch arg := args[i+1].(type) {
		case string:
			values[name] = value(arg)
		case int:
			values[name] = strconv.Itoa(arg)
			if name == countName {
				n = arg
			}
		case duration:
			values[name] = strconv.Itoa(arg.n)
			key, n = key+"."+arg.unit, arg.n
		default:
			return "", fmt.Errorf("message %q: %s is a %T", key, name, arg)
		}
	}
	m, ok := t.messages[key]
	if !ok {
		return "", fmt.Errorf("no message %q", key)
	}
	s, err := m.in(t.tag, n).fill(literal, values)
	if err != nil {
		return "", fmt.Errorf("message %q: %w", key, err)
	}
	return s, nil
}
