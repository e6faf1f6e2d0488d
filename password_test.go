package reset_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gopassreset/reset"
)

func TestContractPasswords(t *testing.T) {
	h := newHost(ann)
	f := newTrusted(t, h, func(c *reset.Config) {
		c.CheckPassword = func(_ context.Context, u reset.User, password string) error {
			if u.ID != ann.ID {
				t.Errorf("CheckPassword was asked for user %q", u.ID)
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
		var refused *reset.PasswordError
		err := f.svc.ChangePassword(t.Context(), activation, tt.password)
		if !errors.As(err, &refused) || refused.Reason != tt.reason {
			t.Errorf("ChangePassword to %.30q: got %v, want a *PasswordError for %s", tt.password, err, tt.reason)
		}
		if len(tt.password) < 1000 && tt.reason != "invalid" { // which JSON cannot say
			wantAnswer(t, f.post(newPath, newPassword(activation, tt.password)), 400, badRequestBody)
		}
	}
	if _, hashes, sets := h.calls(); hashes+sets > 0 {
		t.Errorf("a refused password was hashed %d times and set %d times", hashes, sets)
	}
	wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 200, okBody)

	for _, password := range []string{
		"xk7-vq2!", "  xk7 vq2  ", "\txk7-vq2\r\n", "🦉🦔🦊🦡🐺🦌🐗🦅", "éèêëāēīō", "e\u0301 stays two", "\ufffd xk7-vq2", "\u202exk7-vq2",
		strings.Repeat("nine grey ", 25) + "herons",
		strings.Repeat("🦉🦔🦊🦡🐺", 51) + "x", // 256 code points, 1,021 bytes
		strings.Repeat("nine grey ", 6) + "herons",
		`<script>"'&\`, "{{.Email}} %s", "'; DROP TABLE users; --",
	} {
		wantAnswer(t, f.post(newPath, newPassword(f.activation(ann), password)), 200, okBody)
		if got := h.password(ann.ID); got != password {
			t.Errorf("got password %q, want %q", got, password)
		}
	}
}

func TestMinPassword(t *testing.T) {
	f := newTrusted(t, newHost(ann), func(c *reset.Config) { c.MinPassword = 15 })
	activation := f.activation(ann)
	wantAnswer(t, f.post(newPath, newPassword(activation, "grey herons 14")), 400, badRequestBody)
	wantAnswer(t, f.post(newPath, newPassword(activation, "grey herons: 15")), 200, okBody)
}
