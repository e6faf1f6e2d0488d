package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// The demo shows its mail to this machine only under a name of this machine.
func TestRebound(t *testing.T) {
	h, _ := start(t)
	for _, path := range []string{"/", "/demo/panels", "/demo/mail", "/inbox", "/login"} {
		for name, want := range map[string]bool{h.listener.Addr().String(): true, "localhost:8080": true, "[::1]:8080": true, "evil.example:8080": false, "": false} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.RemoteAddr, r.Host = "127.0.0.1:4711", name
			w := httptest.NewRecorder()
			h.server.Handler.ServeHTTP(w, r)
			if got := w.Code != http.StatusForbidden; got != want {
				t.Errorf("%s at %q: got %d", path, name, w.Code)
			}
		}
	}
}

// Over https every answer tells browsers to stay there, the library's too.
func TestStrictTransportSecurity(t *testing.T) {
	for base, want := range map[string]string{"https://harbour.example.com": "max-age=31536000", "http://localhost:8080": ""} {
		h, _ := start(t, "-url", base)
		for _, path := range []string{"/login", "/account/forgot", "/v1/auth/reset-password", "/nowhere"} {
			w := httptest.NewRecorder()
			h.server.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, base+path, nil))
			if got := w.Header().Get("Strict-Transport-Security"); got != want {
				t.Errorf("%s%s: got %q, want %q", base, path, got, want)
			}
		}
	}
}

// Password managers find where to change a password.
func TestChangePasswordURL(t *testing.T) {
	h, _ := start(t)
	b := newBrowser(t, h)
	if got := b.get("/.well-known/change-password"); got.status != 200 || got.path != "/login" {
		t.Errorf("a visitor gets %d at %s", got.status, got.path)
	}
	b.post("/login", "email", demoUsers[0].Email, "password", demoPassword)
	if got := b.get("/.well-known/change-password"); got.status != 200 || got.path != "/password" {
		t.Errorf("a user gets %d at %s", got.status, got.path)
	}
}
