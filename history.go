package reset

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// A HistoryStore is a Store that says what became of the requests and mail of a
// user, as all stores of this module do. Service.History and Config.KeepHistory
// need one.
//
// The history is written in the transactions of Store's methods. A mail that
// goes out without trouble costs no transaction of its own: that it was sent
// follows from its removal.
type HistoryStore interface {
	Store

	// KeepHistory sets for how long the entries are kept that are made from then
	// on, through this view. As long as it is 0, as before the first call, none
	// are made and History returns none. New calls it.
	KeepHistory(d time.Duration)

	// History returns the entries of a user, at most n, the latest ID first. A
	// request has one once Issue has issued an activation for it, and a mail while
	// it is queued and bound to the user. Neither has one while it is bound to
	// nobody.
	//
	// A mail that is queued is Queued, with its Due and Attempts, and Leased
	// since its lease began. A mail that was removed after an Issue under its
	// lease was sent then, unless a Note on that attempt says otherwise. One that
	// Redeem or Revoke has removed while it was not leased, or before such an
	// Issue, is withdrawn. One that Purge has removed has expired.
	//
	// Redeem ends the user's requests that have not expired: a.Request, and what
	// has joined it, is redeemed, any other superseded. Revoke makes them
	// revoked. An end is final.
	//
	// A Note is recorded with its Settlement, also if the mail is gone, but not
	// if it is held under another lease. It is about the mail's own entry, unless
	// it has an ID, and begins one where there is none. With a Refusal or an
	// Outcome, or without Requests, the latest attempt has ended.
	//
	// An entry is kept from when it was made, whatever is recorded later. Then
	// History does not return it, and Purge removes it.
	History(ctx context.Context, now time.Time, userID string, n int) ([]HistoryEntry, error)

	// EraseHistory removes the entries of a user, and with them what counts for
	// the budget of Issue. A mail that is queued stays, and has an entry again.
	EraseHistory(ctx context.Context, userID string) error
}

// keepHistory passes Config.KeepHistory on.
func keepHistory(store Store, d time.Duration) {
	if s, ok := store.(HistoryStore); ok {
		s.KeepHistory(max(d, 0))
	}
}

// RequestEnd is how a request ended before it expired.
type RequestEnd string

const (
	RequestRedeemed   RequestEnd = "redeemed"
	RequestSuperseded RequestEnd = "superseded" // another request of the user was redeemed
	RequestRevoked    RequestEnd = "revoked"
)

// A HistoryEntry is what became of one request or mail of a user. It holds no
// secret, and no address beside those that a mail server may repeat in Refusal.
type HistoryEntry struct {
	ID   ID // of the mail, as in the events, or of a request without one; ID.Time is when it was made
	Kind HistoryKind
	// Requests is how many requests the entry is about: a mail may answer
	// several at once, and the public requests of an hour that are over the
	// budget have one entry.
	Requests int

	Queued   bool
	Leased   time.Time // when it was leased; zero if it is not
	Due      time.Time // the next attempt, or the end of the lease; zero unless Queued
	Attempts int
	Refused  time.Time // when the mail system refused it last; zero: it never did
	Refusal  string    // in its own words
	Outcome  MailOutcome
	// OutcomeAt is when the Outcome was known. Of a sent reset mail it is when
	// the attempt began.
	OutcomeAt time.Time

	Joined  ID        // the request whose link was mailed again; zero: the link is its own
	Expires time.Time // when the link expires; zero if there was none yet
	End     RequestEnd
	EndAt   time.Time
}

// String returns a line for operators, with times in UTC.
func (e HistoryEntry) String() string {
	clock := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
	parts := []string{fmt.Sprintf("%s %s %v requested", clock(e.ID.Time()), e.Kind, e.ID)}
	if e.Kind == HistoryNotification {
		parts[0] = strings.TrimSuffix(parts[0], "requested") + "queued"
	}
	add := func(when time.Time, format string, args ...any) {
		if !when.IsZero() {
			parts = append(parts, fmt.Sprintf(format, args...)+" "+clock(when))
		}
	}
	if e.Requests > 1 {
		parts[0] += fmt.Sprintf(" (%d requests)", e.Requests)
	}
	if e.Attempts > 0 {
		parts = append(parts, fmt.Sprintf("attempts: %d", e.Attempts))
	}
	add(e.Refused, "refused (%s)", e.Refusal)
	switch {
	case e.Queued && !e.Leased.IsZero():
		add(e.Leased, "leased")
		add(e.Due, "until")
	case e.Queued:
		add(e.Due, "next attempt")
	case e.Outcome != "":
		add(e.OutcomeAt, "%s", strings.ReplaceAll(string(e.Outcome), "_", " "))
	}
	if e.Joined != (ID{}) {
		parts = append(parts, fmt.Sprintf("with the link of %v", e.Joined))
	}
	if e.End != "" {
		add(e.EndAt, "%s", e.End)
	} else {
		add(e.Expires, "link expires")
	}
	return strings.Join(parts, "; ")
}
