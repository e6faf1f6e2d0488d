package reset

import (
	"context"
	"time"
)

// A Mailer sends mail. It is safe for use from many goroutines.
//
// A Mailer may also have the method
//
//	Check() error
//
// which returns what is wrong with its settings. New calls it and returns its
// error. Check opens no connection: a mail server that is down must not keep a
// host from starting.
type Mailer interface {
	// Send hands m to the mail system and returns nil once that has accepted
	// it. An error that wraps ErrUndeliverable says that this message can never
	// be delivered: it is given up. After any other error, a cancelled context
	// included, the Service tries again until the mail expires. Send has 30 s;
	// one that goes on after that is left alone, and the mail is tried again.
	Send(ctx context.Context, m Message) error
}

// A Message is one mail as a Mailer gets it: the facts, for hosts that render
// or translate mail themselves, and the rendered text.
//
// Link and RevokeLink of a reset mail, and so Text and HTML, take the account
// over: they belong in the mail and nowhere else.
type Message struct {
	ID         string    // the same for all attempts; forms the Message-ID
	Kind       MailKind  // MailReset or MailNotification
	To         string    // the address as the host has stored it
	Name       string    // the user's name; "" if there is none, or if it might pass for more than a name
	Locale     string    // the user's language, may be ""
	Link       string    // where a new password is set; of a notification, where to ask for a reset
	RevokeLink string    // "it wasn't me"; "" in a notification
	Expires    time.Time // when the link does; a notification is not sent after it
	Subject    string
	Text, HTML string
}
