package reset

import (
	"html"
	"net/http"
	"regexp"
	"strings"
	"unicode"
)

// maxLinkQuery is how many bytes of a link's query are searched for an
// activation. Tracking parameters come to some hundred.
const maxLinkQuery = 4 << 10

const activationAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// activationName matches the name of the query parameter, in any case, and
// with the soft line breaks of quoted-printable in it.
var activationName = regexp.MustCompile(`(?i)` + strings.Join(strings.Split("activation", ""), `=?\s*`))

// linkActivation returns the activation in the query of a mailed link. found
// reports whether the query names one at all; the activation is "" if it cannot
// be recognized for certain.
//
// Between mailbox and browser a link can get punctuation or tracking parameters
// appended, be encoded once more (percent-encoding, HTML, quoted-printable), be
// doubled, or be broken into lines. An activation has 24 characters of a known
// alphabet, which is enough to find it again. Nothing is guessed: a query that
// could mean two activations means none.
func linkActivation(query string) (activation string, found bool) {
	text := linkText(query)
	for _, at := range activationName.FindAllStringIndex(text, -1) {
		before, after := text[:at[0]], text[at[1]:]
		if strings.TrimRight(before, activationAlphabet) != before || strings.TrimLeft(after, activationAlphabet) != after {
			continue // part of a longer word
		}
		found = true
		value, _, _ := strings.Cut(after, "&")
		switch a := activationAtStart(value); {
		case a == "" || a == activation:
		case activation == "":
			activation = a
		default:
			return "", true
		}
	}
	return activation, found
}

// lineBreak matches what is left in a text of a line break in the middle of a
// word: blanks, the mark of a soft break before them, the mark of a quoted reply
// after them.
var lineBreak = regexp.MustCompile(`=\s*|[\s+]+(?:>\s*)*`)

// maxBroken is how many bytes an activation has at most that is broken into lines.
const maxBroken = 256

// activationAtStart returns the activation that the value of a parameter begins
// with, or "".
func activationAtStart(value string) string {
	value = strings.TrimLeftFunc(value, func(r rune) bool { return !strings.ContainsRune(activationAlphabet, r) })
	value = value[:min(len(value), maxBroken)] // a query may have hundreds of values that end where it ends
	word := leadingWord(value)
	if len(word) < activationLength {
		word = leadingWord(lineBreak.ReplaceAllLiteralString(value, ""))
	}
	// No activation ends in one of these, while markup does.
	if len(word) > activationLength {
		word = strings.TrimRight(word, "-_")
	}
	// "=" in quoted-printable.
	if len(word) == activationLength+2 && strings.EqualFold(word[:2], "3D") {
		word = word[2:]
	}
	if len(word) != activationLength {
		return ""
	}
	return word
}

func leadingWord(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, activationAlphabet))]
}

// linkText undoes what encodes a query, and removes what cannot be seen.
func linkText(query string) string {
	text := query[:min(len(query), maxLinkQuery)]
	for range 3 {
		decoded := html.UnescapeString(percentDecoded(text))
		if decoded == text {
			break
		}
		text = decoded
	}
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.In(r, unicode.Cf, unicode.Variation_Selector), r == '\u034f':
			return -1 // soft hyphens, zero-width spaces, marks of direction
		case r == '\u2010', r == '\u2011': // typographic hyphens
			return '-'
		case unicode.IsSpace(r):
			return ' '
		}
		return r
	}, text)
}

// percentDecoded is url.QueryUnescape without an error: a "%" that begins no
// escape stays, and so does "+".
func percentDecoded(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			b.WriteByte(fromHex(s[i+1])<<4 | fromHex(s[i+2]))
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func fromHex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// mendLink returns the path of a link whose "?" was encoded or that has a slash
// behind the path, and the request with the whole query.
func mendLink(path string, r *http.Request) (string, *http.Request) {
	route, query := path, ""
	if i := strings.IndexAny(path, "?&"); i >= 0 {
		route, query = path[:i], path[i+1:]
	}
	route = strings.TrimSuffix(route, "/")
	if route == path || route != "/reset" && route != "/revoke" {
		return path, r
	}
	if query != "" {
		r = r.Clone(r.Context())
		r.URL.RawQuery = query + "&" + r.URL.RawQuery
	}
	return route, r
}
