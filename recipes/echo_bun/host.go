// Package echobun is a host of package reset on echo 5 and bun, with any
// database of bun's. It has a page of its own to change the password.
package echobun

import (
	"context"
	"database/sql"
	"errors"
	"log"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"
	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/recipes/internal/host"
	storebun "github.com/gopassreset/reset/store_bun"
)

// New makes the host.
func New(ctx context.Context, db *bun.DB, c host.Config) (*host.Host, error) {
	if err := storebun.CreateSchema(ctx, db); err != nil {
		return nil, err
	}
	store, err := storebun.New(ctx, db)
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
		LogValuesFunc: func(_ *echo.Context, v middleware.RequestLoggerValues) error {
			l.Println(v.Method, v.URIPath, v.Status)
			return nil
		},
	}))
	e.Any("/account/*", echo.WrapHandler(svc.Pages()))
	e.Any("/v1/auth/*", echo.WrapHandler(svc.Handler()))
	e.Any("/*", echo.WrapHandler(host.Handler(u)))
	change := func(ctx context.Context, email, oldPassword, newPassword string) error {
		return u.changePassword(ctx, svc, email, oldPassword, newPassword)
	}
	return &host.Host{Handler: e, Service: svc, Users: u, Store: store, ChangePassword: change}, nil
}

type users struct {
	db *bun.DB
	host.Argon2id
}

func (u *users) find(ctx context.Context, address string) (row host.User, err error) {
	err = u.db.NewSelect().Model(&row).Where("address = ?", address).Scan(ctx)
	return row, err
}

func (u *users) FindByEmail(ctx context.Context, address string) (reset.User, error) {
	row, err := u.find(ctx, address)
	if errors.Is(err, sql.ErrNoRows) {
		err = reset.ErrNoUser
	}
	return reset.User{ID: row.ID, Email: row.Email}, err
}

func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
	db := storebun.IDB(ctx, u.db) // the transaction that redeems the link
	result, err := db.NewUpdate().Model((*host.User)(nil)).Set("hash = ?", hash).Where("id = ?", userID).Exec(ctx)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, reset.ErrNoUser)
	}
	_, err = db.NewDelete().Table("sessions").Where("user_id = ?", userID).Exec(ctx)
	return err
}

// changePassword is what the settings page does. It ends mailed links in the
// same transaction.
func (u *users) changePassword(ctx context.Context, svc *reset.Service, email, oldPassword, newPassword string) error {
	row, err := u.find(ctx, email)
	if err != nil {
		return err
	}
	if !u.Matches(row.Hash, oldPassword) {
		return host.ErrPassword
	}
	hash, err := u.HashPassword(ctx, newPassword)
	if err != nil {
		return err
	}
	return u.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		ctx = storebun.WithTx(ctx, tx)
		if err := svc.Revoke(ctx, row.ID); err != nil { // first: a reset takes its locks in that order
			return err
		}
		return u.SetPassword(ctx, row.ID, hash)
	})
}

func (u *users) AddUser(ctx context.Context, n host.User) error {
	_, err := u.db.NewInsert().Model(&n).Exec(ctx)
	return err
}

func (u *users) SignIn(ctx context.Context, address, password string) (string, error) {
	row, err := u.find(ctx, address)
	if err != nil {
		return "", err
	}
	if !u.Matches(row.Hash, password) {
		return "", host.ErrPassword
	}
	session := host.NewID()
	_, err = u.db.NewInsert().Model(&map[string]any{"id": session, "user_id": row.ID}).Table("sessions").Exec(ctx)
	return session, err
}

func (u *users) UserOf(ctx context.Context, session string) (userID string, err error) {
	err = u.db.NewSelect().Table("sessions").Column("user_id").Where("id = ?", session).Scan(ctx, &userID)
	return userID, err
}
