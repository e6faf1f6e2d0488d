package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
)

// apiKey is for servers on loopback that live for seconds.
const apiKey = "Kz4v0bQm8TnYx2RsWc7JdLh5PgUa9EfB"

// users is how many accounts a server has, unless a row says otherwise: enough
// that no user comes to the cap.
const users = 200_000

// A server is what the bench says to a server.
type server struct {
	Kind       string // "SIDE-PLACE", such as "reset-sqlite"
	DB         string // a file of SQLite, or the name of a database or schema
	SMTP       string // address of the sink
	Password   string // for the sink; "": no log-in
	Users      int
	Live       int // users who have an activation, a lock and a record of mail that was sent
	Waiting    int // mails whose next attempt is later
	Expired    int // mails and activations that expired an hour ago, too recently for Purge
	Purgeable  int // those that expired two days ago
	Idle       bool
	Processors int // 0: one
}

// serveUntilClosed is the main function of a child. It serves until the parent
// closes its standard input, or is gone.
func serveUntilClosed(ctx context.Context, config string) error {
	var c server
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	handler, done, err := newHandler(ctx, &c)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	server := &http.Server{Handler: handler}
	go server.Serve(listener)
	<-ctx.Done()
	server.Close()
	return done()
}

// newHandler returns the handler of a server, and what ends it.
func newHandler(ctx context.Context, c *server) (http.Handler, func() error, error) {
	side, place, _ := strings.Cut(c.Kind, "-")
	db, store, err := openPlace(ctx, place, c)
	if err != nil {
		return nil, nil, err
	}
	switch side {
	case "reset":
		return newReset(ctx, db, store, c)
	case "insert":
		return newInsert(ctx, db, place)
	case "cap":
		return newCap(ctx, db)
	}
	return nil, nil, fmt.Errorf("no server %q", c.Kind)
}

// accounts is the host of package reset: a table of users.
type accounts struct {
	find *sql.Stmt
}

func newAccounts(ctx context.Context, db *bun.DB) (accounts, error) {
	find, err := db.DB.PrepareContext(ctx, placeholders(db, `SELECT id, email FROM users WHERE email = ?`))
	return accounts{find}, err
}

func (a accounts) FindByEmail(ctx context.Context, address string) (u reset.User, err error) {
	err = a.find.QueryRowContext(ctx, address).Scan(&u.ID, &u.Email)
	if errors.Is(err, sql.ErrNoRows) {
		err = reset.ErrNoUser
	}
	return u, err
}

func (accounts) HashPassword(context.Context, string) (string, error) { return "hash", nil }

func (accounts) SetPassword(ctx context.Context, userID, hash string) error { return nil }

// newReset serves package reset as a host would, with default settings but
// without the limit of a client, whom the load names itself.
func newReset(ctx context.Context, db *bun.DB, store reset.Store, c *server) (http.Handler, func() error, error) {
	a, err := newAccounts(ctx, db)
	if err != nil {
		return nil, nil, err
	}
	mailer := &reset.SMTPMailer{Addr: c.SMTP, From: "bench@example.com", InsecureNoTLS: true}
	if c.Password != "" {
		mailer.Username, mailer.Password = "bench", c.Password
	}
	config := reset.Config{
		Users:     a,
		Store:     store,
		Mailer:    mailer,
		BaseURL:   "http://127.0.0.1",
		APIKeys:   []string{apiKey},
		PerClient: reset.Unlimited,
		ClientIP: func(r *http.Request) string {
			if client := r.Header.Get("X-Client"); client != "" {
				return client
			}
			return "192.0.2.1"
		},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
	if c.Waiting+c.Expired+c.Purgeable > 0 {
		config.MaxQueued = math.MaxInt32 // the default refuses requests behind as many
	}
	svc, err := reset.New(config)
	if err != nil {
		return nil, nil, err
	}
	var wg sync.WaitGroup
	run := sync.OnceFunc(func() { wg.Go(func() { svc.Run(ctx) }) })
	if !c.Idle {
		run()
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/auth/", svc.Handler())
	mux.HandleFunc("POST /bench/run", func(http.ResponseWriter, *http.Request) { run() })
	mux.HandleFunc("GET /bench/expired", func(w http.ResponseWriter, r *http.Request) {
		var n int
		query := placeholders(db, `SELECT (SELECT count(*) FROM reset_mails WHERE expires <= ?) + (SELECT count(*) FROM reset_activations WHERE expires <= ?)`)
		now := time.Now().UnixMilli()
		if err := db.DB.QueryRowContext(r.Context(), query, now, now).Scan(&n); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, n)
	})
	mux.Handle("/", svc.Pages())
	return mux, func() error {
		wg.Wait()
		if s, ok := store.(io.Closer); ok {
			return s.Close()
		}
		return db.Close()
	}, nil
}
