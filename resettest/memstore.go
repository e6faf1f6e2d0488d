package resettest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gopassreset/reset"
)

var (
	_ reset.RealmStore   = (*MemStore)(nil)
	_ reset.StatsStore   = (*MemStore)(nil)
	_ reset.HistoryStore = (*MemStore)(nil)
)

// claimTimeout ends a claim whose outcome is not recorded.
const claimTimeout = 60 * time.Second

// A MemStore is a reset.Store in memory, for tests and as a model to compare
// other stores with. Its zero value is ready for use. Its records end with the
// process, and each call reads all of them.
type MemStore struct {
	// UsersElsewhere selects the mode "users elsewhere" of reset.Store. In the
	// default mode, "one transaction", an apply that fails must itself undo its
	// changes. It must be set before the store is used.
	UsersElsewhere bool

	mu          sync.Mutex
	activations map[reset.Hash]*activation
	mails       map[reset.ID]*reset.Mail
	claims      map[string]*claim        // by user
	bound       map[reset.ID]bound       // public requests that count for a budget
	quiet       map[string]time.Time     // by user; until then none is bound
	redeeming   map[string]chan struct{} // by user; closed when Redeem ends
	entries     map[entryKey]*entry      // of the history
	keep        time.Duration            // of new ones
	ran, failed time.Time                // of Beat
	baseURL     string

	name   string    // of the realm
	root   *MemStore // of a view for a realm; nil: this one
	realms sync.Map  // *MemStore by the name of its realm, in the root
}

// Realm implements reset.RealmStore.
func (s *MemStore) Realm(name string) reset.Store {
	root := s.whole()
	if name == "" {
		return root
	}
	view, _ := root.realms.LoadOrStore(name, &MemStore{UsersElsewhere: root.UsersElsewhere, name: name, root: root})
	return view.(*MemStore)
}

// whole returns the store that a view belongs to.
func (s *MemStore) whole() *MemStore {
	if s.root != nil {
		return s.root
	}
	return s
}

// SetBaseURL implements reset.RealmStore.
func (s *MemStore) SetBaseURL(ctx context.Context, baseURL string) (last string, err error) {
	if err := s.begin(ctx); err != nil {
		return "", err
	}
	defer s.mu.Unlock()
	last, s.baseURL = s.baseURL, baseURL
	return last, nil
}

type activation struct {
	reset.Activation
	claim *claim // nil: not claimed
}

func (a *activation) live(now time.Time) bool {
	return a.claim == nil && now.Before(a.Expires)
}

type claim struct {
	until time.Time
}

type bound struct {
	userID string
	at     time.Time
}

const maxRealm = 64 // bytes

const day = 24 * time.Hour

// Enqueue implements reset.Store.
func (s *MemStore) Enqueue(ctx context.Context, m reset.Mail) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if s.mails[m.ID] != nil {
		return fmt.Errorf("resettest: enqueue: mail %v exists", m.ID)
	}
	s.add(m)
	return nil
}

// Issue implements reset.Store.
func (s *MemStore) Issue(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
	if limits.MaxRequests < 1 {
		return reset.Activation{}, fmt.Errorf("resettest: at most %d requests", limits.MaxRequests)
	}
	if err := s.beginFor(ctx, a.UserID); err != nil {
		return reset.Activation{}, err
	}
	defer s.mu.Unlock()
	now = millis(now)
	leased := m != nil && !m.WasDue.IsZero()
	if leased && !s.holds(m, a.UserID) {
		return reset.Activation{}, reset.ErrGone
	}
	public := leased && s.mails[m.ID].UserID == ""
	if wait := s.budget(now, a.UserID, limits); public && wait > 0 {
		return reset.Activation{}, &reset.LimitError{RetryAfter: wait}
	}
	id := a.Request // a may join another
	if wait := s.wait(now, a.UserID, limits.MaxRequests); wait > 0 && !s.hasLive(now, a.UserID, a.Request) {
		last := s.lastLive(now, a.UserID)
		if !limits.Join || last == nil {
			return reset.Activation{}, &reset.LimitError{RetryAfter: wait}
		}
		a.Request, a.Expires = last.Request, last.Expires
	}
	if s.activations[a.Hash] != nil {
		return reset.Activation{}, errors.New("resettest: activation exists")
	}
	if m != nil && !leased && s.mails[m.ID] != nil {
		return reset.Activation{}, fmt.Errorf("resettest: mail %v exists", m.ID)
	}

	a.Expires = millis(a.Expires)
	s.activations[a.Hash] = &activation{Activation: a}
	switch {
	case leased:
		s.mails[m.ID].UserID = a.UserID
		s.mails[m.ID].Due = millis(m.Due)
	case m != nil:
		s.add(*m)
	}
	if public {
		s.bound[m.ID] = bound{a.UserID, now}
	}
	if m == nil || m.Lease != (reset.ID{}) {
		s.noteIssued(now, id, a, m, public)
	}
	return a, nil
}

// budget returns how long it takes until a public request may be bound to a
// user; zero if it may be now.
func (s *MemStore) budget(now time.Time, userID string, limits reset.Limits) time.Duration {
	var times []time.Time
	for _, b := range s.bound {
		if b.userID == userID {
			times = append(times, b.at)
		}
	}
	slices.SortFunc(times, func(a, b time.Time) int { return b.Compare(a) }) // the latest first
	wait := s.quiet[userID].Sub(now)
	if limits.MaxPerHour > 0 && len(times) >= limits.MaxPerHour {
		wait = max(wait, times[limits.MaxPerHour-1].Add(time.Hour).Sub(now))
	}
	if limits.MaxPerDay > 0 && len(times) >= limits.MaxPerDay {
		wait = max(wait, times[limits.MaxPerDay-1].Add(day).Sub(now))
	}
	return max(wait, 0)
}

// lastLive returns an activation of the live request of a user that expires
// last, or nil.
func (s *MemStore) lastLive(now time.Time, userID string) (last *activation) {
	for _, a := range s.activations {
		if a.UserID != userID || !a.live(now) {
			continue
		}
		if last == nil || cmp.Or(a.Expires.Compare(last.Expires), bytes.Compare(a.Request[:], last.Request[:])) > 0 {
			last = a
		}
	}
	return last
}

// holds reports whether m is still held under its lease and can be bound to the
// user.
func (s *MemStore) holds(m *reset.Mail, userID string) bool {
	queued := s.mails[m.ID]
	return queued != nil && queued.Lease == m.Lease &&
		queued.Kind == reset.MailReset && (queued.UserID == "" || queued.UserID == userID)
}

// wait returns the time until fewer than max requests of a user are live, zero
// if they are now. Claimed requests count, since the claim may be given back.
func (s *MemStore) wait(now time.Time, userID string, max int) time.Duration {
	requests := make(map[reset.ID]time.Time)
	for _, a := range s.activations {
		if a.UserID == userID && now.Before(a.Expires) && (a.claim == nil || s.holdsClaim(now, userID, a.claim)) {
			requests[a.Request] = a.Expires
		}
	}
	over := len(requests) - max
	if over < 0 {
		return 0
	}
	var ends []time.Time
	for _, end := range requests {
		ends = append(ends, end)
	}
	slices.SortFunc(ends, time.Time.Compare)
	return ends[over].Sub(now)
}

// holdsClaim reports whether a claim is still open.
func (s *MemStore) holdsClaim(now time.Time, userID string, c *claim) bool {
	return s.claims[userID] == c && now.Before(c.until)
}

func (s *MemStore) hasLive(now time.Time, userID string, request reset.ID) bool {
	for _, a := range s.activations {
		if a.UserID == userID && a.Request == request && a.live(now) {
			return true
		}
	}
	return false
}

// Find implements reset.Store.
func (s *MemStore) Find(ctx context.Context, now time.Time, h reset.Hash) (reset.Activation, error) {
	if err := s.begin(ctx); err != nil {
		return reset.Activation{}, err
	}
	defer s.mu.Unlock()
	a := s.activations[h]
	if a == nil || !a.live(millis(now)) {
		return reset.Activation{}, reset.ErrInvalidActivation
	}
	return a.Activation, nil
}

// Redeem implements reset.Store.
//
// apply may call any method with its own context. For the same user it may call
// only Find and Revoke.
func (s *MemStore) Redeem(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	if s.UsersElsewhere {
		return s.redeemElsewhere(ctx, millis(now), a, notification, apply)
	}
	return s.redeemHere(ctx, millis(now), a, notification, apply)
}

// redeemHere makes other calls for the user wait until apply has returned, as a
// lock in a database does.
func (s *MemStore) redeemHere(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	over, err := s.lockUser(ctx, now, a)
	if err != nil {
		return err
	}
	done := false
	defer func() { // also if apply panics
		s.mu.Lock()
		defer s.mu.Unlock()
		if done {
			s.finish(now, a, notification)
		}
		delete(s.redeeming, a.UserID)
		close(over)
	}()
	if err := apply(context.WithValue(ctx, insideKey{s}, a.UserID)); err != nil {
		return err
	}
	done = true
	return nil
}

func (s *MemStore) lockUser(ctx context.Context, now time.Time, a reset.Activation) (over chan struct{}, err error) {
	if err := s.beginFor(ctx, a.UserID); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if !s.redeemable(now, a) {
		return nil, reset.ErrInvalidActivation
	}
	over = make(chan struct{})
	s.redeeming[a.UserID] = over
	return over, nil
}

func (s *MemStore) redeemElsewhere(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	c, err := s.claim(ctx, now, a)
	if err != nil {
		return err
	}
	settle := func() {} // after a panic the activations are never live again
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		settle()
		if s.claims[a.UserID] == c {
			delete(s.claims, a.UserID)
		}
	}()
	err = apply(context.WithoutCancel(ctx)) // a cancelled apply would lose the claimed activations
	var refused *reset.PasswordError
	switch {
	case err == nil:
		settle = func() { s.finish(now, a, notification) }
	case errors.Is(err, reset.ErrNotChanged), errors.As(err, &refused):
		settle = func() { s.giveBack(c) }
	}
	return err
}

func (s *MemStore) claim(ctx context.Context, now time.Time, a reset.Activation) (*claim, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	held := s.claims[a.UserID]
	if held != nil && now.Before(held.until) || !s.redeemable(now, a) {
		return nil, reset.ErrInvalidActivation
	}
	c := &claim{until: now.Add(claimTimeout)}
	s.claims[a.UserID] = c
	for _, other := range s.activations {
		if other.UserID == a.UserID && other.live(now) {
			other.claim = c
		}
	}
	return c, nil
}

func (s *MemStore) giveBack(c *claim) {
	for _, a := range s.activations {
		if a.claim == c {
			a.claim = nil
		}
	}
}

func (s *MemStore) redeemable(now time.Time, a reset.Activation) bool {
	stored := s.activations[a.Hash]
	return stored != nil && stored.UserID == a.UserID && stored.live(now)
}

func (s *MemStore) finish(now time.Time, a reset.Activation, notification reset.Mail) {
	s.revoke(now, a.UserID, a.Request)
	s.add(notification)
}

// Revoke implements reset.Store.
func (s *MemStore) Revoke(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
	if s.inside(ctx, userID) {
		return nil // a success of apply revokes anyway, a failure undoes it
	}
	if err := s.beginFor(ctx, userID); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.revoke(millis(now), userID, reset.ID{})
	if quiet = millis(quiet); userID != "" && quiet.After(s.quiet[userID]) {
		s.quiet[userID] = quiet
	}
	return nil
}

// revoke ends a user's requests. redeemed is the one that was redeemed, if any.
func (s *MemStore) revoke(now time.Time, userID string, redeemed reset.ID) {
	for h, a := range s.activations {
		if a.UserID == userID {
			delete(s.activations, h)
		}
	}
	for id, m := range s.mails {
		if m.Kind == reset.MailReset && m.UserID == userID {
			delete(s.mails, id)
			s.withdraw(now, m)
		}
	}
	s.endRequests(now, userID, redeemed)
}

// Lease implements reset.Store.
func (s *MemStore) Lease(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	now, until = millis(now), millis(until)
	var due []*reset.Mail
	for _, m := range s.mails {
		if !m.Due.After(now) && now.Before(m.Expires) {
			due = append(due, m)
		}
	}
	slices.SortFunc(due, func(a, b *reset.Mail) int { return cmp.Or(cmp.Compare(a.Class, b.Class), a.Due.Compare(b.Due)) })
	var leased []reset.Mail
	for _, m := range due[:min(n, len(due))] {
		wasDue := m.Due
		m.Due, m.Lease, m.Attempts = until, newID(now), m.Attempts+1
		leased = append(leased, *m)
		leased[len(leased)-1].WasDue = wasDue
	}
	return leased, nil
}

// Settle implements reset.Store.
func (s *MemStore) Settle(ctx context.Context, done []reset.Settlement) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for _, d := range done {
		m := s.mails[d.Mail]
		if d.Note != nil && (m == nil || m.Lease == d.Lease && m.Lease != reset.ID{}) {
			s.note(d)
		}
		switch {
		case m == nil || m.Lease != d.Lease || m.Lease == reset.ID{}:
		case d.Retry.IsZero():
			delete(s.mails, d.Mail)
		case d.Held:
			m.Due = millis(d.Retry)
		default:
			m.Due, m.Lease, m.Class = millis(d.Retry), reset.ID{}, d.Class
			if d.Unspent {
				m.Attempts--
			}
		}
	}
	return nil
}

// Purge implements reset.Store.
func (s *MemStore) Purge(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
	all := []*MemStore{s.whole()}
	s.whole().realms.Range(func(_, view any) bool { all = append(all, view.(*MemStore)); return true })
	for _, realm := range all {
		r, u, err := realm.purge(ctx, millis(now), n-removed)
		if err != nil {
			return 0, 0, err
		}
		removed, unsent = removed+r, unsent+u
	}
	return removed, unsent, nil
}

// purge is Purge for one realm.
func (s *MemStore) purge(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
	if err := s.begin(ctx); err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	expired := func(end time.Time) bool {
		if removed == n || end.After(now) {
			return false
		}
		removed++
		return true
	}
	for h, a := range s.activations {
		if expired(a.Expires) {
			delete(s.activations, h)
		}
	}
	for id, m := range s.mails {
		if expired(m.Expires) {
			delete(s.mails, id)
			unsent++
			if m.UserID != "" {
				e := s.entry(now, m.UserID, m.ID, kindOf(m.Kind))
				e.Outcome, e.OutcomeAt, e.attempted = reset.OutcomeExpired, m.Expires, time.Time{}
			}
		}
	}
	for userID, c := range s.claims {
		if expired(c.until) {
			delete(s.claims, userID)
		}
	}
	for id, b := range s.bound {
		if expired(b.at.Add(day)) {
			delete(s.bound, id)
		}
	}
	for key, e := range s.entries {
		if expired(e.until) {
			delete(s.entries, key)
		}
	}
	for userID, until := range s.quiet {
		if expired(until) {
			delete(s.quiet, userID)
		}
	}
	return removed, unsent, nil
}

// Stats implements reset.StatsStore.
func (s *MemStore) Stats(ctx context.Context, now time.Time) (reset.Stats, error) {
	if err := s.begin(ctx); err != nil {
		return reset.Stats{}, err
	}
	defer s.mu.Unlock()
	now = millis(now)
	stats := reset.Stats{LastRun: s.ran, MailerFailed: s.failed}
	for _, m := range s.mails {
		switch {
		case !now.Before(m.Expires):
			stats.Expired++
			continue
		case m.Lease != reset.ID{}:
			stats.Leased++
		default:
			stats.Waiting++
		}
		if !m.Due.After(now) {
			stats.OldestDue = max(stats.OldestDue, min(now.Sub(m.Due), now.Sub(m.ID.Time())))
		}
	}
	requests := make(map[reset.ID]bool)
	for _, a := range s.activations {
		if a.live(now) {
			requests[a.Request] = true
		}
	}
	stats.LiveRequests = len(requests)
	return stats, nil
}

// Beat implements reset.StatsStore.
func (s *MemStore) Beat(ctx context.Context, now time.Time, mailerFails bool) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.ran = latest(s.ran, millis(now))
	if mailerFails {
		s.failed = latest(s.failed, millis(now))
	}
	return nil
}

// Queued implements reset.StatsStore.
func (s *MemStore) Queued(ctx context.Context, now time.Time, limit int) (n int, err error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	for _, m := range s.mails {
		if m.Expires.After(now) {
			n++
		}
	}
	return min(n, limit), nil
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// begin starts a transaction, which ends when s.mu is unlocked.
func (s *MemStore) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("resettest: %w", err)
	}
	if len(s.name) > maxRealm {
		return fmt.Errorf("resettest: realm has more than %d bytes", maxRealm)
	}
	s.mu.Lock()
	if s.activations == nil {
		s.activations = make(map[reset.Hash]*activation)
		s.mails = make(map[reset.ID]*reset.Mail)
		s.claims = make(map[string]*claim)
		s.bound = make(map[reset.ID]bound)
		s.quiet = make(map[string]time.Time)
		s.redeeming = make(map[string]chan struct{})
		s.entries = make(map[entryKey]*entry)
	}
	return nil
}

// beginFor starts a transaction once no Redeem of the user is running.
func (s *MemStore) beginFor(ctx context.Context, userID string) error {
	if s.inside(ctx, userID) {
		return errors.New("resettest: called from apply for the same user")
	}
	for {
		if err := s.begin(ctx); err != nil {
			return err
		}
		over := s.redeeming[userID]
		if over == nil {
			return nil
		}
		s.mu.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
		}
	}
}

// insideKey is the context key of the user whose apply a store is running.
type insideKey struct{ *MemStore }

func (s *MemStore) inside(ctx context.Context, userID string) bool {
	return ctx.Value(insideKey{s}) == userID
}

// add keeps a copy of m.
func (s *MemStore) add(m reset.Mail) {
	m.Due, m.Expires = millis(m.Due), millis(m.Expires)
	s.mails[m.ID] = &m
}

// millis truncates t to the precision of a store.
func millis(t time.Time) time.Time {
	return time.UnixMilli(t.UnixMilli()).UTC()
}

func newID(now time.Time) (id reset.ID) {
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16)
	rand.Read(id[6:]) // never fails
	return id
}
