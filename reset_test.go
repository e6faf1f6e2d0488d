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
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	_ "github.com/gopassreset/reset/internal/bubble"
	"github.com/gopassreset/reset/resettest"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// eachStore calls f with a service for ann and bob on each store of this module
// that needs no server. In memory the clock is fake. Afterwards every goroutine
// is gone.
func eachStore(t *testing.T, f func(t *testing.T, f *fixture)) {
	start := func(t *testing.T, store reset.Store) {
		fix := newFixture(t, newHost(ann, bob), unlimited)
		fix.store.Store = store
		f(t, fix)
	}
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { start(t, new(resettest.MemStore)) })
	})
	for _, o := range []storesqlite.Options{{}, {UsersElsewhere: true}} {
		t.Run(fmt.Sprintf("file, users elsewhere: %t", o.UsersElsewhere), func(t *testing.T) {
			before := runtime.NumGoroutine()
			t.Run("", func(t *testing.T) {
				store, err := storesqlite.OpenWith(filepath.Join(t.TempDir(), "reset.db"), o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := store.Close(); err != nil {
						t.Error(err)
					}
				})
				start(t, store)
			})
			wantGoroutines(t, before)
		})
	}
}

// wantGoroutines waits until at most n goroutines are left: one that has
// reported its end may still be returning.
func wantGoroutines(t *testing.T, n int) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for runtime.NumGoroutine() > n {
		select {
		case <-timeout:
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

// variants are spellings of ann's address.
var variants = []string{"ann@example.com", "Ann@Example.com", "ANN@EXAMPLE.COM", "aNN@example.COM", "ann@EXAMPLE.com"}

// wantLive checks how many requests of ann are live, by how many more fit.
func (f *fixture) wantLive(n int) {
	f.t.Helper()
	o := reset.RequestOptions{MaxRequests: n, PreventEmailSending: true}
	if n > 0 {
		if _, err := f.RequestReset(f.t.Context(), ann.Email, o); !errors.Is(err, reset.ErrTooManyRequests) {
			f.t.Errorf("fewer than %d requests are live: %v", n, err)
		}
	}
	o.MaxRequests++
	if _, err := f.RequestReset(f.t.Context(), ann.Email, o); err != nil {
		f.t.Errorf("more than %d requests are live: %v", n, err)
	}
}

// Of a hundred requests at once, as many as the cap allows get an activation
// and a mail, however the address is spelled.
func TestTrustedRace(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fixture) {
		var activations sync.Map
		errs := parallel(100, func(i int) error {
			activation, err := f.RequestReset(t.Context(), variants[i%len(variants)], reset.RequestOptions{})
			if _, twice := activations.LoadOrStore(activation, true); twice && err == nil {
				t.Errorf("two requests got one activation")
			}
			return err
		})
		if ok := tally(t, errs, reset.ErrTooManyRequests); ok != 3 {
			t.Errorf("%d of 100 requests succeeded, want 3", ok)
		}
		stop := f.run()
		for range 3 {
			if _, err := f.mailer.Wait(t.Context(), ann.Email); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		f.wantSent(3)
		f.wantQueued(0)
		f.wantLive(3)
	})
}

// Of a hundred public requests at once all are accepted, and one to three are
// mailed.
func TestPublicRace(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fixture) {
		removed, store := make(chan bool, 100), f.store.Store
		f.store.SettleFunc = func(ctx context.Context, done []reset.Settlement) error {
			err := store.Settle(ctx, done)
			for _, d := range done {
				if err == nil && d.Retry.IsZero() {
					removed <- true
				}
			}
			return err
		}
		stopFirst, stopSecond := f.run(), f.run()
		errs := parallel(100, func(i int) error {
			return f.Forgot(t.Context(), variants[i%len(variants)], "client", reset.ForgotOptions{})
		})
		if ok := tally(t, errs, nil); ok != 100 {
			t.Errorf("%d public requests were accepted, want all", ok)
		}
		timeout := time.After(time.Minute)
		for range 100 {
			select {
			case <-removed:
			case <-timeout:
				t.Fatal("the queue does not empty")
			}
		}
		stopFirst()
		stopSecond()
		f.wantQueued(0)
		requests := make(map[string]bool)
		for _, m := range f.mailer.attempts() {
			requests[m.ID] = true
		}
		if n := len(f.mailer.attempts()); n < 1 || n > 3 || len(requests) != n {
			t.Errorf("%d mails for %d requests, want 1 to 3, one each", n, len(requests))
		}
		f.wantLive(len(requests))
	})
}

// An activation works once, and the password is the winner's.
func TestRedeemRace(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fixture) {
		activation := f.activation(ann)
		password := func(i int) string { return fmt.Sprintf("grey heron number %d", i) }
		errs := parallel(100, func(i int) error {
			return f.ChangePassword(t.Context(), activation, password(i))
		})
		if ok := tally(t, errs, reset.ErrInvalidActivation); ok != 1 {
			t.Errorf("%d of 100 changes succeeded, want 1", ok)
		}
		for i, err := range errs {
			if err == nil {
				f.wantPassword(ann, password(i))
			}
		}
		if _, _, sets := f.host.calls(); sets != 1 {
			t.Errorf("the password was set %d times, want once", sets)
		}
		f.wantLive(0)
	})
}

const rounds = 20 // of a race between two

// Of two activations of one user, one works.
func TestSiblingsRace(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fixture) {
		for range rounds {
			activations := []string{f.activation(ann), f.activation(ann)}
			errs := parallel(2, func(i int) error {
				return f.ChangePassword(t.Context(), activations[i], activations[i])
			})
			if ok := tally(t, errs, reset.ErrInvalidActivation); ok != 1 {
				t.Fatalf("%d of 2 changes succeeded: %v", ok, errs)
			}
			for i, err := range errs {
				if err == nil {
					f.wantPassword(ann, activations[i])
				}
			}
		}
	})
}

// A change of the password comes before the end of its activation, or not at
// all.
func TestRevokeRace(t *testing.T) {
	for name, end := range map[string]func(*fixture, reset.User) error{
		"Revoke":       func(f *fixture, u reset.User) error { return f.Revoke(f.t.Context(), u.ID) },
		"account gone": func(f *fixture, u reset.User) error { f.host.remove(u.Email); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			eachStore(t, func(t *testing.T, f *fixture) {
				for i := range rounds {
					u := reset.User{ID: fmt.Sprint(100 + i), Email: fmt.Sprintf("user%d@example.com", i)}
					f.host.put(u)
					activation := f.activation(u)
					errs := parallel(2, func(i int) error {
						if i == 0 {
							return end(f, u)
						}
						return f.ChangePassword(t.Context(), activation, activation)
					})
					if errs[0] != nil {
						t.Errorf("%s = %v", name, errs[0])
					}
					want := ""
					if tally(t, errs[1:], reset.ErrInvalidActivation) == 1 {
						want = activation
					}
					f.wantPassword(u, want)
					if err := f.ChangePassword(t.Context(), activation, goodPassword); !errors.Is(err, reset.ErrInvalidActivation) {
						t.Errorf("afterwards ChangePassword = %v, want ErrInvalidActivation", err)
					}
				}
			})
		})
	}
}

// Requests, public requests, changes and revocations of two users at once end,
// each with one of the errors that it may have.
func TestEverythingAtOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fixture) {
		f.run()
		errs := parallel(60, func(i int) error {
			user := []reset.User{ann, bob}[i%2]
			switch i % 3 {
			case 0:
				return f.Forgot(t.Context(), user.Email, "client", reset.ForgotOptions{})
			case 1:
				return f.Revoke(t.Context(), user.ID)
			}
			activation, err := f.RequestReset(t.Context(), user.Email, reset.RequestOptions{MaxRequests: 100})
			if err != nil {
				return err
			}
			err = f.ChangePassword(t.Context(), activation, strings.Repeat(activation, 2))
			if errors.Is(err, reset.ErrInvalidActivation) {
				return nil // redeemed or revoked meanwhile
			}
			return err
		})
		tally(t, errs, nil)
	})
}

// The cap counts the requests of trusted callers and of the public alike, until
// they expire.
func TestCap(t *testing.T) {
	inBubble(t, func(c *reset.Config) { c.MaxRequests, c.MaxRequestsCeiling = 2, 3 }, func(t *testing.T, f *fixture) {
		f.begin()
		f.forgot(ann.Email)
		pass(delivered)
		for _, tt := range []struct {
			email string
			max   int
			want  error
		}{
			{ann.Email, 0, nil},
			{ann.Email, 0, reset.ErrTooManyRequests},
			{ann.Email, 1, reset.ErrTooManyRequests},
			{bob.Email, 0, nil},
			{ann.Email, 4, reset.ErrBadRequest},
			{ann.Email, -1, reset.ErrBadRequest},
			{ann.Email, 3, nil},
			{ann.Email, 3, reset.ErrTooManyRequests},
		} {
			_, err := f.RequestReset(t.Context(), tt.email, reset.RequestOptions{MaxRequests: tt.max})
			if !errors.Is(err, tt.want) {
				t.Errorf("%s, MaxRequests %d: %v, want %v", tt.email, tt.max, err, tt.want)
			}
		}
		pass(time.Hour)
		f.request(ann.Email)
	})
}

// A limiter that allows nothing refuses a request before it moves anything,
// with or without an account.
func TestLimited(t *testing.T) {
	limit := &reset.LimitError{RetryAfter: time.Minute}
	refuse := limiterFunc(func(context.Context, string, time.Time) error { return limit })
	inBubble(t, func(c *reset.Config) { c.PerAddress, c.PerClient = refuse, refuse }, func(t *testing.T, f *fixture) {
		before := f.moved()
		for _, email := range []string{ann.Email, "nobody@example.com"} {
			_, err := f.RequestReset(t.Context(), email, reset.RequestOptions{})
			for _, err := range []error{err, f.Forgot(t.Context(), email, "192.0.2.1", reset.ForgotOptions{})} {
				var got *reset.LimitError
				if !errors.As(err, &got) || got.RetryAfter != time.Minute || !errors.Is(err, reset.ErrTooManyRequests) {
					t.Errorf("%s: %v, want %v", email, err, limit)
				}
			}
		}
		f.wantMoved(before)
		f.wantEvents(map[string]int{"client_limited": 4})
		limit.Full = true
		if err := f.Forgot(t.Context(), ann.Email, "192.0.2.1", reset.ForgotOptions{}); !errors.Is(err, reset.ErrTooManyRequests) {
			t.Errorf("full: %v", err)
		}
		f.wantEvents(map[string]int{"client_limited": 4, "limiter_full": 1})
	})
}

// Limiters get the canonical address and the client.
func TestLimiterKeys(t *testing.T) {
	var keys []string
	note := limiterFunc(func(_ context.Context, key string, _ time.Time) error {
		keys = append(keys, key)
		return nil
	})
	inBubble(t, func(c *reset.Config) { c.PerAddress, c.PerClient = note, note }, func(t *testing.T, f *fixture) {
		f.request("ANN@Example.com")
		f.forgot("ANN@Example.com")
		if got, want := strings.Join(keys, " "), "ann@example.com 192.0.2.1"; got != want {
			t.Errorf("keys %q, want %q", got, want)
		}
	})
}

// A limiter that fails, or that takes longer than 200 ms, refuses a request
// with or without an account. Redeeming needs no limiter.
func TestLimiterFails(t *testing.T) {
	for name, limiter := range map[string]limiterFunc{
		"fails": func(context.Context, string, time.Time) error { return errors.New("connection refused") },
		"slow": func(ctx context.Context, _ string, _ time.Time) error {
			<-ctx.Done()
			return ctx.Err()
		},
		"ignores ctx": func(context.Context, string, time.Time) error {
			<-time.After(5 * time.Second)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			on := false
			some := limiterFunc(func(ctx context.Context, key string, now time.Time) error {
				if !on {
					return nil
				}
				return limiter(ctx, key, now)
			})
			inBubble(t, func(c *reset.Config) { c.PerAddress, c.PerClient = some, some }, func(t *testing.T, f *fixture) {
				activation := f.activation(ann)
				on = true
				before := f.moved()
				for _, email := range []string{ann.Email, "nobody@example.com"} {
					start := time.Now()
					_, err := f.RequestReset(t.Context(), email, reset.RequestOptions{})
					for _, err := range []error{err, f.Forgot(t.Context(), email, "192.0.2.1", reset.ForgotOptions{})} {
						if err == nil || errors.Is(err, reset.ErrTooManyRequests) {
							t.Errorf("%s: %v, want a failure", email, err)
						}
					}
					if took := time.Since(start); took != 0 && took != 400*time.Millisecond {
						t.Errorf("%s: two requests took %v", email, took)
					}
				}
				f.wantMoved(before)
				f.wantEvents(map[string]int{"limiter_failed": 4})
				start := time.Now()
				if err := f.ChangePassword(t.Context(), activation, goodPassword); err != nil || time.Since(start) > 0 {
					t.Errorf("ChangePassword = %v after %v", err, time.Since(start))
				}
				pass(5 * time.Second) // the call that ignores ctx returns
			})
		})
	}
}

// Forgot looks nobody up.
func TestForgot(t *testing.T) {
	f := newFixture(t, newHost(ann), nil)
	for _, tt := range []struct {
		email, client string
		want          error
	}{
		{ann.Email, "client", nil},
		{"nobody@example.com", "client", nil},
		{"ann", "client", reset.ErrBadRequest},
		{ann.Email, "", reset.ErrBadRequest},
	} {
		if err := f.Forgot(t.Context(), tt.email, tt.client, reset.ForgotOptions{}); !errors.Is(err, tt.want) {
			t.Errorf("Forgot(%q, %q) = %v, want %v", tt.email, tt.client, err, tt.want)
		}
	}
	f.wantMoved("0 reads and 2 writes of the store, 0 finds, 0 hashes, 0 sets, 0 mails")
}

// A public request is due at a random time within 2 s, each as likely.
func TestForgotDue(t *testing.T) {
	const n, parts = 800, 8
	inBubble(t, unlimited, func(t *testing.T, f *fixture) {
		now := time.Now()
		for range n {
			f.forgot(ann.Email)
		}
		total := 0
		for i := range parts {
			mails, err := f.store.Store.Lease(t.Context(), now.Add(2*time.Second*time.Duration(i+1)/parts), now.Add(time.Hour), n)
			if err != nil {
				t.Fatal(err)
			}
			total += len(mails)
			if got := len(mails); got < n/parts/2 || got > n/parts*2 { // more than five standard deviations
				t.Errorf("%d of %d public requests are due in part %d of %d", got, n, i+1, parts)
			}
		}
		if total != n {
			t.Errorf("%d of %d public requests are due within 2 s", total, n)
		}
	})
}

// The configuration is logged once, by the first use of the service.
func TestStarted(t *testing.T) {
	for _, use := range []func(*fixture){
		func(f *fixture) { f.Pages() },
		func(f *fixture) { f.Handler() },
		func(f *fixture) { f.run() },
	} {
		inBubble(t, func(c *reset.Config) { c.PerAddress = reset.NewMemoryLimiter(7, time.Hour) }, func(t *testing.T, f *fixture) {
			if got := len(f.log.named("started")); got != 0 {
				t.Errorf("%d records before", got)
			}
			use(f)
			synctest.Wait()
			use(f)
			records := f.log.named("started")
			if len(records) != 1 {
				t.Fatalf("%d records, want 1", len(records))
			}
			for name, want := range map[string]any{
				"links": baseURL + "/reset", "store": "*resettest.FaultStore", "mailer": "*reset_test.mailer",
				"per_client": "*reset.MemoryLimiter, 20 at once", "per_address": "*reset.MemoryLimiter, 7 at once",
				"max_requests": 3.0, "ttl": float64(time.Hour), "workers": 20.0,
			} {
				if got := records[0][name]; got != want {
					t.Errorf("%s = %v, want %v", name, got, want)
				}
			}
		})
	}
}

// A process that queues mail without calling Run says so once.
func TestRunElsewhere(t *testing.T) {
	for _, queue := range []func(*fixture){
		func(f *fixture) { f.forgot(ann.Email) },
		func(f *fixture) { f.request(ann.Email) },
		func(f *fixture) { f.redeem(ann) },
	} {
		inBubble(t, nil, func(t *testing.T, f *fixture) {
			queue(f)
			queue(f)
			f.wantEvent("run_elsewhere", 1)
		})
		inBubble(t, nil, func(t *testing.T, f *fixture) {
			f.begin()
			queue(f)
			f.wantEvent("run_elsewhere", 0)
		})
	}
}

func TestChangePassword(t *testing.T) {
	flipCase := func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}
	for _, tt := range []struct {
		name string
		// spoil returns what is redeemed instead of an activation of ann.
		spoil func(f *fixture, activation string) string
		want  error
	}{
		{"live", func(_ *fixture, a string) string { return a }, nil},
		{"1 ms before it expires", func(_ *fixture, a string) string { pass(time.Hour - time.Millisecond); return a }, nil},
		{"expired", func(_ *fixture, a string) string { pass(time.Hour); return a }, reset.ErrInvalidActivation},
		{"unknown", func(*fixture, string) string { return strings.Repeat("A", 24) }, reset.ErrInvalidActivation},
		{"flipped case", func(_ *fixture, a string) string { return strings.Map(flipCase, a) }, reset.ErrInvalidActivation},
		{"revoked", func(f *fixture, a string) string { f.Revoke(f.t.Context(), ann.ID); return a }, reset.ErrInvalidActivation},
		{"another revoked", func(f *fixture, a string) string { f.Revoke(f.t.Context(), bob.ID); return a }, nil},
		{"redeemed", func(f *fixture, a string) string { f.ChangePassword(f.t.Context(), a, goodPassword); return a }, reset.ErrInvalidActivation},
		{"sibling redeemed", func(f *fixture, a string) string { f.redeem(ann); return a }, reset.ErrInvalidActivation},
		{"another redeemed", func(f *fixture, a string) string { f.redeem(bob); return a }, nil},
		{"account gone", func(f *fixture, a string) string { f.host.remove(ann.Email); return a }, reset.ErrInvalidActivation},
		{"address another's", func(f *fixture, a string) string {
			f.host.put(reset.User{ID: "3", Email: ann.Email})
			return a
		}, reset.ErrInvalidActivation},
		{"account gone at last", func(f *fixture, a string) string {
			f.host.onSet = func(context.Context, string) error { return reset.ErrNoUser }
			return a
		}, reset.ErrInvalidActivation},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, f *fixture) {
				activation := tt.spoil(f, f.activation(ann))
				_, hashed, _ := f.host.calls()
				err := f.ChangePassword(t.Context(), activation, "seven old clocks")
				if !errors.Is(err, tt.want) {
					t.Errorf("ChangePassword = %v, want %v", err, tt.want)
				}
				if _, hashes, _ := f.host.calls(); tt.want != nil && f.host.onSet == nil && hashes != hashed {
					t.Error("the password was hashed")
				}
				if changed := f.host.password(ann.ID) == "seven old clocks"; changed != (tt.want == nil) {
					t.Errorf("the password was set: %t", changed)
				}
			})
		})
	}
}

// As many passwords are hashed at a time as there are processors. The surplus
// fails after 5 s and leaves its activations live.
func TestHashSlots(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		slots := runtime.GOMAXPROCS(0)
		var mu sync.Mutex
		running, most := 0, 0
		f.host.onHash = func(context.Context, string) error {
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
		activations := make([]string, slots+200)
		user := func(i int) reset.User {
			return reset.User{ID: fmt.Sprint(100 + i), Email: fmt.Sprintf("user%d@example.com", i)}
		}
		for i := range activations {
			f.host.put(user(i))
			activations[i] = f.activation(user(i))
		}
		start := time.Now()
		errs := parallel(len(activations), func(i int) error {
			return f.ChangePassword(t.Context(), activations[i], goodPassword)
		})
		if took := time.Since(start); took != 6*time.Second {
			t.Errorf("took %v, want 6 s", took)
		}
		changed := 0
		for i, err := range errs {
			want := ""
			if err == nil {
				changed++
				want = goodPassword
			}
			f.wantPassword(user(i), want)
		}
		if changed != slots || most != slots {
			t.Errorf("%d changes, %d at a time; want %d", changed, most, slots)
		}
		for i, err := range errs {
			if err != nil {
				if err := f.ChangePassword(t.Context(), activations[i], goodPassword); err != nil {
					t.Errorf("again: %v", err)
				}
				break
			}
		}
	})
}

// Of many calls for one activation, those that wait for a slot hash nothing
// once it is redeemed.
func TestHashesOnce(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.host.onHash = func(context.Context, string) error {
			<-time.After(time.Second)
			return nil
		}
		activation := f.activation(ann)
		errs := parallel(100, func(int) error { return f.ChangePassword(t.Context(), activation, goodPassword) })
		if ok := tally(t, errs, reset.ErrInvalidActivation); ok != 1 {
			t.Errorf("%d of 100 changes succeeded, want 1", ok)
		}
		// A slot that is freed before the first change is saved hashes too.
		_, hashes, sets := f.host.calls()
		if most := 2 * runtime.GOMAXPROCS(0); hashes > most || sets != 1 {
			t.Errorf("hashed %d times and set %d times, want at most %d and 1", hashes, sets, most)
		}
	})
}

// The files of the store, its journal included, hold nothing that takes an
// account over.
func TestNoSecretsInStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	store, err := storesqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	f := newFixture(t, newHost(ann, bob), func(c *reset.Config) { c.Store = store })
	f.mailer.do = func(_ context.Context, n int, m reset.Message) error {
		if n == 0 { // with words that repeat the link
			return fmt.Errorf("%w: spam: %s", reset.ErrUnavailable, m.Text)
		}
		return nil
	}
	f.run()
	secrets := make(map[string]string)
	secret := func(name, activation string) {
		raw, err := base64.RawURLEncoding.DecodeString(activation)
		if err != nil {
			t.Fatal(err)
		}
		secrets[name], secrets[name+", decoded"] = activation, string(raw)
	}
	for _, u := range []reset.User{ann, bob} { // ann's is redeemed, bob's stays
		activation := f.request(u.Email)
		m, err := f.mailer.Wait(t.Context(), u.Email)
		if err != nil {
			t.Fatal(err)
		}
		secret("answered to "+u.Name, activation)
		secret("mailed to "+u.Name, activationOf(t, m))
	}
	for i, m := range f.mailer.attempts() {
		secret(fmt.Sprint("in attempt ", i), activationOf(t, m))
	}
	if entries, err := f.History(t.Context(), ann.ID); err != nil || len(entries) != 1 || entries[0].Refusal == "" {
		t.Errorf("History: %v, %v", entries, err)
	}
	const password, refused = "canary 7 grey herons", "canary"
	secrets["password"], secrets["hash"] = password, hashPrefix+password
	if err := f.ChangePassword(t.Context(), secrets["mailed to "+ann.Name], refused); err == nil {
		t.Error("a short password was accepted")
	}
	if err := f.ChangePassword(t.Context(), secrets["mailed to "+ann.Name], password); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 3 {
		t.Fatalf("files %v, %v; want the journal as well", files, err)
	}
	var content []byte
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		content = append(content, b...)
	}
	for name, s := range secrets {
		if bytes.Contains(content, []byte(s)) {
			t.Errorf("the files hold a secret: %s", name)
		}
	}
	if !bytes.Contains(content, []byte(bob.Email)) { // which is stored as it is
		t.Error("nothing was stored")
	}
}

// A txStore is a Store whose transaction SetPassword takes, or forgets.
type txStore struct {
	reset.Store
	used bool
}

func (s txStore) TransactionUsed(context.Context) bool { return s.used }

// A password that was saved outside of the store's transaction is reported, one
// that was not saved is not.
func TestTransactionNotUsed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		store  func(reset.Store) reset.Store
		setErr error
		want   int
	}{
		{"used", func(s reset.Store) reset.Store { return txStore{s, true} }, nil, 0},
		{"not used", func(s reset.Store) reset.Store { return txStore{s, false} }, nil, 1},
		{"not used, and failed", func(s reset.Store) reset.Store { return txStore{s, false} }, errors.New("database is locked"), 0},
		{"a store that does not say", func(s reset.Store) reset.Store { return s }, nil, 0},
	} {
		h := newHost(ann)
		h.onSet = func(context.Context, string) error { return tt.setErr }
		f := newFixture(t, h, func(c *reset.Config) { c.Store = tt.store(c.Store) })
		if err := f.ChangePassword(t.Context(), f.activation(ann), goodPassword); (err != nil) != (tt.setErr != nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
		f.wantEvent("transaction_not_used", tt.want)
	}
}
