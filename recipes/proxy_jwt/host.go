// Package proxyjwt is a host of package reset behind a proxy that ends TLS and
// strips a prefix: https://app.example.com/shop/account arrives as /account.
// It has its users in the file of the store, and no table of sessions: they are
// signed tokens (JWT) with a version, which ends them.
package proxyjwt

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"log"
	"net/http"
	"net/netip"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/recipes/internal/host"
	storebun "github.com/gopassreset/reset/store_bun"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// New makes the host. BaseURL is the public one, with the prefix. proxies is the
// network of the proxy, and key signs tokens.
func New(store *storesqlite.Store, proxies netip.Prefix, key []byte, c host.Config) (*host.Host, error) {
	u := &users{store.DB(), key, c.Hash}
	c.Reset.Users, c.Reset.Store = u, store
	c.Reset.ClientIP = reset.ClientIPBehind(proxies)
	svc, err := reset.New(c.Reset)
	if err != nil {
		return nil, err
	}

	mux := http.NewServeMux()
	mux.Handle("/account/", http.StripPrefix("/account", svc.Pages())) // the path of BaseURL less what the proxy strips
	mux.Handle("/v1/auth/", svc.Handler())
	mux.Handle("/", host.Handler(u))
	return &host.Host{Handler: logPaths(mux, c.AccessLog), Service: svc, Users: u, Store: store}, nil
}

// logPaths writes an access log. That of the proxy must leave the query out, too.
func logPaths(next http.Handler, w io.Writer) http.Handler {
	l := log.New(w, "", log.LstdFlags)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.Println(r.Method, r.URL.Path)
		next.ServeHTTP(w, r)
	})
}

type users struct {
	db  *bun.DB
	key []byte
	host.Argon2id
}

func (u *users) FindByEmail(ctx context.Context, address string) (found reset.User, err error) {
	row := u.db.QueryRowContext(ctx, "SELECT id, email FROM users WHERE address = ?", address)
	if err = row.Scan(&found.ID, &found.Email); errors.Is(err, sql.ErrNoRows) {
		err = reset.ErrNoUser
	}
	return found, err
}

func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
	db := storebun.IDB(ctx, u.db) // the transaction that redeems the link
	result, err := db.ExecContext(ctx, "UPDATE users SET hash = ?, version = version + 1 WHERE id = ?", hash, userID)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, reset.ErrNoUser)
	}
	return nil
}

func (u *users) AddUser(ctx context.Context, n host.User) error {
	_, err := u.db.NewInsert().Model(&n).Exec(ctx)
	return err
}

// claims are those of a session's token.
type claims struct {
	jwt.RegisteredClaims
	Version int `json:"ver"` // must be the user's
}

func (u *users) SignIn(ctx context.Context, address, password string) (string, error) {
	var id, hash string
	var version int
	row := u.db.QueryRowContext(ctx, "SELECT id, hash, version FROM users WHERE address = ?", address)
	if err := row.Scan(&id, &hash, &version); err != nil {
		return "", err
	}
	if !u.Matches(hash, password) {
		return "", host.ErrPassword
	}
	expires := jwt.NewNumericDate(time.Now().Add(12 * time.Hour))
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims{jwt.RegisteredClaims{Subject: id, ExpiresAt: expires}, version}).SignedString(u.key)
}

func (u *users) UserOf(ctx context.Context, session string) (string, error) {
	var c claims
	key := func(*jwt.Token) (any, error) { return u.key, nil }
	if _, err := jwt.ParseWithClaims(session, &c, key, jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired()); err != nil {
		return "", err
	}
	var version int
	if err := u.db.QueryRowContext(ctx, "SELECT version FROM users WHERE id = ?", c.Subject).Scan(&version); err != nil {
		return "", err
	}
	if c.Version != version {
		return "", errors.New("the session was ended")
	}
	return c.Subject, nil
}
