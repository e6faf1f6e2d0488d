package storesqlite_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/sqlstore"
	"github.com/gopassreset/reset/resettest"
	storebun "github.com/gopassreset/reset/store_bun"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

var start = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

func openStore(t *testing.T, o storesqlite.Options) *storesqlite.Store {
	t.Helper()
	return openPath(t, filepath.Join(t.TempDir(), "test.db"), o)
}

func openPath(t *testing.T, path string, o storesqlite.Options) *storesqlite.Store {
	t.Helper()
	s, err := storesqlite.OpenWith(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	resettest.TestStore(t, func(t *testing.T) reset.Store {
		return openStore(t, storesqlite.Options{})
	})
}

func TestStoreElsewhere(t *testing.T) {
	resettest.TestStoreElsewhere(t, func(t *testing.T) reset.Store {
		return openStore(t, storesqlite.Options{UsersElsewhere: true})
	})
}

// Revoke and EraseHistory join the transaction of SetPassword, but not that of
// another database, where they would end the links of somebody else.
func TestJoinsItsOwnDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	a, again, b := openPath(t, path, storesqlite.Options{}), openPath(t, path, storesqlite.Options{}), openStore(t, storesqlite.Options{})
	for i, other := range []*storesqlite.Store{again, b} {
		redeemed, revoked := activation(2*i, "user"), activation(2*i+1, "user")
		for _, issue := range []struct {
			store *storesqlite.Store
			a     reset.Activation
		}{{a, redeemed}, {other, revoked}} {
			if _, err := issue.store.Issue(t.Context(), start, issue.a, reset.Limits{MaxRequests: 9}, nil); err != nil {
				t.Fatal(err)
			}
		}
		err := a.Redeem(t.Context(), start, redeemed, reset.Mail{ID: id(90 + i), Kind: reset.MailNotification, UserID: "user", Due: start, Expires: start.Add(time.Hour)},
			func(ctx context.Context) error { return other.Revoke(ctx, start, "user", time.Time{}) })
		if err != nil {
			t.Errorf("%d. Redeem: %v", i, err)
		}
		if _, err := other.Find(t.Context(), start, revoked.Hash); !errors.Is(err, reset.ErrInvalidActivation) {
			t.Errorf("%d. Find after Revoke: %v", i, err)
		}
	}
}

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

func count(t *testing.T, s *storesqlite.Store, table string) (n int) {
	t.Helper()
	if err := s.DB().QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	if _, err := openPath(t, newer, storesqlite.Options{}).DB().ExecContext(t.Context(), "UPDATE reset_schema SET version = 99"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ path, want string }{
		{"", "no path"},
		{":memory:", "not the path of a file"},
		{"file:test.db", "not the path of a file"},
		{filepath.Join(dir, "missing", "test.db"), "no such file"},
		{dir, "is a directory"},
		{text, text + ": file is not a database"},
		{newer, "version 99"},
	} {
		s, err := storesqlite.Open(test.path)
		if err == nil {
			s.Close()
			t.Errorf("Open(%q) succeeded", test.path)
		} else if !strings.Contains(err.Error(), test.want) {
			t.Errorf("Open(%q): got error %q, want one that says %q", test.path, err, test.want)
		}
	}
}

// Characters with a meaning in a DSN, a URI or SQL may be in a file's name.
func TestOpenNames(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a?mode=memory", "a#b", "100%41", "a b'c\"", "ä;&=+"} {
		openPath(t, filepath.Join(dir, name), storesqlite.Options{})
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("after Open(%q): %v", name, err)
		}
	}
}

func TestFileModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := openPath(t, path, storesqlite.Options{})
	if err := s.Enqueue(t.Context(), publicRequest(1)); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Error(err)
		} else if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("mode of the file%s: got %o, want 600", suffix, got)
		}
	}
}

func TestEveryConnectionIsSetUp(t *testing.T) {
	s := openStore(t, storesqlite.Options{})
	for range 3 {
		conn, err := s.DB().Conn(t.Context()) // a new one each time, as none is given back
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "5000", "journal_size_limit": "67108864"} {
			var got string
			if err := conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
				t.Errorf("PRAGMA %s: got %q, %v, want %q", pragma, got, err, want)
			}
		}
	}
}

// Processes may create the file together, and may close it while others use it.
func TestOpenAtOnce(t *testing.T) {
	const rounds, stores = 100, 4
	dir := t.TempDir()
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) { // which closes what it has opened
			path := filepath.Join(dir, fmt.Sprint(round))
			var wg sync.WaitGroup
			for i := range stores {
				wg.Go(func() {
					s, err := storesqlite.Open(path)
					if err != nil {
						t.Error(err)
						return
					}
					if err := s.Enqueue(t.Context(), publicRequest(i)); err != nil {
						t.Errorf("Enqueue: %v", err)
					}
					if err := s.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				})
			}
			wg.Wait()
			if got := count(t, openPath(t, path, storesqlite.Options{}), "reset_mails"); got != stores {
				t.Errorf("%d mails are queued, want %d", got, stores)
			}
		})
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := openPath(t, path, storesqlite.Options{})
	if _, err := s.Issue(t.Context(), start, activation(1, "a"), reset.Limits{MaxRequests: 1}, nil); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = openPath(t, path, storesqlite.Options{})
	if _, err := s.Find(t.Context(), start, activation(1, "a").Hash); err != nil {
		t.Errorf("Find after the file was opened again: %v", err)
	}
}

func TestClose(t *testing.T) {
	s := openStore(t, storesqlite.Options{})
	if err := s.Enqueue(t.Context(), publicRequest(1)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 { // late ones get errClosed
		wg.Go(func() {
			if err := s.Enqueue(t.Context(), publicRequest(2+i)); err != nil && !strings.Contains(err.Error(), "closed") {
				t.Errorf("Enqueue during Close: %v", err)
			}
		})
		wg.Go(func() {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	wg.Wait()
	ctx, a := t.Context(), activation(1, "a")
	_, issueErr := s.Issue(ctx, start, a, reset.Limits{MaxRequests: 1}, nil)
	_, findErr := s.Find(ctx, start, a.Hash)
	_, leaseErr := s.Lease(ctx, start, start, 1)
	_, _, purgeErr := s.Purge(ctx, start, 1)
	for name, err := range map[string]error{
		"Enqueue": s.Enqueue(ctx, publicRequest(1)),
		"Issue":   issueErr,
		"Find":    findErr,
		"Redeem":  s.Redeem(ctx, start, a, publicRequest(1), func(context.Context) error { return nil }),
		"Revoke":  s.Revoke(ctx, start, "a", time.Time{}),
		"Lease":   leaseErr,
		"Settle":  s.Settle(ctx, []reset.Settlement{{Mail: id(1)}}),
		"Purge":   purgeErr,
	} {
		if err == nil || !strings.HasSuffix(err.Error(), "storesqlite: store is closed") {
			t.Errorf("%s after Close: got error %v", name, err)
		}
	}
}

// Close waits for whatever has begun.
func TestCloseWaits(t *testing.T) {
	s := openStore(t, storesqlite.Options{})
	a := activation(1, "a")
	if _, err := s.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error)
	err := s.Redeem(t.Context(), start, a, notification(2, "a"), func(ctx context.Context) error {
		go func() { closed <- s.Close() }()
		if err := s.Enqueue(ctx, publicRequest(3)); err == nil || ctx.Err() != nil { // it waits until the Store is being closed
			t.Errorf("Enqueue while Redeem has the writer and the Store is being closed: %v", err)
		}
		_, err := storebun.IDB(ctx, s.DB()).ExecContext(ctx, "CREATE TABLE late (n)")
		return err
	})
	if err != nil {
		t.Errorf("Redeem: %v", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestCommitsTogether(t *testing.T) {
	const n = 300
	s := openStore(t, storesqlite.Options{})
	commits, err := s.CountCommits()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := s.Enqueue(t.Context(), publicRequest(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := count(t, s, "reset_mails"); got != n {
		t.Errorf("%d mails are queued, want %d", got, n)
	}
	if got := commits.Load(); got < 1 || got > n/3 {
		t.Errorf("%d parallel Enqueues took %d commits", n, got)
	}
}

// A batch has writes that fail, in every way, among writes that do not.
func TestFailuresUndoOnlyThemselves(t *testing.T) {
	s := openStore(t, storesqlite.Options{})
	insert := func(n int) sqlstore.Op {
		return func(ctx context.Context, c sqlstore.Conn) error {
			return c.Exec(ctx, "INSERT INTO t VALUES (?)", n)
		}
	}
	then := func(op sqlstore.Op, err error) sqlstore.Op {
		return func(ctx context.Context, c sqlstore.Conn) error { return errors.Join(op(ctx, c), err) }
	}
	nothing := func(context.Context, sqlstore.Conn) error { return nil }
	rollback := func(ctx context.Context, c sqlstore.Conn) error { // as SQLite may do by itself
		err := c.Exec(ctx, "ROLLBACK")
		return errors.Join(err, errors.New("rolled back"))
	}
	failure := errors.New("failure")
	verdict := fmt.Errorf("wrapped: %w", reset.ErrGone)
	if _, err := s.DB().ExecContext(t.Context(), "CREATE TABLE t (n INTEGER PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		bad  sqlstore.Op
		want string
	}{
		{"verdict", then(nothing, verdict), verdict.Error()},
		{"failure after a write", then(insert(100), failure), failure.Error()},
		{"constraint", insert(1), "constraint"},
		{"rolled back", rollback, "rolled back"},
		{"an error in SQL", func(ctx context.Context, c sqlstore.Conn) error {
			return c.Exec(ctx, "INSERT INTO missing VALUES (1)")
		}, "no such table"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := s.DB().ExecContext(t.Context(), "DELETE FROM t"); err != nil {
				t.Fatal(err)
			}
			errs, err := s.Together([]sqlstore.Op{insert(1), test.bad, insert(2), test.bad, insert(3)})
			if err != nil {
				t.Fatal(err)
			}
			for i, err := range errs {
				if bad := i%2 == 1; bad && (err == nil || !strings.Contains(err.Error(), test.want)) || !bad && err != nil {
					t.Errorf("job %d: %v", i, err)
				}
			}
			var got string
			if err := s.DB().QueryRowContext(t.Context(), "SELECT group_concat(n) FROM (SELECT n FROM t ORDER BY n)").Scan(&got); err != nil || got != "1,2,3" {
				t.Errorf("the table has %s (%v), want 1,2,3", got, err)
			}
		})
	}
}

// A verdict does not cost the others of its batch their commit.
func TestVerdictsShareTheCommit(t *testing.T) {
	s := openStore(t, storesqlite.Options{})
	commits, err := s.CountCommits()
	if err != nil {
		t.Fatal(err)
	}
	insert := func(ctx context.Context, c sqlstore.Conn) error {
		return c.Exec(ctx, "INSERT INTO reset_locks (user_id, claim_until, expires) VALUES (randomblob(9), 0, 0)")
	}
	refuse := func(context.Context, sqlstore.Conn) error { return &reset.LimitError{} }
	errs, err := s.Together([]sqlstore.Op{insert, refuse, insert, refuse})
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range errs {
		if refused := errors.Is(err, reset.ErrTooManyRequests); refused != (i%2 == 1) {
			t.Errorf("job %d: %v", i, err)
		}
	}
	if got := commits.Load(); got != 1 {
		t.Errorf("a batch with refusals took %d commits, want 1", got)
	}
}

// A write whose context ended before the batch began is not in it.
func TestBatchLeavesOutWhoHasLeft(t *testing.T) {
	s := openStore(t, storesqlite.Options{})
	insert := func(n int) sqlstore.Op {
		return func(ctx context.Context, c sqlstore.Conn) error {
			return c.Exec(ctx, "INSERT INTO reset_locks (user_id, claim_until, expires) VALUES (?, 0, 0)", []byte{byte(n)})
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	want := []error{context.Canceled, nil, errors.New("no such table"), context.Canceled, nil}
	broken := func(ctx context.Context, c sqlstore.Conn) error {
		return c.Exec(ctx, "INSERT INTO missing VALUES (1)")
	}
	errs, err := s.Together([]sqlstore.Op{insert(0), insert(1), broken, insert(3), insert(4)}, ended, t.Context(), t.Context(), ended)
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range errs {
		if (err == nil) != (want[i] == nil) || err != nil && !strings.Contains(err.Error(), want[i].Error()) {
			t.Errorf("job %d: got error %v, want %v", i, err, want[i])
		}
	}
	if got := count(t, s, "reset_locks"); got != 2 {
		t.Errorf("%d rows are stored, want 2", got)
	}
}

func TestDiskFull(t *testing.T) {
	testUnwritable(t, "max_page_count = 1", "max_page_count = 1000000", "full") // it can't be less than is in use
}

func TestReadOnly(t *testing.T) {
	testUnwritable(t, "query_only = 1", "query_only = 0", "readonly")
}

func testUnwritable(t *testing.T, spoil, repair, want string) {
	s := openStore(t, storesqlite.Options{})
	a := activation(0, "a")
	if _, err := s.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 9}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Pragma(spoil); err != nil {
		t.Fatal(err)
	}
	var stored, failed atomic.Int64
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			a := activation(1+i, fmt.Sprint("user ", i))
			switch _, err := s.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 9}, mailFor(a)); {
			case err == nil:
				stored.Add(1)
			case strings.Contains(err.Error(), want):
				failed.Add(1)
			default:
				t.Errorf("Issue: %v", err)
			}
		})
	}
	wg.Wait()
	if failed.Load() == 0 {
		t.Errorf("nothing failed")
	}
	if a, m := count(t, s, "reset_activations")-1, count(t, s, "reset_mails"); int64(a) != stored.Load() || a != m {
		t.Errorf("%d Issues succeeded, %d activations and %d mails are stored", stored.Load(), a, m)
	}
	if _, err := s.Find(t.Context(), start, a.Hash); err != nil {
		t.Errorf("Find: %v", err)
	}
	if err := s.Redeem(t.Context(), start, a, notification(999, "a"), func(context.Context) error { return nil }); err == nil && want != "full" {
		t.Errorf("Redeem succeeded")
	}
	if err := s.Pragma(repair); err != nil {
		t.Fatal(err)
	}
	if err := s.Enqueue(t.Context(), publicRequest(1000)); err != nil {
		t.Errorf("Enqueue when there is room again: %v", err)
	}
}

// Another process, or the host, has the lock.
func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s, other := openPath(t, path, storesqlite.Options{}), openPath(t, path, storesqlite.Options{})
	a := activation(3, "a")
	if _, err := s.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
		t.Fatal(err)
	}
	tx, err := other.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody waits for the lock longer than its context lasts, alone or in a
	// batch, and nobody waits longer for them.
	waiting := make(chan error)
	go func() { waiting <- s.Enqueue(t.Context(), publicRequest(1)) }()
	for name, f := range map[string]func(context.Context) error{
		"Enqueue": func(ctx context.Context) error { return s.Enqueue(ctx, publicRequest(2)) },
		"Issue": func(ctx context.Context) error {
			_, err := s.Issue(ctx, start, activation(4, "b"), reset.Limits{MaxRequests: 1}, nil)
			return err
		},
		"Redeem": func(ctx context.Context) error {
			return other.Redeem(ctx, start, a, notification(5, "a"), func(context.Context) error {
				t.Error("Redeem called apply")
				return nil
			})
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := f(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s while the file is locked: %v", name, err)
		}
		if took := time.Since(began); took > 4*time.Second { // as SQLite would wait
			t.Errorf("%s took %v", name, took)
		}
	}
	if _, err := s.Find(t.Context(), start, reset.Hash{}); !errors.Is(err, reset.ErrInvalidActivation) {
		t.Errorf("Find while the file is locked: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Errorf("Enqueue that has waited for the lock: %v", err)
	}
	if mails, activations := count(t, s, "reset_mails"), count(t, s, "reset_activations"); mails != 1 || activations != 1 {
		t.Errorf("%d mails and %d activations are stored, want 1 and 1", mails, activations)
	}
}

// A call without a deadline waits 10 s for the lock.
func TestLockedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "test.db")
		s, other := openPath(t, path, storesqlite.Options{}), openPath(t, path, storesqlite.Options{})
		tx, err := other.DB().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err = s.Enqueue(t.Context(), publicRequest(1))
		if took := time.Since(began); !errors.Is(err, reset.ErrBusy) || !strings.Contains(err.Error(), "locked") || took < 10*time.Second || took > 11*time.Second {
			t.Errorf("Enqueue while the file is locked: %v after %v", err, took)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if err := s.Enqueue(t.Context(), publicRequest(1)); err != nil {
			t.Errorf("Enqueue when the file is free: %v", err)
		}
	})
}

// SetPassword ends before the claim does, which lasts for 60 s.
func TestDeadlineElsewhere(t *testing.T) {
	s := openStore(t, storesqlite.Options{UsersElsewhere: true})
	a := activation(1, "a")
	if _, err := s.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
		t.Fatal(err)
	}
	err := s.Redeem(t.Context(), start, a, notification(2, "a"), func(ctx context.Context) error {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > 50*time.Second {
			t.Errorf("SetPassword has until %v, %v from now", deadline, time.Until(deadline))
		}
		return nil
	})
	if err != nil {
		t.Errorf("Redeem: %v", err)
	}
}

// As is often advised for SQLite.
func TestHostWithOneConnection(t *testing.T) {
	s := openStore(t, storesqlite.Options{})
	s.DB().SetMaxOpenConns(1)
	a := activation(1, "a")
	if _, err := s.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if _, err := s.DB().ExecContext(ctx, "CREATE TABLE users (hash TEXT); INSERT INTO users VALUES ('old')"); err != nil {
		t.Fatal(err)
	}
	err := s.Redeem(ctx, start, a, notification(2, "a"), func(ctx context.Context) error {
		_, err := storebun.IDB(ctx, s.DB()).ExecContext(ctx, "UPDATE users SET hash = 'new'")
		return err
	})
	if err != nil {
		t.Errorf("Redeem: %v", err)
	}
}

// A host that writes without a pause does not shut the Store out, nor the Store
// the host.
func TestEverybodyWrites(t *testing.T) {
	const mails, transactions = 100, 10
	s := openStore(t, storesqlite.Options{})
	if _, err := s.DB().ExecContext(t.Context(), "CREATE TABLE host (n)"); err != nil {
		t.Fatal(err)
	}
	hold := func() error { // as long as a slow disk does
		tx, err := s.DB().BeginTx(t.Context(), nil)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(t.Context(), "INSERT INTO host VALUES (1)"); err != nil {
			return err
		}
		<-time.After(20 * time.Millisecond)
		return tx.Commit()
	}
	var wg sync.WaitGroup
	var sent, held atomic.Int64
	enough := func() bool { return t.Failed() || sent.Load() >= mails && held.Load() >= transactions }
	begun := make(chan struct{})
	wg.Go(func() {
		for !enough() {
			if err := hold(); err != nil {
				t.Errorf("the host's transaction: %v", err)
			}
			if held.Add(1) == 1 {
				close(begun)
			}
		}
	})
	<-begun
	for i := range 16 {
		wg.Go(func() {
			for n := i; !enough(); n += 16 {
				if err := s.Enqueue(t.Context(), publicRequest(n)); err != nil {
					t.Errorf("Enqueue: %v", err)
				}
				sent.Add(1)
			}
		})
	}
	wg.Wait()
}

// The Store leaves others a quarter of the time for which it has the file locked,
// and little of it where there are none.
func TestRest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := openPath(t, path, storesqlite.Options{})
	mails := 0
	rests := func(s *storesqlite.Store) time.Duration {
		t.Helper()
		mails++
		if err := s.Enqueue(t.Context(), publicRequest(mails)); err != nil {
			t.Fatal(err)
		}
		part, err := s.RestPart()
		if err != nil {
			t.Fatal(err)
		}
		return part
	}
	if got := rests(s); got != 16 {
		t.Errorf("alone: 1/%d", got)
	}
	conn, err := s.DB().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := rests(s); got != 4 {
		t.Errorf("while the host has a connection: 1/%d", got)
	}
	conn.Close()
	if got := rests(s); got != 16 {
		t.Errorf("when the host has given it back: 1/%d", got)
	}
	other := openPath(t, path, storesqlite.Options{})
	if got := rests(other); got != 16 {
		t.Errorf("the other, which has seen nobody write: 1/%d", got)
	}
	if got := rests(s); got != 4 {
		t.Errorf("when another has written: 1/%d", got)
	}
}

func TestTwoStoresOnOneFile(t *testing.T) {
	const users, each, max = 5, 20, 3
	path := filepath.Join(t.TempDir(), "test.db")
	stores := []*storesqlite.Store{openPath(t, path, storesqlite.Options{}), openPath(t, path, storesqlite.Options{})}
	var wg sync.WaitGroup
	for i := range users * each {
		wg.Go(func() {
			a := activation(i, fmt.Sprint("user ", i%users))
			_, err := stores[i%2].Issue(t.Context(), start, a, reset.Limits{MaxRequests: max}, mailFor(a))
			if err != nil && !errors.Is(err, reset.ErrTooManyRequests) {
				t.Errorf("Issue: %v", err)
			}
		})
	}
	wg.Wait()
	if got := count(t, stores[0], "reset_activations"); got != users*max {
		t.Errorf("%d requests are live, want %d for each of %d users", got, max, users)
	}
}

func TestCancels(t *testing.T) {
	const n = 10_000
	s := openStore(t, storesqlite.Options{})
	var wg sync.WaitGroup
	var next, stored atomic.Int64
	for range 16 {
		wg.Go(func() {
			for i := next.Add(1); i <= n; i = next.Add(1) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%100)*20*time.Microsecond)
				a := activation(int(i), fmt.Sprint("user ", i))
				if _, err := s.Issue(ctx, start, a, reset.Limits{MaxRequests: 1}, mailFor(a)); err == nil {
					stored.Add(1)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	a, m := count(t, s, "reset_activations"), count(t, s, "reset_mails")
	if a != m || int64(a) < stored.Load() {
		t.Errorf("%d Issues succeeded, %d activations and %d mails are stored", stored.Load(), a, m)
	}
	if stored.Load() == 0 || stored.Load() == n {
		t.Errorf("%d of %d Issues succeeded: nothing was tested", stored.Load(), n)
	}
}

// The host's password is in the file, and changed in one transaction.
func TestHostTables(t *testing.T) {
	s := openStore(t, storesqlite.Options{})
	if _, err := s.DB().ExecContext(t.Context(), "CREATE TABLE users (id TEXT PRIMARY KEY, hash TEXT); INSERT INTO users VALUES ('a', 'old')"); err != nil {
		t.Fatal(err)
	}
	password := func() (hash string) {
		if err := s.DB().QueryRowContext(t.Context(), "SELECT hash FROM users").Scan(&hash); err != nil {
			t.Fatal(err)
		}
		return hash
	}
	a := activation(1, "a")
	if _, err := s.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("failure")
	for _, result := range []error{failure, nil} {
		err := s.Redeem(t.Context(), start, a, notification(2, "a"), func(ctx context.Context) error {
			_, err := storebun.IDB(ctx, s.DB()).NewUpdate().Table("users").Set("hash = ?", "new").Where("id = ?", "a").Exec(ctx)
			return errors.Join(err, result)
		})
		if !errors.Is(err, result) {
			t.Errorf("Redeem: got error %v, want %v", err, result)
		}
		if got, want := password(), map[bool]string{true: "new", false: "old"}[result == nil]; got != want {
			t.Errorf("after a Redeem with error %v: got password %q, want %q", err, got, want)
		}
	}
}

// The store knows whether SetPassword has taken its transaction, where there is
// one.
func TestTransactionUsed(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		s := openStore(t, storesqlite.Options{UsersElsewhere: elsewhere})
		a := activation(1, "a")
		if _, err := s.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Redeem(t.Context(), start, a, notification(2, "a"), func(ctx context.Context) error {
			if got := s.TransactionUsed(ctx); got != elsewhere {
				t.Errorf("elsewhere %v: before, got %v", elsewhere, got)
			}
			storebun.IDB(ctx, s.DB())
			if !s.TransactionUsed(ctx) {
				t.Errorf("elsewhere %v: afterwards, got false", elsewhere)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// A host that writes past the transaction waits for itself.
func TestForgottenTransaction(t *testing.T) {
	s := openStore(t, storesqlite.Options{})
	if _, err := s.DB().ExecContext(t.Context(), "CREATE TABLE users (hash TEXT); INSERT INTO users VALUES ('old')"); err != nil {
		t.Fatal(err)
	}
	a := activation(1, "a")
	if _, err := s.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, nil); err != nil {
		t.Fatal(err)
	}
	began, wrote := time.Now(), make(chan error, 1)
	err := s.Redeem(t.Context(), start, a, notification(2, "a"), func(ctx context.Context) error {
		_, err := s.DB().ExecContext(ctx, "UPDATE users SET hash = 'new'")
		wrote <- err
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "storebun.IDB") {
		t.Errorf("Redeem: got error %v, want one that says what was forgotten", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("Redeem took %v", took)
	}
	if err := <-wrote; err == nil {
		t.Errorf("the host's write succeeded behind the error")
	}
	var hash string
	if err := s.DB().QueryRowContext(t.Context(), "SELECT hash FROM users").Scan(&hash); err != nil || hash != "old" {
		t.Errorf("got password %q, %v, want the old one", hash, err)
	}
	if _, err := s.Find(t.Context(), start, a.Hash); err != nil {
		t.Errorf("Find after Redeem failed: %v", err)
	}
	if err := s.Enqueue(t.Context(), publicRequest(3)); err != nil {
		t.Errorf("Enqueue after Redeem failed: %v", err)
	}
}
