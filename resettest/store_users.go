package resettest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopassreset/reset"
)

// sameDatabaseSentences are the promises of the mode "one transaction". No check
// calls the store from apply or waits there for another call: the transaction
// may hold the only connection.
func sameDatabaseSentences() []storeSentence {
	const undoes = "Whatever fails before the commit undoes everything."
	return []storeSentence{
		{"Redeem/undone by an error", undoes, (*storeCheck).failureUndoes},
		{"Redeem/undone by a panic", undoes, (*storeCheck).panicUndoes},
		{"Redeem/the next one succeeds", "Of concurrent calls for one user at most one at a time runs apply and exactly one succeeds.", (*storeCheck).nextSucceeds},
	}
}

// A fixture is the records of a user: two requests, three activations, a mail.
type fixture struct {
	*storeCheck
	user         string
	activations  []reset.Activation
	mail         reset.Mail
	notification reset.Mail
}

func (c *storeCheck) fixture(user string) *fixture {
	c.Helper()
	a, m := c.issuedWithMail(user)
	sibling := c.sibling(a)
	c.issue(start, sibling, 9, nil)
	return &fixture{c, user, []reset.Activation{a, sibling, c.issued(user)}, m, c.notification(user)}
}

// wantUntouched checks that nothing has changed, and removes the fixture.
func (s *fixture) wantUntouched(now time.Time) {
	s.Helper()
	s.wantLive(now, s.activations...)
	for _, back := range s.activations {
		s.wantLive(start, back)
	}
	s.wantLimit(s.tryIssue(now, s.storeCheck.activation(s.user), 2, nil), at(lifetime).Sub(now))
	s.wantMails(now, s.mail)
	s.redeem(now.Add(time.Minute), s.activations[1], s.notification)
	s.wantRedeemed(now.Add(time.Minute))
}

// wantRedeemed checks that only the notification is left, and removes the
// fixture.
func (s *fixture) wantRedeemed(now time.Time) {
	s.Helper()
	s.wantDead(start, s.activations...)
	s.wantDead(now, s.activations...)
	s.wantMails(now, s.notification)
	s.remove(now.Add(time.Minute))
}

// wantLost checks that no activation is live again and no notification was
// queued, and removes the fixture.
func (s *fixture) wantLost(now time.Time) {
	s.Helper()
	for _, when := range []time.Time{start, now, now.Add(61 * time.Second)} {
		s.wantDead(when, s.activations...)
	}
	for _, a := range s.activations {
		s.wantRefused(now, a)
		s.wantRefused(now.Add(61*time.Second), a)
	}
	for _, m := range s.leaseAll(now, now.Add(time.Second)) {
		if m.Kind == reset.MailNotification {
			s.Errorf("a notification was queued: %+v", m)
		}
	}
	s.remove(now.Add(time.Minute))
}

// remove removes all records.
func (s *fixture) remove(now time.Time) {
	s.Helper()
	s.revoke(s.user)
	for _, m := range s.leaseAll(now, now.Add(time.Second)) {
		s.settle(reset.Settlement{Mail: m.ID, Lease: m.Lease})
	}
}

func (c *storeCheck) failureUndoes() {
	for i, failure := range failures() {
		s := c.fixture(fmt.Sprint("user ", i))
		calls, err := c.tryRedeem(at(time.Second), s.activations[0], c.notification(s.user), failure)
		if calls != 1 || err == nil {
			c.Errorf("Redeem: %v after %d calls of an apply that fails", err, calls)
		}
		s.wantUntouched(at(time.Second))
	}
}

func (c *storeCheck) panicUndoes() {
	s := c.fixture("a")
	got := catch(func() {
		_ = c.store.Redeem(c.Context(), at(time.Second), s.activations[0], c.notification("a"), func(context.Context) error {
			panic("apply")
		})
	})
	if got != "apply" {
		c.Errorf("Redeem panicked with %v, want apply's panic", got)
	}
	s.wantUntouched(at(time.Second))
}

func (c *storeCheck) nextSucceeds() {
	const n, failures = 12, 3
	s := c.fixture("a")
	failure := errors.New("apply failed")
	var calls, succeeded, failed, refused atomic.Int32
	parallel(n, func(i int) {
		err := c.store.Redeem(c.Context(), at(time.Second), s.activations[i%3], s.notification, func(context.Context) error {
			if calls.Add(1) <= failures {
				return failure
			}
			return nil
		})
		switch {
		case err == nil:
			succeeded.Add(1)
		case errors.Is(err, failure):
			failed.Add(1)
		case errors.Is(err, reset.ErrInvalidActivation):
			refused.Add(1)
		default:
			c.Errorf("Redeem: %v", err)
		}
	})
	if calls.Load() != failures+1 || succeeded.Load() != 1 || failed.Load() != failures {
		c.Errorf("of %d calls of Redeem, %d called apply, %d succeeded, %d failed and %d were refused; want %d, 1, %d and %d",
			n, calls.Load(), succeeded.Load(), failed.Load(), refused.Load(), failures+1, failures, n-failures-1)
	}
	s.wantRedeemed(at(time.Second))
}

// elsewhereSentences are the promises of the mode "users elsewhere". No lock is
// held while apply runs: these checks call the store from apply.
func elsewhereSentences() []storeSentence {
	const (
		claims   = "Redeem first claims the user's live activations, in a transaction of its own."
		claimed  = "Claimed activations are not live, but count for the cap while the claim is held."
		success  = "If apply returns nil, the claim becomes a success."
		recorded = "The outcome is recorded even if ctx has ended."
		back     = "If apply returns an error that wraps ErrNotChanged or a *PasswordError, the claimed activations are live again, unless they were revoked meanwhile."
		lost     = "After any other error, a panic or a crash they are never live again."
		ends     = "It ends when its outcome is recorded, or after 60 s; neither Purge nor the late end of an earlier claim ends it."
		busy     = "While another call holds the claim, Redeem returns ErrInvalidActivation."
	)
	return []storeSentence{
		{"Claim/not live", claimed, (*storeCheck).claimedAreNotLive},
		{"Claim/counts", claimed, (*storeCheck).claimedCount},
		{"Claim/joins nothing", "If a.Request already has a live activation, a joins it, whatever limits.MaxRequests is.", (*storeCheck).claimedAreNotJoined},
		{"Claim/the live only", claims, (*storeCheck).claimsTheLiveOnly},
		{"Claim/success", success, (*storeCheck).claimSucceeds},
		{"Claim/success when cancelled", recorded, (*storeCheck).claimSucceedsCancelled},
		{"Claim/applies when cancelled", "Then apply runs, on a context that does not end with ctx.", (*storeCheck).claimAppliesCancelled},
		{"Claim/success when purged", success, (*storeCheck).claimSucceedsPurged},
		{"Claim/success when revoked", success, (*storeCheck).claimSucceedsRevoked},
		{"Claim/gives back", back, (*storeCheck).claimGivesBack},
		{"Claim/gives back when cancelled", recorded, (*storeCheck).claimGivesBackCancelled},
		{"Claim/revoked are not given back", back, (*storeCheck).claimGivesNothingRevokedBack},
		{"Claim/lost by an error", lost, (*storeCheck).errorLoses},
		{"Claim/lost by a panic", lost, (*storeCheck).panicLoses},
		{"Claim/lost by a crash", lost, (*storeCheck).crashLoses},
		{"Claim/one at a time", busy, (*storeCheck).claimIsAlone},
		{"Claim/ends when settled", ends, (*storeCheck).claimEndsSettled},
		{"Claim/ends after 60 s", ends, (*storeCheck).claimEndsInTime},
		{"Claim/not by another's end", ends, (*storeCheck).claimSurvivesLateOne},
		{"Claim/not by Purge", ends, (*storeCheck).claimSurvivesPurge},
	}
}

// inApply redeems a with f as apply.
func (c *storeCheck) inApply(now time.Time, a reset.Activation, notification reset.Mail, f func() error) error {
	c.Helper()
	calls := 0
	err := c.store.Redeem(c.Context(), now, a, notification, func(context.Context) error {
		calls++
		return f()
	})
	if calls != 1 {
		c.Fatalf("Redeem called apply %d times, want once; its error: %v", calls, err)
	}
	return err
}

func (c *storeCheck) claimedAreNotLive() {
	s := c.fixture("a")
	other := c.issued("b")
	err := c.inApply(at(time.Second), s.activations[0], s.notification, func() error {
		c.wantDead(at(time.Second), s.activations...)
		c.wantDead(start, s.activations...)
		c.wantDead(at(61*time.Second), s.activations...)
		c.wantLive(at(time.Second), other)
		return nil
	})
	if err != nil {
		c.Errorf("Redeem: %v", err)
	}
	c.wantLive(start, other)
}

func (c *storeCheck) claimedCount() {
	first, second := c.issued("a"), c.issued("a")
	err := c.inApply(at(time.Second), first, c.notification("a"), func() error {
		err := c.tryIssue(at(2*time.Second), c.activation("a"), 2, nil)
		c.wantLimit(err, lifetime-2*time.Second)
		return reset.ErrNotChanged
	})
	if !errors.Is(err, reset.ErrNotChanged) {
		c.Errorf("Redeem: got error %v, want ErrNotChanged", err)
	}
	c.wantLive(at(3*time.Second), first, second)
}

func (c *storeCheck) claimedAreNotJoined() {
	s := c.fixture("a")
	err := c.inApply(at(time.Second), s.activations[0], s.notification, func() error {
		sibling := c.activation("a")
		sibling.Request = s.activations[0].Request
		err := c.tryIssue(at(2*time.Second), sibling, 1, nil)
		if !errors.Is(err, reset.ErrTooManyRequests) {
			c.Errorf("Issue of another activation for a claimed request, at the cap: got error %v, want a *LimitError", err)
		}
		c.wantDead(at(2*time.Second), sibling)
		return reset.ErrNotChanged
	})
	if !errors.Is(err, reset.ErrNotChanged) {
		c.Errorf("Redeem: got error %v, want ErrNotChanged", err)
	}
}

func (c *storeCheck) claimsTheLiveOnly() {
	s := c.fixture("a")
	later := c.activation("a")
	err := c.inApply(start, s.activations[0], s.notification, func() error {
		c.issue(at(time.Second), later, 100, nil)
		c.wantLive(at(time.Second), later)
		return errors.New("apply failed")
	})
	if err == nil {
		c.Errorf("Redeem succeeded though apply failed")
	}
	c.wantLive(at(time.Second), later)
	c.wantDead(at(time.Second), s.activations...)
}

func (c *storeCheck) claimSucceeds() {
	s := c.fixture("a")
	later, laterMail := c.activation("a"), reset.Mail{}
	err := c.inApply(start, s.activations[0], s.notification, func() error {
		laterMail = *c.mailFor(later)
		c.issue(start, later, 9, &laterMail)
		return nil
	})
	if err != nil {
		c.Errorf("Redeem: %v", err)
	}
	c.wantDead(start, later) // every activation of the user
	s.wantRedeemed(at(time.Second))
}

// A client that disconnects must not lose a change that was made.
func (c *storeCheck) claimSucceedsCancelled() {
	s := c.fixture("a")
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	err := c.store.Redeem(ctx, start, s.activations[0], s.notification, func(context.Context) error {
		cancel()
		return nil
	})
	if err != nil {
		c.Errorf("Redeem: %v", err)
	}
	s.wantRedeemed(at(time.Second))
}

func (c *storeCheck) claimAppliesCancelled() {
	s := c.fixture("a")
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	err := c.store.Redeem(ctx, start, s.activations[0], s.notification, func(ctx context.Context) error {
		cancel()
		return ctx.Err()
	})
	if err != nil {
		c.Errorf("Redeem: %v", err)
	}
	s.wantRedeemed(at(time.Second))
}

func (c *storeCheck) claimSucceedsPurged() {
	s := c.fixture("a")
	err := c.inApply(at(lifetime-time.Second), s.activations[0], s.notification, func() error {
		c.purgeAll(at(lifetime + time.Second))
		return nil
	})
	if err != nil {
		c.Errorf("Redeem: %v", err)
	}
	s.wantRedeemed(at(lifetime + time.Second))
}

func (c *storeCheck) claimSucceedsRevoked() {
	s := c.fixture("a")
	err := c.inApply(start, s.activations[0], s.notification, func() error {
		c.revoke("a")
		return nil
	})
	if err != nil {
		c.Errorf("Redeem: %v", err)
	}
	s.wantRedeemed(at(time.Second))
}

// notChanged returns errors that give a claim back.
func notChanged() []error {
	return []error{
		reset.ErrNotChanged,
		fmt.Errorf("wrapped: %w", reset.ErrNotChanged),
		errors.Join(reset.ErrNoUser, reset.ErrNotChanged),
		&reset.PasswordError{Reason: "breached"},
		fmt.Errorf("wrapped: %w", error(&reset.PasswordError{Reason: "breached"})),
	}
}

func (c *storeCheck) claimGivesBack() {
	for i, result := range notChanged() {
		s := c.fixture(fmt.Sprint("user ", i))
		calls, err := c.tryRedeem(at(time.Second), s.activations[0], c.notification(s.user), result)
		if calls != 1 {
			c.Errorf("apply was called %d times, want 1", calls)
		}
		c.wantIs("Redeem", err, result)
		s.wantUntouched(at(time.Second))
	}
}

func (c *storeCheck) claimGivesBackCancelled() {
	s := c.fixture("a")
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	err := c.store.Redeem(ctx, at(time.Second), s.activations[0], c.notification("a"), func(context.Context) error {
		cancel()
		return reset.ErrNotChanged
	})
	c.wantIs("Redeem", err, reset.ErrNotChanged)
	s.wantUntouched(at(time.Second))
}

func (c *storeCheck) claimGivesNothingRevokedBack() {
	s := c.fixture("a")
	err := c.inApply(start, s.activations[0], c.notification("a"), func() error {
		c.revoke("a")
		return reset.ErrNotChanged
	})
	c.wantIs("Redeem", err, reset.ErrNotChanged)
	s.wantLost(at(time.Second))

	// A later claim that is given back does not revive activations that an
	// earlier one lost.
	s = c.fixture("b")
	if _, err := c.tryRedeem(start, s.activations[0], c.notification("b"), errors.New("apply failed")); err == nil {
		c.Errorf("Redeem succeeded though apply failed")
	}
	later := c.issued("b")
	calls, err := c.tryRedeem(at(61*time.Second), later, c.notification("b"), reset.ErrNotChanged)
	if calls != 1 {
		c.Errorf("apply was called %d times, want 1", calls)
	}
	c.wantIs("Redeem", err, reset.ErrNotChanged)
	c.wantLive(at(61*time.Second), later)
	c.wantDead(at(61*time.Second), s.activations...)
}

func (c *storeCheck) errorLoses() {
	for i, failure := range failures() {
		var refused *reset.PasswordError
		if errors.Is(failure, reset.ErrNotChanged) || errors.As(failure, &refused) {
			continue
		}
		s := c.fixture(fmt.Sprint("user ", i))
		calls, err := c.tryRedeem(start, s.activations[0], c.notification(s.user), failure)
		if calls != 1 {
			c.Errorf("apply was called %d times, want 1", calls)
		}
		c.wantIs("Redeem", err, failure)
		c.issue(start, c.activation(s.user), 1, nil) // lost ones do not count for the cap
		s.wantLost(at(time.Second))
	}
}

func (c *storeCheck) panicLoses() {
	s := c.fixture("a")
	got := catch(func() {
		_ = c.inApply(start, s.activations[0], c.notification("a"), func() error { panic("apply") })
	})
	if got != "apply" {
		c.Errorf("Redeem panicked with %v, want apply's panic", got)
	}
	s.wantLost(at(time.Second))
}

// hang redeems with an apply that does not return, which looks like a crash to
// the store. The returned function makes apply return after all.
func (c *storeCheck) hang(now time.Time, a reset.Activation, notification reset.Mail) (end func(error)) {
	c.Helper()
	entered, result, over := make(chan struct{}), make(chan error), make(chan struct{})
	go func() {
		defer close(over)
		err := c.store.Redeem(c.Context(), now, a, notification, func(context.Context) error {
			close(entered)
			return <-result
		})
		select {
		case <-entered:
		default:
			c.Errorf("Redeem did not call apply: %v", err)
			close(entered)
		}
	}()
	<-entered
	var once sync.Once
	end = func(err error) {
		once.Do(func() {
			select {
			case result <- err:
			case <-over:
			}
			<-over
		})
	}
	c.Cleanup(func() { end(errors.New("crashed")) })
	return end
}

func (c *storeCheck) crashLoses() {
	s := c.fixture("a")
	c.hang(start, s.activations[0], c.notification("a"))
	later := c.issued("a")
	c.wantRefused(at(time.Second), later)
	c.wantDead(at(61*time.Second), s.activations...)
	for _, a := range s.activations {
		c.wantRefused(at(61*time.Second), a)
	}
	c.wantLive(at(61*time.Second), later)
	c.redeem(at(61*time.Second), later, s.notification)
	s.wantRedeemed(at(2 * time.Minute))
}

func (c *storeCheck) claimIsAlone() {
	s := c.fixture("a")
	later, other := c.activation("a"), c.issued("b")
	err := c.inApply(start, s.activations[0], s.notification, func() error {
		c.issue(start, later, 9, nil)
		for _, a := range append(s.activations, later) {
			c.wantRefused(at(time.Second), a)
		}
		c.redeem(at(time.Second), other, c.notification("b")) // another user's claim
		return nil
	})
	if err != nil {
		c.Errorf("Redeem: %v", err)
	}
}

func (c *storeCheck) claimEndsSettled() {
	s := c.fixture("a")
	_, err := c.tryRedeem(start, s.activations[0], c.notification("a"), reset.ErrNotChanged)
	c.wantIs("Redeem", err, reset.ErrNotChanged)
	c.redeem(start, s.activations[0], s.notification)
	later := c.issued("a")
	c.redeem(start, later, c.notification("a"))
	c.wantDead(start, later)
}

func (c *storeCheck) claimEndsInTime() {
	first, second := c.issued("a"), c.activation("a")
	c.hang(at(time.Second), first, c.notification("a"))
	c.issue(at(time.Second), second, 9, nil)
	c.wantRefused(at(time.Second), second)
	c.wantRefused(at(61*time.Second-ms), second)
	c.redeem(at(61*time.Second+ms), second, c.notification("a"))
}

func (c *storeCheck) claimSurvivesLateOne() {
	for i, result := range []error{nil, errors.New("apply failed"), reset.ErrNotChanged} {
		user := fmt.Sprint("user ", i)
		first := c.issued(user)
		end := c.hang(start, first, c.notification(user))
		second, third := c.issued(user), c.activation(user)
		err := c.inApply(at(61*time.Second), second, c.notification(user), func() error {
			end(result)
			c.issue(at(62*time.Second), third, 9, nil)
			c.wantRefused(at(62*time.Second), third)
			return nil
		})
		if err != nil {
			c.Errorf("Redeem: %v", err)
		}
		c.wantDead(at(62*time.Second), first, second, third)
	}
}

func (c *storeCheck) claimSurvivesPurge() {
	s := c.fixture("a")
	later := c.activation("a")
	err := c.inApply(start, s.activations[0], s.notification, func() error {
		c.purgeAll(at(59 * time.Second))
		c.issue(start, later, 9, nil)
		c.wantRefused(at(59*time.Second), later)
		return reset.ErrNotChanged
	})
	c.wantIs("Redeem", err, reset.ErrNotChanged)
	c.wantLive(at(time.Minute), s.activations...) // they are live again
}
