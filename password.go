package reset

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/gopassreset/reset/internal/guess"
)

const (
	// The upper limits of a password's length bound the work of hashing it.
	maxPasswordRunes = 256
	maxPasswordBytes = maxPasswordRunes * utf8.UTFMax // so that by default characters alone count
	// NIST SP 800-63B-4, 3.1.1.2, asks for a maximum of at least 64 characters.
	minPasswordLimit = 64

	// minGuesses is how many guesses a password must withstand. An attacker who
	// makes one every second needs four months for them.
	minGuesses = 10_000_000
)

// A PasswordError is returned for a password that was refused. The activation
// stays live.
type PasswordError struct {
	// Reason is for programs: "too_short"; "too_long" (more than 256 code points
	// or Config.MaxPasswordBytes); "common" (easy to guess: a common password or word, a
	// repeat, a run of keys, a date, or the name of the service or of the user,
	// also varied or combined); "address" (the user's own); "invalid" (not UTF-8,
	// or with a NUL); or what Config.CheckPassword or Users.HashPassword chose.
	Reason string
	// Message is a sentence for the user, shown as it is. It is "" for the
	// built-in reasons, which the pages explain in the reader's language.
	Message string
}

func (e *PasswordError) Error() string {
	if e.Message != "" {
		return fmt.Sprintf("reset: password refused: %s: %s", e.Reason, e.Message)
	}
	return "reset: password refused: " + e.Reason
}

// checkPassword applies the built-in rules. service are names of the service. A
// password is not changed in any way: spaces count, and so does every character
// except NUL.
func checkPassword(u User, password string, minRunes, maxBytes int, service ...string) error {
	if !utf8.ValidString(password) || strings.ContainsRune(password, 0) {
		return &PasswordError{Reason: "invalid"}
	}
	n := utf8.RuneCountInString(password)
	local, domain, _ := strings.Cut(u.Email, "@")
	hints := append([]string{u.Name, local, withoutTopLevel(domain)}, service...)
	switch {
	case n < minRunes:
		return &PasswordError{Reason: "too_short"}
	case n > maxPasswordRunes || len(password) > maxBytes:
		return &PasswordError{Reason: "too_long"}
	case strings.EqualFold(password, u.Email), strings.EqualFold(password, local):
		return &PasswordError{Reason: "address"}
	case guess.Guesses(password, hints...) < minGuesses:
		return &PasswordError{Reason: "common"}
	}
	return nil
}

// withoutTopLevel returns a domain without its last label, which is no name.
func withoutTopLevel(domain string) string {
	return domain[:max(0, strings.LastIndexByte(domain, '.'))]
}
