package reset_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
)

const appOrigin = "http://localhost:5173"

// newApp is a browser at a single-page app on another origin, which cookies do
// not leave.
func newApp(t *testing.T) *browser {
	t.Helper()
	return newBrowser(t, newHost(ann, bob), func(c *reset.Config) {
		c.AllowedOrigins = []string{"https://app.example.net", appOrigin}
		c.ResetURL, c.RevokeURL = appOrigin+"/new-password", appOrigin+"/not-me"
	})
}

// fromApp makes a request one of the app.
func fromApp(r *http.Request) *http.Request {
	r.Header.Set("Origin", appOrigin)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Sec-Fetch-Mode", "cors")
	r.Header.Set("Sec-Fetch-Dest", "empty")
	return r
}

// The whole way of an app on another origin, from the request to the password.
func TestAppJourney(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newApp(t)
		call := func(path, body string) *httptest.ResponseRecorder {
			w := b.do(fromApp(jsonRequest(path, body)))
			h := w.Result().Header
			if h.Get("Access-Control-Allow-Origin") != appOrigin || h.Get("Access-Control-Allow-Credentials") != "" || h.Get("Vary") != "Origin" || len(h.Values("Set-Cookie")) > 0 {
				t.Errorf("%s: got headers %v", path, h)
			}
			return w
		}
		if w := call("/forgot", `{"email":"ann@example.com"}`); w.Code != 200 || w.Body.String() != okBody {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		b.run()
		pass(5 * time.Second)
		mail := b.mailer.attempts()[0]
		link, query, _ := strings.Cut(mail.Link, "?")
		revokeLink, _, _ := strings.Cut(mail.RevokeLink, "?")
		if link != appOrigin+"/new-password" || revokeLink != appOrigin+"/not-me" {
			t.Errorf("mail leads to %s and %s", link, revokeLink)
		}
		activation := activationOf(t, mail)
		if w := call("/reset", `{"activation":"`+activation+`","newPassword":"short"}`); w.Code != 400 || w.Result().Header.Get("Reset-Reason") != "too_short" ||
			!strings.Contains(w.Result().Header.Get("Access-Control-Expose-Headers"), "Reset-Reason") {
			t.Errorf("got %d %v", w.Code, w.Result().Header)
		}
		r := fromApp(httptest.NewRequest("GET", baseURL+"/reset", nil))
		r.Header.Set("Reset-Activation", "?"+query+".")
		w := b.do(r)
		var got struct {
			Activation, Email                                     string
			ExpiresIn, MinPassword, MaxPassword, MaxPasswordBytes int
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Activation != activation || got.Email != ann.Email ||
			got.ExpiresIn <= 3500 || got.ExpiresIn > 3600 || got.MinPassword != 8 || got.MaxPassword != 256 || got.MaxPasswordBytes != 1024 {
			t.Errorf("GET /reset: got %s, %v", w.Body, err)
		}
		if w := call("/reset", `{"activation":"`+activation+`","newPassword":"`+goodPassword+`"}`); w.Code != 200 {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		b.wantPassword(ann, goodPassword)
		b.wantEvent("foreign_post", 0)
	})
}

// What an app may learn of a link, from its own origin or an allowed one.
func TestJSONGet(t *testing.T) {
	b := newApp(t)
	activation := b.activation(ann)
	before := b.writes()
	for _, tt := range []struct {
		path, header string
		status       int
	}{
		{"/reset", activation, 200},
		{"/revoke", activation, 200},
		{"/reset", "activation=" + activation, 200},
		{"/reset", "?utm_source=x&activation=" + activation + "%20.", 200},
		{"/reset", "", 400},
		{"/reset", "?", 400},
		{"/reset", strings.Repeat("A", 24), 400},
		{"/reset", activation[1:], 400},
	} {
		r := httptest.NewRequest("GET", baseURL+tt.path, nil)
		r.Header.Set("Reset-Activation", tt.header)
		w := b.send(r)
		wantPageHeaders(t, w)
		if w.Code != tt.status {
			t.Errorf("%s with %q: got %d %s, want %d", tt.path, tt.header, w.Code, w.Body, tt.status)
		}
		if w.Code == 400 && (w.Body.String() != badRequestBody || w.Result().Header.Get("Reset-Reason") != "invalid_activation") {
			t.Errorf("%q: got %s, %v", tt.header, w.Body, w.Result().Header)
		}
	}
	if got := b.writes(); got != before {
		t.Errorf("%d writes of the store", got-before)
	}
	if len(b.cookies) > 0 {
		t.Errorf("it sets cookies: %v", b.cookies)
	}
}

// Only the origins that were named may call, only the JSON routes, and only with
// JSON.
func TestAllowedOrigins(t *testing.T) {
	b := newApp(t)
	preflight := func(path, origin string) *http.Request {
		r := httptest.NewRequest("OPTIONS", baseURL+path, nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", "POST")
		r.Header.Set("Access-Control-Request-Headers", "content-type")
		return r
	}
	for _, path := range []string{"/forgot", "/reset", "/revoke"} {
		w := b.do(preflight(path, appOrigin))
		h := w.Result().Header
		if w.Code != 204 || h.Get("Access-Control-Allow-Origin") != appOrigin || h.Get("Access-Control-Allow-Methods") != "GET, POST" ||
			h.Get("Access-Control-Allow-Headers") != "Content-Type, Reset-Activation" || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("preflight of %s: got %d %v", path, w.Code, h)
		}
	}
	foreign := func(r *http.Request, origin string) *http.Request {
		r = fromApp(r)
		r.Header.Set("Origin", origin)
		return r
	}
	const body = `{"email":"ann@example.com"}`
	twice := foreign(jsonRequest("/forgot", body), appOrigin)
	twice.Header.Add("Origin", appOrigin)
	for name, tt := range map[string]struct {
		r      *http.Request
		status int
	}{
		"preflight of another origin":     {preflight("/forgot", "https://evil.example"), 405},
		"preflight of another port":       {preflight("/forgot", "http://localhost:5174"), 405},
		"preflight of the null origin":    {preflight("/forgot", "null"), 405},
		"preflight of a page":             {preflight("/done", appOrigin), 405},
		"preflight of nothing":            {preflight("/nowhere", appOrigin), 404},
		"JSON of another origin":          {foreign(jsonRequest("/forgot", body), "https://evil.example"), 403},
		"JSON of a longer name":           {foreign(jsonRequest("/forgot", body), "https://app.example.net.evil.example"), 403},
		"JSON over http":                  {foreign(jsonRequest("/forgot", body), "http://app.example.net"), 403},
		"JSON of the null origin":         {foreign(jsonRequest("/forgot", body), "null"), 403},
		"JSON of two origins":             {twice, 403},
		"a page, from an allowed origin":  {foreign(httptest.NewRequest("GET", baseURL+"/forgot", nil), appOrigin), 200},
		"a link, from an allowed origin":  {foreign(httptest.NewRequest("GET", baseURL+"/reset?activation="+b.activation(ann), nil), appOrigin), 303},
		"the trusted handler's own route": {foreign(jsonRequest(resetPath, body), appOrigin), 404},
	} {
		w := b.do(tt.r)
		if w.Code != tt.status {
			t.Errorf("%s: got %d, want %d", name, w.Code, tt.status)
		}
		for header := range w.Result().Header {
			if strings.HasPrefix(header, "Access-Control-") || header == "Set-Cookie" {
				t.Errorf("%s: got the header %s", name, header)
			}
		}
	}
	trusted := &trusted{b.fixture, b.Service.Handler()}
	wantAnswer(t, trusted.do(fromApp(postJSON(resetPath, body))), 403, forbiddenBody)
	if got := b.store.Calls("Enqueue"); got != 0 {
		t.Errorf("%d requests were queued", got)
	}
	// Behind a preflight that fails a browser sends nothing more.
	const typo = "https://app.example.com.typo"
	n := len(b.log.named("foreign_post"))
	b.do(preflight("/forgot", typo))
	b.do(preflight("/forgot", "https://app.example.com")) // its own
	b.do(preflight("/done", ""))
	if got := b.log.named("foreign_post")[n:]; len(got) != 1 || got[0]["origin"] != typo {
		t.Errorf("logged %v", got)
	}
}

// JSON is answered with JSON where there is no route, too.
func TestJSONWithoutRoute(t *testing.T) {
	b := newApp(t)
	method := func(r *http.Request, method string) *http.Request {
		r.Method = method
		return r
	}
	for name, tt := range map[string]struct {
		r      *http.Request
		status int
		body   string
	}{
		"POST":              {jsonRequest("/nowhere", "{}"), 404, notFoundBody},
		"POST with a slash": {jsonRequest("/forgot/", "{}"), 404, notFoundBody},
		"POST to a page":    {jsonRequest("/done", "{}"), 404, notFoundBody},
		"PUT":               {method(jsonRequest("/reset", "{}"), "PUT"), 405, methodBody},
		"DELETE":            {method(jsonRequest("/nowhere", "{}"), "DELETE"), 404, notFoundBody},
	} {
		if w := b.do(tt.r); w.Code != tt.status || w.Body.String() != tt.body {
			t.Errorf("%s: got %d %s", name, w.Code, w.Body)
		}
	}
}

// An app that does not send JSON can read why it is refused.
func TestAppNotJSON(t *testing.T) {
	b := newApp(t)
	for _, kind := range []string{"", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "application/json; charset=latin1"} {
		r := fromApp(formRequest("/forgot", "email", ann.Email))
		r.Header.Set("Content-Type", kind)
		w := b.do(r)
		h := w.Result().Header
		if w.Code != 415 || w.Body.String() != badRequestBody || h.Get("Reset-Reason") != "content_type" || h.Get("Access-Control-Allow-Origin") != appOrigin {
			t.Errorf("%q: got %d %s, %v", kind, w.Code, w.Body, h)
		}
	}
	if got := b.store.Calls("Enqueue"); got != 0 {
		t.Errorf("%d requests were queued", got)
	}
	b.wantEvent("foreign_post", 0)
	b.wantRecords("app_not_json",
		map[string]any{"client": "192.0.2.1", "origin": appOrigin, "count": 1.},
		map[string]any{"client": "192.0.2.1", "origin": appOrigin, "count": 3.})
}

// A panic is an answer that an app may read, too.
func TestAppPanics(t *testing.T) {
	b := newBrowser(t, newHost(ann), func(c *reset.Config) {
		c.AllowedOrigins = []string{appOrigin}
		c.ClientIP = func(*http.Request) string { panic("no") }
	})
	w := b.do(fromApp(jsonRequest("/forgot", `{"email":"ann@example.com"}`)))
	if w.Code != 500 || w.Body.String() != unknownErrorBody || w.Result().Header.Get("Access-Control-Allow-Origin") != appOrigin {
		t.Errorf("got %d %s, %v", w.Code, w.Body, w.Result().Header)
	}
}
