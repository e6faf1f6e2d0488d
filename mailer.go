package reset

import (
	"context"
	"time"
)

// A Mailer sends mail. It is safe for concurrent use by many goroutines.
//
// A Mailer may also have the method
//
//	Check() error
//
// which returns what is wrong with its settings. New calls it and returns its
// error. Check opens no connection: a mail server that is down must not keep a
// host from starting.
type Mailer interface {
	// Send hands m to the mail system and returns nil once it has accepted m,
	// whatever the texts contain. Send may get a message again, with the same
	// ID: an attempt whose outcome is unknown is repeated.
	//
	// An error that wraps ErrUndeliverable says that m can never be delivered,
	// and the Service drops it. Send returns such an error unless m.To is one
	// plain address. No field of m may add a header or a recipient: Send
	// encodes or ignores such a value, or returns such an error. After any other
	// error, a cancelled ctx included, the Service retries until m expires. ctx
	// ends after 30 s; one second later the Service stops waiting for Send, and
	// retries too.
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
