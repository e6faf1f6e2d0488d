package reset_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

const (
	resetPath = "/v1/auth/reset-password"
	newPath   = "/v1/auth/new-password"

	goodPassword = "nine grey herons"
)

// The answers, byte for byte.
const (
	okBody           = `{"message":"ok"}`
	badRequestBody   = `{"error":"BAD_REQUEST","message":"One or more body params are invalid."}`
	tooManyBody      = `{"error":"TOO_MANY_REQUESTS","message":"It seems that you send too much requests. Please check your inbox to reset your pasword."}`
	unknownErrorBody = `{"error":"UNKNOWN_ERROR","message":"An unknown error has occured."}`
	unauthorizedBody = `{"error":"UNAUTHORIZED","message":"The API key is missing or invalid."}`
	forbiddenBody    = `{"error":"FORBIDDEN","message":"Browsers may not call this endpoint."}`
	methodBody       = `{"error":"METHOD_NOT_ALLOWED","message":"Use POST."}`
	notFoundBody     = `{"error":"NOT_FOUND","message":"Not found."}`
)

func newTrusted(t *testing.T, h *host, edit func(*reset.Config)) *trusted {
	t.Helper()
	f := &trusted{T: t, host: h, log: new(bytes.Buffer)}
	f.svc, f.mem, f.mailbox = newService(t, h, func(c *reset.Config) {
		f.store = &resettest.FaultStore{Store: c.Store}
		c.Store = f.store
		c.Logger = slog.New(slog.NewJSONHandler(f.log, nil))
		if edit != nil {
			edit(c)
		}
	})
	f.Handler = f.svc.Handler()
	return f
}

func newPassword(activation, password string) string {
	body, err := json.Marshal(map[string]string{"requestId": activation, "newPassword": password})
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(body)
}

// wantAnswer compares status, body and the whole set of headers, of which some
// are expected of every answer.
func wantAnswer(t *testing.T, w *httptest.ResponseRecorder, status int, body string, headers ...string) {
	t.Helper()
	if w.Code != status || w.Body.String() != body {
		t.Errorf("got %d %s, want %d %s", w.Code, w.Body, status, body)
	}
	want := []string{
		"Content-Type: application/json; charset=utf-8", "Cache-Control: no-store", "X-Content-Type-Options: nosniff",
		"Content-Length: " + strconv.Itoa(len(body)),
	}
	want = append(want, headers...)
	slices.Sort(want)
	if got := headerLines(w.Result().Header); !slices.Equal(got, want) {
		t.Errorf("got headers %q, want %q", got, want)
	}
}

func headerLines(h http.Header) (lines []string) {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			lines = append(lines, name+": "+value)
		}
	}
	slices.Sort(lines)
	return lines
}

func TestContract(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)

	w := f.post(resetPath, `{"email":"ann@example.com"}`)
	activation := strings.TrimSuffix(strings.TrimPrefix(w.Body.String(), `{"activation":"`), `"}`)
	wantAnswer(t, w, 200, `{"activation":"`+activation+`"}`)
	if len(activation) != 24 || strings.Trim(activation, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		t.Errorf("got activation %q, want 24 characters of base64url", activation)
	}
	wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 200, okBody)
	if got := f.host.password(ann.ID); got != goodPassword {
		t.Errorf("got password %q, want %q", got, goodPassword)
	}
	wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 400, badRequestBody)
	if got := f.queued(); got != 1 {
		t.Errorf("%d mails are queued, want only the notification", got)
	}
}

func TestContractMount(t *testing.T) {
	f := newTrusted(t, newHost(), nil)
	f.Handler = http.StripPrefix("/api", f.Handler)
	wantAnswer(t, f.post("/api"+resetPath, `{"email":"x@example.com"}`), 200, okBody)
}

func TestContractUnknownUser(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	for range 10 {
		wantAnswer(t, f.post(resetPath, `{"email":"nobody@example.com","maxRequests":1}`), 200, okBody)
	}
	if writes(f.store) != 0 || f.queued() != 0 {
		t.Errorf("an unknown address left something behind: %s", f.moved())
	}
}

func TestContractPreventEmailSending(t *testing.T) {
	for _, tt := range []struct {
		body string
		want int // mails
	}{
		{`{"email":"ann@example.com"}`, 1},
		{`{"email":"ann@example.com","preventEmailSending":false}`, 1},
		{`{"email":"ann@example.com","preventEmailSending":true}`, 0},
	} {
		f := newTrusted(t, newHost(ann), nil)
		if w := f.post(resetPath, tt.body); w.Code != 200 {
			t.Errorf("%s: got %d", tt.body, w.Code)
		}
		if got := f.queued(); got != tt.want {
			t.Errorf("%s: %d mails, want %d", tt.body, got, tt.want)
		}
	}
}

// The members that are not known are ignored, whatever they hold.
func TestContractAccepts(t *testing.T) {
	for _, body := range []string{
		`{"email":"ann@example.com"}`,
		" {\"email\" :\t\"ann@example.com\"}\r\n",
		`{"email":"ANN@Example.COM"}`,
		`{"\u0065mail":"ann@example.com"}`,
		`{"email":"\u200f ann@example.com\u00a0"}`,
		`{"email":"ann@example.com","maxRequests":1}`,
		`{"email":"ann@example.com","maxRequests":100}`,
		`{"email":"ann@example.com","Email":"bob@example.com","EMAIL":null}`,
		`{"email":"ann@example.com","MaxRequests":0,"maxrequest\u017f":0}`,
		`{"email":"ann@example.com","x":null,"y":[1e400,{"email":1}],"z":{"maxRequests":0}}`,
	} {
		f := newTrusted(t, newHost(ann, bob), nil)
		w := f.post(resetPath, body)
		if w.Code != 200 || !strings.HasPrefix(w.Body.String(), `{"activation":"`) || w.Body.Len() != len(`{"activation":""}`)+24 {
			t.Errorf("%s: got %d %s", body, w.Code, w.Body)
		}
	}
}

func TestContractRefuses(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	activation := f.activation(ann)
	address := func(s string) string { return fmt.Sprintf(`{"email":"%s"}`, s) }
	tables := map[string][]string{
		resetPath: {
			``, ` `, `null`, `[]`, `1`, `"email"`, `true`, `{}`, `{`, `{"email"}`,
			`{"email":""}`, `{"email":" "}`, `{"email":["ann@example.com"]}`, `{"email":{"a":1}}`, `{"email":1}`, `{"email":null}`, `{"email":true}`,
			address("ann"), address("@example.com"), address("ann@"), address("ann@@example.com"),
			address("ann@example.com,bob@example.com"), address("ann@example.com;bob@example.com"), address("ann@example.com bob@example.com"),
			address("Ann <ann@example.com>"), address("<ann@example.com>"), address("ann(x)@example.com"), address(`\"ann\"@example.com`), address("ann@[127.0.0.1]"),
			address("ann @example.com"), address("<ann@example.com>"), address("ann＠example.com"), address(`ann@example.com\r\nBcc: bob@example.com`), address(`ann\t@example.com`), address(`ann\u0000@example.com`),
			address(strings.Repeat("a", 65) + "@example.com"), address("a@" + strings.Repeat("a", 64) + ".com"), address("a@" + strings.Repeat("abcdefg.", 32) + "com"),
			`{"Email":"ann@example.com"}`, `{"EMAIL":"ann@example.com"}`, `{"ema\u0131l":"ann@example.com"}`,
			`{"email":"ann@example.com","email":"ann@example.com"}`, `{"email":"ann@example.com","\u0065mail":"ann@example.com"}`, `{"email":"ann@example.com","x":1,"x":1}`,
			`{"email":"ann@example.com"}{}`, `{"email":"ann@example.com"} x`, `{"email":"ann@example.com"}]`, `{"email":"ann@example.com",}`,
			"\ufeff" + address("ann@example.com"), "\xff\xfe{\x00}\x00", address("ann\xff@example.com"), address(`ann\ud800@example.com`), `{"email":"ann@example.com","x":"` + "\x80" + `"}`,
			strings.Repeat(`[`, 10_000), strings.Repeat(`{"a":`, 3000),
			`{"email":"ann@example.com","maxRequests":0}`, `{"email":"ann@example.com","maxRequests":-1}`, `{"email":"ann@example.com","maxRequests":-0}`,
			`{"email":"ann@example.com","maxRequests":1.5}`, `{"email":"ann@example.com","maxRequests":3.0}`, `{"email":"ann@example.com","maxRequests":3e0}`,
			`{"email":"ann@example.com","maxRequests":"3"}`, `{"email":"ann@example.com","maxRequests":03}`, `{"email":"ann@example.com","maxRequests":null}`,
			`{"email":"ann@example.com","maxRequests":[3]}`, `{"email":"ann@example.com","maxRequests":true}`, `{"email":"ann@example.com","maxRequests":101}`,
			`{"email":"ann@example.com","maxRequests":2147483648}`, `{"email":"ann@example.com","maxRequests":9223372036854775808}`, `{"email":"ann@example.com","maxRequests":18446744073709551619}`,
			`{"email":"ann@example.com","maxRequests":1e400}`,
			`{"email":"ann@example.com","preventEmailSending":"true"}`, `{"email":"ann@example.com","preventEmailSending":1}`, `{"email":"ann@example.com","preventEmailSending":null}`,
			`email=ann@example.com`, `<email>ann@example.com</email>`,
		},
		newPath: {
			``, `null`, `[]`, `{}`,
			`{"requestId":"` + activation + `"}`, `{"newPassword":"` + goodPassword + `"}`,
			`{"requestId":null,"newPassword":"` + goodPassword + `"}`, `{"requestId":["` + activation + `"],"newPassword":"` + goodPassword + `"}`,
			`{"requestId":"` + activation + `","newPassword":null}`, `{"requestId":"` + activation + `","newPassword":1234567890}`, `{"requestId":"` + activation + `","newPassword":["` + goodPassword + `"]}`,
			`{"requestid":"` + activation + `","newPassword":"` + goodPassword + `"}`, `{"requestId":"` + activation + `","newpassword":"` + goodPassword + `"}`,
			`{"requestId":"` + activation + `","requestId":"` + activation + `","newPassword":"` + goodPassword + `"}`,
			`{"requestId":"` + activation + `","newPassword":"` + goodPassword + `","newPassword":"another password"}`,
			`{"requestId":"` + activation + `","newPassword":"` + goodPassword + `\u0000"}`, `{"requestId":"` + activation + `","newPassword":"` + goodPassword + "\xff" + `"}`,
			newPassword(activation, goodPassword) + `{}`,
			// What has not the form of an activation is not even looked up.
			newPassword(strings.Repeat("A", 23), goodPassword), newPassword(strings.Repeat("A", 23)+"\n", goodPassword), newPassword(strings.Repeat("A", 24)+"\n", goodPassword), newPassword(strings.Repeat("A", 28), goodPassword),
			newPassword("", goodPassword), newPassword(activation[1:], goodPassword), newPassword(activation+"A", goodPassword), newPassword(activation+"=", goodPassword),
			newPassword(activation[:23]+"=", goodPassword), newPassword(activation[:23]+"+", goodPassword), newPassword(activation[:23]+"/", goodPassword),
			newPassword(activation[:23]+" ", goodPassword), newPassword(activation[:23]+"\n", goodPassword), newPassword(" "+activation, goodPassword), newPassword(activation[:22]+"é", goodPassword),
		},
	}
	before := f.moved()
	for path, bodies := range tables {
		for _, body := range bodies {
			w := f.post(path, body)
			wantAnswer(t, w, 400, badRequestBody)
			if after := f.moved(); after != before {
				t.Fatalf("%s %.80q moved something: %s; before: %s", path, body, after, before)
			}
			if t.Failed() {
				t.Fatalf("that was %s %.80q", path, body)
			}
		}
	}
	wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 200, okBody)
}

func TestContractInvalidActivation(t *testing.T) {
	f := newTrusted(t, newHost(ann, bob), nil)
	revoked, other := f.activation(bob), f.activation(ann)
	if err := f.svc.Revoke(t.Context(), bob.ID); err != nil {
		t.Fatal(err)
	}
	flipped := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, other)
	for name, activation := range map[string]string{
		"unknown": strings.Repeat("A", 24), "revoked": revoked, "flipped case": flipped,
	} {
		wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 400, badRequestBody)
		if finds, hashes, sets := f.host.calls(); hashes+sets > 0 {
			t.Errorf("%s: %d finds, %d hashes, %d sets", name, finds, hashes, sets)
		}
	}

	gone := f.activation(bob)
	f.host.remove(bob.Email)
	wantAnswer(t, f.post(newPath, newPassword(gone, goodPassword)), 400, badRequestBody)
	// Somebody else has the address now.
	f.host.put(reset.User{ID: "3", Email: bob.Email})
	wantAnswer(t, f.post(newPath, newPassword(gone, goodPassword)), 400, badRequestBody)
	if _, hashes, sets := f.host.calls(); hashes+sets > 0 {
		t.Errorf("%d hashes, %d sets", hashes, sets)
	}
}

func TestContractExpiry(t *testing.T) {
	for _, tt := range []struct {
		after  time.Duration
		status int
		body   string
	}{
		{time.Hour - time.Millisecond, 200, okBody},
		{time.Hour, 400, badRequestBody},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newTrusted(t, newHost(ann), nil)
			activation := f.activation(ann)
			<-time.After(tt.after)
			wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), tt.status, tt.body)
		})
	}
}

// Somebody else's address in the body changes nothing for them.
func TestContractOwnAccountOnly(t *testing.T) {
	f := newTrusted(t, newHost(ann, bob), nil)
	body := fmt.Sprintf(`{"requestId":%q,"newPassword":%q,"email":"bob@example.com","userId":"2"}`, f.activation(ann), goodPassword)
	wantAnswer(t, f.post(newPath, body), 200, okBody)
	if got := f.host.password(ann.ID); got != goodPassword {
		t.Errorf("the holder's password is %q", got)
	}
	if got := f.host.password(bob.ID); got != "" {
		t.Errorf("somebody else's password is %q", got)
	}
}

func TestContractSiblings(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	first, second := f.activation(ann), f.activation(ann)
	wantAnswer(t, f.post(newPath, newPassword(first, goodPassword)), 200, okBody)
	wantAnswer(t, f.post(newPath, newPassword(second, "another password, later")), 400, badRequestBody)
	if got := f.host.password(ann.ID); got != goodPassword {
		t.Errorf("got password %q", got)
	}
}

func TestContractMethods(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	before := f.moved()
	for _, path := range []string{resetPath, newPath} {
		for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "post", "Post", "POSTS"} {
			r := postJSON(path, `{"email":"ann@example.com"}`)
			r.Method = method
			r.Header.Set("X-HTTP-Method-Override", "POST")
			r.URL.RawQuery = "_method=POST"
			wantAnswer(t, f.do(r), 405, methodBody, "Allow: POST")
		}
	}
	if after := f.moved(); after != before {
		t.Errorf("moved something: %s; before: %s", after, before)
	}

	r := postJSON(resetPath, `{"email":"nobody@example.com"}`)
	r.Header.Set("X-HTTP-Method-Override", "DELETE")
	wantAnswer(t, f.do(r), 200, okBody)
}

func TestContractPaths(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	for _, path := range []string{
		"/", "/v1/auth/", "/v1/auth/reset-password/", "/v1/auth/new-password/x", "/V1/auth/reset-password", "/v1/auth/Reset-Password", "/v1/auth//reset-password",
		"/v1/auth/reset", "/reset-password", "/v2/auth/reset-password", "/v1/auth/reset-password%20", "/v1/auth/x/../reset-password",
	} {
		for _, method := range []string{"POST", "GET"} {
			r := postJSON(path, `{"email":"ann@example.com"}`)
			r.Method = method
			wantAnswer(t, f.do(r), 404, notFoundBody)
		}
	}
}

func TestContractOrder(t *testing.T) {
	f := newTrusted(t, newHost(), nil)
	r := httptest.NewRequest("PUT", "/other", nil)
	r.Header.Set("Origin", "https://evil.example")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Content-Type", "text/plain")
	r.Header.Set("Authorization", "wrong")
	for _, tt := range []struct {
		repair  func()
		status  int
		body    string
		headers []string
	}{
		{func() {}, 404, notFoundBody, nil},
		{func() { r.URL.Path = resetPath }, 405, methodBody, []string{"Allow: POST"}},
		{func() { r.Method = "POST" }, 401, unauthorizedBody, []string{`Www-Authenticate: Bearer realm="reset"`}},
		{func() { r.Header.Set("Authorization", apiKey) }, 403, forbiddenBody, nil},
		{func() { r.Header.Del("Origin") }, 403, forbiddenBody, nil},
		{func() { r.Header.Del("Sec-Fetch-Site") }, 415, badRequestBody, nil},
	} {
		tt.repair()
		r.Body = io.NopCloser(unread{t})
		wantAnswer(t, f.do(r), tt.status, tt.body, tt.headers...)
	}
	if f.moved() != "store reads 0 writes 0 finds 0 hashes 0 sets 0 mails 0" {
		t.Errorf("moved something: %s", f.moved())
	}
}

func TestContractKeys(t *testing.T) {
	const second = "key-fedcba9876543210fedcba9876543210"
	f := newTrusted(t, newHost(ann), func(c *reset.Config) { c.APIKeys = []string{apiKey, second} })
	for _, tt := range []struct {
		values []string
		ok     bool
	}{
		{[]string{apiKey}, true},
		{[]string{second}, true},
		{[]string{"Bearer " + apiKey}, true},
		{[]string{"bearer " + second}, true},
		{nil, false},
		{[]string{""}, false},
		{[]string{"wrong"}, false},
		{[]string{"Bearer"}, false},
		{[]string{"Bearer "}, false},
		{[]string{"Bearer  " + apiKey}, false},
		{[]string{"Basic " + apiKey}, false},
		{[]string{"Bearer Bearer " + apiKey}, false},
		{[]string{apiKey[:len(apiKey)-1]}, false},
		{[]string{apiKey[1:]}, false},
		{[]string{apiKey + "0"}, false},
		{[]string{apiKey + apiKey}, false},
		{[]string{strings.ToUpper(apiKey)}, false},
		{[]string{strings.Repeat("k", 1<<20)}, false},
		{[]string{apiKey, apiKey}, false},
		{[]string{"wrong", apiKey}, false},
		{[]string{apiKey, "wrong"}, false},
		{[]string{apiKey + "," + second}, false},
		{[]string{apiKey + ", wrong"}, false},
	} {
		before := f.moved()
		r := postJSON(resetPath, `{"email":"nobody@example.com"}`)
		r.Header["Authorization"] = tt.values
		if tt.ok {
			wantAnswer(t, f.do(r), 200, okBody)
			continue
		}
		r.Body = io.NopCloser(unread{t})
		wantAnswer(t, f.do(r), 401, unauthorizedBody, `Www-Authenticate: Bearer realm="reset"`)
		if after := f.moved(); after != before {
			t.Errorf("Authorization %.60q moved something: %s; before: %s", tt.values, after, before)
		}
	}

	f = newTrusted(t, newHost(ann), func(c *reset.Config) { c.APIKeys = []string{second} })
	wantAnswer(t, f.post(resetPath, `{"email":"nobody@example.com"}`), 401, unauthorizedBody, `Www-Authenticate: Bearer realm="reset"`)
}

func TestHandlerNeedsKeys(t *testing.T) {
	svc, _, _ := newService(t, newHost(), func(c *reset.Config) { c.APIKeys = nil })
	defer func() {
		if recover() == nil {
			t.Error("Handler did not panic without a key")
		}
	}()
	svc.Handler()
}

func TestContractBrowsers(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	for _, header := range []string{"Origin", "Sec-Fetch-Site"} {
		for _, value := range []string{"", "null", "https://app.example.com", "same-origin", "none"} {
			r := postJSON(resetPath, `{"email":"ann@example.com"}`)
			r.Header.Set(header, value)
			r.Body = io.NopCloser(unread{t})
			wantAnswer(t, f.do(r), 403, forbiddenBody)
		}
	}
	r := postJSON(resetPath, `{"email":"nobody@example.com"}`)
	r.Header.Set("Sec-Fetch-Mode", "cors") // fetch on a server sends it
	wantAnswer(t, f.do(r), 200, okBody)
}
