// Package chipgx is a host of package reset on chi, pgx and the code that sqlc
// makes of query.sql; .ci/generated compares.
package chipgx

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/recipes/chi_pgx/query"
	"github.com/gopassreset/reset/recipes/internal/host"
	storepgx "github.com/gopassreset/reset/store_pgx"
)

//go:generate go run github.com/sqlc-dev/sqlc/cmd/sqlc@v1.31.1 generate

// New makes the host.
func New(ctx context.Context, pool *pgxpool.Pool, c host.Config) (*host.Host, error) {
	if err := storepgx.CreateSchema(ctx, pool); err != nil {
		return nil, err
	}
	store, err := storepgx.New(ctx, pool)
	if err != nil {
		return nil, err
	}
	u := &users{query.New(pool), c.Hash}
	c.Reset.Users, c.Reset.Store = u, store
	svc, err := reset.New(c.Reset)
	if err != nil {
		return nil, err
	}

	r := chi.NewRouter()
	l := log.New(c.AccessLog, "", log.LstdFlags)
	r.Use(withoutQuery, middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: l, NoColor: true}))
	r.Mount("/account", svc.Pages())
	r.Handle("/v1/auth/*", svc.Handler())
	r.Mount("/", host.Handler(u))
	return &host.Host{Handler: r, Service: svc, Users: u, Store: store}, nil
}

// withoutQuery hides the query from loggers that write RequestURI, as chi's does.
func withoutQuery(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RequestURI = r.URL.EscapedPath()
		next.ServeHTTP(w, r)
	})
}

type users struct {
	q *query.Queries
	host.Argon2id
}

func (u *users) FindByEmail(ctx context.Context, address string) (reset.User, error) {
	row, err := u.q.UserByAddress(ctx, address)
	if errors.Is(err, pgx.ErrNoRows) {
		err = reset.ErrNoUser
	}
	return reset.User{ID: row.ID, Email: row.Email}, err
}

func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
	tx, ok := storepgx.Tx(ctx) // the transaction that redeems the link
	if !ok {
		return fmt.Errorf("%w: no transaction", reset.ErrNotChanged)
	}
	q := u.q.WithTx(tx)
	n, err := q.SetHash(ctx, query.SetHashParams{ID: userID, Hash: hash})
	if err != nil {
		return err
	}
	if n == 0 {
		return reset.ErrNoUser
	}
	return q.EndSessions(ctx, userID)
}

func (u *users) AddUser(ctx context.Context, n host.User) error {
	return u.q.AddUser(ctx, query.AddUserParams(n))
}

func (u *users) SignIn(ctx context.Context, address, password string) (string, error) {
	row, err := u.q.UserByAddress(ctx, address)
	if err != nil {
		return "", err
	}
	if !u.Matches(row.Hash, password) {
		return "", host.ErrPassword
	}
	session := host.NewID()
	return session, u.q.AddSession(ctx, query.AddSessionParams{ID: session, UserID: row.ID})
}

func (u *users) UserOf(ctx context.Context, session string) (string, error) {
	return u.q.UserOfSession(ctx, session)
}
