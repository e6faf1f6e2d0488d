package resettest

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/text/language"

	"github.com/gopassreset/reset"
)

// A UsersHost is what TestUsers needs of a host: the Users and the Store of
// production, on a database for tests, and the host's own sign-up and sign-in.
type UsersHost struct {
	Users reset.Users
	Store reset.Store

	// SignUp adds an account as the host's sign-up does and returns its id.
	SignUp func(ctx context.Context, email, password string) (userID string, err error)
	// SignIn starts a session as the host's sign-in does, or fails, for instance
	// because the password is wrong. alive reports whether the session still
	// gives access to the account.
	SignIn func(ctx context.Context, email, password string) (alive func(context.Context) (bool, error), err error)

	// UsersElsewhere says that Store is in the mode "users elsewhere". Defaults
	// to false.
	UsersElsewhere bool
	// SessionsElsewhere says that sessions are not in the database of Store, so
	// that they may end although the password is not changed. Defaults to false.
	SessionsElsewhere bool
	// MaxPasswordBytes is Config.MaxPasswordBytes. Defaults to 1,024.
	MaxPasswordBytes int
	// ASCIIOnly says that SignUp refuses addresses with letters outside ASCII.
	// Defaults to false.
	ASCIIOnly bool
	// Barred are addresses of accounts that must not be reset by mail: disabled
	// ones, administrators. Defaults to none.
	Barred []string
	// UnknownID has the form of the host's user ids and belongs to no user.
	// Defaults to "0".
	UnknownID string
}

// TestUsers tests a host's Users on its real database. Each subtest tests one
// promise of reset.Users with accounts that it adds itself, at example.com and
// bücher.example, and says what to change. The accounts stay.
func TestUsers(t *testing.T, h UsersHost) {
	if h.Users == nil || h.Store == nil || h.SignUp == nil || h.SignIn == nil {
		t.Fatal("resettest: UsersHost needs Users, Store, SignUp and SignIn")
	}
	failed := inOrder(usersSentences(h), 1, func(s sentence[*usersCheck]) bool {
		return t.Run(s.name, func(t *testing.T) {
			cite(t, s.quote)
			s.check(&usersCheck{t, h})
		})
	})
	if failed != "" {
		t.Fatalf("without %s no password can be changed: nothing else was tested", failed)
	}
}

// usersSentences returns the promises that a host has to keep. The others need
// the first one.
func usersSentences(h UsersHost) []sentence[*usersCheck] {
	const (
		canonical = "FindByEmail returns the user whose address has the given canonical form."
		unknown   = "It returns ErrNoUser when there is no such user and when the account must not be reset by mail"
		hashes    = "HashPassword returns the hash that SetPassword saves."
		long      = "It takes every password of at most Config.MaxPasswordBytes"
		sets      = "SetPassword saves the hash and ends every session of the user."
		through   = "SetPassword then writes through that transaction, returns every error of it"
	)
	all := []sentence[*usersCheck]{
		{"SetPassword/password", sets, (*usersCheck).setPassword},
		{"FindByEmail/canonical form", canonical, (*usersCheck).findCanonical},
		{"FindByEmail/other addresses", canonical, (*usersCheck).findOthers},
		{"FindByEmail/no user", unknown, (*usersCheck).findNobody},
		{"FindByEmail/several users", "ErrManyUsers when several users share the address.", (*usersCheck).findSeveral},
		{"FindByEmail/failure", "Any other error says that the lookup failed", (*usersCheck).findFails},
		{"HashPassword/long passwords", long, (*usersCheck).hashLong},
		{"HashPassword/any character", hashes, (*usersCheck).hashAnyCharacter},
		{"SetPassword/sessions", sets, (*usersCheck).setEndsSessions},
		{"SetPassword/other users", sets, (*usersCheck).setSparesOthers},
		{"SetPassword/errors", through, (*usersCheck).setReturnsErrors},
		{"SetPassword/unknown user", "It returns ErrNoUser if the user is gone", (*usersCheck).setUnknown},
		{"concurrent use", "It is safe for concurrent use.", (*usersCheck).concurrent},
	}
	if len(h.Barred) > 0 {
		all = append(all, sentence[*usersCheck]{"FindByEmail/barred", unknown, (*usersCheck).findBarred})
	}
	if !h.UsersElsewhere {
		all = slices.Insert(all, 0, sentence[*usersCheck]{"SetPassword/transaction", through, (*usersCheck).setIsUndone})
	}
	return all
}

type usersCheck struct {
	testing.TB
	UsersHost
}

const (
	firstPassword  = "The 1st quiet passphrase."
	secondPassword = "Another 2nd passphrase, unhurried."
	redeemTimeout  = 10 * time.Second

	hintTransaction = "write through the transaction in its context, as the store's package returns it: storebun.IDB(ctx, db), storebun.Tx(ctx), " +
		"storesql.Tx(ctx), storepgx.Tx(ctx); if the users are in another database, open the store with UsersElsewhere"
)

var errUndo = errors.New("undo")

// An account is one that the host has signed up.
type account struct{ id, email string }

// unique returns an address that no account has yet. form has a * for the part
// that makes it so.
func unique(form string) string {
	return strings.Replace(form, "*", strings.ToLower(crand.Text()[:12]), 1)
}

// signUp adds an account with the first password.
func (c *usersCheck) signUp(email string) account {
	c.Helper()
	id, err := c.SignUp(c.Context(), email, firstPassword)
	if err != nil {
		c.Fatalf("SignUp of %q: %v", email, err)
	}
	return account{id, email}
}

// signIn must succeed.
func (c *usersCheck) signIn(a account, password string) (alive func() bool) {
	c.Helper()
	session, err := c.SignIn(c.Context(), a.email, password)
	if err != nil {
		c.Fatalf("SignIn of %q: %v", a.email, err)
	}
	alive = func() bool {
		c.Helper()
		is, err := session(c.Context())
		if err != nil {
			c.Fatalf("a session of %q: %v", a.email, err)
		}
		return is
	}
	if !alive() {
		c.Fatalf("the session of %q is not alive after SignIn", a.email)
	}
	return alive
}

// opens reports whether a password opens an account.
func (c *usersCheck) opens(a account, password string) bool {
	_, err := c.SignIn(c.Context(), a.email, password)
	return err == nil
}

// find looks an address up, in its canonical form.
func (c *usersCheck) find(email string) (reset.User, error) {
	c.Helper()
	address, err := reset.CanonicalAddress(email)
	if err != nil {
		c.Fatalf("CanonicalAddress: %v", err)
	}
	return c.Users.FindByEmail(c.Context(), address)
}

func (c *usersCheck) wantFound(a account) {
	c.Helper()
	u, err := c.find(a.email)
	if err != nil {
		c.Errorf("FindByEmail does not find the account that was signed up as %q: %v; "+
			"keep reset.CanonicalAddress of each address in a column and compare with that", a.email, err)
		return
	}
	if u.ID != a.id {
		c.Errorf("FindByEmail of %q returned the user %q, want %q", a.email, u.ID, a.id)
	}
	got, err := reset.CanonicalAddress(u.Email)
	if want, _ := reset.CanonicalAddress(a.email); err != nil || got != want {
		c.Errorf("FindByEmail returned User.Email %q for the account of %q; return the address as it is stored", u.Email, a.email)
	}
	if _, err := language.Parse(u.Locale); u.Locale != "" && err != nil {
		c.Errorf("FindByEmail returned User.Locale %q: %v; return a BCP 47 tag such as pt-BR, or the empty string", u.Locale, err)
	}
}

// redeem changes a password as the Service does. SetPassword is called by set.
func (c *usersCheck) redeem(userID, password string, set func(ctx context.Context, hash string) error) error {
	ctx, cancel := context.WithTimeout(c.Context(), redeemTimeout)
	defer cancel()
	hash, err := c.Users.HashPassword(ctx, password)
	if err != nil {
		return fmt.Errorf("HashPassword: %w", err)
	}
	now := time.Now()
	a := reset.Activation{
		Hash: sha256.Sum256([]byte(crand.Text())), Request: newID(now), UserID: userID,
		Email: "user@example.com", Expires: now.Add(time.Minute),
	}
	if _, err := c.Store.Issue(ctx, now, a, reset.Limits{MaxRequests: 100}, nil); err != nil {
		return fmt.Errorf("Issue: %w", err)
	}
	// The notification expires before it can be mailed.
	notification := reset.Mail{
		ID: newID(now), Kind: reset.MailNotification, UserID: userID, Email: a.Email, Due: now, Expires: now.Add(ms),
	}
	err = c.Store.Redeem(ctx, now, a, notification, func(ctx context.Context) error { return set(ctx, hash) })
	if err != nil {
		_ = c.Store.Revoke(c.Context(), start, userID, time.Time{}) // the activation may be live again
	}
	return err
}

// change changes the password of an account, which must succeed.
func (c *usersCheck) change(a account, password string) {
	c.Helper()
	err := c.redeem(a.id, password, func(ctx context.Context, hash string) error {
		return c.Users.SetPassword(ctx, a.id, hash)
	})
	if err != nil {
		c.Fatalf("SetPassword for %q: %v; if a statement waited for a lock, it bypassed the transaction", a.email, err)
	}
}

// nonASCII are addresses as a person types them.
var nonASCII = []string{"Ärger-*@example.com", "a\u0308rger-*@example.com", "user-*@Bücher.example", "用户-*@example.com"}

func (c *usersCheck) findCanonical() {
	forms := []string{"plain-*@example.com", "Mixed.Case-*@Example.COM", "user+tag_-*@example.com", "o'hara-*@example.com"}
	if !c.ASCIIOnly {
		forms = append(forms, nonASCII...)
	}
	for _, form := range forms {
		c.wantFound(c.signUp(unique(form)))
	}
	if !c.ASCIIOnly {
		return
	}
	for _, form := range nonASCII {
		if _, err := c.SignUp(c.Context(), unique(form), firstPassword); err == nil {
			c.Errorf("SignUp took an address like %q; do not set ASCIIOnly", form)
		}
	}
}

const noRow = "return reset.ErrNoUser where the database finds no row (sql.ErrNoRows)"

func (c *usersCheck) findOthers() {
	pairs := [][2]string{
		{"a_b-*@example.com", "axb-*@example.com"}, // a pattern of LIKE
		{"a.b-*@example.com", "ab-*@example.com"},
		{"a+b-*@example.com", "a-*@example.com"},
	}
	if !c.ASCIIOnly {
		pairs = append(pairs, [][2]string{ // equal under some collation
			{"résumé-*@example.com", "resume-*@example.com"},
			{"straße-*@example.com", "strasse-*@example.com"},
			{"mıke-*@example.com", "mike-*@example.com"},
			{"æva-*@example.com", "aeva-*@example.com"},
			{"よも-*@example.com", "ヨモ-*@example.com"},
		}...)
	}
	for _, pair := range pairs {
		for i, form := range pair {
			same := strings.ToLower(crand.Text()[:12])
			first, second := strings.Replace(form, "*", same, 1), strings.Replace(pair[1-i], "*", same, 1)
			a := c.signUp(first)
			if u, err := c.find(second); !errors.Is(err, reset.ErrNoUser) {
				advice := "compare addresses with = as bytes: a binary collation, no LIKE, no folding of your own"
				if err != nil || u == (reset.User{}) {
					advice = noRow
				}
				c.Errorf("FindByEmail of %q returned %+v, %v, while only %q has an account; %s", second, u, err, first, advice)
				continue
			}
			id, err := c.SignUp(c.Context(), second, firstPassword)
			if err != nil {
				c.Errorf("SignUp of %q failed while %q has an account: %v; give the column of the canonical address a binary collation", second, first, err)
				continue
			}
			c.wantFound(a)
			c.wantFound(account{id, second})
		}
	}
}

func (c *usersCheck) findNobody() {
	for _, form := range []string{"nobody-*@example.com", "%-*@example.com", "nobody-*@bücher.example"} {
		email := unique(form)
		if u, err := c.find(email); !errors.Is(err, reset.ErrNoUser) {
			c.Errorf("FindByEmail of %q, which has no account, returned %+v, %v; %s", email, u, err, noRow)
		}
	}
}

func (c *usersCheck) findBarred() {
	for _, email := range c.Barred {
		if u, err := c.find(email); !errors.Is(err, reset.ErrNoUser) {
			c.Errorf("FindByEmail of %q, which must not be reset by mail, returned %+v, %v; return reset.ErrNoUser", email, u, err)
		}
	}
}

func (c *usersCheck) findSeveral() {
	email := unique("several-*@example.com")
	c.signUp(email)
	for _, variant := range []string{email, strings.ToUpper(email)} {
		if _, err := c.SignUp(c.Context(), variant, firstPassword); err != nil {
			continue // one account an address
		}
		if u, err := c.find(email); !errors.Is(err, reset.ErrManyUsers) {
			c.Errorf("FindByEmail of %q returned %+v, %v, while %q has an account too; "+
				"make the column of the canonical address unique, or return reset.ErrManyUsers", email, u, err, variant)
		}
	}
}

func (c *usersCheck) findFails() {
	a := c.signUp(unique("failure-*@example.com"))
	address, _ := reset.CanonicalAddress(a.email)
	if _, err := c.Users.FindByEmail(canceled(c.Context()), address); errors.Is(err, reset.ErrNoUser) {
		c.Errorf("FindByEmail under a cancelled context returned %v for a user that exists; "+
			"return reset.ErrNoUser only where the database has answered: an outage would drop the user's mail", err)
	}
}

// hashed sets a password and checks that it alone opens the account. other is
// one that differs where a careless hash looks no longer.
func (c *usersCheck) hashed(password, other string) {
	c.Helper()
	a := c.signUp(unique("hash-*@example.com"))
	c.change(a, password)
	if !c.opens(a, password) {
		c.Errorf("a password of %d bytes, %.20q…, does not open the account once it was set; "+
			"store the whole hash, and change no password before hashing, neither here nor at sign-in", len(password), password)
	}
	if c.opens(a, other) {
		c.Errorf("the account with a password of %d bytes opens with another one; hash all of the password, %s", len(password), hintLong)
	}
}

const (
	defaultMaxPassword = 1024 // bytes
	maxCharacters      = 256

	hintLong = "or set Config.MaxPasswordBytes, and UsersHost.MaxPasswordBytes, to what it takes: 72 for bcrypt"
)

// longest returns a password of n bytes that nobody guesses, and another one
// that differs in the last character only.
func longest(n int) (password, other string) {
	animals := max(0, (n-maxCharacters+2)/3) // of four bytes each
	for range animals {
		password += string('🐀' + rand.N('🐿'-'🐀'))
	}
	for len(password) < n {
		password += string('a' + rand.N('z'-'a'))
	}
	_, last := utf8.DecodeLastRuneInString(password)
	return password, password[:n-last] + "!"
}

func (c *usersCheck) hashLong() {
	most := cmp.Or(c.MaxPasswordBytes, defaultMaxPassword)
	for _, n := range []int{64, 72, 73, 244, most} { // 64 is what NIST SP 800-63B-4 asks for
		if n > most {
			continue
		}
		password, other := longest(n)
		if _, err := c.Users.HashPassword(c.Context(), password); err != nil {
			c.Errorf("HashPassword of %d bytes: %v; hash long passwords (argon2id, scrypt), %s", n, err, hintLong)
			continue
		}
		c.hashed(password, other)
	}
}

func (c *usersCheck) hashAnyCharacter() {
	for _, pair := range [][2]string{
		{" spaces at both ends ", "spaces at both ends"},
		{"Pässwörter aus Zürich", "Passworter aus Zurich"},
		{"CaSe MaTtErS hErE", "case matters here"},
		{`quotes ' " \ % $ {} <b> &amp;`, `quotes ' " \ % $ {} <b> &`},
	} {
		c.hashed(pair[0], pair[1])
	}
}

func (c *usersCheck) setPassword() {
	a := c.signUp(unique("set-*@example.com"))
	c.change(a, secondPassword)
	if !c.opens(a, secondPassword) {
		c.Errorf("the new password does not open the account; SetPassword must save the hash where SignIn reads it")
	}
	if c.opens(a, firstPassword) {
		c.Errorf("the old password still opens the account; SetPassword must replace the hash")
	}
}

func (c *usersCheck) setEndsSessions() {
	a := c.signUp(unique("sessions-*@example.com"))
	sessions := []func() bool{c.signIn(a, firstPassword), c.signIn(a, firstPassword), c.signIn(a, firstPassword)}
	c.change(a, secondPassword)
	for i, alive := range sessions {
		if alive() {
			c.Errorf("session %d of %d is alive after SetPassword; end every session of the user in SetPassword: "+
				"delete its rows, or count up a version that each token carries", i+1, len(sessions))
		}
	}
	c.signIn(a, secondPassword)
}

func (c *usersCheck) setSparesOthers() {
	a, other := c.signUp(unique("one-*@example.com")), c.signUp(unique("two-*@example.com"))
	alive := c.signIn(other, firstPassword)
	c.change(a, secondPassword)
	if !alive() || !c.opens(other, firstPassword) {
		c.Errorf("SetPassword for one user ended a session or changed the password of another; restrict each statement to the user's id")
	}
}

// setIsUndone lets the transaction fail once SetPassword has succeeded.
func (c *usersCheck) setIsUndone() {
	a := c.signUp(unique("undone-*@example.com"))
	alive := c.signIn(a, firstPassword)
	err := c.redeem(a.id, secondPassword, func(ctx context.Context, hash string) error {
		if err := c.Users.SetPassword(ctx, a.id, hash); err != nil {
			return err
		}
		return errUndo
	})
	if !errors.Is(err, errUndo) {
		c.Fatalf("SetPassword failed in the store's transaction: %v; if a statement waited for a lock, it bypassed the transaction: every statement must %s", err, hintTransaction)
	}
	if c.opens(a, secondPassword) || !c.opens(a, firstPassword) {
		c.Errorf("the new password stayed although the transaction was undone; SetPassword must %s", hintTransaction)
	}
	if !c.SessionsElsewhere && !alive() {
		c.Errorf("the session ended although the transaction was undone; the statements that end sessions must %s", hintTransaction)
	}
}

// setReturnsErrors stops SetPassword at each point where it can stop.
func (c *usersCheck) setReturnsErrors() {
	sweep(c.Context(), func(ctx context.Context, _ string) {
		fuse := ctx.(*fuse)
		a := c.signUp(unique("errors-*@example.com"))
		alive := c.signIn(a, firstPassword)
		var set error
		err := c.redeem(a.id, secondPassword, func(ctx context.Context, hash string) error {
			set = c.Users.SetPassword(&burning{ctx, fuse}, a.id, hash)
			return set
		})
		switch changed := c.opens(a, secondPassword); {
		case set == nil && err == nil && (!changed || alive()):
			c.Errorf("SetPassword returned nil under a context that was cancelled on the way; changed: %t, a session is alive: %t; "+
				"return the error of every statement", changed, alive())
		case set != nil && !c.UsersElsewhere && (changed || !c.SessionsElsewhere && !alive()):
			c.Errorf("SetPassword returned %v, and its transaction was undone; changed: %t, a session is alive: %t; "+
				"every statement must %s", set, changed, alive(), hintTransaction)
		}
	})
}

// A burning context has the values of a transaction's context and ends with a
// fuse.
type burning struct {
	context.Context
	fuse *fuse
}

func (b *burning) Done() <-chan struct{} { return b.fuse.Done() }
func (b *burning) Err() error            { return b.fuse.Err() }

func (c *usersCheck) setUnknown() {
	id := c.UnknownID
	if id == "" {
		id = "0"
	}
	err := c.redeem(id, secondPassword, func(ctx context.Context, hash string) error {
		return c.Users.SetPassword(ctx, id, hash)
	})
	if !errors.Is(err, reset.ErrNoUser) {
		c.Errorf("SetPassword for the user %q, who does not exist, returned %v; return reset.ErrNoUser if the UPDATE found no row "+
			"(and set UnknownID if ids have another form)", id, err)
	}
}

func (c *usersCheck) concurrent() {
	const n = 4
	accounts := make([]account, n)
	for i := range accounts {
		accounts[i] = c.signUp(unique("concurrent-*@example.com"))
	}
	parallel(3*n, func(i int) {
		a := accounts[i%n]
		var err error
		switch i / n {
		case 0:
			password := fmt.Sprint(secondPassword, i)
			err = c.redeem(a.id, password, func(ctx context.Context, hash string) error { return c.Users.SetPassword(ctx, a.id, hash) })
			if err == nil && !c.opens(a, password) {
				err = errors.New("the new password does not open the account")
			}
		case 1:
			var u reset.User
			if u, err = c.Users.FindByEmail(c.Context(), a.email); err == nil && u.ID != a.id {
				err = fmt.Errorf("FindByEmail returned the user %q, want %q", u.ID, a.id)
			}
		case 2:
			if _, err = c.Users.FindByEmail(c.Context(), unique("nobody-*@example.com")); errors.Is(err, reset.ErrNoUser) {
				err = nil
			}
		}
		if err != nil {
			c.Errorf("calls from %d goroutines: %v; all requests share Users: keep nothing of one call in it", 3*n, err)
		}
	})
}
