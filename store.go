package reset

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// A Store keeps activations and queued mail, usually in the host's own
// database. It stores records and decides races; it merges nothing, looks up no
// user and applies no policy. Of an activation it sees only the SHA-256, so
// nothing that a Store is given is a secret.
//
// A Store is safe for concurrent use by many goroutines and many processes.
// Package resettest has the test suite for implementations; a subtest that
// fails quotes the sentence below that was broken.
//
// # Every method
//
// Each method is one transaction and is all or nothing, also if ctx is
// cancelled: after an error the caller may not know whether the transaction was
// committed, but nobody ever sees half of it. A failure is never reported as a
// verdict: ErrInvalidActivation, ErrGone and *LimitError describe records that
// were read.
//
// A Store knows the time only from its arguments. A time is an instant, in
// whatever zone it is given. Times have millisecond precision: a Store may
// truncate anything finer. A clock that jumps back revives nothing that was
// redeemed, revoked or purged.
//
// Hashes, ids, user ids (at most 255 bytes) and addresses compare as bytes,
// whatever the collation of the database. Every string is stored unchanged.
//
// # One transaction
//
// Redeem has two modes; a store's mode is chosen when it is opened. In the mode
// "one transaction", users live in the store's database. apply runs inside the
// transaction of Redeem and reaches it through its context. Whatever fails
// before the commit undoes everything. If the answer to the commit is lost,
// Redeem returns an error and the database holds either all changes or none. In
// a cluster, apply may run on several writable nodes at once; all but one are
// undone and fail.
//
// A Store with this mode may also have the method
//
//	TransactionUsed(ctx context.Context) bool
//
// which reports whether the transaction was taken out of the context that apply
// got. Where it was not, the Service logs transaction_not_used.
//
// # Users elsewhere
//
// In the mode "users elsewhere", users live in another database or service.
// Redeem first claims the user's live activations, in a transaction of its own.
// Claimed activations are not live, but count for the cap while the claim is
// held. Then apply runs, on a context that does not end with ctx. If apply
// returns nil, the claim becomes a success. If apply returns an error that
// wraps ErrNotChanged or a *PasswordError, the claimed activations are live
// again, unless they were revoked meanwhile. After any other error, a panic or
// a crash they are never live again. The outcome is recorded even if ctx has
// ended. A user has at most one claim at a time. It ends when its outcome is
// recorded, or after 60 s; neither Purge nor the late end of an earlier claim
// ends it. While another call holds the claim, Redeem returns
// ErrInvalidActivation.
type Store interface {
	// Enqueue adds m, always as a row of its own, whatever else is queued for
	// the same address.
	Enqueue(ctx context.Context, m Mail) error

	// Issue adds a if fewer than limits.MaxRequests requests of a.UserID are
	// live, under any concurrency, and returns it as it is now stored.
	// Otherwise it changes nothing and returns a *LimitError whose RetryAfter is
	// the time until fewer are live. A request counts once, however many
	// activations it has. If a.Request already has a live activation, a joins
	// it, whatever limits.MaxRequests is. If the user has too many live requests and
	// limits.Join is set, a joins the live request that expires last: it takes
	// the Request and Expires of that.
	//
	// If m is not nil, it is the request's mail and m.ID is a.Request. A mail
	// that Lease has not returned (m.WasDue is zero) is added in the same
	// transaction, under the lease m.Lease unless that is zero. Any other mail
	// must still be held under its lease, and be a public request or a mail of
	// the same user; otherwise Issue changes nothing and returns ErrGone. It is
	// bound to a.UserID and its lease is renewed until m.Due.
	//
	// Each public request that Issue binds counts for its user's budget, also
	// after it was sent, revoked or redeemed. Issue binds at most
	// limits.MaxPerHour of them in any hour and limits.MaxPerDay in any 24
	// hours, and none before the time that Revoke has set. Otherwise it changes
	// nothing and returns a *LimitError whose RetryAfter is the time until it
	// would bind one. Mail that is bound to the user already does not count.
	Issue(ctx context.Context, now time.Time, a Activation, limits Limits, m *Mail) (Activation, error)

	// Find returns the live activation with hash h, or ErrInvalidActivation. An
	// activation is live from Issue until it expires, is redeemed or is revoked.
	Find(ctx context.Context, now time.Time, h Hash) (Activation, error)

	// Redeem redeems a, which Find has returned, by calling apply, which saves
	// the new password. If a is not live, apply is not called and Redeem
	// returns ErrInvalidActivation. Of concurrent calls for one user at most
	// one at a time runs apply and exactly one succeeds. On success every
	// activation of the user and every reset mail bound to the user is removed
	// and notification is queued, in the transaction that removes a. Earlier
	// notifications stay queued. A public request is bound to no user yet and
	// stays: it counts as made afterwards.
	//
	// Redeem calls apply at most once, never again after a failure, with a
	// context that has the values of ctx. It wraps the error of apply and lets
	// a panic of apply pass. What such a failure undoes depends on the mode:
	// see One transaction and Users elsewhere.
	Redeem(ctx context.Context, now time.Time, a Activation, notification Mail, apply func(context.Context) error) error

	// Revoke removes every activation of the user and every reset mail bound to
	// the user. Notifications and public requests stay queued. Revoke of a user
	// who has nothing is no error. Until quiet, Issue binds no public request to
	// the user. Of several times the latest counts; the zero time sets none.
	Revoke(ctx context.Context, now time.Time, userID string, quiet time.Time) error

	// Lease returns at most n mails (none if n is 0) with Due <= now < Expires,
	// the lowest Class first, within it the earliest Due, and none that another
	// call holds. Each is returned as it is now stored: with Due = until, a fresh
	// Lease and Attempts one higher. WasDue is its Due before.
	Lease(ctx context.Context, now, until time.Time, n int) ([]Mail, error)

	// Settle ends leases: it removes each mail whose Retry is zero and frees
	// each other one, to be due at Retry in the given Class. If the attempt is
	// Unspent, Attempts becomes one lower again. If the mail is still Held, its
	// lease does not end but is renewed until Retry, and its Class stays. A mail that is gone or held under another
	// lease is left alone; that is no error.
	Settle(ctx context.Context, done []Settlement) error

	// Purge removes at most n records (n is at most 1,000) that expired at or
	// before now. It returns how many it removed, and how many of them were
	// mails, which were never sent. A result below n means nothing expired
	// remains, except records locked by a concurrent call.
	Purge(ctx context.Context, now time.Time, n int) (removed, unsent int, err error)
}

// Limits bound what Issue adds for one user.
type Limits struct {
	MaxRequests int  // live requests, at least 1
	Join        bool // beyond MaxRequests, join a live request instead of failing
	MaxPerHour  int  // public requests that are mailed; 0: any number
	MaxPerDay   int  // the same for 24 hours
}

// A Hash is the SHA-256 of an activation.
type Hash [32]byte

// String returns h in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// An ID identifies a mail, a request or a lease: 6 bytes of Unix milliseconds,
// then 10 random bytes, so that rows arrive in the order of the index. The zero
// ID means none.
type ID [16]byte

// String returns id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Time returns when id was made, to the millisecond.
func (id ID) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16)).UTC()
}

// An Activation is the record of one secret. A request may have several
// activations; they expire together.
type Activation struct {
	Hash    Hash
	Request ID
	UserID  string
	Email   string // as the host had stored it when the activation was issued
	Expires time.Time
}

// MailKind is the purpose of a mail.
type MailKind string

const (
	MailReset        MailKind = "reset"        // carries a link; a public request while it has no UserID
	MailNotification MailKind = "notification" // reports that the password was changed
)

// A Mail is queued mail. It holds no secret: the link is made when the mail is
// sent.
type Mail struct {
	ID       ID // of a reset mail: the ID of its request
	Kind     MailKind
	UserID   string // "" for a public request, whose user has not been looked up
	Email    string // of a reset mail: the requested address, canonical; of a notification: as the host stored it
	Name     string // of a notification; a reset mail takes it from the user when it is sent
	Locale   string
	Class    int       // its place in the queue, 0 to 32,767; the lowest is sent first
	Due      time.Time // the next attempt; while leased, the end of the lease
	Expires  time.Time
	Attempts int       // how many times it was leased
	Lease    ID        // zero if not leased
	WasDue   time.Time // Due before the lease; set by Lease only, and not stored
}

// A Settlement ends or renews one lease.
type Settlement struct {
	Mail, Lease ID
	UserID      string    // to whom the mail is bound, if that is known: a store may find it by that, and only so
	Retry       time.Time // when to try again; zero removes the mail
	Class       int       // the mail's class from then on
	Unspent     bool      // the attempt does not count
	Held        bool      // the lease goes on until Retry
	Note        *Note     // for a HistoryStore, which other stores ignore
}

// A Note is what a HistoryStore adds to an entry in the history of a user, or
// begins one with.
type Note struct {
	UserID   string
	ID       ID          // of the entry; zero: of the mail
	Kind     HistoryKind // of a new entry
	Requests int         // how many further requests the entry is about
	At       time.Time
	Attempts int         // of the mail so far; 0: unchanged
	Refusal  string      // "": not refused
	Outcome  MailOutcome // "": none yet
}

// MailOutcome is why a mail is no longer queued.
type MailOutcome string

const (
	OutcomeSent          MailOutcome = "sent"          // the mail system took it
	OutcomeUnconfirmed   MailOutcome = "unconfirmed"   // it probably did
	OutcomeUndeliverable MailOutcome = "undeliverable" // it never will
	OutcomeExpired       MailOutcome = "expired"       // too old before it could be sent
	OutcomeWithdrawn     MailOutcome = "withdrawn"     // its request ended first
	OutcomeOverBudget    MailOutcome = "over_budget"   // the user had got too many mails
	OutcomeUserGone      MailOutcome = "user_gone"     // the address is not the user's any more
)

// HistoryKind says who caused an entry.
type HistoryKind string

const (
	HistoryPublic       HistoryKind = "public"       // a public request
	HistoryTrusted      HistoryKind = "trusted"      // a request of a trusted caller
	HistoryNotification HistoryKind = "notification" // a changed password
)
