package reset_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

// attrsOf returns the attributes of the records of an event, except the
// time and what every record has.
func (f *fixture) attrsOf(event string) (list []map[string]any) {
	f.LogCounts()
	for _, record := range f.log.named(event) {
		for _, key := range []string{"time", "level", "msg", "event"} {
			delete(record, key)
		}
		list = append(list, record)
	}
	return list
}

// wantRecords checks the records of an event.
func (f *fixture) wantRecords(event string, want ...map[string]any) {
	f.t.Helper()
	got := f.attrsOf(event)
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !maps.Equal(got[i], want[i]) {
			f.t.Errorf("records of %s:\n%v, want\n%v", event, got, want)
			return
		}
	}
}

func TestWrongKeys(t *testing.T) {
	const challenge = `Www-Authenticate: Bearer realm="reset"`
	inBubble(t, nil, func(t *testing.T, fix *fixture) {
		f := &trusted{fix, fix.Handler()}
		send := func(client, key string) *httptest.ResponseRecorder {
			r := forNobody()
			r.RemoteAddr = client + ":4711"
			r.Header.Set("Authorization", key)
			return f.do(r)
		}
		for range 60 {
			wantAnswer(t, send("192.0.2.1", "wrong"), 401, unauthorizedBody, challenge)
		}
		for range 10 {
			wantAnswer(t, send("192.0.2.1", "wrong"), 429, tooManyBody, "Retry-After: 1")
		}
		wantAnswer(t, send("192.0.2.1", apiKey), 200, okBody)
		wantAnswer(t, send("192.0.2.2", "wrong"), 401, unauthorizedBody, challenge)
		pass(time.Second)
		wantAnswer(t, send("192.0.2.1", "wrong"), 401, unauthorizedBody, challenge)

		f.wantRecords("key_refused",
			map[string]any{"client": "192.0.2.1", "count": 1.},
			map[string]any{"client": "192.0.2.2", "count": 1.},
			map[string]any{"client": "192.0.2.1", "count": 60.})
		f.wantRecords("client_limited",
			map[string]any{"client": "192.0.2.1", "limiter": "wrong keys", "count": 1.},
			map[string]any{"client": "192.0.2.1", "limiter": "wrong keys", "count": 9.})
	})
}

// After wrong activations a right one from the same client still works.
func TestWrongActivations(t *testing.T) {
	const wrong = "AAAAAAAAAAAAAAAAAAAAAAAA"
	for _, tt := range []struct {
		name   string
		send   func(f *fixture, activation string) *httptest.ResponseRecorder
		status int // of a wrong activation
		right  int
	}{
		{"trusted", func(f *fixture, a string) *httptest.ResponseRecorder {
			return (&trusted{f, f.Handler()}).post(newPath, newPassword(a, goodPassword))
		}, 400, 200},
		{"JSON", func(f *fixture, a string) *httptest.ResponseRecorder {
			return pagesOf(f).call("/reset", `{"activation":"`+a+`","newPassword":"`+goodPassword+`"}`)
		}, 400, 200},
		{"revoke", func(f *fixture, a string) *httptest.ResponseRecorder {
			return pagesOf(f).call("/revoke", `{"activation":"`+a+`"}`)
		}, 400, 200},
		{"link", func(f *fixture, a string) *httptest.ResponseRecorder {
			return pagesOf(f).get("/reset?activation=" + a)
		}, 303, 303},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, f *fixture) {
				activation := f.activation(ann)
				for range 60 {
					if w := tt.send(f, wrong); w.Code != tt.status {
						t.Fatalf("a wrong activation: %d", w.Code)
					}
				}
				if w := tt.send(f, wrong); w.Code != 429 || w.Header().Get("Retry-After") != "1" {
					t.Errorf("a wrong activation too many: %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
				}
				if w := tt.send(f, activation); w.Code != tt.right {
					t.Errorf("a right activation: %d %s", w.Code, w.Body)
				}
				f.wantEvent("activation_refused", 60)
				f.wantEvent("client_limited", 1)
			})
		})
	}
}

func pagesOf(f *fixture) *browser {
	return &browser{&trusted{f, http.StripPrefix("/account", f.Pages())}, make(map[string]string)}
}

// The operator sees why an activation is refused. The client does not.
func TestRefusedActivations(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, fix *fixture) {
		f := &trusted{fix, fix.Handler()}
		var want []map[string]any
		refused := func(activation, reason string) {
			t.Helper()
			wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 400, badRequestBody)
			want = append(want, map[string]any{"client": "192.0.2.1", "key": 0., "reason": reason, "count": 1.})
		}
		refused("AAAAAAAAAAAAAAAAAAAAAAAA", "unknown")
		f.post(newPath, newPassword("too short", goodPassword)) // guesses nothing

		expired := f.activation(ann)
		pass(61 * time.Minute)
		refused(expired, "expired")

		redeemed := f.activation(ann)
		wantAnswer(t, f.post(newPath, newPassword(redeemed, goodPassword)), 200, okBody)
		refused(redeemed, "redeemed")

		revoked := f.activation(ann)
		if w := pagesOf(fix).call("/revoke", `{"activation":"`+revoked+`"}`); w.Code != 200 {
			t.Fatalf("revoke: %d", w.Code)
		}
		refused(revoked, "revoked")

		orphan := f.activation(bob)
		f.host.remove(bob.Email)
		refused(orphan, "user_gone")
		f.wantRecords("activation_refused", want...)
	})
}

// A browser on a page of another origin is refused, and reported.
func TestRefusedOrigins(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		b := pagesOf(f)
		form := formRequest("/forgot", "email", ann.Email)
		form.Header.Set("Origin", "https://evil.example:8443")
		form.Header.Set("Sec-Fetch-Site", "cross-site")
		if w := b.send(form); w.Code != 403 {
			t.Errorf("a form: %d", w.Code)
		}
		opaque := formRequest("/forgot", "email", ann.Email)
		opaque.Header.Set("Origin", "null")
		opaque.Header.Set("Sec-Fetch-Site", "cross-site")
		if w := b.send(opaque); w.Code != 403 {
			t.Errorf("a form of an opaque origin: %d", w.Code)
		}
		long := strings.Repeat("x", 300)
		r := forNobody()
		r.Header.Set("Origin", "https://"+long)
		if w := (&trusted{f, f.Handler()}).do(r); w.Code != 403 {
			t.Errorf("a browser with a key: %d", w.Code)
		}
		f.wantRecords("foreign_post",
			map[string]any{"client": "192.0.2.1", "origin": "https://evil.example:8443", "base_url": baseURL, "count": 1.},
			map[string]any{"client": "192.0.2.1", "origin": "null", "base_url": baseURL, "count": 1.},
			map[string]any{"client": "192.0.2.1", "key": 0., "origin": ("https://" + long)[:200], "base_url": baseURL, "count": 1.})
	})
}

// Every request is reported with who made it, and never with an address.
func TestRequestEvents(t *testing.T) {
	const second = "second-key-0123456789abcdef01234"
	inBubble(t, func(c *reset.Config) { c.APIKeys = append(c.APIKeys, second) }, func(t *testing.T, f *fixture) {
		handler := &trusted{f, f.Handler()}
		handler.post(resetPath, `{"email":"ann@example.com"}`)
		handler.post(resetPath, `{"email":"nobody@example.com"}`)
		r := postJSON(resetPath, `{"email":"bob@example.com"}`)
		r.Header.Set("Authorization", "Bearer "+second)
		handler.do(r)
		f.request(ann.Email)
		pagesOf(f).submit("/forgot", "email", "nobody@example.com")
		handler.post(resetPath, `{"email":"ann@example.com","maxRequests":1}`)
		f.wantRecords("trusted_request",
			map[string]any{"client": "192.0.2.1", "key": 0., "user": ann.ID, "count": 1.},
			map[string]any{"client": "192.0.2.1", "key": 0., "count": 1.},
			map[string]any{"client": "192.0.2.1", "key": 1., "user": bob.ID, "count": 1.},
			map[string]any{"user": ann.ID, "count": 1.})
		f.wantRecords("public_request", map[string]any{"client": "192.0.2.1", "count": 1.})
		f.wantRecords("over_cap", map[string]any{"client": "192.0.2.1", "key": 0., "user": ann.ID, "count": 1.})
	})
}
