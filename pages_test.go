package reset_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/figure"
)

const (
	cookieName      = "__Host-reset"
	liveCookie      = cookieName + "=%s; Path=/; Max-Age=%d; HttpOnly; Secure; SameSite=Lax"
	deadCookie      = cookieName + "=dead; Path=/; Max-Age=600; HttpOnly; Secure; SameSite=Lax" // in place of the activation
	crossOriginBody = `{"error":"FORBIDDEN","message":"Cross-origin requests are refused."}`
)

// A browser is Pages, mounted where baseURL says, and a browser with its
// cookies. It follows no redirect.
type browser struct {
	*trusted
	cookies map[string]string
}

func newBrowser(t *testing.T, h *host, edit func(*reset.Config)) *browser {
	t.Helper()
	f := newFixture(t, h, edit)
	return &browser{&trusted{f, http.StripPrefix("/account", f.Pages())}, make(map[string]string)}
}

// send sends a request with the cookies and keeps those of the response.
func (b *browser) send(r *http.Request) *httptest.ResponseRecorder {
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := b.do(r)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	return w
}

func (b *browser) get(path string) *httptest.ResponseRecorder {
	return b.send(httptest.NewRequest("GET", "https://app.example.com/account"+path, nil))
}

// submit posts a form: names and values in turns.
func (b *browser) submit(path string, fields ...string) *httptest.ResponseRecorder {
	return b.send(formRequest(path, fields...))
}

// choose submits the form for a new password.
func (b *browser) choose(check, password string) *httptest.ResponseRecorder {
	return b.submit("/reset", "check", check, "password", password, "confirm", password)
}

func formRequest(path string, fields ...string) *http.Request {
	form := make(url.Values)
	for pair := range slices.Chunk(fields, 2) {
		form.Set(pair[0], pair[1])
	}
	r := httptest.NewRequest("POST", "https://app.example.com/account"+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", "https://app.example.com")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return r
}

// call posts JSON as a single-page app does.
func (b *browser) call(path, body string) *httptest.ResponseRecorder {
	return b.send(jsonRequest(path, body))
}

func jsonRequest(path, body string) *http.Request {
	r := httptest.NewRequest("POST", "https://app.example.com/account"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return r
}

// open opens a mailed link, is led to the form and returns what binds that.
func (b *browser) open(path, activation string) (check string) {
	b.t.Helper()
	b.wantRedirect(b.get(path+"?activation="+activation), path)
	w := b.get(path)
	match := checkField.FindStringSubmatch(w.Body.String())
	if w.Code != 200 || match == nil {
		b.t.Fatalf("GET %s: got %d %q", path, w.Code, heading(w))
	}
	return match[1]
}

var (
	checkField = regexp.MustCompile(`<input type="hidden" name="check" value="([^"]+)">`)
	h1         = regexp.MustCompile(`<h1>(.*)</h1>`)
)

// heading returns a page's heading.
func heading(w *httptest.ResponseRecorder) string {
	match := h1.FindStringSubmatch(w.Body.String())
	if match == nil {
		return ""
	}
	return html.UnescapeString(match[1])
}

// say returns an English message, with the values of its placeholders.
func say(t testing.TB, key string, values ...any) string {
	t.Helper()
	b, err := os.ReadFile("internal/ui/locales/en.json")
	if err != nil {
		t.Fatal(err)
	}
	var messages map[string]any
	if err := json.Unmarshal(b, &messages); err != nil {
		t.Fatal(err)
	}
	text, ok := messages[key].(string)
	if forms, plural := messages[key].(map[string]any); plural {
		text, ok = forms["other"].(string)
	}
	if !ok {
		t.Fatalf("no message %q", key)
	}
	for i := 0; i < len(values); i += 2 {
		text = strings.ReplaceAll(text, fmt.Sprintf("{%v}", values[i]), fmt.Sprint(values[i+1]))
	}
	return text
}

func (b *browser) wantPage(w *httptest.ResponseRecorder, status int, name string) {
	b.t.Helper()
	b.wantPageAt(w, status, name, "same-origin")
}

// wantPageAt checks a page and what it says of its URL to others.
func (b *browser) wantPageAt(w *httptest.ResponseRecorder, status int, name, referrerPolicy string) {
	b.t.Helper()
	if want := say(b.t, name+".title"); w.Code != status || heading(w) != want {
		b.t.Errorf("got %d %q, want %d %q", w.Code, heading(w), status, want)
	}
	wantPageHeaders(b.t, w)
	if got := w.Result().Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		b.t.Errorf("got Content-Type %q", got)
	}
	if got := w.Result().Header.Get("Referrer-Policy"); got != referrerPolicy {
		b.t.Errorf("got Referrer-Policy %q, want %s", got, referrerPolicy)
	}
}

func (b *browser) wantRedirect(w *httptest.ResponseRecorder, path string) {
	b.t.Helper()
	if got := w.Result().Header.Get("Location"); w.Code != 303 || got != baseURL+path || w.Body.Len() > 0 {
		b.t.Errorf("got %d, Location %q, body %q, want 303 to %s", w.Code, got, w.Body, baseURL+path)
	}
	wantPageHeaders(b.t, w)
}

// wantSent checks the answer to a public request, and that the page it leads to
// shows the address, however often it is loaded.
func (b *browser) wantSent(w *httptest.ResponseRecorder, email string) {
	b.t.Helper()
	b.wantRedirect(w, "/sent")
	for range 2 {
		w = b.get("/sent")
		b.wantPage(w, 200, "sent")
		if !strings.Contains(html.UnescapeString(w.Body.String()), "<bdi>"+email+"</bdi>") {
			b.t.Errorf("the page does not show %s", email)
		}
	}
}

// wantCookie checks that the response sets one cookie.
func wantCookie(t testing.TB, w *httptest.ResponseRecorder, want string) {
	t.Helper()
	if got := w.Result().Header.Values("Set-Cookie"); len(got) != 1 || got[0] != want {
		t.Errorf("got Set-Cookie %q, want %q", got, want)
	}
}

func wantPageHeaders(t testing.TB, w *httptest.ResponseRecorder) {
	t.Helper()
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Robots-Tag": "noindex",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := w.Result().Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
	policy := w.Result().Header.Get("Content-Security-Policy")
	for _, directive := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !slices.Contains(strings.Split(policy, "; "), directive) {
			t.Errorf("the Content-Security-Policy lacks %s: %s", directive, policy)
		}
	}
	if strings.Contains(policy, "http:") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		t.Errorf("the Content-Security-Policy is lax: %s", policy)
	}
	for name := range w.Result().Header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("the header %s invites other origins", name)
		}
	}
}

// wantProblem checks that the form is shown again with a problem at a field.
func (b *browser) wantProblem(w *httptest.ResponseRecorder, page, field, problem string) {
	b.t.Helper()
	b.wantPage(w, 400, page)
	body := html.UnescapeString(w.Body.String())
	if !strings.Contains(body, `id="`+field+`-error"`) || !strings.Contains(body, problem) {
		b.t.Errorf("the page does not say %q at %s", problem, field)
	}
}

func TestPagesRoutes(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	for _, tt := range []struct {
		path, page, allow string // the page, or "" for a redirect to /forgot
		status            int
	}{
		{"", "", "GET, HEAD", 303},
		{"/", "", "GET, HEAD", 303},
		{"/forgot", "forgot", "GET, HEAD, POST", 200},
		{"/sent", "sent", "GET, HEAD", 200},
		{"/reset", "reopen", "GET, HEAD, POST", 400},
		{"/done", "done", "GET, HEAD", 200},
		{"/revoke", "reopen", "GET, HEAD, POST", 400},
		{"/revoked", "revoked", "GET, HEAD", 200},
		{"/forgot/", "notfound", "", 404},
		{"/Forgot", "notfound", "", 404},
		{"/reset/x", "notfound", "", 404},
		{"//forgot", "notfound", "", 404},
		{"/v1/auth/reset-password", "notfound", "", 404},
	} {
		methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get"}
		for _, method := range methods {
			r := formRequest(tt.path)
			r.Method = method
			r.Header.Set("X-HTTP-Method-Override", "POST")
			w := b.send(r)
			safe := method == "GET" || method == "HEAD"
			switch {
			case tt.allow == "":
				b.wantPage(w, 404, "notfound")
			case safe && tt.page == "":
				b.wantRedirect(w, "/forgot")
			case safe:
				b.wantPage(w, tt.status, tt.page)
			case method == "POST" && strings.HasSuffix(tt.allow, "POST"):
				if w.Code != 400 { // an empty form
					t.Errorf("POST %s: got %d, want 400", tt.path, w.Code)
				}
			default:
				b.wantPage(w, 405, "notfound")
				if got := w.Result().Header.Get("Allow"); got != tt.allow {
					t.Errorf("%s %s: got Allow %q, want %q", method, tt.path, got, tt.allow)
				}
			}
			if t.Failed() {
				t.Fatalf("that was %s %s", method, tt.path)
			}
		}
	}
	if finds, hashes, sets := b.host.calls(); finds+hashes+sets > 0 || b.writes() > 0 {
		t.Errorf("moved something: %s", b.moved())
	}
}

func TestPagesReset(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	activation := b.activation(ann)
	check := b.open("/reset", activation)
	w := b.choose(check, goodPassword)
	b.wantRedirect(w, "/done")
	b.wantPassword(ann, goodPassword)
	wantCookie(t, w, deadCookie) // nobody is signed in
	b.wantPage(b.get("/done"), 200, "done")
	b.wantPage(b.get("/reset"), 400, "invalid")
	b.wantQueued(1)

	// The link again, then the form that the back button brings.
	b.wantRedirect(b.get("/reset?activation="+activation), "/reset")
	b.wantPage(b.get("/reset"), 400, "invalid")
	b.wantPage(b.choose(check, "another password"), 400, "invalid")
	b.cookies[cookieName] = activation
	b.wantPage(b.choose(check, "another password"), 400, "invalid")
	b.wantPassword(ann, goodPassword)
}

func TestPagesLinkRedirect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, newHost(ann), nil)
		activation := b.activation(ann)
		for _, path := range []string{"/reset", "/revoke"} {
			w := b.get(path + "?utm_source=x&activation=" + activation)
			b.wantRedirect(w, path)
			if got := w.Result().Header.Get("Referrer-Policy"); got != "no-referrer" {
				t.Errorf("%s: got Referrer-Policy %q, want no-referrer", path, got)
			}
			wantCookie(t, w, fmt.Sprintf(liveCookie, activation, 3600))
		}
		pass(time.Hour - 1500*time.Millisecond)
		wantCookie(t, b.get("/reset?activation="+activation), fmt.Sprintf(liveCookie, activation, 1))
		pass(time.Second) // a Max-Age of 0 would mean no end
		wantCookie(t, b.get("/reset?activation="+activation), deadCookie)
	})
}

// A query without an activation leads to the same place and takes an earlier one
// out of the cookie.
func TestPagesBadLink(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	for _, query := range []string{
		"activation=", "activation", "activation=x", "activation=" + strings.Repeat("A", 24), "activation=" + strings.Repeat("A", 10_000), "activation=%0d%0aSet-Cookie:%20x=y",
	} {
		b.open("/reset", b.activation(ann))
		w := b.get("/reset?" + query)
		b.wantRedirect(w, "/reset")
		wantCookie(t, w, deadCookie)
		b.wantPage(b.get("/reset"), 400, "invalid")
	}
}

// A link that a mail program has damaged leads to the form all the same, on the
// routes of links only.
func TestPagesDamagedLink(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	activation := b.activation(ann)
	for _, path := range []string{"/reset", "/revoke"} {
		for _, link := range []string{
			path + "?activation=" + activation + ").",
			path + "?activation=%20" + activation + "?utm_source=x",
			path + "?activation%3D" + activation,
			path + "/?activation=" + activation,
			path + "%3Factivation=" + activation,
			path + "%3Factivation%3D" + activation + "?fbclid=x",
			path + "/%3Factivation=" + activation + ".",
		} {
			clear(b.cookies)
			b.wantRedirect(b.get(link), path)
			if w := b.get(path); w.Code != 200 {
				t.Errorf("%s: got %d %q", link, w.Code, heading(w))
			}
		}
	}
	for _, path := range []string{"/reset//?activation=" + activation, "/reset/x?activation=" + activation, "/done/?activation=" + activation} {
		b.wantPageAt(b.get(path), 404, "notfound", "no-referrer")
	}
	b.wantPage(b.get("/forgot%3Factivation="+activation), 404, "notfound")
	b.wantPage(b.submit("/reset/"), 404, "notfound")
}

// Only the link itself, opened as a page, puts an activation into the cookie or
// takes one out. A page of a sibling domain can't, with an image for instance.
func TestPagesPlantedActivation(t *testing.T) {
	b := newBrowser(t, newHost(ann, bob), nil)
	mine, planted := b.activation(ann), b.activation(bob)
	for _, tt := range []struct {
		dest string
		want bool
	}{
		{"", true}, {"document", true},
		{"image", false}, {"empty", false}, {"iframe", false}, {"script", false}, {"style", false}, {"object", false}, {"Document", false},
	} {
		b.open("/reset", mine)
		for _, activation := range []string{planted, "dead"} {
			r := httptest.NewRequest("GET", baseURL+"/reset?activation="+activation, nil)
			if tt.dest != "" {
				r.Header.Set("Sec-Fetch-Dest", tt.dest)
			}
			w := b.send(r)
			b.wantRedirect(w, "/reset")
			if got := len(w.Result().Cookies()) > 0; got != tt.want {
				t.Errorf("Sec-Fetch-Dest %q: sets a cookie: %v", tt.dest, got)
			}
		}
	}
}

func TestPagesLoopback(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.BaseURL = "http://localhost:8080" }, func(t *testing.T, f *fixture) {
		activation := f.activation(ann)
		w := httptest.NewRecorder()
		f.Pages().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost:8080/reset?activation="+activation, nil))
		wantCookie(t, w, "reset="+activation+"; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax")
		if got := w.Result().Header.Get("Location"); got != "http://localhost:8080/reset" {
			t.Errorf("got Location %q", got)
		}
	})
}

// A cookie without the prefix could come from a subdomain, a second one of the
// name from anywhere.
func TestPagesCookies(t *testing.T) {
	b := newBrowser(t, newHost(ann, bob), nil)
	activation, other := b.activation(ann), b.activation(bob)
	for _, cookies := range []string{
		"reset=" + activation,
		"__host-reset=" + activation,
		cookieName + "=" + activation + "; " + cookieName + "=" + other,
		cookieName + "=" + activation + "; " + cookieName + "=" + activation,
	} {
		r := httptest.NewRequest("GET", "/account/reset", nil)
		r.Header.Set("Cookie", cookies)
		b.wantPage(b.do(r), 400, "reopen")
	}
}

// No header of a request gets into a link, a form or a redirect.
func TestPagesHost(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	activation := b.activation(ann)
	hostile := func(method, target string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, target, nil)
		r.Host = "evil.example"
		for _, name := range []string{"X-Forwarded-Host", "X-Original-Url", "X-Rewrite-Url", "X-Forwarded-Prefix", "Forwarded", "Referer"} {
			r.Header.Set(name, "https://evil.example/")
		}
		r.Header.Set("X-Forwarded-Proto", "ftp")
		return b.send(r)
	}
	for _, target := range []string{"/account/forgot", "https://evil.example/account/forgot", "/account/done", "/account/nowhere"} {
		if w := hostile("GET", target); strings.Contains(w.Body.String(), "evil.example") {
			t.Errorf("%s: the page has the name of another host", target)
		}
	}
	b.wantRedirect(hostile("GET", "https://evil.example/account/"), "/forgot")
	b.wantRedirect(hostile("GET", "https://evil.example/account/reset?activation="+activation), "/reset")
	w := hostile("GET", "https://evil.example/account/reset")
	b.wantPage(w, 200, "choose")
	if !strings.Contains(w.Body.String(), `action="`+baseURL+`/reset"`) || strings.Contains(w.Body.String(), "evil.example") {
		t.Errorf("the form leads elsewhere: %s", w.Body)
	}
	if strings.Contains(w.Body.String(), activation) {
		t.Errorf("the page has the activation")
	}
}

// Scanners and prefetchers that open a link, with and without cookies, do no
// harm.
func TestPagesScanners(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	activation := b.activation(ann)
	before := b.writes()
	for range 20 {
		for _, path := range []string{"/reset", "/revoke"} {
			for _, method := range []string{"GET", "HEAD"} {
				scanner := &browser{b.trusted, make(map[string]string)}
				for _, query := range []string{"?activation=" + activation, ""} {
					r := httptest.NewRequest(method, "/account"+path+query, nil)
					r.Header.Set("Sec-Purpose", "prefetch")
					if w := scanner.send(r); w.Code != 303 && w.Code != 200 {
						t.Errorf("%s %s: got %d", method, path, w.Code)
					}
				}
			}
		}
	}
	if got := b.writes(); got != before {
		t.Errorf("%d writes of the store", got-before)
	}
	check := b.open("/reset", activation)
	b.wantRedirect(b.choose(check, goodPassword), "/done")
	b.wantPassword(ann, goodPassword)
}

// A second link, opened in another tab or planted by an attacker, replaces the
// cookie. A form that was shown before sets nobody's password then.
func TestPagesSecondLink(t *testing.T) {
	for _, path := range []string{"/reset", "/revoke"} {
		b := newBrowser(t, newHost(ann, bob), nil)
		mine, planted := b.activation(ann), b.activation(bob)
		check := b.open(path, mine)
		b.get("/reset?activation=" + planted)
		before := b.writes()
		for _, c := range []string{check, "", check[:len(check)-1], check + "A", strings.Repeat("A", len(check)), mine} {
			w := b.submit(path, "check", c, "password", goodPassword, "confirm", goodPassword)
			b.wantPage(w, 400, "reopen")
		}
		if got := b.writes(); got != before {
			t.Errorf("%s: %d writes of the store", path, got-before)
		}
		b.wantPassword(ann, "")
		b.wantPassword(bob, "")

		check = b.open("/reset", mine)
		b.wantRedirect(b.choose(check, goodPassword), "/done")
		b.wantPassword(ann, goodPassword)
		b.wantPassword(bob, "")
	}
}

// refuseBreached is a CheckPassword.
func refuseBreached(_ context.Context, _ reset.User, password string) error {
	switch password {
	case "breached password":
		return &reset.PasswordError{Reason: "breached", Message: `Found in a "breach" <once>.`}
	case "refused grey herons":
		return &reset.PasswordError{Reason: "refused"}
	}
	return nil
}

// A password that is refused, or not repeated, leaves the form to try again.
func TestPagesPasswords(t *testing.T) {
	b := newBrowser(t, newHost(ann), func(c *reset.Config) { c.CheckPassword = refuseBreached })
	check := b.open("/reset", b.activation(ann))
	differs := say(t, "problem.confirm.differs")
	for _, tt := range []struct{ password, confirm, problem string }{
		{"", "", say(t, "problem.password.missing")},
		{"", goodPassword, say(t, "problem.password.missing")},
		{goodPassword, "", differs},
		{goodPassword, goodPassword + " ", differs},
		{goodPassword, strings.ToUpper(goodPassword), differs},
		{"caf\u00e9 caf\u00e9", "cafe\u0301 cafe\u0301", differs},
		{"short", "short", say(t, "problem.password.too_short", "n", 8)},
		{strings.Repeat("nine grey ", 30), strings.Repeat("nine grey ", 30), say(t, "problem.password.too_long", "n", 256)},
		{"password", "password", say(t, "problem.password.common")},
		{ann.Email, ann.Email, say(t, "problem.password.address")},
		{"nine grey\xffherons", "nine grey\xffherons", say(t, "problem.password.invalid")},
		{"nine grey\x00herons", "nine grey\x00herons", say(t, "problem.password.invalid")},
		{"refused grey herons", "refused grey herons", say(t, "problem.password.refused")},
		{"breached password", "breached password", `Found in a "breach" <once>.`},
	} {
		w := b.submit("/reset", "check", check, "password", tt.password, "confirm", tt.confirm)
		field := "password"
		if tt.problem == differs {
			field = "confirm"
		}
		b.wantProblem(w, "choose", field, tt.problem)
		if strings.Contains(w.Body.String(), "<once>") {
			t.Errorf("a message is markup")
		}
		if tt.password == goodPassword && strings.Contains(w.Body.String(), goodPassword) {
			t.Errorf("the page shows the password")
		}
		if match := checkField.FindStringSubmatch(w.Body.String()); match == nil || match[1] != check {
			t.Errorf("the form is bound to %q, want %q", match, check)
		}
	}
	if _, hashes, _ := b.host.calls(); hashes > 0 {
		t.Errorf("hashed %d times", hashes)
	}
	const password = "  🦉 & <nine> + grey%20herons "
	b.wantRedirect(b.choose(check, password), "/done")
	b.wantPassword(ann, password)
}

func TestPagesRevoke(t *testing.T) {
	b := newBrowser(t, newHost(ann, bob), nil)
	activation, sibling, other := b.activation(ann), b.activation(ann), b.activation(bob)
	check := b.open("/revoke", activation)
	w := b.submit("/revoke", "check", check)
	b.wantRedirect(w, "/revoked")
	wantCookie(t, w, deadCookie)
	b.wantPage(b.get("/revoked"), 200, "revoked")
	for _, a := range []string{activation, sibling} {
		if err := b.ChangePassword(t.Context(), a, goodPassword); !errors.Is(err, reset.ErrInvalidActivation) {
			t.Errorf("a revoked activation: got %v", err)
		}
	}
	if err := b.ChangePassword(t.Context(), other, goodPassword); err != nil {
		t.Errorf("another user's activation: %v", err)
	}
	b.wantEvent("revoked_by_user", 1)
	b.wantPage(b.submit("/revoke", "check", check), 400, "invalid")
}

func TestPagesForgot(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	for _, tt := range []struct {
		email, problem string // "" if it is accepted
	}{
		{"ann@example.com", ""},
		{"ANN@Example.COM", ""},
		{"nobody@example.com", ""},
		{"\u200f <ann＠example.com>\u00a0", ""},
		{"", "missing"},
		{" ", "missing"},
		{"ann", "invalid"},
		{"ann@example.com, bob@example.com", "invalid"},
		{"Ann <ann@example.com>", "invalid"},
		{"ann@example.com\r\nBcc: bob@example.com", "invalid"},
		{`"><script>alert(1)</script>@example.com`, "invalid"},
		{"ann\xff@example.com", "invalid"},
		{strings.Repeat("a", 5000), "invalid"},
	} {
		before := b.writes()
		w := b.submit("/forgot", "email", tt.email)
		if strings.Contains(w.Body.String(), "<script>alert") || w.Body.Len() > 40_000 {
			t.Errorf("%.40q: the page repeats it", tt.email)
		}
		if tt.problem == "" {
			b.wantSent(w, strings.Trim(strings.ReplaceAll(tt.email, "＠", "@"), "\u200f <>\u00a0"))
		} else {
			b.wantProblem(w, "forgot", "email", say(t, "problem.email."+tt.problem))
		}
		if got, want := b.writes()-before, tt.problem == ""; (got == 1) != want {
			t.Errorf("%.40q: %d writes of the store", tt.email, got)
		}
	}
	if finds, _, _ := b.host.calls(); finds > 0 {
		t.Errorf("FindByEmail was called %d times", finds)
	}
}

// The address that was typed stays with the browser that typed it, for the pages
// that show it again.
func TestPagesKeepEmail(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	const email = `O'Brien+x@Example.com`
	w := b.submit("/forgot", "email", email)
	wantCookie(t, w, "__Secure-reset-email=TydCcmllbit4QEV4YW1wbGUuY29t; Path=/account; Max-Age=600; HttpOnly; Secure; SameSite=Lax")
	before := b.writes()
	b.wantSent(w, email)
	for path, field := range map[string]string{
		"/sent":   `<input type="hidden" name="email" value="`,
		"/forgot": `<input id="email" name="email" type="email" value="`,
	} {
		if w := b.get(path); !strings.Contains(html.UnescapeString(w.Body.String()), field+email+`"`) {
			t.Errorf("%s: no field with the address", path)
		}
	}
	if got := b.writes(); got != before {
		t.Errorf("the pages make %d writes", got-before)
	}

	// What is not an address is not kept, and none is shown that was not kept.
	b = newBrowser(t, newHost(ann), nil)
	if got := b.submit("/forgot", "email", strings.Repeat("a", 300)+"@example.com").Result().Cookies(); len(got) > 0 {
		t.Errorf("got cookies %v", got)
	}
	for _, value := range []string{"", "x", "YW5u", "YW5uQGV4YW1wbGUuY29t=", "YW5uQGV4YW1wbGUuY29t; __Secure-reset-email=YW5uQGV4YW1wbGUuY29t"} {
		r := httptest.NewRequest("GET", baseURL+"/sent", nil)
		r.Header.Set("Cookie", "__Secure-reset-email="+value)
		w := b.do(r)
		b.wantPage(w, 200, "sent")
		if body := html.UnescapeString(w.Body.String()); !strings.Contains(body, say(t, "sent.entered")) || strings.Contains(body, "<form") {
			t.Errorf("cookie %q: the page shows an address", value)
		}
	}
}

// Every page leads on: back to the host's sign-in page, and to the form.
func TestPagesLeadOn(t *testing.T) {
	const signIn = "https://app.example.com/login"
	b := newBrowser(t, newHost(ann), func(c *reset.Config) {
		c.SignInURL, c.PerClient = signIn, reset.NewMemoryLimiter(1, time.Minute)
	})
	b.wantSent(b.submit("/forgot", "email", ann.Email), ann.Email)
	limited := b.submit("/forgot", "email", ann.Email)
	if !strings.Contains(limited.Body.String(), `<input type="hidden" name="email" value="`+ann.Email+`"`) {
		t.Errorf("limited: the address is lost")
	}
	invalid := b.get("/reset?activation=")
	for name, w := range map[string]*httptest.ResponseRecorder{
		"sent": b.get("/sent"), "limited": limited, "failed": b.submit("/forgot", "email", "%", "x", strings.Repeat("x", 20_000)),
		"notfound": b.get("/nowhere"), "invalid": b.get(invalid.Result().Header.Get("Location")[len(baseURL):]), "reopen": (&browser{b.trusted, make(map[string]string)}).submit("/reset"),
	} {
		if want := say(t, name+".title"); heading(w) != want {
			t.Errorf("%s: the page is %q", name, heading(w))
		}
		body := w.Body.String()
		if !strings.Contains(body, `href="`+signIn+`"`) || !strings.Contains(body, `"`+baseURL+`/forgot"`) {
			t.Errorf("%s: the page leads nowhere", name)
		}
	}
}

func TestPagesJSON(t *testing.T) {
	b := newBrowser(t, newHost(ann, bob), func(c *reset.Config) { c.CheckPassword = refuseBreached })
	activation := func() string { return b.activation(ann) }
	refusal := func(reason, message string) string {
		return `{"error":"PASSWORD_REFUSED","reason":"` + reason + `","message":"` + message + `"}`
	}
	for _, tt := range []struct {
		path, body string
		status     int
		answer     string
	}{
		{"/forgot", `{"email":"ann@example.com"}`, 200, okBody},
		{"/forgot", `{"email":"nobody@example.com"}`, 200, okBody},
		{"/forgot", `{"email":"nobody@example.com","maxRequests":"ignored","preventEmailSending":true}`, 200, okBody},
		{"/forgot", `{"email":"ann"}`, 400, badRequestBody},
		{"/forgot", `{"email":1}`, 400, badRequestBody},
		{"/forgot", `{}`, 400, badRequestBody},
		{"/forgot", ``, 400, badRequestBody},
		{"/forgot", `{"email":"ann@example.com","email":"bob@example.com"}`, 400, badRequestBody},
		{"/forgot", `{"email":"` + strings.Repeat("a", 16<<10) + `"}`, 413, badRequestBody},
		{"/reset", `{"activation":"` + strings.Repeat("A", 24) + `","newPassword":"` + goodPassword + `"}`, 400, badRequestBody},
		{"/reset", `{"requestId":"` + activation() + `","newPassword":"` + goodPassword + `"}`, 400, badRequestBody},
		{"/reset", `{"activation":"` + activation() + `"}`, 400, badRequestBody},
		{"/reset", `{"newPassword":"` + goodPassword + `"}`, 400, badRequestBody},
		{"/reset", `{"activation":"` + activation() + `","newPassword":"short"}`, 400, refusal("too_short", "The password was refused.")},
		{"/reset", `{"activation":"` + activation() + `","newPassword":"password"}`, 400, refusal("common", "The password was refused.")},
		{"/reset", `{"activation":"` + activation() + `","newPassword":"ann@example.com"}`, 400, refusal("address", "The password was refused.")},
		{"/reset", `{"activation":"` + activation() + `","newPassword":"breached password"}`, 400, refusal("breached", `Found in a \"breach\" \u003conce\u003e.`)},
		{"/reset", `{"activation":"` + activation() + `","newPassword":"` + goodPassword + `"}`, 200, okBody},
		{"/revoke", `{}`, 400, badRequestBody},
		{"/revoke", `{"activation":"` + strings.Repeat("A", 24) + `"}`, 400, badRequestBody},
		{"/revoke", `{"activation":"` + activation() + `"}`, 400, badRequestBody}, // redeemed by the change above
		{"/revoke", `{"activation":"` + b.activation(bob) + `"}`, 200, okBody},
	} {
		w := b.call(tt.path, tt.body)
		if w.Code != tt.status || w.Body.String() != tt.answer {
			t.Errorf("POST %s %.80s: got %d %s, want %d %s", tt.path, tt.body, w.Code, w.Body, tt.status, tt.answer)
		}
		wantPageHeaders(t, w)
		if got := w.Result().Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
			t.Errorf("got Content-Type %q", got)
		}
		if got := w.Result().Header.Values("Set-Cookie"); len(got) > 0 {
			t.Errorf("got Set-Cookie %q", got)
		}
	}
	b.wantPassword(ann, goodPassword)
}

func TestPagesLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, newHost(ann), func(c *reset.Config) { c.PerClient = reset.NewMemoryLimiter(2, time.Minute) })
		from := func(client string, r *http.Request) *httptest.ResponseRecorder {
			r.RemoteAddr = client
			r.Header.Set("X-Forwarded-For", "192.0.2.99") // from no proxy that the host names
			return b.send(r)
		}
		form := func() *http.Request { return formRequest("/forgot", "email", ann.Email) }
		b.wantSent(from("192.0.2.7:1", form()), ann.Email)
		b.wantSent(from("192.0.2.7:2", form()), ann.Email)
		before := b.writes()
		page := from("192.0.2.7:3", form())
		b.wantPage(page, 429, "limited")
		json := from("192.0.2.7:4", jsonRequest("/forgot", `{"email":"nobody@example.com"}`))
		if json.Code != 429 || json.Body.String() != tooManyBody {
			t.Errorf("got %d %s", json.Code, json.Body)
		}
		for _, w := range []*httptest.ResponseRecorder{page, json} {
			if got := w.Result().Header.Get("Retry-After"); got != "30" {
				t.Errorf("got Retry-After %q, want 30", got)
			}
		}
		if got := b.writes(); got != before {
			t.Errorf("%d writes of the store", got-before)
		}
		b.wantSent(from("192.0.2.8:1", form()), ann.Email)
		b.wantPage(from("@", form()), 500, "failed") // not an IP address
	})
}

// A body may only come from the origin's own pages, as a form or as JSON.
func TestPagesForeignPosts(t *testing.T) {
	form, jsonType := "application/x-www-form-urlencoded", "application/json"
	for _, tt := range []struct {
		name, kind, origin, site string
		status                   int
	}{
		{"own form", form, "https://app.example.com", "same-origin", 303},
		{"own form, an old browser", form, "https://app.example.com", "", 303},
		{"own form, no header at all", form, "", "", 303},
		{"own JSON", jsonType, "https://app.example.com", "same-origin", 200},
		{"typed by hand", form, "", "none", 303},
		{"cross-site form", form, "https://evil.example", "cross-site", 403},
		{"cross-site form, an old browser", form, "https://evil.example", "", 403},
		{"cross-site form without a referrer", form, "null", "cross-site", 403},
		{"sandboxed form, an old browser", form, "null", "", 403},
		{"same-site form", form, "https://www.example.com", "same-site", 403},
		{"http form", form, "http://app.example.com", "cross-site", 403},
		{"cross-site JSON", jsonType, "https://evil.example", "cross-site", 403},
		{"cross-site text", "text/plain", "https://evil.example", "cross-site", 403},
		{"text", "text/plain", "https://app.example.com", "same-origin", 415},
		{"multipart", "multipart/form-data; boundary=x", "https://app.example.com", "same-origin", 415},
		{"no type", "", "https://app.example.com", "same-origin", 415},
		{"JSON in Latin-1", "application/json; charset=latin1", "https://app.example.com", "same-origin", 415},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBrowser(t, newHost(ann), nil)
			r := formRequest("/forgot", "email", "ann@example.com")
			if strings.HasPrefix(tt.kind, jsonType) {
				r.Body = io.NopCloser(strings.NewReader(`{"email":"ann@example.com"}`))
			}
			for name, value := range map[string]string{"Content-Type": tt.kind, "Origin": tt.origin, "Sec-Fetch-Site": tt.site} {
				r.Header.Del(name)
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			r.Host = "10.0.0.5:8080" // as a proxy may rewrite it: the origin is known from BaseURL
			w := b.send(r)
			if w.Code != tt.status {
				t.Errorf("got %d, want %d", w.Code, tt.status)
			}
			if tt.status == 403 && tt.kind == jsonType && w.Body.String() != crossOriginBody {
				t.Errorf("got %s", w.Body)
			}
			wantPageHeaders(t, w)
			if got := b.writes() == 1; got != (tt.status == 303 || tt.kind == jsonType && tt.status == 200) {
				t.Errorf("the public request was queued: %v", got)
			}
			refused := 0
			if tt.status == 403 {
				refused = 1
			}
			b.wantEvent("foreign_post", refused)
		})
	}
}

func TestPagesFormSize(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	for _, tt := range []struct{ size, status int }{{16 << 10, 303}, {16<<10 + 1, 413}, {1 << 20, 413}} {
		r := formRequest("/forgot")
		const body = "email=nobody@example.com&x="
		r.Body = io.NopCloser(strings.NewReader(body + strings.Repeat("x", tt.size-len(body))))
		if w := b.send(r); w.Code != tt.status {
			t.Errorf("%d bytes: got %d, want %d", tt.size, w.Code, tt.status)
		}
	}
	for _, body := range []string{"email=%zz", "email=ann@example.com;x=1"} {
		r := formRequest("/forgot")
		r.Body = io.NopCloser(strings.NewReader(body))
		b.wantPage(b.send(r), 400, "failed")
	}
}

func TestPagesFaults(t *testing.T) {
	for _, email := range []string{ann.Email, "nobody@example.com"} {
		b := newBrowser(t, newHost(ann), nil)
		activation := b.activation(ann)
		check := b.open("/reset", activation)
		b.store.Fail(errors.New("disk full: /var/lib/app.db"))
		for _, w := range []*httptest.ResponseRecorder{
			b.submit("/forgot", "email", email),
			b.get("/reset"), b.choose(check, goodPassword),
			b.get("/revoke"), b.submit("/revoke", "check", check),
		} {
			b.wantPage(w, 503, "failed")
			wantRetry(t, w)
		}
		w := b.get("/reset?activation=" + activation)
		b.wantPageAt(w, 503, "failed", "no-referrer")
		wantRetry(t, w)
		getJSON := httptest.NewRequestWithContext(t.Context(), "GET", baseURL+"/reset", nil)
		getJSON.Header.Set("Reset-Activation", activation)
		for _, w := range []*httptest.ResponseRecorder{
			b.call("/forgot", fmt.Sprintf(`{"email":%q}`, email)),
			b.call("/reset", fmt.Sprintf(`{"activation":%q,"newPassword":%q}`, activation, goodPassword)),
			b.call("/revoke", fmt.Sprintf(`{"activation":%q}`, activation)),
			b.do(getJSON),
		} {
			if w.Code != 503 || w.Body.String() != unknownErrorBody {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			wantRetry(t, w)
		}
		b.store.Fail(nil)
		b.wantSent(b.submit("/forgot", "email", email), email)
		b.wantRedirect(b.choose(check, goodPassword), "/done")
		for _, secret := range []string{activation, goodPassword, "nobody@example.com"} {
			if strings.Contains(b.log.String(), secret) {
				t.Errorf("the log has %q: %s", secret, b.log)
			}
		}
	}
}

func wantRetry(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	if got := w.Result().Header.Get("Retry-After"); got != "5" {
		t.Errorf("got Retry-After %q, want 5", got)
	}
}

// Where the store hangs, every request is answered within 10 s, and those beyond
// 1,000 at once. The log has a record for each operation and one a minute that
// counts.
func TestStoreHangs(t *testing.T) {
	const most = 1000
	inBubble(t, unlimited, func(t *testing.T, f *fixture) {
		b, activation := pagesOf(f), f.activation(ann)
		f.store.Before = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		var wg sync.WaitGroup
		send := func(status int, r *http.Request, h http.Handler) {
			wg.Go(func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != status {
					t.Errorf("%s: got %d, want %d", r.URL, w.Code, status)
				}
				wantRetry(t, w)
			})
		}
		began := time.Now()
		send(500, postJSON(newPath, newPassword(activation, goodPassword)), f.Handler())
		send(503, jsonRequest("/revoke", `{"activation":"`+activation+`"}`), b.Handler)
		for range most - 2 {
			send(503, formRequest("/forgot", "email", ann.Email), b.Handler)
		}
		synctest.Wait()
		for range 500 {
			send(503, formRequest("/forgot", "email", "nobody@example.com"), b.Handler)
		}
		synctest.Wait()
		f.wantEvents(map[string]int{"busy": 500, "workers_few": 1})
		wg.Wait()
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("the answers took %v, want 10s", took)
		}
		f.store.Before = nil
		pass(time.Minute)
		f.wantEvents(map[string]int{"busy": most + 500, "workers_few": 1})
		if got := len(f.log.named("busy")); got > 6 {
			t.Errorf("%d records, want one a minute for each of three operations", got)
		}
		f.forgot(ann.Email)
		pass(time.Minute)
	})
}

// A stuckWriter is that of a client who does not read.
type stuckWriter struct {
	*httptest.ResponseRecorder
	ctx context.Context
}

func (w stuckWriter) Write([]byte) (int, error) { <-w.ctx.Done(); return 0, w.ctx.Err() }

// Clients who do not read their answers, which over HTTP/2 costs them nothing,
// keep nobody out.
func TestAnswersNotRead(t *testing.T) {
	inBubble(t, unlimited, func(t *testing.T, f *fixture) {
		b := pagesOf(f)
		var wg sync.WaitGroup
		defer wg.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		get := func() *http.Request { return httptest.NewRequest("GET", baseURL+"/reset", nil) }
		post := func() *http.Request { return formRequest("/forgot", "email", "") }
		for _, request := range []func() *http.Request{get, post} {
			for range 1000 {
				wg.Go(func() { b.Handler.ServeHTTP(stuckWriter{httptest.NewRecorder(), ctx}, request()) })
			}
			synctest.Wait()
			b.wantPage(b.do(get()), 400, "reopen")
		}
	})
}

// When more passwords wait for hashing than this machine can hash, the others
// are asked to try again, the activation stays, and the log counts them.
func TestBusy(t *testing.T) {
	const calls = 1000
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, newHost(ann, bob), nil)
		check := b.open("/reset", b.activation(ann))
		activation := b.activation(ann)
		b.host.onHash = func(context.Context, string) error { <-time.After(6 * time.Second); return nil }
		var holding sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			held := b.activation(bob)
			holding.Go(func() { b.ChangePassword(t.Context(), held, goodPassword) })
		}
		synctest.Wait()
		var waiting sync.WaitGroup
		for range calls - 2 {
			waiting.Go(func() {
				w := b.do(jsonRequest("/reset", `{"activation":"`+activation+`","newPassword":"`+goodPassword+`"}`))
				if w.Code != 503 || w.Body.String() != unknownErrorBody || w.Result().Header.Get("Retry-After") != "5" {
					t.Errorf("JSON: got %d %s, Retry-After %q", w.Code, w.Body, w.Result().Header.Get("Retry-After"))
				}
			})
		}
		waiting.Go(func() {
			w := httptest.NewRecorder()
			b.Service.Handler().ServeHTTP(w, postJSON(newPath, newPassword(activation, goodPassword)))
			if w.Code != 500 || w.Body.String() != unknownErrorBody || w.Result().Header.Get("Retry-After") != "5" {
				t.Errorf("trusted: got %d %s, Retry-After %q", w.Code, w.Body, w.Result().Header.Get("Retry-After"))
			}
		})
		waiting.Go(func() {
			w := b.choose(check, goodPassword)
			b.wantPage(w, 503, "choose")
			if got := w.Result().Header.Get("Retry-After"); got != "5" || !strings.Contains(w.Body.String(), say(t, "problem.password.busy")) {
				t.Errorf("page: got Retry-After %q", got)
			}
		})
		waiting.Wait()
		holding.Wait()
		b.host.onHash = nil
		b.wantEvents(map[string]int{"busy": calls, "password_changed": 1, "run_elsewhere": 1})
		pass(time.Minute)
		records := b.log.named("busy")
		if len(records) != 2 || records[0]["count"] != 1.0 || records[1]["count"] != calls-1. {
			t.Errorf("got records %v, want counts 1 and %d", records, calls-1)
		}
		figure.Report(t, "log records for redeems beyond what can be hashed", len(records), calls)
		b.wantRedirect(b.choose(check, goodPassword), "/done")
		pass(time.Minute)
	})
}

func TestPagesPanics(t *testing.T) {
	on := false
	secret := func() {
		if on {
			panic("secret: " + goodPassword)
		}
	}
	h := newHost(ann)
	h.onSet = func(context.Context, string) error { secret(); return nil }
	b := newBrowser(t, h, func(c *reset.Config) {
		c.ClientIP = func(*http.Request) string { secret(); return "client" }
	})
	activation := b.activation(ann)
	check := b.open("/reset", activation)
	on = true
	b.wantPage(b.submit("/forgot", "email", ann.Email), 500, "failed")
	w := b.choose(check, goodPassword)
	b.wantPage(w, 500, "failed")
	if strings.Contains(w.Body.String(), "goroutine") || strings.Contains(w.Body.String(), goodPassword) {
		t.Errorf("the page has the panic: %s", w.Body)
	}
	for path, body := range map[string]string{
		"/forgot": `{"email":"ann@example.com"}`,
		"/reset":  `{"activation":"` + activation + `","newPassword":"` + goodPassword + `"}`,
	} {
		w := b.call(path, body)
		if w.Code != 500 || w.Body.String() != unknownErrorBody || w.Result().Header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("%s: got %d %.100s", path, w.Code, w.Body)
		}
		wantPageHeaders(t, w)
	}
	b.wantEvent("panic", 4)
	if strings.Contains(b.log.String(), goodPassword) {
		t.Errorf("the log has the value of a panic: %s", b.log)
	}
	on = false
	b.wantRedirect(b.choose(check, goodPassword), "/done")
}

// raw posts to /forgot over a connection and returns all that comes back.
func raw(t *testing.T, c net.Conn, contentType, body string) string {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		fmt.Fprintf(c, "POST /forgot HTTP/1.1\r\nHost: app.example.com\r\nContent-Type: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
			contentType, len(body), body)
	})
	got, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	c.Close()
	wg.Wait()
	return string(got)
}

// The public gets the same bytes, as fast, whether or not the address has an
// account and whatever happens to the mail.
func TestPagesTellNothing(t *testing.T) {
	down := errors.New("connection refused")
	requests := []struct{ contentType, body, status string }{
		{"application/x-www-form-urlencoded", "email=ann%40example.com", "303 See Other"},
		{"application/json", `{"email":"ann@example.com"}`, "200 OK"},
		{"application/json", `{"email":"ANN@Example.com"}`, "200 OK"}, // while the others are queued
	}
	var want []string
	for _, class := range []struct {
		name  string
		plant func(f *fixture)
	}{
		{"known", func(*fixture) {}},
		{"unknown", func(f *fixture) { f.host.remove(ann.Email) }},
		{"disabled", func(f *fixture) { f.host.onFind = func(context.Context, string) error { return reset.ErrNoUser } }},
		{"capped", func(f *fixture) { f.activation(ann); f.activation(ann); f.activation(ann) }},
		{"mail server down", func(f *fixture) { f.mailer.do = fails("connection refused") }},
		{"mail server hangs", func(f *fixture) {
			f.mailer.do = func(ctx context.Context, _ int, _ reset.Message) error { <-ctx.Done(); return ctx.Err() }
		}},
		{"accounts slow", func(f *fixture) {
			f.host.onFind = func(context.Context, string) error { <-time.After(2 * time.Second); return nil }
		}},
		{"accounts down", func(f *fixture) { f.host.onFind = func(context.Context, string) error { return down } }},
		{"accounts panic", func(f *fixture) { f.host.onFind = func(context.Context, string) error { panic("find") } }},
	} {
		inBubble(t, nil, func(t *testing.T, f *fixture) {
			class.plant(f)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { f.Run(ctx) }) // reports the exchanges that it cuts off
			dial, stop := serve(f.Pages())
			var got []string
			for range 4 {
				for _, r := range requests {
					start := time.Now()
					got = append(got, raw(t, dial(), r.contentType, r.body))
					if took := time.Since(start); took > 0 {
						t.Errorf("%s: an answer took %v", class.name, took)
					}
				}
				pass(1700 * time.Millisecond)
			}
			cancel()
			stop()
			wg.Wait()
			if f.store.Calls("Enqueue") != len(got) {
				t.Errorf("%s: %d requests were queued, want %d", class.name, f.store.Calls("Enqueue"), len(got))
			}
			if want == nil {
				want = got
			}
			for i := range got {
				if status := requests[i%len(requests)].status; got[i] != want[i] || !strings.HasPrefix(got[i], "HTTP/1.1 "+status+"\r\n") {
					t.Errorf("%s, answer %d: got %q, want %q", class.name, i, got[i], want[i])
				}
			}
		})
	}
}

// A host that names no proxy is warned once if there may be one.
func TestPagesProxyWarning(t *testing.T) {
	for _, tt := range []struct {
		name, remote, header string
		clientIP             func(*http.Request) string
		want                 int
	}{
		{"a private proxy", "10.0.0.5:4711", "X-Forwarded-For", nil, 1},
		{"a link-local proxy", "[fe80::5%eth0]:4711", "X-Forwarded-For", nil, 1},
		{"a carrier's NAT", "100.64.0.1:4711", "X-Real-IP", nil, 1},
		{"a public network", "173.245.48.1:4711", "CF-Connecting-IP", nil, 1},
		{"a Unix socket", "@", "Forwarded", nil, 1},
		{"no proxy", "10.0.0.5:4711", "Via", nil, 0},
		{"a proxy that is known", "10.0.0.5:4711", "X-Forwarded-For", reset.ClientIPBehind(netip.MustParsePrefix("10.0.0.0/8")), 0},
	} {
		f := newFixture(t, newHost(), func(c *reset.Config) { c.ClientIP = tt.clientIP })
		for _, pages := range []http.Handler{f.Pages(), f.Pages()} {
			for range 3 {
				r := httptest.NewRequest("GET", "/forgot", nil)
				r.RemoteAddr = tt.remote
				r.Header.Set(tt.header, "192.0.2.1")
				pages.ServeHTTP(httptest.NewRecorder(), r)
			}
		}
		if f.wantEvent("proxy_unknown", tt.want); t.Failed() {
			t.Fatalf("that was %s", tt.name)
		}
	}
}

// A middleware's Vary is kept.
func TestVary(t *testing.T) {
	b := newBrowser(t, newHost(), nil)
	w := httptest.NewRecorder()
	w.Header().Set("Vary", "Accept-Encoding")
	b.ServeHTTP(w, httptest.NewRequest("GET", "/account/forgot", nil))
	if got := strings.Join(w.Result().Header.Values("Vary"), ", "); got != "Accept-Encoding, Accept-Language" {
		t.Errorf("Vary: %s", got)
	}
}

// Mail is in the user's language, or in that of the page where there is none,
// and leads to where the config says, whatever the request does.
func TestPagesToMail(t *testing.T) {
	for _, tt := range []struct{ user, page, resetURL, lang, link string }{
		{"de", "ja", "", "de", baseURL + "/reset"},
		{"", "ja", "", "ja", baseURL + "/reset"},
		{"", "tlh", "https://app.example.com/app/new-password", "en", "https://app.example.com/app/new-password"},
	} {
		synctest.Test(t, func(t *testing.T) {
			kim := reset.User{ID: "7", Email: "kim@example.com", Locale: tt.user}
			b := newBrowser(t, newHost(kim), func(c *reset.Config) { c.ResetURL = tt.resetURL })
			r := httptest.NewRequest("POST", "/account/forgot", strings.NewReader("email=kim@example.com"))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Accept-Language", tt.page)
			r.Host = "evil.example"
			r.Header.Set("X-Forwarded-Host", "evil.example")
			r.Header.Set("Forwarded", "host=evil.example")
			b.ServeHTTP(httptest.NewRecorder(), r)
			b.run()
			m, err := b.mailer.Wait(t.Context(), kim.Email)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(m.HTML, `<html lang="`+tt.lang+`"`) {
				t.Errorf("%+v: the mail is\n%s", tt, m.HTML)
			}
			link, query, _ := strings.Cut(m.Link, "?")
			if link != tt.link || !strings.HasPrefix(query, "activation=") {
				t.Errorf("%+v: the mail leads to %s", tt, m.Link)
			}
			for _, part := range []string{m.Text, html.UnescapeString(m.HTML)} {
				if !strings.Contains(part, m.Link) || strings.Contains(part, "evil") {
					t.Errorf("%+v: want the link %s in\n%s", tt, m.Link, part)
				}
			}
		})
	}
}
