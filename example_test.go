package reset_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing/fstest"
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
	store, err := storesqlite.Open("app.db") // the host's tables may live in it too: store.DB()
	if err != nil {
		log.Fatal(err)
	}
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
	store.Close()
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

// exampleService returns the service of a host whose one user is Ann.
func exampleService() *reset.Service {
	return must(reset.New(reset.Config{
		Users:   newHost(reset.User{ID: "1", Email: "ann@example.com", Name: "Ann"}),
		Store:   new(resettest.MemStore),
		Mailer:  new(resettest.Mailbox),
		BaseURL: "https://app.example.com/account",
		Logger:  slog.New(slog.DiscardHandler),
	}))
}

// A form of your own. Its answer does not depend on who has an account.
func ExampleService_Forgot() {
	svc := exampleService()
	clientIP := reset.ClientIPBehind() // the same as Config.ClientIP
	forgot := func(w http.ResponseWriter, r *http.Request) {
		o := reset.ForgotOptions{Locale: r.FormValue("lang")}
		err := svc.Forgot(r.Context(), r.FormValue("email"), clientIP(r), o)
		var limit *reset.LimitError
		switch {
		case err == nil:
			fmt.Fprintln(w, "If you have an account, a link is on its way.")
		case errors.Is(err, reset.ErrBadRequest):
			http.Error(w, "That is not an email address.", http.StatusBadRequest)
		case errors.As(err, &limit):
			http.Error(w, "Please try again later.", http.StatusTooManyRequests)
		default:
			http.Error(w, "Something went wrong.", http.StatusInternalServerError)
		}
	}

	for _, email := range []string{"ann@example.com", "nobody@example.com", "ann"} {
		w := httptest.NewRecorder()
		forgot(w, httptest.NewRequest("POST", "/forgot?lang=de&email="+email, nil))
		fmt.Print(w.Body)
	}
	// Output:
	// If you have an account, a link is on its way.
	// If you have an account, a link is on its way.
	// That is not an email address.
}

// The help desk hands a user an activation by other means than mail. Its result
// reveals who has an account: it is for trusted code.
func ExampleService_RequestReset() {
	svc, ctx := exampleService(), context.Background()
	o := reset.RequestOptions{PreventEmailSending: true, MaxRequests: 1}

	activation, err := svc.RequestReset(ctx, "Ann@Example.com", o)
	fmt.Println(len(activation), err)

	_, err = svc.RequestReset(ctx, "ann@example.com", o)
	var limit *reset.LimitError
	if errors.As(err, &limit) {
		fmt.Println("one is live, for another", limit.RetryAfter.Round(time.Minute))
	}

	activation, err = svc.RequestReset(ctx, "nobody@example.com", o)
	fmt.Printf("%q %v\n", activation, err)
	// Output:
	// 24 <nil>
	// one is live, for another 1h0m0s
	// "" <nil>
}

// A refused password leaves the activation live; a success ends it.
func ExampleService_ChangePassword() {
	svc, ctx := exampleService(), context.Background()
	activation, err := svc.RequestReset(ctx, "ann@example.com", reset.RequestOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, password := range []string{"12345678", "nine grey herons", "ten grey herons"} {
		err := svc.ChangePassword(ctx, activation, password)
		var refused *reset.PasswordError
		switch {
		case errors.As(err, &refused):
			fmt.Println("choose another password:", refused.Reason)
		case errors.Is(err, reset.ErrInvalidActivation):
			fmt.Println("ask for a new link")
		case err != nil:
			fmt.Println("try again later")
		default:
			fmt.Println("changed")
		}
	}
	// Output:
	// choose another password: common
	// changed
	// ask for a new link
}

// A user who is signed in changes the password or the address. Links that were
// mailed before must not undo that.
func ExampleService_Revoke() {
	svc, ctx := exampleService(), context.Background()
	activation, err := svc.RequestReset(ctx, "ann@example.com", reset.RequestOptions{})
	if err != nil {
		log.Fatal(err)
	}

	// … the host saves the new password or address of the user "1", and then:
	if err := svc.Revoke(ctx, "1"); err != nil {
		log.Fatal(err)
	}

	err = svc.ChangePassword(ctx, activation, "nine grey herons")
	fmt.Println(errors.Is(err, reset.ErrInvalidActivation))
	// Output: true
}

// A rule of your own refuses passwords that are known from breaches.
func ExampleConfig_checkPassword() {
	breached := func(password string) (bool, error) { // a look-up, of a service or a file
		return password == "correct horse battery staple", nil
	}
	svc := must(reset.New(reset.Config{
		Users: newHost(ann), Store: new(resettest.MemStore), Mailer: new(resettest.Mailbox), BaseURL: "https://app.example.com/account",
		CheckPassword: func(_ context.Context, _ reset.User, password string) error {
			found, err := breached(password)
			if err != nil || !found {
				return err // an error that is no *PasswordError fails the change
			}
			return &reset.PasswordError{Reason: "breached", Message: "This password is known from a breach."}
		},
	}))
	ctx := context.Background()
	activation := must(svc.RequestReset(ctx, ann.Email, reset.RequestOptions{PreventEmailSending: true}))
	fmt.Println(svc.ChangePassword(ctx, activation, "correct horse battery staple"))
	fmt.Println(svc.ChangePassword(ctx, activation, "nine grey herons"))
	// Output:
	// reset: check password: password refused: breached: This password is known from a breach.
	// <nil>
}

// A template of your own replaces the built-in one of that name. In a program
// Templates is an embed.FS or os.DirFS("overrides").
func ExampleConfig_templates() {
	svc := must(reset.New(reset.Config{
		Users: newHost(ann), Store: new(resettest.MemStore), Mailer: new(resettest.Mailbox), BaseURL: "https://app.example.com/account",
		Brand: reset.Brand{Name: "Example Shop"},
		Templates: fstest.MapFS{"templates/done.html": {Data: []byte(
			"<h1>{{.T \"done.title\"}}</h1>\n<p><a href=\"/\">Back to {{.Brand.Name}}</a></p>\n",
		)}},
	}))
	w := httptest.NewRecorder()
	svc.Pages().ServeHTTP(w, httptest.NewRequest("GET", "https://app.example.com/account/done", nil))
	_, body, _ := strings.Cut(w.Body.String(), "<main>\n")
	body, _, _ = strings.Cut(body, "\n</main>")
	fmt.Println(body)
	// Output:
	// <h1>Password changed</h1>
	// <p><a href="/">Back to Example Shop</a></p>
}

// A host behind a proxy names the proxy's network. Without that, all requests
// would come from one client and share its limit.
func ExampleClientIPBehind() {
	clientIP := reset.ClientIPBehind(netip.MustParsePrefix("10.0.0.0/8"))

	r := httptest.NewRequest("POST", "/account/forgot", nil)
	r.RemoteAddr = "10.0.0.5:4711"
	r.Header.Set("X-Forwarded-For", "203.0.113.9, 192.0.2.1") // the first was sent by the client
	fmt.Println(clientIP(r))

	r.RemoteAddr = "198.51.100.7:4711" // not the proxy
	fmt.Println(clientIP(r))

	r.RemoteAddr = "[2001:db8:1:2:3:4:5:6]:4711" // one client has a whole /64
	fmt.Println(clientIP(r))
	// Output:
	// 192.0.2.1
	// 198.51.100.7
	// 2001:db8:1:2::/64
}

// officeLimiter lets the office through, where one address has many people, and
// limits all others.
type officeLimiter struct {
	reset.Limiter
	office netip.Prefix
}

func (l officeLimiter) Allow(ctx context.Context, key string, now time.Time) error {
	if ip, err := netip.ParseAddr(key); err == nil && l.office.Contains(ip) {
		return nil
	}
	return l.Limiter.Allow(ctx, key, now)
}

// A Limiter of your own, for Config.PerClient.
func ExampleLimiter() {
	var limiter reset.Limiter = officeLimiter{
		Limiter: reset.NewMemoryLimiter(2, time.Minute),
		office:  netip.MustParsePrefix("192.0.2.0/24"),
	}
	now := time.Now()
	for _, client := range []string{"192.0.2.1", "198.51.100.7"} {
		for range 3 {
			fmt.Println(client, limiter.Allow(context.Background(), client, now))
		}
	}
	// Output:
	// 192.0.2.1 <nil>
	// 192.0.2.1 <nil>
	// 192.0.2.1 <nil>
	// 198.51.100.7 <nil>
	// 198.51.100.7 <nil>
	// 198.51.100.7 reset: too many requests: retry after 30s
}

// A host stores the canonical form of each address, in a unique column, for
// FindByEmail.
func ExampleCanonicalAddress() {
	for _, address := range []string{"Ann@EXAMPLE.com", "ann@bücher.example", "Ann <ann@example.com>"} {
		canonical, err := reset.CanonicalAddress(address)
		if errors.Is(err, reset.ErrBadRequest) {
			canonical = "not an address"
		}
		fmt.Println(canonical)
	}
	// Output:
	// ann@example.com
	// ann@xn--bcher-kva.example
	// not an address
}

// must panics on an error, which real code returns.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
