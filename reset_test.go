package reset_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

func TestDeliveryElsewhere(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.forgot(t, ann.Email)
		r.forgot(t, ann.Email)
		if n := len(r.events.named("run_elsewhere")); n != 1 {
			t.Errorf("%d events run_elsewhere; want 1", n)
		}
	})
}

// A client that is refused only because others fill the limiter is an event.
func TestLimiterFull(t *testing.T) {
	full := limiterFunc(func(context.Context, string, time.Time) error {
		return &reset.LimitError{RetryAfter: time.Second, Full: true}
	})
	inBubble(t, func(c *reset.Config) { c.PerClient = full }, func(t *testing.T, r round) {
		if err := r.Forgot(t.Context(), ann.Email, "192.0.2.1", reset.ForgotOptions{}); !errors.Is(err, reset.ErrTooManyRequests) {
			t.Errorf("Forgot returned %v", err)
		}
		r.wantEvents(t, map[string]int{"limiter_full": 1})
		drained(t, r.store)
	})
}

// Where Run works, nothing is said of another process.
func TestRunHere(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.begin(t)
		r.forgot(t, ann.Email)
		r.wantEvents(t, map[string]int{})
	})
}

// What a public request sets off begins at a random time within 2 s, each as likely.
func TestPublicRequestsBeginAtRandom(t *testing.T) {
	const n, parts = 800, 8
	inBubble(t, unlimited, func(t *testing.T, r round) {
		now := time.Now()
		for range n {
			r.forgot(t, ann.Email)
		}
		total := 0
		for i := range parts {
			mails, err := r.store.Lease(t.Context(), now.Add(2*time.Second*time.Duration(i+1)/parts), now.Add(time.Hour), n)
			if err != nil {
				t.Fatal(err)
			}
			total += len(mails)
			if got := len(mails); got < n/parts/2 || got > n/parts*2 { // five standard deviations and more
				t.Errorf("%d of %d public requests are due in part %d of %d", got, n, i+1, parts)
			}
		}
		if total != n {
			t.Errorf("%d of %d public requests are due within 2 s", total, n)
		}
	})
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

// Forgot looks nobody up.
func TestForgotLooksNobodyUp(t *testing.T) {
	f := newTrusted(t, newHost(ann), nil)
	for _, tt := range []struct {
		email, client string
		want          error
	}{
		{"ann@example.com", "client", nil},
		{"nobody@example.com", "client", nil},
		{"ann", "client", reset.ErrBadRequest},
		{"ann@example.com", "", reset.ErrBadRequest},
	} {
		if err := f.svc.Forgot(t.Context(), tt.email, tt.client, reset.ForgotOptions{}); !errors.Is(err, tt.want) {
			t.Errorf("Forgot(%q, %q): got %v, want %v", tt.email, tt.client, err, tt.want)
		}
	}
	if f.moved() != "store reads 0 writes 2 finds 0 hashes 0 sets 0 mails 0" {
		t.Errorf("moved %s", f.moved())
	}
}
