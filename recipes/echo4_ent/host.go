// Package echo4ent is a host of package reset on echo 4 and ent, with any
// database of the two. It uses the driver as the code that ent generates does,
// to do without the thousands of lines of that.
package echo4ent

import (
	"context"
	"errors"
	"log"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/sqlgraph"
	"entgo.io/ent/schema/field"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/gopassreset/reset"
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
	u := &users{db, c.Hash}
	c.Reset.Users, c.Reset.Store = u, store
	svc, err := reset.New(c.Reset)
	if err != nil {
		return nil, err
	}

	e := echo.New()
	l := log.New(c.AccessLog, "", log.LstdFlags)
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

// driver returns what ent's client works on: ent.NewClient(ent.Driver(d)).
func (u *users) driver(ctx context.Context) dialect.Driver {
	tx, ok := storesql.Tx(ctx) // the transaction that redeems the link
	if !ok {
		return u.db
	}
	return joined{entsql.NewDriver(u.db.Dialect(), entsql.Conn{ExecQuerier: tx})}
}

type users struct {
	db *entsql.Driver
	host.Argon2id
}

func (u *users) FindByEmail(ctx context.Context, address string) (reset.User, error) {
	row, err := one[host.User](ctx, u.driver(ctx), u.byAddress(address))
	return reset.User{ID: row.ID, Email: row.Email}, err
}

func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
	d := u.driver(ctx)

	// client.User.UpdateOneID(userID).SetHash(hash).Exec(ctx)
	set := sqlgraph.NewUpdateSpec("users", []string{"id"}, &sqlgraph.FieldSpec{Column: "id", Type: field.TypeString, Value: userID})
	set.Node.ID.Value = userID
	set.SetField("hash", field.TypeString, hash)
	set.ScanValues = func([]string) ([]any, error) { return []any{new(string)}, nil }
	set.Assign = func([]string, []any) error { return nil }
	if err := sqlgraph.UpdateNode(ctx, d, set); err != nil {
		if notFound := (*sqlgraph.NotFoundError)(nil); errors.As(err, &notFound) {
			return reset.ErrNoUser
		}
		return err
	}

	// client.Session.Delete().Where(session.UserID(userID)).Exec(ctx)
	end := sqlgraph.NewDeleteSpec("sessions", sqlgraph.NewFieldSpec("id", field.TypeString))
	end.Predicate = func(s *entsql.Selector) { s.Where(entsql.EQ("user_id", userID)) }
	_, err := sqlgraph.DeleteNodes(ctx, d, end)
	return err
}

func (u *users) AddUser(ctx context.Context, n host.User) error {
	return u.exec(ctx, u.build().Insert("users").Columns("id", "address", "email", "hash").Values(n.ID, n.Address, n.Email, n.Hash))
}

func (u *users) SignIn(ctx context.Context, address, password string) (string, error) {
	row, err := one[host.User](ctx, u.driver(ctx), u.byAddress(address))
	if err != nil {
		return "", err
	}
	if !u.Matches(row.Hash, password) {
		return "", host.ErrPassword
	}
	session := host.NewID()
	return session, u.exec(ctx, u.build().Insert("sessions").Columns("id", "user_id").Values(session, row.ID))
}

func (u *users) UserOf(ctx context.Context, session string) (string, error) {
	q := u.build().Select("user_id").From(entsql.Table("sessions")).Where(entsql.EQ("id", session))
	return one[string](ctx, u.driver(ctx), q)
}

func (u *users) build() *entsql.DialectBuilder { return entsql.Dialect(u.db.Dialect()) }

func (u *users) byAddress(address string) entsql.Querier {
	return u.build().Select("id", "email", "hash").From(entsql.Table("users")).Where(entsql.EQ("address", address))
}

func (u *users) exec(ctx context.Context, q entsql.Querier) error {
	text, args := q.Query()
	return u.driver(ctx).Exec(ctx, text, args, nil)
}

// one returns the row of a query, or reset.ErrNoUser.
func one[T any](ctx context.Context, d dialect.Driver, q entsql.Querier) (row T, err error) {
	text, args := q.Query()
	var rows entsql.Rows
	if err := d.Query(ctx, text, args, &rows); err != nil {
		return row, err
	}
	defer rows.Close()
	var list []T
	if err := entsql.ScanSlice(&rows, &list); err != nil {
		return row, err
	}
	if len(list) == 0 {
		return row, reset.ErrNoUser
	}
	return list[0], nil
}
