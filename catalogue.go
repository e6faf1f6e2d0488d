package reset

import (
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
)

// A catalogue is all messages in one language.
type catalogue struct {
	lang     string // its canonical BCP 47 tag
	tag      language.Tag
	rtl      bool
	messages map[string]message
}

// A message is one text, or one for each plural form of its language.
type message struct {
	plural bool
	texts  map[plural.Form]text // without plurals only of plural.Other
}

// A text is made of literals and placeholders in turn.
type text []part

type part struct{ literal, name string }

// The placeholder that picks the plural form.
const countName = "n"

var formNames = map[string]plural.Form{
	"zero": plural.Zero, "one": plural.One, "two": plural.Two,
	"few": plural.Few, "many": plural.Many, "other": plural.Other,
}

// parseCatalogue reads a locale file.
func parseCatalogue(lang, file string) (*catalogue, error) {
	tag, err := language.Parse(lang)
	if err != nil || tag.String() != lang {
		return nil, fmt.Errorf("%q is not a canonical language tag", lang)
	}
	c := &catalogue{lang: lang, tag: tag, rtl: isRTL(tag), messages: make(map[string]message)}
	dec := json.NewDecoder(strings.NewReader(file))
	var raw map[string]json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, errors.New("text behind the object")
	}
	for key, value := range raw {
		if c.messages[key], err = parseMessage(value); err != nil {
			return nil, fmt.Errorf("message %q: %w", key, err)
		}
	}
	return c, nil
}

func isRTL(tag language.Tag) bool {
	script, _ := tag.Script()
	return slices.Contains([]string{"Adlm", "Arab", "Hebr", "Nkoo", "Rohg", "Syrc", "Thaa"}, script.String())
}

func (c *catalogue) has(key string) bool {
	_, ok := c.messages[key]
	return ok
}

// dir is the value of HTML's dir attribute.
func (c *catalogue) dir() string {
	if c.rtl {
		return "rtl"
	}
	return "ltr"
}

// parseMessage takes a string, or an object with a string for each form.
func parseMessage(value []byte) (message, error) {
	var s string
	if json.Unmarshal(value, &s) == nil {
		t, err := parseText(s)
		return message{texts: map[plural.Form]text{plural.Other: t}}, err
	}
	var forms map[string]string
	if json.Unmarshal(value, &forms) != nil {
		return message{}, errors.New("neither a string nor an object of strings")
	}
	m := message{plural: true, texts: make(map[plural.Form]text)}
	for name, s := range forms {
		form, ok := formNames[name]
		if !ok {
			return message{}, fmt.Errorf("%q is not a plural form", name)
		}
		t, err := parseText(s)
		if err != nil {
			return message{}, fmt.Errorf("plural form %s: %w", name, err)
		}
		m.texts[form] = t
	}
	return m, nil
}

// parseText finds the placeholders, such as {brand}, in s.
func parseText(s string) (t text, err error) {
	if strings.TrimSpace(s) == "" {
		return nil, errors.New("empty message")
	}
	for rest := s; rest != ""; {
		literal, after, found := strings.Cut(rest, "{")
		name, behind, closed := strings.Cut(after, "}")
		if strings.Contains(literal, "}") || found && (!closed || name == "" || strings.Contains(name, "{")) {
			return nil, fmt.Errorf("braces without a placeholder in %q", s)
		}
		t = append(t, part{literal, name})
		rest = behind
	}
	return t, nil
}

// names returns the placeholders of a text, sorted.
func (t text) names() (names []string) {
	for _, p := range t {
		if p.name != "" && !slices.Contains(names, p.name) {
			names = append(names, p.name)
		}
	}
	slices.Sort(names)
	return names
}

// check compares c with the catalogue that all others translate.
func (c *catalogue) check(model *catalogue) error {
	for key := range c.messages {
		if _, ok := model.messages[key]; !ok {
			return fmt.Errorf("unknown message %q", key)
		}
	}
	forms := wholeForms(c.tag)
	for _, key := range slices.Sorted(maps.Keys(model.messages)) {
		m, ok := c.messages[key]
		if !ok {
			return fmt.Errorf("missing message %q", key)
		}
		if err := m.check(model.messages[key], forms); err != nil {
			return fmt.Errorf("message %q: %w", key, err)
		}
	}
	return nil
}

// wholeForms returns the plural forms that whole numbers take in a language,
// with how many of the numbers below 200 take each.
func wholeForms(tag language.Tag) map[plural.Form]int {
	forms := make(map[plural.Form]int)
	for n := range 200 {
		forms[formOf(tag, n)]++
	}
	return forms
}

func formOf(tag language.Tag, n int) plural.Form {
	return plural.Cardinal.MatchPlural(tag, n, 0, 0, 0, 0)
}

func (m message) check(model message, forms map[plural.Form]int) error {
	if m.plural != model.plural {
		return fmt.Errorf("has plural forms: %v, want %v", m.plural, model.plural)
	}
	want := model.texts[plural.Other].names()
	if !m.plural {
		return sameNames(m.texts[plural.Other], want)
	}
	for name, form := range formNames {
		t, has := m.texts[form]
		if needed := forms[form] > 0; has != needed {
			return fmt.Errorf("has plural form %s: %v, want %v", name, has, needed)
		}
		if !has {
			continue
		}
		names := want
		// "One hour" needs no digit where the form is for 1 alone.
		if forms[form] == 1 && !slices.Contains(t.names(), countName) {
			names = slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == countName })
		}
		if err := sameNames(t, names); err != nil {
			return fmt.Errorf("plural form %s: %w", name, err)
		}
	}
	return nil
}

func sameNames(t text, want []string) error {
	if got := t.names(); !slices.Equal(got, want) {
		return fmt.Errorf("has placeholders %q, want %q", got, want)
	}
	return nil
}

// A span is a time in words: 59 minutes. In place of a number it also picks
// the message, by its unit.
type span struct {
	n    int
	unit string
}

// lasting never promises more than is left.
func lasting(d time.Duration) span {
	if d >= 2*time.Hour {
		return span{int(d / time.Hour), "hours"}
	}
	return span{max(1, int(d/time.Minute)), "minutes"}
}

// waiting never sends anybody back too early.
func waiting(d time.Duration) span {
	switch {
	case d > 2*time.Hour:
		return span{int((d + time.Hour - 1) / time.Hour), "hours"}
	case d > 2*time.Minute:
		return span{int((d + time.Minute - 1) / time.Minute), "minutes"}
	}
	return span{max(1, int((d+time.Second-1)/time.Second)), "seconds"}
}

// A voice says messages in one language for one brand.
type voice struct {
	*catalogue
	brand string
}

// plain returns a message as it is, for titles and subjects.
func (v voice) plain(key string, args ...any) (string, error) {
	return v.say(asIs, asIs, key, args)
}

// htmlVoice is for templates that make HTML.
type htmlVoice struct{ voice }

// T returns a message as HTML. What is filled in keeps its own direction.
func (v htmlVoice) T(key string, args ...any) (template.HTML, error) {
	isolate := func(s string) string { return "<bdi>" + template.HTMLEscapeString(s) + "</bdi>" }
	s, err := v.say(template.HTMLEscapeString, isolate, key, args)
	return template.HTML(s), err
}

// textVoice is for templates that make plain text.
type textVoice struct{ voice }

// T returns a message as plain text. In text that runs from right to left,
// invisible characters keep the direction of what is filled in.
func (v textVoice) T(key string, args ...any) (string, error) {
	isolate := asIs
	if v.rtl {
		isolate = func(s string) string { return "\u2068" + s + "\u2069" }
	}
	return v.say(asIs, isolate, key, args)
}

func asIs(s string) string { return s }

// say fills in a message. args are names and values in turn. A value is a
// string, an int or a span; the one with the name "n" picks the plural form.
// What the translator wrote passes through literal, strings through value.
func (v voice) say(literal, value func(string) string, key string, args []any) (string, error) {
	values := map[string]string{"brand": value(v.brand)}
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
		case span:
			values[name] = strconv.Itoa(arg.n)
			key, n = key+"."+arg.unit, arg.n
		default:
			return "", fmt.Errorf("message %q: %s is a %T", key, name, arg)
		}
	}
	m, ok := v.messages[key]
	if !ok {
		return "", fmt.Errorf("no message %q", key)
	}
	s, err := m.in(v.tag, n).fill(literal, values)
	if err != nil {
		return "", fmt.Errorf("message %q: %w", key, err)
	}
	return s, nil
}

// in returns the text of a message for a number.
func (m message) in(tag language.Tag, n int) text {
	if !m.plural {
		return m.texts[plural.Other]
	}
	return m.texts[formOf(tag, n)]
}

func (t text) fill(literal func(string) string, values map[string]string) (string, error) {
	var b strings.Builder
	for _, p := range t {
		b.WriteString(literal(p.literal))
		if p.name == "" {
			continue
		}
		v, ok := values[p.name]
		if !ok {
			return "", fmt.Errorf("no value for {%s}", p.name)
		}
		b.WriteString(v)
	}
	return b.String(), nil
}
