package main

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

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
	base := "http://" + l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	mailbox := new(resettest.Mailbox)
	go func() { ended <- run(ctx, file, l, mailbox) }()

	asked, err := http.PostForm(base+"/account/forgot", url.Values{"email": {"ALICE@example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	asked.Body.Close()
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
