package servertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	storebun "github.com/gopassreset/reset/store_bun"
)

// The store can't run the host's transactions again. In these tests one that
// revokes, at the server's default isolation level unless a test says otherwise,
// meets the store's own where the two could lock each other out. They count what
// fails.

// lockWaits returns how many connections to a test's database wait for a lock.
func lockWaits(t *testing.T, s server, db *bun.DB) int {
	t.Helper()
	if s.kind == kindPostgres {
		return count(t, db, "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = current_setting('application_name')")
	}
	return transactions(t, db, "LOCK WAIT ")
}

// A work runs in parallel to the test.
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
		return store.Revoke(storebun.WithTx(ctx, tx), start, user, time.Time{})
	})
}

// queue adds a mail for a user of which the activation is made at each attempt.
func queue(t *testing.T, store *storebun.Store, n int, user string) {
	t.Helper()
	if err := store.Enqueue(t.Context(), *mailFor(activation(n, user))); err != nil {
		t.Fatal(err)
	}
}

// refused returns a note, for which a Settle writes to the history.
func refused(user string) *reset.Note {
	return &reset.Note{UserID: user, Kind: reset.HistoryTrusted, At: start, Refusal: "550 no"}
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
			return store.Settle(t.Context(), []reset.Settlement{
				{Mail: id(1), Lease: mails[0].Lease, Note: refused("a")}, {Mail: id(2), Lease: mails[0].Lease, Note: refused("a")},
			})
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

// A Revoke meets a Settle of one mail that has all its locks except the entry of
// one index.
func TestRevokeMeetsSettleOfOne(t *testing.T) {
	const others = 50 // so many that a planner goes through an index
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 6)
		var failures failedQueries
		store := newStore(t, db.WithQueryHook(&failures), storebun.Options{})
		for n := range others {
			queue(t, store, 100+n, fmt.Sprint("user ", n))
		}
		queue(t, store, 1, "a")
		mails, err := store.Lease(t.Context(), start, start.Add(time.Minute), others+1)
		if err != nil || len(mails) != others+1 {
			t.Fatalf("Lease: %d mails, %v", len(mails), err)
		}
		mustExec(t, db, "UPDATE reset_mails SET due = 1 WHERE user_id = "+literal(s, "a"))
		other, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		hint, share := "", " FOR SHARE"
		if s.kind == kindMySQL { // the entry and no more
			hint, share = " FORCE INDEX (reset_mails_due)", " LOCK IN SHARE MODE"
		}
		mustExec(t, other, "SELECT due FROM reset_mails"+hint+" WHERE due = 1"+share)
		settle := begin(func() error {
			return store.Settle(t.Context(), []reset.Settlement{{Mail: id(1), Lease: mails[0].Lease, Note: refused("a")}})
		})
		settle.blocks(t, s, db, 1)
		revoke := begin(func() error { return revokeInTx(t.Context(), db.WithQueryHook(&failures), store, "a") })
		revoke.blocks(t, s, db, 2)
		if err := other.Rollback(); err != nil {
			t.Fatal(err)
		}
		settle.wait(t, "Settle")
		revoke.wait(t, "Revoke")
		if got := failures.Load(); got != 0 {
			t.Errorf("%d statements failed", got)
		}
		if got := count(t, db, "SELECT COUNT(*) FROM reset_mails"); got != others {
			t.Errorf("%d mails are left, want %d", got, others)
		}
	})
}

// A heldQuery stops a store behind the first statement that has all the words.
type heldQuery struct {
	words         []string
	once          *sync.Once
	held, release chan struct{}
}

func holdQuery(words ...string) heldQuery {
	return heldQuery{words, new(sync.Once), make(chan struct{}), make(chan struct{})}
}

func (heldQuery) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (h heldQuery) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	for _, word := range h.words {
		if !strings.Contains(e.Query, word) {
			return
		}
	}
	h.once.Do(func() {
		close(h.held)
		<-h.release
	})
}

// A Revoke meets a Purge that has just read what has expired, or locked one of
// the rows.
func TestRevokeMeetsPurge(t *testing.T) {
	for _, table := range []string{"reset_activations", "reset_mails"} {
		for _, words := range [][]string{{"FROM " + table + " WHERE expires <="}, {"FROM " + table, "expires <=", "SKIP LOCKED"}} {
			t.Run(table+"/"+words[len(words)-1], func(t *testing.T) {
				onEach(t, func(t *testing.T, s server) { revokeMeetsPurge(t, s, table, holdQuery(words...)) })
			})
		}
	}
}

func revokeMeetsPurge(t *testing.T, s server, table string, hook heldQuery) {
	const expired, others = 3, 50 // so many that a planner goes through an index
	db := s.open(t, 6)
	var failures failedQueries
	store := newStore(t, db.WithQueryHook(&failures), storebun.Options{})
	for n := range expired + others {
		a := activation(n, "a")
		if n >= expired {
			a.UserID, a.Expires = fmt.Sprint("user ", n), start.Add(3*time.Hour)
		}
		if table == "reset_mails" {
			if err := store.Enqueue(t.Context(), *mailFor(a)); err != nil {
				t.Fatal(err)
			}
		} else if _, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 9}, nil); err != nil {
			t.Fatal(err)
		}
	}
	mustExec(t, db, "DELETE FROM reset_locks") // or the Revoke would wait for the user's
	purging := newStore(t, db.WithQueryHook(&failures).WithQueryHook(hook), storebun.Options{})
	purge := begin(func() error {
		_, _, err := purging.Purge(t.Context(), start.Add(2*time.Hour), 1000)
		return err
	})
	<-hook.held
	revoke := begin(func() error { return revokeInTx(t.Context(), db.WithQueryHook(&failures), store, "a") })
	revoke.blocks(t, s, db, 1)
	close(hook.release)
	purge.wait(t, "Purge")
	revoke.wait(t, "Revoke")
	if got := failures.Load(); got != 0 {
		t.Errorf("%d statements failed", got)
	}
	if got := count(t, db, "SELECT COUNT(*) FROM "+table); got != others {
		t.Errorf("%d rows are left, want %d", got, others)
	}
}

// A call for one user does not wait for a host's open transaction for another,
// however few rows a planner has to choose from.
func TestUsersDoNotWait(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		for _, elsewhere := range []bool{false, true} {
			db := s.open(t, 6)
			store := newStore(t, db, storebun.Options{UsersElsewhere: elsewhere})
			for n, user := range []string{"a", "b", "b", "b", "b"} {
				a := activation(n, user)
				if _, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 9}, mailFor(a)); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			readCommitted := &sql.TxOptions{Isolation: sql.LevelReadCommitted}
			err := db.RunInTx(ctx, readCommitted, func(_ context.Context, tx bun.Tx) error {
				if err := store.Revoke(storebun.WithTx(ctx, tx), start, "a", time.Time{}); err != nil {
					t.Errorf("Revoke of a: %v", err)
				}
				if err := store.Enqueue(ctx, publicRequest(60)); err != nil {
					t.Errorf("Enqueue: %v", err)
				}
				for i, user := range []string{"_", "aa", "c"} { // beside a in the index
					if _, err := store.Issue(ctx, start, activation(70+i, user), reset.Limits{MaxRequests: 9}, nil); err != nil {
						t.Errorf("Issue for %s: %v", user, err)
					}
				}
				if err := store.Redeem(ctx, start, activation(1, "b"), notification(100, "b"), func(context.Context) error { return nil }); err != nil {
					t.Errorf("users elsewhere: %v: Redeem for b: %v", elsewhere, err)
				}
				queue(t, store, 50, "b")
				queue(t, store, 51, "b")
				if err := store.Revoke(ctx, start, "b", time.Time{}); err != nil {
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

// expireInTurn issues activations for as many users, which expire one after the
// other, and leaves no locks to be purged.
func expireInTurn(t *testing.T, db *bun.DB, store *storebun.Store, users int) {
	t.Helper()
	for n := range users {
		a := activation(n, fmt.Sprint("user ", n))
		a.Expires = start.Add(time.Duration(n) * time.Second)
		if _, err := store.Issue(t.Context(), start.Add(-time.Second), a, reset.Limits{MaxRequests: 9}, nil); err != nil {
			t.Fatal(err)
		}
	}
	mustExec(t, db, "DELETE FROM reset_locks")
}

// Purge passes over what others have locked, and removes as much as it can of
// the rest.
func TestPurgePassesOver(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 6)
		store := newStore(t, db, storebun.Options{})
		expireInTurn(t, db, store, 6)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		purge := func(n, want int) {
			t.Helper()
			if got, _, err := store.Purge(ctx, start.Add(time.Hour), n); got != want || err != nil {
				t.Errorf("Purge(%d) = %d, %v; want %d", n, got, err, want)
			}
		}
		host, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, 3} {
			if err := store.Revoke(storebun.WithTx(ctx, host), start, fmt.Sprint("user ", n), time.Time{}); err != nil {
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

// Purge removes no more than n, whatever another Purge removes meanwhile.
func TestPurgeMeetsPurge(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 6)
		store := newStore(t, db, storebun.Options{})
		expireInTurn(t, db, store, 10)
		hook := holdQuery("FROM reset_activations WHERE expires <=")
		slow := newStore(t, db.WithQueryHook(hook), storebun.Options{})
		removed := 0
		purge := begin(func() (err error) {
			removed, _, err = slow.Purge(t.Context(), start.Add(time.Hour), 3)
			return err
		})
		<-hook.held
		meanwhile, _, err := store.Purge(t.Context(), start.Add(time.Hour), 3)
		if err != nil {
			t.Error(err)
		}
		close(hook.release)
		purge.wait(t, "Purge")
		left := count(t, db, "SELECT COUNT(*) FROM reset_activations")
		if removed != 3 || meanwhile != 3 || left != 4 {
			t.Errorf("Purge(3) removed %d, and meanwhile %d, %d of 10 are left", removed, meanwhile, left)
		}
	})
}

// Purge does not remove the lock of a user who is claimed after it was listed.
func TestPurgeMeetsClaim(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 6)
		store := newStore(t, db, storebun.Options{UsersElsewhere: true})
		a := activation(1, "a")
		if _, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 9}, nil); err != nil {
			t.Fatal(err)
		}
		mustExec(t, db, "UPDATE reset_locks SET expires = 1")
		hook := holdQuery("FROM reset_locks WHERE expires <=")
		slow := newStore(t, db.WithQueryHook(hook), storebun.Options{})
		purge := begin(func() error {
			_, _, err := slow.Purge(t.Context(), start, 9)
			return err
		})
		<-hook.held
		release := sync.OnceFunc(func() {
			close(hook.release)
			purge.wait(t, "Purge")
		})
		if s.kind == kindPostgres { // where it has locked what it lists
			release()
		}
		err := store.Redeem(t.Context(), start, a, notification(2, "a"), func(context.Context) error {
			release()
			if got := count(t, db, "SELECT COUNT(*) FROM reset_locks"); got != 1 {
				t.Errorf("%d users are locked while one is claimed", got)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// A Settle that has looked up the user of a mail leaves the mail alone if somebody
// else leases it before it is removed.
func TestSettleMeetsLease(t *testing.T) {
	s := mysqlServer // elsewhere it is one statement
	s.address(t)
	db := s.open(t, 4)
	store := newStore(t, db, storebun.Options{})
	queue(t, store, 1, "a")
	mails, err := store.Lease(t.Context(), start, start.Add(time.Minute), 1)
	if err != nil || len(mails) != 1 {
		t.Fatalf("Lease: %d mails, %v", len(mails), err)
	}
	hook := holdQuery("SELECT user_id FROM reset_mails")
	slow := newStore(t, db.WithQueryHook(hook), storebun.Options{})
	settle := begin(func() error {
		return slow.Settle(t.Context(), []reset.Settlement{{Mail: mails[0].ID, Lease: mails[0].Lease}})
	})
	<-hook.held
	again, err := store.Lease(t.Context(), start.Add(2*time.Minute), start.Add(3*time.Minute), 1)
	close(hook.release)
	if err != nil || len(again) != 1 {
		t.Errorf("Lease: %d mails, %v", len(again), err)
	}
	settle.wait(t, "Settle")
	if got := count(t, db, "SELECT COUNT(*) FROM reset_mails"); got != 1 {
		t.Errorf("%d mails are left, want 1", got)
	}
}

// A Settle that waits for a Redeem of the same user, in one of the removed mails,
// does not block its notification.
func TestSettleMeetsRedeem(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 6)
		var failures failedQueries
		store := newStore(t, db.WithQueryHook(&failures), storebun.Options{})
		a := activation(100, "a")
		if _, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 9}, mailFor(a)); err != nil {
			t.Fatal(err)
		}
		mails, err := store.Lease(t.Context(), start, start.Add(time.Minute), 1)
		if err != nil || len(mails) != 1 {
			t.Fatalf("Lease: %d mails, %v", len(mails), err)
		}
		hook := holdQuery("DELETE", "reset_mails", "user_id", "kind")
		redeeming := newStore(t, db.WithQueryHook(&failures).WithQueryHook(hook), storebun.Options{})
		redeem := begin(func() error {
			// The notification is before the mail in the index of users.
			return redeeming.Redeem(t.Context(), start, a, notification(50, "a"), func(context.Context) error { return nil })
		})
		<-hook.held
		settle := begin(func() error {
			return store.Settle(t.Context(), []reset.Settlement{{Mail: mails[0].ID, Lease: mails[0].Lease, Note: refused("a")}})
		})
		settle.blocks(t, s, db, 1)
		close(hook.release)
		redeem.wait(t, "Redeem")
		settle.wait(t, "Settle")
		if got := failures.Load(); got != 0 {
			t.Errorf("%d statements failed", got)
		}
	})
}

// A mail can be settled while the host's transaction holds another user's, also
// where the queue has no more than these two, which makes MariaDB choose other
// indexes.
func TestSettleBesideRevoke(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 6)
		store := newStore(t, db, storebun.Options{})
		queue(t, store, 1, "a")
		queue(t, store, 2, "b")
		mails, err := store.Lease(t.Context(), start, start.Add(time.Minute), 2)
		if err != nil || len(mails) != 2 {
			t.Fatalf("Lease: %d mails, %v", len(mails), err)
		}
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		if err := store.Revoke(storebun.WithTx(t.Context(), tx), start, mails[0].UserID, time.Time{}); err != nil {
			t.Fatal(err)
		}
		later := start.Add(2 * time.Minute)
		for _, done := range []reset.Settlement{{Retry: later, Held: true}, {Retry: later, Held: true}, {UserID: mails[1].UserID}} {
			done.Mail, done.Lease = mails[1].ID, mails[1].Lease
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			if err := store.Settle(ctx, []reset.Settlement{done}); err != nil {
				t.Errorf("Settle %+v: %v", done, err)
			}
			cancel()
		}
	})
}

// An Issue that has waited sees what its predecessor did, and waits for its user
// before it has anything else.
func TestIssueWaits(t *testing.T) {
	for _, tt := range []struct {
		name   string
		public bool
		// before is what somebody else does to the user "a" and mail 1, in SQL.
		before func(s server) []string
		want   error
	}{
		{"too many requests", false, func(s server) []string {
			return []string{
				"INSERT INTO reset_locks (realm, user_id, claim_until, expires) VALUES (''," + literal(s, "a") + ", 0, 0)",
				fmt.Sprint("INSERT INTO reset_activations (realm, hash, request, user_id, expires) VALUES ('',", literal(s, "h"), ",", literal(s, "request of other"), ",", literal(s, "a"), ",", start.Add(time.Minute).UnixMilli(), ")"),
			}
		}, reset.ErrTooManyRequests},
		{"too much mail", true, func(s server) []string {
			return []string{
				"INSERT INTO reset_locks (realm, user_id, claim_until, expires) VALUES (''," + literal(s, "a") + ", 0, 0)",
				fmt.Sprint("INSERT INTO reset_history (realm, user_id, id, kind, bound, expires) VALUES ('',", literal(s, "a"), ",", literal(s, "i"), ",", literal(s, "public"), ",", start.UnixMilli(), ",", start.Add(48*time.Hour).UnixMilli(), ")"),
			}
		}, reset.ErrTooManyRequests},
		{"lease lost", true, func(s server) []string {
			return []string{"UPDATE reset_mails SET lease = " + literal(s, "another")}
		}, reset.ErrGone},
		{"nothing changed", true, func(s server) []string {
			return []string{"UPDATE reset_mails SET attempts = attempts + 1"}
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onEach(t, func(t *testing.T, s server) {
				db := s.open(t, 6)
				var failures failedQueries
				store := newStore(t, db.WithQueryHook(&failures), storebun.Options{})
				a := activation(1, "a")
				m := mailFor(a)
				if tt.public {
					m.UserID = ""
					if err := store.Enqueue(t.Context(), *m); err != nil {
						t.Fatal(err)
					}
					mails, err := store.Lease(t.Context(), start, start.Add(time.Minute), 1)
					if err != nil || len(mails) != 1 {
						t.Fatalf("Lease: %d mails, %v", len(mails), err)
					}
					m = &mails[0]
				}
				other, err := db.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, query := range tt.before(s) {
					mustExec(t, other, query)
				}
				issue := begin(func() error {
					_, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1, MaxPerHour: 1}, m)
					return err
				})
				issue.blocks(t, s, db, 1)
				if err := other.Commit(); err != nil {
					t.Fatal(err)
				}
				if <-issue.done; !errors.Is(issue.err, tt.want) {
					t.Errorf("got %v, want %v", issue.err, tt.want)
				}
				if got := failures.Load(); got != 0 {
					t.Errorf("%d statements failed", got)
				}
				want := 0
				if tt.want == nil {
					want = 1
				}
				if got := count(t, db, "SELECT COUNT(*) FROM reset_activations WHERE request <> "+literal(s, "request of other")); got != want {
					t.Errorf("%d activations were added, want %d", got, want)
				}
			})
		})
	}
}
