package storesqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
	storebun "github.com/gopassreset/reset/store_bun"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

const schema = `
	CREATE TABLE users (id TEXT PRIMARY KEY, email TEXT NOT NULL, address TEXT UNIQUE NOT NULL, hash TEXT NOT NULL);
	CREATE TABLE sessions (user_id TEXT NOT NULL REFERENCES users);
	INSERT INTO users VALUES ('1', 'Ann@Example.com', 'ann@example.com', 'hash of a forgotten password');
	INSERT INTO sessions VALUES ('1')`

// users is the accounts of a host, in the file of the store.
type users struct{ db *bun.DB }

// FindByEmail compares with a column that holds reset.CanonicalAddress(email).
func (u users) FindByEmail(ctx context.Context, address string) (user reset.User, err error) {
	row := u.db.QueryRowContext(ctx, "SELECT id, email FROM users WHERE address = ?", address)
	if err = row.Scan(&user.ID, &user.Email); errors.Is(err, sql.ErrNoRows) {
		err = reset.ErrNoUser
	}
	return user, err
}

// HashPassword would use argon2id or bcrypt.
func (u users) HashPassword(_ context.Context, password string) (string, error) {
	return "hash of " + password, nil
}

// SetPassword joins the transaction that redeems the activation.
func (u users) SetPassword(ctx context.Context, userID, hash string) error {
	db := storebun.IDB(ctx, u.db)
	if _, err := db.ExecContext(ctx, "UPDATE users SET hash = ? WHERE id = ?", hash, userID); err != nil {
		return err
	}
	_, err := db.ExecContext(ctx, "DELETE FROM sessions WHERE user_id = ?", userID)
	return err
}

// The users of this host are in the store's file. The new password, the end of
// the sessions and the end of the link are one transaction.
func ExampleOpen() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := storesqlite.Open(filepath.Join(dir, "app.db"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	if _, err := store.DB().ExecContext(ctx, schema); err != nil {
		log.Fatal(err)
	}

	svc, err := reset.New(reset.Config{
		Users: users{store.DB()}, Store: store, Mailer: new(resettest.Mailbox), BaseURL: "https://app.example.com/account",
	})
	if err != nil {
		log.Fatal(err)
	}
	activation, err := svc.RequestReset(ctx, "ann@example.com", reset.RequestOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("error:", svc.ChangePassword(ctx, activation, "nine grey herons"))

	var hash string
	var sessions int
	row := store.DB().QueryRowContext(ctx, "SELECT hash, (SELECT count(*) FROM sessions) FROM users")
	fmt.Println("error:", row.Scan(&hash, &sessions))
	fmt.Printf("%s, %d sessions\n", hash, sessions)
	// Output:
	// error: <nil>
	// error: <nil>
	// hash of nine grey herons, 0 sessions
}
