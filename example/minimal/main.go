// Command minimal is a host to copy: accounts and links in app.db, mail at /inbox.
package main

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
	storebun "github.com/gopassreset/reset/store_bun"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
	"github.com/uptrace/bun"
)

const schema = `CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, address TEXT UNIQUE NOT NULL, email TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, user_id TEXT NOT NULL); INSERT OR IGNORE INTO users VALUES ('1', 'alice@example.com', 'Alice@example.com', '')`

var addr, mailbox = "127.0.0.1:8080", new(resettest.Mailbox) // in production a *reset.SMTPMailer

func main() {
	interrupt, _ := signal.NotifyContext(context.Background(), os.Interrupt)
	store, err := storesqlite.Open("app.db")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	_, err = store.DB().Exec(schema)
	svc, invalid := reset.New(reset.Config{Users: &users{store.DB()}, Store: store, Mailer: mailbox, BaseURL: "http://" + addr + "/account"})
	if err := errors.Join(err, invalid); err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { svc.Run(ctx) }) // sends the mail
	mux := http.NewServeMux()
	mux.Handle("/account/", svc.Pages())
	mux.Handle("/inbox", mailbox)
	srv := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	context.AfterFunc(interrupt, func() { srv.Shutdown(ctx); stop() })
	log.Printf("alice@example.com forgot: http://%s/account/forgot (mail: http://%s/inbox)", addr, addr)
	if err := srv.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	wg.Wait()
}

type users struct{ db *bun.DB }

func (u *users) FindByEmail(ctx context.Context, address string) (found reset.User, err error) {
	row := u.db.QueryRowContext(ctx, "SELECT id, email FROM users WHERE address = ?", address)
	if err = row.Scan(&found.ID, &found.Email); errors.Is(err, sql.ErrNoRows) {
		err = reset.ErrNoUser
	}
	return found, err
}

func (u *users) HashPassword(_ context.Context, password string) (string, error) {
	return argon2id.CreateHash(password, argon2id.DefaultParams)
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
