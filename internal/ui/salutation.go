package ui

import (
	"regexp"
	"unicode"
	"unicode/utf8"
)

const (
	maxName       = 50 // code points
	maxNameDigits = 4  // fewer than a telephone number has
)

// linkLike matches what mail programs may turn into a link.
var linkLike = regexp.MustCompile(`[/\\@:<>]|(?i:www\.)|[\pL\pN][.。．｡]\pL{2}`)

// Salutation returns a user's name for the salutation of a mail, or "" if it may
// be something else. Anybody can sign up with another person's address and put
// a message into the name, which that person would then read in a mail from a
// trusted sender.
func Salutation(name string) string {
	name = cleanLine(name)
	digits := 0
	for _, r := range name {
		if unicode.IsDigit(r) {
			digits++
		}
	}
	if utf8.RuneCountInString(name) > maxName || digits > maxNameDigits || linkLike.MatchString(name) {
		return ""
	}
	return name
}
