package servertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
)

// benchEach runs f on each database.
func benchEach(b *testing.B, f func(b *testing.B, h *host, service *reset.Service)) {
	for _, s := range []server{sqliteFile, postgresServer, mysqlServer} {
		b.Run(s.name, func(b *testing.B) {
			h := openHost(b, newPlace(b, s, false))
			service, err := h.service("127.0.0.1:25", slog.DiscardHandler)
			if err != nil {
				b.Fatal(err)
			}
			f(b, h, service)
		})
	}
}

// manyUsers adds one for each time that a benchmark is run.
func manyUsers(b *testing.B, h *host) (users []string) {
	for i := range b.N {
		users = append(users, "user-"+strconv.Itoa(i)+"-"+strings.ToLower(rand.Text()))
	}
	err := h.users.db.RunInTx(b.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
		for _, user := range users {
			if _, err := tx.ExecContext(ctx, "INSERT INTO users (id, email, hash) VALUES (?, ?, 'old')", user, emailOf(user)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return users
}

// BenchmarkFloor is what a database takes for the least that a request could
// be: one look-up and one insert of the same size, by database/sql.
func BenchmarkFloor(b *testing.B) {
	benchEach(b, func(b *testing.B, h *host, _ *reset.Service) {
		lookUp, insert := "SELECT id, email FROM users WHERE email = ?", "INSERT INTO floor (id, text) VALUES (?, ?)"
		if h.Kind == kindPostgres {
			lookUp, insert = "SELECT id, email FROM users WHERE email = $1", "INSERT INTO floor (id, text) VALUES ($1, $2)"
		}
		mustExec(b, h.db, "CREATE TABLE floor (id VARCHAR(255) NOT NULL PRIMARY KEY, text VARCHAR(255) NOT NULL)")
		users := manyUsers(b, h)
		b.ResetTimer()
		for _, user := range users {
			var id, email string
			if err := h.db.DB.QueryRowContext(b.Context(), lookUp, emailOf(user)).Scan(&id, &email); err != nil {
				b.Fatal(err)
			}
			if _, err := h.db.DB.ExecContext(b.Context(), insert, id, fmt.Sprintf("%0128d", 0)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkRequest is one request of a trusted caller, with its mail queued.
func BenchmarkRequest(b *testing.B) {
	benchEach(b, func(b *testing.B, h *host, service *reset.Service) {
		users := manyUsers(b, h)
		b.ResetTimer()
		for _, user := range users {
			if activation, err := service.RequestReset(b.Context(), emailOf(user), reset.RequestOptions{}); activation == "" || err != nil {
				b.Fatalf("RequestReset: %q, %v", activation, err)
			}
		}
	})
}

// BenchmarkChangePassword is one change of a password, without its hash.
func BenchmarkChangePassword(b *testing.B) {
	benchEach(b, func(b *testing.B, h *host, service *reset.Service) {
		var activations []string
		for _, user := range manyUsers(b, h) {
			activation, err := service.RequestReset(b.Context(), emailOf(user), reset.RequestOptions{})
			if err != nil {
				b.Fatal(err)
			}
			activations = append(activations, activation)
		}
		b.ResetTimer()
		for _, activation := range activations {
			if err := service.ChangePassword(b.Context(), activation, "quiet harbors, seven rowing lanterns"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
