package resettest

import (
	"context"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

// A wrongHistory is a MemStore with a fault in what reset.HistoryStore adds.
type wrongHistory struct {
	*MemStore
	history func(s *MemStore, userID string, right []reset.HistoryEntry) []reset.HistoryEntry
	settle  func(s *MemStore, d reset.Settlement) reset.Settlement
	after   func(s *MemStore, now time.Time) // Issue, Redeem, Revoke and Purge
	keep    func(d time.Duration) time.Duration
	erase   func(s *MemStore, userID string)
	n       func(n int) int
	asked   func(now time.Time) time.Time
}

func (s *wrongHistory) KeepHistory(d time.Duration) {
	if s.keep != nil {
		d = s.keep(d)
	}
	s.MemStore.KeepHistory(d)
}

func (s *wrongHistory) History(ctx context.Context, now time.Time, userID string, n int) ([]reset.HistoryEntry, error) {
	if s.n != nil {
		n = s.n(n)
	}
	if s.asked != nil {
		now = s.asked(now)
	}
	entries, err := s.MemStore.History(ctx, now, userID, n)
	if s.history != nil {
		entries = s.history(s.MemStore, userID, entries)
	}
	return entries, err
}

func (s *wrongHistory) EraseHistory(ctx context.Context, userID string) error {
	err := s.MemStore.EraseHistory(ctx, userID)
	if s.erase != nil {
		s.erase(s.MemStore, userID)
	}
	return err
}

func (s *wrongHistory) Settle(ctx context.Context, done []reset.Settlement) error {
	for i, d := range done {
		if s.settle != nil && d.Note != nil {
			note := *d.Note
			d.Note = &note
			done[i] = s.settle(s.MemStore, d)
		}
	}
	return s.MemStore.Settle(ctx, done)
}

func (s *wrongHistory) changed(now time.Time) {
	if s.after != nil {
		s.locked(func() { s.after(s.MemStore, now) })
	}
}

func (s *wrongHistory) Issue(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
	defer s.changed(now)
	return s.MemStore.Issue(ctx, now, a, limits, m)
}

func (s *wrongHistory) Redeem(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	defer s.changed(now)
	return s.MemStore.Redeem(ctx, now, a, notification, apply)
}

func (s *wrongHistory) Revoke(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
	defer s.changed(now)
	return s.MemStore.Revoke(ctx, now, userID, quiet)
}

func (s *wrongHistory) Purge(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
	defer s.changed(now)
	return s.MemStore.Purge(ctx, now, n)
}

func TestHistoryMutants(t *testing.T) {
	shows := func(name string, f func(e *reset.HistoryEntry), caught ...string) mutant[wrongHistory] {
		return mutant[wrongHistory]{name, wrongHistory{history: func(_ *MemStore, _ string, right []reset.HistoryEntry) []reset.HistoryEntry {
			for i := range right {
				f(&right[i])
			}
			return right
		}}, caught}
	}
	keeps := func(name string, f func(e *entry), caught ...string) mutant[wrongHistory] {
		return mutant[wrongHistory]{name, wrongHistory{after: func(s *MemStore, _ time.Time) {
			for _, e := range s.entries {
				f(e)
			}
		}}, caught}
	}
	notes := func(name string, f func(s *MemStore, d reset.Settlement) reset.Settlement, caught ...string) mutant[wrongHistory] {
		return mutant[wrongHistory]{name, wrongHistory{settle: f}, caught}
	}
	specimen[wrongHistory, *storeCheck]{
		sentences: historySentences(),
		mutants: []mutant[wrongHistory]{
			{"it is never off", wrongHistory{keep: func(d time.Duration) time.Duration { return max(d, time.Hour) }}, []string{"KeepHistory"}},
			{"it is off before it is on", wrongHistory{keep: func(time.Duration) time.Duration { return 0 }}, []string{"KeepHistory", "History/requests"}},
			{"any number", wrongHistory{n: func(int) int { return 100 }}, []string{"History/order"}},
			{"those of all", wrongHistory{history: func(s *MemStore, _ string, right []reset.HistoryEntry) []reset.HistoryEntry {
				for key, e := range s.entries {
					if len(right) == 0 && key.userID != "" {
						right = append(right, e.HistoryEntry)
					}
				}
				return right
			}}, []string{"History/kept"}},
			{"public requests of nobody", wrongHistory{history: func(s *MemStore, userID string, right []reset.HistoryEntry) []reset.HistoryEntry {
				for _, m := range s.mails {
					if m.UserID == "" && m.Email == userID {
						right = append(right, queued(reset.HistoryEntry{ID: m.ID}, m))
					}
				}
				return right
			}}, []string{"History/public requests"}},
			shows("no mail that waits without an entry", func(e *reset.HistoryEntry) {
				if e.Kind == reset.HistoryNotification {
					e.Queued = false
				}
			}, "History/requests"),
			shows("the leased wait", func(e *reset.HistoryEntry) { e.Leased = time.Time{} }, "History/queue"),
			shows("nothing was sent", func(e *reset.HistoryEntry) {
				if e.Outcome == reset.OutcomeSent {
					e.Outcome, e.OutcomeAt = "", time.Time{}
				}
			}, "History/sent", "History/requests"),
			shows("sent when it was requested", func(e *reset.HistoryEntry) {
				if e.Outcome == reset.OutcomeSent {
					e.OutcomeAt = e.ID.Time()
				}
			}, "History/sent"),
			shows("all that is gone was sent", func(e *reset.HistoryEntry) {
				if !e.Queued && e.Outcome == "" {
					e.Outcome, e.OutcomeAt = reset.OutcomeSent, start
				}
			}, "History/attempts", "History/withdrawn"),
			shows("the withdrawn were sent", func(e *reset.HistoryEntry) {
				if e.Outcome == reset.OutcomeWithdrawn {
					e.Outcome = reset.OutcomeSent
				}
			}, "History/withdrawn"),
			shows("the expired were sent", func(e *reset.HistoryEntry) {
				if e.Outcome == reset.OutcomeExpired {
					e.Outcome = reset.OutcomeSent
				}
			}, "History/expired"),
			keeps("all are redeemed", func(e *entry) {
				if e.End == reset.RequestSuperseded {
					e.End = reset.RequestRedeemed
				}
			}, "History/Redeem"),
			keeps("what has joined is superseded", func(e *entry) {
				if e.Joined != (reset.ID{}) && e.End != "" {
					e.End = reset.RequestSuperseded
				}
			}, "History/Redeem"),
			{"the last end counts", wrongHistory{after: func(s *MemStore, now time.Time) {
				for _, e := range s.entries {
					if e.End == reset.RequestRevoked {
						e.EndAt = now
					}
				}
			}}, []string{"History/Revoke"}},
			{"the expired are revoked", wrongHistory{after: func(s *MemStore, now time.Time) {
				for _, e := range s.entries {
					if !e.Expires.IsZero() && !now.Before(e.Expires) && e.End == "" {
						e.End, e.EndAt = reset.RequestRevoked, now
					}
				}
			}}, []string{"History/Revoke", "History/Redeem"}},
			notes("notes under any lease", func(s *MemStore, d reset.Settlement) reset.Settlement {
				if m := s.mails[d.Mail]; m != nil && m.Lease != d.Lease {
					s.locked(func() { s.note(d) })
				}
				return d
			}, "History/notes"),
			notes("no notes on what is gone", func(s *MemStore, d reset.Settlement) reset.Settlement {
				if s.mails[d.Mail] == nil {
					d.Note = nil
				}
				return d
			}, "History/notes", "History/withdrawn"),
			notes("notes on the mail itself", func(_ *MemStore, d reset.Settlement) reset.Settlement {
				d.Note.ID = reset.ID{}
				return d
			}, "History/notes of others"),
			notes("requests are not counted", func(_ *MemStore, d reset.Settlement) reset.Settlement {
				d.Note.Requests = 0
				return d
			}, "History/notes of others"),
			notes("a refusal leaves the attempt open", func(s *MemStore, d reset.Settlement) reset.Settlement {
				if e := s.entries[entryKey{d.Note.UserID, d.Mail}]; e != nil {
					e.Refused, e.Refusal, e.Attempts = d.Note.At.UTC(), d.Note.Refusal, d.Note.Attempts
					d.Note = nil
				}
				return d
			}, "History/attempts"),
			notes("a note without words leaves the attempt open", func(s *MemStore, d reset.Settlement) reset.Settlement {
				if d.Note.Refusal == "" && d.Note.Outcome == "" {
					d.Note = nil
				}
				return d
			}, "History/attempts"),
			{"asked of another time", wrongHistory{asked: func(time.Time) time.Time { return start }}, []string{"History/kept"}},
			{"notes prolong", wrongHistory{settle: func(s *MemStore, d reset.Settlement) reset.Settlement {
				for _, e := range s.entries {
					e.until = e.until.Add(time.Hour)
				}
				return d
			}}, []string{"History/kept"}},
			{"Purge leaves it", wrongHistory{after: func(s *MemStore, now time.Time) {
				s.entries[entryKey{"a", newID(now)}] = &entry{until: now.Add(time.Hour)}
			}}, []string{"History/kept"}},
			{"the budget stays", wrongHistory{erase: func(s *MemStore, userID string) { s.bound[newID(start)] = bound{userID, start} }}, []string{"EraseHistory"}},
			{"the queue is erased, too", wrongHistory{erase: func(s *MemStore, userID string) { clear(s.mails) }}, []string{"EraseHistory"}},
			{"all is erased", wrongHistory{erase: func(s *MemStore, _ string) { clear(s.entries) }}, []string{"EraseHistory"}},
		},
		check: func(t testing.TB, fault wrongHistory) *storeCheck {
			fault.MemStore = new(MemStore)
			return &storeCheck{TB: t, store: &fault}
		},
	}.prove(t)
}
