// Package storesqlite keeps the records of package reset in an SQLite file. It
// is the embedded default: it needs neither a server nor cgo.
//
//	store, err := storesqlite.Open("app.db")
//	defer store.Close()
//
// The host's own tables may live in the same file, through [Store.DB]. Then a
// new password is saved in the transaction that redeems the activation; package
// storebun shows how SetPassword joins it. If the users are elsewhere, set
// [Options].UsersElsewhere.
//
// An answer means that the disk has the data: the file is in WAL mode with
// synchronous = FULL. Concurrent writes share a commit.
package storesqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/bunpool"
	"github.com/gopassreset/reset/internal/sqlstore"
)

var (
	_ reset.RealmStore   = (*Store)(nil)
	_ reset.HistoryStore = (*Store)(nil)
	_ reset.StatsStore   = (*Store)(nil)
)

// A Store implements [reset.Store] in one SQLite file, which any number of Stores
// and processes may have open. Methods that write wait for each other, first
// come, first served, then at most 10 s for others who have the file locked, and
// no longer than their context lasts.
//
// Every call fails if the file, or one of the two beside it whose names end in
// -wal and -shm, was moved, deleted or replaced since it was opened: what is
// written then would be lost with the process. Calls work again when the same
// file is back.
//
// From SetPassword call no method that writes, except Revoke and EraseHistory:
// it would wait for SetPassword to end.
type Store struct {
	sql     *sqlstore.Store
	file    *file
	db      *bun.DB // of the host
	writers *bun.DB // has the one connection of writer
	readers *sql.DB
	reads   *statements // on readers
	writer  *writer
	close   func() error
}

// Options change how a Store works. The zero value is the default.
type Options struct {
	// UsersElsewhere says that the host's users are not in this file, so that
	// SetPassword can't join its transactions; [reset.Store].Redeem documents
	// what is promised then. Defaults to false.
	UsersElsewhere bool
}

// Open opens the file at path, which may also hold the host's users. It creates
// the file, readable only by its owner, if it is missing, and the Store's
// tables, whose names begin with "reset_". It fails for a file of a newer
// release, and for a database in memory, of which every connection would have
// one of its own.
func Open(path string) (*Store, error) { return OpenWith(path, Options{}) }

// OpenWith is like Open, with options.
func OpenWith(path string, o Options) (*Store, error) {
	s, err := open(context.Background(), path, o)
	if err != nil {
		return nil, fmt.Errorf("storesqlite: open: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, path string, o Options) (_ *Store, err error) {
	path, err = checkPath(path)
	if err != nil {
		return nil, err
	}
	if err := create(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && !strings.Contains(err.Error(), path) { // SQLite names no file
			err = fmt.Errorf("%s: %w", path, err)
		}
	}()
	f, err := newFile(path)
	if err != nil {
		return nil, err
	}
	s := &Store{file: f}
	defer func() {
		if err != nil {
			_ = s.closePools()
		}
	}()
	if err := s.openPools(path); err != nil {
		return nil, err
	}
	d := sqlstore.SQLite
	// SQLite does not wait while others switch a new file to WAL or close it.
	var conn bun.Conn
	err = d.Retry(ctx, func() (err error) {
		if err = s.prepare(ctx); err == nil {
			conn, err = s.writers.Conn(ctx)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err = conn.ExecContext(ctx, "SELECT version FROM reset_schema"); err == nil { // opens all of its files
		err = f.note()
	}
	if err != nil {
		return nil, err
	}
	s.writer = startWriter(conn, d, f, func() bool { return s.db.Stats().InUse > 0 })
	s.reads = newStatements(s.readers)
	s.sql = sqlstore.New(backend{s.writer, s.reads}, path, d, o.UsersElsewhere)
	s.close = sync.OnceValue(s.shutDown)
	return s, nil
}

func checkPath(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case path == "":
		return "", errors.New("no path")
	case strings.HasPrefix(path, ":memory:"), strings.HasPrefix(path, "file:"):
		return "", fmt.Errorf("%q is not the path of a file", path)
	case err == nil && info.IsDir():
		return "", fmt.Errorf("%s is a directory", path)
	}
	return filepath.Abs(path)
}

// create makes the file before SQLite does, for its mode, which SQLite also gives
// to the files beside it.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // not even opened: closing it would drop our own locks on it
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// busyTimeout, in milliseconds, is for readers and the host. The writer waits by
// itself.
const busyTimeout = 5000

const maxIdleConns = 32 // of the host, each with 2 MB at most

// maxJournal is what the journal keeps of its size, in bytes, after a long read
// has made it grow.
const maxJournal = 64 << 20

// dsn configures every connection, since pools open new ones at any time.
func dsn(path string, busyTimeout int, pragmas ...string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/...
	}
	query := url.Values{
		"_pragma": append([]string{
			fmt.Sprintf("busy_timeout(%d)", busyTimeout),
			"journal_mode(WAL)",
			"synchronous(FULL)",
			fmt.Sprintf("journal_size_limit(%d)", maxJournal),
		}, pragmas...),
		// Not even a moment after it was moved is a file created.
		"mode": {"rw"},
		// Otherwise a transaction that reads and then writes would fail at
		// once if somebody else had written in between.
		"_txlock": {"immediate"},
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String()
}

func (s *Store) openPools(path string) error {
	registered, err := sql.Open("sqlite", "")
	if err != nil {
		return err
	}
	defer registered.Close()
	pool := func(dsn string) *sql.DB { return sql.OpenDB(&connector{registered.Driver(), dsn, s.file}) }
	s.db = bun.NewDB(pool(dsn(path, busyTimeout)), sqlitedialect.New())
	s.writers = bun.NewDB(pool(dsn(path, 0)), sqlitedialect.New())
	s.readers = pool(dsn(path, busyTimeout, "query_only(1)"))
	// A connection costs as much to open as 20 look-ups, so those of a busy host
	// stay open for a while.
	s.db.SetMaxIdleConns(maxIdleConns)
	s.db.SetConnMaxIdleTime(time.Minute)
	n := max(4, runtime.GOMAXPROCS(0))
	s.readers.SetMaxIdleConns(n)
	s.readers.SetMaxOpenConns(n)
	return nil
}

func (s *Store) prepare(ctx context.Context) error {
	var mode string
	if err := s.db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("journal mode is %q: the file system does not allow WAL", mode)
	}
	pool, err := bunpool.New(s.db)
	if err != nil {
		return err
	}
	schema, err := pool.Dialect.Schema()
	if err != nil {
		return err
	}
	// A process that starts need not wait for others who write.
	if schema.Check(ctx, pool) == nil {
		return nil
	}
	return schema.Create(ctx, pool)
}

// DB returns the database for the host's own tables. Its transactions are
// IMMEDIATE: they lock out other writers from their start, unless they are begun
// as read-only. Close closes it.
func (s *Store) DB() *bun.DB { return s.db }

// Close waits until pending writes are committed and closes the file. Every
// other method fails from then on.
func (s *Store) Close() error { return s.close() }

// Enqueue implements [reset.Store].
func (s *Store) Enqueue(ctx context.Context, m reset.Mail) error { return s.sql.Enqueue(ctx, m) }

// Issue implements [reset.Store].
func (s *Store) Issue(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
	return s.sql.Issue(ctx, now, a, limits, m)
}

// Find implements [reset.Store].
func (s *Store) Find(ctx context.Context, now time.Time, h reset.Hash) (reset.Activation, error) {
	return s.sql.Find(ctx, now, h)
}

// Redeem implements [reset.Store]. Unless the users are elsewhere, the context of
// apply carries the transaction, for storebun.IDB and storebun.Tx, and apply has
// 2 s.
func (s *Store) Redeem(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	return s.sql.Redeem(ctx, now, a, notification, apply)
}

// TransactionUsed reports whether SetPassword has taken the transaction that ctx
// carries. It is true where the users are elsewhere.
func (s *Store) TransactionUsed(ctx context.Context) bool { return s.sql.TransactionUsed(ctx) }

// Revoke implements [reset.Store]. It joins the transaction in ctx: that of
// storebun.WithTx, or of a SetPassword that a Store on the same path has called.
// EraseHistory does, and no other method.
func (s *Store) Revoke(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
	return s.sql.Revoke(ctx, now, userID, quiet)
}

// Lease implements [reset.Store].
func (s *Store) Lease(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
	return s.sql.Lease(ctx, now, until, n)
}

// Settle implements [reset.Store].
func (s *Store) Settle(ctx context.Context, done []reset.Settlement) error {
	return s.sql.Settle(ctx, done)
}

// Purge implements [reset.Store].
func (s *Store) Purge(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
	return s.sql.Purge(ctx, now, n)
}

// Realm implements [reset.RealmStore]. The view has the same file open: closing
// either closes both.
func (s *Store) Realm(name string) reset.Store {
	view := *s
	view.sql = s.sql.Realm(name)
	return &view
}

// SetBaseURL implements [reset.RealmStore].
func (s *Store) SetBaseURL(ctx context.Context, baseURL string) (last string, err error) {
	return s.sql.SetBaseURL(ctx, baseURL)
}

// Stats implements [reset.StatsStore].
func (s *Store) Stats(ctx context.Context, now time.Time) (reset.Stats, error) {
	return s.sql.Stats(ctx, now)
}

// Beat implements [reset.StatsStore].
func (s *Store) Beat(ctx context.Context, now time.Time, mailerFails bool) error {
	return s.sql.Beat(ctx, now, mailerFails)
}

// KeepHistory implements [reset.HistoryStore].
func (s *Store) KeepHistory(d time.Duration) { s.sql.KeepHistory(d) }

// History implements [reset.HistoryStore].
func (s *Store) History(ctx context.Context, now time.Time, userID string, n int) ([]reset.HistoryEntry, error) {
	return s.sql.History(ctx, now, userID, n)
}

// EraseHistory implements [reset.HistoryStore]. It joins the transaction in ctx,
// as Revoke does.
func (s *Store) EraseHistory(ctx context.Context, userID string) error {
	return s.sql.EraseHistory(ctx, userID)
}

// Queued implements [reset.StatsStore].
func (s *Store) Queued(ctx context.Context, now time.Time, limit int) (int, error) {
	return s.sql.Queued(ctx, now, limit)
}

func (s *Store) shutDown() error {
	s.writer.stop()
	s.reads.close()
	if err := s.closePools(); err != nil {
		return fmt.Errorf("storesqlite: close: %w", err)
	}
	return nil
}

func (s *Store) closePools() error {
	var errs []error
	if s.readers != nil {
		errs = append(errs, s.readers.Close())
	}
	if s.writers != nil {
		errs = append(errs, s.writers.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(errs...)
}

// A backend reads beside the writer.
type backend struct {
	*writer
	reads *statements
}

func (b backend) Read(ctx context.Context, f sqlstore.Op) error {
	if b.stopped() {
		return errClosed
	}
	err := b.dialect.Retry(ctx, func() error { return f(ctx, sqlstore.On(b.reads)) })
	return cmp.Or(b.file.check(), err)
}

func (b backend) WriteOne(ctx context.Context, f sqlstore.Op) error { return b.Write(ctx, f) }

func (b backend) WriteRow(ctx context.Context, f sqlstore.Op) error { return b.Write(ctx, f) }
