package reset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// encoding/json's Unmarshal matches member names by Unicode case folding, takes
// the last of duplicate members and replaces what is not UTF-8. Of strangers'
// JSON none of that is wanted, so its tokens are walked instead. (The v2 code
// is strict, but a host that has another version of it might not build.)

var errJSON = errors.New("not the JSON that was expected")

// members returns the members of the one JSON object that body consists of.
// Strings are unquoted, numbers are json.Number, booleans bool; null, objects
// and arrays are values that no member of ours has.
func members(body []byte) (map[string]any, error) {
	if !utf8.Valid(body) {
		return nil, errJSON
	}
	w := &walker{body: body, dec: json.NewDecoder(bytes.NewReader(body))}
	w.dec.UseNumber()
	t, err := w.token()
	if err != nil || t != json.Delim('{') {
		return nil, errJSON
	}
	m, err := w.object()
	if err != nil {
		return nil, errJSON
	}
	if _, err := w.dec.Token(); err != io.EOF {
		return nil, errJSON
	}
	return m, nil
}

type walker struct {
	body []byte
	dec  *json.Decoder
}

// nested stands for an object or an array.
type nested struct{}

// object reads what follows a '{'.
func (w *walker) object() (map[string]any, error) {
	m := make(map[string]any)
	for w.dec.More() {
		t, err := w.token()
		if err != nil {
			return nil, err
		}
		name := t.(string) // the decoder lets nothing else pass
		if _, twice := m[name]; twice {
			return nil, errJSON
		}
		if m[name], err = w.value(); err != nil {
			return nil, err
		}
	}
	_, err := w.token()
	return m, err
}

func (w *walker) value() (any, error) {
	t, err := w.token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		_, err = w.object()
		return nested{}, err
	case json.Delim('['):
		for w.dec.More() {
			if _, err := w.value(); err != nil {
				return nil, err
			}
		}
		_, err = w.token()
		return nested{}, err
	}
	return t, nil
}

// token reads one token. It refuses strings with a NUL, which not every
// database can hold, or with an escape that the decoder would replace: half of
// a surrogate pair.
func (w *walker) token() (json.Token, error) {
	start := w.dec.InputOffset()
	t, err := w.dec.Token()
	if err != nil {
		return nil, err
	}
	s, ok := t.(string)
	if !ok {
		return t, nil
	}
	if strings.ContainsRune(s, 0) {
		return nil, errJSON
	}
	// Each U+FFFD in the string must have been one in the body.
	raw := w.body[start:w.dec.InputOffset()]
	if n := strings.Count(s, replacement); n > 0 && n != bytes.Count(raw, []byte(replacement))+countEscapedReplacements(raw) {
		return nil, errJSON
	}
	return t, nil
}

const replacement = string(utf8.RuneError)

// countEscapedReplacements counts the escapes \ufffd in a JSON string.
func countEscapedReplacements(raw []byte) (n int) {
	for i := 0; i < len(raw)-1; i++ {
		if raw[i] != '\\' {
			continue
		}
		if i++; raw[i] == 'u' && i+4 < len(raw) && bytes.EqualFold(raw[i+1:i+5], []byte("fffd")) {
			n++
		}
	}
	return n
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

func badMember(name string) error { return fmt.Errorf("%w: %s: %w", ErrBadRequest, name, errJSON) }
