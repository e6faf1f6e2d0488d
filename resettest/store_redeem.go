package resettest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gopassreset/reset"
)

func redeemSentences() []storeSentence {
	const (
		invalid = "If a is not live, apply is not called and Redeem returns ErrInvalidActivation."
		success = "On success every activation of the user and every reset mail bound to the user is removed and notification is queued, in the transaction that removes a."
		once    = "Redeem calls apply at most once, never again after a failure, with a context that has the values of ctx."
		revokes = "Revoke removes every activation of the user and every reset mail bound to the user."
	)
	return []storeSentence{
		{"Redeem/not live", invalid, (*storeCheck).redeemNotLive},
		{"Redeem/expiry", invalid, (*storeCheck).redeemExpiry},
		{"Redeem/activations", success, (*storeCheck).redeemEndsActivations},
		{"Redeem/mails", success, (*storeCheck).redeemEndsMails},
		{"Redeem/leased mails", success, (*storeCheck).redeemEndsLeasedMails},
		{"Redeem/notification", success, (*storeCheck).redeemQueuesNotification},
		{"Redeem/other notifications", "Earlier notifications stay queued.", (*storeCheck).redeemKeepsNotifications},
		{"Redeem/public requests", "A public request is bound to no user yet and stays: it counts as made afterwards.", (*storeCheck).redeemKeepsPublicRequests},
		{"Redeem/frees the cap", success, (*storeCheck).redeemFreesCap},
		{"Redeem/apply once", once, (*storeCheck).redeemAppliesOnce},
		{"Redeem/panic", "It wraps the error of apply and lets a panic of apply pass.", (*storeCheck).redeemPanics},
		{"Redeem/context", once, (*storeCheck).redeemPassesContext},
		{"Revoke/activations", revokes, (*storeCheck).revokeEndsActivations},
		{"Revoke/mails", revokes, (*storeCheck).revokeEndsMails},
		{"Revoke/notifications and public requests", "Notifications and public requests stay queued.", (*storeCheck).revokeKeeps},
		{"Revoke/nothing", "Revoke of a user who has nothing is no error.", (*storeCheck).revokeNothing},
	}
}

func (c *storeCheck) redeemNotLive() {
	c.wantRefused(start, c.activation("nobody"))

	used := c.issued("used")
	c.redeem(start, used, c.notification("used"))
	c.wantRefused(start, used)

	revoked := c.issued("revoked")
	c.revoke("revoked")
	c.wantRefused(start, revoked)

	live := c.issued("used") // does not revive an older one
	c.wantRefused(start, used)
	c.wantLive(start, live)

	if got := c.leaseAll(start, at(time.Minute)); len(got) != 1 {
		c.Errorf("%d notifications are queued after one success, want 1", len(got))
	}
}

func (c *storeCheck) redeemExpiry() {
	a, b := c.issued("a"), c.issued("b")
	c.wantRefused(at(lifetime), a)
	c.wantRefused(at(lifetime+time.Hour), a)
	c.redeem(at(lifetime-ms), b, c.notification("b"))
}

func (c *storeCheck) redeemEndsActivations() {
	a, other := c.issued("a"), c.issued("b")
	sibling, second, expired := c.sibling(a), c.activation("a"), c.activation("a")
	expired.Expires = at(time.Minute)
	c.issue(start, sibling, 9, nil)
	c.issue(start, second, 9, nil)
	c.issue(start, expired, 9, nil)
	c.redeem(at(2*time.Minute), sibling, c.notification("a"))
	for _, now := range []time.Duration{0, 2 * time.Minute} {
		c.wantDead(at(now), a, sibling, second, expired)
		c.wantLive(at(now), other)
	}
	for _, dead := range []reset.Activation{a, sibling, second} {
		c.wantRefused(at(2*time.Minute), dead)
	}
}

func (c *storeCheck) redeemEndsMails() {
	a, _ := c.issuedWithMail("a")
	c.issuedWithMail("a")
	retried := c.publicRequest("a@example.com")
	retried.UserID, retried.Due = "a", at(30*time.Minute)
	c.enqueue(retried)
	_, other := c.issuedWithMail("b")
	notification := c.notification("a")
	c.redeem(start, a, notification)
	c.wantMails(at(late), other, notification)
}

func (c *storeCheck) redeemEndsLeasedMails() {
	a, _ := c.issuedWithMail("a")
	c.enqueue(c.publicRequest("a@example.com"))
	leased := c.leaseAll(start, at(time.Minute))
	for i := range leased {
		if leased[i].UserID == "" { // is bound here, while leased
			leased[i].Due = at(time.Minute)
			c.issue(start, c.activationFor(leased[i], "a"), 9, &leased[i])
		}
	}
	notification := c.notification("a")
	c.redeem(start, a, notification)
	for _, m := range leased {
		again := c.activationFor(m, "a")
		c.wantIs("Issue of a mail that Redeem removed", c.tryIssue(start, again, 9, &m), reset.ErrGone)
		c.wantDead(start, again)
		c.settle(reset.Settlement{Mail: m.ID, Lease: m.Lease, Retry: at(time.Minute)})
	}
	c.wantMails(at(late), notification)
}

func (c *storeCheck) redeemQueuesNotification() {
	a := c.issued("a")
	notification := c.notification("a")
	notification.Email, notification.Due = "Stored@Example.COM", at(time.Minute)
	c.redeem(start, a, notification)
	c.wantMails(at(time.Minute - ms))
	got := c.leaseOne(at(time.Minute), at(2*time.Minute))
	if !equalFacts(got, notification) || got.Attempts != 1 {
		c.Errorf("Lease returned %+v, want %+v with one attempt", got, notification)
	}
	c.wantMails(at(notificationLifetime-ms), notification)
	c.wantMails(at(notificationLifetime + time.Hour))
}

func (c *storeCheck) redeemKeepsNotifications() {
	first, second, third := c.notification("a"), c.notification("a"), c.notification("a")
	c.redeem(start, c.issued("a"), first)
	c.revoke("a")
	c.redeem(at(time.Second), c.issued("a"), second)
	leased := c.lease(at(time.Second), at(time.Minute), 1)
	c.redeem(at(2*time.Second), c.issued("a"), third) // a leased one stays, too
	if len(leased) != 1 {
		c.Fatalf("Lease returned %d notifications, want 1", len(leased))
	}
	c.wantMails(at(late), first, second, third)
}

func (c *storeCheck) redeemKeepsPublicRequests() {
	waiting, leased := c.publicRequest("a@example.com"), c.publicRequest("a@example.com")
	waiting.Due = at(time.Minute)
	c.enqueue(waiting, leased)
	held := c.leaseOne(start, at(time.Minute))
	a, notification := c.issued("a"), c.notification("a")
	c.redeem(start, a, notification)
	held.Due = at(2 * time.Minute)
	later := c.activationFor(held, "a")
	c.issue(start, later, 1, &held)
	c.wantLive(start, later)
	leased.UserID = "a"
	c.wantMails(at(late), waiting, leased, notification)
}

func (c *storeCheck) redeemFreesCap() {
	a := c.issued("a")
	c.issued("a")
	c.wantLimit(c.tryIssue(start, c.activation("a"), 1, nil), lifetime)
	c.redeem(start, a, c.notification("a"))
	c.issue(start, c.activation("a"), 1, nil)
}

func (c *storeCheck) redeemAppliesOnce() {
	for i, failure := range failures() {
		user := fmt.Sprint("user ", i)
		calls, err := c.tryRedeem(start, c.issued(user), c.notification(user), failure)
		if calls != 1 {
			c.Errorf("apply failed with %v and was called %d times, want 1", failure, calls)
		}
		c.wantIs("Redeem whose apply failed", err, failure)
	}
	c.wantMails(at(late)) // no notification
}

// failures returns errors for apply, some of which a store could mistake for its
// own.
func failures() []error {
	return []error{
		errors.New("apply failed"),
		context.DeadlineExceeded,
		fmt.Errorf("no such user: %w", reset.ErrNoUser),
		fmt.Errorf("busy: %w", &reset.LimitError{RetryAfter: time.Second}),
		temporary{},
		fmt.Errorf("wrapped: %w", reset.ErrNotChanged),
		fmt.Errorf("wrapped: %w", error(&reset.PasswordError{Reason: "common"})),
	}
}

// temporary is an error that looks retryable.
type temporary struct{}

func (temporary) Error() string {
	return "database is locked (SQLITE_BUSY), deadlock found, serialization failure"
}
func (temporary) Temporary() bool { return true }
func (temporary) Timeout() bool   { return true }

func (c *storeCheck) redeemPanics() {
	calls := 0
	value := new(int)
	got := catch(func() {
		a := c.issued("a")
		_ = c.store.Redeem(c.Context(), start, a, c.notification("a"), func(context.Context) error {
			calls++
			panic(value)
		})
	})
	if got != value || calls != 1 {
		c.Errorf("apply panicked with %p: Redeem panicked with %v after %d calls, want the same after 1", value, got, calls)
	}
	c.wantMails(at(late)) // no notification
	c.redeem(start, c.issued("b"), c.notification("b"))
	// No lock stays. With users elsewhere, a claim may last 60 s.
	c.redeem(at(61*time.Second), c.issued("a"), c.notification("a"))
}

type contextKey struct{}

func (c *storeCheck) redeemPassesContext() {
	ctx := context.WithValue(c.Context(), contextKey{}, "mine")
	a := c.issued("a")
	err := c.store.Redeem(ctx, start, a, c.notification("a"), func(ctx context.Context) error {
		if ctx.Value(contextKey{}) != "mine" {
			c.Errorf("apply got a context that does not derive from Redeem's")
		}
		return ctx.Err()
	})
	if err != nil {
		c.Errorf("Redeem: %v", err)
	}
}

func (c *storeCheck) revokeEndsActivations() {
	a, other := c.issued("a"), c.issued("b")
	sibling, second, expired := c.sibling(a), c.activation("a"), c.activation("a")
	expired.Expires = at(-time.Minute)
	c.issue(start, sibling, 9, nil)
	c.issue(start, second, 9, nil)
	c.issue(at(-time.Hour), expired, 9, nil)
	c.revoke("a")
	c.wantDead(start, a, sibling, second)
	c.wantDead(at(-time.Hour), a, sibling, second, expired)
	c.wantLive(start, other)
	for _, dead := range []reset.Activation{a, sibling, second} {
		c.wantRefused(start, dead)
	}
	c.issue(start, c.activation("a"), 1, nil) // none counts for the cap
}

func (c *storeCheck) revokeEndsMails() {
	c.issuedWithMail("a")
	retried := c.publicRequest("a@example.com")
	retried.UserID, retried.Due = "a", at(30*time.Minute)
	c.enqueue(retried)
	leased := c.leaseOne(start, at(time.Minute))
	_, other := c.issuedWithMail("b")
	c.revoke("a")
	c.settle(reset.Settlement{Mail: leased.ID, Lease: leased.Lease, Retry: at(time.Minute)})
	c.wantMails(at(late), other)
}

func (c *storeCheck) revokeKeeps() {
	notification, bound, public := c.notification("a"), c.notification("a"), c.publicRequest("a@example.com")
	c.redeem(start, c.issued("a"), notification)
	c.enqueue(bound, public)
	c.revoke("a")
	c.lease(start, at(time.Minute), 1) // either of them
	c.revoke("a")
	c.wantMails(at(late), notification, bound, public)
}

func (c *storeCheck) revokeNothing() {
	c.revoke("a")
	c.issued("a")
	c.revoke("a")
	c.revoke("a")
	c.revoke("")
}
