// Package echo4ent is a host of package reset on echo 4 and ent, with any
// database of the two. Package ent is what ent makes of ent/schema.
package echo4ent

import (
	"context"
	"log"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/recipes/echo4_ent/ent"
	"github.com/gopassreset/reset/recipes/echo4_ent/ent/session"
	"github.com/gopassreset/reset/recipes/echo4_ent/ent/user"
	"github.com/gopassreset/reset/recipes/internal/host"
	storesql "github.com/gopassreset/reset/store_sql"
)

// New makes the host. The dialect is storesql.PostgreSQL, storesql.MySQL or
// storesql.SQLite.
func New(ctx context.Context, db *entsql.Driver, dialect storesql.Dialect, c host.Config) (*host.Host, error) {
	if err := storesql.CreateSchema(ctx, db.DB(), dialect); err != nil {
		return nil, err
	}
	store, err := storesql.New(ctx, db.DB(), dialect)
	if err != nil {
		return nil, err
	}
	u := &users{ent.NewClient(ent.Driver(db)), db.Dialect(), c.Hash}
	c.Reset.Users, c.Reset.Store = u, store
	svc, err := reset.New(c.Reset)
	if err != nil {
		return nil, err
	}

	e, l := echo.New(), log.New(c.AccessLog, "", log.LstdFlags)
	e.Use(middleware.RequestLoggerWithConfig(middleware.RequestLoggerConfig{
		LogMethod: true, LogURIPath: true, LogStatus: true, // not LogURI, which has the query
		LogValuesFunc: func(_ echo.Context, v middleware.RequestLoggerValues) error {
			l.Println(v.Method, v.URIPath, v.Status)
			return nil
		},
	}))
	e.Any("/account/*", echo.WrapHandler(svc.Pages()))
	e.Any("/v1/auth/*", echo.WrapHandler(svc.Handler()))
	e.Any("/*", echo.WrapHandler(host.Handler(u)))
	return &host.Host{Handler: e, Service: svc, Users: u, Store: store}, nil
}

// A joined driver writes in a transaction that others begin and end.
type joined struct{ *entsql.Driver }

func (j joined) Tx(context.Context) (dialect.Tx, error) { return dialect.NopTx(j), nil }
func (joined) Close() error                             { return nil }

// client returns ent's client on the transaction in ctx, if there is one.
func (u *users) client(ctx context.Context) *ent.Client {
	tx, ok := storesql.Tx(ctx) // the transaction that redeems the link
	if !ok {
		return u.db
	}
	return ent.NewClient(ent.Driver(joined{entsql.NewDriver(u.dialect, entsql.Conn{ExecQuerier: tx})}))
}

type users struct {
	db      *ent.Client
	dialect string
	host.Argon2id
}

func (u *users) FindByEmail(ctx context.Context, address string) (reset.User, error) {
	row, err := u.client(ctx).User.Query().Where(user.Address(address)).Only(ctx)
	if ent.IsNotFound(err) {
		return reset.User{}, reset.ErrNoUser
	}
	if err != nil {
		return reset.User{}, err
	}
	return reset.User{ID: row.ID, Email: row.Email}, nil
}

func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
	db := u.client(ctx)
	err := db.User.UpdateOneID(userID).SetHash(hash).Exec(ctx)
	if ent.IsNotFound(err) {
		return reset.ErrNoUser
	}
	if err != nil {
		return err
	}
	_, err = db.Session.Delete().Where(session.UserID(userID)).Exec(ctx)
	return err
}

func (u *users) AddUser(ctx context.Context, n host.User) error {
	return u.client(ctx).User.Create().SetID(n.ID).SetAddress(n.Address).SetEmail(n.Email).SetHash(n.Hash).Exec(ctx)
}

func (u *users) SignIn(ctx context.Context, address, password string) (string, error) {
	row, err := u.client(ctx).User.Query().Where(user.Address(address)).Only(ctx)
	if err != nil {
		return "", err
	}
	if !u.Matches(row.Hash, password) {
		return "", host.ErrPassword
	}
	id := host.NewID()
	return id, u.client(ctx).Session.Create().SetID(id).SetUserID(row.ID).Exec(ctx)
}

func (u *users) UserOf(ctx context.Context, id string) (string, error) {
	row, err := u.client(ctx).Session.Get(ctx, id)
	if err != nil {
		return "", err
	}
	return row.UserID, nil
}
