package reset_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gopassreset/reset"
)

func TestPasswords(t *testing.T) {
	f := newFixture(t, newHost(ann), func(c *reset.Config) {
		c.CheckPassword = func(_ context.Context, u reset.User, password string) error {
			if u != ann {
				t.Errorf("CheckPassword got user %v", u)
			}
			if password == "breached password" {
				return fmt.Errorf("wrapped: %w", &reset.PasswordError{Reason: "breached"})
			}
			return nil
		}
	})
	activation := f.activation(ann)
	for _, tt := range []struct{ password, reason string }{
		{"", "too_short"},
		{"xk7-vq2", "too_short"},
		{"éèêëāēī", "too_short"},                                   // 14 bytes
		{strings.Repeat("nine grey ", 25) + "herons!", "too_long"}, // 257
		{strings.Repeat("🦉🦔", 128) + "x", "too_long"},
		{strings.Repeat("x7 ", 10_000), "too_long"},
		{"password", "common"},
		{"PassWord123!", "common"},
		{"12345678", "common"},
		{"aaaaaaaaaa", "common"},
		{"ann@example.com", "address"},
		{"ANN@Example.com", "address"},
		{"nine grey\xffherons", "invalid"},
		{"nine grey\x00herons", "invalid"},
		{"breached password", "breached"},
	} {
		err := f.ChangePassword(t.Context(), activation, tt.password)
		var refused *reset.PasswordError
		if !errors.As(err, &refused) || refused.Reason != tt.reason {
			t.Errorf("%.30q: %v, want a *PasswordError for %s", tt.password, err, tt.reason)
		}
	}
	if _, hashes, _ := f.host.calls(); hashes > 0 {
		t.Errorf("%d refused passwords were hashed", hashes)
	}
	for _, password := range []string{
		"xk7-vq2!", "  xk7 vq2  ", "\txk7-vq2\r\n", "🦉🦔🦊🦡🐺🦌🐗🦅", "éèêëāēīō", "e\u0301 stays two", "\ufffd xk7-vq2", "\u202exk7-vq2",
		strings.Repeat("nine grey ", 25) + "herons",
		strings.Repeat("🦉🦔🦊🦡🐺", 51) + "x", // 256 code points, 1,021 bytes
		`<script>"'&\`, "{{.Email}} %s", "'; DROP TABLE users; --",
	} {
		if err := f.ChangePassword(t.Context(), activation, password); err != nil {
			t.Errorf("%q: %v", password, err)
		}
		f.wantPassword(ann, password)
		activation = f.activation(ann)
	}
}

func TestMinPassword(t *testing.T) {
	f := newFixture(t, newHost(ann), func(c *reset.Config) { c.MinPassword = 15 })
	activation := f.activation(ann)
	if err := f.ChangePassword(t.Context(), activation, "grey herons 14"); err == nil {
		t.Error("14 characters are accepted")
	}
	if err := f.ChangePassword(t.Context(), activation, "grey herons: 15"); err != nil {
		t.Errorf("15 characters: %v", err)
	}
}

// Names of the service and of the user are easy to guess, whatever decorates
// them.
func TestPasswordNames(t *testing.T) {
	user := reset.User{ID: "3", Email: "r.feldhaus84@lighthill.example", Name: "Ronja Wójcicka"}
	f := newFixture(t, newHost(user), func(c *reset.Config) {
		c.Brand.Name, c.BaseURL = "Harbour & Sons", "https://reset.quayside.example/account"
	})
	activation := f.activation(user)
	for _, password := range []string{
		"Harbour2026", "HARBOUR-SONS", "harboursons!", "Quayside99!", "quaysidequayside", "Lighthill2026",
		"Wojcicka1984", "RonjaWójcicka", "ajnor.ajnor!", "feldhaus1", "rfeldhaus84!", "Feldhaus-Harbour",
	} {
		err := f.ChangePassword(t.Context(), activation, password)
		var refused *reset.PasswordError
		if !errors.As(err, &refused) || refused.Reason != "common" {
			t.Errorf("%q: %v, want a *PasswordError for common", password, err)
		}
	}
	const unrelated = "Ahlenburg1984"
	if err := f.ChangePassword(t.Context(), activation, unrelated); err != nil {
		t.Errorf("%q: %v", unrelated, err)
	}
}
