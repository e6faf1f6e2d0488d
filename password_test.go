package reset_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
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

// A longer password is refused at each door, in words that say what fits. It is
// neither cut off nor hashed, and the link stays live.
func TestMaxPasswordBytes(t *testing.T) {
	b := newBrowser(t, newHost(ann), func(c *reset.Config) { c.MaxPasswordBytes = 72 })
	activation := b.activation(ann)
	check := b.open("/reset", activation)
	trusted := &trusted{b.fixture, b.Service.Handler()}
	fits := []string{
		strings.Repeat("grey herons ", 6),
		strings.Repeat("серые цапли ", 3) + "🦉xk", // 39 characters
	}
	for _, password := range fits {
		password += "!"
		w := b.choose(check, password)
		b.wantProblem(w, "choose", "password", say(t, "problem.password.too_long", "n", 72))
		b.wantProblem(w, "choose", "password", say(t, "choose.bytes"))
		for _, w := range []*httptest.ResponseRecorder{
			b.send(jsonRequest("/reset", `{"activation":"`+activation+`","newPassword":"`+password+`"}`)),
			trusted.post(newPath, newPassword(activation, password)),
		} {
			if w.Code != 400 || w.Header().Get("Reset-Reason") != "too_long" {
				t.Errorf("%d bytes: got %d %s %v, want 400 for too_long", len(password), w.Code, w.Body, w.Header())
			}
		}
	}
	if _, hashes, _ := b.host.calls(); hashes > 0 {
		t.Errorf("%d refused passwords were hashed", hashes)
	}
	r := httptest.NewRequest("GET", baseURL+"/reset", nil)
	r.Header.Set("Reset-Activation", activation)
	if body := b.do(r).Body.String(); !strings.HasSuffix(body, `"minPassword":8,"maxPassword":72,"maxPasswordBytes":72}`) {
		t.Errorf("GET /reset: got %s", body)
	}
	for _, password := range fits {
		b.wantRedirect(b.choose(b.open("/reset", b.activation(ann)), password), "/done")
		b.wantPassword(ann, password)
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
