package reset_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopassreset/reset"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// BenchmarkRequests compares the two kinds of requests with a floor: a bare
// handler that decodes the same JSON, makes one lookup and one prepared INSERT
// on the same file with the same pragmas, and commits each by itself. "floors"
// is how many times the floor's time a request takes, in this run.
func BenchmarkRequests(b *testing.B) {
	file := filepath.Join(b.TempDir(), "reset.db")
	store, err := storesqlite.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	accounts, err := openTable(b, file)
	if err != nil {
		b.Fatal(err)
	}
	svc := newFixture(b, nil, func(c *reset.Config) {
		c.Users, c.Store, c.PerClient = accounts, store, reset.Unlimited
	})
	kinds := []struct {
		name, path string
		handler    http.Handler
	}{
		{"floor", "/", http.HandlerFunc(accounts.serveFloor)},
		{"public", "/forgot", svc.Pages()},
		{"trusted", "/v1/auth/reset-password", svc.Handler()},
	}
	for _, clients := range []int{1, 64} {
		floor := 0.0
		for _, kind := range kinds {
			b.Run(fmt.Sprintf("%s/clients=%d", kind.name, clients), func(b *testing.B) {
				b.ReportAllocs()
				inParallel(b, clients, func() {
					if code := post(kind.handler, kind.path, accounts.next()); code != http.StatusOK {
						b.Errorf("status %d", code)
					}
				})
				perRequest := b.Elapsed().Seconds() / float64(b.N)
				if kind.name == "floor" {
					floor = perRequest
				}
				b.ReportMetric(perRequest/floor, "floors")
			})
		}
	}
}

// inParallel calls f b.N times, from a number of goroutines.
func inParallel(b *testing.B, clients int, f func()) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				f()
			}
		})
	}
	wg.Wait()
}

func post(h http.Handler, path, email string) (status int) {
	r := httptest.NewRequest("POST", path, strings.NewReader(`{"email":"`+email+`"}`))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", apiKey)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

// A table is accounts in SQLite, and what the floor needs.
type table struct {
	everybody
	find, insert *sql.Stmt
	asked        atomic.Int64
}

// tableSize is large enough that no user comes to the cap.
const tableSize = 200_000

func openTable(b *testing.B, file string) (*table, error) {
	const pragmas = "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"
	read, err := sql.Open("sqlite", "file:"+file+pragmas)
	if err != nil {
		return nil, err
	}
	b.Cleanup(func() { read.Close() })
	write, err := sql.Open("sqlite", "file:"+file+pragmas)
	if err != nil {
		return nil, err
	}
	b.Cleanup(func() { write.Close() })
	write.SetMaxOpenConns(1) // several would only wait for each other
	for _, statement := range []string{
		`CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE)`,
		`CREATE TABLE floor (id INTEGER PRIMARY KEY, email TEXT NOT NULL, at INTEGER NOT NULL)`,
		fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i < %d-1)
			INSERT INTO users SELECT i, 'user'||i||'@example.com' FROM n`, tableSize),
	} {
		if _, err := write.ExecContext(b.Context(), statement); err != nil {
			return nil, err
		}
	}
	t := &table{}
	if t.find, err = read.PrepareContext(b.Context(), `SELECT id, email FROM users WHERE email = ?`); err != nil {
		return nil, err
	}
	t.insert, err = write.PrepareContext(b.Context(), `INSERT INTO floor (email, at) VALUES (?, ?)`)
	return t, err
}

// next returns the address of another user.
func (t *table) next() string {
	return fmt.Sprintf("user%d@example.com", t.asked.Add(1)%tableSize)
}

func (t *table) FindByEmail(ctx context.Context, address string) (u reset.User, err error) {
	err = t.find.QueryRowContext(ctx, address).Scan(&u.ID, &u.Email)
	if errors.Is(err, sql.ErrNoRows) {
		err = reset.ErrNoUser
	}
	return u, err
}

func (t *table) serveFloor(w http.ResponseWriter, r *http.Request) {
	var body struct{ Email string }
	err := json.NewDecoder(r.Body).Decode(&body)
	var user reset.User
	if err == nil {
		user, err = t.FindByEmail(r.Context(), body.Email)
	}
	if err == nil {
		_, err = t.insert.ExecContext(r.Context(), user.Email, time.Now().UnixMilli())
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
