package reset_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

const (
	baseURL = "https://app.example.com/account"
	apiKey  = "key-0123456789abcdef0123456789abcdef"

	goodPassword = "nine grey herons"
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

// A fixture is a service on a host, with everything that it can move, in memory.
type fixture struct {
	*reset.Service
	t      testing.TB
	host   *host
	store  *resettest.FaultStore // calls a MemStore
	mailer *mailer
	log    *records
}

// newFixture returns a service whose Config edit, which may be nil, has
// changed.
func newFixture(t testing.TB, h *host, edit func(*reset.Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, host: h, mailer: new(mailer), log: newRecords(t)}
	f.store = &resettest.FaultStore{Store: new(resettest.MemStore)}
	cfg := reset.Config{
		Users:   h,
		Store:   f.store,
		Mailer:  f.mailer,
		BaseURL: baseURL,
		APIKeys: []string{apiKey},
		Logger:  slog.New(f.log),
	}
	if edit != nil {
		edit(&cfg)
	}
	var err error
	if f.Service, err = reset.New(cfg); err != nil {
		t.Fatal(err)
	}
	return f
}

// inBubble calls f with a service for ann and bob on the fake clock of a
// bubble of synctest.
func inBubble(t *testing.T, edit func(*reset.Config), f func(t *testing.T, f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newFixture(t, newHost(ann, bob), edit)) })
}

func unlimited(c *reset.Config) { c.PerClient = reset.Unlimited }

// limiterFunc is a Limiter.
type limiterFunc func(ctx context.Context, key string, now time.Time) error

func (f limiterFunc) Allow(ctx context.Context, key string, now time.Time) error {
	return f(ctx, key, now)
}

// pass waits for d in a bubble, and until everything due by then is done.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// run runs the service until the test ends or stop is called.
func (f *fixture) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		f.t.Helper()
		cancel()
		if err := <-ended; err != nil {
			f.t.Errorf("Run = %v", err)
		}
	})
	f.t.Cleanup(stop)
	return stop
}

// begin runs the service in a bubble and waits until it is idle.
func (f *fixture) begin() (stop func()) {
	stop = f.run()
	synctest.Wait()
	return stop
}

// pollSlack is how long after it is due a mail may be leased: Run polls every
// second, give or take 30 %.
const pollSlack = 1300 * time.Millisecond

// delivered is when a public request has been mailed: it is due within 2 s.
const delivered = 4 * time.Second

// request makes a trusted request and returns its activation.
func (f *fixture) request(email string) string {
	f.t.Helper()
	activation, err := f.RequestReset(f.t.Context(), email, reset.RequestOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return activation
}

// forgot makes a public request.
func (f *fixture) forgot(email string) {
	f.t.Helper()
	if err := f.Forgot(f.t.Context(), email, "192.0.2.1", reset.ForgotOptions{}); err != nil {
		f.t.Fatal(err)
	}
}

// activation returns a new activation of a user, for which no mail is sent.
func (f *fixture) activation(u reset.User) string {
	f.t.Helper()
	o := reset.RequestOptions{MaxRequests: 100, PreventEmailSending: true}
	activation, err := f.RequestReset(f.t.Context(), u.Email, o)
	if err != nil {
		f.t.Fatal(err)
	}
	return activation
}

// redeem changes the password of a user, which queues a notification.
func (f *fixture) redeem(u reset.User) {
	f.t.Helper()
	if err := f.ChangePassword(f.t.Context(), f.activation(u), goodPassword); err != nil {
		f.t.Fatal(err)
	}
}

// notifications queues n notifications.
func (f *fixture) notifications(n int) {
	f.t.Helper()
	now := time.Now()
	for i := range n {
		m := reset.Mail{
			ID: reset.ID{byte(i >> 8), byte(i)}, Kind: reset.MailNotification, UserID: ann.ID, Email: ann.Email,
			Due: now, Expires: now.Add(time.Hour),
		}
		if err := f.store.Store.Enqueue(f.t.Context(), m); err != nil {
			f.t.Fatal(err)
		}
	}
}

// slowStore lets the store take its time for what delivery asks of it.
func (f *fixture) slowStore() {
	f.store.Before = func(_ context.Context, method string) error {
		if method == "Lease" || method == "Settle" || method == "Issue" {
			<-time.After(5 * time.Millisecond)
		}
		return nil
	}
}

// moved counts everything that a request can move.
func (f *fixture) moved() string {
	finds, hashes, sets := f.host.calls()
	return fmt.Sprintf("%d reads and %d writes of the store, %d finds, %d hashes, %d sets, %d mails",
		f.store.Calls("Find"), f.writes(), finds, hashes, sets, len(f.mailer.attempts()))
}

// writes returns how many calls of the store may have written.
func (f *fixture) writes() int { return f.store.Calls() - f.store.Calls("Find") }

// wantMoved checks that nothing has moved since moved returned before.
func (f *fixture) wantMoved(before string) {
	f.t.Helper()
	if after := f.moved(); after != before {
		f.t.Errorf("moved: %s; before: %s", after, before)
	}
}

// wantSent checks how many mails were attempted, and returns them.
func (f *fixture) wantSent(n int) []reset.Message {
	f.t.Helper()
	sent := f.mailer.attempts()
	if len(sent) != n {
		f.t.Fatalf("%d attempts, want %d\n%v", len(sent), n, f.log)
	}
	return sent
}

// wantQueued checks how many mails are queued, leased ones included.
func (f *fixture) wantQueued(n int) {
	f.t.Helper()
	later := time.Now().Add(10 * time.Minute)
	mails, err := f.store.Store.Lease(f.t.Context(), later, later, 1000)
	if err != nil || len(mails) != n {
		f.t.Errorf("%d mails are queued, want %d; %v", len(mails), n, err)
	}
}

// occurred returns how often each event has occurred.
func (f *fixture) occurred() map[string]int {
	f.LogCounts()
	got := make(map[string]int)
	for _, record := range f.log.all() {
		name, _ := record["event"].(string)
		n, ok := record["count"].(float64)
		if !ok {
			n = 1
		}
		got[name] += int(n)
	}
	return got
}

// wantEvent checks how often an event has occurred.
func (f *fixture) wantEvent(name string, n int) {
	f.t.Helper()
	if got := f.occurred()[name]; got != n {
		f.t.Errorf("%d events %s, want %d\n%v", got, name, n, f.log)
	}
}

// wantEvents checks how often each event has occurred, and that there was no
// other except those that count requests.
func (f *fixture) wantEvents(want map[string]int) {
	f.t.Helper()
	got := f.occurred()
	delete(got, "trusted_request")
	delete(got, "public_request")
	delete(got, "started")
	if !maps.Equal(got, want) {
		f.t.Errorf("events %v, want %v\n%v", got, want, f.log)
	}
}

// wantPassword checks the password of a user.
func (f *fixture) wantPassword(u reset.User, want string) {
	f.t.Helper()
	if got := f.host.password(u.ID); got != want {
		f.t.Errorf("user %s has password %q, want %q", u.ID, got, want)
	}
}

// A mailer is a Mailbox that records every attempt. do, where it is set, is
// called with the n-th message, counted from 0, and may fail the attempt.
type mailer struct {
	resettest.Mailbox
	do func(ctx context.Context, n int, m reset.Message) error

	mu   sync.Mutex
	sent []reset.Message
	at   []time.Time
}

func (m *mailer) Send(ctx context.Context, msg reset.Message) error {
	m.mu.Lock()
	n := len(m.sent)
	m.sent, m.at = append(m.sent, msg), append(m.at, time.Now())
	m.mu.Unlock()
	if m.do != nil {
		if err := m.do(ctx, n, msg); err != nil {
			return err
		}
	}
	return m.Mailbox.Send(ctx, msg)
}

// attempts returns every message, whether or not it was sent.
func (m *mailer) attempts() []reset.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.sent)
}

// activationOf returns the activation in a message's link.
func activationOf(t testing.TB, m reset.Message) string {
	t.Helper()
	u, err := url.Parse(m.Link)
	if err != nil || len(u.Query().Get("activation")) != 24 {
		t.Fatalf("link %q, %v", m.Link, err)
	}
	return u.Query().Get("activation")
}

// records is a slog.Handler that keeps every record, on all levels, as JSON. It
// fails the test for a record that is not documented: see reset.Events.
type records struct {
	slog.Handler
	t   testing.TB
	mu  sync.Mutex
	log bytes.Buffer
}

func newRecords(t testing.TB) *records {
	l := &records{t: t}
	l.Handler = slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})
	return l
}

func (l *records) Handle(ctx context.Context, r slog.Record) error {
	l.check(r)
	return l.Handler.Handle(ctx, r)
}

// check compares a record with the events of the package.
func (l *records) check(r slog.Record) {
	attrs := make(map[string]slog.Value)
	r.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value
		return true
	})
	name := attrs["event"].String()
	delete(attrs, "event")
	i := slices.IndexFunc(reset.Events(), func(e reset.Event) bool { return e.Name == name })
	if i < 0 {
		l.t.Errorf("record without a documented event: %v", r)
		return
	}
	e := reset.Events()[i]
	for attr := range attrs {
		if !slices.Contains(e.Attrs, attr) {
			l.t.Errorf("event %s has the undocumented attribute %s", name, attr)
		}
	}
	if !strings.HasPrefix(r.Message, "reset: ") {
		l.t.Errorf("event %s has the message %q", name, r.Message)
	}
}

func (l *records) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(b)
}

func (l *records) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.String()
}

func (l *records) all() (records []map[string]any) {
	for line := range strings.Lines(l.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			panic(err)
		}
		records = append(records, r)
	}
	return records
}

// named returns the records of one event.
func (l *records) named(event string) []map[string]any {
	return slices.DeleteFunc(l.all(), func(r map[string]any) bool { return r["event"] != event })
}
