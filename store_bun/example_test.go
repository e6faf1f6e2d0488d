package storebun_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	_ "modernc.org/sqlite"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
	storebun "github.com/gopassreset/reset/store_bun"
)

// The host saves a password in the transaction that redeems the activation. This
// host uses bun.
type bunUsers struct{ accounts }

func (u *bunUsers) SetPassword(ctx context.Context, userID, hash string) error {
	db := storebun.IDB(ctx, u.db) // the transaction
	result, err := db.NewUpdate().Table("users").Set("hash = ?", hash).Where("id = ?", userID).Exec(ctx)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, reset.ErrNoUser)
	}
	_, err = db.NewDelete().Table("sessions").Where("user_id = ?", userID).Exec(ctx)
	return err
}

func ExampleIDB() {
	db, closeDB := openExample()
	defer closeDB()
	changePassword(db, &bunUsers{accounts{db}})
	// Output:
	// password: hash of correct horse battery staple, sessions: 0
}

// This host uses database/sql.
type sqlUsers struct{ accounts }

func (u *sqlUsers) SetPassword(ctx context.Context, userID, hash string) error {
	tx, ok := storebun.Tx(ctx) // tx.Tx is the *sql.Tx
	if !ok {
		return fmt.Errorf("%w: no transaction", reset.ErrNotChanged)
	}
	result, err := tx.Tx.ExecContext(ctx, "UPDATE users SET hash = $1 WHERE id = $2", hash, userID)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, reset.ErrNoUser)
	}
	_, err = tx.Tx.ExecContext(ctx, "DELETE FROM sessions WHERE user_id = $1", userID)
	return err
}

func ExampleTx() {
	db, closeDB := openExample()
	defer closeDB()
	changePassword(db, &sqlUsers{accounts{db}})
	// Output:
	// password: hash of correct horse battery staple, sessions: 0
}

// The host itself changes the password of a user who is signed in. Earlier links
// end in the same transaction.
func ExampleWithTx() {
	db, closeDB := openExample()
	defer closeDB()
	ctx := context.Background()
	service := newService(ctx, db, &bunUsers{accounts{db}})
	activation, err := service.RequestReset(ctx, "alice@example.com", reset.RequestOptions{})
	if err != nil {
		log.Fatal(err)
	}
	err = db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		// First, since a reset takes its locks in that order.
		if err := service.Revoke(storebun.WithTx(ctx, tx), "1"); err != nil {
			return err
		}
		_, err := tx.NewUpdate().Table("users").Set("hash = ?", "hash of another").Where("id = ?", "1").Exec(ctx)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(service.ChangePassword(ctx, activation, "correct horse battery staple"))
	// Output:
	// reset: find: invalid activation
}

// accounts is the common part of both hosts.
type accounts struct{ db *bun.DB }

func (a accounts) FindByEmail(ctx context.Context, address string) (u reset.User, err error) {
	err = a.db.QueryRowContext(ctx, "SELECT id, email FROM users WHERE lower(email) = ?", address).Scan(&u.ID, &u.Email)
	if err == sql.ErrNoRows {
		return u, reset.ErrNoUser
	}
	return u, err
}

func (accounts) HashPassword(_ context.Context, password string) (string, error) {
	return "hash of " + password, nil // a real host uses bcrypt or Argon2id
}

func openExample() (_ *bun.DB, closeDB func()) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	sqldb, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "app.db")+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)")
	if err != nil {
		log.Fatal(err)
	}
	db := bun.NewDB(sqldb, sqlitedialect.New())
	_, err = db.Exec(`
		CREATE TABLE users (id TEXT PRIMARY KEY, email TEXT, hash TEXT);
		CREATE TABLE sessions (user_id TEXT);
		INSERT INTO users VALUES ('1', 'Alice@example.com', 'hash of a forgotten one');
		INSERT INTO sessions VALUES ('1')`)
	if err != nil {
		log.Fatal(err)
	}
	return db, func() {
		db.Close()
		os.RemoveAll(dir)
	}
}

func newService(ctx context.Context, db *bun.DB, users reset.Users) *reset.Service {
	if err := storebun.CreateSchema(ctx, db); err != nil {
		log.Fatal(err)
	}
	store, err := storebun.New(ctx, db)
	if err != nil {
		log.Fatal(err)
	}
	service, err := reset.New(reset.Config{
		Users: users, Store: store, Mailer: &resettest.Mailbox{}, BaseURL: "https://app.example.com/account",
	})
	if err != nil {
		log.Fatal(err)
	}
	return service
}

func changePassword(db *bun.DB, users reset.Users) {
	ctx := context.Background()
	service := newService(ctx, db, users)
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
}
