package resettest

import (
	"context"
	"strings"
	"time"

	"github.com/gopassreset/reset"
)

// inEachView breaks the store and each of its views. all returns the records of
// the realms that the checks use.
func inEachView(f func(f *FaultStore, view *MemStore, all func() []*MemStore)) func(*broken) {
	return func(b *broken) {
		all := func() (realms []*MemStore) {
			for _, name := range []string{"", "a", "b"} {
				realms = append(realms, b.mem.Realm(name).(*MemStore))
			}
			return realms
		}
		f(b.FaultStore, b.mem, all)
		b.RealmFunc = func(name string) reset.Store {
			if name == "" {
				return b
			}
			view := b.mem.Realm(name).(*MemStore)
			faulty := &FaultStore{Store: view}
			f(faulty, view, all)
			return faulty
		}
	}
}

// realmNamed breaks only the names of realms.
func realmNamed(change func(string) string) func(*broken) {
	return func(b *broken) {
		b.RealmFunc = func(name string) reset.Store { return b.mem.Realm(change(name)) }
	}
}

// locked runs f while no other call uses the records.
func (s *MemStore) locked(f func()) {
	_ = s.begin(context.Background())
	defer s.mu.Unlock()
	f()
}

func realmMutants() []storeMutant {
	return []storeMutant{
		{"one realm for all", realmNamed(func(string) string { return "" }), []string{"Realm/activations", "Realm/cap", "Realm/mails", "Realm/views"}},
		{"Find looks everywhere", inEachView(func(f *FaultStore, _ *MemStore, all func() []*MemStore) {
			f.FindFunc = func(ctx context.Context, now time.Time, h reset.Hash) (a reset.Activation, err error) {
				for _, s := range all() {
					if a, err = s.Find(ctx, now, h); err == nil {
						break
					}
				}
				return a, err
			}
		}), []string{"Realm/activations"}},
		{"Redeem looks everywhere", inEachView(func(f *FaultStore, view *MemStore, all func() []*MemStore) {
			f.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				for _, s := range all() {
					if _, err := s.Find(ctx, now, a.Hash); err == nil {
						return s.Redeem(ctx, now, a, notification, apply)
					}
				}
				return view.Redeem(ctx, now, a, notification, apply)
			}
		}), []string{"Realm/activations"}},
		{"one cap for all", inEachView(func(f *FaultStore, view *MemStore, all func() []*MemStore) {
			f.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				for _, s := range all() {
					var wait time.Duration
					s.locked(func() { wait = s.wait(now, a.UserID, limits.MaxRequests) })
					if s != view && wait > 0 {
						return reset.Activation{}, &reset.LimitError{RetryAfter: wait}
					}
				}
				return view.Issue(ctx, now, a, limits, m)
			}
		}), []string{"Realm/cap"}},
		{"joins requests of other realms", inEachView(func(f *FaultStore, view *MemStore, all func() []*MemStore) {
			f.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				for _, s := range all() {
					s.locked(func() {
						if s.hasLive(now, a.UserID, a.Request) {
							limits.MaxRequests = 100
						}
					})
				}
				return view.Issue(ctx, now, a, limits, m)
			}
		}), []string{"Realm/cap"}},
		{"mail of other realms is leased", inEachView(func(f *FaultStore, _ *MemStore, all func() []*MemStore) {
			f.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) (mails []reset.Mail, err error) {
				for _, s := range all() {
					leased, err := s.Lease(ctx, now, until, n-len(mails))
					if err != nil {
						return nil, err
					}
					mails = append(mails, leased...)
				}
				return mails, nil
			}
		}), []string{"Realm/mails"}},
		{"mail of other realms is settled", inEachView(func(f *FaultStore, _ *MemStore, all func() []*MemStore) {
			f.SettleFunc = func(ctx context.Context, done []reset.Settlement) error {
				for _, s := range all() {
					if err := s.Settle(ctx, done); err != nil {
						return err
					}
				}
				return nil
			}
		}), []string{"Realm/leases"}},
		{"mail of other realms is issued", inEachView(func(f *FaultStore, view *MemStore, all func() []*MemStore) {
			f.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				for _, s := range all() {
					held := false
					s.locked(func() { held = m != nil && s.mails[m.ID] != nil })
					if held {
						return s.Issue(ctx, now, a, limits, m)
					}
				}
				return view.Issue(ctx, now, a, limits, m)
			}
		}), []string{"Realm/leases"}},
		{"one budget for all", inEachView(func(f *FaultStore, view *MemStore, all func() []*MemStore) {
			f.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				for _, s := range all() {
					var wait time.Duration
					s.locked(func() { wait = s.budget(now, a.UserID, limits) })
					if s != view && wait > 0 {
						return reset.Activation{}, &reset.LimitError{RetryAfter: wait}
					}
				}
				return view.Issue(ctx, now, a, limits, m)
			}
		}), []string{"Realm/budgets"}},
		{"Revoke in all realms", inEachView(func(f *FaultStore, _ *MemStore, all func() []*MemStore) {
			f.RevokeFunc = func(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
				for _, s := range all() {
					if err := s.Revoke(ctx, now, userID, quiet); err != nil {
						return err
					}
				}
				return nil
			}
		}), []string{"Realm/Revoke"}},
		{"Redeem ends the activations of all realms", inEachView(func(f *FaultStore, view *MemStore, all func() []*MemStore) {
			f.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				err := view.Redeem(ctx, now, a, notification, apply)
				for _, s := range all() {
					if err == nil {
						s.locked(func() { s.revoke(now, a.UserID, reset.ID{}) })
					}
				}
				return err
			}
		}), []string{"Realm/Redeem"}},
		{"a view purges itself", inEachView(func(f *FaultStore, view *MemStore, _ func() []*MemStore) {
			f.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				return view.purge(ctx, millis(now), n)
			}
		}), []string{"Realm/Purge"}},
		{"a view for each call", func(b *broken) {
			b.RealmFunc = func(string) reset.Store { return new(MemStore) }
		}, []string{"Realm/views"}},
		{"names fold case", realmNamed(strings.ToLower), []string{"Realm/names"}},
		{"names are padded", realmNamed(func(name string) string { return strings.TrimRight(name, " ") }), []string{"Realm/names"}},
		{"names are cut off", realmNamed(func(name string) string { return name[:min(len(name), 64)] }), []string{"Realm/names"}},
		{"figures of the whole store", func(b *broken) {
			b.RealmFunc = func(name string) reset.Store {
				view := b.mem.Realm(name).(*MemStore)
				return &wrongRealm{view, b.mem.Realm("a").(*MemStore)}
			}
		}, []string{"Realm/Stats", "Realm/History"}},
		{"one BaseURL for all", func(b *broken) {
			b.RealmFunc = func(name string) reset.Store {
				view := b.mem.Realm(name).(*MemStore)
				return &wrongRealm{view, b.mem}
			}
		}, []string{"Realm/SetBaseURL"}},
	}
}

// A wrongRealm is a view with figures, a history and the BaseURL of another realm.
type wrongRealm struct {
	*MemStore
	other *MemStore
}

func (w *wrongRealm) Stats(ctx context.Context, now time.Time) (reset.Stats, error) {
	return w.other.Stats(ctx, now)
}

func (w *wrongRealm) History(ctx context.Context, now time.Time, userID string, n int) ([]reset.HistoryEntry, error) {
	return w.other.History(ctx, now, userID, n)
}

func (w *wrongRealm) SetBaseURL(ctx context.Context, baseURL string) (string, error) {
	return w.other.SetBaseURL(ctx, baseURL)
}

// claimsOfRealms is for the mode "users elsewhere".
func claimsOfRealms() storeMutant {
	return storeMutant{"one claim for all", inEachView(func(f *FaultStore, view *MemStore, all func() []*MemStore) {
		f.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
			for _, s := range all() {
				held := false
				s.locked(func() { held = s.claims[a.UserID] != nil })
				if held {
					return reset.ErrInvalidActivation
				}
			}
			return view.Redeem(ctx, now, a, notification, apply)
		}
	}), []string{"Realm/claims"}}
}
