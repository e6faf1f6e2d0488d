package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"testing"

	"github.com/alexedwards/argon2id"
	"golang.org/x/crypto/bcrypt"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// Hashes do not take the tests' time.
const cost = bcrypt.MinCost

func init() { argon2id.DefaultParams.Memory = 64 }

// A user forgets the password, gets a mail, chooses another one, and is signed
// out everywhere. An interrupt ends the host once the requests have ended.
func TestJourney(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot interrupt itself")
	}
	t.Chdir(t.TempDir())
	var logged bytes.Buffer
	log.SetOutput(&logged)
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	l.Close()
	ended := make(chan struct{})
	go func() { defer close(ended); main() }()
	await(t, addr)

	page, err := http.PostForm("http://"+addr+"/account/forgot", url.Values{"email": {"ALICE@example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	page.Body.Close()
	store := open(t)
	if _, err := store.DB().Exec("INSERT INTO sessions VALUES ('s', '1')"); err != nil {
		t.Fatal(err)
	}
	mail, err := mailbox.Wait(t.Context(), "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if err := resettest.ChangePassword(t.Context(), nil, mail.Link, "nine grey herons"); err != nil {
		t.Error(err)
	}
	var hash string
	var sessions int
	if err := store.DB().QueryRow("SELECT hash, (SELECT count(*) FROM sessions) FROM users").Scan(&hash, &sessions); err != nil {
		t.Fatal(err)
	}
	if ok, err := argon2id.ComparePasswordAndHash("nine grey herons", hash); !ok || err != nil || sessions != 0 {
		t.Errorf("hash %q (%v) and %d sessions, want the new password's and none", hash, err, sessions)
	}

	process, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-ended
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("it still accepts connections")
	}
}

// await waits until a server listens.
func await(t *testing.T, addr string) {
	t.Helper()
	for {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			conn.Close()
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}

func open(t *testing.T) *storesqlite.Store {
	t.Helper()
	store, err := storesqlite.Open("app.db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// bcryptUsers is Users of a host that hashes with bcrypt, with
// Config.MaxPasswordBytes 72.
type bcryptUsers struct{ *users }

func (bcryptUsers) HashPassword(_ context.Context, password string) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	return string(hash), err
}

// A host adds its own sign-up and sign-in, and the suite does the rest.
func TestUsers(t *testing.T) {
	t.Chdir(t.TempDir())
	store := open(t)
	db := store.DB()
	if _, err := db.Exec(schema); err != nil {
		t.Fatal(err)
	}
	for _, host := range []struct {
		name             string
		users            reset.Users
		matches          func(password, hash string) (bool, error)
		maxPasswordBytes int
	}{
		{"argon2id", &users{db}, argon2id.ComparePasswordAndHash, 0},
		{"bcrypt", bcryptUsers{&users{db}}, func(password, hash string) (bool, error) {
			err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
			return err == nil, err
		}, 72},
	} {
		t.Run(host.name, func(t *testing.T) {
			resettest.TestUsers(t, resettest.UsersHost{
				Users: host.users,
				Store: store,
				SignUp: func(ctx context.Context, email, password string) (string, error) {
					address, err := reset.CanonicalAddress(email)
					if err != nil {
						return "", err
					}
					hash, err := host.users.HashPassword(ctx, password)
					if err != nil {
						return "", err
					}
					id := rand.Text()
					_, err = db.ExecContext(ctx, "INSERT INTO users VALUES (?, ?, ?, ?)", id, address, email, hash)
					return id, err
				},
				SignIn: func(ctx context.Context, email, password string) (func(context.Context) (bool, error), error) {
					var id, hash string
					session := rand.Text()
					if err := db.QueryRowContext(ctx, "SELECT id, hash FROM users WHERE email = ?", email).Scan(&id, &hash); err != nil {
						return nil, err
					}
					if ok, err := host.matches(password, hash); !ok {
						return nil, errors.Join(errors.New("wrong password"), err)
					}
					_, err := db.ExecContext(ctx, "INSERT INTO sessions VALUES (?, ?)", session, id)
					return func(ctx context.Context) (alive bool, err error) {
						err = db.QueryRowContext(ctx, "SELECT count(*) FROM sessions WHERE id = ?", session).Scan(&alive)
						return alive, err
					}, err
				},
				MaxPasswordBytes: host.maxPasswordBytes,
			})
		})
	}
}
