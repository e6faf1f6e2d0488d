package browsertest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

// oldPassword is what every account has at first.
const (
	oldPassword = "old and forgotten"
	newPassword = "four unrelated quiet words"
)

// A host is an app with the pages mounted under /account, and a webmail on
// another site.
type host struct {
	users   users
	store   *resettest.FaultStore
	ahead   atomic.Int64 // how far the store's clock is ahead, in nanoseconds
	limiter switchedLimiter
	mailbox resettest.Mailbox
	service *reset.Service

	origin string // of the app
	base   string // of the pages
	posts  atomic.Int32
	served func(post int32) // with the number of a form that is done with and not yet answered; or nil

	mu       sync.Mutex
	webmail  string            // the other site's origin
	sibling  string            // the same pages on another origin of the app's own site
	foreign  map[string]string // its pages by path
	referers []string          // of requests for them
}

func newHost(t *testing.T) *host { return startHost(t, false) }

// startHost starts a host, over https if it is secure, with changes to its
// config. It stops with the test.
func startHost(t *testing.T, secure bool, changes ...func(*reset.Config)) *host {
	t.Helper()
	h := &host{foreign: make(map[string]string)}
	h.store = aheadStore(&h.ahead)
	other := httptest.NewServer(http.HandlerFunc(h.serveForeign))
	t.Cleanup(other.Close)
	// Browsers take the name and the address for two sites.
	h.webmail = strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	h.sibling = other.URL // sites have no ports

	mux := http.NewServeMux()
	app := httptest.NewUnstartedServer(mux)
	app.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	h.origin = "http://" + app.Listener.Addr().String()
	if secure {
		h.origin = "https://" + app.Listener.Addr().String()
	}
	h.base = h.origin + "/account"

	config := reset.Config{
		Users:      &h.users,
		Store:      h.store,
		Mailer:     &h.mailbox,
		BaseURL:    h.base,
		SignInURL:  h.origin + "/login",
		SupportURL: h.webmail + "/support",
		Brand:      reset.Brand{Name: "Lighthouse", Color: "#0f766e"},
		PerClient:  &h.limiter,
		Logger:     slog.New(slog.DiscardHandler),
	}
	for _, change := range changes {
		change(&config)
	}
	var err error
	if h.service, err = reset.New(config); err != nil {
		t.Fatal(err)
	}
	pages := http.StripPrefix("/account", h.service.Pages())
	mux.HandleFunc("/account/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			pages.ServeHTTP(w, r)
			return
		}
		n := h.posts.Add(1)
		pages.ServeHTTP(w, r)
		if h.served != nil {
			h.served(n)
		}
	})
	mux.HandleFunc("GET /login", serveLogin)
	mux.HandleFunc("POST /login", h.logIn)
	if secure {
		app.StartTLS()
	} else {
		app.Start()
	}
	t.Cleanup(app.Close)
	h.deliver(t)
	return h
}

// deliver sends mail until the test ends.
func (h *host) deliver(t *testing.T) {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.service.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
}

// link returns what a mail would have brought.
func (h *host) link(t *testing.T, email string) string {
	t.Helper()
	activation, err := h.service.RequestReset(t.Context(), email, reset.RequestOptions{PreventEmailSending: true, MaxRequests: 100})
	if err != nil {
		t.Fatal(err)
	}
	return h.base + "/reset?activation=" + activation
}

// expiredLink returns one whose time is over.
func (h *host) expiredLink(t *testing.T, u reset.User) string {
	t.Helper()
	secret := make([]byte, 18)
	rand.Read(secret)
	activation := base64.RawURLEncoding.EncodeToString(secret)
	now := time.Now()
	a := reset.Activation{
		Hash: sha256.Sum256([]byte(activation)), Request: reset.ID{1}, UserID: u.ID, Email: u.Email, Expires: now.Add(-time.Second),
	}
	if _, err := h.store.Issue(t.Context(), now.Add(-time.Hour), a, reset.Limits{MaxRequests: 1}, nil); err != nil {
		t.Fatal(err)
	}
	return h.base + "/reset?activation=" + activation
}

// mail waits for the next one to an address.
func (h *host) mail(t *testing.T, email string) reset.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m, err := h.mailbox.Wait(ctx, email)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// publish puts a page on the other site and returns its URL.
func (h *host) publish(page string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	path := fmt.Sprintf("/page%d", len(h.foreign))
	h.foreign[path] = page
	return h.webmail + path
}

func (h *host) serveForeign(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.referers = append(h.referers, r.Header.Get("Referer"))
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if page, ok := h.foreign[r.URL.Path]; ok {
		fmt.Fprint(w, page)
		return
	}
	fmt.Fprint(w, "<!doctype html><title>Elsewhere</title><h1>Elsewhere</h1>")
}

// seen returns the Referer headers that the other site got.
func (h *host) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.referers...)
}

func serveLogin(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, `<!doctype html><title>Sign in</title><h1>Sign in</h1><form method="post">`+
		`<input id="email" name="email" autocomplete="username"><input id="password" name="password" type="password" autocomplete="current-password"><button>Sign in</button></form>`)
}

func (h *host) logIn(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	email := r.PostFormValue("email")
	if h.users.password(email) != r.PostFormValue("password") {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "<!doctype html><title>No</title><h1>Wrong password</h1>")
		return
	}
	h.users.signIn(email)
	http.SetCookie(w, &http.Cookie{Name: "session", Value: "1", HttpOnly: true})
	fmt.Fprintf(w, "<!doctype html><title>Yes</title><h1>Hello %s</h1>", html.EscapeString(email))
}

var _ reset.Users = (*users)(nil)

// users are accounts with passwords in the clear, so that tests can read them.
type users struct {
	mu       sync.Mutex
	accounts map[string]*account // by address
	hashing  func()              // before a password is hashed, or nil
}

type account struct {
	reset.User
	password string
	sessions int
	changes  int
}

// add makes an account whose id is the first part of its address.
func (u *users) add(email, locale string) reset.User {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.accounts == nil {
		u.accounts = make(map[string]*account)
	}
	id, _, _ := strings.Cut(email, "@")
	user := reset.User{ID: id, Email: email, Name: "Robin", Locale: locale}
	u.accounts[email] = &account{User: user, password: oldPassword}
	return user
}

func (u *users) get(email string) account {
	u.mu.Lock()
	defer u.mu.Unlock()
	if a := u.accounts[email]; a != nil {
		return *a
	}
	return account{}
}

func (u *users) password(email string) string { return u.get(email).password }

func (u *users) signIn(email string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.accounts[email].sessions++
}

func (u *users) FindByEmail(_ context.Context, address string) (reset.User, error) {
	if a := u.get(address); a.ID != "" {
		return a.User, nil
	}
	return reset.User{}, reset.ErrNoUser
}

func (u *users) HashPassword(_ context.Context, password string) (string, error) {
	if u.hashing != nil {
		u.hashing()
	}
	return password, nil
}

func (u *users) SetPassword(_ context.Context, id, hash string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, a := range u.accounts {
		if a.ID == id {
			a.password, a.sessions = hash, 0
			a.changes++
			return nil
		}
	}
	return reset.ErrNoUser
}

// aheadStore returns a store in memory whose clock is ahead of the Service's by
// that many nanoseconds.
func aheadStore(ahead *atomic.Int64) *resettest.FaultStore {
	mem := new(resettest.MemStore)
	later := func(now time.Time) time.Time { return now.Add(time.Duration(ahead.Load())) }
	return &resettest.FaultStore{
		Store: mem,
		FindFunc: func(ctx context.Context, now time.Time, h reset.Hash) (reset.Activation, error) {
			return mem.Find(ctx, later(now), h)
		},
		RedeemFunc: func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
			return mem.Redeem(ctx, later(now), a, notification, apply)
		},
	}
}

// A switchedLimiter refuses everything while it is on.
type switchedLimiter struct{ on atomic.Bool }

func (l *switchedLimiter) Allow(context.Context, string, time.Time) error {
	if l.on.Load() {
		return &reset.LimitError{RetryAfter: 90 * time.Second}
	}
	return nil
}
