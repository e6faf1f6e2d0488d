package reset

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
)

// The limits of a password. The upper ones bound the work of hashing it; NIST
// SP 800-63B-4, 3.1.1.2, asks for a maximum of at least 64 characters.
const (
	maxPasswordRunes = 256
	maxPasswordBytes = 1024
)

// A PasswordError tells why a password was refused. The activation stays live.
type PasswordError struct {
	// Reason is a word for programs: "too_short", "too_long", "common",
	// "address" (it is the user's own address), "invalid" (not UTF-8, or with a
	// NUL), or what Config.CheckPassword chose.
	Reason string
	// Message is a sentence for the person who chose the password. It is shown
	// as it is; "" for the built-in reasons, which the pages word themselves.
	Message string
}

func (e *PasswordError) Error() string {
	if e.Message != "" {
		return fmt.Sprintf("reset: password refused: %s: %s", e.Reason, e.Message)
	}
	return "reset: password refused: " + e.Reason
}

// checkPassword applies the built-in rules. Passwords are not changed in any
// way: spaces and every printable or unprintable character except NUL count.
func checkPassword(u User, password string, minRunes int) error {
	if !utf8.ValidString(password) || strings.ContainsRune(password, 0) {
		return &PasswordError{Reason: "invalid"}
	}
	n := utf8.RuneCountInString(password)
	switch {
	case n < minRunes:
		return &PasswordError{Reason: "too_short"}
	case n > maxPasswordRunes || len(password) > maxPasswordBytes:
		return &PasswordError{Reason: "too_long"}
	case isAddress(password, u.Email):
		return &PasswordError{Reason: "address"}
	case isCommon(password):
		return &PasswordError{Reason: "common"}
	}
	return nil
}

func isAddress(password, address string) bool {
	local, _, _ := strings.Cut(address, "@")
	return strings.EqualFold(password, address) || strings.EqualFold(password, local)
}

//go:embed common_passwords.txt
var commonPasswords string

var commonSet = sync.OnceValue(func() map[string]bool {
	set := make(map[string]bool)
	for line := range strings.Lines(commonPasswords) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			set[line] = true
		}
	}
	return set
})

// isCommon reports whether a password is among the first that anyone would
// try: one of a list, a list's entry with digits or punctuation behind it, a
// short piece repeated, or a run along the alphabet, the digits or a keyboard.
func isCommon(password string) bool {
	p := strings.ToLower(password)
	if commonSet()[p] || commonSet()[strings.TrimRight(p, "0123456789!.?*#@$-_ ")] {
		return true
	}
	return isRepeated(p) || isRun(p)
}

// isRepeated reports whether p is one piece of at most four bytes over and over.
func isRepeated(p string) bool {
	for n := 1; n <= 4 && 2*n <= len(p); n++ {
		if p[n:] == p[:len(p)-n] {
			return true
		}
	}
	return false
}

// isRun reports whether p runs along one of a few well-known rows.
func isRun(p string) bool {
	for _, row := range []string{
		"01234567890123456789", "98765432109876543210",
		"abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba",
		"qwertyuiop[]", "qwertzuiop", "azertyuiop", "asdfghjkl;'", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.", "q1w2e3r4t5y6u7i8o9p0",
	} {
		if len(p) >= 4 && strings.Contains(row, p) {
			return true
		}
	}
	return false
}
