package ui

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Brand is what pages and mail show of the host. Its fields are those of
// reset.Brand.
type Brand struct{ Name, Logo, Color string }

const maxBrandName = 64 // code points

// Check checks a brand whose name is set. Its error begins with the name of the
// field at fault.
func (b Brand) Check(base *url.URL) error {
	for _, c := range []struct {
		field string
		err   error
	}{
		{"Name", checkBrandName(b.Name)},
		{"Logo", checkLogo(b.Logo, base)},
		{"Color", checkColor(b.Color)},
	} {
		if c.err != nil {
			return fmt.Errorf("%s: %w", c.field, c.err)
		}
	}
	return nil
}

func checkBrandName(name string) error {
	switch {
	case name != cleanLine(name):
		return errors.New("has control or invisible characters, or extra spaces")
	case utf8.RuneCountInString(name) > maxBrandName:
		return fmt.Errorf("longer than %d characters", maxBrandName)
	}
	return nil
}

func checkColor(s string) error {
	if s == "" {
		return nil
	}
	_, err := parseColor(s)
	return err
}

func checkLogo(logo string, base *url.URL) error {
	if logo == "" {
		return nil
	}
	u, err := url.Parse(logo)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme == "" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		return nil
	case u.Scheme != base.Scheme || u.Host != base.Host || u.User != nil:
		return errors.New("neither a path that begins with / nor a URL on the origin of BaseURL")
	}
	return nil
}

// initial replaces a missing logo: it returns the first letter or digit of the
// name, or "" if the name begins with anything else.
func (b Brand) initial() string {
	r, _ := utf8.DecodeRuneInString(b.Name)
	if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
		return ""
	}
	return string(unicode.ToUpper(r))
}

// cleanLine removes from s what could break or reorder a line: control and
// format characters, including the bidirectional overrides. It keeps the
// joiners U+200C and U+200D, which Persian and Indic words are spelled with.
func cleanLine(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == '\u200c' || r == '\u200d':
			return r
		case unicode.Is(unicode.C, r), r == utf8.RuneError:
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}
