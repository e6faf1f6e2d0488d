package resettest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/text/cases"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
	"golang.org/x/text/unicode/norm"

	"github.com/gopassreset/reset"
)

func TestUsersOfMemHost(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		t.Run(fmt.Sprint("elsewhere ", elsewhere), func(t *testing.T) { TestUsers(t, newMemHost(elsewhere).usersHost()) })
	}
}

// A memHost is a host in memory whose SetPassword joins the transaction of its
// store. Its functions can be replaced by faulty ones.
type memHost struct {
	store    *FaultStore
	mu       sync.Mutex
	accounts []memAccount
	sessions map[string]string // user ids by token
	tokens   int

	find   func(ctx context.Context, address string) (reset.User, error)
	hash   func(ctx context.Context, password string) (string, error)
	set    func(ctx context.Context, userID, hash string) error
	signUp func(ctx context.Context, email, password string) (string, error)

	elsewhere bool
}

type memAccount struct {
	reset.User
	address string
	hashes  []string // more than one only in a faulty host
	barred  bool
}

func newMemHost(elsewhere bool) *memHost {
	mem := &MemStore{UsersElsewhere: elsewhere}
	h := &memHost{store: &FaultStore{Store: mem}, sessions: make(map[string]string), elsewhere: elsewhere}
	h.find, h.hash, h.set, h.signUp = h.findUser, hashOf, h.setPassword, h.addAccount
	if !elsewhere {
		h.store.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
			tx := new(memTx)
			err := mem.Redeem(ctx, now, a, notification, func(ctx context.Context) error {
				return apply(context.WithValue(ctx, memTxKey{}, tx))
			})
			if err == nil {
				tx.commit()
			}
			return err
		}
	}
	h.accounts = []memAccount{{User: reset.User{ID: "barred", Email: "barred@example.com"}, address: "barred@example.com", barred: true}}
	return h
}

// A memTx is writes that are made when it is committed.
type memTx struct{ writes []func() }

type memTxKey struct{}

func (tx *memTx) commit() {
	for _, write := range tx.writes {
		write()
	}
}

// write makes a write in the transaction in ctx, or at once.
func (h *memHost) write(ctx context.Context, f func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	locked := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		f()
	}
	if tx, ok := ctx.Value(memTxKey{}).(*memTx); ok {
		tx.writes = append(tx.writes, locked)
	} else {
		locked()
	}
	return nil
}

func (h *memHost) usersHost() UsersHost {
	return UsersHost{
		Users: memUsers{h}, Store: h.store, UsersElsewhere: h.elsewhere, Barred: []string{"barred@example.com"},
		SignUp: func(ctx context.Context, email, password string) (string, error) {
			return h.signUp(ctx, email, password)
		},
		SignIn: h.signIn,
	}
}

// memUsers is the Users of a memHost.
type memUsers struct{ *memHost }

func (u memUsers) FindByEmail(ctx context.Context, address string) (reset.User, error) {
	return u.find(ctx, address)
}

func (u memUsers) HashPassword(ctx context.Context, password string) (string, error) {
	return u.hash(ctx, password)
}

func (u memUsers) SetPassword(ctx context.Context, userID, hash string) error {
	return u.set(ctx, userID, hash)
}

func hashOf(_ context.Context, password string) (string, error) {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(password))), nil
}

func (h *memHost) addAccount(ctx context.Context, email, password string) (string, error) {
	if _, err := h.findUser(ctx, canonical(email)); err == nil {
		return "", errors.New("the address has an account")
	}
	return h.insert(ctx, email, password)
}

func (h *memHost) insert(ctx context.Context, email, password string) (string, error) {
	hash, err := h.hash(ctx, password)
	if err != nil {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	id := strconv.Itoa(len(h.accounts))
	h.accounts = append(h.accounts, memAccount{User: reset.User{ID: id, Email: email}, address: canonical(email), hashes: []string{hash}})
	return id, nil
}

func canonical(email string) string {
	address, err := reset.CanonicalAddress(email)
	if err != nil {
		panic(err)
	}
	return address
}

func (h *memHost) findUser(ctx context.Context, address string) (reset.User, error) {
	return h.findWhere(ctx, func(a *memAccount) bool { return !a.barred && a.address == address })
}

func (h *memHost) findWhere(ctx context.Context, where func(*memAccount) bool) (reset.User, error) {
	if err := ctx.Err(); err != nil {
		return reset.User{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.accounts {
		if where(&h.accounts[i]) {
			return h.accounts[i].User, nil
		}
	}
	return reset.User{}, reset.ErrNoUser
}

func (h *memHost) setPassword(ctx context.Context, userID, hash string) error {
	if err := h.saveHash(ctx, userID, func(a *memAccount) { a.hashes = []string{hash} }); err != nil {
		return err
	}
	return h.endSessions(ctx, func(owner string) bool { return owner == userID })
}

func (h *memHost) saveHash(ctx context.Context, userID string, save func(*memAccount)) error {
	if _, err := h.findWhere(ctx, func(a *memAccount) bool { return a.ID == userID }); err != nil {
		return err
	}
	return h.write(ctx, func() {
		for i := range h.accounts {
			if h.accounts[i].ID == userID {
				save(&h.accounts[i])
			}
		}
	})
}

func (h *memHost) endSessions(ctx context.Context, where func(owner string) bool) error {
	return h.write(ctx, func() {
		for token, owner := range h.sessions {
			if where(owner) {
				delete(h.sessions, token)
			}
		}
	})
}

func (h *memHost) signIn(ctx context.Context, email, password string) (func(context.Context) (bool, error), error) {
	hash, err := h.hash(ctx, password)
	if err != nil {
		return nil, err
	}
	u, err := h.findWhere(ctx, func(a *memAccount) bool { return a.address == canonical(email) && slices.Contains(a.hashes, hash) })
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokens++
	token := fmt.Sprint("token ", h.tokens)
	h.sessions[token] = u.ID
	return func(context.Context) (bool, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.sessions[token] != "", nil
	}, nil
}

func TestUsersMutants(t *testing.T) {
	specimen[func(*memHost), *usersCheck]{
		sentences: usersSentences(newMemHost(false).usersHost()),
		mutants:   usersMutants(),
		check: func(t testing.TB, fault func(*memHost)) *usersCheck {
			h := newMemHost(false)
			fault(h)
			return &usersCheck{t, h.usersHost()}
		},
	}.prove(t)
}

// A host of any store finds its own function in the advice.
func TestUsersAdvice(t *testing.T) {
	h := newMemHost(false)
	h.set = func(_ context.Context, userID, hash string) error {
		return h.setPassword(context.Background(), userID, hash)
	}
	r := &recorder{TB: t}
	r.run((&usersCheck{r, h.usersHost()}).setIsUndone)
	for _, want := range []string{"storebun.Tx(ctx)", "storesql.Tx(ctx)", "storepgx.Tx(ctx)", "open the store with UsersElsewhere"} {
		if len(r.said) == 0 || !strings.Contains(r.said[0], want) {
			t.Errorf("got %q, want %q in it", r.said, want)
		}
	}
}

func usersMutants() []mutant[func(*memHost)] {
	// finds looks accounts up in another way.
	finds := func(where func(a *memAccount, address string) bool) func(*memHost) {
		return func(h *memHost) {
			h.find = func(ctx context.Context, address string) (reset.User, error) {
				return h.findWhere(ctx, func(a *memAccount) bool { return where(a, address) })
			}
		}
	}
	hashes := func(hash func(password string) (string, error)) func(*memHost) {
		return func(h *memHost) {
			h.hash = func(ctx context.Context, password string) (string, error) { return hash(password) }
		}
	}
	hashed := func(change func(string) string) func(*memHost) {
		return hashes(func(password string) (string, error) { return hashOf(context.Background(), change(password)) })
	}
	sets := func(set func(h *memHost, ctx context.Context, userID, hash string) error) func(*memHost) {
		return func(h *memHost) {
			h.set = func(ctx context.Context, userID, hash string) error { return set(h, ctx, userID, hash) }
		}
	}
	outside := context.Background() // of the transaction
	ascii := func(s string) string {
		s, _, _ = transform.String(transform.Chain(norm.NFKD, runes.Remove(runes.Predicate(func(r rune) bool { return r > 127 })), cases.Fold()), s)
		return s
	}
	return []mutant[func(*memHost)]{
		{"addresses as they were typed", finds(func(a *memAccount, address string) bool { return a.Email == address }), []string{"FindByEmail/canonical form"}},
		{"lower(email)", finds(func(a *memAccount, address string) bool { return strings.ToLower(a.Email) == address }), []string{"FindByEmail/canonical form"}},
		{"another id", func(h *memHost) {
			h.find = func(ctx context.Context, address string) (reset.User, error) {
				u, err := h.findUser(ctx, address)
				u.ID += "0"
				return u, err
			}
		}, []string{"FindByEmail/canonical form", "concurrent use"}},
		{"a language, not its tag", func(h *memHost) {
			h.find = func(ctx context.Context, address string) (reset.User, error) {
				u, err := h.findUser(ctx, address)
				u.Locale = "English"
				return u, err
			}
		}, []string{"FindByEmail/canonical form"}},
		{"LIKE", finds(func(a *memAccount, address string) bool {
			if len(a.address) != len(address) {
				return false
			}
			for i := range len(address) {
				if a.address[i] != address[i] && address[i] != '_' {
					return false
				}
			}
			return true
		}), []string{"FindByEmail/other addresses"}},
		{"no dots", finds(func(a *memAccount, address string) bool {
			return strings.ReplaceAll(a.address, ".", "") == strings.ReplaceAll(address, ".", "")
		}), []string{"FindByEmail/other addresses"}},
		{"a collation", finds(func(a *memAccount, address string) bool { return ascii(a.address) == ascii(address) }), []string{"FindByEmail/other addresses"}},
		{"a unique collation", func(h *memHost) {
			h.signUp = func(ctx context.Context, email, password string) (string, error) {
				_, err := h.findWhere(ctx, func(a *memAccount) bool { return ascii(a.address) == ascii(canonical(email)) })
				if err == nil {
					return "", errors.New("duplicate key")
				}
				return h.insert(ctx, email, password)
			}
		}, []string{"FindByEmail/other addresses"}},
		{"no rows is an error of its own", func(h *memHost) {
			h.find = func(ctx context.Context, address string) (reset.User, error) {
				u, err := h.findUser(ctx, address)
				if errors.Is(err, reset.ErrNoUser) {
					err = errors.New("no rows in result set")
				}
				return u, err
			}
		}, []string{"FindByEmail/no user", "FindByEmail/barred", "concurrent use"}},
		{"administrators, too", finds(func(a *memAccount, address string) bool { return a.address == address }), []string{"FindByEmail/barred"}},
		{"the first of several", func(h *memHost) { h.signUp = h.insert }, []string{"FindByEmail/several users"}},
		{"unique as typed", func(h *memHost) {
			h.signUp = func(ctx context.Context, email, password string) (string, error) {
				if _, err := h.findWhere(ctx, func(a *memAccount) bool { return a.Email == email }); err == nil {
					return "", errors.New("duplicate key")
				}
				return h.insert(ctx, email, password)
			}
		}, []string{"FindByEmail/several users"}},
		{"every failure is no user", func(h *memHost) {
			h.find = func(ctx context.Context, address string) (reset.User, error) {
				u, err := h.findUser(ctx, address)
				if err != nil {
					err = reset.ErrNoUser
				}
				return u, err
			}
		}, []string{"FindByEmail/failure"}},
		{"72 bytes of a password", hashed(func(password string) string { return password[:min(len(password), 72)] }), []string{"HashPassword/long passwords"}},
		{"long passwords fail", hashes(func(password string) (string, error) {
			if len(password) > 72 {
				return "", errors.New("bcrypt: password length exceeds 72 bytes")
			}
			return hashOf(context.Background(), password)
		}), []string{"HashPassword/long passwords"}},
		{"long passwords are refused", hashes(func(password string) (string, error) {
			if len(password) > 72 {
				return "", &reset.PasswordError{Reason: "too_long"}
			}
			return hashOf(context.Background(), password)
		}), []string{"HashPassword/long passwords"}},
		{"passwords are trimmed", hashed(strings.TrimSpace), []string{"HashPassword/any character"}},
		{"passwords fold case", hashed(strings.ToLower), []string{"HashPassword/any character"}},
		{"nothing is saved", sets(func(h *memHost, ctx context.Context, userID, hash string) error {
			return h.saveHash(ctx, userID, func(*memAccount) {})
		}), []string{"SetPassword/password", "HashPassword/any character", "concurrent use"}},
		{"the old password stays", sets(func(h *memHost, ctx context.Context, userID, hash string) error {
			return h.saveHash(ctx, userID, func(a *memAccount) { a.hashes = append(a.hashes, hash) })
		}), []string{"SetPassword/password"}},
		{"sessions stay", sets(func(h *memHost, ctx context.Context, userID, hash string) error {
			return h.saveHash(ctx, userID, func(a *memAccount) { a.hashes = []string{hash} })
		}), []string{"SetPassword/sessions"}},
		{"one session ends", sets(func(h *memHost, ctx context.Context, userID, hash string) error {
			if err := h.saveHash(ctx, userID, func(a *memAccount) { a.hashes = []string{hash} }); err != nil {
				return err
			}
			ended := false
			return h.endSessions(ctx, func(owner string) bool {
				defer func() { ended = ended || owner == userID }()
				return !ended && owner == userID
			})
		}), []string{"SetPassword/sessions"}},
		{"every session ends", sets(func(h *memHost, ctx context.Context, userID, hash string) error {
			if err := h.setPassword(ctx, userID, hash); err != nil {
				return err
			}
			return h.endSessions(ctx, func(string) bool { return true })
		}), []string{"SetPassword/other users"}},
		{"every password changes", sets(func(h *memHost, ctx context.Context, userID, hash string) error {
			return h.write(ctx, func() {
				for i := range h.accounts {
					h.accounts[i].hashes = []string{hash}
				}
			})
		}), []string{"SetPassword/other users", "SetPassword/unknown user"}},
		{"no transaction", sets(func(h *memHost, ctx context.Context, userID, hash string) error {
			return h.setPassword(outside, userID, hash)
		}), []string{"SetPassword/transaction"}},
		{"the password outside of the transaction", sets(func(h *memHost, ctx context.Context, userID, hash string) error {
			if err := h.saveHash(outside, userID, func(a *memAccount) { a.hashes = []string{hash} }); err != nil {
				return err
			}
			return h.endSessions(ctx, func(owner string) bool { return owner == userID })
		}), []string{"SetPassword/transaction", "SetPassword/errors"}},
		{"the sessions outside of the transaction", sets(func(h *memHost, ctx context.Context, userID, hash string) error {
			if err := h.saveHash(ctx, userID, func(a *memAccount) { a.hashes = []string{hash} }); err != nil {
				return err
			}
			return h.endSessions(outside, func(owner string) bool { return owner == userID })
		}), []string{"SetPassword/transaction"}},
		{"it waits for its own lock", sets(func(_ *memHost, ctx context.Context, _, _ string) error {
			return context.DeadlineExceeded
		}), []string{"SetPassword/transaction", "SetPassword/password"}},
		{"errors are swallowed", sets(func(h *memHost, ctx context.Context, userID, hash string) error {
			err := h.setPassword(ctx, userID, hash)
			if errors.Is(err, reset.ErrNoUser) {
				return err
			}
			return nil
		}), []string{"SetPassword/errors"}},
		{"errors of the sessions are swallowed", sets(func(h *memHost, ctx context.Context, userID, hash string) error {
			err := h.saveHash(ctx, userID, func(a *memAccount) { a.hashes = []string{hash} })
			_ = h.endSessions(ctx, func(owner string) bool { return owner == userID })
			return err
		}), []string{"SetPassword/errors"}},
		{"nobody is changed without an error", sets(func(h *memHost, ctx context.Context, userID, hash string) error {
			err := h.setPassword(ctx, userID, hash)
			if errors.Is(err, reset.ErrNoUser) {
				return nil
			}
			return err
		}), []string{"SetPassword/unknown user"}},
		{"one call at a time", func(h *memHost) {
			var busy atomic.Bool
			h.find = func(ctx context.Context, address string) (reset.User, error) {
				if !busy.CompareAndSwap(false, true) {
					return reset.User{}, errors.New("statement in use")
				}
				defer busy.Store(false)
				yield()
				return h.findUser(ctx, address)
			}
		}, []string{"concurrent use"}},
	}
}
