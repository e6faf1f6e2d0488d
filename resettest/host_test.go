package resettest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
)

func TestHostOfMemHost(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*webHost)
	}{
		{"direct", func(*webHost) {}},
		{"behind a proxy", behindProxy},
		{"behind a proxy that strips a prefix", func(h *webHost) {
			behindProxy(h)
			h.config.BaseURL = "https://app.example.com/shop/account"
			h.host.ProxyStrips = "/shop"
		}},
		{"loopback", func(h *webHost) { h.config.BaseURL = "http://localhost:8080/account" }},
		{"cookies of its own", func(h *webHost) {
			h.middleware = func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					http.SetCookie(w, &http.Cookie{Name: "session", Value: "anonymous"})
					next.ServeHTTP(w, r)
				})
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newWebHost(test.change)
			TestHost(t, h.handler, h.host)
		})
	}
}

var proxy = netip.MustParseAddr("10.1.2.3")

func behindProxy(h *webHost) {
	h.config.ClientIP = reset.ClientIPBehind(netip.PrefixFrom(proxy, 32))
	h.host.Proxy = proxy
}

// A webHost is a memHost with a Service mounted under /account.
type webHost struct {
	*memHost
	config     reset.Config
	host       Host
	mount      func(pages http.Handler) http.Handler
	middleware func(http.Handler) http.Handler
	logged     logBuffer
	handler    http.Handler
}

// newWebHost returns a host after changes to its parts.
func newWebHost(change func(*webHost)) *webHost {
	h := &webHost{memHost: newMemHost(false), middleware: func(next http.Handler) http.Handler { return next }}
	mailbox := new(Mailbox)
	h.config = reset.Config{
		Users: memUsers{h.memHost}, Store: h.store, Mailer: mailbox, BaseURL: "https://app.example.com/account",
		PerClient: reset.NewMemoryLimiter(20, time.Minute), Logger: slog.New(slog.NewTextHandler(&h.logged, nil)),
	}
	h.mount = func(pages http.Handler) http.Handler { return http.StripPrefix("/account", pages) }
	h.host = Host{
		Mailbox: mailbox,
		Logged:  h.logged.String,
		SignUp: func(ctx context.Context, email, password string) error {
			_, err := h.signUp(ctx, email, password)
			return err
		},
		SignIn: func(ctx context.Context, _ *http.Client, email, password string) (func(context.Context) (bool, error), error) {
			return h.signIn(ctx, email, password)
		},
		ChangePassword: func(ctx context.Context, email, _, password string) error {
			u, err := h.findUser(ctx, canonical(email))
			if err != nil {
				return err
			}
			hash, err := h.hash(ctx, password)
			if err != nil {
				return err
			}
			return errors.Join(h.setPassword(ctx, u.ID, hash), h.host.Service.Revoke(ctx, u.ID))
		},
	}
	change(h)
	svc, err := reset.New(h.config)
	if err != nil {
		panic(err)
	}
	h.host.Service, h.host.BaseURL = svc, cmp.Or(h.host.BaseURL, h.config.BaseURL)
	mux := http.NewServeMux()
	mux.Handle("/account/", h.mount(svc.Pages()))
	h.handler = h.middleware(h.accessLog(mux))
	return h
}

// accessLog logs paths without queries.
func (h *webHost) accessLog(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.config.Logger.Info("request", "method", r.Method, "path", r.URL.Path)
		next.ServeHTTP(w, r)
	})
}

// A logBuffer is a buffer for many goroutines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestHostMutants(t *testing.T) {
	specimen[func(*webHost), *hostCheck]{
		sentences: hostSentences(Host{ChangePassword: noChange}),
		mutants:   hostMutants(),
		waits:     true,
		check:     newHostCheck,
	}.prove(t)
}

// newHostCheck runs a host after changes to its parts.
func newHostCheck(t testing.TB, change func(*webHost)) *hostCheck {
	h := newWebHost(change)
	base, err := url.Parse(h.host.BaseURL)
	if err != nil {
		t.Fatalf("%v", err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error)
	go func() { ended <- h.host.Service.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return &hostCheck{t, h.host, base, h.handler}
}

// A failure is reported once and names its cure, and what follows from it is not
// reported at all.
func TestHostAdvice(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*webHost)
		want   []string // parts of the failures up to the first sentence that the others need
	}{
		{"Config.BaseURL alone is wrong", func(h *webHost) {
			h.config.BaseURL, h.host.BaseURL = "https://app.example.com/auth", "https://app.example.com/account"
		}, []string{"set Host.BaseURL and Config.BaseURL alike"}},
		{"mounted elsewhere", func(h *webHost) { h.config.BaseURL = "https://app.example.com/auth" },
			[]string{"or let BaseURL end with the prefix of the mount"}},
		{"paths are rewritten", func(h *webHost) { h.mount = rewritePaths },
			[]string{`mount http.StripPrefix("/account", svc.Pages())`}},
		{"a middleware reads bodies", func(h *webHost) { h.middleware = readBodies },
			[]string{"a middleware has read the body before Pages"}},
		{"a link to an app", func(h *webHost) {
			h.config.AllowedOrigins, h.config.ResetURL = []string{"https://spa.example.com"}, "https://spa.example.com/reset"
		}, slices.Repeat([]string{"leave Config.ResetURL and RevokeURL out in this test"}, 4)},
		{"SetPassword fails", func(h *webHost) {
			h.set = func(context.Context, string, string) error { return errors.New("no such table: users") }
		}, slices.Repeat([]string{"no such table: users"}, 4)},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{TB: t}
				inOrder(hostSentences(Host{}), hostNeeds, func(s sentence[*hostCheck]) bool {
					check := &recorder{TB: t}
					check.run(func() { s.check(newHostCheck(check, test.change)) })
					r.said = append(r.said, check.said...)
					return !check.Failed()
				})
				ok := len(r.said) == len(test.want)
				for i := range min(len(r.said), len(test.want)) {
					ok = ok && strings.Contains(r.said[i], test.want[i])
				}
				if !ok {
					t.Errorf("got %q, want %q", r.said, test.want)
				}
			})
		})
	}
}

// rewritePaths is a router that leaves no trace of what it strips.
func rewritePaths(pages http.Handler) http.Handler {
	return http.StripPrefix("/acc", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RequestURI = r.URL.RequestURI()
		pages.ServeHTTP(w, r)
	}))
}

// readBodies is a middleware that leaves nothing of a body.
func readBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			next.ServeHTTP(w, r)
		}
	})
}

func hostMutants() []mutant[func(*webHost)] {
	// around has a middleware around the host.
	around := func(middleware func(h *webHost, next http.Handler, w http.ResponseWriter, r *http.Request)) func(*webHost) {
		return func(h *webHost) {
			h.middleware = func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { middleware(h, next, w, r) })
			}
		}
	}
	// refusing refuses some requests.
	refusing := func(status int, refuses func(*http.Request) bool) func(*webHost) {
		return around(func(_ *webHost, next http.Handler, w http.ResponseWriter, r *http.Request) {
			if refuses(r) {
				http.Error(w, "refused", status)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	// rewriting changes responses.
	rewriting := func(rewrite func(r *http.Request, w *http.Response)) func(*webHost) {
		return around(func(_ *webHost, next http.Handler, w http.ResponseWriter, r *http.Request) {
			recorded := newRecording(next, r)
			rewrite(r, recorded)
			for name, values := range recorded.Header {
				w.Header()[name] = values
			}
			w.WriteHeader(recorded.StatusCode)
			_, _ = io.Copy(w, recorded.Body)
		})
	}
	isPost := func(r *http.Request) bool { return r.Method == http.MethodPost }
	return []mutant[func(*webHost)]{
		{"paths are rewritten", func(h *webHost) { h.mount = rewritePaths }, []string{"mount"}},
		{"mounted elsewhere", func(h *webHost) { h.config.BaseURL = "https://app.example.com/accounts" }, []string{"mount"}},
		{"another BaseURL", func(h *webHost) {
			other := h.config
			other.BaseURL = "https://app.example.com/other"
			svc, err := reset.New(other)
			if err != nil {
				panic(err)
			}
			h.mount = func(http.Handler) http.Handler { return http.StripPrefix("/account", svc.Pages()) }
		}, []string{"mount"}},
		{"behind a sign-in", around(func(_ *webHost, _ http.Handler, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
		}), []string{"mount", "link"}},
		{"GET and POST only", refusing(http.StatusMethodNotAllowed, func(r *http.Request) bool { return r.Method == http.MethodHead }), []string{"mount", "link"}},
		{"CSRF middleware", refusing(http.StatusForbidden, isPost), []string{"forms", "clients", "link", "log"}},
		{"CSRF middleware for forms only", refusing(http.StatusForbidden, func(r *http.Request) bool {
			return isPost(r) && r.Header.Get("Content-Type") != "application/json"
		}), []string{"forms"}},
		{"a middleware reads bodies", func(h *webHost) { h.middleware = readBodies }, []string{"forms"}},
		{"no Origin arrives", around(func(_ *webHost, next http.Handler, w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Origin", "null")
			next.ServeHTTP(w, r)
		}), []string{"forms"}},
		{"every request is same-origin", around(func(_ *webHost, next http.Handler, w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "same-origin")
			next.ServeHTTP(w, r)
		}), []string{"other origins"}},
		{"CORS for all", around(func(_ *webHost, next http.Handler, w http.ResponseWriter, r *http.Request) {
			if origin := r.Header.Get("Origin"); origin != "" {
				w.Header().Set("Access-Control-Allow-Origin", origin)
			}
			next.ServeHTTP(w, r)
		}), []string{"other origins"}},
		{"a policy of the host's own", rewriting(func(_ *http.Request, w *http.Response) {
			w.Header.Set("Content-Security-Policy", "default-src 'self'")
		}), []string{"responses"}},
		{"cached", rewriting(func(_ *http.Request, w *http.Response) { w.Header.Set("Cache-Control", "public, max-age=60") }), []string{"responses"}},
		{"a second Referrer-Policy", rewriting(func(_ *http.Request, w *http.Response) { w.Header.Add("Referrer-Policy", "no-referrer") }), []string{"responses"}},
		{"error pages of the host's own", rewriting(func(_ *http.Request, w *http.Response) {
			if w.StatusCode >= 400 {
				w.Body = io.NopCloser(strings.NewReader("Oops"))
			}
		}), []string{"responses"}},
		{"errors with 200", rewriting(func(_ *http.Request, w *http.Response) { w.StatusCode = http.StatusOK }), []string{"responses", "mount"}},
		{"analytics", rewriting(func(r *http.Request, w *http.Response) {
			if r.Method == http.MethodGet {
				body, _ := io.ReadAll(w.Body)
				w.Body = io.NopCloser(bytes.NewReader(append(body, "<script src=//stats.example></script>"...)))
			}
		}), []string{"responses"}},
		{"no limit", func(h *webHost) { h.config.PerClient = reset.Unlimited }, []string{"clients"}},
		{"one limit for all", func(h *webHost) { h.config.ClientIP = func(*http.Request) string { return "client" } }, []string{"clients"}},
		{"a proxy that is not named", func(h *webHost) { h.host.Proxy = proxy }, []string{"clients"}},
		{"the left-most hop", func(h *webHost) {
			behindProxy(h)
			h.config.ClientIP = func(r *http.Request) string {
				client, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
				return client
			}
		}, []string{"clients"}},
		{"RealIP middleware", around(func(_ *webHost, next http.Handler, w http.ResponseWriter, r *http.Request) {
			if ip := r.Header.Get("X-Real-Ip"); ip != "" {
				r.RemoteAddr = ip + ":0"
			}
			next.ServeHTTP(w, r)
		}), []string{"clients"}},
		{"queries are dropped", around(func(_ *webHost, next http.Handler, w http.ResponseWriter, r *http.Request) {
			r.URL.RawQuery = ""
			next.ServeHTTP(w, r)
		}), []string{"link", "log"}},
		{"cookies are dropped", rewriting(func(_ *http.Request, w *http.Response) { w.Header.Del("Set-Cookie") }), []string{"link", "log", "sessions"}},
		{"scanners use links up", func(h *webHost) {
			h.store.FindFunc = func(ctx context.Context, now time.Time, hash reset.Hash) (reset.Activation, error) {
				a, err := h.store.Store.Find(ctx, now, hash)
				if err == nil {
					err = h.store.Store.Revoke(ctx, time.Now(), a.UserID, time.Time{})
				}
				return a, err
			}
		}, []string{"link"}},
		{"links work again", func(h *webHost) {
			known := make(map[reset.Hash]reset.Activation)
			h.store.FindFunc = func(ctx context.Context, now time.Time, hash reset.Hash) (reset.Activation, error) {
				a, err := h.store.Store.Find(ctx, now, hash)
				if err == nil {
					known[hash] = a
				}
				return known[hash], nil
			}
			redeem := h.store.RedeemFunc
			h.store.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
				_, _ = h.store.Store.Issue(ctx, now, a, reset.Limits{MaxRequests: 100}, nil)
				return redeem(ctx, now, a, notification, apply)
			}
		}, []string{"link"}},
		{"another table", func(h *webHost) {
			h.set = func(context.Context, string, string) error { return nil }
		}, []string{"link", "sessions"}},
		{"JWTs without a version", func(h *webHost) {
			h.host.SignIn = func(ctx context.Context, _ *http.Client, email, password string) (func(context.Context) (bool, error), error) {
				_, err := h.signIn(ctx, email, password)
				return func(context.Context) (bool, error) { return true, nil }, err
			}
		}, []string{"sessions"}},
		{"every session ends", func(h *webHost) {
			h.set = func(ctx context.Context, userID, hash string) error {
				return errors.Join(h.setPassword(ctx, userID, hash), h.endSessions(ctx, func(string) bool { return true }))
			}
		}, []string{"sessions"}},
		{"bcrypt without MaxPasswordBytes", func(h *webHost) {
			h.memHost.hash = func(ctx context.Context, password string) (string, error) {
				if len(password) > 72 {
					return "", errors.New("bcrypt: password length exceeds 72 bytes")
				}
				return hashOf(ctx, password)
			}
		}, []string{"long passwords"}},
		{"a form that cuts passwords at sign-in", func(h *webHost) {
			h.host.SignIn = func(ctx context.Context, _ *http.Client, email, password string) (func(context.Context) (bool, error), error) {
				return h.signIn(ctx, email, password[:min(len(password), 100)])
			}
		}, []string{"long passwords"}},
		{"an access log with queries", around(func(h *webHost, next http.Handler, w http.ResponseWriter, r *http.Request) {
			h.config.Logger.Info("request", "uri", r.RequestURI)
			next.ServeHTTP(w, r)
		}), []string{"log"}},
		{"bodies are logged", around(func(h *webHost, next http.Handler, w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			h.config.Logger.Info("request", "body", string(body))
			r.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, r)
		}), []string{"log"}},
		{"lookups are logged", func(h *webHost) {
			h.find = func(ctx context.Context, address string) (reset.User, error) {
				h.config.Logger.Info("SELECT * FROM users WHERE address = '" + address + "'")
				return h.findUser(ctx, address)
			}
		}, []string{"log"}},
		{"a log that is empty", func(h *webHost) { h.host.Logged = func() string { return "" } }, []string{"log"}},
		{"no Revoke", func(h *webHost) {
			h.host.ChangePassword = func(context.Context, string, string, string) error { return nil }
		}, []string{"other changes"}},
	}
}

// newRecording returns what a handler answers.
func newRecording(next http.Handler, r *http.Request) *http.Response {
	w := &recording{header: make(http.Header), status: http.StatusOK}
	next.ServeHTTP(w, r)
	return &http.Response{StatusCode: w.status, Header: w.header, Body: io.NopCloser(&w.body)}
}

type recording struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recording) Header() http.Header         { return w.header }
func (w *recording) WriteHeader(status int)      { w.status = status }
func (w *recording) Write(p []byte) (int, error) { return w.body.Write(p) }
