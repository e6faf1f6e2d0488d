// Package nethttpsql is a host of package reset on net/http and database/sql,
// with SQLite, MariaDB or MySQL.
package nethttpsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/recipes/internal/host"
	storesql "github.com/gopassreset/reset/store_sql"
)

// New makes the host. The dialect is storesql.MySQL or storesql.SQLite.
func New(ctx context.Context, db *sql.DB, dialect storesql.Dialect, c host.Config) (*host.Host, error) {
	if err := storesql.CreateSchema(ctx, db, dialect); err != nil {
		return nil, err
	}
	store, err := storesql.New(ctx, db, dialect)
	if err != nil {
		return nil, err
	}
	u := &users{db, c.Hash}
	c.Reset.Users, c.Reset.Store = u, store
	svc, err := reset.New(c.Reset)
	if err != nil {
		return nil, err
	}

	mux := http.NewServeMux()
	mux.Handle("/account/", svc.Pages())
	mux.Handle("/v1/auth/", svc.Handler())
	mux.Handle("/", host.Handler(u))
	return &host.Host{Handler: logPaths(mux, c.AccessLog), Service: svc, Users: u, Store: store}, nil
}

// logPaths writes an access log.
func logPaths(next http.Handler, w io.Writer) http.Handler {
	l := log.New(w, "", log.LstdFlags)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.Println(r.Method, r.URL.Path) // not r.URL or r.RequestURI, which have the query
		next.ServeHTTP(w, r)
	})
}

type users struct {
	db *sql.DB
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
	tx, ok := storesql.Tx(ctx) // the transaction that redeems the link
	if !ok {
		return fmt.Errorf("%w: no transaction", reset.ErrNotChanged)
	}
	result, err := tx.ExecContext(ctx, "UPDATE users SET hash = ? WHERE id = ?", hash, userID)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, reset.ErrNoUser)
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM sessions WHERE user_id = ?", userID)
	return err
}

func (u *users) AddUser(ctx context.Context, n host.User) error {
	_, err := u.db.ExecContext(ctx, "INSERT INTO users (id, address, email, hash) VALUES (?, ?, ?, ?)", n.ID, n.Address, n.Email, n.Hash)
	return err
}

func (u *users) SignIn(ctx context.Context, address, password string) (string, error) {
	var id, hash string
	if err := u.db.QueryRowContext(ctx, "SELECT id, hash FROM users WHERE address = ?", address).Scan(&id, &hash); err != nil {
		return "", err
	}
	if !u.Matches(hash, password) {
		return "", host.ErrPassword
	}
	session := host.NewID()
	_, err := u.db.ExecContext(ctx, "INSERT INTO sessions (id, user_id) VALUES (?, ?)", session, id)
	return session, err
}

func (u *users) UserOf(ctx context.Context, session string) (userID string, err error) {
	err = u.db.QueryRowContext(ctx, "SELECT user_id FROM sessions WHERE id = ?", session).Scan(&userID)
	return userID, err
}
