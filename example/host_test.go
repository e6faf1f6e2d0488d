package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

const otherPassword = "a quite different passphrase"

// start runs a host until the test ends or stop is called.
func start(t *testing.T, args ...string) (h *host, stop func()) {
	t.Helper()
	return startLogging(t, t.Output(), args...)
}

func startLogging(t *testing.T, log io.Writer, args ...string) (h *host, stop func()) {
	t.Helper()
	o, err := parseFlags(append([]string{"-addr", "127.0.0.1:0"}, args...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.db.name == "a temporary file" {
		o.db = fileSource(filepath.Join(t.TempDir(), "demo.db"))
	}
	h, err = newHost(t.Context(), o, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return h, stop
}

// A browser keeps cookies and follows redirects.
type browser struct {
	t      *testing.T
	base   string
	client *http.Client
}

// A page is where a browser has arrived.
type page struct {
	status int
	path   string
	body   string
}

func newBrowser(t *testing.T, h *host) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, h.base, &http.Client{Jar: jar, Timeout: 20 * time.Second}}
}

func (b *browser) do(r *http.Request) page {
	b.t.Helper()
	response, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return page{response.StatusCode, response.Request.URL.Path, string(body)}
}

// get takes a path or a whole URL.
func (b *browser) get(at string) page {
	b.t.Helper()
	if strings.HasPrefix(at, "/") {
		at = b.base + at
	}
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, at, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.do(r)
}

// post sends a form of names and values in turn.
func (b *browser) post(path string, fields ...string) page {
	b.t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", b.base)
	return b.do(r)
}

func (b *browser) login(email, password string) page {
	b.t.Helper()
	return b.post("/login", "email", email, "password", password)
}

func want(t *testing.T, what string, got page, status int, path string) {
	t.Helper()
	if got.status != status || got.path != path {
		t.Fatalf("%s: got %d at %s, want %d at %s\n%s", what, got.status, got.path, status, path, got.body)
	}
}

func wait(t *testing.T, h *host, address string, kind reset.MailKind) reset.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m, err := h.mailbox.Wait(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind != kind {
		t.Fatalf("mail to %s is a %s, want a %s", address, m.Kind, kind)
	}
	return m
}

func TestJourney(t *testing.T) { onEachDatabase(t, testJourney) }

func testJourney(t *testing.T, db string) {
	h, _ := start(t, "-db", db)
	laptop, phone, stranger := newBrowser(t, h), newBrowser(t, h), newBrowser(t, h)
	want(t, "log in", laptop.login("alice@example.com", demoPassword), 200, "/")
	want(t, "log in again", phone.login("Alice@EXAMPLE.com", demoPassword), 200, "/")
	list := laptop.get("/sessions")
	want(t, "sessions", list, 200, "/sessions")
	if n := strings.Count(list.body, "<strong>"); n != 2 {
		t.Fatalf("%d sessions are listed, want 2\n%s", n, list.body)
	}
	want(t, "sessions of nobody", stranger.get("/sessions"), 200, "/login")

	want(t, "forgot", stranger.post("/account/forgot", "email", "alice@example.com"), 200, "/account/sent")
	link := wait(t, h, "alice@example.com", reset.MailReset).Link
	if err := resettest.ChangePassword(t.Context(), nil, link, "short"); err == nil {
		t.Error("a password too short was taken")
	}
	want(t, "still logged in", phone.get("/sessions"), 200, "/sessions")
	if err := resettest.ChangePassword(t.Context(), nil, link, otherPassword); err != nil {
		t.Fatal(err)
	}
	wait(t, h, "alice@example.com", reset.MailNotification)

	want(t, "sessions after that", laptop.get("/sessions"), 200, "/login")
	want(t, "sessions after that", phone.get("/sessions"), 200, "/login")
	want(t, "sessions after that", stranger.get("/sessions"), 200, "/login")
	want(t, "old password", laptop.login("alice@example.com", demoPassword), 403, "/login")
	want(t, "new password", laptop.login("alice@example.com", otherPassword), 200, "/")
	want(t, "the link again", stranger.get(link), 400, "/account/reset")
}

func TestHost(t *testing.T) { onEachDatabase(t, testHost) }

func testHost(t *testing.T, db string) {
	var logged lockedBuffer
	h, _ := startLogging(t, &logged, "-db", db)
	resettest.TestHost(t, h.server.Handler, resettest.Host{
		Service: h.service,
		BaseURL: h.base + "/account",
		Mailbox: h.mailbox,
		Logged:  logged.String,
		SignUp: func(ctx context.Context, email, password string) error {
			return h.users.signUp(ctx, "", email, password)
		},
		SignIn: func(ctx context.Context, client *http.Client, email, password string) (func(context.Context) (bool, error), error) {
			b := &browser{t, h.base, client}
			if at := b.login(email, password); at.path != "/" {
				return nil, fmt.Errorf("login: %d at %s", at.status, at.path)
			}
			return func(context.Context) (bool, error) { return b.get("/sessions").path == "/sessions", nil }, nil
		},
		ChangePassword: func(ctx context.Context, email, old, password string) error {
			b := newBrowser(t, h)
			b.login(email, old)
			if at := b.post("/password", "old", old, "password", password); at.status != http.StatusOK {
				return fmt.Errorf("change password: %d at %s", at.status, at.path)
			}
			return nil
		},
	})
}

// A lockedBuffer is a buffer for many goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestContract(t *testing.T) { onEachDatabase(t, testContract) }

func testContract(t *testing.T, db string) {
	key := rand.Text() + rand.Text()
	h, _ := start(t, "-db", db, "-api-key", key, "-users", "3", "-per-address", "2")
	for _, test := range []struct {
		email, key string
		status     int
		want       string // a pattern
	}{
		{"alice@example.com", key, 200, `{"activation":"[\w-]{24}"}`},
		{"user0000003@example.com", key, 200, `{"activation":"[\w-]{24}"}`},
		{"user0000004@example.com", key, 200, `{"message":"ok"}`},
		{"carol@example.com", key, 200, `{"message":"ok"}`},
		{"carol@example.com", key, 200, `{"message":"ok"}`},
		{"carol@example.com", key, 429, `.*TOO_MANY_REQUESTS.*`},
		{"alice@example.com", "", 401, `.*UNAUTHORIZED.*`},
	} {
		body := strings.NewReader(fmt.Sprintf(`{"email":%q,"preventEmailSending":true}`, test.email))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.base+"/v1/auth/reset-password", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", test.key)
		got := newBrowser(t, h).do(r)
		if got.status != test.status || !regexp.MustCompile(`^(?:`+test.want+`)$`).MatchString(got.body) {
			t.Errorf("%s: got %d %s, want %d %s", test.email, got.status, got.body, test.status, test.want)
		}
	}
	if got := newBrowser(t, h).get("/healthz"); got.status != 200 {
		t.Errorf("healthz: got %d %s, want 200", got.status, got.body)
	}
}

// change resets a password without a browser.
func change(t *testing.T, h *host, email, password string) {
	t.Helper()
	activation, err := h.service.RequestReset(t.Context(), email, reset.RequestOptions{PreventEmailSending: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.service.ChangePassword(t.Context(), activation, password); err != nil {
		t.Fatal(err)
	}
}

func TestRestart(t *testing.T) { onEachDatabase(t, testRestart) }

func testRestart(t *testing.T, db string) {
	h, stop := start(t, "-db", db)
	change(t, h, "alice@example.com", otherPassword)
	stop()
	if newHealth, err := http.Get(h.base + "/healthz"); err == nil {
		t.Errorf("a stopped host answers %d", newHealth.StatusCode)
	}

	h, stop = start(t, "-db", db, "-users", "3")
	want(t, "old password", newBrowser(t, h).login("alice@example.com", demoPassword), 403, "/login")
	want(t, "new password", newBrowser(t, h).login("alice@example.com", otherPassword), 200, "/")
	change(t, h, "user0000002@example.com", otherPassword)
	stop()

	h, _ = start(t, "-db", db, "-users", "5")
	for email, password := range map[string]string{
		"user0000002@example.com": otherPassword, "user0000003@example.com": demoPassword, "user0000005@example.com": demoPassword,
	} {
		want(t, email, newBrowser(t, h).login(email, password), 200, "/")
	}
}

func TestSMTP(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	letters := make(letterSession, 1)
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return letters, nil }))
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })

	h, _ := start(t, "-smtp", "smtp://"+listener.Addr().String()+"?tls=none")
	if _, err := h.service.RequestReset(t.Context(), "bob@example.com", reset.RequestOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case raw := <-letters:
		for _, want := range []string{"From: \"Harbour\" <no-reply@example.com>\r\n", "To: \"Bob Becker\" <bob@example.com>\r\n"} {
			if !strings.Contains(string(raw), want) {
				t.Errorf("%q is missing in\n%s", want, raw)
			}
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no raw message")
	}

	b := newBrowser(t, h)
	for _, path := range []string{"/inbox", "/demo/panels", "/demo/mail"} {
		want(t, path, b.get(path), 404, path)
	}
	home := b.get("/")
	want(t, "home", home, 200, "/")
	for _, panel := range []string{"inbox-panel", "events-panel", "rows-panel", "script.js"} {
		if strings.Contains(home.body, panel) {
			t.Errorf("the start page has %s", panel)
		}
	}
}
