package reset_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

// endsInRoute is where paths lead below a prefix that is a route, too.
var endsInRoute = map[string]string{
	"/reset": "→/forgot", "/reset/": "→/forgot", "/reset/forgot": "forgot", "/reset/reset": "reopen", "/reset/revoke": "reopen",
	"/reset/reset?activation=yQ3c0vTrS-4k9ZpX_1aBwGhE": "→/reset", "/reset/reset/?activation=yQ3c0vTrS-4k9ZpX_1aBwGhE": "→/reset",
}

// Pages answers below its mount, whether the host strips the prefix or not.
func TestPagesMount(t *testing.T) {
	for _, tt := range []struct {
		base, strip string
		paths       map[string]string // where they lead, or the heading's message
	}{
		{"https://app.example.com", "", map[string]string{"/": "→/forgot", "/forgot": "forgot", "/x/forgot": "notfound"}},
		{"https://app.example.com/", "", map[string]string{"/": "→/forgot"}},
		{"https://app.example.com//", "", map[string]string{"/": "→/forgot"}},
		{"https://app.example.com/account", "/account", map[string]string{"/account": "→/forgot", "/account/": "→/forgot", "/account/forgot": "forgot"}},
		{"https://app.example.com/account/", "", map[string]string{"/account": "→/forgot", "/account/": "→/forgot", "/account/forgot": "forgot", "/accounts/forgot": "notfound", "/account/account/forgot": "notfound"}},
		{"https://app.example.com/a/b/", "", map[string]string{"/a/b": "→/forgot", "/a/b/forgot": "forgot", "/a/forgot": "notfound"}},
		{"https://app.example.com/a%20b", "", map[string]string{"/a%20b/": "→/forgot", "/a%20b/forgot": "forgot"}},
		{"https://app.example.com/account", "/account/", map[string]string{"/account/": "→/forgot", "/account/forgot": "forgot", "/account/reset": "reopen", "/account/x": "notfound", "/account/reset/?activation=yQ3c0vTrS-4k9ZpX_1aBwGhE": "→/reset"}},
		{"https://app.example.com/account", "/acc", map[string]string{"/account": "→/forgot", "/account/forgot": "forgot", "/account/forgotten": "notfound"}},
		{"https://app.example.com/reset", "/reset", endsInRoute},
		{"https://app.example.com/reset", "", endsInRoute},
		{"https://app.example.com/forgot", "", map[string]string{"/forgot": "forgot", "/forgot/forgot": "forgot", "/forgot/reset": "reopen"}},
	} {
		for path, want := range tt.paths {
			f := newFixture(t, newHost(), func(c *reset.Config) { c.BaseURL = tt.base })
			h := http.StripPrefix(tt.strip, f.Pages())
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "https://app.example.com"+path, nil))
			to, leads := strings.CutPrefix(want, "→")
			switch {
			case leads && w.Result().Header.Get("Location") != strings.TrimRight(tt.base, "/")+to:
				t.Errorf("%s: %s leads to %q, want %s", tt.base, path, w.Result().Header.Get("Location"), to)
			case !leads && heading(w) != say(t, want+".title"):
				t.Errorf("%s: %s is %q, want %s", tt.base, path, heading(w), want)
			}
			if n := len(f.log.named("base_url_mismatch")); n > 0 && want != "notfound" {
				t.Errorf("%s: %s is taken for another prefix", tt.base, path)
			}
		}
	}
}

// A browser that visits the pages under another name of the same site is led to
// BaseURL, with the activation if it has one.
func TestPagesOtherName(t *testing.T) {
	const link = "/reset?activation=yQ3c0vTrS-4k9ZpX_1aBwGhE"
	for _, tt := range []struct{ base, visited, want string }{
		{"https://app.example.com/account", "https://www.app.example.com/account/forgot", "/forgot?moved=1"},
		{"https://www.example.com/account", "https://example.com/account/forgot", "/forgot?moved=1"},
		{"https://www.example.com/account", "https://EXAMPLE.com:443/account/forgot?lang=de", "/forgot?moved=1"},
		{"https://www.example.com/account", "https://www.example.com./account/forgot", "/forgot?moved=1"},
		{"https://www.example.com/account", "https://example.com/account" + link + ".", link + ".&moved=1"},
		{"http://localhost:8080/account", "http://127.0.0.1:8080/account/forgot", "/forgot?moved=1"},
		{"http://127.0.0.1:8080/account", "http://localhost:8080/account/reset", "/reset?moved=1"},
		{"http://127.0.0.1:8080/account", "http://[::1]:8080/account/sent", "/sent?moved=1"},
		{"http://127.0.0.1:8080/account", "http://app.localhost:8080/account/done", "/done?moved=1"},

		{"https://app.example.com/account", "https://APP.example.com:443/account/forgot", ""},
		{"https://app.example.com:8443/account", "https://www.app.example.com/account/forgot", ""},
		{"https://app.example.com/account", "https://evil.example/account/forgot", ""},
		{"https://app.example.com/account", "https://app.example.com.evil.example/account/forgot", ""},
		{"https://app.example.com/account", "https://wwwapp.example.com/account/forgot", ""},
		{"http://localhost:8080/account", "http://localhost:8081/account/forgot", ""},
		{"http://localhost:8080/account", "http://192.0.2.1:8080/account/forgot", ""},
	} {
		f := newFixture(t, newHost(), func(c *reset.Config) { c.BaseURL = tt.base })
		w := httptest.NewRecorder()
		f.Pages().ServeHTTP(w, httptest.NewRequest("GET", tt.visited, nil))
		want := tt.want
		if want != "" {
			want = tt.base + want
		}
		if got := w.Result().Header.Get("Location"); got != want {
			t.Errorf("%s visited as %s: leads to %q, want %q", tt.base, tt.visited, got, want)
		}
	}
}

// A proxy may change the host of requests. The redirect to BaseURL then ends
// after one round. A stranger who makes it look as if there were such a proxy
// takes the redirect from nobody else.
func TestPagesOtherNameByProxy(t *testing.T) {
	f := newFixture(t, newHost(), nil)
	pages := f.Pages()
	get := func(target, forwardedHost string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", target, nil)
		if forwardedHost != "" {
			r.Header.Set("X-Forwarded-Host", forwardedHost)
		}
		w := httptest.NewRecorder()
		pages.ServeHTTP(w, r)
		return w
	}
	const internal = "https://www.app.example.com/account/forgot"
	for _, host := range []string{"app.example.com", "app.example.com , proxy.internal"} { // each proxy may add one
		if w := get(internal, host); w.Code != 200 {
			t.Errorf("with X-Forwarded-Host %q: got %d", host, w.Code)
		}
	}
	if w := get(internal, ""); w.Code != 303 {
		t.Errorf("got %d, want a redirect", w.Code)
	}
	for range 2 {
		if w := get(internal+"?moved=1", ""); w.Code != 200 {
			t.Errorf("behind the redirect: got %d, want no loop", w.Code)
		}
		if w := get(internal, ""); w.Code != 303 {
			t.Errorf("without the mark, after that: got %d, want a redirect", w.Code)
		}
	}
	f.wantEvents(nil)
}

// Pages that are visited elsewhere than BaseURL says lead nowhere, which a
// record says once.
func TestPagesElsewhere(t *testing.T) {
	behindProxy := func(c *reset.Config) { c.ClientIP = reset.ClientIPBehind(netip.MustParsePrefix("10.0.0.0/8")) }
	for _, tt := range []struct {
		name, strip, visited, forwardedHost string
		edit                                func(*reset.Config)
		want                                string // visited
	}{
		{"another host", "/account", "https://other.example/account/forgot", "", nil, "other.example/account"},
		{"another port", "/account", "https://app.example.com:8443/account/forgot", "", nil, "app.example.com:8443/account"},
		{"an address", "/account", "https://192.0.2.1/account/forgot", "", nil, "192.0.2.1/account"},
		{"another prefix", "/auth", "https://app.example.com/auth/forgot", "", nil, "app.example.com/auth"},
		{"another prefix, not stripped", "", "https://app.example.com/auth/forgot", "", nil, "app.example.com/auth"},
		{"no prefix", "", "https://app.example.com/forgot", "", nil, "app.example.com"},
		{"another host, as the proxy says", "/account", "https://10.0.0.5/account/forgot", "other.example", behindProxy, "other.example/account"},
		{"a long name", "/account", "https://" + strings.Repeat("a", 300) + "/account/forgot", "", nil, strings.Repeat("a", 200)},

		{"as it should be", "/account", "https://app.example.com/account/forgot", "", nil, ""},
		{"a proxy that strips the prefix", "", "https://app.example.com/forgot", "", behindProxy, ""},
		{"a proxy that changes the prefix", "/auth", "https://app.example.com/auth/forgot", "", behindProxy, ""},
		{"a proxy that changes the host", "/account", "https://10.0.0.5/account/forgot", "", behindProxy, ""},
		{"no such page", "/account", "https://app.example.com/account/nowhere", "", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, newHost(ann), tt.edit)
			h := http.StripPrefix(tt.strip, f.Pages())
			for range 3 {
				r := httptest.NewRequest("GET", tt.visited, nil)
				if tt.forwardedHost != "" {
					r.Header.Set("X-Forwarded-Host", tt.forwardedHost)
				}
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
			records := f.log.named("base_url_mismatch")
			if tt.want == "" {
				f.wantEvents(nil)
			} else if len(records) != 1 || records[0]["visited"] != tt.want || records[0]["base_url"] != baseURL {
				t.Errorf("got %v, want visited %q", records, tt.want)
			}
		})
	}
}

// A middleware that has read the body is named, and one that has parsed the form
// does no harm.
func TestBodyConsumed(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		read := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				next.ServeHTTP(w, r)
			})
		}
		parse := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.PostFormValue("csrf_token")
				next.ServeHTTP(w, r)
			})
		}
		pages := http.StripPrefix("/account", f.Pages())
		form := func() *http.Request { return formRequest("/forgot", "email", ann.Email) }
		for _, tt := range []struct {
			name    string
			handler http.Handler
			request *http.Request
			status  int
		}{
			{"form, read", read(pages), form(), 500},
			{"form, parsed", parse(pages), form(), 303},
			{"JSON, read", read(f.Handler()), postJSON(resetPath, `{"email":"ann@example.com"}`), 500},
			{"empty", read(pages), formRequest("/forgot"), 400},
		} {
			w := httptest.NewRecorder()
			tt.handler.ServeHTTP(w, tt.request)
			if w.Code != tt.status {
				t.Errorf("%s: got %d, want %d", tt.name, w.Code, tt.status)
			}
		}
		if got := f.store.Calls("Enqueue"); got != 1 {
			t.Errorf("%d requests were queued, want 1", got)
		}
		large := formRequest("/forgot", "email", ann.Email, "x", strings.Repeat("x", 20_000))
		w := httptest.NewRecorder()
		parse(pages).ServeHTTP(w, large)
		if w.Code != 413 {
			t.Errorf("large: got %d, want 413", w.Code)
		}
		pass(2 * time.Minute)
		f.wantRecords("body_consumed",
			map[string]any{"path": "/forgot", "count": 1.},
			map[string]any{"path": resetPath, "count": 1.})
	})
}
