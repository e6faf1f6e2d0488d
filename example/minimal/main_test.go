package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

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

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := browser{t, &http.Client{Jar: jar, Timeout: 20 * time.Second}}
	b.post(base+"/account/forgot", url.Values{"email": {"ALICE@example.com"}})
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
	check := b.check(mail.Link)
	if at := b.post(base+"/account/reset", url.Values{
		"check": {check}, "password": {"nine grey herons"}, "confirm": {"nine grey herons"},
	}); at != "/account/done" {
		t.Errorf("the form leads to %s, want /account/done", at)
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

// A browser keeps cookies and follows redirects.
type browser struct {
	t      *testing.T
	client *http.Client
}

// post returns the path that a form leads to.
func (b browser) post(at string, form url.Values) string {
	b.t.Helper()
	r, err := b.client.PostForm(at, form)
	if err != nil {
		b.t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusOK {
		b.t.Fatalf("POST %s: %s", at, r.Status)
	}
	return r.Request.URL.Path
}

// check returns the hidden field of the form that a link leads to.
func (b browser) check(link string) string {
	b.t.Helper()
	r, err := b.client.Get(link)
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	check := regexp.MustCompile(`name="check" value="([^"]+)"`).FindSubmatch(body)
	if check == nil {
		b.t.Fatalf("GET %s: %s, no form", link, r.Status)
	}
	return string(check[1])
}
