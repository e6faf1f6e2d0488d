package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

func TestLoginAnswersAlike(t *testing.T) {
	t.Parallel()
	h, _ := start(t)
	var first page
	for i, test := range []struct{ email, password string }{
		{"alice@example.com", "wrong"},
		{"nobody@example.com", "wrong"},
		{"nobody@example.com", demoPassword},
		{"carol@example.com", demoPassword},
		{"no address", demoPassword},
	} {
		got := newBrowser(t, h).login(test.email, test.password)
		got.body = strings.ReplaceAll(got.body, test.email, "EMAIL")
		want(t, test.email, got, 403, "/login")
		if i == 0 {
			first = got
		}
		if got.body != first.body {
			t.Errorf("%s gets another page than %s:\n%s", test.email, "alice@example.com", got.body)
		}
	}
}

func TestLoginIsLimited(t *testing.T) {
	t.Parallel()
	h, _ := start(t)
	h.attempts = reset.NewMemoryLimiter(2, time.Hour)
	b := newBrowser(t, h)
	for i, status := range []int{403, 403, 429} {
		want(t, "log in", b.login("alice@example.com", "wrong"), status, "/login")
		if i == 2 {
			want(t, "log in with the right password", b.login("ALICE@example.com", demoPassword), 429, "/login")
		}
	}
	want(t, "somebody else", b.login("bob@example.com", demoPassword), 200, "/")
}

func TestSignUp(t *testing.T) { onEachDatabase(t, testSignUp) }

func testSignUp(t *testing.T, db string) {
	h, _ := start(t, "-db", db)
	b := newBrowser(t, h)
	for _, test := range []struct {
		name, email, password string
		status                int
	}{
		{"Dora", "dora", demoPassword, 400},
		{"Dora", "dora@example.com", "short", 400},
		{strings.Repeat("D", 101), "dora@example.com", demoPassword, 400},
		{"\xff", "dora@example.com", demoPassword, 400},
		{"Eve", "ALICE@example.com", demoPassword, 409},
	} {
		got := b.post("/signup", "name", test.name, "email", test.email, "password", test.password)
		want(t, test.email, got, test.status, "/signup")
	}
	want(t, "sign up", b.post("/signup", "name", "Dora", "email", "Dora@Example.com", "password", demoPassword), 200, "/")
	want(t, "sessions", b.get("/sessions"), 200, "/sessions")
	found, err := h.users.FindByEmail(t.Context(), "dora@example.com")
	if err != nil || found.Email != "Dora@Example.com" || found.Name != "Dora" {
		t.Errorf("got %+v, %v, want Dora with her address as she typed it", found, err)
	}
	want(t, "log out", b.post("/logout"), 200, "/")
	want(t, "sessions", b.get("/sessions"), 200, "/login")
}

func TestLogOutEndsTheSession(t *testing.T) { onEachDatabase(t, testLogOutEndsTheSession) }

func testLogOutEndsTheSession(t *testing.T, db string) {
	h, _ := start(t, "-db", db)
	b := newBrowser(t, h)
	b.login("alice@example.com", demoPassword)
	kept := *b
	jar := b.client.Jar
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.base+"/sessions", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range jar.Cookies(r.URL) {
		r.AddCookie(c)
	}
	b.post("/logout")
	kept.client = &http.Client{}
	want(t, "the old cookie", kept.do(r), 200, "/login")
}

func TestEndOneSession(t *testing.T) { onEachDatabase(t, testEndOneSession) }

func testEndOneSession(t *testing.T, db string) {
	h, _ := start(t, "-db", db)
	alice, bob := newBrowser(t, h), newBrowser(t, h)
	alice.login("alice@example.com", demoPassword)
	bob.login("bob@example.com", demoPassword)
	all, err := sessionsOf(t.Context(), h.db, "alice")
	if err != nil || len(all) != 1 {
		t.Fatalf("got %d sessions, %v, want 1", len(all), err)
	}
	want(t, "another's session", bob.post("/sessions/end", "session", all[0].Hash), 200, "/sessions")
	want(t, "alice", alice.get("/sessions"), 200, "/sessions")
	want(t, "a NUL", alice.post("/sessions/end", "session", "\x00"), 200, "/sessions")
	want(t, "her own session", alice.post("/sessions/end", "session", all[0].Hash), 200, "/login")
}

func TestChangePassword(t *testing.T) { onEachDatabase(t, testChangePassword) }

func testChangePassword(t *testing.T, db string) {
	h, _ := start(t, "-db", db)
	laptop, phone := newBrowser(t, h), newBrowser(t, h)
	laptop.login("alice@example.com", demoPassword)
	phone.login("alice@example.com", demoPassword)
	activation, err := h.service.RequestReset(t.Context(), "alice@example.com", reset.RequestOptions{PreventEmailSending: true})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "wrong old password", laptop.post("/password", "old", "wrong", "password", otherPassword), 403, "/password")
	want(t, "too short", laptop.post("/password", "old", demoPassword, "password", "short"), 400, "/password")
	want(t, "still logged in", phone.get("/sessions"), 200, "/sessions")
	want(t, "change", laptop.post("/password", "old", demoPassword, "password", otherPassword), 200, "/password")
	want(t, "this browser", laptop.get("/sessions"), 200, "/sessions")
	want(t, "the other one", phone.get("/sessions"), 200, "/login")
	if err := h.service.ChangePassword(t.Context(), activation, "yet another passphrase"); !errors.Is(err, reset.ErrInvalidActivation) {
		t.Errorf("an earlier link: got %v, want %v", err, reset.ErrInvalidActivation)
	}
}

// A selectHook tells when a user has been read.
type selectHook struct{ read chan struct{} }

func (selectHook) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (h selectHook) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	if e.Operation() == "SELECT" {
		h.read <- struct{}{}
	}
}

// holdLogin logs in and holds that up between reading the user and checking the
// password, until release is called.
func holdLogin(ctx context.Context, h *host, email string) (release func(), result <-chan error) {
	slots := h.users.hasher.slots
	for range cap(slots) {
		slots <- struct{}{}
	}
	hook := selectHook{make(chan struct{})}
	held := *h.users
	held.db = h.users.db.WithQueryHook(hook)
	ended := make(chan error, 1)
	go func() {
		_, err := held.logIn(ctx, email, demoPassword, "")
		ended <- err
	}()
	<-hook.read
	return func() {
		for range cap(slots) {
			<-slots
		}
	}, ended
}

func TestSessionDoesNotOutliveReset(t *testing.T) { onEachDatabase(t, testSessionDoesNotOutliveReset) }

func testSessionDoesNotOutliveReset(t *testing.T, db string) {
	h, _ := start(t, "-db", db)
	hash, err := h.users.HashPassword(t.Context(), otherPassword)
	if err != nil {
		t.Fatal(err)
	}
	release, result := holdLogin(t.Context(), h, "alice@example.com")
	if err := h.users.SetPassword(t.Context(), "alice", hash); err != nil {
		t.Fatal(err)
	}
	release()
	if err := <-result; !errors.Is(err, errWrongLogin) {
		t.Errorf("got %v, want %v", err, errWrongLogin)
	}
	if all, err := sessionsOf(t.Context(), h.db, "alice"); err != nil || len(all) > 0 {
		t.Errorf("%d sessions are left, %v", len(all), err)
	}
}

func TestUnknownUserCostsAHash(t *testing.T) {
	t.Parallel()
	h, _ := start(t)
	for _, email := range []string{"alice@example.com", "nobody@example.com", "carol@example.com"} {
		ctx, cancel := context.WithCancel(t.Context())
		release, result := holdLogin(ctx, h, email)
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v without waiting for a hash", email, err)
		}
		release()
	}
}

func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	h, _ := start(t)
	for _, path := range []string{"/login", "/signup", "/logout", "/sessions/end", "/password", "/account/forgot", "/account/reset"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.base+path, strings.NewReader("email=alice@example.com"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "https://elsewhere.example")
		want(t, path, newBrowser(t, h).do(r), 403, path)
	}
}

func TestSessionCookie(t *testing.T) {
	for _, test := range []struct {
		secure bool
		want   string
	}{
		{false, "session=v; Path=/; Max-Age=1209600; HttpOnly; SameSite=Lax"},
		{true, "__Host-session=v; Path=/; Max-Age=1209600; HttpOnly; Secure; SameSite=Lax"},
	} {
		c := sessionCookie(test.secure)
		c.Value = "v"
		if got := c.String(); got != test.want {
			t.Errorf("secure %v: got %s, want %s", test.secure, got, test.want)
		}
	}
}

func TestUsers(t *testing.T) { onEachDatabase(t, testUsers) }

func testUsers(t *testing.T, db string) {
	h, _ := start(t, "-db", db)
	resettest.TestUsers(t, resettest.UsersHost{
		Users: h.users,
		Store: h.db.store,
		SignUp: func(ctx context.Context, email, password string) (string, error) {
			if err := h.users.signUp(ctx, "", email, password); err != nil {
				return "", err
			}
			u, err := h.users.byTypedAddress(ctx, email)
			return u.ID, err
		},
		SignIn: func(ctx context.Context, email, password string) (func(context.Context) (bool, error), error) {
			cookie, err := h.users.logIn(ctx, email, password, "")
			return func(ctx context.Context) (bool, error) {
				r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
				r.AddCookie(&http.Cookie{Name: h.cookie.Name, Value: cookie})
				v, err := h.visitor(r)
				return v.User.ID != "", err
			}, err
		},
		Barred: []string{"carol@example.com"},
	})
	if err := h.users.SetPassword(t.Context(), "carol", "hash"); !errors.Is(err, reset.ErrNoUser) {
		t.Errorf("SetPassword of a disabled user: got %v, want %v", err, reset.ErrNoUser)
	}
}
