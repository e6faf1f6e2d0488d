package resettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

type storeMutant = mutant[func(b *broken)]

func TestStoreMutants(t *testing.T) {
	for _, test := range []struct {
		name      string
		elsewhere bool
		sentences []storeSentence
		mutants   []storeMutant
	}{
		{"same database", false, slices.Concat(storeSentences(false), realmSentences(false)), slices.Concat(sameDatabaseMutants(), realmMutants())},
		{"elsewhere", true, slices.Concat(elsewhereSentences(), cancelSentences(), realmSentences(true)), slices.Concat(elsewhereMutants(), realmMutants(), []storeMutant{claimsOfRealms()})},
	} {
		t.Run(test.name, func(t *testing.T) {
			specimen[func(*broken), *storeCheck]{
				sentences: test.sentences,
				mutants:   test.mutants,
				check: func(t testing.TB, fault func(*broken)) *storeCheck {
					mem := &MemStore{UsersElsewhere: test.elsewhere}
					b := &broken{&FaultStore{Store: mem}, mem}
					fault(b)
					return &storeCheck{TB: t, store: b, elsewhere: test.elsewhere}
				},
			}.prove(t)
		})
	}
}

// A broken store is a MemStore with a fault.
type broken struct {
	*FaultStore
	mem *MemStore
}

// locked runs f while no other call uses the store's records.
func (b *broken) locked(f func()) {
	_ = b.mem.begin(context.Background())
	defer b.mem.mu.Unlock()
	f()
}

// liveOf returns the live activations of a user.
func (b *broken) liveOf(now time.Time, userID string) (live []*activation) {
	b.locked(func() {
		for _, a := range b.mem.activations {
			if a.UserID == userID && a.live(now) {
				live = append(live, a)
			}
		}
	})
	return live
}

// yield lets other goroutines run.
func yield() {
	for range 200 {
		runtime.Gosched()
	}
}

var anyContext = context.Background()

func sameDatabaseMutants() []storeMutant {
	return slices.Concat(generalMutants(), issueMutants(), budgetMutants(), redeemMutants(), mailMutants(), cancelMutants(), raceMutants(), undoMutants())
}

func elsewhereMutants() []storeMutant {
	return slices.Concat(cancelMutants(), claimMutants())
}

func generalMutants() []storeMutant {
	wall := func(t time.Time) time.Time {
		return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
	}
	foldIssues := func(fold func(string) string) func(b *broken) {
		return func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				a.UserID = fold(a.UserID)
				return b.mem.Issue(ctx, now, a, limits, m)
			}
			b.RevokeFunc = func(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
				return b.mem.Revoke(ctx, now, fold(userID), quiet)
			}
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				a.UserID = fold(a.UserID)
				return b.mem.Redeem(ctx, now, a, notification, apply)
			}
			b.FindFunc = func(ctx context.Context, now time.Time, h reset.Hash) (reset.Activation, error) {
				a, err := b.mem.Find(ctx, now, h)
				a.UserID, _ = strings.CutSuffix(a.Email, "@example.com")
				return a, err
			}
		}
	}
	padSpace := func(s string) string { return strings.TrimRight(s, " ") }
	return []storeMutant{
		{"its own clock", func(b *broken) {
			b.FindFunc = func(ctx context.Context, _ time.Time, h reset.Hash) (reset.Activation, error) {
				return b.mem.Find(ctx, time.Now(), h)
			}
		}, []string{"Time/arguments"}},
		{"times without a zone", func(b *broken) {
			b.FindFunc = func(ctx context.Context, now time.Time, h reset.Hash) (reset.Activation, error) {
				return b.mem.Find(ctx, wall(now), h)
			}
		}, []string{"Time/zones"}},
		{"due times rounded up", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				rounded := *m
				rounded.Due = m.Due.Add(ms - 1)
				return b.mem.Issue(ctx, now, a, limits, &rounded)
			}
		}, []string{"Time/precision"}},
		{"used activations expire now", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				used := b.liveOf(now, a.UserID)
				err := b.mem.Redeem(ctx, now, a, notification, apply)
				if err == nil {
					b.locked(func() {
						for _, a := range used {
							a.Expires = now
							b.mem.activations[a.Hash] = a
						}
					})
				}
				return err
			}
		}, []string{"Time/jumps back", "Redeem/activations"}},
		{"purged is only skipped", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) { return 0, 0, nil }
		}, []string{"Time/jumps back", "Purge/the expired", "Purge/at most n", "Purge/boundary"}},
		{"user ids fold case", foldIssues(strings.ToLower), []string{"Bytes/users"}},
		{"user ids are padded", foldIssues(padSpace), []string{"Bytes/users"}},
		{"user ids of mails are padded", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				b.locked(func() {
					if queued := b.mem.mails[m.ID]; queued != nil && padSpace(queued.UserID) == padSpace(a.UserID) {
						queued.UserID = a.UserID
					}
				})
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}, []string{"Bytes/user of a mail"}},
		{"addresses are folded", func(b *broken) {
			b.EnqueueFunc = func(ctx context.Context, m reset.Mail) error {
				m.Email = strings.ToLower(m.Email)
				return b.mem.Enqueue(ctx, m)
			}
		}, []string{"Bytes/addresses", "Enqueue/as it is"}},
		{"hashes lose trailing spaces", func(b *broken) {
			trim := func(h reset.Hash) (trimmed reset.Hash) {
				copy(trimmed[:], bytes.TrimRight(h[:], " "))
				return trimmed
			}
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				a.Hash = trim(a.Hash)
				return b.mem.Issue(ctx, now, a, limits, m)
			}
			b.FindFunc = func(ctx context.Context, now time.Time, h reset.Hash) (reset.Activation, error) {
				a, err := b.mem.Find(ctx, now, trim(h))
				a.Hash = h
				return a, err
			}
		}, []string{"Bytes/hashes and ids"}},
		{"names must be UTF-8", func(b *broken) {
			b.EnqueueFunc = func(ctx context.Context, m reset.Mail) error {
				m.Name = strings.ToValidUTF8(m.Name, "\ufffd")
				return b.mem.Enqueue(ctx, m)
			}
		}, []string{"Bytes/text"}},
	}
}

func issueMutants() []storeMutant {
	capped := func(change func(int) int) func(b *broken) {
		return func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				limits.MaxRequests = change(limits.MaxRequests)
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}
	}
	return []storeMutant{
		{"cap one too high", capped(func(max int) int { return max + 1 }), []string{"Issue/adds up to max", "Issue/over the cap", "Race/cap"}},
		{"cap one too low", capped(func(max int) int { return max - 1 }), []string{"Issue/adds up to max", "Race/cap"}},
		{"the expired count", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				return b.mem.Issue(ctx, now.Add(-lifetime), a, limits, m)
			}
		}, []string{"Issue/counts the live", "Issue/RetryAfter"}},
		{"RetryAfter waits for all to expire", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				issued, err := b.mem.Issue(ctx, now, a, limits, m)
				var limit *reset.LimitError
				if errors.As(err, &limit) {
					b.locked(func() { limit.RetryAfter = b.mem.wait(now, a.UserID, 1) })
				}
				return issued, err
			}
		}, []string{"Issue/RetryAfter"}},
		{"mails over the cap are kept", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				issued, err := b.mem.Issue(ctx, now, a, limits, m)
				if err != nil && m != nil {
					b.locked(func() { b.mem.add(*m) })
				}
				return issued, err
			}
		}, []string{"Issue/over the cap", "Issue/over the cap with a lease", "Race/cap"}},
		{"no request is joined", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (_ reset.Activation, err error) {
				b.locked(func() {
					if wait := b.mem.wait(now, a.UserID, limits.MaxRequests); wait > 0 {
						err = &reset.LimitError{RetryAfter: wait}
					}
				})
				if err != nil {
					return reset.Activation{}, err
				}
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}, []string{"Issue/joins", "Issue/counts once"}},
		{"dead requests are joined", func(b *broken) {
			seen := make(map[reset.ID]bool)
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				if seen[a.Request] {
					limits.MaxRequests = 1000
				}
				seen[a.Request] = true
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}, []string{"Issue/joins only the live"}},
		{"activations count", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				if live := b.liveOf(now, a.UserID); len(live) >= limits.MaxRequests && live[0].Request != a.Request {
					return reset.Activation{}, &reset.LimitError{RetryAfter: lifetime}
				}
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}, []string{"Issue/counts once"}},
		{"no mail is added", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				if m != nil && m.Lease == (reset.ID{}) {
					m = nil
				}
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}, []string{"Issue/adds its mail", "Race/cap"}},
		{"a leased mail is added without its lease", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				if m != nil && m.WasDue.IsZero() {
					free := *m
					free.Lease = reset.ID{}
					m = &free
				}
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}, []string{"Issue/adds its mail leased"}},
		{"an activation without its mail", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				issued, err := b.mem.Issue(ctx, now, a, limits, nil)
				if err == nil && m != nil {
					err = b.mem.Enqueue(ctx, *m)
				}
				return issued, err
			}
		}, []string{"Issue/all or nothing"}},
		{"lost leases do not matter", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				issued, err := b.mem.Issue(ctx, now, a, limits, m)
				if errors.Is(err, reset.ErrGone) {
					return b.mem.Issue(ctx, now, a, limits, nil)
				}
				return issued, err
			}
		}, []string{"Issue/lost lease", "Issue/mail of another user", "Redeem/leased mails"}},
		{"a lost lease is taken back", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				b.locked(func() {
					if m != nil && b.mem.mails[m.ID] != nil {
						b.mem.mails[m.ID].Lease = m.Lease
					}
				})
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}, []string{"Issue/lost lease"}},
		{"mails change their user", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				b.locked(func() {
					if m != nil && b.mem.mails[m.ID] != nil {
						b.mem.mails[m.ID].UserID = a.UserID
					}
				})
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}, []string{"Issue/mail of another user", "Bytes/user of a mail"}},
		{"only public requests can be issued", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				if m != nil && m.Lease != (reset.ID{}) && m.UserID != "" {
					return reset.Activation{}, reset.ErrGone
				}
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}, []string{"Issue/mail of the same user"}},
		{"mails are not bound", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				issued, err := b.mem.Issue(ctx, now, a, limits, m)
				if err == nil && m != nil {
					b.locked(func() { b.mem.mails[m.ID].UserID = m.UserID })
				}
				return issued, err
			}
		}, []string{"Issue/binds", "Redeem/leased mails", "Redeem/public requests"}},
		{"leases are not renewed", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				issued, err := b.mem.Issue(ctx, now, a, limits, m)
				if err == nil && m != nil {
					b.locked(func() { b.mem.mails[m.ID].Due = at(time.Minute) })
				}
				return issued, err
			}
		}, []string{"Issue/renews", "Issue/joins"}},
		{"Find uses the activation up", func(b *broken) {
			b.FindFunc = func(ctx context.Context, now time.Time, h reset.Hash) (reset.Activation, error) {
				a, err := b.mem.Find(ctx, now, h)
				b.locked(func() { delete(b.mem.activations, h) })
				return a, err
			}
		}, []string{"Find/live"}},
		{"a failure reads as no such activation", func(b *broken) {
			b.FindFunc = func(ctx context.Context, now time.Time, h reset.Hash) (reset.Activation, error) {
				a, err := b.mem.Find(ctx, now, h)
				if err != nil {
					err = reset.ErrInvalidActivation
				}
				return a, err
			}
		}, []string{"Find/live"}},
		{"live when it expires", func(b *broken) {
			b.FindFunc = func(ctx context.Context, now time.Time, h reset.Hash) (reset.Activation, error) {
				return b.mem.Find(ctx, now.Add(-ms), h)
			}
		}, []string{"Find/expiry"}},
	}
}

func redeemMutants() []storeMutant {
	// after changes the store once a Redeem has succeeded.
	after := func(change func(b *broken, now time.Time, a reset.Activation, before *MemStore)) func(b *broken) {
		return func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				var before MemStore
				b.locked(func() {
					before.activations, before.mails = maps.Clone(b.mem.activations), maps.Clone(b.mem.mails)
				})
				err := b.mem.Redeem(ctx, now, a, notification, apply)
				if err == nil {
					b.locked(func() { change(b, now, a, &before) })
				}
				return err
			}
		}
	}
	// spare lets some of a user's records outlive Revoke.
	spare := func(mails func(*reset.Mail) bool, activations func(*activation) bool) func(b *broken) {
		return func(b *broken) {
			b.RevokeFunc = func(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
				b.locked(func() {
					maps.DeleteFunc(b.mem.activations, func(_ reset.Hash, a *activation) bool { return a.UserID == userID && !activations(a) })
					maps.DeleteFunc(b.mem.mails, func(_ reset.ID, m *reset.Mail) bool { return m.UserID == userID && !mails(m) })
				})
				return nil
			}
		}
	}
	isNotification := func(m *reset.Mail) bool { return m.Kind == reset.MailNotification }
	wrap := func(change func(apply func(context.Context) error) func(context.Context) error) func(b *broken) {
		return func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				return b.mem.Redeem(ctx, now, a, notification, change(apply))
			}
		}
	}
	return []storeMutant{
		{"apply before the check", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				err := apply(ctx)
				return b.mem.Redeem(ctx, now, a, notification, func(context.Context) error { return err })
			}
		}, []string{"Redeem/not live", "Redeem/expiry", "Race/one activation"}},
		{"expired activations can be used", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				return b.mem.Redeem(ctx, a.Expires.Add(-ms), a, notification, apply)
			}
		}, []string{"Redeem/expiry"}},
		{"other activations outlive Redeem", after(func(b *broken, _ time.Time, used reset.Activation, before *MemStore) {
			delete(before.activations, used.Hash)
			maps.Copy(b.mem.activations, before.activations)
		}), []string{"Redeem/activations", "Redeem/frees the cap"}},
		{"bound mails outlive Redeem", after(func(b *broken, _ time.Time, _ reset.Activation, before *MemStore) {
			maps.Copy(b.mem.mails, before.mails)
		}), []string{"Redeem/mails", "Redeem/leased mails"}},
		{"leased mails outlive Redeem", after(func(b *broken, _ time.Time, _ reset.Activation, before *MemStore) {
			for id, m := range before.mails {
				if m.Lease != (reset.ID{}) {
					b.mem.mails[id] = m
				}
			}
		}), []string{"Redeem/leased mails"}},
		{"no notification", after(func(b *broken, _ time.Time, _ reset.Activation, before *MemStore) {
			maps.DeleteFunc(b.mem.mails, func(id reset.ID, m *reset.Mail) bool { return isNotification(m) && before.mails[id] == nil })
		}), []string{"Redeem/notification", "Redeem/mails", "Race/users"}},
		{"a notification is as short-lived as a reset mail", after(func(b *broken, _ time.Time, _ reset.Activation, _ *MemStore) {
			for _, m := range b.mem.mails {
				m.Expires = at(lifetime)
			}
		}), []string{"Redeem/notification"}},
		{"one notification a user", after(func(b *broken, _ time.Time, a reset.Activation, before *MemStore) {
			maps.DeleteFunc(b.mem.mails, func(id reset.ID, m *reset.Mail) bool {
				return isNotification(m) && m.UserID == a.UserID && before.mails[id] != nil
			})
		}), []string{"Redeem/other notifications"}},
		{"public requests end with Redeem", after(func(b *broken, _ time.Time, a reset.Activation, _ *MemStore) {
			maps.DeleteFunc(b.mem.mails, func(_ reset.ID, m *reset.Mail) bool { return m.UserID == "" && m.Email == a.Email })
		}), []string{"Redeem/public requests"}},
		{"apply is retried", wrap(func(apply func(context.Context) error) func(context.Context) error {
			return func(ctx context.Context) error {
				if err := apply(ctx); err == nil {
					return nil
				}
				return apply(ctx)
			}
		}), []string{"Redeem/apply once", "Redeem/undone by an error"}},
		{"an error of apply is hidden", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				if err := b.mem.Redeem(ctx, now, a, notification, apply); err != nil {
					return fmt.Errorf("redeem: %v", err)
				}
				return nil
			}
		}, []string{"Redeem/apply once"}},
		{"a panic becomes an error", wrap(func(apply func(context.Context) error) func(context.Context) error {
			return func(ctx context.Context) (err error) {
				if p := catch(func() { err = apply(ctx) }); p != nil {
					return fmt.Errorf("%v", p)
				}
				return err
			}
		}), []string{"Redeem/panic", "Redeem/undone by a panic"}},
		{"apply gets another context", wrap(func(apply func(context.Context) error) func(context.Context) error {
			return func(context.Context) error { return apply(anyContext) }
		}), []string{"Redeem/context"}},
		{"other requests outlive Revoke", spare(isNotification, func(a *activation) bool { return a.Request[15]%2 == 0 }), []string{"Revoke/activations"}},
		{"expired activations outlive Revoke", spare(isNotification, func(a *activation) bool { return !a.live(start) }), []string{"Revoke/activations"}},
		{"mails outlive Revoke", spare(func(*reset.Mail) bool { return true }, func(*activation) bool { return false }), []string{"Revoke/mails", "Issue/binds"}},
		{"leased mails outlive Revoke", spare(func(m *reset.Mail) bool { return m.Lease != reset.ID{} }, func(*activation) bool { return false }), []string{"Revoke/mails", "Issue/lost lease"}},
		{"notifications end with Revoke", spare(func(*reset.Mail) bool { return false }, func(*activation) bool { return false }), []string{"Revoke/notifications and public requests", "Redeem/other notifications"}},
		{"nothing to revoke is an error", func(b *broken) {
			b.RevokeFunc = func(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
				if len(b.liveOf(start, userID)) == 0 {
					return errors.New("no rows")
				}
				return b.mem.Revoke(ctx, now, userID, quiet)
			}
		}, []string{"Revoke/nothing"}},
	}
}

func mailMutants() []storeMutant {
	// leased changes the stored mails after a Lease.
	leased := func(change func(m, before *reset.Mail)) func(b *broken) {
		return func(b *broken) {
			b.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
				before := make(map[reset.ID]reset.Mail)
				b.locked(func() {
					for id, m := range b.mem.mails {
						before[id] = *m
					}
				})
				mails, err := b.mem.Lease(ctx, now, until, n)
				b.locked(func() {
					for _, m := range mails {
						old := before[m.ID]
						change(b.mem.mails[m.ID], &old)
					}
				})
				return mails, err
			}
		}
	}
	settled := func(change func(b *broken, done []reset.Settlement) []reset.Settlement) func(b *broken) {
		return func(b *broken) {
			b.SettleFunc = func(ctx context.Context, done []reset.Settlement) error {
				done = slices.Clone(done)
				b.locked(func() { done = change(b, done) })
				return b.mem.Settle(ctx, done)
			}
		}
	}
	return []storeMutant{
		{"one mail an address", func(b *broken) {
			b.EnqueueFunc = func(ctx context.Context, m reset.Mail) error {
				known := false
				b.locked(func() {
					for _, other := range b.mem.mails {
						known = known || other.Email == m.Email
					}
				})
				if known {
					return nil
				}
				return b.mem.Enqueue(ctx, m)
			}
		}, []string{"Enqueue/a row of its own", "Race/Enqueue"}},
		{"n is ignored", func(b *broken) {
			b.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
				return b.mem.Lease(ctx, now, until, 1000)
			}
		}, []string{"Lease/at most n", "Race/leases"}},
		{"no limit is no LIMIT", func(b *broken) {
			b.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
				if n == 0 {
					n = 1000
				}
				return b.mem.Lease(ctx, now, until, n)
			}
		}, []string{"Lease/at most n"}},
		{"a mail is due a millisecond late", func(b *broken) {
			b.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
				return b.mem.Lease(ctx, now.Add(-ms), until, n)
			}
		}, []string{"Lease/due", "Lease/none twice", "Settle/frees"}},
		{"expired mails are leased", func(b *broken) {
			b.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
				b.locked(func() {
					for _, m := range b.mem.mails {
						m.Expires = now.Add(time.Hour)
					}
				})
				return b.mem.Lease(ctx, now, until, n)
			}
		}, []string{"Lease/due", "Redeem/notification"}},
		{"the last ones due come first", func(b *broken) {
			b.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
				flip := func() {
					for _, m := range b.mem.mails {
						if !m.Due.After(now) {
							m.Due = now.Add(m.Due.Sub(now) * -1).Add(-lifetime)
						}
					}
				}
				b.locked(flip)
				return b.mem.Lease(ctx, now, until, n)
			}
		}, []string{"Lease/order"}},
		{"mails are leased in the order of their ids", func(b *broken) {
			b.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
				b.locked(func() {
					for id, m := range b.mem.mails {
						if !m.Due.After(now) {
							m.Due = at(-lifetime + time.Duration(id[15])*time.Second)
						}
					}
				})
				return b.mem.Lease(ctx, now, until, n)
			}
		}, []string{"Lease/order"}},
		{"classes are ignored", func(b *broken) {
			b.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
				classes := make(map[reset.ID]int)
				b.locked(func() {
					for id, m := range b.mem.mails {
						classes[id], m.Class = m.Class, 0
					}
				})
				mails, err := b.mem.Lease(ctx, now, until, n)
				b.locked(func() {
					for id, m := range b.mem.mails {
						m.Class = classes[id]
					}
				})
				for i := range mails {
					mails[i].Class = classes[mails[i].ID]
				}
				return mails, err
			}
		}, []string{"Lease/class", "Settle/class"}},
		{"leased twice", leased(func(m, before *reset.Mail) { m.Due = before.Due }), []string{"Lease/none twice", "Lease/at most n", "Race/leases"}},
		{"attempts are not stored", leased(func(m, before *reset.Mail) { m.Attempts = before.Attempts }), []string{"Lease/as stored", "Settle/frees"}},
		{"the lease is not stored", leased(func(m, before *reset.Mail) { m.Lease = before.Lease }), []string{"Settle/removes", "Issue/renews"}},
		{"a lease is not fresh", func(b *broken) {
			b.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
				mails, err := b.mem.Lease(ctx, now, until, n)
				b.locked(func() {
					for i := range mails {
						mails[i].Lease = reset.ID{1}
						b.mem.mails[mails[i].ID].Lease = reset.ID{1}
					}
				})
				return mails, err
			}
		}, []string{"Lease/as stored", "Issue/lost lease"}},
		{"notifications are not leased", func(b *broken) {
			b.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
				mails, err := b.mem.Lease(ctx, now, until, n)
				return slices.DeleteFunc(mails, func(m reset.Mail) bool { return m.Kind == reset.MailNotification }), err
			}
		}, []string{"Lease/every kind"}},
		{"nothing is removed", settled(func(_ *broken, done []reset.Settlement) []reset.Settlement {
			return slices.DeleteFunc(done, func(s reset.Settlement) bool { return s.Retry.IsZero() })
		}), []string{"Settle/removes", "Settle/gone", "Settle/many", "Time/jumps back"}},
		{"activations end with their mail", func(b *broken) {
			b.SettleFunc = func(ctx context.Context, done []reset.Settlement) error {
				b.locked(func() {
					for _, d := range done {
						maps.DeleteFunc(b.mem.activations, func(_ reset.Hash, a *activation) bool { return a.Request == d.Mail })
					}
				})
				return b.mem.Settle(ctx, done)
			}
		}, []string{"Settle/removes", "Settle/frees"}},
		{"retries keep their class", func(b *broken) {
			b.SettleFunc = func(ctx context.Context, done []reset.Settlement) error {
				done = slices.Clone(done)
				b.locked(func() {
					for i, d := range done {
						if m := b.mem.mails[d.Mail]; m != nil {
							done[i].Class = m.Class
						}
					}
				})
				return b.mem.Settle(ctx, done)
			}
		}, []string{"Settle/class"}},
		{"retries are at once", settled(func(_ *broken, done []reset.Settlement) []reset.Settlement {
			for i := range done {
				if !done[i].Retry.IsZero() {
					done[i].Retry = start
				}
			}
			return done
		}), []string{"Settle/frees", "Settle/many"}},
		{"Lease returns the end of the lease only", func(b *broken) {
			b.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
				mails, err := b.mem.Lease(ctx, now, until, n)
				for i := range mails {
					mails[i].WasDue = until
				}
				return mails, err
			}
		}, []string{"Lease/as stored", "Settle/unspent"}},
		{"every attempt counts", settled(func(_ *broken, done []reset.Settlement) []reset.Settlement {
			for i := range done {
				done[i].Unspent = false
			}
			return done
		}), []string{"Settle/unspent"}},
		{"no attempt counts", settled(func(_ *broken, done []reset.Settlement) []reset.Settlement {
			for i := range done {
				done[i].Unspent = true
			}
			return done
		}), []string{"Settle/unspent", "Settle/frees", "Lease/as stored"}},
		{"a renewal ends the lease", settled(func(_ *broken, done []reset.Settlement) []reset.Settlement {
			for i := range done {
				done[i].Held = false
			}
			return done
		}), []string{"Settle/renews"}},
		{"a renewal is ignored", settled(func(_ *broken, done []reset.Settlement) []reset.Settlement {
			return slices.DeleteFunc(done, func(s reset.Settlement) bool { return s.Held })
		}), []string{"Settle/renews"}},
		{"a renewal ignores the lease", settled(func(b *broken, done []reset.Settlement) []reset.Settlement {
			for i, d := range done {
				if m := b.mem.mails[d.Mail]; m != nil && d.Held {
					done[i].Lease = m.Lease
				}
			}
			return done
		}), []string{"Settle/renews"}},
		{"gone is an error", func(b *broken) {
			b.SettleFunc = func(ctx context.Context, done []reset.Settlement) (err error) {
				b.locked(func() {
					for _, d := range done {
						if b.mem.mails[d.Mail] == nil {
							err = errors.New("no rows")
						}
					}
				})
				return errors.Join(err, b.mem.Settle(ctx, done))
			}
		}, []string{"Settle/gone", "Revoke/mails", "Redeem/leased mails"}},
		{"Settle stops where one is gone", settled(func(b *broken, done []reset.Settlement) []reset.Settlement {
			if i := slices.IndexFunc(done, func(d reset.Settlement) bool { return b.mem.mails[d.Mail] == nil }); i >= 0 {
				return done[:i]
			}
			return done
		}), []string{"Settle/gone"}},
		{"Settle ignores the lease", settled(func(b *broken, done []reset.Settlement) []reset.Settlement {
			for i := range done {
				if m := b.mem.mails[done[i].Mail]; m != nil {
					done[i].Lease = m.Lease
				}
			}
			return done
		}), []string{"Settle/another lease"}},
		{"a freed mail keeps its lease", func(b *broken) {
			b.SettleFunc = func(ctx context.Context, done []reset.Settlement) error {
				leases := make(map[reset.ID]reset.ID)
				b.locked(func() {
					for id, m := range b.mem.mails {
						leases[id] = m.Lease
					}
				})
				err := b.mem.Settle(ctx, done)
				b.locked(func() {
					for id, m := range b.mem.mails {
						m.Lease = leases[id]
					}
				})
				return err
			}
		}, []string{"Settle/another lease", "Issue/lost lease"}},
		{"one settlement a call", settled(func(_ *broken, done []reset.Settlement) []reset.Settlement {
			return done[:min(1, len(done))]
		}), []string{"Settle/many"}},
		{"Purge takes what lives", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				return b.mem.Purge(ctx, now.Add(lifetime), n)
			}
		}, []string{"Purge/the expired", "Purge/boundary", "Purge/the cap"}},
		{"Purge leaves mails", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				mails := b.mem.mails
				b.mem.mails = nil
				defer func() { b.mem.mails = mails }()
				return b.mem.Purge(ctx, now, n)
			}
		}, []string{"Purge/at most n", "Purge/boundary"}},
		{"Purge ignores n", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				removed, unsent, err = b.mem.Purge(ctx, now, 1000)
				return min(removed, n), unsent, err
			}
		}, []string{"Purge/at most n"}},
		{"Purge is a millisecond late", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				return b.mem.Purge(ctx, now.Add(-ms), n)
			}
		}, []string{"Purge/boundary", "Purge/the expired"}},
		{"Purge is a millisecond early", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				return b.mem.Purge(ctx, now.Add(ms), n)
			}
		}, []string{"Purge/boundary"}},
		{"a user is purged as a whole", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				b.locked(func() {
					for _, a := range maps.Clone(b.mem.activations) {
						if !a.Expires.After(now) {
							b.mem.revoke(now, a.UserID, reset.ID{})
						}
					}
				})
				return 0, 0, nil
			}
		}, []string{"Purge/the cap", "Purge/the expired"}},
		{"Purge counts every record as mail", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				removed, _, err = b.mem.Purge(ctx, now, n)
				return removed, removed, err
			}
		}, []string{"Purge/unsent"}},
		{"Purge counts no mail", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				removed, _, err = b.mem.Purge(ctx, now, n)
				return removed, 0, err
			}
		}, []string{"Purge/unsent"}},
	}
}

// cancelMutants do half of their work and then look at the context.
func cancelMutants() []storeMutant {
	return []storeMutant{
		{"a cancelled call says it succeeded", func(b *broken) {
			b.EnqueueFunc = func(ctx context.Context, m reset.Mail) error {
				if ctx.Err() != nil {
					return nil
				}
				return b.mem.Enqueue(ctx, m)
			}
		}, []string{"Cancel/Enqueue"}},
		{"half an Issue", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				if m == nil {
					return b.mem.Issue(ctx, now, a, limits, nil)
				}
				issued, err := b.mem.Issue(anyContext, now, a, limits, nil)
				if err != nil {
					return issued, err
				}
				if err := ctx.Err(); err != nil {
					return issued, err
				}
				b.locked(func() {
					bound := *m
					bound.UserID = a.UserID
					b.mem.add(bound)
				})
				return issued, nil
			}
		}, []string{"Cancel/Issue", "Cancel/Issue with a lease"}},
		{"half a Redeem", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				if err := b.mem.Redeem(ctx, now, a, notification, apply); err != nil {
					return err
				}
				if err := ctx.Err(); err != nil {
					b.locked(func() { delete(b.mem.mails, notification.ID) })
					return err
				}
				return nil
			}
		}, []string{"Cancel/Redeem", "Cancel/apply"}},
		{"a cancelled Redeem is an invalid activation", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				if ctx.Err() != nil {
					return reset.ErrInvalidActivation
				}
				return b.mem.Redeem(ctx, now, a, notification, apply)
			}
		}, []string{"Cancel/Redeem"}},
		{"a notification though apply was cancelled", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				err := b.mem.Redeem(ctx, now, a, notification, apply)
				if errors.Is(err, context.Canceled) {
					b.locked(func() { b.mem.add(notification) })
				}
				return err
			}
		}, []string{"Cancel/failing apply", "Cancel/Redeem"}},
		{"half a Revoke", func(b *broken) {
			b.RevokeFunc = func(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
				b.locked(func() {
					maps.DeleteFunc(b.mem.activations, func(_ reset.Hash, a *activation) bool { return a.UserID == userID })
				})
				return b.mem.Revoke(ctx, now, userID, quiet)
			}
		}, []string{"Cancel/Revoke"}},
		{"half a Lease", func(b *broken) {
			b.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
				mails, _ := b.mem.Lease(anyContext, now, until, 1)
				more, err := b.mem.Lease(ctx, now, until, n-len(mails))
				if err != nil {
					return nil, err
				}
				return append(mails, more...), nil
			}
		}, []string{"Cancel/Lease"}},
		{"half a Settle", func(b *broken) {
			b.SettleFunc = func(ctx context.Context, done []reset.Settlement) error {
				for _, d := range done {
					if err := b.mem.Settle(ctx, []reset.Settlement{d}); err != nil {
						return err
					}
				}
				return nil
			}
		}, []string{"Cancel/Settle"}},
		{"half a Purge", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				for range n {
					one, mail, err := b.mem.Purge(ctx, now, 1)
					if err != nil {
						return 0, 0, err
					}
					removed, unsent = removed+one, unsent+mail
				}
				return removed, unsent, nil
			}
		}, []string{"Cancel/Purge"}},
	}
}

func raceMutants() []storeMutant {
	return []storeMutant{
		{"count, then insert", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				var wait time.Duration
				b.locked(func() { wait = b.mem.wait(now, a.UserID, limits.MaxRequests) })
				if wait > 0 {
					return reset.Activation{}, &reset.LimitError{RetryAfter: wait}
				}
				yield()
				return b.mem.Issue(ctx, now, a, reset.Limits{MaxRequests: 1000}, m)
			}
		}, []string{"Race/cap", "Race/cap of many users", "Race/cap of public requests"}},
		{"find, then apply", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				if _, err := b.mem.Find(ctx, now, a.Hash); err != nil {
					return err
				}
				yield()
				if err := apply(ctx); err != nil {
					return err
				}
				b.locked(func() { b.mem.finish(now, a, notification) })
				return nil
			}
		}, []string{"Race/one activation", "Race/activations of one user"}},
		{"an activation is locked, not its user", func(b *broken) {
			var locks sync.Map
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				lock, _ := locks.LoadOrStore(a.Hash, new(sync.Mutex))
				lock.(*sync.Mutex).Lock()
				defer lock.(*sync.Mutex).Unlock()
				if _, err := b.mem.Find(ctx, now, a.Hash); err != nil {
					return err
				}
				yield()
				if err := apply(ctx); err != nil {
					return err
				}
				b.locked(func() { b.mem.finish(now, a, notification) })
				return nil
			}
		}, []string{"Race/activations of one user"}},
		{"one Redeem at a time for all", func(b *broken) {
			var busy atomic.Bool
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				if !busy.CompareAndSwap(false, true) {
					return reset.ErrInvalidActivation
				}
				defer busy.Store(false)
				yield()
				return b.mem.Redeem(ctx, now, a, notification, apply)
			}
		}, []string{"Race/users"}},
		{"choose, then lease", func(b *broken) {
			b.LeaseFunc = func(ctx context.Context, now, until time.Time, n int) (leased []reset.Mail, err error) {
				b.locked(func() {
					for _, m := range b.mem.mails {
						if !m.Due.After(now) && len(leased) < n {
							leased = append(leased, *m)
						}
					}
				})
				yield()
				b.locked(func() {
					for _, m := range leased {
						b.mem.mails[m.ID].Due = until
					}
				})
				return leased, nil
			}
		}, []string{"Race/leases"}},
		{"the queue is read, then written", func(b *broken) {
			b.EnqueueFunc = func(ctx context.Context, m reset.Mail) error {
				var mails map[reset.ID]*reset.Mail
				b.locked(func() { mails = maps.Clone(b.mem.mails) })
				yield()
				mails[m.ID] = &m
				b.locked(func() { b.mem.mails = mails })
				return nil
			}
		}, []string{"Race/Enqueue"}},
		{"apply before the last check", func(b *broken) {
			ended := make(chan struct{}, 3*rounds) // Redeem waits for the other call
			b.RevokeFunc = func(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
				defer func() { ended <- struct{}{} }()
				return b.mem.Revoke(ctx, now, userID, quiet)
			}
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				defer func() { ended <- struct{}{} }()
				return b.mem.Purge(ctx, now, n)
			}
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				err := apply(ctx)
				<-ended
				return b.mem.Redeem(ctx, now, a, notification, func(context.Context) error { return err })
			}
		}, []string{"Race/Redeem and Revoke", "Race/Redeem and Purge"}},
		{"a new request ends the old ones", func(b *broken) {
			ended := make(chan struct{}, 2*rounds)
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				if limits.MaxRequests == 1 {
					defer func() { ended <- struct{}{} }()
					b.locked(func() { b.mem.revoke(now, a.UserID, reset.ID{}) })
				}
				return b.mem.Issue(ctx, now, a, limits, m)
			}
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				<-ended
				return b.mem.Redeem(ctx, now, a, notification, apply)
			}
		}, []string{"Race/Redeem and Issue"}},
		{"an activation, then its mail", func(b *broken) {
			ended := make(chan struct{}, rounds)
			b.RevokeFunc = func(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
				defer func() { ended <- struct{}{} }()
				return b.mem.Revoke(ctx, now, userID, quiet)
			}
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				issued, err := b.mem.Issue(ctx, now, a, limits, nil)
				if err == nil && m != nil {
					<-ended
					err = b.mem.Enqueue(ctx, *m)
				}
				return issued, err
			}
		}, []string{"Race/Revoke and Issue"}},
		{"an activation, and later its mail", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				issued, err := b.mem.Issue(ctx, now, a, limits, nil)
				if err == nil {
					b.locked(func() { b.mem.revoke(now, a.UserID, reset.ID{}) }) // a call between the two
					err = b.mem.Enqueue(ctx, *m)
				}
				return issued, err
			}
		}, []string{"Race/everything"}},
	}
}

func undoMutants() []storeMutant {
	return []storeMutant{
		{"the mode is users elsewhere", func(b *broken) {
			b.mem.UsersElsewhere = true
		}, []string{"Redeem/undone by an error", "Redeem/undone by a panic", "Redeem/the next one succeeds"}},
		{"mails are lost though apply fails", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				defer b.locked(func() {
					maps.DeleteFunc(b.mem.mails, func(_ reset.ID, m *reset.Mail) bool { return m.Kind == reset.MailReset && m.UserID == a.UserID })
				})
				return b.mem.Redeem(ctx, now, a, notification, apply)
			}
		}, []string{"Redeem/undone by an error", "Redeem/undone by a panic"}},
		{"a notification though apply fails", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				defer b.locked(func() { b.mem.add(notification) })
				return b.mem.Redeem(ctx, now, a, notification, apply)
			}
		}, []string{"Redeem/undone by an error", "Redeem/apply once", "Redeem/panic"}},
	}
}

func claimMutants() []storeMutant {
	// unclaimed is a Redeem without a claim.
	unclaimed := func(b *broken) {
		b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
			if _, err := b.mem.Find(ctx, now, a.Hash); err != nil {
				return err
			}
			if err := apply(ctx); err != nil {
				return err
			}
			b.locked(func() { b.mem.finish(now, a, notification) })
			return nil
		}
	}
	// settled replaces the error that apply returned.
	settled := func(judge func(b *broken, ctx context.Context, a reset.Activation, err error) error) func(b *broken) {
		return func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				return b.mem.Redeem(ctx, now, a, notification, func(inner context.Context) error {
					return judge(b, ctx, a, apply(inner))
				})
			}
		}
	}
	gone := errors.New("claim is gone")
	return []storeMutant{
		{"no claim", unclaimed, []string{"Claim/not live", "Claim/one at a time", "Claim/lost by an error", "Claim/lost by a panic"}},
		{"claimed ones count", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (_ reset.Activation, err error) {
				b.locked(func() {
					n := 0
					for _, other := range b.mem.activations {
						n += count(other.UserID == a.UserID && other.claim != nil)
					}
					if n >= limits.MaxRequests {
						err = &reset.LimitError{RetryAfter: lifetime}
					}
				})
				if err != nil {
					return reset.Activation{}, err
				}
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}, []string{"Claim/lost by an error"}},
		{"claimed ones do not count", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				b.locked(func() {
					for _, other := range b.mem.activations {
						limits.MaxRequests += count(other.UserID == a.UserID && other.claim != nil)
					}
				})
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}, []string{"Claim/counts"}},
		{"claimed ones are joined", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				b.locked(func() {
					for _, other := range b.mem.activations {
						limits.MaxRequests += count(other.UserID == a.UserID && other.claim != nil && other.Request == a.Request)
					}
				})
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}, []string{"Claim/joins nothing"}},
		{"apply is cancelled", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				return b.mem.Redeem(ctx, now, a, notification, func(context.Context) error { return apply(ctx) })
			}
		}, []string{"Claim/applies when cancelled"}},
		{"a failure ends later activations", settled(func(b *broken, _ context.Context, a reset.Activation, err error) error {
			if err != nil {
				b.locked(func() { b.mem.revoke(time.Now(), a.UserID, reset.ID{}) })
			}
			return err
		}), []string{"Claim/the live only"}},
		{"a success ends the claimed ones only", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				var spared []*activation
				err := b.mem.Redeem(ctx, now, a, notification, func(ctx context.Context) error {
					err := apply(ctx)
					spared = b.liveOf(now, a.UserID)
					return err
				})
				b.locked(func() {
					for _, a := range spared {
						b.mem.activations[a.Hash] = a
					}
				})
				return err
			}
		}, []string{"Claim/success"}},
		{"a cancelled success fails", settled(func(_ *broken, ctx context.Context, _ reset.Activation, err error) error {
			return errors.Join(err, ctx.Err())
		}), []string{"Claim/success when cancelled"}},
		{"a success needs the claimed rows", settled(func(b *broken, _ context.Context, a reset.Activation, err error) error {
			b.locked(func() {
				if b.mem.activations[a.Hash] == nil {
					err = gone
				}
			})
			return err
		}), []string{"Claim/success when purged", "Claim/success when revoked"}},
		{"nothing is given back", settled(func(_ *broken, _ context.Context, _ reset.Activation, err error) error {
			if err != nil {
				return gone
			}
			return nil
		}), []string{"Claim/gives back", "Claim/ends when settled", "Claim/gives back when cancelled"}},
		{"a refused password gives nothing back", settled(func(_ *broken, _ context.Context, _ reset.Activation, err error) error {
			var refused *reset.PasswordError
			if errors.As(err, &refused) {
				return gone
			}
			return err
		}), []string{"Claim/gives back"}},
		{"a cancelled claim is not given back", settled(func(_ *broken, ctx context.Context, _ reset.Activation, err error) error {
			if ctx.Err() != nil && err != nil {
				return gone
			}
			return err
		}), []string{"Claim/gives back when cancelled"}},
		{"revoked activations are given back", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				claimed := b.liveOf(now, a.UserID)
				err := b.mem.Redeem(ctx, now, a, notification, apply)
				if errors.Is(err, reset.ErrNotChanged) {
					b.locked(func() {
						for _, a := range claimed {
							b.mem.activations[a.Hash] = &activation{Activation: a.Activation}
						}
					})
				}
				return err
			}
		}, []string{"Claim/revoked are not given back"}},
		{"lost activations are given back", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				err := b.mem.Redeem(ctx, now, a, notification, apply)
				if errors.Is(err, reset.ErrNotChanged) {
					b.locked(func() {
						for _, other := range b.mem.activations {
							if other.UserID == a.UserID {
								other.claim = nil
							}
						}
					})
				}
				return err
			}
		}, []string{"Claim/revoked are not given back"}},
		{"every failure gives back", settled(func(_ *broken, _ context.Context, _ reset.Activation, err error) error {
			if err != nil {
				return errors.Join(err, reset.ErrNotChanged)
			}
			return nil
		}), []string{"Claim/lost by an error", "Cancel/failing apply"}},
		{"a panic gives back", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				var p any
				err := b.mem.Redeem(ctx, now, a, notification, func(ctx context.Context) (err error) {
					if p = catch(func() { err = apply(ctx) }); p != nil {
						return reset.ErrNotChanged
					}
					return err
				})
				if p != nil {
					panic(p)
				}
				return err
			}
		}, []string{"Claim/lost by a panic"}},
		{"claimed activations are live again after a crash", func(b *broken) {
			b.FindFunc = func(ctx context.Context, now time.Time, h reset.Hash) (reset.Activation, error) {
				b.locked(func() {
					if a := b.mem.activations[h]; a != nil && a.claim != nil && !now.Before(a.claim.until) {
						a.claim = nil
					}
				})
				return b.mem.Find(ctx, now, h)
			}
		}, []string{"Claim/lost by a crash", "Claim/not live"}},
		{"several claims at a time", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				b.locked(func() { delete(b.mem.claims, a.UserID) })
				return b.mem.Redeem(ctx, now, a, notification, apply)
			}
		}, []string{"Claim/one at a time", "Claim/ends after 60 s"}},
		{"a claim outlives its settlement", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				err := b.mem.Redeem(ctx, now, a, notification, apply)
				if !errors.Is(err, reset.ErrInvalidActivation) {
					b.locked(func() { b.mem.claims[a.UserID] = &claim{until: now.Add(claimTimeout)} })
				}
				return err
			}
		}, []string{"Claim/ends when settled"}},
		{"a claim lasts for two minutes", func(b *broken) {
			b.RedeemFunc = lastingClaims(b, 2*time.Minute)
		}, []string{"Claim/ends after 60 s", "Claim/lost by a crash"}},
		{"a claim lasts for half a minute", func(b *broken) {
			b.RedeemFunc = lastingClaims(b, 30*time.Second)
		}, []string{"Claim/ends after 60 s"}},
		{"a late end ends the later claim", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				err := b.mem.Redeem(ctx, now, a, notification, apply)
				if !errors.Is(err, reset.ErrInvalidActivation) {
					b.locked(func() { delete(b.mem.claims, a.UserID) })
				}
				return err
			}
		}, []string{"Claim/not by another's end"}},
		{"Purge ends claims", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				b.locked(func() { clear(b.mem.claims) })
				return b.mem.Purge(ctx, now, n)
			}
		}, []string{"Claim/not by Purge"}},
		{"Purge removes claimed activations", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				b.locked(func() {
					maps.DeleteFunc(b.mem.activations, func(_ reset.Hash, a *activation) bool { return a.claim != nil })
				})
				return b.mem.Purge(ctx, now, n)
			}
		}, []string{"Claim/not by Purge"}},
	}
}

// lastingClaims returns a Redeem whose claims last for d.
func lastingClaims(b *broken, d time.Duration) func(context.Context, time.Time, reset.Activation, reset.Mail, func(context.Context) error) error {
	return func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
		return b.mem.Redeem(ctx, now, a, notification, func(ctx context.Context) error {
			b.locked(func() { b.mem.claims[a.UserID].until = now.Add(d) })
			return apply(ctx)
		})
	}
}
