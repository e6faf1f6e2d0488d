package reset_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

// unread is a body that must not be read.
type unread struct{ t *testing.T }

func (b unread) Read([]byte) (int, error) {
	b.t.Error("the body was read")
	return 0, io.EOF
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

func (pipeAddr) String() string { return "192.0.2.1:1234" }

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

// The answer to a panic keeps the headers that the host has set around us.
func TestPanicKeepsHeaders(t *testing.T) {
	svc, _, _ := newService(t, newHost(), func(c *reset.Config) {
		c.ClientIP = func(*http.Request) string { panic("no") }
	})
	w := httptest.NewRecorder()
	w.Header().Set("X-Request-Id", "7")
	r := httptest.NewRequest("POST", "/forgot", strings.NewReader("email=ann@example.com"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	svc.Pages().ServeHTTP(w, r)
	if got := w.Result().Header.Get("X-Request-Id"); w.Code != 500 || got != "7" {
		t.Errorf("got %d with X-Request-Id %q", w.Code, got)
	}
}
