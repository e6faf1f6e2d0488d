// Package hosttest tests the recipes.
package hosttest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/recipes/internal/host"
	"github.com/gopassreset/reset/resettest"
)

const apiKey = "Vb7qLm2Zx9Rt4Wd6Yp1Kc8Hs3Nf5Gj0a"

// A Recipe is what Test needs to know of one.
type Recipe struct {
	// New makes the host on a database with the tables of a host.
	New      func(t *testing.T, d Database, c host.Config) (*host.Host, error)
	Dialects []string // defaults to all

	// Serve serves h on l until the test is over and returns a client for it.
	// Defaults to net/http.
	Serve  func(t *testing.T, h *host.Host, l net.Listener) *http.Client
	Scheme string // of what Serve serves; defaults to http
	// Prefix is what a proxy strips from paths, and Proxy is its address.
	// Default to no proxy.
	Prefix string
	Proxy  netip.Addr
}

// Test walks through a reset with a browser, and runs the suites for hosts.
func Test(t *testing.T, r Recipe) {
	OnEach(t, func(t *testing.T, dialect string) {
		for name, test := range map[string]func(*testing.T, string){
			"journey": r.journey, "TestUsers": r.testUsers, "TestHost": r.testHost,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, dialect)
			})
		}
	}, r.Dialects...)
}

// A run is a host under test.
type run struct {
	*host.Host
	mailbox *resettest.Mailbox
	site    string
	log     buffer
}

// start makes a host for an origin, on a new database.
func (r Recipe) start(t *testing.T, dialect, origin string) *run {
	t.Helper()
	d := NewDatabase(t, dialect)
	CreateTables(t, d)
	run := &run{mailbox: new(resettest.Mailbox), site: origin + r.Prefix}
	var err error
	run.Host, err = r.New(t, d, host.Config{
		Reset: reset.Config{
			Mailer: run.mailbox, BaseURL: run.site + "/account", APIKeys: []string{apiKey},
			Logger: slog.New(slog.NewTextHandler(io.MultiWriter(&run.log, t.Output()), nil)),
		},
		AccessLog: &run.log,
		Hash:      host.Argon2id{KiB: 64}, // not to take the test's time
	})
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func (r Recipe) testUsers(t *testing.T, dialect string) {
	h := r.start(t, dialect, "https://app.example.com")
	resettest.TestUsers(t, resettest.UsersHost{
		Users: h.Users, Store: h.Store,
		SignUp: func(ctx context.Context, email, password string) (string, error) {
			return host.SignUp(ctx, h.Users, email, password)
		},
		SignIn: func(ctx context.Context, email, password string) (func(context.Context) (bool, error), error) {
			session, err := host.SignIn(ctx, h.Users, email, password)
			return func(ctx context.Context) (bool, error) {
				_, err := h.Users.UserOf(ctx, session)
				return err == nil, nil
			}, err
		},
	})
	if log := h.log.String(); strings.Contains(log, "nobody-") {
		t.Errorf("an address without an account is logged:\n%s", log)
	}
}

func (r Recipe) testHost(t *testing.T, dialect string) {
	h := r.start(t, dialect, "https://app.example.com")
	resettest.TestHost(t, h.Handler, resettest.Host{
		Service: h.Service, BaseURL: h.site + "/account", Mailbox: h.mailbox, Logged: h.log.String,
		SignUp: func(ctx context.Context, email, password string) error {
			_, err := host.SignUp(ctx, h.Users, email, password)
			return err
		},
		SignIn: h.signIn, ChangePassword: h.ChangePassword,
		Proxy: r.Proxy, ProxyStrips: r.Prefix,
	})
}

func (r *run) signIn(ctx context.Context, client *http.Client, email, password string) (alive func(context.Context) (bool, error), err error) {
	status, _, err := r.do(ctx, client, http.MethodPost, "/sign-in", url.Values{"email": {email}, "password": {password}}.Encode())
	if err == nil && status != http.StatusNoContent {
		err = fmt.Errorf("POST /sign-in: %d", status)
	}
	return func(ctx context.Context) (bool, error) {
		status, _, err := r.do(ctx, client, http.MethodGet, "/me", "")
		return status == http.StatusOK, err
	}, err
}

// do makes a request below the site.
func (r *run) do(ctx context.Context, client *http.Client, method, path, body string) (status int, answer string, err error) {
	request, err := http.NewRequestWithContext(ctx, method, r.site+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if strings.HasPrefix(body, "{") { // a back end
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", apiKey)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// journey takes a user from the form to the new password, through a real
// server, and a back end to its answer.
func (r Recipe) journey(t *testing.T, dialect string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := r.start(t, dialect, cmp.Or(r.Scheme, "http")+"://"+l.Addr().String())
	ctx, stop := context.WithCancel(t.Context())
	delivered := make(chan error, 1)
	go func() { delivered <- h.Service.Run(ctx) }()
	defer func() {
		stop()
		if err := <-delivered; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	serve := r.Serve
	if serve == nil {
		serve = serveHTTP
	}
	client := serve(t, h.Host, l)
	if client.Jar, err = cookiejar.New(nil); err != nil {
		t.Fatal(err)
	}

	const first, second = "seven brown otters", "nine grey herons"
	if _, err := host.SignUp(t.Context(), h.Users, "Ann@example.com", first); err != nil {
		t.Fatal(err)
	}
	alive, err := h.signIn(t.Context(), client, "ann@example.com", first)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(method, path, body string, status int, text string) {
		t.Helper()
		got, answer, err := h.do(t.Context(), client, method, path, body)
		if err != nil || got != status || !strings.Contains(answer, text) {
			t.Fatalf("%s %s = %d, %v, want %d with %q in\n%s", method, path, got, err, status, text, answer)
		}
	}
	expect(http.MethodGet, "/account/forgot", "", http.StatusOK, "<form")
	expect(http.MethodPost, "/account/forgot", "email=ANN%40example.com", http.StatusOK, "<h1")
	mail, err := h.mailbox.Wait(t.Context(), "Ann@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if is, err := alive(t.Context()); err != nil || !is {
		t.Errorf("before the link is redeemed: the session is alive: %t, %v", is, err)
	}
	if err := resettest.ChangePassword(t.Context(), client, mail.Link, second); err != nil {
		t.Fatal(err)
	}
	if is, err := alive(t.Context()); err != nil || is {
		t.Errorf("after the link was redeemed: the session is alive: %t, %v", is, err)
	}
	if _, err := h.signIn(t.Context(), client, "ann@example.com", first); err == nil {
		t.Error("the old password opens the account")
	}
	if _, err := h.signIn(t.Context(), client, "ann@example.com", second); err != nil {
		t.Error(err)
	}
	expect(http.MethodPost, "/v1/auth/reset-password", `{"email":"bob@example.com"}`, http.StatusOK, `{"message":"ok"}`)
	if log := h.log.String(); !strings.Contains(log, "/account/reset") || strings.Contains(log, "activation=") {
		t.Errorf("the access log lacks the link, or shows its query:\n%s", log)
	}
}

func serveHTTP(t *testing.T, h *host.Host, l net.Listener) *http.Client {
	srv := &http.Server{Handler: h.Handler}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return new(http.Client)
}

// A buffer is a log.
type buffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
