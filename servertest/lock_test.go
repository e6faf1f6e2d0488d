package servertest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	storebun "github.com/gopassreset/reset/store_bun"
)

// The host's transactions are not the store's to run again. These tests let one
// that revokes meet the store's own work where they could lock each other out,
// at the server's default isolation level, and count what fails.

// lockWaits returns how many connections to a test's database wait for a lock.
func lockWaits(t *testing.T, s server, db *bun.DB) int {
	t.Helper()
	if s.name == postgresServer.name {
		return count(t, db, "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = current_setting('application_name')")
	}
	return count(t, db, "SELECT COUNT(*) FROM information_schema.innodb_trx JOIN information_schema.processlist ON id = trx_mysql_thread_id WHERE trx_state = 'LOCK WAIT' AND db = DATABASE()")
}

// A work runs beside the test.
type work struct {
	done chan struct{}
	err  error
}

func begin(f func() error) *work {
	w := &work{done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.err = f()
	}()
	return w
}

func (w *work) wait(t *testing.T, what string) {
	t.Helper()
	if <-w.done; w.err != nil {
		t.Errorf("%s: %v", what, w.err)
	}
}

// blocks returns when n connections wait for locks, or the work is done.
func (w *work) blocks(t *testing.T, s server, db *bun.DB, n int) {
	t.Helper()
	poll(t, func() bool {
		select {
		case <-w.done:
			return true
		default:
			return lockWaits(t, s, db) >= n
		}
	})
}

func revokeInTx(ctx context.Context, db *bun.DB, store *storebun.Store, user string) error {
	return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		return store.Revoke(storebun.WithTx(ctx, tx), user)
	})
}

// queue adds a mail for a user of which the activation is made at each attempt.
func queue(t *testing.T, store *storebun.Store, n int, user string) {
	t.Helper()
	if err := store.Enqueue(t.Context(), *mailFor(activation(n, user))); err != nil {
		t.Fatal(err)
	}
}

// A Revoke meets a Settle of the same mails: somebody else has one of them, the
// Settle waits for it, then comes the Revoke.
func TestRevokeMeetsSettle(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 6)
		var failures failedQueries
		store := newStore(t, db.WithQueryHook(&failures), storebun.Options{})
		queue(t, store, 2, "a") // the later first: that is the order in which PostgreSQL finds them
		queue(t, store, 1, "a")
		mails, err := store.Lease(t.Context(), start, start.Add(time.Minute), 2)
		if err != nil || len(mails) != 2 {
			t.Fatalf("Lease: %d mails, %v", len(mails), err)
		}
		other, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		first := id(1)
		mustExec(t, other, "SELECT id FROM reset_mails WHERE id = ? FOR UPDATE", first[:])

		settle := begin(func() error {
			return store.Settle(t.Context(), []reset.Settlement{{Mail: id(1), Lease: mails[0].Lease}, {Mail: id(2), Lease: mails[0].Lease}})
		})
		settle.blocks(t, s, db, 1)
		revoke := begin(func() error { return revokeInTx(t.Context(), db, store, "a") })
		revoke.blocks(t, s, db, 2)
		if err := other.Rollback(); err != nil {
			t.Fatal(err)
		}
		settle.wait(t, "Settle")
		revoke.wait(t, "Revoke")
		if got := failures.Load(); got != 0 {
			t.Errorf("%d statements failed", got)
		}
		if got := count(t, db, "SELECT COUNT(*) FROM reset_mails"); got != 0 {
			t.Errorf("%d mails are left", got)
		}
	})
}

// A heldQuery stops a store behind a statement.
type heldQuery struct {
	text          string
	once          *sync.Once
	held, release chan struct{}
}

func holdQuery(text string) heldQuery {
	return heldQuery{text, new(sync.Once), make(chan struct{}), make(chan struct{})}
}

func (heldQuery) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (h heldQuery) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	if strings.Contains(e.Query, h.text) {
		h.once.Do(func() {
			close(h.held)
			<-h.release
		})
	}
}

// A Revoke meets a Purge that has just read what has expired.
func TestRevokeMeetsPurge(t *testing.T) {
	for _, table := range []string{"reset_activations", "reset_mails"} {
		t.Run(table, func(t *testing.T) {
			onEach(t, func(t *testing.T, s server) {
				db := s.open(t, 6)
				var failures failedQueries
				hook := holdQuery("FROM " + table + " WHERE expires <=")
				store := newStore(t, db.WithQueryHook(&failures).WithQueryHook(hook), storebun.Options{})
				const expired, others = 3, 50 // so many that a planner goes through an index
				for n := range expired + others {
					a := activation(n, "a")
					if n >= expired {
						a.UserID, a.Expires = fmt.Sprint("user ", n), start.Add(3*time.Hour)
					}
					if err := store.Issue(t.Context(), start, a, 9, mailFor(a)); err != nil {
						t.Fatal(err)
					}
				}
				purge := begin(func() error {
					_, err := store.Purge(t.Context(), start.Add(2*time.Hour), 1000)
					return err
				})
				<-hook.held
				revoke := begin(func() error { return revokeInTx(t.Context(), db, store, "a") })
				revoke.blocks(t, s, db, 1)
				close(hook.release)
				purge.wait(t, "Purge")
				revoke.wait(t, "Revoke")
				if got := failures.Load(); got != 0 {
					t.Errorf("%d statements failed", got)
				}
				for _, table := range []string{"reset_activations", "reset_mails"} {
					if got := count(t, db, "SELECT COUNT(*) FROM "+table); got != others {
						t.Errorf("%d rows are left in %s, want %d", got, table, others)
					}
				}
			})
		})
	}
}

// What is done for one user does not wait for what a host has not yet committed
// for another, however few rows there are for a planner to choose from.
func TestUsersDoNotWait(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		for _, elsewhere := range []bool{false, true} {
			db := s.open(t, 6)
			store := newStore(t, db, storebun.Options{UsersElsewhere: elsewhere})
			for n, user := range []string{"a", "b", "b", "b", "b"} {
				a := activation(n, user)
				if err := store.Issue(t.Context(), start, a, 9, mailFor(a)); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := db.RunInTx(ctx, nil, func(_ context.Context, tx bun.Tx) error {
				if err := store.Revoke(storebun.WithTx(ctx, tx), "a"); err != nil {
					t.Errorf("Revoke of a: %v", err)
				}
				if err := store.Redeem(ctx, start, activation(1, "b"), notice(100, "b"), func(context.Context) error { return nil }); err != nil {
					t.Errorf("users elsewhere: %v: Redeem for b: %v", elsewhere, err)
				}
				queue(t, store, 50, "b")
				queue(t, store, 51, "b")
				if err := store.Revoke(ctx, "b"); err != nil {
					t.Errorf("users elsewhere: %v: Revoke of b: %v", elsewhere, err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// Purge passes over what others have locked, and removes as much as it can of
// the rest.
func TestPurgePassesOver(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 6)
		store := newStore(t, db, storebun.Options{})
		for n := range 6 {
			a := activation(n, fmt.Sprint("user ", n))
			a.Expires = start.Add(time.Duration(n) * time.Second)
			if err := store.Issue(t.Context(), start.Add(-time.Second), a, 9, nil); err != nil {
				t.Fatal(err)
			}
		}
		mustExec(t, db, "DELETE FROM reset_locks")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		purge := func(n, want int) {
			t.Helper()
			if got, err := store.Purge(ctx, start.Add(time.Hour), n); got != want || err != nil {
				t.Errorf("Purge(%d) = %d, %v; want %d", n, got, err, want)
			}
		}
		host, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, 3} {
			if err := store.Revoke(storebun.WithTx(ctx, host), fmt.Sprint("user ", n)); err != nil {
				t.Fatal(err)
			}
		}
		purge(2, 2)
		purge(1000, 1)
		purge(1000, 0)
		if err := host.Rollback(); err != nil {
			t.Fatal(err)
		}
		purge(1000, 3)
	})
}
