package reset_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// users stands for the accounts of the host.
var users reset.Users

// The wiring of a host.
func Example_wiring() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	store, err := storesqlite.Open("app.db") // the host's tables may live in it too: store.DB()
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	svc, err := reset.New(reset.Config{
		Users:   users, // the host's accounts: FindByEmail, HashPassword, SetPassword
		Store:   store,
		Mailer:  &reset.SMTPMailer{Addr: "smtp.example.com:587", From: "Example <no-reply@example.com>", Username: "app", Password: os.Getenv("SMTP_PASSWORD")},
		BaseURL: "https://app.example.com/account",    // where the pages are mounted
		APIKeys: []string{os.Getenv("RESET_API_KEY")}, // only for svc.Handler(); 32 characters or more
	})
	if err != nil {
		log.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { svc.Run(ctx) }) // sends the mail

	mux := http.NewServeMux()
	mux.Handle("/account/", svc.Pages())   // for browsers
	mux.Handle("/v1/auth/", svc.Handler()) // for trusted back ends
	log.Print(http.ListenAndServe("127.0.0.1:8080", mux))

	stop() // ends Run, which finishes what it is sending
	wg.Wait()
}

// A host's own test: from "I forgot my password" to the new one.
func Example_integration() {
	accounts := newHost(reset.User{ID: "1", Email: "ann@example.com", Name: "Ann"})
	mailbox := new(resettest.Mailbox)
	mux := http.NewServeMux()
	app := httptest.NewServer(mux)
	defer app.Close()

	service := must(reset.New(reset.Config{
		Users:   accounts,
		Store:   new(resettest.MemStore),
		Mailer:  mailbox,
		BaseURL: app.URL + "/account",
		Logger:  slog.New(slog.DiscardHandler),
	}))
	mux.Handle("/account/", service.Pages())
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	var wg sync.WaitGroup
	wg.Go(func() { service.Run(ctx) })

	// Ann asks for a link and gets it by mail.
	must(http.PostForm(app.URL+"/account/forgot", url.Values{"email": {"Ann@Example.com"}}))
	mail := must(mailbox.Wait(ctx, "ann@example.com"))

	// The link leads to a form, which she fills in.
	err := resettest.ChangePassword(ctx, nil, mail.Link, "nine grey herons")
	fmt.Println(accounts.password("1"), err)

	stop()
	wg.Wait()
	// Output: nine grey herons <nil>
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
