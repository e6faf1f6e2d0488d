// Package fibersqlx is a host of package reset on fiber 3 and sqlx, with any
// database of the two.
package fibersqlx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"github.com/gofiber/fiber/v3/middleware/logger"
	"github.com/jmoiron/sqlx"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/recipes/internal/host"
	storesql "github.com/gopassreset/reset/store_sql"
)

// New makes the host and fiber's app. The dialect is storesql.PostgreSQL,
// storesql.MySQL or storesql.SQLite.
func New(ctx context.Context, db *sqlx.DB, dialect storesql.Dialect, c host.Config) (*host.Host, *fiber.App, error) {
	if err := storesql.CreateSchema(ctx, db.DB, dialect); err != nil {
		return nil, nil, err
	}
	store, err := storesql.New(ctx, db.DB, dialect)
	if err != nil {
		return nil, nil, err
	}
	u := &users{db, c.Hash}
	c.Reset.Users, c.Reset.Store = u, store
	svc, err := reset.New(c.Reset)
	if err != nil {
		return nil, nil, err
	}

	// Package reset cannot reach the connection to bound the time of a body.
	app := fiber.New(fiber.Config{ReadTimeout: 10 * time.Second})
	app.Use(logger.New(logger.Config{Stream: c.AccessLog, Format: "${method} ${path} ${status}\n"})) // not ${url}
	app.Use("/account", adaptor.HTTPHandler(ownContext(svc.Pages())))
	app.Use("/v1/auth", adaptor.HTTPHandler(ownContext(svc.Handler())))
	app.Use(adaptor.HTTPHandler(ownContext(host.Handler(u))))
	return &host.Host{Handler: adaptor.FiberApp(app), Service: svc, Users: u, Store: store}, app, nil
}

// ownContext gives requests a context that outlives them: what is derived from a
// context may look at it late, when fasthttp has reused its own.
func ownContext(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.Background()))
	})
}

type users struct {
	db *sqlx.DB
	host.Argon2id
}

const byAddress = "SELECT id, address, email, hash FROM users WHERE address = ?"

func (u *users) FindByEmail(ctx context.Context, address string) (reset.User, error) {
	var row host.User
	err := u.db.GetContext(ctx, &row, u.db.Rebind(byAddress), address)
	if errors.Is(err, sql.ErrNoRows) {
		err = reset.ErrNoUser
	}
	return reset.User{ID: row.ID, Email: row.Email}, err
}

func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
	joined, ok := storesql.Tx(ctx) // the transaction that redeems the link
	if !ok {
		return fmt.Errorf("%w: no transaction", reset.ErrNotChanged)
	}
	tx := &sqlx.Tx{Tx: joined, Mapper: u.db.Mapper} // does not know its driver: rebind with u.db
	result, err := tx.ExecContext(ctx, u.db.Rebind("UPDATE users SET hash = ? WHERE id = ?"), hash, userID)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, reset.ErrNoUser)
	}
	_, err = tx.ExecContext(ctx, u.db.Rebind("DELETE FROM sessions WHERE user_id = ?"), userID)
	return err
}

func (u *users) AddUser(ctx context.Context, n host.User) error {
	_, err := u.db.NamedExecContext(ctx, "INSERT INTO users (id, address, email, hash) VALUES (:id, :address, :email, :hash)", n)
	return err
}

func (u *users) SignIn(ctx context.Context, address, password string) (string, error) {
	var row host.User
	if err := u.db.GetContext(ctx, &row, u.db.Rebind(byAddress), address); err != nil {
		return "", err
	}
	if !u.Matches(row.Hash, password) {
		return "", host.ErrPassword
	}
	session := host.NewID()
	_, err := u.db.ExecContext(ctx, u.db.Rebind("INSERT INTO sessions (id, user_id) VALUES (?, ?)"), session, row.ID)
	return session, err
}

func (u *users) UserOf(ctx context.Context, session string) (userID string, err error) {
	err = u.db.GetContext(ctx, &userID, u.db.Rebind("SELECT user_id FROM sessions WHERE id = ?"), session)
	return userID, err
}
