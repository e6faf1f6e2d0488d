package ui

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
)

// A locale holds all messages of one language.
type locale struct {
	lang     string // its canonical BCP 47 tag
	tag      language.Tag
	rtl      bool
	messages map[string]message
}

// A message is one text, or one text for each plural form of its language.
type message struct {
	plural bool
	texts  map[plural.Form]text // a message without plural forms has plural.Other alone
}

// A text is a sequence of parts.
type text []part

// A part is a literal followed by a placeholder. The name of the last part's
// placeholder may be "": there is none.
type part struct{ literal, name string }

// countName is the placeholder that selects the plural form.
const countName = "n"

var formNames = map[string]plural.Form{
	"zero": plural.Zero, "one": plural.One, "two": plural.Two,
	"few": plural.Few, "many": plural.Many, "other": plural.Other,
}

// parseLocale parses the file of a locale.
func parseLocale(lang, file string) (*locale, error) {
	tag, err := language.Parse(lang)
	if err != nil || tag.String() != lang {
		return nil, fmt.Errorf("%q is not a canonical language tag", lang)
	}
	l := &locale{lang: lang, tag: tag, rtl: isRTL(tag), messages: make(map[string]message)}
	dec := json.NewDecoder(strings.NewReader(file))
	var raw map[string]json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, errors.New("text after the object")
	}
	for key, value := range raw {
		if l.messages[key], err = parseMessage(value); err != nil {
			return nil, fmt.Errorf("message %q: %w", key, err)
		}
	}
	return l, nil
}

func isRTL(tag language.Tag) bool {
	script, _ := tag.Script()
	return slices.Contains([]string{"Adlm", "Arab", "Hebr", "Nkoo", "Rohg", "Syrc", "Thaa"}, script.String())
}

func (l *locale) has(key string) bool {
	_, ok := l.messages[key]
	return ok
}

// dir returns the value of HTML's dir attribute.
func (l *locale) dir() string {
	if l.rtl {
		return "rtl"
	}
	return "ltr"
}

// parseMessage parses a string, or an object with a string for each plural form.
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

// check compares l with the locale that all others translate.
func (l *locale) check(model *locale) error {
	for key := range l.messages {
		if _, ok := model.messages[key]; !ok {
			return fmt.Errorf("unknown message %q", key)
		}
	}
	forms := wholeForms(l.tag)
	for _, key := range slices.Sorted(maps.Keys(model.messages)) {
		m, ok := l.messages[key]
		if !ok {
			return fmt.Errorf("missing message %q", key)
		}
		if err := m.check(model.messages[key], forms); err != nil {
			return fmt.Errorf("message %q: %w", key, err)
		}
	}
	return nil
}

// wholeForms returns the plural forms that whole numbers take in a language, and
// how many of the numbers below 200 take each.
func wholeForms(tag language.Tag) map[plural.Form]int {
	forms := make(map[plural.Form]int)
	for n := range 200 {
		forms[formOf(tag, n)]++
	}
	return forms
}

// formOf returns the plural form of n. x/text implements CLDR 32; since then
// Hebrew has lost the form many (CLDR 48).
func formOf(tag language.Tag, n int) plural.Form {
	form := plural.Cardinal.MatchPlural(tag, n, 0, 0, 0, 0)
	if base, _ := tag.Base(); form == plural.Many && base.String() == "he" {
		return plural.Other
	}
	return form
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
		if !has && forms[form] > 0 {
			return fmt.Errorf("plural form %s is missing", name)
		}
		if !has {
			continue
		}
		names := want
		// "One hour" needs no digit if only 1 takes the form.
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

// in returns the text of a message for n.
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
