package reset

import (
	"context"
	"time"
)

// A Mailer sends mail. It is safe for concurrent use by many goroutines.
//
// A Mailer may also have one or both of the methods
//
//	Check() error
//	SendTimeout() time.Duration
//
// Check returns what is wrong with the Mailer's settings. New calls it and
// returns its error. Check opens no connection: a mail server that is down must
// not keep a host from starting. SendTimeout returns how long Send may take.
type Mailer interface {
	// Send hands m to the mail system and returns nil once it has accepted m,
	// whatever the texts contain. Send may get a message again, with the same
	// ID: an attempt whose outcome is unknown is repeated.
	//
	// An error that wraps ErrUndeliverable says that m can never be delivered,
	// and the Service drops it. Send returns such an error unless m.To is one
	// plain address. No field of m may add a header or a recipient: Send
	// encodes or ignores such a value, or returns such an error.
	//
	// An error that wraps ErrUnavailable says that any other message would fail
	// as well: the mail system is down or has enough for now, or it refuses the
	// log-in or the sender. The Service puts m back and pauses, see Run. Send
	// must not return such an error because of m itself, which would then hold
	// up all other mail.
	//
	// An error that wraps ErrUnconfirmed says that the mail system got all of m
	// and did not answer, so that it may have accepted m. The Service sends m
	// once more, after about half of its life.
	//
	// After any other error, a cancelled ctx included, the Service retries until
	// m expires. ctx ends after SendTimeout, or 30 s without that method; a Mailer
	// that wraps another one passes it on. One second later the Service stops
	// waiting for Send, and retries too.
	Send(ctx context.Context, m Message) error
}

// A Message is one mail as a Mailer gets it: the facts, for hosts that render
// or translate mail themselves, and the rendered texts.
//
// Link and RevokeLink of a reset mail, and therefore Text and HTML, take over
// the account. They belong in the mail and nowhere else.
type Message struct {
	ID         string    // the same for all attempts; becomes the Message-ID
	Kind       MailKind  // MailReset or MailNotification
	To         string    // the address as the host has stored it
	Name       string    // the user's name; "" if unknown or if it could be mistaken for more than a name
	Locale     string    // the user's language in BCP 47, may be ""
	Link       string    // where a new password is set; in a notification, where a reset is requested
	RevokeLink string    // "it wasn't me"; "" in a notification
	Expires    time.Time // when the link expires; a notification is not sent later
	Subject    string
	Text, HTML string // the two parts of the body
}
