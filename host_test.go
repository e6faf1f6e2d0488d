package reset_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
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

const (
	baseURL = "https://app.example.com/account"
	apiKey  = "key-0123456789abcdef0123456789abcdef"
)

var (
	ann = reset.User{ID: "1", Email: "ann@example.com", Name: "Ann", Locale: "en"}
	bob = reset.User{ID: "2", Email: "bob@example.com", Name: "Bob", Locale: "de"}
)

// A host is accounts in memory. Its hooks, where set, are called first, without
// a lock, and fail the call with their errors. They must be set before the host
// is used.
type host struct {
	onFind func(ctx context.Context, address string) error
	onHash func(ctx context.Context, password string) error
	onSet  func(ctx context.Context, userID string) error

	mu        sync.Mutex
	users     map[string]reset.User // by canonical address
	hashes    map[string]string     // by user id
	finds     int                   // calls of FindByEmail
	hashCalls int                   // calls of HashPassword
	sets      int                   // calls of SetPassword
}

func newHost(users ...reset.User) *host {
	h := &host{users: make(map[string]reset.User), hashes: make(map[string]string)}
	for _, u := range users {
		h.put(u)
	}
	return h
}

// put adds a user, or replaces the one who has the address.
func (h *host) put(u reset.User) {
	address, err := reset.CanonicalAddress(u.Email)
	if err != nil {
		panic(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users[address] = u
}

// remove removes the user who has a canonical address.
func (h *host) remove(address string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.users, address)
}

// calls returns how often each method was called.
func (h *host) calls() (finds, hashes, sets int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.finds, h.hashCalls, h.sets
}

// password returns the password of a user, or "" if none was ever set.
func (h *host) password(userID string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	hash := h.hashes[userID]
	if hash == "" {
		return ""
	}
	return hash[len(hashPrefix):]
}

// hashPrefix makes a hash of a password. Tests have no secrets to protect.
const hashPrefix = "hash of "

func (h *host) FindByEmail(ctx context.Context, address string) (reset.User, error) {
	h.mu.Lock()
	h.finds++
	h.mu.Unlock()
	if h.onFind != nil {
		if err := h.onFind(ctx, address); err != nil {
			return reset.User{}, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	u, ok := h.users[address]
	if !ok {
		return reset.User{}, reset.ErrNoUser
	}
	return u, nil
}

func (h *host) HashPassword(ctx context.Context, password string) (string, error) {
	h.mu.Lock()
	h.hashCalls++
	h.mu.Unlock()
	if h.onHash != nil {
		if err := h.onHash(ctx, password); err != nil {
			return "", err
		}
	}
	return hashPrefix + password, nil
}

func (h *host) SetPassword(ctx context.Context, userID, hash string) error {
	h.mu.Lock()
	h.sets++
	h.mu.Unlock()
	if h.onSet != nil {
		if err := h.onSet(ctx, userID); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, u := range h.users {
		if u.ID == userID {
			h.hashes[userID] = hash
			return nil
		}
	}
	return reset.ErrNoUser
}

// newService returns a service on the host, with a store and a mailbox in
// memory. edit, which may be nil, changes its Config.
func newService(t testing.TB, h *host, edit func(*reset.Config)) (*reset.Service, *resettest.MemStore, *resettest.Mailbox) {
	t.Helper()
	store, mailbox := new(resettest.MemStore), new(resettest.Mailbox)
	cfg := reset.Config{
		Users:   h,
		Store:   store,
		Mailer:  mailbox,
		BaseURL: baseURL,
		APIKeys: []string{apiKey},
		Logger:  slog.New(slog.DiscardHandler),
	}
	if edit != nil {
		edit(&cfg)
	}
	svc, err := reset.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return svc, store, mailbox
}

// writes returns how many calls of a store may have written.
func writes(s *resettest.FaultStore) int { return s.Calls() - s.Calls("Find") }

// A postman is a Mailer that keeps what it is given, with the time, and does
// with the n-th message, counted from 0, what do says.
type postman struct {
	do func(ctx context.Context, n int, m reset.Message) error

	mu   sync.Mutex
	sent []reset.Message
	at   []time.Time
}

func (p *postman) Send(ctx context.Context, m reset.Message) error {
	p.mu.Lock()
	n := len(p.sent)
	p.sent, p.at = append(p.sent, m), append(p.at, time.Now())
	p.mu.Unlock()
	if p.do == nil {
		return nil
	}
	return p.do(ctx, n, m)
}

func (p *postman) messages() []reset.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]reset.Message(nil), p.sent...)
}

// A round is a service with a postman, in a bubble of synctest.
type round struct {
	*reset.Service
	host   *host
	store  *resettest.MemStore
	post   *postman
	events *events
}

// inBubble runs f with a service by the fake clock of a bubble of synctest.
func inBubble(t *testing.T, edit func(*reset.Config), f func(t *testing.T, r round)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := round{host: newHost(ann, bob), post: new(postman), events: newEvents()}
		r.Service, r.store, _ = newService(t, r.host, func(c *reset.Config) {
			c.Mailer, c.Logger = r.post, slog.New(r.events)
			if edit != nil {
				edit(c)
			}
		})
		f(t, r)
	})
}

func (r round) request(t *testing.T, email string) string {
	t.Helper()
	id, err := r.RequestReset(t.Context(), email, reset.RequestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (r round) forgot(t *testing.T, email string) {
	t.Helper()
	if err := r.Forgot(t.Context(), email, "192.0.2.1", reset.ForgotOptions{}); err != nil {
		t.Fatal(err)
	}
}

// pollSlack is how much later than due a mail may be leased: Run looks every
// second, give or take 30 %.
const pollSlack = 1300 * time.Millisecond

// delivered is when a public request has been seen to: it is due within 2 s.
const delivered = 4 * time.Second

// pass lets time go by in a bubble, and waits until what that has set off is
// done.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// begin starts Run in a bubble and waits until it has.
func (r round) begin(t *testing.T) (stop func()) {
	stop = run(t, r.Service)
	synctest.Wait()
	return stop
}

// redeem has a password changed, which queues a notification.
func (r round) redeem(t *testing.T, u reset.User) {
	t.Helper()
	if err := r.ChangePassword(t.Context(), prevented(t, r.Service, u), goodPassword); err != nil {
		t.Fatal(err)
	}
}

// notifications queues n of them.
func (r round) notifications(t *testing.T, n int) {
	t.Helper()
	now := time.Now()
	for i := range n {
		m := reset.Mail{
			ID: reset.ID{byte(i)}, Kind: reset.MailNotification, UserID: ann.ID, Email: ann.Email,
			Due: now, Expires: now.Add(time.Hour),
		}
		if err := r.store.Enqueue(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

func (r round) wantSent(t *testing.T, n int) []reset.Message {
	t.Helper()
	sent := r.post.messages()
	if len(sent) != n {
		t.Fatalf("%d attempts, want %d\n%v", len(sent), n, r.events)
	}
	return sent
}

// wantEvents checks how often each event was logged, and that there was no
// other.
func (r round) wantEvents(t *testing.T, want map[string]int) {
	t.Helper()
	got := make(map[string]int)
	for _, record := range r.events.all() {
		name, _ := record["event"].(string)
		got[name]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("events %v, want %v\n%v", got, want, r.events)
	}
}

func unlimited(c *reset.Config) { c.PerClient = reset.Unlimited }

// A trusted is the handler for back ends, with all that it could move.
type trusted struct {
	*testing.T
	http.Handler
	svc     *reset.Service
	host    *host
	store   *resettest.FaultStore
	mem     *resettest.MemStore
	mailbox *resettest.Mailbox
	log     *bytes.Buffer
}

func (f *trusted) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

func (f *trusted) post(path, body string) *httptest.ResponseRecorder {
	return f.do(postJSON(path, body))
}

// activation has one issued.
func (f *trusted) activation(u reset.User) string {
	f.Helper()
	activation, err := f.svc.RequestReset(f.Context(), u.Email, reset.RequestOptions{MaxRequests: 100, PreventEmailSending: true})
	if err != nil {
		f.Fatal(err)
	}
	return activation
}

// moved counts everything that a request could move.
func (f *trusted) moved() string {
	finds, hashes, sets := f.host.calls()
	return fmt.Sprint("store reads ", f.store.Calls("Find"), " writes ", writes(f.store),
		" finds ", finds, " hashes ", hashes, " sets ", sets, " mails ", len(f.mailbox.Messages()))
}

// queued returns how many mails are due by the end of a minute.
func (f *trusted) queued() int {
	f.Helper()
	now := time.Now().Add(time.Minute)
	mails, err := f.mem.Lease(f.Context(), now, now, 1000)
	if err != nil {
		f.Fatal(err)
	}
	return len(mails)
}

func (f *trusted) logged(event string) int {
	return strings.Count(f.log.String(), fmt.Sprintf(`"event":%q`, event))
}

func postJSON(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", apiKey)
	return r
}

// limiterFunc is a Limiter.
type limiterFunc func(context.Context, string, time.Time) error

func (f limiterFunc) Allow(ctx context.Context, key string, now time.Time) error {
	return f(ctx, key, now)
}

func when(on *bool, f func() error) error {
	if !*on {
		return nil
	}
	return f()
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
				store, err := storesqlite.OpenWith(filepath.Join(t.TempDir(), "reset.db"), o)
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

// prevented has an activation issued without a mail.
func prevented(t testing.TB, svc *reset.Service, u reset.User) string {
	t.Helper()
	activation, err := svc.RequestReset(t.Context(), u.Email, reset.RequestOptions{PreventEmailSending: true})
	if err != nil {
		t.Fatal(err)
	}
	return activation
}
