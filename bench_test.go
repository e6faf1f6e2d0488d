package reset_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopassreset/reset"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// BenchmarkRequests compares the two kinds of requests with a floor: a bare
// handler that decodes the same JSON, makes one lookup and one prepared INSERT,
// on the same file with the same pragmas. Compare them within one run.
func BenchmarkRequests(b *testing.B) {
	store, err := storesqlite.Open(filepath.Join(b.TempDir(), "reset.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	svc, _, _ := newService(b, nil, func(c *reset.Config) {
		c.Users, c.Store, c.PerClient = everybody{}, store, reset.Unlimited
	})
	floor, err := newFloor(b.Context(), store.DB().DB)
	if err != nil {
		b.Fatal(err)
	}
	for _, bb := range []struct {
		name, path string
		handler    http.Handler
	}{
		{"floor", "/", floor},
		{"public", "/forgot", svc.Pages()},
		{"trusted", "/v1/auth/reset-password", svc.Handler()},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					body := fmt.Sprintf(`{"email":"known%d.%s@example.com"}`, n.Add(1), bb.name)
					r := httptest.NewRequest("POST", bb.path, strings.NewReader(body))
					r.Header.Set("Content-Type", "application/json")
					r.Header.Set("Authorization", apiKey)
					w := httptest.NewRecorder()
					bb.handler.ServeHTTP(w, r)
					if w.Code != http.StatusOK && w.Code != http.StatusTooManyRequests {
						b.Errorf("status %d: %s", w.Code, w.Body)
					}
				}
			})
		})
	}
}

func newFloor(ctx context.Context, db *sql.DB) (http.Handler, error) {
	if _, err := db.ExecContext(ctx, `CREATE TABLE floor (id INTEGER PRIMARY KEY, email TEXT NOT NULL, at INTEGER NOT NULL)`); err != nil {
		return nil, err
	}
	insert, err := db.PrepareContext(ctx, `INSERT INTO floor (email, at) VALUES (?, ?)`)
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Email string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		user, err := everybody{}.FindByEmail(r.Context(), body.Email)
		if err == nil {
			_, err = insert.ExecContext(r.Context(), user.Email, time.Now().UnixMilli())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}), nil
}
