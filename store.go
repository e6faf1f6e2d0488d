package reset

import (
	"context"
	"encoding/hex"
	"time"
)

// A Store keeps activations and queued mail, usually in the host's own
// database. It holds records and decides races; it merges nothing, looks
// nobody up and knows no policy.
//
// A Store is safe for use from many goroutines and many processes at a time.
// Each method is one transaction and is all or nothing, also under a cancelled
// context: after an error the caller may not know whether the transaction was
// committed, but never sees half of it. A failure is never mistaken for a
// verdict: what was not read for certain is not ErrInvalidActivation, ErrGone
// or a *LimitError. A Store knows the time only from its
// arguments. Times have millisecond precision: stores may truncate what is
// finer. Hashes, ids, user ids (at most 255 bytes) and addresses compare as
// bytes, whatever the collation of the database; every string is stored as it
// is.
//
// Nothing that a Store is given is a secret: it sees the SHA-256 of an
// activation, never the activation.
//
// Package resettest holds the tests that every implementation must pass.
type Store interface {
	// Enqueue adds m, always as a row of its own, whatever else is queued for
	// the same address.
	Enqueue(ctx context.Context, m Mail) error

	// Issue adds a if fewer than max requests of a.UserID are live, and
	// otherwise returns a *LimitError that tells when the count falls below
	// max; then nothing has changed. If a.Request has a live activation, a
	// joins it whatever max says: a request counts once, however many
	// activations it has.
	//
	// If m is not nil it is the request's mail and m.ID is a.Request. A mail
	// that is not leased (m.Lease is zero) is added in the same transaction.
	// One that is leased must still be held under that lease, and be a public request or
	// a mail of the same user, or Issue changes nothing and returns ErrGone;
	// it is bound to a.UserID and its lease is renewed until m.Due.
	Issue(ctx context.Context, now time.Time, a Activation, max int, m *Mail) error

	// Find returns the live activation with the given hash, or
	// ErrInvalidActivation.
	Find(ctx context.Context, now time.Time, h Hash) (Activation, error)

	// Redeem uses up a, which Find has returned, by calling apply, which saves
	// the new password. Of concurrent calls for one user at most one at a time
	// runs apply and exactly one succeeds. If a is not live, apply is not
	// called and Redeem returns ErrInvalidActivation. On success every
	// activation of the user and every reset mail bound to the user is removed
	// and notification is queued, in the transaction that uses a up.
	//
	// Redeem calls apply at most once, never again after a failure, with a
	// context that has the values of ctx. It lets apply's panic pass and wraps
	// apply's error. What happens when apply fails depends on where the users
	// live, which is said once when a store is opened:
	//
	// In the same database, apply runs inside the transaction, which it reaches
	// through its context; everything that fails before the commit undoes
	// everything. If the answer to the commit is lost, Redeem returns an error
	// and the database has either all or nothing.
	//
	// Elsewhere, the user's live activations are claimed first, in a
	// transaction of their own; claimed activations are not live, but count for
	// the cap while the claim is held. Then apply runs, on a context that does
	// not end with ctx. If it returns nil the claim becomes a success. If it
	// returns an error that wraps ErrNotChanged or a *PasswordError, the
	// activations are live again, unless they were revoked meanwhile. Any other
	// error, a panic or a crash leaves them used up. The outcome is written
	// down even if ctx has ended. One claim at a time can be held for a user;
	// it ends when it is settled or after 60 s. While another call holds it,
	// Redeem returns ErrInvalidActivation.
	Redeem(ctx context.Context, now time.Time, a Activation, notification Mail, apply func(context.Context) error) error

	// Revoke removes every activation of the user and every reset mail that is
	// bound to the user. Notifications stay queued.
	Revoke(ctx context.Context, userID string) error

	// Lease returns at most n mails (none if n is 0) with Due <= now < Expires,
	// those with the earliest Due first, and none that another call was given.
	// Each is returned with Due = until, a fresh Lease and Attempts one higher,
	// as it is now stored.
	Lease(ctx context.Context, now, until time.Time, n int) ([]Mail, error)

	// Settle ends leases: it removes each mail, or frees it for another
	// attempt. A mail that is gone or held under another lease is left alone;
	// that is no error.
	Settle(ctx context.Context, done []Settlement) error

	// Purge removes at most n records (n is at most 1,000) that expired at or
	// before now and returns how many it removed. Fewer than n means that
	// none were left, but for those that another call is at.
	Purge(ctx context.Context, now time.Time, n int) (int, error)
}

// A Hash is the SHA-256 of an activation.
type Hash [32]byte

// String returns h in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// An ID names a mail, a request or a lease: 6 bytes of Unix milliseconds, then
// 10 random bytes, so that rows arrive in the order of the index. The zero ID
// is none.
type ID [16]byte

// String returns id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// An Activation is one secret's record. Several activations can belong to one
// request; they expire together.
type Activation struct {
	Hash    Hash
	Request ID
	UserID  string
	Email   string // as the host had stored it when the activation was issued
	Expires time.Time
}

// MailKind tells what a mail is for.
type MailKind string

const (
	MailReset        MailKind = "reset"        // carries a link; a public request while it has no UserID
	MailNotification MailKind = "notification" // tells that the password was changed
)

// A Mail is queued mail: facts, never a secret. The link is made when the mail
// is sent.
type Mail struct {
	ID       ID // of a reset mail: its request's
	Kind     MailKind
	UserID   string // "": a public request, not known yet to have a user
	Email    string // reset mail: the address asked for, canonical; notification: as the host stored it
	Name     string // of notifications; a reset mail takes it from the user when it is sent
	Locale   string
	Due      time.Time // the next attempt; while leased, the end of the lease
	Expires  time.Time
	Attempts int // how many times it was leased
	Lease    ID  // zero: not leased
}

// A Settlement ends one lease.
type Settlement struct {
	Mail, Lease ID
	Retry       time.Time // when to try again; zero: remove the mail
}
