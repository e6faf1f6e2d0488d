package reset_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// A host's own test: from "I forgot my password" to the new one.
func Example_integration() {
	accounts := newHost(reset.User{ID: "1", Email: "ann@example.com", Name: "Ann"})
	mailbox := new(resettest.Mailbox)
	mux := http.NewServeMux()
	app := httptest.NewServer(mux)
	defer app.Close()

	service := must(reset.New(reset.Config{
		Users:   accounts,
		Store:   new(resettest.MemStore),
		Mailer:  mailbox,
		BaseURL: app.URL + "/account",
		Logger:  slog.New(slog.DiscardHandler),
	}))
	mux.Handle("/account/", http.StripPrefix("/account", service.Pages()))
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	var wg sync.WaitGroup
	wg.Go(func() { service.Run(ctx) })

	// Ann asks for a link and gets it by mail.
	browser := &http.Client{Jar: must(cookiejar.New(nil))}
	must(browser.PostForm(app.URL+"/account/forgot", url.Values{"email": {"Ann@Example.com"}}))
	mail := must(mailbox.Wait(ctx, "ann@example.com"))

	// The link leads to a form, which she fills in.
	form := must(browser.Get(mail.Link))
	check := regexp.MustCompile(`name="check" value="(.*?)"`).FindSubmatch(must(io.ReadAll(form.Body)))
	done := must(browser.PostForm(form.Request.URL.String(), url.Values{
		"check": {string(check[1])}, "password": {"nine grey herons"}, "confirm": {"nine grey herons"},
	}))
	fmt.Println(done.Request.URL.Path, accounts.password("1"))

	stop()
	wg.Wait()
	// Output: /account/done nine grey herons
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// run runs the service until the test ends, or stop is called.
func run(t *testing.T, svc *reset.Service) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// drained checks that no mail is queued, not even a leased one.
func drained(t *testing.T, store reset.Store) {
	t.Helper()
	later := time.Now().Add(10 * time.Minute)
	mails, err := store.Lease(t.Context(), later, later.Add(time.Minute), 100)
	if err != nil || len(mails) > 0 {
		t.Errorf("still queued: %d mails, %v", len(mails), err)
	}
}

// activationOf returns the one that the message's link carries.
func activationOf(t testing.TB, m reset.Message) string {
	t.Helper()
	u, err := url.Parse(m.Link)
	if err != nil || len(u.Query().Get("activation")) != 24 {
		t.Fatalf("link %q, %v", m.Link, err)
	}
	return u.Query().Get("activation")
}

// events is a slog.Handler that keeps every record, on all levels, as JSON.
type events struct {
	slog.Handler
	mu  sync.Mutex
	log bytes.Buffer
}

func newEvents() *events {
	e := new(events)
	e.Handler = slog.NewJSONHandler(e, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true})
	return e
}

func (e *events) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log.Write(b)
}

func (e *events) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log.String()
}

// all returns every record.
func (e *events) all() (records []map[string]any) {
	for line := range strings.Lines(e.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			panic(err)
		}
		records = append(records, r)
	}
	return records
}

// named returns the records of one event.
func (e *events) named(event string) []map[string]any {
	return slices.DeleteFunc(e.all(), func(r map[string]any) bool { return r["event"] != event })
}

// eachStore runs f on the stores of this module that need no server. In memory
// the clock is fake. Afterwards every goroutine is gone.
func eachStore(t *testing.T, f func(t *testing.T, store reset.Store)) {
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, new(resettest.MemStore)) })
	})
	for _, o := range []storesqlite.Options{{}, {UsersElsewhere: true}} {
		t.Run(fmt.Sprintf("file, users elsewhere: %t", o.UsersElsewhere), func(t *testing.T) {
			before := runtime.NumGoroutine()
			t.Run("", func(t *testing.T) {
				store, err := o.Open(filepath.Join(t.TempDir(), "reset.db"))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := store.Close(); err != nil {
						t.Error(err)
					}
				})
				f(t, store)
			})
			wantGoroutines(t, before)
		})
	}
}

// wantGoroutines waits until there are at most n: one that has said that it is
// done may take a moment to be gone.
func wantGoroutines(t *testing.T, n int) {
	t.Helper()
	patience := time.After(10 * time.Second)
	for runtime.NumGoroutine() > n {
		select {
		case <-patience:
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), n, stacks[:runtime.Stack(stacks, true)])
		default:
			runtime.Gosched()
		}
	}
}

// parallel calls f n times at once and returns the errors.
func parallel(n int, f func(i int) error) []error {
	errs := make([]error, n)
	var ready, done sync.WaitGroup
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			ready.Wait()
			errs[i] = f(i)
		})
	}
	done.Wait()
	return errs
}

// tally counts the errors that are nil, and checks that the others wrap want.
func tally(t *testing.T, errs []error, want error) (ok int) {
	t.Helper()
	for i, err := range errs {
		switch {
		case err == nil:
			ok++
		case !errors.Is(err, want):
			t.Errorf("call %d: %v, want %v", i, err, want)
		}
	}
	return ok
}

// variants are ways to write ann's address.
var variants = []string{"ann@example.com", "Ann@Example.com", "ANN@EXAMPLE.COM", "aNN@example.COM", "ann@EXAMPLE.com"}

// countRemovals returns s, and a channel that is closed when n mails have been
// removed.
func countRemovals(s reset.Store, n int) (reset.Store, <-chan struct{}) {
	over := make(chan struct{})
	var mu sync.Mutex
	return &resettest.FaultStore{Store: s, SettleFunc: func(ctx context.Context, done []reset.Settlement) error {
		err := s.Settle(ctx, done)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, d := range done {
			if !d.Retry.IsZero() {
				continue
			}
			if n--; n == 0 {
				close(over)
			}
		}
		return nil
	}}, over
}

// wantLive checks how many requests of ann are live, by how many more fit.
func wantLive(t *testing.T, svc *reset.Service, n int) {
	t.Helper()
	o := reset.RequestOptions{MaxRequests: n, PreventEmailSending: true}
	if n > 0 {
		if _, err := svc.RequestReset(t.Context(), ann.Email, o); !errors.Is(err, reset.ErrTooManyRequests) {
			t.Errorf("fewer than %d requests are live: %v", n, err)
		}
	}
	o.MaxRequests++
	if _, err := svc.RequestReset(t.Context(), ann.Email, o); err != nil {
		t.Errorf("more than %d requests are live: %v", n, err)
	}
}

// Of a hundred requests at once, as many as the cap allows get an activation
// and a mail, however the address is written.
func TestTrustedRace(t *testing.T) {
	eachStore(t, func(t *testing.T, store reset.Store) {
		svc, _, mailbox := newService(t, newHost(ann), func(c *reset.Config) { c.Store = store })
		var mu sync.Mutex
		activations := make(map[string]bool)
		errs := parallel(100, func(i int) error {
			activation, err := svc.RequestReset(t.Context(), variants[i%len(variants)], reset.RequestOptions{})
			if err == nil {
				mu.Lock()
				activations[activation] = true
				mu.Unlock()
			}
			return err
		})
		if ok := tally(t, errs, reset.ErrTooManyRequests); ok != 3 || len(activations) != 3 {
			t.Errorf("%d requests got %d activations, want 3", ok, len(activations))
		}
		stop := run(t, svc)
		for range 3 {
			if _, err := mailbox.Wait(t.Context(), ann.Email); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		drained(t, store)
		if got := len(mailbox.Messages()); got != 3 {
			t.Errorf("%d mails, want 3", got)
		}
		wantLive(t, svc, 3)
	})
}

// A hundred public requests at once, all accepted, become one to three mails.
func TestPublicRace(t *testing.T) {
	eachStore(t, func(t *testing.T, store reset.Store) {
		store, removed := countRemovals(store, 100)
		svc, _, mailbox := newService(t, newHost(ann), func(c *reset.Config) {
			c.Store, c.PerClient = store, reset.Unlimited
		})
		stopFirst, stopSecond := run(t, svc), run(t, svc)
		errs := parallel(100, func(i int) error {
			return svc.Forgot(t.Context(), variants[i%len(variants)], "client", reset.ForgotOptions{})
		})
		if ok := tally(t, errs, nil); ok != 100 {
			t.Errorf("%d public requests were accepted, want all", ok)
		}
		select {
		case <-removed:
		case <-time.After(time.Minute):
			t.Fatal("the queue does not empty")
		}
		stopFirst()
		stopSecond()
		requests := make(map[string]bool)
		for _, m := range mailbox.Messages() {
			requests[m.ID] = true
		}
		if n := len(mailbox.Messages()); n < 1 || n > 3 || len(requests) != n {
			t.Errorf("%d mails for %d requests, want 1 to 3, one each", n, len(requests))
		}
		wantLive(t, svc, len(requests))
	})
}

// prevented has an activation issued without a mail.
func prevented(t testing.TB, svc *reset.Service, u reset.User) string {
	t.Helper()
	activation, err := svc.RequestReset(t.Context(), u.Email, reset.RequestOptions{PreventEmailSending: true})
	if err != nil {
		t.Fatal(err)
	}
	return activation
}

// An activation works once, and it is the winner's password that counts.
func TestRedeemRace(t *testing.T) {
	eachStore(t, func(t *testing.T, store reset.Store) {
		h := newHost(ann)
		svc, _, _ := newService(t, h, func(c *reset.Config) { c.Store = store })
		activation := prevented(t, svc, ann)
		password := func(i int) string { return fmt.Sprintf("grey heron number %d", i) }
		errs := parallel(100, func(i int) error {
			return svc.ChangePassword(t.Context(), activation, password(i))
		})
		if ok := tally(t, errs, reset.ErrInvalidActivation); ok != 1 {
			t.Errorf("%d of 100 changes succeeded, want 1", ok)
		}
		for i, err := range errs {
			if err == nil && h.password(ann.ID) != password(i) {
				t.Errorf("the password is %q, want the winner's %q", h.password(ann.ID), password(i))
			}
		}
		if _, _, sets := h.calls(); sets != 1 {
			t.Errorf("the password was set %d times", sets)
		}
		wantLive(t, svc, 0)
	})
}

const rounds = 20 // of a race between few

// Of two activations of one user, one works.
func TestSiblingsRace(t *testing.T) {
	eachStore(t, func(t *testing.T, store reset.Store) {
		h := newHost(ann)
		svc, _, _ := newService(t, h, func(c *reset.Config) { c.Store = store })
		for range rounds {
			activations := []string{prevented(t, svc, ann), prevented(t, svc, ann)}
			errs := parallel(2, func(i int) error {
				return svc.ChangePassword(t.Context(), activations[i], activations[i])
			})
			if ok := tally(t, errs, reset.ErrInvalidActivation); ok != 1 {
				t.Fatalf("%d of 2 changes succeeded: %v", ok, errs)
			}
			for i, err := range errs {
				if err == nil && h.password(ann.ID) != activations[i] {
					t.Error("the password is the loser's")
				}
			}
		}
	})
}

// A change against Revoke comes before it or not at all.
func TestRevokeRace(t *testing.T) {
	eachStore(t, func(t *testing.T, store reset.Store) {
		h := newHost(ann)
		svc, _, _ := newService(t, h, func(c *reset.Config) { c.Store = store })
		for range rounds {
			activation := prevented(t, svc, ann)
			errs := parallel(2, func(i int) error {
				if i == 0 {
					return svc.Revoke(t.Context(), ann.ID)
				}
				return svc.ChangePassword(t.Context(), activation, activation)
			})
			if errs[0] != nil {
				t.Errorf("Revoke = %v", errs[0])
			}
			changed := tally(t, errs[1:], reset.ErrInvalidActivation) == 1
			if set := h.password(ann.ID) == activation; set != changed {
				t.Errorf("ChangePassword = %v, but the password was set: %t", errs[1], set)
			}
			if err := svc.ChangePassword(t.Context(), activation, goodPassword); !errors.Is(err, reset.ErrInvalidActivation) {
				t.Errorf("a revoked activation: %v", err)
			}
		}
	})
}

// So does a change against the end of the account.
func TestDeletedUserRace(t *testing.T) {
	eachStore(t, func(t *testing.T, store reset.Store) {
		h := newHost()
		svc, _, _ := newService(t, h, func(c *reset.Config) { c.Store = store })
		for i := range rounds {
			user := reset.User{ID: fmt.Sprint(i), Email: fmt.Sprintf("user%d@example.com", i)}
			h.put(user)
			activation := prevented(t, svc, user)
			errs := parallel(2, func(i int) error {
				if i == 0 {
					h.remove(user.Email)
					return nil
				}
				return svc.ChangePassword(t.Context(), activation, activation)
			})
			changed := tally(t, errs[1:], reset.ErrInvalidActivation) == 1
			if set := h.password(user.ID) == activation; set != changed {
				t.Errorf("ChangePassword = %v, but the password was set: %t", errs[1], set)
			}
			if err := svc.ChangePassword(t.Context(), activation, goodPassword); !errors.Is(err, reset.ErrInvalidActivation) {
				t.Errorf("an activation without a user: %v", err)
			}
		}
	})
}

// Requests, public requests, changes and revocations of a few users at once end, each with
// one of the errors that it may have.
func TestEverythingAtOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, store reset.Store) {
		h := newHost(ann, bob)
		svc, _, _ := newService(t, h, func(c *reset.Config) {
			c.Store, c.PerClient = store, reset.Unlimited
		})
		run(t, svc)
		errs := parallel(60, func(i int) error {
			user := []reset.User{ann, bob}[i%2]
			switch i % 3 {
			case 0:
				return svc.Forgot(t.Context(), user.Email, "client", reset.ForgotOptions{})
			case 1:
				return svc.Revoke(t.Context(), user.ID)
			}
			activation, err := svc.RequestReset(t.Context(), user.Email, reset.RequestOptions{MaxRequests: 100})
			if err != nil {
				return err
			}
			err = svc.ChangePassword(t.Context(), activation, strings.Repeat(activation, 2))
			if errors.Is(err, reset.ErrInvalidActivation) {
				return nil // another one was quicker
			}
			return err
		})
		for _, err := range errs {
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// Whoever reads the store, its journal included, finds nothing that takes an
// account over.
func TestNoSecretsInStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	store, err := storesqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	host := newHost(ann, bob)
	svc, _, mailbox := newService(t, host, func(c *reset.Config) { c.Store = store })
	run(t, svc)
	secrets := make(map[string]string)
	secret := func(name, activation string) {
		raw, err := base64.RawURLEncoding.DecodeString(activation)
		if err != nil {
			t.Fatal(err)
		}
		secrets[name], secrets[name+", decoded"] = activation, string(raw)
	}
	for _, u := range []reset.User{ann, bob} { // one is used up, and one stays
		id, err := svc.RequestReset(t.Context(), u.Email, reset.RequestOptions{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := mailbox.Wait(t.Context(), u.Email)
		if err != nil {
			t.Fatal(err)
		}
		secret("answered to "+u.Name, id)
		secret("mailed to "+u.Name, activationOf(t, m))
	}
	const password, refused = "canary password 7", "canary"
	secrets["password"], secrets["hash"] = password, hashPrefix+password
	if err := svc.ChangePassword(t.Context(), secrets["mailed to "+ann.Name], refused); err == nil {
		t.Error("a short password was taken")
	}
	if err := svc.ChangePassword(t.Context(), secrets["mailed to "+ann.Name], password); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 3 {
		t.Fatalf("files %v, %v; want the journal as well", files, err)
	}
	found := false
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, s := range secrets {
			if bytes.Contains(content, []byte(s)) {
				t.Errorf("%s holds a secret: %s", filepath.Base(file), name)
			}
		}
		found = found || bytes.Contains(content, []byte(bob.Email)) // it is in the clear
	}
	if !found {
		t.Error("nothing was stored")
	}
}
