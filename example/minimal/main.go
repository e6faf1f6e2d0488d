// Command minimal is a small host of package reset, to copy. It keeps accounts,
// sessions and links in app.db and shows the mail at /inbox.
package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"

	"github.com/uptrace/bun"
	"golang.org/x/crypto/argon2"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
	storebun "github.com/gopassreset/reset/store_bun"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

const schema = `
CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, address TEXT NOT NULL UNIQUE, email TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, user_id TEXT NOT NULL);
INSERT OR IGNORE INTO users VALUES ('1', 'alice@example.com', 'Alice@example.com', '')`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	l, err := net.Listen("tcp", "127.0.0.1:8080")
	if err == nil {
		log.Printf("alice@example.com forgot: http://%v/account/forgot (mail: http://%v/inbox)", l.Addr(), l.Addr())
		err = run(ctx, "app.db", l, new(resettest.Mailbox)) // in production a *reset.SMTPMailer
	}
	if err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends. Then it stops the server, the delivery of mail and
// the store, in that order.
func run(ctx context.Context, file string, l net.Listener, mailbox *resettest.Mailbox) error {
	store, err := storesqlite.Open(file)
	if err != nil {
		return err
	}
	defer store.Close()
	if _, err := store.DB().ExecContext(ctx, schema); err != nil {
		return err
	}
	svc, err := reset.New(reset.Config{
		Users: &users{store.DB()}, Store: store, Mailer: mailbox, BaseURL: "http://" + l.Addr().String() + "/account",
	})
	if err != nil {
		return err
	}
	deliver, stop := context.WithCancel(context.WithoutCancel(ctx))
	delivered := make(chan error, 1)
	go func() { delivered <- svc.Run(deliver) }() // sends the mail

	mux := http.NewServeMux()
	mux.Handle("/account/", svc.Pages())
	mux.Handle("/inbox", mailbox)
	srv := &http.Server{Handler: mux}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err = <-served:
	case <-ctx.Done():
		err = srv.Shutdown(context.WithoutCancel(ctx))
	}
	stop()
	return errors.Join(err, <-delivered)
}

// users is what package reset needs of a host: three methods over its tables.
type users struct{ db *bun.DB }

func (u *users) FindByEmail(ctx context.Context, address string) (found reset.User, err error) {
	row := u.db.QueryRowContext(ctx, "SELECT id, email FROM users WHERE address = ?", address)
	if err = row.Scan(&found.ID, &found.Email); errors.Is(err, sql.ErrNoRows) {
		err = reset.ErrNoUser
	}
	return found, err
}

func (u *users) HashPassword(_ context.Context, password string) (string, error) {
	salt := rand.Text()
	sum := argon2.IDKey([]byte(password), []byte(salt), 2, 19<<10, 1, 32)
	return salt + "$" + base64.RawStdEncoding.EncodeToString(sum), nil
}

func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
	db := storebun.IDB(ctx, u.db) // the transaction that redeems the link
	result, err := db.ExecContext(ctx, "UPDATE users SET hash = ? WHERE id = ?", hash, userID)
	if err != nil {
		return err
	}
	if n, _ := result.RowsAffected(); n == 0 {
		return reset.ErrNoUser
	}
	_, err = db.ExecContext(ctx, "DELETE FROM sessions WHERE user_id = ?", userID)
	return err
}
