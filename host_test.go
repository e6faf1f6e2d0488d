package reset_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

const (
	baseURL = "https://app.example.com/account"
	apiKey  = "key-0123456789abcdef0123456789abcdef"
)

var (
	ann = reset.User{ID: "1", Email: "ann@example.com", Name: "Ann", Locale: "en"}
	bob = reset.User{ID: "2", Email: "bob@example.com", Name: "Bob", Locale: "de"}
)

// A host is accounts in memory. Its hooks, where set, are called first, without
// a lock, and fail the call with their errors. They must be set before the host
// is used.
type host struct {
	onFind func(ctx context.Context, address string) error
	onHash func(ctx context.Context, password string) error
	onSet  func(ctx context.Context, userID string) error

	mu        sync.Mutex
	users     map[string]reset.User // by canonical address
	hashes    map[string]string     // by user id
	finds     int                   // calls of FindByEmail
	hashCalls int                   // calls of HashPassword
	sets      int                   // calls of SetPassword
}

func newHost(users ...reset.User) *host {
	h := &host{users: make(map[string]reset.User), hashes: make(map[string]string)}
	for _, u := range users {
		h.put(u)
	}
	return h
}

// put adds a user, or replaces the one who has the address.
func (h *host) put(u reset.User) {
	address, err := reset.CanonicalAddress(u.Email)
	if err != nil {
		panic(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users[address] = u
}

// remove removes the user who has a canonical address.
func (h *host) remove(address string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.users, address)
}

// calls returns how often each method was called.
func (h *host) calls() (finds, hashes, sets int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.finds, h.hashCalls, h.sets
}

// password returns the password of a user, or "" if none was ever set.
func (h *host) password(userID string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	hash := h.hashes[userID]
	if hash == "" {
		return ""
	}
	return hash[len(hashPrefix):]
}

// hashPrefix makes a hash of a password. Tests have no secrets to protect.
const hashPrefix = "hash of "

func (h *host) FindByEmail(ctx context.Context, address string) (reset.User, error) {
	h.mu.Lock()
	h.finds++
	h.mu.Unlock()
	if h.onFind != nil {
		if err := h.onFind(ctx, address); err != nil {
			return reset.User{}, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	u, ok := h.users[address]
	if !ok {
		return reset.User{}, reset.ErrNoUser
	}
	return u, nil
}

func (h *host) HashPassword(ctx context.Context, password string) (string, error) {
	h.mu.Lock()
	h.hashCalls++
	h.mu.Unlock()
	if h.onHash != nil {
		if err := h.onHash(ctx, password); err != nil {
			return "", err
		}
	}
	return hashPrefix + password, nil
}

func (h *host) SetPassword(ctx context.Context, userID, hash string) error {
	h.mu.Lock()
	h.sets++
	h.mu.Unlock()
	if h.onSet != nil {
		if err := h.onSet(ctx, userID); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, u := range h.users {
		if u.ID == userID {
			h.hashes[userID] = hash
			return nil
		}
	}
	return reset.ErrNoUser
}

// newService returns a service on the host, with a store and a mailbox in
// memory. edit, which may be nil, changes its Config.
func newService(t testing.TB, h *host, edit func(*reset.Config)) (*reset.Service, *resettest.MemStore, *resettest.Mailbox) {
	t.Helper()
	store, mailbox := new(resettest.MemStore), new(resettest.Mailbox)
	cfg := reset.Config{
		Users:   h,
		Store:   store,
		Mailer:  mailbox,
		BaseURL: baseURL,
		APIKeys: []string{apiKey},
		Logger:  slog.New(slog.DiscardHandler),
	}
	if edit != nil {
		edit(&cfg)
	}
	svc, err := reset.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return svc, store, mailbox
}

// writes returns how many calls of a store may have written.
func writes(s *resettest.FaultStore) int { return s.Calls() - s.Calls("Find") }
