package servertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

// Whatever is done in whatever order, a store answers as the one in memory
// does. -rapid.checks says how many histories are tried.
func TestHistories(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		t.Run(map[bool]string{false: "one transaction", true: "users elsewhere"}[elsewhere], func(t *testing.T) {
			onAllAPIs(t, func(t *testing.T, s server) {
				h := openHost(t, newPlace(t, s, elsewhere))
				h.users.add(t, historyUsers...)
				rapid.Check(t, func(r *rapid.T) {
					if err := forget(t.Context(), h); err != nil {
						r.Fatal(err)
					}
					newHistory(t.Context(), h).run(r)
				})
			})
		})
	}
}

var historyUsers = []string{"alice", "bob", "carol"}

func forget(ctx context.Context, h *host) error {
	for _, table := range []string{"reset_activations", "reset_mails", "reset_locks", "reset_history", "reset_realms"} {
		if _, err := h.db.ExecContext(ctx, "DELETE FROM "+table); err != nil {
			return err
		}
	}
	_, err := h.users.db.ExecContext(ctx, "UPDATE users SET hash = 'old'")
	return err
}

// A history happens to a store and to the one in memory, which is the model.
type history struct {
	ctx    context.Context
	h      *host
	model  *resettest.MemStore
	now    time.Time
	purged time.Time      // when Purge last ran
	taken  map[int64]bool // milliseconds at which something is due
	issued []reset.Activation
	held   map[reset.ID]lease
	n      int // of records
	each   int // how many mails are leased at a time: what is due at once has no order
}

// A lease is held in both stores, under names of their own.
type lease struct{ real, model reset.Mail }

func newHistory(ctx context.Context, h *host) *history {
	made := &history{
		ctx: ctx, h: h, model: &resettest.MemStore{UsersElsewhere: h.Elsewhere != ""},
		now: start, taken: make(map[int64]bool), held: make(map[reset.ID]lease),
	}
	for _, store := range []reset.HistoryStore{h.store.(reset.HistoryStore), made.model} {
		store.KeepHistory(week)
	}
	return made
}

func (h *history) run(r *rapid.T) {
	h.each = rapid.SampledFrom([]int{1, 1000}).Draw(r, "mails a lease")
	r.Repeat(map[string]func(*rapid.T){
		"Enqueue": h.enqueue, "Issue": h.issue, "Find": h.find, "Redeem": h.redeem, "Revoke": h.revoke,
		"Lease": h.lease, "Settle": h.settle, "Purge": h.purge, "later": h.later,
	})
	h.lease(r)
	for _, a := range h.issued {
		h.findOne(r, a)
	}
	h.compare(r)
}

// compare compares what the stores say became of it all.
func (h *history) compare(r *rapid.T) {
	for _, user := range historyUsers {
		got, err := h.h.store.(reset.HistoryStore).History(h.ctx, h.now, user, 1000)
		want, wantErr := h.model.History(h.ctx, h.now, user, 1000)
		same(r, err, wantErr)
		if !slices.Equal(got, want) {
			r.Fatalf("History of %s:\n got %v\nwant %v", user, got, want)
		}
	}
}

// same fails unless two errors say the same.
func same(r *rapid.T, got, want error) {
	r.Helper()
	if verdict(got) != verdict(want) {
		r.Fatalf("got error %v, want %v", got, want)
	}
}

var errApply = errors.New("apply failed")

func verdict(err error) string {
	var limit *reset.LimitError
	var refused *reset.PasswordError
	switch {
	case err == nil:
		return "none"
	case errors.As(err, &limit):
		return "limit " + limit.RetryAfter.String()
	case errors.As(err, &refused):
		return "refused"
	}
	for _, known := range []error{reset.ErrInvalidActivation, reset.ErrGone, reset.ErrNotChanged, errApply} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "failure"
}

// later lets time pass, sometimes backwards, but not to before a Purge: what has
// expired by then may be remembered or not.
func (h *history) later(r *rapid.T) {
	now := h.now.Add(time.Duration(rapid.SampledFrom([]int{1, 999, 30_000, 61_000, 1_800_000, -1, -61_000}).Draw(r, "ms")) * time.Millisecond)
	if !now.Before(h.purged) {
		h.now = now
	}
}

// at returns a time near t at which nothing else is due.
func (h *history) at(t time.Time) time.Time {
	for h.taken[t.UnixMilli()] {
		t = t.Add(time.Millisecond)
	}
	h.taken[t.UnixMilli()] = true
	return t
}

func (h *history) next() int { h.n++; return h.n }

func (h *history) lifetime(r *rapid.T) time.Time {
	return h.now.Add(time.Duration(rapid.SampledFrom([]int{1, 60_000, 3_600_000}).Draw(r, "lifetime in ms")) * time.Millisecond)
}

func (h *history) user(r *rapid.T) string { return rapid.SampledFrom(historyUsers).Draw(r, "user") }

func (h *history) enqueue(r *rapid.T) {
	m := publicRequest(h.next())
	m.Due, m.Expires = h.at(h.now), h.lifetime(r)
	m.Locale = rapid.SampledFrom([]string{"", "de", `'\"?%`}).Draw(r, "locale")
	same(r, h.h.store.Enqueue(h.ctx, m), h.model.Enqueue(h.ctx, m))
}

func (h *history) issue(r *rapid.T) {
	a := activation(h.next(), h.user(r))
	a.Expires = h.lifetime(r)
	limits := reset.Limits{
		MaxRequests: rapid.IntRange(1, 3).Draw(r, "max"),
		Join:        rapid.Bool().Draw(r, "join"),
		MaxPerHour:  rapid.IntRange(0, 2).Draw(r, "an hour"),
		MaxPerDay:   rapid.IntRange(0, 3).Draw(r, "a day"),
	}
	var real, model *reset.Mail
	switch kind := rapid.SampledFrom([]string{"no mail", "mail", "lease", "joins"}).Draw(r, "with"); {
	case kind == "mail":
		m := *mailFor(a)
		m.Due = h.at(h.now)
		real, model = &m, &m
	case kind == "lease" && len(h.held) > 0:
		l := h.drawLease(r)
		a.Request, a.Expires = l.real.ID, l.real.Expires
		due := h.at(h.now.Add(time.Minute))
		l.real.Due, l.model.Due = due, due
		real, model = &l.real, &l.model
	case kind == "joins" && len(h.issued) > 0:
		first := rapid.SampledFrom(h.issued).Draw(r, "joined")
		a.Request, a.Expires, a.UserID, a.Email = first.Request, first.Expires, first.UserID, first.Email
	}
	got, err := h.h.store.Issue(h.ctx, h.now, a, limits, real)
	want, wantErr := h.model.Issue(h.ctx, h.now, a, limits, model)
	same(r, err, wantErr)
	if got != want {
		r.Fatalf("Issue: got %+v, want %+v", got, want)
	}
	if err == nil {
		a = got
	}
	h.issued = append(h.issued, a)
}

// drawLease returns one that may be lost by now.
func (h *history) drawLease(r *rapid.T) lease {
	ids := slices.SortedFunc(maps.Keys(h.held), func(a, b reset.ID) int { return strings.Compare(a.String(), b.String()) })
	return h.held[rapid.SampledFrom(ids).Draw(r, "lease")]
}

func (h *history) find(r *rapid.T) {
	if len(h.issued) > 0 {
		h.findOne(r, rapid.SampledFrom(h.issued).Draw(r, "activation"))
	}
}

func (h *history) findOne(r *rapid.T, a reset.Activation) {
	got, err := h.h.store.Find(h.ctx, h.now, a.Hash)
	want, wantErr := h.model.Find(h.ctx, h.now, a.Hash)
	same(r, err, wantErr)
	if got != want {
		r.Fatalf("Find: got %+v, want %+v", got, want)
	}
}

func (h *history) redeem(r *rapid.T) {
	if len(h.issued) == 0 {
		return
	}
	a := rapid.SampledFrom(h.issued).Draw(r, "activation")
	m := notification(h.next(), a.UserID)
	m.Due, m.Expires = h.at(h.now), h.lifetime(r)
	outcome := rapid.SampledFrom([]string{"succeeds", "fails", "changes nothing", "refuses", "panics"}).Draw(r, "apply")
	password := fmt.Sprint("password ", h.n)
	before := h.password(r, a.UserID)

	err := redeem(h.h.store, h.ctx, h.now, a, m, outcome, func(ctx context.Context) error {
		return h.h.users.SetPassword(ctx, a.UserID, password)
	})
	wantErr := redeem(h.model, h.ctx, h.now, a, m, outcome, func(context.Context) error { return nil })
	same(r, err, wantErr)
	want := before
	if err == nil {
		want = password
	}
	if got := h.password(r, a.UserID); got != want && (h.h.Elsewhere == "" || err == nil) {
		r.Fatalf("Redeem returned %v and the password is %q, want %q", err, got, want)
	}
}

// redeem returns an error for a panic, too.
func redeem(s reset.Store, ctx context.Context, now time.Time, a reset.Activation, m reset.Mail, outcome string, save func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %w", p.(error))
		}
	}()
	return s.Redeem(ctx, now, a, m, func(ctx context.Context) error {
		if outcome == "changes nothing" {
			return fmt.Errorf("%w: as was drawn", reset.ErrNotChanged)
		}
		if err := save(ctx); err != nil {
			return err
		}
		switch outcome {
		case "fails":
			return errApply
		case "refuses":
			return &reset.PasswordError{}
		case "panics":
			panic(errApply)
		}
		return nil
	})
}

func (h *history) password(r *rapid.T, user string) (hash string) {
	if err := h.h.users.db.QueryRowContext(h.ctx, "SELECT hash FROM users WHERE id = ?", user).Scan(&hash); err != nil {
		r.Fatal(err)
	}
	return hash
}

func (h *history) revoke(r *rapid.T) {
	user := h.user(r)
	var quiet time.Time
	if rapid.Bool().Draw(r, "quiet") {
		quiet = h.lifetime(r)
	}
	same(r, h.h.store.Revoke(h.ctx, start, user, quiet), h.model.Revoke(h.ctx, start, user, quiet))
}

func (h *history) lease(r *rapid.T) {
	until := h.at(h.now.Add(time.Minute))
	got, err := h.h.store.Lease(h.ctx, h.now, until, h.each)
	want, wantErr := h.model.Lease(h.ctx, h.now, until, h.each)
	same(r, err, wantErr)
	byID := func(a, b reset.Mail) int { return strings.Compare(a.ID.String(), b.ID.String()) }
	slices.SortFunc(got, byID)
	slices.SortFunc(want, byID)
	if len(got) != len(want) {
		r.Fatalf("Lease: got %+v, want %+v", got, want)
	}
	for i := range got {
		l := lease{got[i], want[i]}
		h.held[l.real.ID] = l
		l.real.Lease, l.model.Lease = reset.ID{}, reset.ID{}
		if l.real != l.model {
			r.Fatalf("Lease: got %+v, want %+v", l.real, l.model)
		}
	}
}

func (h *history) settle(r *rapid.T) {
	if len(h.held) == 0 {
		return
	}
	l := h.drawLease(r)
	real := reset.Settlement{Mail: l.real.ID, Lease: l.real.Lease}
	model := reset.Settlement{Mail: l.model.ID, Lease: l.model.Lease}
	if rapid.Bool().Draw(r, "retry") {
		real.Retry = h.at(h.now.Add(5 * time.Second))
		real.Unspent, real.Held = rapid.Bool().Draw(r, "unspent"), rapid.Bool().Draw(r, "held")
		model.Retry, model.Unspent, model.Held = real.Retry, real.Unspent, real.Held
	}
	if rapid.Bool().Draw(r, "user") {
		real.UserID = l.real.UserID
	}
	if user := l.real.UserID; user != "" && rapid.Bool().Draw(r, "note") {
		real.Note = &reset.Note{
			UserID: user, Kind: reset.HistoryTrusted, At: h.now, Attempts: l.real.Attempts,
			Refusal: rapid.SampledFrom([]string{"", "450 later"}).Draw(r, "refusal"),
			Outcome: rapid.SampledFrom([]reset.MailOutcome{"", reset.OutcomeUndeliverable}).Draw(r, "outcome"),
		}
		model.Note = real.Note
	}
	same(r, h.h.store.Settle(h.ctx, []reset.Settlement{real}), h.model.Settle(h.ctx, []reset.Settlement{model}))
}

// purge removes all that has expired: which rows come first is not said.
func (h *history) purge(r *rapid.T) {
	h.purged = h.now
	_, unsent, err := h.h.store.Purge(h.ctx, h.now, 1000)
	_, want, wantErr := h.model.Purge(h.ctx, h.now, 1000)
	same(r, err, wantErr)
	if unsent != want {
		r.Fatalf("Purge: got %d unsent mails, want %d", unsent, want)
	}
	if n, _, err := h.h.store.Purge(h.ctx, h.now, 1000); n != 0 || err != nil {
		r.Fatalf("a second Purge removed %d, %v", n, err)
	}
}
