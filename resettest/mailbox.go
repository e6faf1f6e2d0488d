package resettest

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gopassreset/reset"
)

var (
	_ reset.Mailer = (*Mailbox)(nil)
	_ http.Handler = (*Mailbox)(nil)
)

// maxMessages is how many messages a Mailbox keeps.
const maxMessages = 1000

// A Mailbox is a reset.Mailer that keeps what it is given, for tests and
// demonstrations. Its zero value is ready for use, from many goroutines. It
// keeps the last 1,000 messages.
//
// It is a page, too: whoever sees that can take over every account that mail
// was sent for, so it is never to be mounted where strangers come.
type Mailbox struct {
	mu      sync.Mutex
	letters []*letter // oldest first
	count   int       // of all that ever arrived
	arrived chan struct{}
}

// A letter is a message that has arrived.
type letter struct {
	reset.Message
	Number   int
	Received time.Time
	address  string // canonical
	fetched  bool   // by Wait
}

// Send implements reset.Mailer. It refuses an address that
// reset.CanonicalAddress refuses, with an error that wraps
// reset.ErrUndeliverable.
func (b *Mailbox) Send(ctx context.Context, m reset.Message) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("resettest: send: %w", err)
	}
	address, err := reset.CanonicalAddress(m.To)
	if err != nil {
		return fmt.Errorf("resettest: send: %w: %w", reset.ErrUndeliverable, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count++
	b.letters = append(b.letters, &letter{Message: m, Number: b.count, Received: time.Now(), address: address})
	if len(b.letters) > maxMessages {
		b.letters = slices.Delete(b.letters, 0, 1)
	}
	if b.arrived != nil {
		close(b.arrived)
		b.arrived = nil
	}
	return nil
}

// Wait returns the next message to an address that it has not returned before,
// and waits for it if need be. Addresses are the same if their canonical forms
// are. It fails when ctx is done first, and for what is no address.
func (b *Mailbox) Wait(ctx context.Context, address string) (reset.Message, error) {
	canonical, err := reset.CanonicalAddress(address)
	if err != nil {
		return reset.Message{}, fmt.Errorf("resettest: wait: %w", err)
	}
	for {
		m, arrived := b.fetch(canonical)
		if m != nil {
			return *m, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return reset.Message{}, fmt.Errorf("resettest: no mail to %s: %w", address, context.Cause(ctx))
		}
	}
}

// fetch returns the next message, or what is closed when another one arrives.
func (b *Mailbox) fetch(address string) (*reset.Message, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.letters {
		if !l.fetched && l.address == address {
			l.fetched = true
			return &l.Message, nil
		}
	}
	if b.arrived == nil {
		b.arrived = make(chan struct{})
	}
	return nil, b.arrived
}

// Messages returns all messages, the oldest first.
func (b *Mailbox) Messages() []reset.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	var messages []reset.Message
	for _, l := range b.letters {
		messages = append(messages, l.Message)
	}
	return messages
}

//go:embed mailbox.html
var mailboxHTML string

var mailboxPage = template.Must(template.New("mailbox").Parse(mailboxHTML))

// mailboxPolicy also binds the messages that the page shows in frames: they
// may have styles and pictures of their own, and nothing else.
const mailboxPolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// ServeHTTP shows the mail, newest first. It can be mounted under any path:
// its links are queries only.
func (b *Mailbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", mailboxPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Robots-Tag", "noindex")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "Use GET.", http.StatusMethodNotAllowed)
		return
	}
	view := b.view(r.URL.Query().Get("mail"))
	var page bytes.Buffer
	if err := mailboxPage.Execute(&page, view); err != nil {
		http.Error(w, "The page cannot be shown.", http.StatusInternalServerError)
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	if view.Missing {
		w.WriteHeader(http.StatusNotFound)
	}
	_, _ = page.WriteTo(w)
}

// A mailboxView is what the page shows.
type mailboxView struct {
	Letters []*letter // newest first
	Open    *letter
	Missing bool // there is no such mail
}

// view opens the letter with the given number, by default the newest. Letters
// do not change once they have arrived, but for fetched.
func (b *Mailbox) view(number string) mailboxView {
	b.mu.Lock()
	letters := slices.Clone(b.letters)
	b.mu.Unlock()

	slices.Reverse(letters)
	v := mailboxView{Letters: letters}
	if number == "" {
		if len(letters) > 0 {
			v.Open = letters[0]
		}
		return v
	}
	for _, l := range letters {
		if strconv.Itoa(l.Number) == number {
			v.Open = l
		}
	}
	v.Missing = v.Open == nil
	return v
}

// Framed is the HTML part as a document whose links open in a new tab, since
// the frame that it is shown in may lead nowhere.
func (l *letter) Framed() string { return `<base target="_blank">` + l.HTML }
