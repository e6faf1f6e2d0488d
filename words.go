package reset

import (
	"strings"
	"unicode"
)

const maxRefusal = 500 // bytes

// A refusal is an error of the Mailer. Mail systems do repeat what they were sent:
// it says nothing that repeats the link.
type refusal struct {
	error
	words    string // for the history: one line
	withheld bool
}

func (r *refusal) Error() string {
	if r.withheld {
		return r.words
	}
	return r.error.Error()
}

func (r *refusal) Unwrap() error { return r.error }

func quoteRefusal(err error, msg Message) *refusal {
	words := strings.Join(strings.FieldsFunc(strings.ToValidUTF8(err.Error(), "\uFFFD"), func(r rune) bool {
		return r == ' ' || !unicode.IsPrint(r)
	}), " ")
	_, activation, _ := strings.Cut(msg.Link, "activation=")
	for i := 0; i+minSecret <= len(activation); i++ {
		if strings.Contains(words, activation[i:i+minSecret]) {
			return &refusal{err, "(withheld: it repeats the link)", true}
		}
	}
	if len(words) > maxRefusal {
		words = strings.ToValidUTF8(words[:maxRefusal-3], "") + "…"
	}
	return &refusal{err, words, false}
}

const minSecret = 8 // characters of an activation that are not shown
