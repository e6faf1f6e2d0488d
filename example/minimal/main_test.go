package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// A user forgets the password, gets a mail, chooses another one, and is signed
// out everywhere.
func TestJourney(t *testing.T) {
	file := filepath.Join(t.TempDir(), "app.db")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	mailbox := new(resettest.Mailbox)
	go func() { ended <- run(ctx, file, l, mailbox) }()

	page, err := http.PostForm("http://"+l.Addr().String()+"/account/forgot", url.Values{"email": {"ALICE@example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	page.Body.Close()
	store, err := storesqlite.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.DB().Exec("INSERT INTO sessions VALUES ('s', '1')"); err != nil {
		t.Fatal(err)
	}
	mail, err := mailbox.Wait(t.Context(), "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if err := resettest.ChangePassword(t.Context(), nil, mail.Link, "nine grey herons"); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("run = %v", err)
	}

	var hash string
	var sessions int
	if err := store.DB().QueryRow("SELECT hash, (SELECT count(*) FROM sessions) FROM users").Scan(&hash, &sessions); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(hash, "$") || sessions != 0 {
		t.Errorf("hash %q and %d sessions, want a hash and none", hash, sessions)
	}
}

// A host adds its own sign-up and sign-in, and the suite does the rest.
func TestUsers(t *testing.T) {
	store, err := storesqlite.Open(filepath.Join(t.TempDir(), "app.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	db := store.DB()
	if _, err := db.Exec(schema); err != nil {
		t.Fatal(err)
	}
	u := &users{db}
	resettest.TestUsers(t, resettest.UsersHost{
		Users: u,
		Store: store,
		SignUp: func(ctx context.Context, email, password string) (string, error) {
			address, err := reset.CanonicalAddress(email)
			if err != nil {
				return "", err
			}
			id := rand.Text()
			hash, _ := u.HashPassword(ctx, password)
			_, err = db.ExecContext(ctx, "INSERT INTO users VALUES (?, ?, ?, ?)", id, address, email, hash)
			return id, err
		},
		SignIn: func(ctx context.Context, email, password string) (func(context.Context) (bool, error), error) {
			var id, hash string
			session := rand.Text()
			if err := db.QueryRowContext(ctx, "SELECT id, hash FROM users WHERE email = ?", email).Scan(&id, &hash); err != nil {
				return nil, err
			}
			salt, _, _ := strings.Cut(hash, "$")
			sum := argon2.IDKey([]byte(password), []byte(salt), 2, 19<<10, 1, 32)
			if hash != salt+"$"+base64.RawStdEncoding.EncodeToString(sum) {
				return nil, errors.New("wrong password")
			}
			_, err := db.ExecContext(ctx, "INSERT INTO sessions VALUES (?, ?)", session, id)
			return func(ctx context.Context) (alive bool, err error) {
				err = db.QueryRowContext(ctx, "SELECT count(*) FROM sessions WHERE id = ?", session).Scan(&alive)
				return alive, err
			}, err
		},
	})
}
