package reset

import (
	"strings"
	"unicode"
)

const maxRefusal = 500 // bytes

// A refusal is an error of the Mailer.
type refusal struct {
	error
	words string // for the history
}

func (r *refusal) Unwrap() error { return r.error }

// quoteRefusal makes one line of an error. Mail systems do repeat what they were
// sent.
func quoteRefusal(err error, msg Message) string {
	words := strings.Join(strings.FieldsFunc(strings.ToValidUTF8(err.Error(), "\uFFFD"), func(r rune) bool {
		return r == ' ' || !unicode.IsPrint(r)
	}), " ")
	_, activation, _ := strings.Cut(msg.Link, "activation=")
	for i := 0; i+minSecret <= len(activation); i++ {
		if strings.Contains(words, activation[i:i+minSecret]) {
			return "(withheld: it repeats the link)"
		}
	}
	if len(words) > maxRefusal {
		words = strings.ToValidUTF8(words[:maxRefusal-3], "") + "…"
	}
	return words
}

const minSecret = 8 // characters of an activation that are not shown
