package servertest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/bunpool"
	storebun "github.com/gopassreset/reset/store_bun"
)

var start = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

// The records of a test are numbered.
func id(n int) (id reset.ID) {
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

func publicRequest(n int) reset.Mail {
	return reset.Mail{ID: id(n), Kind: reset.MailReset, Email: "a@example.com", Due: start, Expires: start.Add(time.Hour)}
}

func activation(n int, userID string) reset.Activation {
	return reset.Activation{
		Hash: sha256.Sum256(binary.AppendVarint(nil, int64(n))), Request: id(n),
		UserID: userID, Email: userID + "@example.com", Expires: start.Add(time.Hour),
	}
}

func mailFor(a reset.Activation) *reset.Mail {
	return &reset.Mail{ID: a.Request, Kind: reset.MailReset, UserID: a.UserID, Email: a.Email, Due: start, Expires: a.Expires}
}

func notification(n int, userID string) reset.Mail {
	return reset.Mail{ID: id(n), Kind: reset.MailNotification, UserID: userID, Email: userID + "@example.com", Due: start, Expires: start.Add(time.Hour)}
}

// count returns the number that a query has for its only result.
func count(t *testing.T, db bun.IDB, query string) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

const (
	raceConns = 30
	raceUsers = 20
	raceEach  = 50
	raceMax   = 3
)

// raceIssues issues for many users at once, far more than the cap, and counts.
func raceIssues(t *testing.T, s server, db *bun.DB) {
	t.Helper()
	var failures failedQueries
	raceOn(t, db, []*connected{s.storeOn(t, db.WithQueryHook(&failures), false)})
	if got := failures.Load(); got != 0 {
		t.Errorf("%d statements failed, by deadlock for instance", got)
	}
}

// raceOn does it on the stores in turn.
func raceOn(t *testing.T, db *bun.DB, stores []*connected) {
	t.Helper()
	var issued atomic.Int64
	var wg sync.WaitGroup
	for i := range raceUsers * raceEach {
		wg.Go(func() {
			a := activation(i, fmt.Sprint("user ", i%raceUsers))
			var limit *reset.LimitError
			switch _, err := stores[i%len(stores)].Issue(t.Context(), start, a, reset.Limits{MaxRequests: raceMax}, mailFor(a)); {
			case err == nil:
				issued.Add(1)
			case !errors.As(err, &limit):
				t.Errorf("Issue: %v", err)
			case limit.RetryAfter != time.Hour:
				t.Errorf("Issue: got RetryAfter %v, want %v", limit.RetryAfter, time.Hour)
			}
		})
	}
	wg.Wait()
	if got := issued.Load(); got != raceUsers*raceMax {
		t.Errorf("%d Issues succeeded, want %d", got, raceUsers*raceMax)
	}
	if got := count(t, db, "SELECT COUNT(*) FROM (SELECT user_id FROM reset_activations GROUP BY user_id HAVING COUNT(*) = 3) users"); got != raceUsers {
		t.Errorf("%d users have %d live requests, want %d users", got, raceMax, raceUsers)
	}
	if got := count(t, db, "SELECT COUNT(*) FROM reset_mails"); got != raceUsers*raceMax {
		t.Errorf("%d mails are queued, want %d", got, raceUsers*raceMax)
	}
}

// failedQueries counts statements that failed, which the store may have retried.
type failedQueries struct{ atomic.Int64 }

func (f *failedQueries) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context {
	return ctx
}

func (f *failedQueries) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	if e.Err != nil {
		f.Add(1)
	}
}

// The cap holds at the default isolation level, without a single failure.
func TestRaceIssues(t *testing.T) {
	onEachVersion(t, func(t *testing.T, s server) { raceIssues(t, s, s.open(t, raceConns)) })
}

// Of all redemptions of a user's activations one succeeds, and its password is
// the one that is stored.
func TestRaceRedeems(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		t.Run(map[bool]string{false: "one transaction", true: "users elsewhere"}[elsewhere], func(t *testing.T) {
			onEachVersion(t, func(t *testing.T, s server) { raceRedeems(t, s, s.open(t, raceConns), elsewhere) })
		})
	}
}

func raceRedeems(t *testing.T, s server, db *bun.DB, elsewhere bool) {
	const users, siblings, each = 5, 3, 30
	store := s.storeOn(t, db, elsewhere)
	createUsers(t, db)
	for user := range users {
		name := fmt.Sprint("user ", user)
		createUser(t, db, name)
		for i := range siblings {
			if _, err := store.Issue(t.Context(), start, activation(user*siblings+i, name), reset.Limits{MaxRequests: 9}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	var winners [users]atomic.Int64
	var calls, succeeded atomic.Int64
	var wg sync.WaitGroup
	for i := range users * each {
		user := i % users
		name := fmt.Sprint("user ", user)
		a := activation(user*siblings+i/users%siblings, name)
		wg.Go(func() {
			err := store.Redeem(t.Context(), start, a, notification(1000+i, name), func(ctx context.Context) error {
				calls.Add(1)
				return setPassword(ctx, db, name, fmt.Sprint("password ", i))
			})
			switch {
			case err == nil:
				succeeded.Add(1)
				winners[user].Store(int64(i))
			case !errors.Is(err, reset.ErrInvalidActivation):
				t.Errorf("Redeem: %v", err)
			}
		})
	}
	wg.Wait()
	if calls.Load() != users || succeeded.Load() != users {
		t.Errorf("%d Redeems succeeded, apply was called %d times, want one for each of %d users", succeeded.Load(), calls.Load(), users)
	}
	for user := range users {
		want := fmt.Sprint("password ", winners[user].Load())
		if got := password(t, db, fmt.Sprint("user ", user)); got != want {
			t.Errorf("user %d has %q, want the winner's %q", user, got, want)
		}
	}
	if got := count(t, db, "SELECT COUNT(*) FROM reset_activations"); got != 0 {
		t.Errorf("%d activations are left", got)
	}
	if got := count(t, db, "SELECT COUNT(*) FROM reset_mails"); got != users {
		t.Errorf("%d notifications are queued, want %d", got, users)
	}
}

// Workers lease every mail once, while others enqueue and settle.
func TestRaceLeases(t *testing.T) {
	const mails, workers = 500, 20
	onEachVersion(t, func(t *testing.T, s server) {
		store := s.storeOn(t, s.open(t, raceConns), false)
		var wg sync.WaitGroup
		for i := range mails {
			wg.Go(func() {
				if err := store.Enqueue(t.Context(), publicRequest(i)); err != nil {
					t.Errorf("Enqueue: %v", err)
				}
			})
		}
		var mu sync.Mutex
		leased := make(map[reset.ID]int)
		for range workers {
			wg.Go(func() {
				for {
					got, err := store.Lease(t.Context(), start, start.Add(time.Minute), 4)
					if err != nil {
						t.Errorf("Lease: %v", err)
						return
					}
					mu.Lock()
					for _, m := range got {
						leased[m.ID]++
					}
					all := len(leased) == mails
					mu.Unlock()
					if all {
						return
					}
					for _, m := range got {
						if err := store.Settle(t.Context(), []reset.Settlement{{Mail: m.ID, Lease: m.Lease}}); err != nil {
							t.Errorf("Settle: %v", err)
						}
					}
				}
			})
		}
		wg.Wait()
		for id, n := range leased {
			if n != 1 {
				t.Errorf("the mail %v was leased %d times", id, n)
			}
		}
	})
}

// When two transactions lock each other out, the driver reports the deadlock to
// one of them, and the store recognises it.
func TestDeadlockIsRetried(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 4)
		d, err := bunpool.DialectOf(db)
		if err != nil {
			t.Fatal(err)
		}
		createUsers(t, db)
		createUser(t, db, "a")
		createUser(t, db, "b")
		var tries atomic.Int64
		both := make(chan struct{})
		var met sync.WaitGroup
		met.Add(2)
		go func() { met.Wait(); close(both) }()
		var wg sync.WaitGroup
		for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
			wg.Go(func() {
				first := true
				err := d.Retry(t.Context(), func() error {
					tries.Add(1)
					return db.RunInTx(t.Context(), d.TxOptions, func(ctx context.Context, tx bun.Tx) error {
						err := setPassword(storebun.WithTx(ctx, tx), db, order[0], "one")
						if first {
							first = false
							met.Done()
							<-both
						}
						if err != nil {
							return err
						}
						return setPassword(storebun.WithTx(ctx, tx), db, order[1], "two")
					})
				})
				if err != nil {
					t.Errorf("the transaction failed: %v", err)
				}
			})
		}
		wg.Wait()
		if got := tries.Load(); got != 3 {
			t.Errorf("two transactions that wait for each other took %d tries, want 3", got)
		}
	})
}

// While one process leases, another finds what the first does not take. A
// server that reads through another index may lock all that is due.
func TestLeaseHidesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		for _, rows := range []struct{ due, later, expired int }{{50, 0, 5}, {50, 5, 0}, {200, 20, 5}} {
			db := s.open(t, 4)
			store := newStore(t, db, storebun.Options{})
			now := start.Add(time.Hour)
			n := 0
			add := func(rows int, due, expires time.Time) {
				for range rows {
					n++
					m := publicRequest(n)
					m.Due, m.Expires = due.Add(time.Duration(n)*time.Millisecond), expires.Add(time.Duration(n)*time.Millisecond)
					if err := store.Enqueue(t.Context(), m); err != nil {
						t.Fatal(err)
					}
				}
			}
			add(rows.due, now.Add(-2*time.Second), now.Add(time.Hour))
			add(rows.later, now.Add(10*time.Minute), now.Add(time.Hour))
			add(rows.expired, now.Add(-2*time.Hour), now.Add(-time.Hour))

			hook := holdQuery("LIMIT 4 FOR UPDATE")
			slow := newStore(t, db.WithQueryHook(hook), storebun.Options{})
			first := make(chan int)
			go func() {
				mails, err := slow.Lease(context.Background(), now, now.Add(time.Minute), 4)
				if err != nil {
					t.Error(err)
				}
				first <- len(mails)
			}()
			select {
			case <-hook.held:
			case n := <-first:
				t.Fatalf("%+v: leased %d at once", rows, n)
			}
			mails, err := store.Lease(t.Context(), now, now.Add(time.Minute), 4)
			close(hook.release)
			if one := <-first; err != nil || len(mails) != 4 || one != 4 {
				t.Errorf("%+v: leased %d and meanwhile %d, %v; want 4 and 4", rows, one, len(mails), err)
			}
		}
	})
}
