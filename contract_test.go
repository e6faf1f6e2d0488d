package reset_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
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

// A trusted is the handler for back ends, with all that it could move.
type trusted struct {
	*testing.T
	http.Handler
	svc     *reset.Service
	host    *host
	store   *resettest.FaultStore
	mem     *resettest.MemStore
	mailbox *resettest.Mailbox
	log     *bytes.Buffer
}

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

func (f *trusted) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

func (f *trusted) post(path, body string) *httptest.ResponseRecorder {
	return f.do(postJSON(path, body))
}

// activation has one issued.
func (f *trusted) activation(u reset.User) string {
	f.Helper()
	activation, err := f.svc.RequestReset(f.Context(), u.Email, reset.RequestOptions{MaxRequests: 100, PreventEmailSending: true})
	if err != nil {
		f.Fatal(err)
	}
	return activation
}

// moved counts everything that a request could move.
func (f *trusted) moved() string {
	finds, hashes, sets := f.host.calls()
	return fmt.Sprint("store reads ", f.store.Calls("Find"), " writes ", writes(f.store),
		" finds ", finds, " hashes ", hashes, " sets ", sets, " mails ", len(f.mailbox.Messages()))
}

// queued returns how many mails are due by the end of a minute.
func (f *trusted) queued() int {
	f.Helper()
	now := time.Now().Add(time.Minute)
	mails, err := f.mem.Lease(f.Context(), now, now, 1000)
	if err != nil {
		f.Fatal(err)
	}
	return len(mails)
}

func (f *trusted) logged(event string) int {
	return strings.Count(f.log.String(), fmt.Sprintf(`"event":%q`, event))
}

func postJSON(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", apiKey)
	return r
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

// otherUsers finds the same user for every address, as a collation might.
type otherUsers struct {
	*host
	user reset.User
}

func (u otherUsers) FindByEmail(context.Context, string) (reset.User, error) { return u.user, nil }

func TestContractOtherAddress(t *testing.T) {
	h := newHost(ann)
	f := newTrusted(t, h, func(c *reset.Config) { c.Users = otherUsers{h, ann} })
	for _, address := range []string{"änn@example.com", "anna@example.com", "ann@example.com.example.com"} {
		wantAnswer(t, f.post(resetPath, fmt.Sprintf(`{"email":%q}`, address)), 200, okBody)
	}
	if writes(f.store) != 0 {
		t.Errorf("another address moved something: %s", f.moved())
	}
	if got := f.logged("user_mismatch"); got != 3 {
		t.Errorf("%d events user_mismatch, want 3", got)
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
			address(" ann@example.com"), address("ann@example.com "), address(`ann@example.com\r\nBcc: bob@example.com`), address(`ann\t@example.com`), address(`ann\u0000@example.com`),
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

// unread is a body that must not be read.
type unread struct{ t *testing.T }

func (b unread) Read([]byte) (int, error) {
	b.t.Error("the body was read")
	return 0, io.EOF
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

func TestContractMediaTypes(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	for _, tt := range []struct {
		types, encodings []string
		ok               bool
	}{
		{[]string{"application/json"}, nil, true},
		{[]string{"Application/JSON"}, nil, true},
		{[]string{"application/json; charset=utf-8"}, nil, true},
		{[]string{"application/json;charset=UTF-8"}, nil, true},
		{[]string{`application/json; charset="utf-8"`}, nil, true},
		{nil, nil, false},
		{[]string{""}, nil, false},
		{[]string{"text/plain"}, nil, false},
		{[]string{"text/json"}, nil, false},
		{[]string{"application/x-www-form-urlencoded"}, nil, false},
		{[]string{"multipart/form-data; boundary=x"}, nil, false},
		{[]string{"application/problem+json"}, nil, false},
		{[]string{"application/json; charset=latin1"}, nil, false},
		{[]string{"application/json; charset=utf-16"}, nil, false},
		{[]string{"application/json; charset="}, nil, false},
		{[]string{"application/json; charset=utf-8; charset=utf-16"}, nil, false},
		{[]string{"application/json, text/plain"}, nil, false},
		{[]string{"application/json", "application/json"}, nil, false},
		{[]string{"application/json"}, []string{"gzip"}, false},
		{[]string{"application/json"}, []string{"identity"}, false},
		{[]string{"application/json"}, []string{""}, false},
	} {
		r := postJSON(resetPath, `{"email":"nobody@example.com"}`)
		r.Header["Content-Type"] = tt.types
		if tt.encodings != nil {
			r.Header["Content-Encoding"] = tt.encodings
		}
		if tt.ok {
			wantAnswer(t, f.do(r), 200, okBody)
		} else {
			r.Body = io.NopCloser(unread{t})
			wantAnswer(t, f.do(r), 415, badRequestBody)
		}
		if t.Failed() {
			t.Fatalf("that was Content-Type %q, Content-Encoding %q", tt.types, tt.encodings)
		}
	}
}

func TestContractBodySize(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	fill := func(n int) string {
		body := `{"email":"nobody@example.com","x":""}`
		return body[:len(body)-2] + strings.Repeat("x", n-len(body)) + `"}`
	}
	for _, chunked := range []bool{false, true} {
		for _, tt := range []struct {
			size, status int
			body         string
			headers      []string
		}{
			{16<<10 - 1, 200, okBody, nil},
			{16 << 10, 200, okBody, nil},
			{16<<10 + 1, 413, badRequestBody, []string{"Connection: close"}},
			{1 << 20, 413, badRequestBody, []string{"Connection: close"}},
		} {
			r := postJSON(resetPath, fill(tt.size))
			if chunked {
				r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
			}
			wantAnswer(t, f.do(r), tt.status, tt.body, tt.headers...)
		}
	}
	if writes(f.store) != 0 {
		t.Errorf("moved something: %s", f.moved())
	}
}

// A pipeListener is a server's end of connections in memory.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	close sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.close.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "tcp" }
func (pipeAddr) String() string  { return "192.0.2.1:1234" }

// pipeConn has the address of a client, which net.Pipe has not.
type pipeConn struct{ net.Conn }

func (pipeConn) RemoteAddr() net.Addr { return pipeAddr{} }

// serve runs a real server for a handler. It returns a function that connects
// to it and one that stops it, both for use in the bubble that serve is called
// in.
func serve(h http.Handler) (dial func() net.Conn, stop func()) {
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	dial = func() net.Conn {
		client, server := net.Pipe()
		l.conns <- pipeConn{server}
		return client
	}
	return dial, func() {
		srv.Close()
		wg.Wait()
	}
}

const rawHead = "POST " + resetPath + " HTTP/1.1\r\nHost: app.example.com\r\nContent-Type: application/json\r\nAuthorization: " + apiKey + "\r\n"

// A body that comes byte by byte is waited for no longer than 10 s.
func TestContractDrippedBody(t *testing.T) {
	for _, head := range []string{
		rawHead + "Content-Length: 10000\r\n\r\n",
		rawHead + "Transfer-Encoding: chunked\r\n\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newTrusted(t, newHost(), nil)
			dial, stop := serve(f)
			defer stop()
			c := dial()
			var wg sync.WaitGroup
			defer wg.Wait()
			defer c.Close()
			drip := " "
			if strings.Contains(head, "chunked") {
				drip = "1\r\n \r\n"
			}
			wg.Go(func() {
				_, err := io.WriteString(c, head)
				for err == nil {
					<-time.After(time.Second)
					_, err = io.WriteString(c, drip)
				}
			})
			start := time.Now()
			got, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(got, []byte("HTTP/1.1 400 Bad Request\r\n")) || !bytes.HasSuffix(got, []byte("\r\n\r\n"+badRequestBody)) {
				t.Errorf("got %q", got)
			}
			if took := time.Since(start); took < 10*time.Second || took > 11*time.Second {
				t.Errorf("the answer took %v, want 10 s", took)
			}
			if f.moved() != "store reads 0 writes 0 finds 0 hashes 0 sets 0 mails 0" {
				t.Errorf("moved something: %s", f.moved())
			}
		})
	}
}

// A body that never ends is read hardly further than the limit: net/http itself
// takes another 256 KiB, for the sake of clients that read no answer before they
// have sent everything.
func TestContractEndlessBody(t *testing.T) {
	const chunk = 1 << 10
	for _, most := range []int{17, 1 << 20} { // chunks until the client stalls
		synctest.Test(t, func(t *testing.T) {
			f := newTrusted(t, newHost(), nil)
			dial, stop := serve(f)
			defer stop()
			c := dial()
			sent := 0
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := io.WriteString(c, rawHead+"Transfer-Encoding: chunked\r\n\r\n")
				for err == nil && sent < most {
					_, err = fmt.Fprintf(c, "%x\r\n%*s\r\n", chunk, chunk, "")
					sent++
				}
			})
			start := time.Now()
			got := make([]byte, 4<<10)
			n, err := c.Read(got)
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > 0 {
				t.Errorf("the answer took %v", took)
			}
			got = got[:n]
			if !bytes.HasPrefix(got, []byte("HTTP/1.1 413 Request Entity Too Large\r\n")) || !bytes.HasSuffix(got, []byte("\r\n\r\n"+badRequestBody)) {
				t.Errorf("got %q", got)
			}
			rest, err := io.ReadAll(c)
			if err != nil || len(rest) > 0 {
				t.Errorf("then got %q, %v", rest, err)
			}
			if took := time.Since(start); took > 11*time.Second {
				t.Errorf("the connection was held for %v", took)
			}
			c.Close()
			wg.Wait()
			if sent > 300 {
				t.Errorf("%d KiB were taken", sent)
			}
		})
	}
}

func TestContractConflictingLengths(t *testing.T) {
	for _, lengths := range []string{
		"Content-Length: 2\r\nContent-Length: 31\r\n", "Content-Length: -1\r\n", "Content-Length: 31, 31\r\n", "Transfer-Encoding: gzip, chunked\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newTrusted(t, newHost(ann), nil)
			dial, stop := serve(f)
			defer stop()
			c := dial()
			defer c.Close()
			go io.WriteString(c, rawHead+lengths+"\r\n"+`{"email":"nobody@example.com"}`)
			status := make([]byte, len("HTTP/1.1 400"))
			if _, err := io.ReadFull(c, status); err != nil {
				t.Fatal(err)
			}
			if got := string(status); got == "HTTP/1.1 200" {
				t.Errorf("%q: got %s", lengths, got)
			}
			if f.moved() != "store reads 0 writes 0 finds 0 hashes 0 sets 0 mails 0" {
				t.Errorf("%q moved something: %s", lengths, f.moved())
			}
		})
	}
}

// A client that hangs up halfway through its body has moved nothing.
func TestContractTruncatedBody(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	r := postJSON(resetPath, "")
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"email":"ann@example.com"}`), iotest.ErrReader(io.ErrUnexpectedEOF)))
	wantAnswer(t, f.do(r), 400, badRequestBody, "Connection: close")
	if f.moved() != "store reads 0 writes 0 finds 0 hashes 0 sets 0 mails 0" {
		t.Errorf("moved something: %s", f.moved())
	}
}

// limiterFunc is a Limiter.
type limiterFunc func(context.Context, string, time.Time) error

func (f limiterFunc) Allow(ctx context.Context, key string, now time.Time) error {
	return f(ctx, key, now)
}

func TestContractPanics(t *testing.T) {
	secret := func() error { panic("secret: " + goodPassword) }
	for _, tt := range []struct {
		name  string
		plant func(h *host, on *bool, c *reset.Config)
		path  string
		limit bool // a limiter's panic is an error, and no panic
	}{
		{"FindByEmail", func(h *host, on *bool, _ *reset.Config) {
			h.onFind = func(context.Context, string) error { return when(on, secret) }
		}, resetPath, false},
		{"FindByEmail", func(h *host, on *bool, _ *reset.Config) {
			h.onFind = func(context.Context, string) error { return when(on, secret) }
		}, newPath, false},
		{"HashPassword", func(h *host, on *bool, _ *reset.Config) {
			h.onHash = func(context.Context, string) error { return when(on, secret) }
		}, newPath, false},
		{"SetPassword", func(h *host, on *bool, _ *reset.Config) {
			h.onSet = func(context.Context, string) error { return when(on, secret) }
		}, newPath, false},
		{"CheckPassword", func(_ *host, on *bool, c *reset.Config) {
			c.CheckPassword = func(context.Context, reset.User, string) error { return when(on, secret) }
		}, newPath, false},
		{"Store", func(_ *host, on *bool, c *reset.Config) {
			c.Store.(*resettest.FaultStore).Before = func(context.Context, string) error { return when(on, secret) }
		}, resetPath, false},
		{"Limiter", func(_ *host, on *bool, c *reset.Config) {
			c.PerAddress = limiterFunc(func(context.Context, string, time.Time) error { return when(on, secret) })
		}, resetPath, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, on := newHost(ann), false
			f := newTrusted(t, h, func(c *reset.Config) { tt.plant(h, &on, c) })
			body := `{"email":"ann@example.com"}`
			if tt.path == newPath {
				body = newPassword(f.activation(ann), goodPassword)
			}
			on = true
			for range 2 * runtime.GOMAXPROCS(0) { // nothing that was held is lost
				wantAnswer(t, f.post(tt.path, body), 500, unknownErrorBody)
			}
			if got := f.logged("panic"); !tt.limit && got == 0 {
				t.Error("no event tells of the panic")
			}
			if strings.Contains(f.log.String(), goodPassword) {
				t.Errorf("the log has the value of the panic: %s", f.log)
			}
			on = false
			if w := f.post(tt.path, body); w.Code != 200 {
				t.Errorf("after the panic: got %d %s", w.Code, w.Body)
			}
		})
	}
}

func when(on *bool, f func() error) error {
	if !*on {
		return nil
	}
	return f()
}

// net/http's own panic ends the connection, as it is meant to.
func TestContractAbort(t *testing.T) {
	h := newHost(ann)
	h.onFind = func(context.Context, string) error { panic(http.ErrAbortHandler) }
	f := newTrusted(t, h, nil)
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("got panic %v, want http.ErrAbortHandler", p)
		}
	}()
	f.post(resetPath, `{"email":"ann@example.com"}`)
}

func TestContractRandomFails(t *testing.T) {
	broken := func(n int64) io.Reader {
		return io.MultiReader(io.LimitReader(rand.Reader, n), iotest.ErrReader(errors.New("no entropy")))
	}
	f := newTrusted(t, newHost(ann), nil)
	activation := f.activation(ann)
	before := writes(f.store)
	for _, n := range []int64{0, 1, 9, 10, 27} { // of the 28 bytes that are needed
		f.svc.SetRandom(broken(n))
		wantAnswer(t, f.post(resetPath, `{"email":"ann@example.com"}`), 500, unknownErrorBody)
	}
	for _, n := range []int64{0, 9} {
		f.svc.SetRandom(broken(n))
		wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 500, unknownErrorBody)
		f.svc.SetRandom(broken(n))
		if err := f.svc.Forgot(t.Context(), ann.Email, "client", reset.ForgotOptions{}); err == nil {
			t.Error("Forgot succeeded")
		}
	}
	if got := writes(f.store); got != before {
		t.Errorf("%d writes of the store", got-before)
	}
	if _, _, sets := f.host.calls(); sets != 0 {
		t.Errorf("the password was set")
	}
	f.svc.SetRandom(rand.Reader)
	wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 200, okBody)
}

func TestContractCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newTrusted(t, newHost(ann, bob), nil)
		var activations []string
		for _, body := range []string{
			`{"email":"ann@example.com"}`, `{"email":"ANN@example.com","preventEmailSending":true}`, `{"email":"Ann@EXAMPLE.com","maxRequests":3}`,
		} {
			w := f.post(resetPath, body)
			if w.Code != 200 {
				t.Fatalf("%s: got %d %s", body, w.Code, w.Body)
			}
			activations = append(activations, w.Body.String()[len(`{"activation":"`):][:24])
		}
		over := `{"email":"ann@example.com"}`
		wantAnswer(t, f.post(resetPath, over), 429, tooManyBody, "Retry-After: 3600")
		<-time.After(10*time.Second + 500*time.Millisecond)
		wantAnswer(t, f.post(resetPath, over), 429, tooManyBody, "Retry-After: 3590")
		wantAnswer(t, f.post(resetPath, `{"email":"ann@example.com","maxRequests":1}`), 429, tooManyBody, "Retry-After: 3590")
		if w := f.post(resetPath, `{"email":"bob@example.com"}`); w.Code != 200 {
			t.Errorf("somebody else: got %d %s", w.Code, w.Body)
		}
		if got := f.queued(); got != 3 {
			t.Errorf("%d mails are queued, want 3", got)
		}
		<-time.After(time.Hour - 11*time.Second + 400*time.Millisecond)
		wantAnswer(t, f.post(resetPath, over), 429, tooManyBody, "Retry-After: 1")
		wantAnswer(t, f.post(newPath, newPassword(activations[1], goodPassword)), 200, okBody) // nor was it cut short
		<-time.After(time.Hour)
		wantAnswer(t, f.post(newPath, newPassword(activations[0], goodPassword)), 400, badRequestBody)
	})
}

func TestContractHigherCap(t *testing.T) {
	f := newTrusted(t, newHost(ann), func(c *reset.Config) { c.MaxRequests, c.MaxRequestsCeiling = 1, 2 })
	for _, tt := range []struct {
		body   string
		status int
	}{
		{`{"email":"ann@example.com"}`, 200},
		{`{"email":"ann@example.com"}`, 429},
		{`{"email":"ann@example.com","maxRequests":3}`, 400},
		{`{"email":"ann@example.com","maxRequests":2}`, 200},
		{`{"email":"ann@example.com","maxRequests":2}`, 429},
	} {
		if w := f.post(resetPath, tt.body); w.Code != tt.status {
			t.Errorf("%s: got %d %s, want %d", tt.body, w.Code, w.Body, tt.status)
		}
	}
}

func TestContractLimiter(t *testing.T) {
	for _, email := range []string{"ann@example.com", "nobody@example.com"} {
		synctest.Test(t, func(t *testing.T) {
			f := newTrusted(t, newHost(ann), func(c *reset.Config) { c.PerAddress = reset.NewMemoryLimiter(2, time.Minute) })
			body := fmt.Sprintf(`{"email":%q}`, email)
			for range 2 {
				if w := f.post(resetPath, body); w.Code != 200 {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
			}
			before := f.moved()
			wantAnswer(t, f.post(resetPath, strings.ToUpper(email[:1])+"x"), 400, badRequestBody)
			for range 3 {
				wantAnswer(t, f.post(resetPath, fmt.Sprintf(`{"email":%q}`, strings.ToUpper(email))), 429, tooManyBody, "Retry-After: 30")
			}
			if after := f.moved(); after != before {
				t.Errorf("a refused request moved something: %s; before: %s", after, before)
			}
			<-time.After(30 * time.Second)
			if w := f.post(resetPath, body); w.Code != 200 {
				t.Errorf("after the wait: got %d %s", w.Code, w.Body)
			}
		})
	}
}

// A limiter that fails, or takes too long, refuses alike whoever it is, in
// 200 ms. Who has an activation needs no limiter.
func TestContractLimiterFails(t *testing.T) {
	for name, limiter := range map[string]limiterFunc{
		"fails": func(context.Context, string, time.Time) error { return errors.New("connection refused") },
		"slow": func(ctx context.Context, _ string, _ time.Time) error {
			select {
			case <-time.After(5 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		"deaf": func(context.Context, string, time.Time) error {
			<-time.After(5 * time.Second)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				on := false
				f := newTrusted(t, newHost(ann), func(c *reset.Config) {
					c.PerAddress = limiterFunc(func(ctx context.Context, key string, now time.Time) error {
						if !on {
							return nil
						}
						return limiter(ctx, key, now)
					})
				})
				activation := f.activation(ann)
				on = true
				before := f.moved()
				var took []time.Duration
				for _, email := range []string{"ann@example.com", "nobody@example.com"} {
					start := time.Now()
					wantAnswer(t, f.post(resetPath, fmt.Sprintf(`{"email":%q}`, email)), 500, unknownErrorBody)
					took = append(took, time.Since(start))
				}
				if took[0] > 200*time.Millisecond || took[0] != took[1] {
					t.Errorf("a known address took %v, an unknown one %v", took[0], took[1])
				}
				if after := f.moved(); after != before {
					t.Errorf("moved something: %s; before: %s", after, before)
				}
				if got := f.logged("limiter_failed"); got != 2 {
					t.Errorf("%d events limiter_failed, want 2", got)
				}
				start := time.Now()
				wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 200, okBody)
				if took := time.Since(start); took > 0 {
					t.Errorf("redemption took %v", took)
				}
				<-time.After(5 * time.Second) // lets the deaf one end
			})
		})
	}
}

// Many changes at once hash no more passwords at a time than there are
// processors; the surplus fails cleanly.
func TestContractHashSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := runtime.GOMAXPROCS(0)
		h := newHost()
		var mu sync.Mutex
		running, most := 0, 0
		h.onHash = func(context.Context, string) error {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-time.After(6 * time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			return nil
		}
		f := newTrusted(t, h, nil)
		bodies := make([]string, slots+200)
		for i := range bodies {
			u := reset.User{ID: fmt.Sprint(i), Email: fmt.Sprintf("user%d@example.com", i)}
			h.put(u)
			bodies[i] = newPassword(f.activation(u), goodPassword)
		}
		var wg sync.WaitGroup
		start := time.Now()
		codes := make([]int, len(bodies))
		for i, body := range bodies {
			wg.Go(func() { codes[i] = f.post(newPath, body).Code })
		}
		wg.Wait()
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		if most != slots {
			t.Errorf("%d ran at once, want %d", most, slots)
		}
		changed := 0
		for i, code := range codes {
			saved := h.password(fmt.Sprint(i)) != ""
			if code == 200 {
				changed++
			}
			if saved != (code == 200) || code != 200 && code != 500 {
				t.Errorf("answered %d, and the password was set: %v", code, saved)
			}
		}
		if changed != slots {
			t.Errorf("%d passwords were changed, want %d", changed, slots)
		}
		failed := slices.Index(codes, 500)
		wantAnswer(t, f.post(newPath, bodies[failed]), 200, okBody) // not used up
	})
}

// Uses of one activation that wait for their turn do no work in vain.
func TestContractHashesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(ann)
		h.onHash = func(context.Context, string) error {
			<-time.After(time.Second)
			return nil
		}
		f := newTrusted(t, h, nil)
		body := newPassword(f.activation(ann), goodPassword)
		var wg sync.WaitGroup
		codes := make([]int, 100)
		for i := range codes {
			wg.Go(func() { codes[i] = f.post(newPath, body).Code })
		}
		wg.Wait()
		slices.Sort(codes)
		if codes[0] != 200 || codes[1] != 400 || codes[99] != 400 {
			t.Errorf("got statuses %v, want one 200 and 99 times 400", codes)
		}
		// Those whose turn comes just before the first change is saved hash, too.
		_, hashes, sets := h.calls()
		if most := 2 * runtime.GOMAXPROCS(0); hashes > most || sets != 1 {
			t.Errorf("hashed %d times and set %d times, want at most %d and 1", hashes, sets, most)
		}
	})
}

func TestContractFaults(t *testing.T) {
	fault := errors.New("disk full: /var/lib/app.db")
	store := func(method string, nth int) func(*host, *bool, *reset.Config) {
		return func(_ *host, on *bool, c *reset.Config) {
			calls := 0
			c.Store.(*resettest.FaultStore).Before = func(_ context.Context, m string) error {
				if !*on || m != method {
					return nil
				}
				if calls++; calls%nth > 0 {
					return nil
				}
				return fault
			}
		}
	}
	failing := func(on *bool) error { return when(on, func() error { return fault }) }
	for _, tt := range []struct {
		name  string
		path  string
		plant func(*host, *bool, *reset.Config)
	}{
		{"Issue", resetPath, store("Issue", 1)},
		{"the first Find", newPath, store("Find", 1)},
		{"the second Find", newPath, store("Find", 2)},
		{"Redeem", newPath, store("Redeem", 1)},
		{"FindByEmail", resetPath, func(h *host, on *bool, _ *reset.Config) {
			h.onFind = func(context.Context, string) error { return failing(on) }
		}},
		{"FindByEmail of a redemption", newPath, func(h *host, on *bool, _ *reset.Config) {
			h.onFind = func(context.Context, string) error { return failing(on) }
		}},
		{"HashPassword", newPath, func(h *host, on *bool, _ *reset.Config) {
			h.onHash = func(context.Context, string) error { return failing(on) }
		}},
		{"SetPassword", newPath, func(h *host, on *bool, _ *reset.Config) {
			h.onSet = func(context.Context, string) error { return failing(on) }
		}},
		{"CheckPassword", newPath, func(_ *host, on *bool, c *reset.Config) {
			c.CheckPassword = func(context.Context, reset.User, string) error { return failing(on) }
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, on := newHost(ann), false
			f := newTrusted(t, h, func(c *reset.Config) { tt.plant(h, &on, c) })
			body := `{"email":"ann@example.com"}`
			if tt.path == newPath {
				body = newPassword(f.activation(ann), goodPassword)
			}
			on = true
			wantAnswer(t, f.post(tt.path, body), 500, unknownErrorBody)
			if got := f.logged("request_failed"); got != 1 || !strings.Contains(f.log.String(), fault.Error()) {
				t.Errorf("%d events request_failed: %s", got, f.log)
			}
			if got := h.password(ann.ID); got != "" {
				t.Errorf("the password was set to %q", got)
			}
			on = false
			if got := f.queued(); got != 0 {
				t.Errorf("%d mails are queued", got)
			}
			if w := f.post(tt.path, body); w.Code != 200 {
				t.Errorf("after the fault: got %d %s", w.Code, w.Body)
			}
		})
	}
}

// A store that hangs is given up after 10 s.
func TestContractSlowStore(t *testing.T) {
	for _, path := range []string{resetPath, newPath} {
		synctest.Test(t, func(t *testing.T) {
			on := false
			f := newTrusted(t, newHost(ann), func(c *reset.Config) {
				c.Store.(*resettest.FaultStore).Before = func(ctx context.Context, _ string) error {
					if !on {
						return nil
					}
					<-ctx.Done()
					return ctx.Err()
				}
			})
			body := `{"email":"ann@example.com"}`
			if path == newPath {
				body = newPassword(f.activation(ann), goodPassword)
			}
			on = true
			start := time.Now()
			wantAnswer(t, f.post(path, body), 500, unknownErrorBody)
			if took := time.Since(start); took != 10*time.Second {
				t.Errorf("took %v, want 10 s", took)
			}
		})
	}
}

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

func TestActivations(t *testing.T) {
	const n = 100_000
	svc, _, _ := newService(t, newHost(ann), func(c *reset.Config) {
		c.Store = &resettest.FaultStore{ // keeps nothing
			IssueFunc: func(context.Context, time.Time, reset.Activation, int, *reset.Mail) error { return nil },
		}
	})
	seen := make(map[string]bool, n)
	var counts [24][128]int
	for range n {
		activation, err := svc.RequestReset(t.Context(), ann.Email, reset.RequestOptions{})
		if err != nil || len(activation) != 24 {
			t.Fatalf("RequestReset = %q, %v", activation, err)
		}
		seen[activation] = true
		for i := range activation {
			counts[i][activation[i]&127]++
		}
	}
	if len(seen) != n {
		t.Errorf("%d of %d activations are unique", len(seen), n)
	}
	// 1562 each, with a standard deviation of 39.
	for i := range counts {
		for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
			if got := counts[i][c]; got < 1562-300 || got > 1562+300 {
				t.Errorf("%q is at position %d of %d activations in %d", c, i, got, n)
			}
		}
	}
}
