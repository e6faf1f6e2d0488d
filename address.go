package reset

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

const (
	maxAddress = 254 // bytes; RFC 5321, 4.5.3.1.3, less the angle brackets
	maxLocal   = 64  // bytes; RFC 5321, 4.5.3.1.1
)

var domains = idna.New(
	idna.MapForLookup(),
	idna.Transitional(false),
	idna.BidiRule(),
	idna.StrictDomainName(true),
	idna.VerifyDNSLength(true),
)

// CanonicalAddress returns the form of an address under which it is looked up
// and compared: the domain as lower-case A-labels (IDNA 2008 with the mapping
// of UTS 46), the local part in Unicode's Normalization Form C and lower-case.
// Its result is its own canonical form.
//
// An address is at most 254 bytes long: a local part of at most 64 bytes that
// is a dot-atom (RFC 5322, 3.2.3) or its extension to UTF-8 (RFC 6531), an @
// and a domain. Anything else, such as a display name, a quoted local part, an
// address literal or a list, gets an error that wraps [ErrBadRequest]. So does
// a character outside of ASCII that would turn into an ASCII one, as the Kelvin
// sign would: two people could then share a canonical address.
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
	if strings.HasSuffix(domain, ".") {
		return "", "the domain ends in a dot"
	}
	domain, err := domains.ToASCII(domain)
	if err != nil || domain == "" || strings.HasSuffix(domain, ".") {
		return "", "not a domain"
	}
	if canonical = local + "@" + domain; len(canonical) > maxAddress {
		return "", "longer than 254 bytes"
	}
	return canonical, ""
}

func canonicalLocal(local string) (canonical, reason string) {
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" {
			return "", "the local part is not a dot-atom"
		}
	}
	for _, r := range local {
		switch {
		case r < utf8.RuneSelf:
			if r != '.' && !isAtext(byte(r)) {
				return "", "the local part is not a dot-atom"
			}
		case !unicode.IsPrint(r):
			return "", "the local part has an unprintable character"
		case hasASCII(norm.NFC.String(string(r))) || hasASCII(lower(string(r))):
			return "", "the local part has a character that stands for an ASCII one"
		}
	}
	canonical = lower(local)
	if len(local) > maxLocal || len(canonical) > maxLocal {
		return "", "the local part is longer than 64 bytes"
	}
	return canonical, ""
}

// lower is NFC and lower-case. Lower-casing can undo the normal form.
func lower(s string) string {
	return norm.NFC.String(strings.ToLower(norm.NFC.String(s)))
}

func hasASCII(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < utf8.RuneSelf })
}

// isAtext reports whether c may stand in an atom (RFC 5322, 3.2.3).
func isAtext(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}
