package resettest

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/gopassreset/reset"
)

// entryKey names an entry of the history.
type entryKey struct {
	userID string
	id     reset.ID
}

// An entry is without what follows from the queue.
type entry struct {
	reset.HistoryEntry
	attempted time.Time // the latest attempt to send it, unless that failed
	until     time.Time // how long it is kept
}

// KeepHistory implements reset.HistoryStore.
func (s *MemStore) KeepHistory(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep = d
}

// History implements reset.HistoryStore.
func (s *MemStore) History(ctx context.Context, now time.Time, userID string, n int) ([]reset.HistoryEntry, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if s.keep <= 0 || n < 1 || userID == "" {
		return nil, nil
	}
	var all []reset.HistoryEntry
	for key, e := range s.entries {
		if key.userID != userID || !e.until.After(millis(now)) {
			continue
		}
		shown := e.HistoryEntry
		if m := s.mails[key.id]; m != nil && m.UserID == userID {
			shown = queued(shown, m)
		} else if shown.Outcome == "" && !e.attempted.IsZero() {
			shown.Outcome, shown.OutcomeAt = reset.OutcomeSent, e.attempted
		}
		all = append(all, shown)
	}
	for _, m := range s.mails {
		if m.UserID == userID && s.entries[entryKey{userID, m.ID}] == nil {
			all = append(all, queued(reset.HistoryEntry{ID: m.ID, Kind: kindOf(m.Kind), Requests: 1}, m))
		}
	}
	slices.SortFunc(all, func(a, b reset.HistoryEntry) int { return bytes.Compare(b.ID[:], a.ID[:]) })
	return all[:min(n, len(all))], nil
}

// queued adds what the queue says of a mail.
func queued(e reset.HistoryEntry, m *reset.Mail) reset.HistoryEntry {
	e.Queued, e.Due, e.Attempts, e.Outcome, e.OutcomeAt = true, m.Due, m.Attempts, "", time.Time{}
	if m.Lease != (reset.ID{}) {
		e.Leased = m.Lease.Time()
	}
	return e
}

// EraseHistory implements reset.HistoryStore.
func (s *MemStore) EraseHistory(ctx context.Context, userID string) error {
	if err := s.beginFor(ctx, userID); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for key := range s.entries {
		if key.userID == userID {
			delete(s.entries, key)
		}
	}
	for id, b := range s.bound {
		if b.userID == userID {
			delete(s.bound, id)
		}
	}
	return nil
}

// entry returns an entry to change, which is a new one if there is none. Where no
// history is kept a new one is not kept either.
func (s *MemStore) entry(now time.Time, userID string, id reset.ID, kind reset.HistoryKind) *entry {
	key := entryKey{userID, id}
	if s.entries[key] != nil {
		return s.entries[key]
	}
	e := &entry{HistoryEntry: reset.HistoryEntry{ID: id, Kind: kind, Requests: 1}, until: now.Add(s.keep)}
	if s.keep > 0 {
		s.entries[key] = e
	}
	return e
}

// kindOf returns the kind of a mail that is bound to a user and has no entry.
func kindOf(kind reset.MailKind) reset.HistoryKind {
	if kind == reset.MailNotification {
		return reset.HistoryNotification
	}
	return reset.HistoryTrusted
}

func (s *MemStore) noteIssued(now time.Time, id reset.ID, a reset.Activation, m *reset.Mail, public bool) {
	kind := reset.HistoryTrusted
	if public {
		kind = reset.HistoryPublic
	}
	e := s.entry(now, a.UserID, id, kind)
	e.Expires = a.Expires
	if m != nil {
		e.Attempts, e.attempted = m.Attempts, now
		if leased := m.Lease.Time(); leased.After(now) {
			e.attempted = leased
		}
	}
	if a.Request != id {
		e.Joined = a.Request
	}
}

func (s *MemStore) note(d reset.Settlement) {
	n := d.Note
	if n.UserID == "" {
		return
	}
	at, id := millis(n.At), cmp.Or(n.ID, d.Mail)
	known := s.entries[entryKey{n.UserID, id}] != nil
	e := s.entry(at, n.UserID, id, n.Kind)
	switch {
	case known:
		e.Requests += n.Requests
	case n.Requests > 0:
		e.Requests = n.Requests
	}
	if n.Attempts > 0 {
		e.Attempts = n.Attempts
	}
	if n.Requests == 0 || n.Refusal != "" || n.Outcome != "" {
		e.attempted = time.Time{}
	}
	if n.Refusal != "" {
		e.Refused, e.Refusal = at, n.Refusal
	}
	if n.Outcome != "" {
		e.Outcome, e.OutcomeAt = n.Outcome, at
	}
}

// withdraw records that a mail was removed with its request. With an attempt under
// its lease it may be on its way.
func (s *MemStore) withdraw(now time.Time, m *reset.Mail) {
	known := s.entries[entryKey{m.UserID, m.ID}] != nil
	e := s.entry(now, m.UserID, m.ID, reset.HistoryTrusted)
	if !known {
		e.Expires = m.Expires
	}
	if !known || m.Lease == (reset.ID{}) || e.Outcome == "" && e.attempted.UnixMilli() < m.Lease.Time().UnixMilli() {
		e.Outcome, e.OutcomeAt, e.attempted = reset.OutcomeWithdrawn, now, time.Time{}
	}
}

func (s *MemStore) endRequests(now time.Time, userID string, redeemed reset.ID) {
	for key, e := range s.entries {
		if key.userID != userID || e.End != "" || !e.Expires.After(now) {
			continue
		}
		switch redeemed {
		case reset.ID{}:
			e.End = reset.RequestRevoked
		case key.id, e.Joined:
			e.End = reset.RequestRedeemed
		default:
			e.End = reset.RequestSuperseded
		}
		e.EndAt = now
	}
}
