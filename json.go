package reset

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// encoding/json's Unmarshal matches member names by Unicode case folding, takes
// the last of duplicate members and replaces what is not UTF-8, and its tokens
// cost an allocation each. Strangers' JSON is read here instead, strictly
// (RFC 8259), and without work for what no member of ours can be.

var errJSON = errors.New("reset: not the JSON that was expected")

// maxDepth is how deep objects and arrays may nest, the outermost included.
const maxDepth = 8

// members returns the members of the one JSON object that body consists of.
// Strings are unquoted, numbers are json.Number, booleans bool; null, objects
// and arrays are values that no member of ours has.
func members(body []byte) (map[string]any, error) {
	if !utf8.Valid(body) {
		return nil, errJSON
	}
	r := &jsonReader{body: body}
	r.blanks()
	m := make(map[string]any)
	if !r.eat('{') || !r.object(1, m) {
		return nil, errJSON
	}
	if r.blanks(); r.at < len(body) {
		return nil, errJSON
	}
	return m, nil
}

// A jsonReader reads UTF-8. Its methods report whether they have read what they
// are named after.
type jsonReader struct {
	body []byte
	at   int
}

// other stands for null, an object or an array.
type other struct{}

// object reads what follows a '{', into m.
func (r *jsonReader) object(depth int, m map[string]any) bool {
	if r.blanks(); r.eat('}') {
		return true
	}
	for {
		r.blanks()
		name, ok := r.text()
		if _, twice := m[name]; !ok || twice {
			return false
		}
		r.blanks()
		if !r.eat(':') {
			return false
		}
		if m[name], ok = r.value(depth); !ok {
			return false
		}
		if r.eat('}') {
			return true
		}
		if !r.eat(',') {
			return false
		}
	}
}

// array reads what follows a '['.
func (r *jsonReader) array(depth int) bool {
	if r.blanks(); r.eat(']') {
		return true
	}
	for {
		if _, ok := r.value(depth); !ok {
			return false
		}
		if r.eat(']') {
			return true
		}
		if !r.eat(',') {
			return false
		}
	}
}

// value reads a value inside an object or array at a depth, and the blanks
// around it. Only the values of members are worth keeping.
func (r *jsonReader) value(depth int) (v any, ok bool) {
	r.blanks()
	switch c := r.peek(); {
	case c == '{' || c == '[':
		r.at++
		v, ok = other{}, depth < maxDepth
		if ok && c == '{' {
			ok = r.object(depth+1, make(map[string]any))
		} else if ok {
			ok = r.array(depth + 1)
		}
	case c == '"':
		v, ok = r.text()
	case r.word("true"):
		v, ok = true, true
	case r.word("false"):
		v, ok = false, true
	case r.word("null"):
		v, ok = other{}, true
	default:
		start := r.at
		v, ok = other{}, r.number()
		if depth == 1 {
			v = json.Number(r.body[start:r.at])
		}
	}
	r.blanks()
	return v, ok
}

// text reads a string. It refuses a NUL, which not every database can hold, and
// half of a surrogate pair.
func (r *jsonReader) text() (s string, ok bool) {
	if !r.eat('"') {
		return "", false
	}
	var unescaped []byte
	start := r.at
	for {
		switch c := r.peek(); {
		case c < ' ': // or the end of the body
			return "", false
		case c == '"':
			s := append(unescaped, r.body[start:r.at]...)
			r.at++
			return string(s), true
		case c == '\\':
			unescaped = append(unescaped, r.body[start:r.at]...)
			r.at++
			char, ok := r.escaped()
			if !ok {
				return "", false
			}
			unescaped = utf8.AppendRune(unescaped, char)
			start = r.at
		default:
			r.at++
		}
	}
}

// escaped reads what follows a backslash.
func (r *jsonReader) escaped() (char rune, ok bool) {
	if r.eat('u') {
		char, ok = r.hex()
		if utf16.IsSurrogate(char) {
			low := rune(-1)
			if r.word(`\u`) {
				low, _ = r.hex()
			}
			char = utf16.DecodeRune(char, low)
			ok = char != utf8.RuneError
		}
		return char, ok && char != 0
	}
	i := strings.IndexByte(`"\/bfnrt`, r.peek())
	if i < 0 {
		return 0, false
	}
	r.at++
	return rune("\"\\/\b\f\n\r\t"[i]), true
}

// hex reads four hexadecimal digits.
func (r *jsonReader) hex() (char rune, ok bool) {
	if len(r.body)-r.at < 4 {
		return 0, false
	}
	for _, c := range r.body[r.at : r.at+4] {
		if !isHex(c) {
			return 0, false
		}
		char = char<<4 | rune(fromHex(c))
	}
	r.at += 4
	return char, true
}

func (r *jsonReader) number() bool {
	r.eat('-')
	if !r.eat('0') && !r.digits() {
		return false
	}
	if r.eat('.') && !r.digits() {
		return false
	}
	if r.eat('e') || r.eat('E') {
		if !r.eat('+') {
			r.eat('-')
		}
		return r.digits()
	}
	return true
}

// digits reads at least one.
func (r *jsonReader) digits() bool {
	start := r.at
	for '0' <= r.peek() && r.peek() <= '9' {
		r.at++
	}
	return r.at > start
}

func (r *jsonReader) blanks() {
	for c := r.peek(); c == ' ' || c == '\t' || c == '\n' || c == '\r'; c = r.peek() {
		r.at++
	}
}

// peek returns the next byte, or 0 at the end, which no JSON has.
func (r *jsonReader) peek() byte {
	if r.at < len(r.body) {
		return r.body[r.at]
	}
	return 0
}

func (r *jsonReader) eat(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.at++
	return true
}

func (r *jsonReader) word(w string) bool {
	if !bytes.HasPrefix(r.body[r.at:], []byte(w)) {
		return false
	}
	r.at += len(w)
	return true
}

// stringMember returns a member that must be there and be a string. The errors
// of it and its like wrap ErrBadRequest.
func stringMember(m map[string]any, name string) (string, error) {
	s, ok := m[name].(string)
	if !ok {
		return "", badMember(name)
	}
	return s, nil
}

// intMember returns a member that is an integer literal of at least 1, or 0 if
// it is absent.
func intMember(m map[string]any, name string) (int, error) {
	v, ok := m[name]
	if !ok {
		return 0, nil
	}
	literal, ok := v.(json.Number)
	if !ok {
		return 0, badMember(name)
	}
	n, err := strconv.ParseInt(string(literal), 10, 64)
	if err != nil || n < 1 || n > math.MaxInt32 {
		return 0, badMember(name)
	}
	return int(n), nil
}

// boolMember returns a member that is a boolean, or false if it is absent.
func boolMember(m map[string]any, name string) (bool, error) {
	v, ok := m[name]
	if !ok {
		return false, nil
	}
	b, ok := v.(bool)
	if !ok {
		return false, badMember(name)
	}
	return b, nil
}

func badMember(name string) error { return &badRequestError{name, errJSON} }
