package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

// shutdownTime is what requests have that are under way when the host stops.
const shutdownTime = 10 * time.Second

// A host is the app that people sign in to, with the library mounted in it.
type host struct {
	options  options
	log      *slog.Logger
	events   *events
	metrics  *metrics
	listener net.Listener
	base     string // scheme and host, as browsers see them
	db       *database
	users    *users
	mailbox  *resettest.Mailbox // nil: mail leaves by SMTP
	service  *reset.Service
	attempts reset.Limiter // to log in or sign up
	cookie   http.Cookie   // of sessions, without a value
	server   *http.Server
}

// newHost returns a host that is ready to run.
func newHost(ctx context.Context, o options, log *slog.Logger) (_ *host, err error) {
	h := &host{options: o, metrics: newMetrics(), attempts: reset.NewMemoryLimiter(100, 10*time.Minute)}
	h.events = newEvents(log.Handler(), h.metrics)
	h.log = slog.New(h.events)
	defer func() {
		if err != nil {
			_ = h.close()
		}
	}()
	if h.listener, err = net.Listen("tcp", o.addr); err != nil {
		return nil, err
	}
	h.base = cmp.Or(o.base, baseOf(o.addr, h.listener.Addr()))
	h.cookie = sessionCookie(strings.HasPrefix(h.base, "https:"))
	if err := h.openDatabase(ctx); err != nil {
		return nil, err
	}
	if h.service, err = reset.New(h.config()); err != nil {
		return nil, err
	}
	h.server = &http.Server{
		Handler:           h.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelWarn),
	}
	return h, nil
}

// openDatabase opens it and makes what is missing in it.
func (h *host) openDatabase(ctx context.Context) (err error) {
	if h.db, err = h.options.db.open(ctx); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if h.users, err = newUsers(ctx, h.db.DB); err != nil {
		return err
	}
	return h.db.alone(ctx, func(ctx context.Context) error {
		if err := h.db.createTables(ctx); err != nil {
			return err
		}
		return h.users.seed(ctx, h.options.users, h.log)
	})
}

// config is all that the library wants to know.
func (h *host) config() reset.Config {
	return reset.Config{
		Users:      h.users,
		Store:      h.db.store,
		Mailer:     h.mailer(),
		BaseURL:    h.base + "/account",
		APIKeys:    []string{h.options.apiKey},
		SignInURL:  h.base + "/login",
		Brand:      reset.Brand{Name: "Harbour", Color: "#0f766e"},
		PerClient:  h.options.perClient,
		PerAddress: h.options.perAddress,
		Observe:    h.metrics.observe,
		Logger:     h.log,
	}
}

// mailer is SMTP, or a mailbox that shows the mail for as long as there is no
// mail server.
func (h *host) mailer() reset.Mailer {
	if h.options.smtp != nil {
		return h.options.smtp
	}
	h.mailbox = new(resettest.Mailbox)
	return h.mailbox
}

// handler mounts the library beside the host's own pages. It needs none of
// their protection against cross-site requests, since it has its own.
func (h *host) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/auth/", h.service.Handler())                                                           // for back ends with the API key
	mux.Handle("/account/", h.service.Pages())                                                             // for browsers
	mux.Handle("GET /.well-known/change-password", http.RedirectHandler("/password", http.StatusSeeOther)) // for password managers
	mux.HandleFunc("GET /healthz", h.health)
	mux.HandleFunc("GET /metrics", h.forOperators(h.showMetrics))
	mux.HandleFunc("GET /history/{user}", h.forOperators(h.showHistory))
	if h.mailbox != nil {
		mux.Handle("/inbox", h.mailbox)
	}
	mux.Handle("/", h.web())
	if strings.HasPrefix(h.base, "https:") {
		return strict(mux)
	}
	return mux
}

// strict makes browsers use https for this host only, for a year (RFC 6797).
// Everything that the host answers carries it, the library's pages too.
func strict(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
		next.ServeHTTP(w, r)
	})
}

// health answers 200 when the host is ready, which takes a database.
func (h *host) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	w.Header().Set("Cache-Control", "no-store")
	if err := h.db.ready(ctx); err != nil {
		h.log.Warn("not ready", "error", err)
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// run serves until ctx ends. Then it stops in the order of who needs whom: the
// server, the delivery of mail, the database.
func (h *host) run(ctx context.Context) error {
	deliver, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	delivered := make(chan error, 1)
	go func() { delivered <- h.service.Run(deliver) }()
	served := make(chan error, 1)
	go func() { served <- h.server.Serve(h.listener) }()

	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		h.log.Info("stopping")
		err = h.shutDown()
	}
	stop()
	return errors.Join(err, <-delivered, h.close())
}

func (h *host) shutDown() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if err := h.server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("shut down: %w", err), h.server.Close())
	}
	return nil
}

// close closes what newHost has opened, however far that came.
func (h *host) close() error {
	var errs []error
	if h.listener != nil && h.server == nil { // a server closes its listener itself
		errs = append(errs, h.listener.Close())
	}
	if h.options.smtp != nil {
		errs = append(errs, h.options.smtp.Close())
	}
	if h.db != nil {
		errs = append(errs, h.db.close())
	}
	return errors.Join(errs...)
}

// greet says where to click.
func (h *host) greet(w io.Writer) {
	fmt.Fprintf(w, "Open      %s/\n", h.base)
	fmt.Fprintf(w, "Sign in   %s with the password %q\n", demoUsers[0].Email, demoPassword)
	fmt.Fprintf(w, "Forgot    %s/account/forgot\n", h.base)
	if h.mailbox != nil {
		fmt.Fprintf(w, "Inbox     %s/inbox\n", h.base)
	}
	fmt.Fprintf(w, "Contract  %s/v1/auth/\n", h.base)
	if h.options.keyGenerated {
		fmt.Fprintf(w, "API key   %s\n", h.options.apiKey)
	}
	fmt.Fprintf(w, "Database  %s\n", h.db.name)
	if h.mailbox != nil && h.isExposed() {
		fmt.Fprintf(w, "\nWARNING   anyone who can reach %s can read the inbox, and take every account over\n", h.listener.Addr())
	}
}

// isExposed reports whether other machines reach the listener.
func (h *host) isExposed() bool {
	addr, ok := h.listener.Addr().(*net.TCPAddr)
	return !ok || !addr.IP.IsLoopback()
}
