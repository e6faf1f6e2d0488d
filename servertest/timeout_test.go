package servertest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/figure"
	storebun "github.com/gopassreset/reset/store_bun"
)

// with opens a new database for whose connections a variable is set.
func (s server) with(t *testing.T, conns int, name, value string) *bun.DB {
	t.Helper()
	address := s.address(t)
	if s.kind == kindMySQL {
		config, err := mysql.ParseDSN(address)
		if err != nil {
			t.Fatal(err)
		}
		config.Params = map[string]string{name: value}
		address = config.FormatDSN()
	} else {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set(name, value)
		u.RawQuery = q.Encode()
		address = u.String()
	}
	db := s.fresh(t, address, conns)
	createSchema(t, db)
	return db
}

// lockStore keeps requests of the users from going on that have made one before.
var lockStore = map[kind]string{
	kindPostgres: "LOCK TABLE reset_mails",
	kindMySQL:    "SELECT user_id FROM reset_locks FOR UPDATE",
}

// A timeout that an operator has set for all statements or locks is a lost race:
// 300 requests meet a table that somebody has locked, and all succeed.
func TestServerTimeouts(t *testing.T) {
	const calls, users, fails = 300, 3, 20
	onEach(t, func(t *testing.T, s server) {
		settings := [][2]string{{"lock_timeout", "20ms"}, {"statement_timeout", "50ms"}}
		if s.kind == kindMySQL {
			settings = [][2]string{{"innodb_lock_wait_timeout", "1"}, {"max_statement_time", "0.05"}}
			if !isMariaDB(t, s.empty(t, 1)) {
				settings = settings[:1] // MySQL's only limits what reads
			}
		}
		for _, setting := range settings {
			t.Run(setting[0], func(t *testing.T) {
				db := s.with(t, raceConns, setting[0], setting[1])
				var failures failedQueries
				store := newStore(t, db.WithQueryHook(&failures), storebun.Options{})
				issue := func(i int) error {
					a := activation(i, fmt.Sprint("user ", i%users))
					_, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: raceMax}, mailFor(a))
					if errors.Is(err, reset.ErrTooManyRequests) {
						return nil
					}
					return err
				}
				for i := range users {
					if err := issue(i); err != nil {
						t.Fatal(err)
					}
				}
				holder, err := db.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				mustExec(t, holder, lockStore[s.kind])
				var wg sync.WaitGroup
				var failed atomic.Int64
				for i := range calls {
					wg.Go(func() {
						if err := issue(users + i); err != nil {
							t.Errorf("Issue: %v", err)
							failed.Add(1)
						}
						if err := store.Enqueue(t.Context(), publicRequest(users+calls+i)); err != nil {
							t.Errorf("Enqueue: %v", err)
							failed.Add(1)
						}
					})
				}
				poll(t, func() bool { return failures.Load() >= fails })
				if err := holder.Rollback(); err != nil {
					t.Fatal(err)
				}
				wg.Wait()
				if got, want := count(t, db, "SELECT COUNT(*) FROM reset_activations"), users*raceMax; got != want {
					t.Errorf("%d requests are live, want %d", got, want)
				}
				if got, want := count(t, db, "SELECT COUNT(*) FROM reset_mails"), users*raceMax+calls; got != want {
					t.Errorf("%d mails are queued, want %d", got, want)
				}
				t.Logf("%d statements were run again", failures.Load())
				figure.Report(t, "requests that fail for a timeout of the server", int(failed.Load()), 2*calls)
			})
		}
	})
}

// A transaction that PostgreSQL ends because SetPassword dawdles changes nothing.
func TestIdleInTransaction(t *testing.T) {
	s := postgresServer
	db := s.with(t, 4, "idle_in_transaction_session_timeout", "50ms")
	store := newStore(t, db, storebun.Options{})
	createUsers(t, db)
	createUser(t, db, "a")
	a := activation(1, "a")
	if _, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
		t.Fatal(err)
	}
	redeem := func(dawdle func()) error {
		return store.Redeem(t.Context(), start, a, notification(2, "a"), func(ctx context.Context) error {
			dawdle()
			return setPassword(ctx, db, "a", "new")
		})
	}
	err := redeem(func() {
		poll(t, func() bool {
			return count(t, db, "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND application_name = current_setting('application_name')") == 0
		})
	})
	if err == nil || errors.Is(err, reset.ErrInvalidActivation) || !strings.Contains(err.Error(), "try again") {
		t.Errorf("Redeem whose transaction was ended: got %v, want an error that says to try again", err)
	}
	if got := password(t, db, "a"); got != "old" {
		t.Errorf("afterwards the password is %q", got)
	}
	if err := redeem(func() {}); err != nil {
		t.Errorf("Redeem afterwards: %v", err)
	}
	if got := password(t, db, "a"); got != "new" {
		t.Errorf("in the end the password is %q", got)
	}
}

// Calls that meet a locked table end with their contexts. They hold no more
// connections than their pool has, and leave a pool of the host's pages alone.
func TestLockedDatabase(t *testing.T) {
	const conns, calls, perConn, timeout = 4, 100, 4, 500 * time.Millisecond
	onEach(t, func(t *testing.T, s server) {
		there := newPlace(t, s, false)
		pages, storeHost := openHost(t, there), openHost(t, there)
		storeHost.db.SetMaxOpenConns(conns)
		issue := func(ctx context.Context, i int) error {
			a := activation(i, "alice")
			_, err := storeHost.store.Issue(ctx, start, a, reset.Limits{MaxRequests: 2 * calls}, mailFor(a))
			return err
		}
		if err := issue(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		holder, err := pages.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		mustExec(t, holder, lockStore[s.kind])
		before := runtime.NumGoroutine()
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		var wg sync.WaitGroup
		for i := range calls {
			wg.Go(func() {
				if err := issue(ctx, 1+i); err == nil || ctx.Err() == nil {
					t.Errorf("Issue on a locked table: %v", err)
				}
			})
		}
		poll(t, func() bool { return storeHost.db.Stats().WaitCount >= calls-conns })
		figure.Report(t, "goroutines that requests to a locked table cost besides their own", max(0, runtime.NumGoroutine()-before-calls), perConn*conns)
		if got := runtime.NumGoroutine() - before; got > calls+perConn*conns {
			t.Errorf("%d calls cost %d goroutines, want at most %d more for each of %d connections", calls, got, perConn, conns)
		}
		if got := storeHost.db.Stats().OpenConnections; got > conns {
			t.Errorf("%d connections are open, want at most %d", got, conns)
		}
		hung := 0
		for range calls {
			if got := count(t, pages.db, "SELECT COUNT(*) FROM users"); got != 0 || ctx.Err() != nil {
				hung++
			}
		}
		if hung > 0 {
			t.Errorf("meanwhile the host's own page: %d queries had to wait, %v", hung, ctx.Err())
		}
		figure.Report(t, "pages of the host that wait beside a locked table", hung, calls)
		wg.Wait()
		poll(t, func() bool { return runtime.NumGoroutine()-before <= perConn*conns })
		if err := holder.Rollback(); err != nil {
			t.Fatal(err)
		}
		if err := issue(t.Context(), 1+calls); err != nil {
			t.Errorf("Issue afterwards: %v", err)
		}
	})
}
