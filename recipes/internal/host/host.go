// Package host is the part of each recipe that has nothing to do with package
// reset: password hashes and sign-in.
package host

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/gopassreset/reset"
)

// Config is what a recipe gets from its main function.
type Config struct {
	Reset     reset.Config // without Users and Store
	AccessLog io.Writer
	Hash      Argon2id
}

// A Host is what a recipe makes of that.
type Host struct {
	Handler http.Handler
	Service *reset.Service // its Run delivers the mail
	Users   Users
	Store   reset.Store
	// ChangePassword is the settings page's, if there is one.
	ChangePassword func(ctx context.Context, email, oldPassword, newPassword string) error
}

// Users are the accounts of a host: what package reset needs of them, sign-up
// and sign-in.
type Users interface {
	reset.Users
	AddUser(ctx context.Context, u User) error
	// SignIn gets the canonical form of an address.
	SignIn(ctx context.Context, address, password string) (session string, err error)
	// UserOf returns an error unless the session is alive.
	UserOf(ctx context.Context, session string) (userID string, err error)
}

// A User is a row of the table users.
type User struct {
	ID      string
	Address string // reset.CanonicalAddress(Email)
	Email   string
	Hash    string
}

// SignUp adds a user. A host that lets people do that themselves first has them
// confirm the address.
func SignUp(ctx context.Context, u Users, email, password string) (userID string, err error) {
	address, err := reset.CanonicalAddress(email)
	if err != nil {
		return "", err
	}
	hash, err := u.HashPassword(ctx, password)
	if err != nil {
		return "", err
	}
	n := User{NewID(), address, email, hash}
	return n.ID, u.AddUser(ctx, n)
}

// SignIn starts a session.
func SignIn(ctx context.Context, u Users, email, password string) (session string, err error) {
	address, err := reset.CanonicalAddress(email)
	if err != nil {
		return "", err
	}
	return u.SignIn(ctx, address, password)
}

// ErrPassword says that a password is wrong.
var ErrPassword = errors.New("wrong password")

const cookie = "session"

// Handler returns the handler of
//
//	POST /sign-in  form: email, password; starts a session, which is a cookie
//	GET  /me       the id of the user who is signed in
func Handler(u Users) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		session, err := SignIn(r.Context(), u, r.PostFormValue("email"), r.PostFormValue("password"))
		if err != nil {
			http.Error(w, "sign-in failed", http.StatusUnauthorized)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: cookie, Value: session, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, r *http.Request) {
		session, err := r.Cookie(cookie)
		if err != nil {
			http.Error(w, "not signed in", http.StatusUnauthorized)
			return
		}
		id, err := u.UserOf(r.Context(), session.Value)
		if err != nil {
			http.Error(w, "not signed in", http.StatusUnauthorized)
			return
		}
		io.WriteString(w, id)
	})
	return http.NewCrossOriginProtection().Handler(mux)
}

// NewID returns an id for a user or a session.
func NewID() string { return rand.Text() }

// Argon2id hashes passwords. The zero value follows the advice of OWASP.
type Argon2id struct {
	KiB uint32 // of memory; defaults to 19 MiB
}

// HashPassword implements that method of [reset.Users].
func (a Argon2id) HashPassword(_ context.Context, password string) (string, error) {
	return a.hash(rand.Text(), password), nil
}

// Matches reports whether a hash is that of a password.
func (a Argon2id) Matches(hash, password string) bool {
	salt, _, _ := strings.Cut(hash, "$")
	return subtle.ConstantTimeCompare([]byte(hash), []byte(a.hash(salt, password))) == 1
}

func (a Argon2id) hash(salt, password string) string {
	if a.KiB == 0 {
		a.KiB = 19 << 10
	}
	return salt + "$" + base64.RawStdEncoding.EncodeToString(argon2.IDKey([]byte(password), []byte(salt), 2, a.KiB, 1, 32))
}
