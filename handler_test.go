package reset_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
)

const (
	resetPath = "/v1/auth/reset-password"
	newPath   = "/v1/auth/new-password"
)

// A trusted is a fixture with the handler for trusted callers.
type trusted struct {
	*fixture
	http.Handler
}

func newTrusted(t *testing.T, h *host, edit func(*reset.Config)) *trusted {
	t.Helper()
	f := newFixture(t, h, edit)
	return &trusted{f, f.Service.Handler()}
}

func (f *trusted) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

func (f *trusted) post(path, body string) *httptest.ResponseRecorder {
	return f.do(postJSON(path, body))
}

func postJSON(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", apiKey)
	return r
}

// forNobody is a request whose answer is okBody.
func forNobody() *http.Request { return postJSON(resetPath, `{"email":"nobody@example.com"}`) }

func newPassword(activation, password string) string {
	body, err := json.Marshal(map[string]string{"requestId": activation, "newPassword": password})
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(body)
}

// unread is a body that must not be read.
type unread struct{ t *testing.T }

func (b unread) Read([]byte) (int, error) {
	b.t.Error("the body was read")
	return 0, io.EOF
}

func TestContract(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	w := f.post(resetPath, `{"email":"ann@example.com"}`)
	activation := strings.TrimSuffix(strings.TrimPrefix(w.Body.String(), `{"activation":"`), `"}`)
	wantAnswer(t, w, 200, `{"activation":"`+activation+`"}`)
	if len(activation) != 24 || strings.Trim(activation, alphabet) != "" {
		t.Errorf("got activation %q, want 24 characters of base64url", activation)
	}
	wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 200, okBody)
	f.wantPassword(ann, goodPassword)
	wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 400, badRequestBody)
	f.wantQueued(1) // the notification
}

func TestContractMount(t *testing.T) {
	f := newTrusted(t, newHost(), nil)
	f.Handler = http.StripPrefix("/api", f.Handler)
	r := forNobody()
	r.URL.Path = "/api" + r.URL.Path
	wantAnswer(t, f.do(r), 200, okBody)
}

func TestContractUnknownUser(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	for range 10 {
		wantAnswer(t, f.post(resetPath, `{"email":"nobody@example.com","maxRequests":1}`), 200, okBody)
	}
	if f.writes() != 0 {
		t.Errorf("moved: %s", f.moved())
	}
}

func TestContractPreventEmailSending(t *testing.T) {
	for _, tt := range []struct {
		member string
		mails  int
	}{{``, 1}, {`,"preventEmailSending":false`, 1}, {`,"preventEmailSending":true`, 0}} {
		f := newTrusted(t, newHost(ann), nil)
		if w := f.post(resetPath, `{"email":"ann@example.com"`+tt.member+`}`); w.Code != 200 {
			t.Errorf("%s: got %d", tt.member, w.Code)
		}
		f.wantQueued(tt.mails)
	}
}

// Unknown members are ignored, whatever they hold.
func TestContractAccepts(t *testing.T) {
	for _, body := range []string{
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
		if w.Code != 200 || !strings.HasPrefix(w.Body.String(), `{"activation":"`) {
			t.Errorf("%s: got %d %s", body, w.Code, w.Body)
		}
	}
}

func TestContractRefuses(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	activation := f.activation(ann)
	long := strings.Repeat("a", 64)
	for _, tt := range []struct {
		path, format string // of the body, where one value goes
		values       []string
	}{
		{resetPath, `%s`, []string{
			``, ` `, `null`, `[]`, `1`, `"email"`, `true`, `{}`, `{`, `{"email"}`, `email=ann@example.com`, `<email>ann@example.com</email>`,
			`{"Email":"ann@example.com"}`, `{"EMAIL":"ann@example.com"}`, `{"ema\u0131l":"ann@example.com"}`,
			strings.Repeat(`[`, 10_000), strings.Repeat(`{"a":`, 3000), "\xff\xfe{\x00}\x00",
			"\ufeff" + `{"email":"ann@example.com"}`, `{"email":"ann@example.com"}{}`, `{"email":"ann@example.com"} x`, `{"email":"ann@example.com"}]`,
		}},
		{resetPath, `{"email":%s}`, []string{`1`, `null`, `true`, `{"a":1}`, `["ann@example.com"]`, `""`, `" "`, `"ann@example.com",`, `"\ud800ann@example.com"`}},
		{resetPath, `{"email":"%s"}`, []string{
			`ann`, `@example.com`, `ann@`, `ann@@example.com`, `ann@example.com,bob@example.com`, `ann@example.com;bob@example.com`, `ann@example.com bob@example.com`,
			`Ann <ann@example.com>`, `<ann@example.com>`, `ann(x)@example.com`, `\"ann\"@example.com`, `ann@[127.0.0.1]`,
			`ann @example.com`, `ann＠example.com`, `ann@example.com\r\nBcc: bob@example.com`, `ann\t@example.com`, `ann\u0000@example.com`, "ann\xff@example.com",
			long + `a@example.com`, `a@` + long + `.com`, `a@` + strings.Repeat(`abcdefg.`, 32) + `com`,
		}},
		{resetPath, `{"email":"ann@example.com",%s}`, []string{`"email":"ann@example.com"`, `"\u0065mail":"ann@example.com"`, `"x":1,"x":1`, "\"x\":\"\x80\""}},
		{resetPath, `{"email":"ann@example.com","maxRequests":%s}`, []string{
			`0`, `-1`, `-0`, `1.5`, `3.0`, `3e0`, `"3"`, `03`, `null`, `[3]`, `true`, `101`, `2147483648`, `9223372036854775808`, `18446744073709551619`, `1e400`,
		}},
		{resetPath, `{"email":"ann@example.com","preventEmailSending":%s}`, []string{`"true"`, `1`, `null`}},
		{newPath, `%s`, []string{``, `null`, `[]`, `{}`, newPassword(activation, goodPassword) + `{}`}},
		{newPath, `{"requestId":"` + activation + `"%s}`, []string{
			``, `,"newPassword":null`, `,"newPassword":1234567890`, `,"newPassword":["nine grey herons"]`, `,"newpassword":"nine grey herons"`,
			`,"newPassword":"nine grey herons","newPassword":"another password"`, `,"newPassword":"nine\u0000grey herons"`, ",\"newPassword\":\"nine\xffgrey herons\"",
		}},
		{newPath, `{%s"newPassword":"nine grey herons"}`, []string{
			``, `"requestId":null,`, `"requestId":["` + activation + `"],`, `"requestid":"` + activation + `",`, `"requestId":"` + activation + `","requestId":"` + activation + `",`,
		}},
		// A string that does not have the form of an activation is not looked up.
		{newPath, `{"requestId":"%s","newPassword":"nine grey herons"}`, []string{
			``, activation[1:], activation + "A", activation + "=", " " + activation, activation[:22] + "é",
			activation[:23] + "=", activation[:23] + "+", activation[:23] + "/", activation[:23] + " ", activation[:23] + `\n`, activation + `\n`, long[:28],
		}},
	} {
		before := f.moved()
		for _, value := range tt.values {
			body := strings.Replace(tt.format, "%s", value, 1)
			wantAnswer(t, f.post(tt.path, body), 400, badRequestBody)
			f.wantMoved(before)
			if t.Failed() {
				t.Fatalf("that was %s %.200q", tt.path, body)
			}
		}
	}
	wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 200, okBody)
}

// An address in the body does not change whose password is set.
func TestContractOwnAccountOnly(t *testing.T) {
	f := newTrusted(t, newHost(ann, bob), nil)
	body := fmt.Sprintf(`{"requestId":%q,"newPassword":%q,"email":"bob@example.com","userId":"2"}`, f.activation(ann), goodPassword)
	wantAnswer(t, f.post(newPath, body), 200, okBody)
	f.wantPassword(ann, goodPassword)
	f.wantPassword(bob, "")
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
	f.wantMoved(before)

	r := forNobody()
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

// A request with every fault gets the answers of docs/contract.md in order, as
// one fault after the other is mended.
func TestContractOrder(t *testing.T) {
	f := newTrusted(t, newHost(), nil)
	before := f.moved()
	r := httptest.NewRequest("PUT", "/other", nil)
	r.Header.Set("Origin", "https://evil.example")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Content-Type", "text/plain")
	r.Header.Set("Authorization", "wrong")
	for _, tt := range []struct {
		mend    func()
		status  int
		body    string
		headers []string
	}{
		{func() {}, 404, notFoundBody, nil},
		{func() { r.URL.Path = resetPath }, 405, methodBody, []string{"Allow: POST"}},
		{func() { r.Method = "POST" }, 401, unauthorizedBody, []string{challenge}},
		{func() { r.Header.Set("Authorization", apiKey) }, 403, forbiddenBody, nil},
		{func() { r.Header.Del("Origin") }, 403, forbiddenBody, nil},
		{func() { r.Header.Del("Sec-Fetch-Site") }, 415, badRequestBody, []string{"Reset-Reason: content_type"}},
	} {
		tt.mend()
		r.Body = io.NopCloser(unread{t})
		wantAnswer(t, f.do(r), tt.status, tt.body, tt.headers...)
	}
	f.wantMoved(before)
}

const challenge = `Www-Authenticate: Bearer realm="reset"`

func TestContractKeys(t *testing.T) {
	const second = "key-fedcba9876543210fedcba9876543210"
	f := newTrusted(t, newHost(ann), func(c *reset.Config) { c.APIKeys = []string{apiKey, second} })
	for _, value := range []string{apiKey, second, "Bearer " + apiKey, "bearer " + second, "Bearer   " + apiKey} {
		r := forNobody()
		r.Header.Set("Authorization", value)
		wantAnswer(t, f.do(r), 200, okBody)
	}
	before := f.moved()
	for _, values := range [][]string{
		nil, {""}, {"wrong"}, {"Bearer"}, {"Bearer "}, {" " + apiKey}, {"Bearer\t" + apiKey}, {"Basic " + apiKey}, {"Bearer Bearer " + apiKey},
		{apiKey[:len(apiKey)-1]}, {apiKey[1:]}, {apiKey + "0"}, {apiKey + apiKey}, {strings.ToUpper(apiKey)}, {strings.Repeat("k", 1<<20)},
		{apiKey, apiKey}, {"wrong", apiKey}, {apiKey, "wrong"}, {apiKey + "," + second}, {apiKey + ", wrong"},
	} {
		r := forNobody()
		r.Header["Authorization"] = values
		r.Body = io.NopCloser(unread{t})
		wantAnswer(t, f.do(r), 401, unauthorizedBody, challenge)
		f.wantMoved(before)
		if t.Failed() {
			t.Fatalf("that was Authorization %.60q", values)
		}
	}
	f = newTrusted(t, newHost(ann), func(c *reset.Config) { c.APIKeys = []string{second} })
	wantAnswer(t, f.do(forNobody()), 401, unauthorizedBody, challenge)
}

func TestHandlerNeedsKeys(t *testing.T) {
	f := newFixture(t, newHost(), func(c *reset.Config) { c.APIKeys = nil })
	defer func() {
		if recover() == nil {
			t.Error("Handler did not panic without a key")
		}
	}()
	f.Service.Handler()
}

func TestContractBrowsers(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	for _, header := range []string{"Origin", "Sec-Fetch-Site"} {
		for _, value := range []string{"", "null", "https://app.example.com", "same-origin", "none"} {
			r := forNobody()
			r.Header.Set(header, value)
			r.Body = io.NopCloser(unread{t})
			wantAnswer(t, f.do(r), 403, forbiddenBody)
		}
	}
	r := forNobody()
	r.Header.Set("Sec-Fetch-Mode", "cors") // as fetch sends it on a server
	wantAnswer(t, f.do(r), 200, okBody)
}

// Retry-After is the time until the first request expires, in whole seconds.
func TestContractCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newTrusted(t, newHost(ann, bob), nil)
		request := `{"email":"ann@example.com"}`
		for _, body := range []string{request, `{"email":"ANN@example.com","preventEmailSending":true}`, `{"email":"Ann@EXAMPLE.com","maxRequests":3}`} {
			if w := f.post(resetPath, body); w.Code != 200 {
				t.Fatalf("%s: got %d %s", body, w.Code, w.Body)
			}
		}
		wantAnswer(t, f.post(resetPath, request), 429, tooManyBody, "Retry-After: 3600")
		pass(10*time.Second + 500*time.Millisecond)
		wantAnswer(t, f.post(resetPath, request), 429, tooManyBody, "Retry-After: 3590")
		wantAnswer(t, f.post(resetPath, `{"email":"ann@example.com","maxRequests":1}`), 429, tooManyBody, "Retry-After: 3590")
		if w := f.post(resetPath, `{"email":"bob@example.com"}`); w.Code != 200 {
			t.Errorf("another user: got %d %s", w.Code, w.Body)
		}
		f.wantQueued(3)
		pass(time.Hour - 11*time.Second + 400*time.Millisecond)
		wantAnswer(t, f.post(resetPath, request), 429, tooManyBody, "Retry-After: 1")
		pass(time.Second)
		if w := f.post(resetPath, request); w.Code != 200 {
			t.Errorf("once they have expired: got %d %s", w.Code, w.Body)
		}
	})
}
