package recipes_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/gofiber/fiber/v3"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/recipes"
	"github.com/gopassreset/reset/resettest"
)

const apiKey = "Vb7qLm2Zx9Rt4Wd6Yp1Kc8Hs3Nf5Gj0a"

// ann is a host with one account, whose password is the string.
type ann struct{ password string }

func (*ann) FindByEmail(_ context.Context, address string) (reset.User, error) {
	if address != "ann@example.com" {
		return reset.User{}, reset.ErrNoUser
	}
	return reset.User{ID: "1", Email: address}, nil
}

func (*ann) HashPassword(_ context.Context, password string) (string, error) { return password, nil }

func (a *ann) SetPassword(_ context.Context, _, hash string) error {
	a.password = hash
	return nil
}

// On each router a user gets from the form to a new password, and a back end to
// its answers.
func TestRouters(t *testing.T) {
	for name, mount := range map[string]func(*reset.Service, io.Writer) http.Handler{
		"net/http": recipes.NetHTTP, "chi": recipes.Chi, "gin": recipes.Gin, "echo": recipes.Echo,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewUnstartedServer(nil)
			defer srv.Close()
			svc, user, mailbox := newService(t, "http://"+srv.Listener.Addr().String())
			var accessLog buffer
			srv.Config.Handler = mount(svc, &accessLog)
			srv.Start()
			walk(t, srv.URL, user, mailbox)
			accessLog.check(t)
		})
	}
	t.Run("fiber", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		base := "http://" + l.Addr().String()
		svc, user, mailbox := newService(t, base)
		var accessLog buffer
		app := recipes.Fiber(svc, &accessLog)
		ended := make(chan error, 1)
		go func() { ended <- app.Listener(l, fiber.ListenConfig{DisableStartupMessage: true}) }()
		walk(t, base, user, mailbox)
		l.Close() // Shutdown of fasthttp 1.73 races with the contexts of its requests
		<-ended
		accessLog.check(t)
	})
}

// A buffer is an access log.
type buffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// check looks for the link, whose query must not be logged.
func (b *buffer) check(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if log := b.text.String(); !strings.Contains(log, "/account/reset") || strings.Contains(log, "activation") {
		t.Errorf("the access log lacks the link, or shows its query:\n%s", log)
	}
}

func newService(t *testing.T, base string) (*reset.Service, *ann, *resettest.Mailbox) {
	t.Helper()
	user, mailbox := new(ann), new(resettest.Mailbox)
	svc, err := reset.New(reset.Config{
		Users: user, Store: new(resettest.MemStore), Mailer: mailbox, BaseURL: base + "/account",
		APIKeys: []string{apiKey}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return svc, user, mailbox
}

func walk(t *testing.T, base string, user *ann, mailbox *resettest.Mailbox) {
	t.Helper()
	page, err := http.PostForm(base+"/account/forgot", url.Values{"email": {"Ann@Example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	page.Body.Close()
	mail, err := mailbox.Wait(t.Context(), "ann@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if err := resettest.ChangePassword(t.Context(), nil, mail.Link, "nine grey herons"); err != nil {
		t.Error(err)
	}
	if user.password != "nine grey herons" {
		t.Errorf("the password is %q", user.password)
	}

	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/auth/reset-password", strings.NewReader(`{"email":"bob@example.com"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", apiKey)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != `{"message":"ok"}` {
		t.Errorf("the contract answers %d %s, %v", resp.StatusCode, body, err)
	}
}
