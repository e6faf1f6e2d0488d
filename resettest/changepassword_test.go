package resettest_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

// oneUser is a host's only account.
type oneUser struct {
	mu       sync.Mutex
	password string
}

func (*oneUser) FindByEmail(_ context.Context, address string) (reset.User, error) {
	if address != "ann@example.com" {
		return reset.User{}, reset.ErrNoUser
	}
	return reset.User{ID: "1", Email: address}, nil
}

func (*oneUser) HashPassword(_ context.Context, password string) (string, error) {
	return password, nil
}

func (u *oneUser) SetPassword(_ context.Context, _, hash string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.password = hash
	return nil
}

func TestChangePassword(t *testing.T) {
	var mailbox resettest.Mailbox
	var user oneUser
	mux := http.NewServeMux()
	app := httptest.NewServer(mux)
	defer app.Close()
	svc, err := reset.New(reset.Config{
		Users: &user, Store: new(resettest.MemStore), Mailer: &mailbox,
		BaseURL: app.URL + "/account", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	mux.Handle("/account/", http.StripPrefix("/account", svc.Pages()))
	mux.HandleFunc("/login", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`<form method="post"><input name="user"></form>`))
	})
	mux.Handle("/csrf/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			http.Error(w, "no token", http.StatusForbidden)
			return
		}
		w.Write([]byte(`<form method="post"><input name="password"><input name="confirm"></form>`))
	}))
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { svc.Run(ctx) })
	defer wg.Wait()
	defer stop()
	if _, err := svc.RequestReset(ctx, "ann@example.com", reset.RequestOptions{}); err != nil {
		t.Fatal(err)
	}
	m, err := mailbox.Wait(ctx, "ann@example.com")
	if err != nil {
		t.Fatal(err)
	}
	_, activation, _ := strings.Cut(m.Link, "=")

	const good = "nine grey herons"
	for _, test := range []struct {
		name, link, password string
		want                 string // of the error; "" for success
	}{
		{"refused", m.Link, "short", "400: "},
		{"another link", m.Link[:len(m.Link)-5], good, "the link led to GET " + app.URL + "/account/reset: 400: "},
		{"another page", app.URL + "/login", good, "no form with the fields password, confirm"},
		{"CSRF middleware", app.URL + "/csrf/", good, "the form led to POST " + app.URL + "/csrf/: 403"},
		{"no server", "http://127.0.0.1:1/?activation=" + activation, good, "connection refused"},
		{"no URL", "://" + activation, good, "missing protocol scheme"},
		{"success", m.Link, good, ""},
		{"again", m.Link, good, "the link led to GET " + app.URL + "/account/reset: 400: "},
	} {
		err := resettest.ChangePassword(ctx, nil, test.link, test.password)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got error %v, want %q", test.name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), activation) {
			t.Errorf("%s: the error has the activation: %v", test.name, err)
		}
	}
	if user.password != good {
		t.Errorf("got password %q, want %q", user.password, good)
	}
}
