package reset_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
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

// wantAnswer compares status, body and all headers: those of every JSON answer
// and the given ones.
func wantAnswer(t testing.TB, w *httptest.ResponseRecorder, status int, body string, headers ...string) {
	t.Helper()
	if w.Code != status || w.Body.String() != body {
		t.Errorf("got %d %s, want %d %s", w.Code, w.Body, status, body)
	}
	want := append([]string{
		"Content-Type: application/json; charset=utf-8", "Cache-Control: no-store", "X-Content-Type-Options: nosniff",
		"Content-Length: " + strconv.Itoa(len(body)),
	}, headers...)
	slices.Sort(want)
	var got []string
	for name, values := range w.Result().Header {
		if status == 400 && name == "Reset-Reason" && len(values) == 1 && values[0] != "" {
			continue
		}
		for _, value := range values {
			got = append(got, name+": "+value)
		}
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("got headers %q, want %q", got, want)
	}
}

func TestMediaTypes(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	for _, value := range []string{
		"application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8", `application/json; charset="utf-8"`,
	} {
		r := forNobody()
		r.Header.Set("Content-Type", value)
		wantAnswer(t, f.do(r), 200, okBody)
	}
	for _, h := range []http.Header{
		{"Content-Type": nil},
		{"Content-Type": {""}},
		{"Content-Type": {"text/plain"}},
		{"Content-Type": {"text/json"}},
		{"Content-Type": {"application/x-www-form-urlencoded"}},
		{"Content-Type": {"multipart/form-data; boundary=x"}},
		{"Content-Type": {"application/problem+json"}},
		{"Content-Type": {"application/json; charset=latin1"}},
		{"Content-Type": {"application/json; charset=utf-16"}},
		{"Content-Type": {"application/json; charset="}},
		{"Content-Type": {"application/json; charset=utf-8; charset=utf-16"}},
		{"Content-Type": {"application/json, text/plain"}},
		{"Content-Type": {"application/json", "application/json"}},
		{"Content-Encoding": {"gzip"}},
		{"Content-Encoding": {"identity"}},
		{"Content-Encoding": {""}},
	} {
		r := forNobody()
		maps.Copy(r.Header, h)
		r.Body = io.NopCloser(unread{t})
		if wantAnswer(t, f.do(r), 415, badRequestBody, "Reset-Reason: content_type"); t.Failed() {
			t.Fatalf("that was %v", h)
		}
	}
}

func TestBodySize(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	for _, chunked := range []bool{false, true} {
		for _, tt := range []struct {
			size, status int
			body         string
			headers      []string
		}{
			{16<<10 - 1, 200, okBody, nil},
			{16 << 10, 200, okBody, nil},
			{16<<10 + 1, 413, badRequestBody, []string{"Connection: close", "Reset-Reason: too_large"}},
			{1 << 20, 413, badRequestBody, []string{"Connection: close", "Reset-Reason: too_large"}},
		} {
			const start, end = `{"email":"nobody@example.com","x":"`, `"}`
			r := postJSON(resetPath, start+strings.Repeat("x", tt.size-len(start)-len(end))+end)
			if chunked {
				r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
			}
			wantAnswer(t, f.do(r), tt.status, tt.body, tt.headers...)
		}
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

// pipeAddr is the address of a client, which net.Pipe has not.
type pipeAddr struct{}

func (pipeAddr) Network() string { return "tcp" }
func (pipeAddr) String() string  { return "192.0.2.1:1234" }

type pipeConn struct{ net.Conn }

func (pipeConn) RemoteAddr() net.Addr { return pipeAddr{} }

// serve runs a server in a bubble. dial connects to it.
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

// overTheWire calls f in a bubble, with a connection to a server of Handler, and
// checks that nothing moves.
func overTheWire(t *testing.T, f func(t *testing.T, c net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newTrusted(t, newHost(ann), nil)
		before := h.moved()
		dial, stop := serve(h)
		defer stop()
		c := dial()
		defer c.Close()
		f(t, c)
		h.wantMoved(before)
	})
}

const rawHead = "POST " + resetPath + " HTTP/1.1\r\nHost: app.example.com\r\nContent-Type: application/json\r\nAuthorization: " + apiKey + "\r\n"

func wantRaw(t *testing.T, got []byte, status string) {
	t.Helper()
	if !bytes.HasPrefix(got, []byte("HTTP/1.1 "+status+"\r\n")) || !bytes.HasSuffix(got, []byte("\r\n\r\n"+badRequestBody)) {
		t.Errorf("got %q, want %s", got, status)
	}
}

// A body that comes byte by byte is read for 10 s.
func TestDrippedBody(t *testing.T) {
	for _, tt := range []struct{ header, drip string }{
		{"Content-Length: 10000\r\n\r\n", " "},
		{"Transfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n"},
	} {
		overTheWire(t, func(t *testing.T, c net.Conn) {
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := io.WriteString(c, rawHead+tt.header)
				for err == nil {
					<-time.After(time.Second)
					_, err = io.WriteString(c, tt.drip)
				}
			})
			start := time.Now()
			got, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			wantRaw(t, got, "400 Bad Request")
			if took := time.Since(start); took < 10*time.Second || took > 11*time.Second {
				t.Errorf("the answer took %v, want 10 s", took)
			}
			c.Close()
			wg.Wait()
		})
	}
}

// A body without an end is read little further than the limit: net/http takes
// another 256 KiB, for clients that read no answer before they have sent all.
func TestEndlessBody(t *testing.T) {
	const chunk = 1 << 10
	for _, most := range []int{17, 1 << 20} { // chunks until the client stalls
		overTheWire(t, func(t *testing.T, c net.Conn) {
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
			wantRaw(t, got[:n], "413 Request Entity Too Large")
			if took := time.Since(start); took > 0 {
				t.Errorf("the answer took %v", took)
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
				t.Errorf("%d KiB were read", sent)
			}
		})
	}
}

func TestConflictingLengths(t *testing.T) {
	for _, lengths := range []string{
		"Content-Length: 2\r\nContent-Length: 31\r\n", "Content-Length: -1\r\n", "Content-Length: 31, 31\r\n", "Transfer-Encoding: gzip, chunked\r\n",
	} {
		overTheWire(t, func(t *testing.T, c net.Conn) {
			go io.WriteString(c, rawHead+lengths+"\r\n"+`{"email":"nobody@example.com"}`)
			status := make([]byte, len("HTTP/1.1 400"))
			if _, err := io.ReadFull(c, status); err != nil || string(status) == "HTTP/1.1 200" {
				t.Errorf("%q: got %s, %v", lengths, status, err)
			}
		})
	}
}

// A client that hangs up within its body has moved nothing.
func TestTruncatedBody(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	before := f.moved()
	r := postJSON(resetPath, "")
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"email":"ann@example.com"}`), iotest.ErrReader(io.ErrUnexpectedEOF)))
	wantAnswer(t, f.do(r), 400, badRequestBody, "Connection: close")
	f.wantMoved(before)
}

// A store that hangs is abandoned after 10 s.
func TestHandlerTimeout(t *testing.T) {
	for _, path := range []string{resetPath, newPath} {
		synctest.Test(t, func(t *testing.T) {
			f := newTrusted(t, newHost(ann), nil)
			body := `{"email":"ann@example.com"}`
			if path == newPath {
				body = newPassword(f.activation(ann), goodPassword)
			}
			f.store.Before = func(ctx context.Context, _ string) error {
				<-ctx.Done()
				return ctx.Err()
			}
			start := time.Now()
			wantAnswer(t, f.post(path, body), 500, unknownErrorBody, "Retry-After: 5")
			if took := time.Since(start); took != 10*time.Second {
				t.Errorf("took %v, want 10 s", took)
			}
		})
	}
}

// Code of the host that hangs, and does not heed its context, holds an answer for
// 11 s and changes nothing.
func TestHandlerOutlastsHost(t *testing.T) {
	for _, tt := range []struct{ place, path string }{
		{"FindByEmail", resetPath}, {"FindByEmail", newPath}, {"CheckPassword", newPath}, {"HashPassword", newPath},
	} {
		t.Run(tt.place+" "+tt.path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, ends := newHost(ann), make(chan struct{})
				var on atomic.Bool
				hang := func(place string) error {
					if on.Load() && place == tt.place {
						<-ends
					}
					return nil
				}
				h.onFind = func(context.Context, string) error { return hang("FindByEmail") }
				h.onHash = func(context.Context, string) error { return hang("HashPassword") }
				f := newTrusted(t, h, func(c *reset.Config) {
					c.CheckPassword = func(context.Context, reset.User, string) error { return hang("CheckPassword") }
				})
				body := `{"email":"ann@example.com"}`
				if tt.path == newPath {
					body = newPassword(f.activation(ann), goodPassword)
				}
				on.Store(true)
				for range 2 * runtime.GOMAXPROCS(0) { // later ones find no slot for hashing
					start := time.Now()
					wantAnswer(t, f.post(tt.path, body), 500, unknownErrorBody, "Retry-After: 5")
					if took := time.Since(start); took > 11*time.Second {
						t.Errorf("took %v, want 11 s at most", took)
					}
				}
				f.wantPassword(ann, "")
				f.wantQueued(0)
				on.Store(false)
				close(ends)
				synctest.Wait()
				if w := f.post(tt.path, body); w.Code != 200 {
					t.Errorf("afterwards: %d %s", w.Code, w.Body)
				}
			})
		})
	}
}

// An error is logged at the level DEBUG once the client is gone.
func TestClientGone(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	f.store.Before = func(ctx context.Context, _ string) error { return ctx.Err() }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantAnswer(t, f.do(postJSON(resetPath, `{"email":"ann@example.com"}`).WithContext(ctx)), 500, unknownErrorBody)
	if got := f.log.named("request_failed"); len(got) != 1 || got[0]["level"] != "DEBUG" {
		t.Errorf("logged %v", f.log)
	}
}

// http.ErrAbortHandler ends the connection, as net/http documents.
func TestAbortHandler(t *testing.T) {
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

// A ClientIP that panics without the header of a proxy does not keep back ends
// out, which do not come through it.
func TestTrustedWithoutClientIP(t *testing.T) {
	f := newTrusted(t, newHost(ann), func(c *reset.Config) {
		c.ClientIP = func(r *http.Request) string { return r.Header["Cf-Connecting-Ip"][0] }
	})
	wantAnswer(t, f.post(newPath, newPassword(f.activation(ann), goodPassword)), 200, okBody)
	f.wantPassword(ann, goodPassword)
	if w := f.post(resetPath, `{"email":"ann@example.com"}`); w.Code != 200 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	r := forNobody()
	r.Header.Set("Authorization", "wrong")
	wantAnswer(t, f.do(r), 401, unauthorizedBody, challenge)
}

// A request that has never gone through a server may have no body.
func TestNilBody(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	r := forNobody()
	r.Body, r.ContentLength = nil, 0
	wantAnswer(t, f.do(r), 400, badRequestBody)
	form := formRequest("/forgot")
	form.Body, form.ContentLength = nil, 0
	w := httptest.NewRecorder()
	f.Pages().ServeHTTP(w, form)
	if w.Code/100 != 4 {
		t.Errorf("Pages answers %d", w.Code)
	}
}

// The answer to a panic keeps the headers that a middleware has set.
func TestPanicKeepsHeaders(t *testing.T) {
	f := newFixture(t, newHost(), func(c *reset.Config) {
		c.ClientIP = func(*http.Request) string { panic("no") }
	})
	w := httptest.NewRecorder()
	w.Header().Set("X-Request-Id", "7")
	f.Pages().ServeHTTP(w, formRequest("/forgot", "email", ann.Email))
	if got := w.Result().Header.Get("X-Request-Id"); got != "7" {
		t.Errorf("got X-Request-Id %q", got)
	}
}

// A 400 says why in a header, beside the body that never changes, and in a
// record for the client's developer.
func TestReasons(t *testing.T) {
	b := newBrowser(t, newHost(ann), func(c *reset.Config) {
		c.CheckPassword = func(_ context.Context, _ reset.User, password string) error {
			switch password {
			case "a breached one":
				return &reset.PasswordError{Reason: "breached"}
			case "an odd reason":
				return &reset.PasswordError{Reason: "no\r\nheader"}
			}
			return nil
		}
	})
	trusted := &trusted{b.fixture, b.Service.Handler()}
	id := b.activation(ann)
	long := strings.Repeat("grey herons ", 30)
	for _, tt := range []struct{ path, body, reason string }{
		{resetPath, ``, "body"},
		{resetPath, `{"email":`, "body"},
		{resetPath, `{"email":"ann@example.com","email":"ann@example.com"}`, "body"},
		{resetPath, `{"email":"ann@example.com","x":[[[[[[[[[]]]]]]]]]}`, "body"},
		{resetPath, `{}`, "email"},
		{resetPath, `{"email":null}`, "email"},
		{resetPath, `{"email":"ann"}`, "email"},
		{resetPath, `{"email":"ann@example.com","maxRequests":0}`, "maxRequests"},
		{resetPath, `{"email":"ann@example.com","maxRequests":101}`, "maxRequests"},
		{resetPath, `{"email":"ann@example.com","preventEmailSending":"true"}`, "preventEmailSending"},
		{newPath, `{"newPassword":"nine grey herons"}`, "requestId"},
		{newPath, `{"requestId":"x"}`, "newPassword"},
		{newPath, newPassword("x", goodPassword), "invalid_activation"},
		{newPath, newPassword(strings.Repeat("A", 24), goodPassword), "invalid_activation"},
		{newPath, newPassword(id, "short"), "too_short"},
		{newPath, newPassword(id, long), "too_long"},
		{newPath, newPassword(id, "password"), "common"},
		{newPath, newPassword(id, ann.Email), "address"},
		{newPath, newPassword(id, "a breached one"), "breached"},
		{newPath, newPassword(id, "an odd reason"), "password"},
	} {
		w := trusted.post(tt.path, tt.body)
		wantAnswer(t, w, 400, badRequestBody)
		if got := w.Result().Header.Values("Reset-Reason"); len(got) != 1 || got[0] != tt.reason {
			t.Errorf("%s %.80s: got Reset-Reason %q, want %q", tt.path, tt.body, got, tt.reason)
		}
		records := b.log.named("bad_request")
		if last := records[len(records)-1]; last["reason"] != tt.reason || last["level"] != "DEBUG" {
			t.Errorf("%.80s: got the record %v", tt.body, last)
		}
	}
	for _, tt := range []struct{ path, body, reason string }{
		{"/forgot", `{"email":"ann"}`, "email"},
		{"/reset", `{"newPassword":"nine grey herons"}`, "activation"},
		{"/reset", `{"activation":"x","newPassword":"nine grey herons"}`, "invalid_activation"},
		{"/reset", `{"activation":"` + id + `","newPassword":"short"}`, "too_short"},
		{"/revoke", `{"activation":"x"}`, "invalid_activation"},
	} {
		if got := b.call(tt.path, tt.body).Result().Header.Get("Reset-Reason"); got != tt.reason {
			t.Errorf("%s %s: got Reset-Reason %q, want %q", tt.path, tt.body, got, tt.reason)
		}
	}
}

// Over HTTP/2 thirty requests at a time on one connection are answered as they
// are one by one; a body that is refused halfway ends none of the others.
func TestHTTP2(t *testing.T) {
	f := newFixture(t, newHost(ann), func(c *reset.Config) { c.PerClient = reset.Unlimited })
	mux := http.NewServeMux()
	mux.Handle("/account/", f.Pages())
	mux.Handle("/v1/auth/", f.Handler())
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	var conns sync.Map
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { conns.Store(info.Conn.LocalAddr().String(), true) },
	})
	do := func(r *http.Request) (*http.Response, error) {
		target := *r.URL
		target.Scheme, target.Host = "https", server.Listener.Addr().String()
		r2, err := http.NewRequestWithContext(ctx, r.Method, target.String(), r.Body)
		if err != nil {
			return nil, err
		}
		r2.Header = r.Header
		r2.ContentLength = r.ContentLength
		return client.Do(r2)
	}
	if _, err := do(httptest.NewRequest("GET", "/account/forgot", nil)); err != nil { // opens the connection
		t.Fatal(err)
	}
	requests := []struct {
		make   func() *http.Request
		status int
	}{
		{func() *http.Request { return httptest.NewRequest("GET", "/account/forgot", nil) }, 200},
		{func() *http.Request { return formRequest("/forgot", "email", "ann@example.com") }, 303},
		{func() *http.Request { return jsonRequest("/forgot", `{"email":"nobody@example.com"}`) }, 200},
		{func() *http.Request { return postJSON(resetPath, `{"email":"nobody@example.com"}`) }, 200},
		{func() *http.Request { return postJSON(newPath, newPassword("x", goodPassword)) }, 400},
		{func() *http.Request { return formRequest("/forgot", "email", strings.Repeat("x", 100_000)) }, 413},
	}
	for range 5 {
		errs := parallel(30, func(i int) error {
			want := requests[i%len(requests)]
			response, err := do(want.make())
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if _, err := io.Copy(io.Discard, response.Body); err != nil {
				return err
			}
			if response.StatusCode != want.status || response.ProtoMajor != 2 {
				return fmt.Errorf("request %d: got %s %s, want %d", i, response.Proto, response.Status, want.status)
			}
			return nil
		})
		for _, err := range errs {
			if err != nil {
				t.Error(err)
			}
		}
	}
	if f.store.Calls("Enqueue") != 5*10 {
		t.Errorf("%d requests were queued, want 50", f.store.Calls("Enqueue"))
	}
	n := 0
	conns.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("it took %d connections, want 1", n)
	}
}
