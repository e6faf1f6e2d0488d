package reset_test

import (
	"context"
	"log"
	"net/http"
	"os"
	"sync"

	"github.com/gopassreset/reset"
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
	mux.Handle("/account/", http.StripPrefix("/account", svc.Pages())) // for browsers
	mux.Handle("/v1/auth/", svc.Handler())                             // for trusted back ends
	log.Print(http.ListenAndServe("127.0.0.1:8080", mux))

	stop() // ends Run, which finishes what it is sending
	wg.Wait()
}
