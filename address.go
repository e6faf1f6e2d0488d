package reset

import (
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

const (
	maxAddress = 254 // bytes; RFC 5321, 4.5.3.1.3, less the angle brackets
	maxLocal   = 64  // bytes; RFC 5321, 4.5.3.1.1
	maxLabel   = 63  // bytes; RFC 1035, 2.3.4
)

// CanonicalAddress returns the form of an address under which it is looked up
// and compared. The result is its own canonical form.
//
// The domain becomes lower-case A-labels (IDNA 2008). Its characters are mapped
// by NFKC_Casefold (Unicode, 3.13) as in UTS 46, but ß and ς stay and ẞ becomes
// ß; soft hyphens, variation selectors and zero-width spaces are dropped. A
// label may contain underscores. The local part becomes lower-case in Unicode's
// Normalization Form C. Its dots may stand anywhere, as in taro..yamada@ and
// taro.@, which real accounts have.
//
// An address has at most 254 bytes, its local part at most 64. Anything but a
// local part without quotes (RFC 5322, 3.2.3, and RFC 6531), an @ and a domain
// gets an error that wraps [ErrBadRequest]: a display name, a quoted local
// part, an address literal, a list, blanks around the address. So does a local
// part with an invisible character, such as U+3164, or with one that stands for
// ASCII: the Kelvin sign, a ligature, full-width letters. Two people could
// otherwise share a canonical address. An xn-- label must be exactly what its
// Unicode form encodes to: xn--example-.com is not example.com.
//
// A stored canonical form stays right when Go, x/net or x/text are updated:
// Unicode guarantees the mappings for characters once assigned, and newer
// versions only accept more characters. If a version of this package maps an
// address differently, its changelog says so, and hosts that keep canonical
// addresses in a column fill that column again.
func CanonicalAddress(address string) (string, error) {
	canonical, reason := canonicalAddress(address)
	if reason != "" {
		return "", fmt.Errorf("%w: address: %s", ErrBadRequest, reason)
	}
	return canonical, nil
}

func canonicalAddress(address string) (canonical, reason string) {
	if len(address) > maxAddress {
		return "", "longer than 254 bytes"
	}
	if !utf8.ValidString(address) {
		return "", "not UTF-8"
	}
	local, domain, ok := strings.Cut(address, "@")
	if !ok || strings.Contains(domain, "@") {
		return "", "not of the form local@domain"
	}
	if local, reason = canonicalLocal(local); reason != "" {
		return "", reason
	}
	if domain, ok = canonicalDomain(domain); !ok {
		return "", "not a domain"
	}
	if canonical = local + "@" + domain; len(canonical) > maxAddress {
		return "", "longer than 254 bytes"
	}
	return canonical, ""
}

func canonicalLocal(local string) (canonical, reason string) {
	if local == "" {
		return "", "no local part"
	}
	composed := norm.NFC.String(local)
	for _, r := range local + composed { // composing turns the Kelvin sign into K, and I with a dot above into İ
		switch {
		case r < utf8.RuneSelf:
			if r != '.' && !isAtext(byte(r)) {
				return "", "the local part has a character that needs quotes"
			}
		case isInvisible(r):
			return "", "the local part has an invisible character"
		case isWidthForm(r) || hasASCII(norm.NFKC.String(string(r))) || unicode.ToLower(r) < utf8.RuneSelf:
			return "", "the local part has a character that stands for an ASCII one"
		}
	}
	canonical = norm.NFC.String(strings.ToLower(composed)) // lower-casing can undo the normal form
	if len(local) > maxLocal || len(canonical) > maxLocal {
		return "", "the local part is longer than 64 bytes"
	}
	return canonical, ""
}

// isAtext reports whether c may stand in an atom (RFC 5322, 3.2.3).
func isAtext(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// isInvisible reports whether a character shows nothing of its own: controls,
// blanks, fillers, selectors, and what stands for a character that was lost.
func isInvisible(r rune) bool {
	const blank = "\u2800\ufffc\ufffd\U00013441\U00013442\U00016fe4\U0001d159"
	return !unicode.IsPrint(r) || strings.ContainsRune(blank, r) ||
		unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// isWidthForm reports whether r is in the block of half-width and full-width
// forms.
func isWidthForm(r rune) bool { return 0xff00 <= r && r <= 0xffef }

func hasASCII(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < utf8.RuneSelf })
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// domainDots are the characters that IDNA takes for the dot between labels.
var domainDots = strings.NewReplacer("\u3002", ".", "\uff0e", ".", "\uff61", ".")

// validator decides whether A-labels have Unicode forms that IDNA allows. It
// decides nothing else: its own mapping differs between versions.
var validator = idna.New(
	idna.MapForLookup(),
	idna.Transitional(false),
	idna.BidiRule(),
	idna.StrictDomainName(false), // for underscores; canonicalLabel is strict
)

func canonicalDomain(domain string) (canonical string, ok bool) {
	labels := strings.Split(domainDots.Replace(domain), ".")
	validate := false
	for i, label := range labels {
		if labels[i], ok = canonicalLabel(label); !ok {
			return "", false
		}
		validate = validate || strings.HasPrefix(labels[i], acePrefix)
	}
	canonical = strings.Join(labels, ".")
	if validate {
		ascii, err := validator.ToASCII(canonical)
		return canonical, err == nil && ascii == canonical
	}
	return canonical, true
}

const acePrefix = "xn--"

// canonicalLabel returns the A-label of a label with characters outside of
// ASCII, and any other label in lower-case.
func canonicalLabel(label string) (canonical string, ok bool) {
	label = foldLabel(label)
	encoded := ""
	if strings.HasPrefix(label, acePrefix) {
		var err error
		encoded = label
		if label, err = idna.Punycode.ToUnicode(encoded); err != nil || isASCII(label) || foldLabel(label) != label {
			return "", false
		}
	}
	ascii := isASCII(label)
	for _, r := range label {
		if r < utf8.RuneSelf && !isLDH(byte(r)) && (r != '_' || !ascii) {
			return "", false
		}
	}
	switch {
	case label == "", label[0] == '-', label[len(label)-1] == '-',
		len(label) >= 4 && label[2:4] == "--": // reserved (RFC 5890, 2.3.1)
		return "", false
	case ascii:
		return label, len(label) <= maxLabel
	}
	canonical, err := idna.Punycode.ToASCII(label)
	return canonical, err == nil && len(canonical) <= maxLabel && (encoded == "" || encoded == canonical)
}

// foldLabel maps the characters of a label.
func foldLabel(label string) string {
	if isASCII(label) {
		return strings.ToLower(label)
	}
	fold := cases.Fold()
	var b strings.Builder
	for _, r := range label {
		switch {
		case r == '\u00ad' || r == '\u200b' || r == '\u2060' || r == '\ufeff' || unicode.Is(unicode.Variation_Selector, r):
		case r == 'ß' || r == 'ẞ':
			b.WriteRune('ß')
		case r == 'ς':
			b.WriteRune(r)
		case unicode.Is(unicode.Cherokee, r): // folds to upper-case, which x/text does not know
			b.WriteRune(unicode.ToUpper(r))
		default:
			b.WriteString(norm.NFKC.String(fold.String(norm.NFKC.String(string(r)))))
		}
	}
	return norm.NFC.String(b.String())
}

// isLDH reports whether c is a letter in lower-case, a digit or a hyphen.
func isLDH(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' }

// trimAddress removes blanks and invisible characters around an address, which
// come with copied text. ASCII controls stay, to be refused.
func trimAddress(s string) string {
	return strings.TrimFunc(s, func(r rune) bool {
		switch {
		case r == ' ', r == '\u00a0', r == '\u1680', r == '\u3000', r == '\ufeff',
			'\u2000' <= r && r <= '\u200f', '\u2028' <= r && r <= '\u202f', '\u205f' <= r && r <= '\u206f':
			return true
		}
		return false
	})
}

// pastedAddress returns the address in what a person typed or pasted: in angle
// brackets, as a mailto URL (RFC 6068), or with full-width characters, as
// East Asian input methods write them.
func pastedAddress(s string) string {
	s = trimAddress(strings.Map(func(r rune) rune {
		switch {
		case '！' <= r && r <= '～':
			return r - '！' + '!'
		case r == '﹫':
			return '@'
		}
		return r
	}, s))
	if inner, ok := strings.CutPrefix(s, "<"); ok {
		if inner, ok = strings.CutSuffix(inner, ">"); ok {
			s = trimAddress(inner)
		}
	}
	const mailto = "mailto:"
	if len(s) >= len(mailto) && strings.EqualFold(s[:len(mailto)], mailto) {
		address, _, _ := strings.Cut(s[len(mailto):], "?")
		if plain, err := url.PathUnescape(address); err == nil {
			s = trimAddress(plain)
		}
	}
	return s
}
