package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/gopassreset/reset"
)

// bcryptUsers is users of a host that hashes with bcrypt.
type bcryptUsers struct{ *users }

func (bcryptUsers) HashPassword(_ context.Context, password string) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if errors.Is(err, bcrypt.ErrPasswordTooLong) {
		return "", &reset.PasswordError{Reason: "too_long", Message: "Please choose a password of at most 72 bytes."}
	}
	return string(hash), err
}

// A password that bcrypt cannot hash is refused, and not a failure.
func TestBcrypt(t *testing.T) {
	var u reset.Users = bcryptUsers{}
	hash, err := u.HashPassword(t.Context(), strings.Repeat("é", 36))
	if err != nil || bcrypt.CompareHashAndPassword([]byte(hash), []byte(strings.Repeat("é", 36))) != nil {
		t.Errorf("72 bytes: got %q, %v, want a hash", hash, err)
	}
	_, err = u.HashPassword(t.Context(), strings.Repeat("é", 36)+"!")
	if refused := (*reset.PasswordError)(nil); !errors.As(err, &refused) || refused.Reason != "too_long" {
		t.Errorf("73 bytes: got %v, want a *PasswordError", err)
	}
}
