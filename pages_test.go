package reset_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

const (
	cookieName      = "__Host-reset"
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
	b := &browser{newTrusted(t, h, edit), make(map[string]string)}
	b.Handler = http.StripPrefix("/account", b.svc.Pages())
	return b
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
	r := httptest.NewRequest("POST", "https://app.example.com/account"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.send(r)
}

// open opens a mailed link, is led to the form and returns what binds that.
func (b *browser) open(path, activation string) (check string) {
	b.Helper()
	b.wantRedirect(b.get(path+"?activation="+activation), path)
	w := b.get(path)
	match := checkField.FindStringSubmatch(w.Body.String())
	if w.Code != 200 || match == nil {
		b.Fatalf("GET %s: got %d %q", path, w.Code, heading(w))
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
	b.Helper()
	if want := say(b, name+".title"); w.Code != status || heading(w) != want {
		b.Errorf("got %d %q, want %d %q", w.Code, heading(w), status, want)
	}
	wantPageHeaders(b.T, w)
	if got := w.Result().Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		b.Errorf("got Content-Type %q", got)
	}
	if got := w.Result().Header.Get("Referrer-Policy"); got != "same-origin" {
		b.Errorf("got Referrer-Policy %q, want same-origin", got)
	}
}

func (b *browser) wantRedirect(w *httptest.ResponseRecorder, path string) {
	b.Helper()
	if got := w.Result().Header.Get("Location"); w.Code != 303 || got != baseURL+path || w.Body.Len() > 0 {
		b.Errorf("got %d, Location %q, body %q, want 303 to %s", w.Code, got, w.Body, baseURL+path)
	}
	wantPageHeaders(b.T, w)
}

func wantPageHeaders(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Robots-Tag": "noindex",
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
	b.Helper()
	b.wantPage(w, 400, page)
	body := html.UnescapeString(w.Body.String())
	if !strings.Contains(body, `id="`+field+`-error"`) || !strings.Contains(body, problem) {
		b.Errorf("the page does not say %q at %s", problem, field)
	}
}

func (b *browser) wantPassword(u reset.User, want string) {
	b.Helper()
	if got := b.host.password(u.ID); got != want {
		b.Errorf("user %s: got password %q, want %q", u.ID, got, want)
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
		{"/reset", "invalid", "GET, HEAD, POST", 400},
		{"/done", "done", "GET, HEAD", 200},
		{"/revoke", "invalid", "GET, HEAD, POST", 400},
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
	if finds, hashes, sets := b.host.calls(); finds+hashes+sets > 0 || writes(b.store) > 0 {
		t.Errorf("moved something: %s", b.moved())
	}
}

// The mount may be the root, and a slash at the end of BaseURL makes no odds.
func TestPagesMount(t *testing.T) {
	for _, base := range []string{"https://app.example.com", "https://app.example.com/", "https://app.example.com/a/b/", "https://app.example.com//"} {
		svc, _, _ := newService(t, newHost(), func(c *reset.Config) { c.BaseURL = base })
		w := httptest.NewRecorder()
		svc.Pages().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if got, want := w.Result().Header.Get("Location"), strings.TrimRight(base, "/")+"/forgot"; got != want {
			t.Errorf("BaseURL %s: got Location %q, want %q", base, got, want)
		}
	}
}

func TestPagesReset(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	activation := b.activation(ann)
	check := b.open("/reset", activation)
	w := b.submit("/reset", "check", check, "password", goodPassword, "confirm", goodPassword)
	b.wantRedirect(w, "/done")
	b.wantPassword(ann, goodPassword)
	// It signs nobody in: its only cookie is one that is taken away.
	if got := w.Result().Header.Values("Set-Cookie"); len(got) != 1 || got[0] != cookieName+"=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax" {
		t.Errorf("got Set-Cookie %q", got)
	}
	b.wantPage(b.get("/done"), 200, "done")
	b.wantPage(b.get("/reset"), 400, "invalid")
	if got := b.queued(); got != 1 {
		t.Errorf("%d mails are queued, want the notification", got)
	}

	// The link again, then the form that the back button brings.
	b.wantRedirect(b.get("/reset?activation="+activation), "/reset")
	b.wantPage(b.get("/reset"), 400, "invalid")
	b.wantPage(b.submit("/reset", "check", check, "password", "another password", "confirm", "another password"), 400, "reopen")
	b.cookies[cookieName] = activation
	b.wantPage(b.submit("/reset", "check", check, "password", "another password", "confirm", "another password"), 400, "invalid")
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
			want := cookieName + "=" + activation + "; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"
			if got := w.Result().Header.Values("Set-Cookie"); len(got) != 1 || got[0] != want {
				t.Errorf("%s: got Set-Cookie %q, want %q", path, got, want)
			}
		}
		<-time.After(time.Hour - 1500*time.Millisecond)
		w := b.get("/reset?activation=" + activation)
		if got := w.Result().Cookies(); len(got) != 1 || got[0].MaxAge != 1 {
			t.Errorf("1.5 s before it expires: got cookies %v", got)
		}
		<-time.After(time.Second)
		w = b.get("/reset?activation=" + activation) // a Max-Age of 0 would mean no end
		if got := w.Result().Cookies(); len(got) != 1 || got[0].MaxAge != -1 {
			t.Errorf("0.5 s before it expires: got cookies %v", got)
		}
	})
}

// Whatever is no activation leads to the same place and leaves no cookie.
func TestPagesBadLink(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	for _, query := range []string{
		"activation=", "activation", "activation=x", "activation=" + strings.Repeat("A", 24), "activation=" + strings.Repeat("A", 10_000), "activation=%0d%0aSet-Cookie:%20x=y",
	} {
		b.open("/reset", b.activation(ann))
		w := b.get("/reset?" + query)
		b.wantRedirect(w, "/reset")
		want := cookieName + "=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax"
		if got := w.Result().Header.Values("Set-Cookie"); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got Set-Cookie %q, want %q", query, got, want)
		}
		b.wantPage(b.get("/reset"), 400, "invalid")
	}
}

func TestPagesLoopback(t *testing.T) {
	svc, _, _ := newService(t, newHost(ann), func(c *reset.Config) { c.BaseURL = "http://localhost:8080" })
	activation, err := svc.RequestReset(t.Context(), ann.Email, reset.RequestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	svc.Pages().ServeHTTP(w, httptest.NewRequest("GET", "/reset?activation="+activation, nil))
	c := w.Result().Cookies()
	if len(c) != 1 || c[0].Name != "reset" || c[0].Secure || !c[0].HttpOnly || c[0].SameSite != http.SameSiteLaxMode || c[0].Path != "/" || c[0].Domain != "" || c[0].Value != activation {
		t.Errorf("got cookies %v", c)
	}
	if got := w.Result().Header.Get("Location"); got != "http://localhost:8080/reset" {
		t.Errorf("got Location %q", got)
	}
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
		b.wantPage(b.do(r), 400, "invalid")
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
	before := writes(b.store)
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
	if got := writes(b.store); got != before {
		t.Errorf("%d writes of the store", got-before)
	}
	check := b.open("/reset", activation)
	b.wantRedirect(b.submit("/reset", "check", check, "password", goodPassword, "confirm", goodPassword), "/done")
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
		before := writes(b.store)
		for _, c := range []string{check, "", check[:len(check)-1], check + "A", strings.Repeat("A", len(check)), mine} {
			w := b.submit(path, "check", c, "password", goodPassword, "confirm", goodPassword)
			b.wantPage(w, 400, "reopen")
		}
		if got := writes(b.store); got != before {
			t.Errorf("%s: %d writes of the store", path, got-before)
		}
		b.wantPassword(ann, "")
		b.wantPassword(bob, "")

		check = b.open("/reset", mine)
		b.wantRedirect(b.submit("/reset", "check", check, "password", goodPassword, "confirm", goodPassword), "/done")
		b.wantPassword(ann, goodPassword)
		b.wantPassword(bob, "")
	}
}

func TestPagesConfirm(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	check := b.open("/reset", b.activation(ann))
	for _, tt := range []struct{ password, confirm, field, problem string }{
		{"", "", "password", "missing"},
		{"", goodPassword, "password", "missing"},
		{goodPassword, "", "confirm", "differs"},
		{goodPassword, goodPassword + " ", "confirm", "differs"},
		{goodPassword, strings.ToUpper(goodPassword), "confirm", "differs"},
		{"caf\u00e9 caf\u00e9", "cafe\u0301 cafe\u0301", "confirm", "differs"},
	} {
		w := b.submit("/reset", "check", check, "password", tt.password, "confirm", tt.confirm)
		b.wantProblem(w, "choose", tt.field, say(t, "problem."+tt.field+"."+tt.problem))
		if tt.password != "" && strings.Contains(w.Body.String(), tt.password) {
			t.Errorf("the page shows the password")
		}
		if match := checkField.FindStringSubmatch(w.Body.String()); match == nil || match[1] != check {
			t.Errorf("the form is bound to %q, want %q", match, check)
		}
	}
	if _, hashes, _ := b.host.calls(); hashes > 0 {
		t.Errorf("hashed %d times", hashes)
	}
	b.wantRedirect(b.submit("/reset", "check", check, "password", goodPassword, "confirm", goodPassword), "/done")
}

// refuseBreached is a CheckPassword.
func refuseBreached(_ context.Context, _ reset.User, password string) error {
	switch password {
	case "breached password":
		return &reset.PasswordError{Reason: "breached", Message: `Found in a "breach" <once>.`}
	case "refused password":
		return &reset.PasswordError{Reason: "refused"}
	}
	return nil
}

func TestPagesPasswords(t *testing.T) {
	b := newBrowser(t, newHost(ann), func(c *reset.Config) { c.CheckPassword = refuseBreached })
	check := b.open("/reset", b.activation(ann))
	for _, tt := range []struct{ password, problem string }{
		{"short", say(t, "problem.password.too_short", "n", 8)},
		{strings.Repeat("nine grey ", 30), say(t, "problem.password.too_long", "n", 256)},
		{"password", say(t, "problem.password.common")},
		{"ann@example.com", say(t, "problem.password.address")},
		{"nine grey\xffherons", say(t, "problem.password.invalid")},
		{"nine grey\x00herons", say(t, "problem.password.invalid")},
		{"refused password", say(t, "problem.password.refused")},
		{"breached password", `Found in a "breach" <once>.`},
	} {
		w := b.submit("/reset", "check", check, "password", tt.password, "confirm", tt.password)
		b.wantProblem(w, "choose", "password", tt.problem)
		if strings.Contains(w.Body.String(), "<once>") {
			t.Errorf("a message is markup")
		}
	}
	if _, hashes, _ := b.host.calls(); hashes > 0 {
		t.Errorf("hashed %d times", hashes)
	}
	const password = "  🦉 & <nine> + grey%20herons "
	b.wantRedirect(b.submit("/reset", "check", check, "password", password, "confirm", password), "/done")
	b.wantPassword(ann, password)
}

func TestPagesRevoke(t *testing.T) {
	b := newBrowser(t, newHost(ann, bob), nil)
	activation, sibling, other := b.activation(ann), b.activation(ann), b.activation(bob)
	check := b.open("/revoke", activation)
	w := b.submit("/revoke", "check", check)
	b.wantRedirect(w, "/revoked")
	if got := w.Result().Cookies(); len(got) != 1 || got[0].MaxAge != -1 {
		t.Errorf("got cookies %v", got)
	}
	b.wantPage(b.get("/revoked"), 200, "revoked")
	for _, a := range []string{activation, sibling} {
		if err := b.svc.ChangePassword(t.Context(), a, goodPassword); !errors.Is(err, reset.ErrInvalidActivation) {
			t.Errorf("a revoked activation: got %v", err)
		}
	}
	if err := b.svc.ChangePassword(t.Context(), other, goodPassword); err != nil {
		t.Errorf("somebody else's activation: %v", err)
	}
	if got := b.logged("revoked_by_user"); got != 1 {
		t.Errorf("%d events revoked_by_user, want 1", got)
	}
	b.wantPage(b.submit("/revoke", "check", check), 400, "reopen")
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
		before := writes(b.store)
		w := b.submit("/forgot", "email", tt.email)
		if strings.Contains(w.Body.String(), "<script>alert") || w.Body.Len() > 40_000 {
			t.Errorf("%.40q: the page repeats it", tt.email)
		}
		if tt.problem == "" {
			b.wantPage(w, 200, "sent")
		} else {
			b.wantProblem(w, "forgot", "email", say(t, "problem.email."+tt.problem))
		}
		if got, want := writes(b.store)-before, tt.problem == ""; (got == 1) != want {
			t.Errorf("%.40q: %d writes of the store", tt.email, got)
		}
	}
	if finds, _, _ := b.host.calls(); finds > 0 {
		t.Errorf("FindByEmail was called %d times", finds)
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
		{"/revoke", `{"activation":"` + activation() + `"}`, 400, badRequestBody}, // used up by the change above
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
		forgot := func(client string) *httptest.ResponseRecorder {
			r := formRequest("/forgot", "email", "ann@example.com")
			r.RemoteAddr = client
			return b.send(r)
		}
		b.wantPage(forgot("192.0.2.7:1"), 200, "sent")
		b.wantPage(forgot("192.0.2.7:2"), 200, "sent")
		before := writes(b.store)
		w := forgot("192.0.2.7:3")
		b.wantPage(w, 429, "limited")
		if got := w.Result().Header.Get("Retry-After"); got != "30" {
			t.Errorf("got Retry-After %q, want 30", got)
		}
		r := formRequest("/forgot")
		r.Body = io.NopCloser(strings.NewReader(`{"email":"nobody@example.com"}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Forwarded-For", "192.0.2.99") // of nobody whom the host trusts
		r.RemoteAddr = "192.0.2.7:4"
		if w := b.send(r); w.Code != 429 || w.Body.String() != tooManyBody || w.Result().Header.Get("Retry-After") != "30" {
			t.Errorf("got %d %s, Retry-After %q", w.Code, w.Body, w.Result().Header.Get("Retry-After"))
		}
		if got := writes(b.store); got != before {
			t.Errorf("%d writes of the store", got-before)
		}
		b.wantPage(forgot("192.0.2.8:1"), 200, "sent")
		w = forgot("@") // not an IP address
		b.wantPage(w, 500, "failed")
	})
}

// A body may only come from the origin's own pages, as a form or as JSON.
func TestPagesForeignPosts(t *testing.T) {
	form, jsonType := "application/x-www-form-urlencoded", "application/json"
	for _, tt := range []struct {
		name, kind, origin, site string
		status                   int
	}{
		{"own form", form, "https://app.example.com", "same-origin", 200},
		{"own form, an old browser", form, "https://app.example.com", "", 200},
		{"own form, no header at all", form, "", "", 200},
		{"own JSON", jsonType, "https://app.example.com", "same-origin", 200},
		{"typed by hand", form, "", "none", 200},
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
			w := b.send(r)
			if w.Code != tt.status {
				t.Errorf("got %d, want %d", w.Code, tt.status)
			}
			if tt.status == 403 && tt.kind == jsonType && w.Body.String() != crossOriginBody {
				t.Errorf("got %s", w.Body)
			}
			wantPageHeaders(t, w)
			if got := writes(b.store) == 1; got != (tt.status == 200) {
				t.Errorf("the public request was written down: %v", got)
			}
		})
	}
}

// Behind a proxy that rewrites Host the origin is known from BaseURL.
func TestPagesRewrittenHost(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	r := formRequest("/forgot", "email", "ann@example.com")
	r.Host = "10.0.0.5:8080"
	r.Header.Del("Sec-Fetch-Site")
	b.wantPage(b.send(r), 200, "sent")
}

func TestPagesFormSize(t *testing.T) {
	b := newBrowser(t, newHost(ann), nil)
	for _, tt := range []struct{ size, status int }{{16 << 10, 200}, {16<<10 + 1, 413}, {1 << 20, 413}} {
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
	fault := errors.New("disk full: /var/lib/app.db")
	for _, email := range []string{"ann@example.com", "nobody@example.com"} {
		on := false
		b := newBrowser(t, newHost(ann), func(c *reset.Config) {
			c.Store.(*resettest.FaultStore).Before = func(context.Context, string) error {
				return when(&on, func() error { return fault })
			}
		})
		activation := b.activation(ann)
		check := b.open("/reset", activation)
		on = true
		b.wantPage(b.submit("/forgot", "email", email), 500, "failed")
		if w := b.call("/forgot", fmt.Sprintf(`{"email":%q}`, email)); w.Code != 500 || w.Body.String() != unknownErrorBody {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		b.wantPage(b.get("/reset?activation="+activation), 500, "failed")
		b.wantPage(b.get("/reset"), 500, "failed")
		b.wantPage(b.submit("/reset", "check", check, "password", goodPassword, "confirm", goodPassword), 500, "failed")
		b.wantPage(b.get("/revoke"), 500, "failed")
		b.wantPage(b.submit("/revoke", "check", check), 500, "failed")
		on = false
		b.wantPage(b.submit("/forgot", "email", email), 200, "sent")
		b.wantRedirect(b.submit("/reset", "check", check, "password", goodPassword, "confirm", goodPassword), "/done")
		for _, secret := range []string{activation, goodPassword, "nobody@example.com"} {
			if strings.Contains(b.log.String(), secret) {
				t.Errorf("the log has %q: %s", secret, b.log)
			}
		}
	}
}

func TestPagesLimiterFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, newHost(ann), func(c *reset.Config) {
			c.PerClient = limiterFunc(func(ctx context.Context, _ string, _ time.Time) error {
				<-time.After(5 * time.Second)
				return nil
			})
		})
		check := b.open("/reset", b.activation(ann))
		for _, email := range []string{"ann@example.com", "nobody@example.com"} {
			start := time.Now()
			b.wantPage(b.submit("/forgot", "email", email), 500, "failed")
			if took := time.Since(start); took > 200*time.Millisecond {
				t.Errorf("took %v", took)
			}
		}
		b.wantRedirect(b.submit("/reset", "check", check, "password", goodPassword, "confirm", goodPassword), "/done")
		<-time.After(5 * time.Second)
	})
}

func TestPagesPanics(t *testing.T) {
	on := false
	h := newHost(ann)
	h.onSet = func(context.Context, string) error {
		return when(&on, func() error { panic("secret: " + goodPassword) })
	}
	b := newBrowser(t, h, func(c *reset.Config) {
		c.ClientIP = func(*http.Request) string {
			if on {
				panic("secret: " + goodPassword)
			}
			return "client"
		}
	})
	activation := b.activation(ann)
	check := b.open("/reset", activation)
	on = true
	b.wantPage(b.submit("/forgot", "email", "ann@example.com"), 500, "failed")
	w := b.submit("/reset", "check", check, "password", goodPassword, "confirm", goodPassword)
	b.wantPage(w, 500, "failed")
	if strings.Contains(w.Body.String(), "goroutine") || strings.Contains(w.Body.String(), goodPassword) {
		t.Errorf("the page tells of the panic: %s", w.Body)
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
	if got := b.logged("panic"); got != 4 || strings.Contains(b.log.String(), goodPassword) {
		t.Errorf("%d events panic: %s", got, b.log)
	}
	on = false
	b.wantRedirect(b.submit("/reset", "check", check, "password", goodPassword, "confirm", goodPassword), "/done")
}

// raw sends a request over a connection and returns all that comes back.
func raw(t *testing.T, c net.Conn, head, body string) string {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		fmt.Fprintf(c, "%sHost: app.example.com\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", head, len(body), body)
	})
	got, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	c.Close()
	wg.Wait()
	return string(got)
}

// failingMailer is a mail server that is down, or one that hangs.
type failingMailer struct{ hang bool }

func (m failingMailer) Send(ctx context.Context, _ reset.Message) error {
	if m.hang {
		<-ctx.Done()
	}
	return errors.New("connection refused")
}

// What the public gets to see is equal to the byte, and as fast, whoever has
// the address and however things stand with the mail.
func TestPagesTellNothing(t *testing.T) {
	classes := []struct {
		name  string
		users []reset.User
		plant func(*host, *reset.Config)
		live  int // requests
	}{
		{name: "unknown"},
		{name: "known", users: []reset.User{ann}},
		{name: "disabled", users: []reset.User{ann}, plant: func(h *host, _ *reset.Config) {
			h.onFind = func(context.Context, string) error { return reset.ErrNoUser }
		}},
		{name: "capped", users: []reset.User{ann}, live: 3},
		{name: "mail server down", users: []reset.User{ann}, plant: func(_ *host, c *reset.Config) { c.Mailer = failingMailer{} }},
		{name: "mail server hangs", users: []reset.User{ann}, plant: func(_ *host, c *reset.Config) { c.Mailer = failingMailer{hang: true} }},
		{name: "accounts slow", users: []reset.User{ann}, plant: func(h *host, _ *reset.Config) {
			h.onFind = func(context.Context, string) error {
				<-time.After(2 * time.Second)
				return nil
			}
		}},
		{name: "accounts down", users: []reset.User{ann}, plant: func(h *host, _ *reset.Config) {
			h.onFind = func(context.Context, string) error { return errors.New("connection refused") }
		}},
		{name: "accounts panic", users: []reset.User{ann}, plant: func(h *host, _ *reset.Config) {
			h.onFind = func(context.Context, string) error { panic("find") }
		}},
	}
	requests := [][2]string{
		{"POST /forgot HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n", "email=ann%40example.com"},
		{"POST /forgot HTTP/1.1\r\nContent-Type: application/json\r\n", `{"email":"ann@example.com"}`},
		{"POST /forgot HTTP/1.1\r\nContent-Type: application/json\r\n", `{"email":"ANN@Example.com"}`}, // again, while the first are at work
	}
	var want []string
	for _, class := range classes {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(class.users...)
			store := new(resettest.FaultStore)
			svc, mem, _ := newService(t, h, func(c *reset.Config) {
				store.Store, c.Store = c.Store, store
				if class.plant != nil {
					class.plant(h, c)
				}
			})
			for i := range class.live {
				a := reset.Activation{Hash: reset.Hash{byte(i)}, Request: reset.ID{byte(i)}, UserID: ann.ID, Email: ann.Email, Expires: time.Now().Add(time.Hour)}
				if err := mem.Issue(t.Context(), time.Now(), a, 3, nil); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { svc.Run(ctx) })
			dial, stop := serve(svc.Pages())

			var got []string
			start := time.Now()
			for range 4 {
				for _, r := range requests {
					before := time.Now()
					got = append(got, raw(t, dial(), r[0], r[1]))
					if took := time.Since(before); took > 0 {
						t.Errorf("%s: an answer took %v", class.name, took)
					}
				}
				<-time.After(1700 * time.Millisecond)
			}
			if writes(store) == 0 || time.Since(start) < time.Second {
				t.Errorf("%s: nothing was asked", class.name)
			}
			cancel()
			stop()
			wg.Wait()

			if want == nil {
				want = got
				for i, a := range got {
					if !strings.HasPrefix(a, "HTTP/1.1 200 OK\r\n") {
						t.Errorf("answer %d is %.100q", i, a)
					}
				}
			}
			for i := range got {
				if got[i] != want[i] {
					t.Errorf("%s, answer %d: got %q, want %q", class.name, i, got[i], want[i])
				}
			}
		})
	}
}

// A host that stands behind a proxy and does not know it is told so once.
func TestPagesProxyWarning(t *testing.T) {
	for _, tt := range []struct {
		name, remote, forwarded string
		clientIP                func(*http.Request) string
		want                    int
	}{
		{"a proxy", "10.0.0.5:4711", "192.0.2.1", nil, 1},
		{"an IPv6 proxy", "[fd00::5]:4711", "192.0.2.1", nil, 1},
		{"no proxy", "10.0.0.5:4711", "", nil, 0},
		{"a client with a header of its own", "192.0.2.1:4711", "10.0.0.5", nil, 0},
		{"a proxy that is known", "10.0.0.5:4711", "192.0.2.1", reset.ClientIPBehind(netip.MustParsePrefix("10.0.0.0/8")), 0},
	} {
		var log bytes.Buffer
		svc, _, _ := newService(t, newHost(), func(c *reset.Config) {
			c.ClientIP = tt.clientIP
			c.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		})
		for _, pages := range []http.Handler{svc.Pages(), svc.Pages()} {
			for range 3 {
				r := httptest.NewRequest("GET", "/forgot", nil)
				r.RemoteAddr = tt.remote
				if tt.forwarded != "" {
					r.Header.Set("X-Forwarded-For", tt.forwarded)
				}
				pages.ServeHTTP(httptest.NewRecorder(), r)
			}
		}
		if got := strings.Count(log.String(), `"event":"proxy_unknown"`); got != tt.want {
			t.Errorf("%s: warned %d times, want %d", tt.name, got, tt.want)
		}
	}
}

// What a middleware around the pages has said of Vary stays said.
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
			run(t, b.svc)
			m, err := b.mailbox.Wait(t.Context(), kim.Email)
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
