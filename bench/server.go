package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gopassreset/reset"
	storebun "github.com/gopassreset/reset/store_bun"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
	"github.com/uptrace/bun"
)

// apiKey is for servers on loopback that live for seconds.
const apiKey = "Kz4v0bQm8TnYx2RsWc7JdLh5PgUa9EfB"

// users is how many accounts a server has, unless a row says otherwise: enough
// that no user comes to the cap.
const users = 200_000

// A serverConfig is what the parent process says to a server.
type serverConfig struct {
	db       string // a file of SQLite, or the name of a database or schema
	smtp     string // address of the sink; "": no mail
	users    int
	requests int  // expired rows that are there before
	idle     bool // Run begins only with POST /bench/run
}

func serverFlags() *serverConfig {
	c := new(serverConfig)
	flag.StringVar(&c.db, "db", "", "internal: the database of a server")
	flag.StringVar(&c.smtp, "smtp", "", "internal: the mail sink")
	flag.IntVar(&c.users, "users", users, "internal: how many accounts there are")
	flag.IntVar(&c.requests, "expired", 0, "internal: how many expired mails are queued")
	flag.BoolVar(&c.idle, "idle", false, "internal: deliver only when asked to")
	return c
}

// A child is a server in a process of its own.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	addr  string
}

// resident returns the memory of the server in MB, where Linux says it.
func (c *child) resident() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", c.cmd.Process.Pid))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errNotHere
	}
	var size, pages int
	if err == nil {
		_, err = fmt.Sscan(string(b), &size, &pages)
	}
	return float64(pages*os.Getpagesize()) / 1e6, err
}

// start runs a server of some kind until stop.
func start(ctx context.Context, kind string, c serverConfig) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"-serve", kind, "-db", c.db, "-smtp", c.smtp, "-users", strconv.Itoa(c.users), "-expired", strconv.Itoa(c.requests), fmt.Sprintf("-idle=%t", c.idle)}
	if kind == "pocketbase" {
		if program, err = buildPocketBase(ctx); err != nil {
			return nil, err
		}
		args = []string{c.db + ".pocketbase", c.smtp, strconv.Itoa(c.users)}
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		cmd.Wait()
		return nil, fmt.Errorf("server %s did not start: %w", kind, err)
	}
	go io.Copy(io.Discard, stdout)
	return &child{cmd, stdin, strings.TrimSpace(addr)}, nil
}

// pocketBaseDir is the module of the other server, seen from the repository.
const pocketBaseDir = "bench/pocketbase"

var pocketBase string // the program, once it is built

func buildPocketBase(ctx context.Context) (string, error) {
	if pocketBase != "" {
		return pocketBase, nil
	}
	if _, err := os.Stat(pocketBaseDir); err != nil {
		return "", fmt.Errorf("run the bench from the root of the repository: %w", err)
	}
	program := filepath.Join(os.TempDir(), fmt.Sprintf("reset-bench-pocketbase-%d", os.Getpid()))
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	cmd.Dir, cmd.Stderr = pocketBaseDir, os.Stderr
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build PocketBase: %w", err)
	}
	pocketBase = program
	return program, nil
}

func (c *child) stop() error {
	c.stdin.Close()
	return c.cmd.Wait()
}

// deliver lets a server that was started idle send its mail.
func (c *child) deliver() error {
	response, err := http.Post("http://"+c.addr+"/bench/run", "", nil)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// serveKind is the main function of a child.
func serveKind(ctx context.Context, kind string, c *serverConfig) error {
	pinToProcessor(0)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		io.Copy(io.Discard, os.Stdin) // until the parent closes it or is gone
		cancel()
	}()
	handler, done, err := newHandler(ctx, kind, c)
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

// newHandler returns a server of a kind, and what ends it.
func newHandler(ctx context.Context, kind string, c *serverConfig) (http.Handler, func() error, error) {
	side, place, _ := strings.Cut(kind, "-")
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
	return nil, nil, fmt.Errorf("no server %q", kind)
}

// accounts is the host of package reset: a table of users.
type accounts struct {
	find *sql.Stmt
}

func newAccounts(ctx context.Context, db *bun.DB) (accounts, error) {
	query := `SELECT id, email FROM users WHERE email = ?`
	if db.Dialect().Name().String() == "pg" {
		query = `SELECT id, email FROM users WHERE email = $1`
	}
	find, err := db.DB.PrepareContext(ctx, query)
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
func newReset(ctx context.Context, db *bun.DB, store reset.Store, c *serverConfig) (http.Handler, func() error, error) {
	a, err := newAccounts(ctx, db)
	if err != nil {
		return nil, nil, err
	}
	config := reset.Config{
		Users:     a,
		Store:     store,
		Mailer:    discard{},
		BaseURL:   "http://127.0.0.1",
		APIKeys:   []string{apiKey},
		PerClient: reset.Unlimited,
		ClientIP:  func(r *http.Request) string { return "192.0.2.1" },
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
	if c.smtp != "" {
		config.Mailer = &reset.SMTPMailer{Addr: c.smtp, From: "bench@example.com", InsecureNoTLS: true}
	}
	config.ClientIP = func(r *http.Request) string {
		if client := r.Header.Get("X-Client"); client != "" {
			return client
		}
		return "192.0.2.1"
	}
	svc, err := reset.New(config)
	if err != nil {
		return nil, nil, err
	}
	var wg sync.WaitGroup
	run := sync.OnceFunc(func() { wg.Go(func() { svc.Run(ctx) }) })
	if !c.idle {
		run()
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/auth/", svc.Handler())
	mux.HandleFunc("POST /bench/run", func(http.ResponseWriter, *http.Request) { run() })
	mux.Handle("/", svc.Pages())
	return mux, func() error { wg.Wait(); return closeStore(store, db) }, nil
}

type discard struct{}

func (discard) Send(context.Context, reset.Message) error { return nil }

func closeStore(store reset.Store, db *bun.DB) error {
	if s, ok := store.(*storesqlite.Store); ok {
		return s.Close()
	}
	return db.Close()
}

// newInsert is the least that can accept a request: decode it and insert one
// row. On SQLite what comes while a commit is under way is committed together;
// elsewhere each row is committed by itself.
func newInsert(ctx context.Context, db *bun.DB, place string) (http.Handler, func() error, error) {
	insert := func(ctx context.Context, email string) error {
		_, err := db.DB.ExecContext(ctx, placeholders(db, `INSERT INTO floor (email, at) VALUES (?, ?)`), email, time.Now().UnixMilli())
		return err
	}
	if place == "sqlite" {
		group, err := newGroup(ctx, db)
		if err != nil {
			return nil, nil, err
		}
		insert = group.insert
	}
	return floorHandler(insert), db.Close, nil
}

// newCap is the least that can keep a cap without any promise under
// concurrency: look the user up, count, insert, commit.
func newCap(ctx context.Context, db *bun.DB) (http.Handler, func() error, error) {
	a, err := newAccounts(ctx, db)
	if err != nil {
		return nil, nil, err
	}
	count := placeholders(db, `SELECT COUNT(*) FROM floor WHERE email = ? AND at > ?`)
	insert := placeholders(db, `INSERT INTO floor (email, at) VALUES (?, ?)`)
	return floorHandler(func(ctx context.Context, email string) error {
		user, err := a.FindByEmail(ctx, email)
		if err != nil {
			return err
		}
		tx, err := db.DB.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		var n int
		now := time.Now().UnixMilli()
		if err := tx.QueryRowContext(ctx, count, user.Email, now-3_600_000).Scan(&n); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, insert, user.Email, now); err != nil {
			return err
		}
		return tx.Commit()
	}), db.Close, nil
}

// placeholders numbers the question marks of a query where the database wants
// that.
func placeholders(db *bun.DB, query string) string {
	if db.Dialect().Name().String() != "pg" {
		return query
	}
	var b strings.Builder
	n := 0
	for _, r := range query {
		if r == '?' {
			n++
			fmt.Fprintf(&b, "$%d", n)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func floorHandler(insert func(context.Context, string) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Email string }
		err := json.NewDecoder(r.Body).Decode(&body)
		if err == nil {
			err = insert(r.Context(), body.Email)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}

// A group commits together what comes while a commit is under way.
type group struct {
	rows chan groupRow
}

type groupRow struct {
	email string
	done  chan error
}

func newGroup(ctx context.Context, db *bun.DB) (*group, error) {
	conn, err := db.DB.Conn(ctx)
	if err != nil {
		return nil, err
	}
	insert, err := conn.PrepareContext(ctx, `INSERT INTO floor (email, at) VALUES (?, ?)`)
	if err != nil {
		return nil, err
	}
	g := &group{rows: make(chan groupRow)}
	go func() {
		for {
			select {
			case row := <-g.rows:
				g.commit(conn, insert, row)
			case <-ctx.Done():
				return
			}
		}
	}()
	return g, nil
}

func (g *group) insert(ctx context.Context, email string) error {
	row := groupRow{email, make(chan error, 1)}
	select {
	case g.rows <- row:
		return <-row.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *group) commit(conn *sql.Conn, insert *sql.Stmt, first groupRow) {
	ctx := context.Background()
	batch := []groupRow{first}
	_, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE")
	for i := 0; err == nil && i < len(batch); i++ {
		_, err = insert.ExecContext(ctx, batch[i].email, time.Now().UnixMilli())
		if i == len(batch)-1 {
			runtime.Gosched() // let those whom the last commit woke come, too
			select {
			case row := <-g.rows:
				batch = append(batch, row)
			default:
			}
		}
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, "COMMIT")
	}
	for _, row := range batch {
		row.done <- err
	}
}

// useStoreBun opens a store on a server's database.
func useStoreBun(ctx context.Context, db *bun.DB) (reset.Store, error) {
	if err := storebun.CreateSchema(ctx, db); err != nil {
		return nil, err
	}
	return storebun.New(ctx, db)
}
