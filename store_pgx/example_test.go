package storepgx_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gopassreset/reset"
	storepgx "github.com/gopassreset/reset/store_pgx"
)

// users are a host's accounts.
type users struct{ pool *pgxpool.Pool }

func (u *users) FindByEmail(ctx context.Context, address string) (user reset.User, err error) {
	err = u.pool.QueryRow(ctx, "SELECT id, email FROM users WHERE lower(email) = $1", address).Scan(&user.ID, &user.Email)
	if errors.Is(err, pgx.ErrNoRows) {
		return user, reset.ErrNoUser
	}
	return user, err
}

func (*users) HashPassword(_ context.Context, password string) (string, error) {
	return "hash of " + password, nil // a real host uses bcrypt or Argon2id
}

func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
	tx, ok := storepgx.Tx(ctx) // for sqlc: queries.WithTx(tx)
	if !ok {
		return fmt.Errorf("%w: no transaction", reset.ErrNotChanged)
	}
	result, err := tx.Exec(ctx, "UPDATE users SET hash = $1 WHERE id = $2", hash, userID)
	if err == nil && result.RowsAffected() == 0 {
		err = reset.ErrNoUser
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "DELETE FROM sessions WHERE user_id = $1", userID)
	return err
}

// The store is on the pool of the users.
func ExampleNew() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://app@db.example.com/app")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	if err := storepgx.CreateSchema(ctx, pool); err != nil {
		log.Fatal(err)
	}
	store, err := storepgx.New(ctx, pool)
	if err != nil {
		log.Fatal(err)
	}
	service, err := reset.New(reset.Config{
		Users: &users{pool}, Store: store, Mailer: &reset.SMTPMailer{Addr: "smtp.example.com:587", From: "no-reply@example.com"},
		BaseURL: "https://app.example.com/account",
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Println(service.Run(ctx))
}

// The host itself changes the password of a user who is signed in. Earlier links
// end in the same transaction.
func ExampleWithTx() {
	var service *reset.Service
	var pool *pgxpool.Pool
	ctx := context.Background()
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// First, since a reset takes its locks in that order.
		if err := service.Revoke(storepgx.WithTx(ctx, tx), "1"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "UPDATE users SET hash = $1 WHERE id = $2", "hash of another", "1")
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
}
