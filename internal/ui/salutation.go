package ui

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
	"golang.org/x/text/unicode/norm"
)

const (
	maxName       = 50 // code points
	maxNameDigits = 4  // fewer than a telephone number has
)

// Salutation returns a user's name for the salutation of a mail, or "" if mail
// programs may turn part of it into a link, if it has more than 50 code points
// or 4 digits, or if nothing of it is visible. Anybody can sign up with another
// person's address and put a message into the name, which that person would
// then read in a mail from a trusted sender.
func Salutation(name string) string {
	name = cleanLine(name)
	plain := plainText(name)
	digits := 0
	for _, r := range plain {
		if unicode.IsNumber(r) {
			digits++
		}
	}
	if utf8.RuneCountInString(name) > maxName || digits > maxNameDigits || plain == "" || hasLink(plain) {
		return ""
	}
	return name
}

// plainText returns s as a browser's address bar would read it: without
// invisible characters, and with compatibility characters such as ①, ． and ⓒ
// replaced by the plain ones (NFKC).
func plainText(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point) {
			return -1
		}
		return r
	}, norm.NFKC.String(s))
	return strings.TrimSpace(norm.NFKC.String(s))
}

var (
	// linkMark matches schemes, paths, mail addresses, markup, www., encoded
	// domains and IPv4 addresses.
	linkMark = regexp.MustCompile(`[/\\@:<>]|(?i:www[.。]|[.。]xn--)|\pN[.。]\pN`)
	// dottedLabel matches a dot between labels of a domain, and the label after
	// it. IDNA treats 。 as a dot.
	dottedLabel = regexp.MustCompile(`[^\s.。][.。]([\pL\pM\pN]+)`)
	asciiPrefix = regexp.MustCompile(`^[a-zA-Z]*`)
)

// hasLink reports whether mail programs may turn part of s, which is plain text,
// into a link. They do so with what ends in a top-level domain: Ann.com, but not
// Ma.Theresa.
func hasLink(s string) bool {
	if linkMark.MatchString(s) {
		return true
	}
	for s != "" {
		m := dottedLabel.FindStringSubmatchIndex(s)
		if m == nil {
			return false
		}
		label := s[m[2]:m[3]]
		// Some programs end a link where letters of another script follow.
		if isTopLevel(label) || isTopLevel(asciiPrefix.FindString(label)) {
			return true
		}
		s = s[m[2]:] // the label may precede another dot
	}
	return false
}

// isTopLevel reports whether label is a top-level domain of the public suffix
// list.
func isTopLevel(label string) bool {
	domain, err := idna.Lookup.ToASCII("x." + label)
	if err != nil {
		return false
	}
	suffix, icann := publicsuffix.PublicSuffix(domain)
	return icann || strings.Contains(suffix, ".")
}
