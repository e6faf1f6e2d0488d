package resettest

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
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

// A Mailbox is a reset.Mailer that keeps the last 1,000 messages, for tests and
// demonstrations. Its zero value is ready for concurrent use.
//
// It is also an http.Handler that shows them. Its page holds links that take
// over accounts: never mount it where strangers can reach it.
type Mailbox struct {
	mu      sync.Mutex
	mails   []*received   // oldest first
	count   int           // of all messages so far
	arrived chan struct{} // closed at the next message; nil if no Wait needs it
}

// A received is a message that has arrived.
type received struct {
	reset.Message
	Number   int
	Received time.Time
	address  string // canonical
	fetched  bool   // Wait has returned it
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
	b.mails = append(b.mails, &received{Message: m, Number: b.count, Received: time.Now(), address: address})
	if len(b.mails) > maxMessages {
		b.mails = slices.Delete(b.mails, 0, 1)
	}
	if b.arrived != nil {
		close(b.arrived)
		b.arrived = nil
	}
	return nil
}

// Wait returns the oldest message to address that it has not returned before,
// and waits for one to arrive. Addresses are compared in canonical form. Wait
// fails if ctx ends first or address is not valid.
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

// fetch returns the next message, or a channel that is closed when another one
// arrives.
func (b *Mailbox) fetch(address string) (*reset.Message, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.mails {
		if !m.fetched && m.address == address {
			m.fetched = true
			return &m.Message, nil
		}
	}
	if b.arrived == nil {
		b.arrived = make(chan struct{})
	}
	return nil, b.arrived
}

// Messages returns all messages, oldest first.
func (b *Mailbox) Messages() []reset.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	var messages []reset.Message
	for _, m := range b.mails {
		messages = append(messages, m.Message)
	}
	return messages
}

//go:embed mailbox.html
var mailboxHTML string

var mailboxPage = template.Must(template.New("mailbox").Parse(mailboxHTML))

// mailboxPolicy also applies to the messages that the page shows in frames:
// they may contain styles and pictures, and nothing else.
const mailboxPolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// ServeHTTP shows the mail, newest first. It can be mounted under any path,
// since its links are queries only. A request from this machine is answered
// only if its Host is a name of this machine: a page that a browser here has
// open could otherwise read the mail through a name of its own that leads to
// this machine (DNS rebinding).
func (b *Mailbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", mailboxPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Robots-Tag", "noindex")
	if isRebound(r) {
		http.Error(w, "Open the mailbox at localhost or 127.0.0.1.", http.StatusForbidden)
		return
	}
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

// isRebound reports whether a request from this machine is for a host that is
// not this machine by name.
func isRebound(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	name := r.Host
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		name = host
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return !strings.EqualFold(name, "localhost") && (err != nil || !ip.IsLoopback())
}

// A mailboxView is the data of the page.
type mailboxView struct {
	Mails   []*received // newest first
	Open    *received
	Missing bool // the requested mail does not exist
}

// view opens the mail with the given number, by default the newest. It reads
// the mails unlocked: after their arrival only fetched changes.
func (b *Mailbox) view(number string) mailboxView {
	b.mu.Lock()
	mails := slices.Clone(b.mails)
	b.mu.Unlock()

	slices.Reverse(mails)
	v := mailboxView{Mails: mails}
	if number == "" {
		if len(mails) > 0 {
			v.Open = mails[0]
		}
		return v
	}
	for _, m := range mails {
		if strconv.Itoa(m.Number) == number {
			v.Open = m
		}
	}
	v.Missing = v.Open == nil
	return v
}

// Framed returns the HTML part as a document whose links open in a new tab,
// since the policy keeps the frame from going anywhere.
func (m *received) Framed() string { return `<base target="_blank">` + m.HTML }
