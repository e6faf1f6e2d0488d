package resettest

import (
	"context"
	"errors"
	"time"

	"github.com/gopassreset/reset"
)

func budgetMutants() []storeMutant {
	// before calls f with the records before each Issue.
	before := func(f func(b *broken, now time.Time, a *reset.Activation, limits *reset.Limits, m *reset.Mail) error) func(*broken) {
		return func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				var err error
				b.locked(func() { err = f(b, now, &a, &limits, m) })
				if err != nil {
					return reset.Activation{}, err
				}
				return b.mem.Issue(ctx, now, a, limits, m)
			}
		}
	}
	limited := func(f func(limits *reset.Limits)) func(*broken) {
		return before(func(_ *broken, _ time.Time, _ *reset.Activation, limits *reset.Limits, _ *reset.Mail) error {
			f(limits)
			return nil
		})
	}
	forget := func(which func(now time.Time, a *reset.Activation, other bound) bool) func(*broken) {
		return before(func(b *broken, now time.Time, a *reset.Activation, _ *reset.Limits, _ *reset.Mail) error {
			for id, other := range b.mem.bound {
				if which(now, a, other) {
					delete(b.mem.bound, id)
				}
			}
			return nil
		})
	}
	after := func(f func(b *broken, now time.Time, a reset.Activation, m *reset.Mail, issued *reset.Activation, err error)) func(*broken) {
		return func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				issued, err := b.mem.Issue(ctx, now, a, limits, m)
				b.locked(func() { f(b, now, a, m, &issued, err) })
				return issued, err
			}
		}
	}
	isLeased := func(m *reset.Mail) bool { return m != nil && m.Lease != reset.ID{} }
	liveRequest := func(b *broken, now time.Time, userID string, better func(a, than *activation) bool) (found *activation) {
		for _, a := range b.mem.activations {
			if a.UserID == userID && a.live(now) && (found == nil || better(a, found)) {
				found = a
			}
		}
		return found
	}
	earlier := func(a, than *activation) bool { return a.Expires.Before(than.Expires) }
	wait := func(d time.Duration) error { return &reset.LimitError{RetryAfter: d} }
	noBudgetOf := func(userID string, b *broken) {
		for id, other := range b.mem.bound {
			if other.userID == userID {
				delete(b.mem.bound, id)
			}
		}
	}
	return []storeMutant{
		{"nothing is joined over the cap", limited(func(l *reset.Limits) { l.Join = false }), []string{"Join/the last", "Join/mail of another request"}},
		{"the first request is joined", before(func(b *broken, now time.Time, a *reset.Activation, limits *reset.Limits, _ *reset.Mail) error {
			if limits.Join && b.mem.wait(now, a.UserID, limits.MaxRequests) > 0 {
				first := liveRequest(b, now, a.UserID, earlier)
				a.Request, a.Expires = first.Request, first.Expires
			}
			return nil
		}), []string{"Join/the last"}},
		{"joined under the cap", before(func(b *broken, now time.Time, a *reset.Activation, limits *reset.Limits, _ *reset.Mail) error {
			if last := b.mem.lastLive(now, a.UserID); limits.Join && last != nil {
				a.Request, a.Expires = last.Request, last.Expires
			}
			return nil
		}), []string{"Join/only over the cap"}},
		{"joined without being told to", limited(func(l *reset.Limits) { l.Join = true }), []string{"Join/only over the cap", "Issue/over the cap"}},
		{"a joined activation keeps its time", after(func(b *broken, _ time.Time, a reset.Activation, _ *reset.Mail, _ *reset.Activation, err error) {
			if err == nil {
				b.mem.activations[a.Hash].Expires = millis(a.Expires)
			}
		}), []string{"Join/the last"}},
		{"what is given is returned", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				_, err := b.mem.Issue(ctx, now, a, limits, m)
				return a, err
			}
		}, []string{"Issue/returns", "Join/the last"}},
		{"one more an hour", limited(func(l *reset.Limits) { l.MaxPerHour++ }), []string{"Budget/an hour", "Race/budget"}},
		{"one less an hour", limited(func(l *reset.Limits) { l.MaxPerHour-- }), []string{"Budget/an hour"}},
		{"any number a day", limited(func(l *reset.Limits) { l.MaxPerDay = 0 }), []string{"Budget/a day"}},
		{"hours of the clock", forget(func(now time.Time, _ *reset.Activation, other bound) bool {
			return other.at.Truncate(time.Hour) != now.Truncate(time.Hour)
		}), []string{"Budget/an hour"}},
		{"users share a budget", before(func(b *broken, _ time.Time, a *reset.Activation, _ *reset.Limits, _ *reset.Mail) error {
			for id, other := range b.mem.bound {
				b.mem.bound[id] = bound{a.UserID, other.at}
			}
			return nil
		}), []string{"Budget/one user's"}},
		{"trusted requests count", after(func(b *broken, now time.Time, a reset.Activation, m *reset.Mail, _ *reset.Activation, err error) {
			if err == nil && m != nil && !isLeased(m) {
				b.mem.bound[m.ID] = bound{a.UserID, now}
			}
		}), []string{"Budget/one user's"}},
		{"Revoke refills the budget", func(b *broken) {
			b.RevokeFunc = func(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
				b.locked(func() { noBudgetOf(userID, b) })
				return b.mem.Revoke(ctx, now, userID, quiet)
			}
		}, []string{"Budget/sent, revoked, redeemed"}},
		{"Redeem refills the budget", func(b *broken) {
			b.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				b.locked(func() { noBudgetOf(a.UserID, b) })
				return b.mem.Redeem(ctx, now, a, notification, apply)
			}
		}, []string{"Budget/sent, revoked, redeemed"}},
		{"what was sent does not count", func(b *broken) {
			b.SettleFunc = func(ctx context.Context, done []reset.Settlement) error {
				b.locked(func() {
					for _, d := range done {
						delete(b.mem.bound, d.Mail)
					}
				})
				return b.mem.Settle(ctx, done)
			}
		}, []string{"Budget/an hour", "Budget/a day"}},
		{"budgets are purged too early", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				b.locked(func() { clear(b.mem.bound) })
				return b.mem.Purge(ctx, now, n)
			}
		}, []string{"Budget/purged"}},
		{"budgets are not purged", func(b *broken) {
			b.PurgeFunc = func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
				kept := b.mem.bound
				b.locked(func() { b.mem.bound = nil })
				removed, unsent, err = b.mem.Purge(ctx, now, n)
				b.locked(func() { b.mem.bound = kept })
				return removed, unsent, err
			}
		}, []string{"Budget/purged"}},
		{"RetryAfter knows the hour only", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				issued, err := b.mem.Issue(ctx, now, a, limits, m)
				var limit *reset.LimitError
				if errors.As(err, &limit) {
					b.locked(func() { limit.RetryAfter = b.mem.budget(now, a.UserID, reset.Limits{MaxPerHour: limits.MaxPerHour}) })
				}
				return issued, err
			}
		}, []string{"Budget/RetryAfter"}},
		{"over the budget a mail is bound", after(func(b *broken, _ time.Time, a reset.Activation, m *reset.Mail, _ *reset.Activation, err error) {
			if errors.Is(err, reset.ErrTooManyRequests) && isLeased(m) {
				b.mem.mails[m.ID].UserID = a.UserID
			}
		}), []string{"Budget/changes nothing"}},
		{"refused mail counts", after(func(b *broken, now time.Time, a reset.Activation, m *reset.Mail, _ *reset.Activation, err error) {
			if errors.Is(err, reset.ErrTooManyRequests) && isLeased(m) {
				b.mem.bound[m.ID] = bound{a.UserID, now}
			}
		}), []string{"Budget/changes nothing"}},
		{"each attempt counts", after(func(b *broken, now time.Time, a reset.Activation, m *reset.Mail, _ *reset.Activation, err error) {
			if err == nil && isLeased(m) {
				delete(b.mem.bound, m.ID)
				b.mem.bound[newID(now)] = bound{a.UserID, now}
			}
		}), []string{"Budget/mail that is bound"}},
		{"later attempts have a budget", before(func(b *broken, now time.Time, a *reset.Activation, limits *reset.Limits, m *reset.Mail) error {
			if left := b.mem.budget(now, a.UserID, *limits); isLeased(m) && left > 0 {
				return wait(left)
			}
			return nil
		}), []string{"Budget/mail that is bound", "Quiet/bound mail"}},
		{"a clock that is set back refills the budget", forget(func(now time.Time, _ *reset.Activation, other bound) bool { return other.at.After(now) }), []string{"Budget/clock"}},
		{"nobody is left in peace", func(b *broken) {
			b.RevokeFunc = func(ctx context.Context, now time.Time, userID string, _ time.Time) error {
				return b.mem.Revoke(ctx, now, userID, time.Time{})
			}
		}, []string{"Quiet/until"}},
		{"the last time counts", func(b *broken) {
			b.RevokeFunc = func(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
				b.locked(func() { delete(b.mem.quiet, userID) })
				return b.mem.Revoke(ctx, now, userID, quiet)
			}
		}, []string{"Quiet/the latest"}},
		{"trusted mail waits as well", before(func(b *broken, now time.Time, a *reset.Activation, _ *reset.Limits, m *reset.Mail) error {
			if left := b.mem.quiet[a.UserID].Sub(now); isLeased(m) && left > 0 {
				return wait(left)
			}
			return nil
		}), []string{"Quiet/bound mail"}},
		{"a budget is read before it is locked", func(b *broken) {
			b.IssueFunc = func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
				var left time.Duration
				b.locked(func() { left = b.mem.budget(now, a.UserID, limits) })
				if isLeased(m) && left > 0 {
					return reset.Activation{}, wait(left)
				}
				yield()
				return b.mem.Issue(ctx, now, a, reset.Limits{MaxRequests: limits.MaxRequests}, m)
			}
		}, []string{"Race/budget"}},
	}
}
