// Package gingorm is a host of package reset on gin and GORM, with PostgreSQL,
// MariaDB or MySQL.
package gingorm

import (
	"context"
	"errors"
	"log"

	"github.com/gin-gonic/gin"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/recipes/internal/host"
	storesql "github.com/gopassreset/reset/store_sql"
)

// New makes the host. The dialect is storesql.PostgreSQL or storesql.MySQL.
func New(ctx context.Context, db gorm.Dialector, dialect storesql.Dialect, c host.Config) (*host.Host, error) {
	// By default GORM logs values, such as an address that nobody has.
	l := logger.New(log.New(c.AccessLog, "", log.LstdFlags), logger.Config{
		LogLevel: logger.Warn, ParameterizedQueries: true, IgnoreRecordNotFoundError: true,
	})
	g, err := gorm.Open(db, &gorm.Config{Logger: l})
	if err != nil {
		return nil, err
	}
	pool, err := g.DB()
	if err != nil {
		return nil, err
	}
	if err := storesql.CreateSchema(ctx, pool, dialect); err != nil {
		return nil, err
	}
	store, err := storesql.New(ctx, pool, dialect)
	if err != nil {
		return nil, err
	}
	u := &users{g, c.Hash}
	c.Reset.Users, c.Reset.Store = u, store
	svc, err := reset.New(c.Reset)
	if err != nil {
		return nil, err
	}

	r := gin.New()
	r.Use(gin.LoggerWithConfig(gin.LoggerConfig{Output: c.AccessLog, SkipQueryString: true}))
	r.Any("/account/*path", gin.WrapH(svc.Pages()))
	r.Any("/v1/auth/*path", gin.WrapH(svc.Handler()))
	r.POST("/sign-in", gin.WrapH(host.Handler(u)))
	r.GET("/me", gin.WrapH(host.Handler(u)))
	return &host.Host{Handler: r, Service: svc, Users: u, Store: store}, nil
}

// A Session is a row of the table sessions. host.User is one of users.
type Session struct{ ID, UserID string }

type users struct {
	db *gorm.DB
	host.Argon2id
}

// session returns GORM on the transaction in ctx, if there is one.
func (u *users) session(ctx context.Context) *gorm.DB {
	db := u.db.Session(&gorm.Session{NewDB: true, Context: ctx, SkipDefaultTransaction: true})
	if tx, ok := storesql.Tx(ctx); ok {
		db.Statement.ConnPool = tx
	}
	return db
}

func (u *users) FindByEmail(ctx context.Context, address string) (reset.User, error) {
	var row host.User
	err := u.session(ctx).Where("address = ?", address).Take(&row).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		err = reset.ErrNoUser
	}
	return reset.User{ID: row.ID, Email: row.Email}, err
}

func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
	db := u.session(ctx)
	result := db.Model(&host.User{}).Where("id = ?", userID).Update("hash", hash)
	if result.Error != nil {
		return result.Error
	}
	if result.RowsAffected == 0 {
		return reset.ErrNoUser
	}
	return db.Where("user_id = ?", userID).Delete(&Session{}).Error
}

func (u *users) AddUser(ctx context.Context, n host.User) error {
	return u.session(ctx).Create(&n).Error
}

func (u *users) SignIn(ctx context.Context, address, password string) (string, error) {
	var row host.User
	if err := u.session(ctx).Where("address = ?", address).Take(&row).Error; err != nil {
		return "", err
	}
	if !u.Matches(row.Hash, password) {
		return "", host.ErrPassword
	}
	session := Session{host.NewID(), row.ID}
	return session.ID, u.session(ctx).Create(&session).Error
}

func (u *users) UserOf(ctx context.Context, session string) (string, error) {
	var row Session
	err := u.session(ctx).Where("id = ?", session).Take(&row).Error
	return row.UserID, err
}
