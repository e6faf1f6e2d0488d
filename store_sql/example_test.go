package storesql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
	storesql "github.com/gopassreset/reset/store_sql"
)

// users are a host's accounts.
type users struct{ db *sql.DB }

func (u *users) FindByEmail(ctx context.Context, address string) (user reset.User, err error) {
	err = u.db.QueryRowContext(ctx, "SELECT id, email FROM users WHERE lower(email) = $1", address).Scan(&user.ID, &user.Email)
	if err == sql.ErrNoRows {
		return user, reset.ErrNoUser
	}
	return user, err
}

func (*users) HashPassword(_ context.Context, password string) (string, error) {
	return "hash of " + password, nil // a real host uses bcrypt or Argon2id
}

func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
	tx, ok := storesql.Tx(ctx) // the transaction that redeems the link
	if !ok {
		return fmt.Errorf("%w: no transaction", reset.ErrNotChanged)
	}
	result, err := tx.ExecContext(ctx, "UPDATE users SET hash = $1 WHERE id = $2", hash, userID)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, reset.ErrNoUser)
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM sessions WHERE user_id = $1", userID)
	return err
}

// The host saves a password in the transaction that redeems the activation.
func ExampleTx() {
	ctx := context.Background()
	db, service, closeDB := openExample(ctx)
	defer closeDB()
	activation, err := service.RequestReset(ctx, "alice@example.com", reset.RequestOptions{})
	if err != nil {
		log.Fatal(err)
	}
	if err := service.ChangePassword(ctx, activation, "correct horse battery staple"); err != nil {
		log.Fatal(err)
	}
	var hash string
	var sessions int
	if err := db.QueryRowContext(ctx, "SELECT hash, (SELECT COUNT(*) FROM sessions) FROM users").Scan(&hash, &sessions); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("password: %s, sessions: %d\n", hash, sessions)
	// Output:
	// password: hash of correct horse battery staple, sessions: 0
}

// The host itself changes the password of a user who is signed in. Earlier links
// end in the same transaction.
func ExampleWithTx() {
	ctx := context.Background()
	db, service, closeDB := openExample(ctx)
	defer closeDB()
	activation, err := service.RequestReset(ctx, "alice@example.com", reset.RequestOptions{})
	if err != nil {
		log.Fatal(err)
	}
	change := func() error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		// First, since a reset takes its locks in that order.
		if err := service.Revoke(storesql.WithTx(ctx, tx), "1"); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE users SET hash = $1 WHERE id = $2", "hash of another", "1"); err != nil {
			return err
		}
		return tx.Commit()
	}
	if err := change(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(service.ChangePassword(ctx, activation, "correct horse battery staple"))
	// Output:
	// reset: find: invalid activation
}

func openExample(ctx context.Context) (_ *sql.DB, _ *reset.Service, closeDB func()) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "app.db")+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)")
	if err != nil {
		log.Fatal(err)
	}
	_, err = db.ExecContext(ctx, `
		CREATE TABLE users (id TEXT PRIMARY KEY, email TEXT, hash TEXT);
		CREATE TABLE sessions (user_id TEXT);
		INSERT INTO users VALUES ('1', 'Alice@example.com', 'hash of a forgotten one');
		INSERT INTO sessions VALUES ('1')`)
	if err != nil {
		log.Fatal(err)
	}
	if err := storesql.CreateSchema(ctx, db, storesql.SQLite); err != nil {
		log.Fatal(err)
	}
	store, err := storesql.New(ctx, db, storesql.SQLite)
	if err != nil {
		log.Fatal(err)
	}
	service, err := reset.New(reset.Config{
		Users: &users{db}, Store: store, Mailer: &resettest.Mailbox{}, BaseURL: "https://app.example.com/account",
	})
	if err != nil {
		log.Fatal(err)
	}
	return db, service, func() {
		db.Close()
		os.RemoveAll(dir)
	}
}
