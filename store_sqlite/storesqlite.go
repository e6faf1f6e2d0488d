// Package storesqlite keeps the records of package reset in an SQLite file. It
// is the embedded default: it needs neither a server nor cgo.
//
//	store, err := storesqlite.Open("app.db")
//	defer store.Close()
//
// The host's own tables may live in the same file, through [Store.DB]. Then a
// password is saved in the transaction that uses up the activation; package
// storebun tells how SetPassword reaches it. Where the users are elsewhere, say
// so with [Options].
//
// Whatever has been answered is on the disk: the file is in WAL mode with
// synchronous = FULL. What many ask at once is committed together.
package storesqlite

import (
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

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/sqlstore"
)

var _ reset.Store = (*Store)(nil)

// A Store is a reset.Store, whose methods it has, in a file, which any number
// of Stores and processes may have open. Methods that write wait their turn,
// first come, first served, and then at most 10 s, and no longer than their
// context lasts, for others who have the file locked.
//
// Where the context has a transaction, of storebun.WithTx or of SetPassword,
// Revoke joins it. From SetPassword no other method that writes may be called:
// it would wait for SetPassword to end.
type Store struct {
	*store
	db      *bun.DB // of the host
	writers *bun.DB // has the one connection of writer
	readers *sql.DB
	writer  *writer
	close   func() error
}

type store = sqlstore.Store

// Options say what is different from the default.
type Options struct {
	// UsersElsewhere says that the host's users are not in this file, so that
	// SetPassword can't take part in its transactions; see reset.Store.Redeem
	// for what is promised then.
	UsersElsewhere bool
}

// Open opens the file at path, in which the host keeps its users, too. It
// creates a missing file, readable by its owner only, and the Store's tables,
// whose names begin with "reset_". It fails for a file of a newer release. A
// database in memory would not be the same for all connections and is refused.
func Open(path string) (*Store, error) { return Options{}.Open(path) }

// Open is like the function Open, with options.
func (o Options) Open(path string) (*Store, error) {
	s, err := o.open(context.Background(), path)
	if err != nil {
		return nil, fmt.Errorf("storesqlite: open: %w", err)
	}
	return s, nil
}

func (o Options) open(ctx context.Context, path string) (_ *Store, err error) {
	path, err = checkPath(path)
	if err != nil {
		return nil, err
	}
	if err := create(path); err != nil {
		return nil, err
	}
	s := &Store{}
	defer func() {
		if err != nil {
			_ = s.closePools()
		}
	}()
	if err := s.openPools(path); err != nil {
		return nil, err
	}
	d, err := sqlstore.DialectOf(s.db)
	if err != nil {
		return nil, err
	}
	// SQLite does not wait when others turn a new file to WAL or close it.
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
	s.writer = startWriter(conn, d)
	s.store = sqlstore.New(backend{s.writer, s.readers}, d, o.UsersElsewhere)
	s.close = sync.OnceValue(s.shutDown)
	return s, nil
}

func checkPath(path string) (string, error) {
	switch {
	case path == "":
		return "", errors.New("no path")
	case strings.HasPrefix(path, ":memory:"), strings.HasPrefix(path, "file:"):
		return "", fmt.Errorf("%q is not the path of a file", path)
	}
	return filepath.Abs(path)
}

// create makes the file before SQLite does, for its mode, which SQLite gives to
// the files beside it as well.
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

const patience = 5000 // ms, of the readers and the host

// dsn says how every connection is to be, since pools open new ones at any
// time. busyTimeout is in milliseconds.
func dsn(path string, busyTimeout int, pragmas ...string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/...
	}
	query := url.Values{
		"_pragma": append([]string{fmt.Sprintf("busy_timeout(%d)", busyTimeout), "journal_mode(WAL)", "synchronous(FULL)"}, pragmas...),
		// A transaction that reads first and then writes would fail, without
		// any wait, if somebody else has written in between.
		"_txlock": {"immediate"},
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String()
}

func (s *Store) openPools(path string) error {
	db, err := sql.Open("sqlite", dsn(path, patience))
	if err != nil {
		return err
	}
	s.db = bun.NewDB(db, sqlitedialect.New())
	writers, err := sql.Open("sqlite", dsn(path, 0)) // the writer waits by itself
	if err != nil {
		return err
	}
	s.writers = bun.NewDB(writers, sqlitedialect.New())
	if s.readers, err = sql.Open("sqlite", dsn(path, patience, "query_only(1)")); err != nil {
		return err
	}
	n := max(4, runtime.GOMAXPROCS(0))
	s.db.SetMaxIdleConns(n)
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
	schema, err := sqlstore.SchemaOf(dialect.SQLite)
	if err != nil {
		return err
	}
	// A look first: a process that starts need not wait for others who write.
	if schema.Check(ctx, s.db) == nil {
		return nil
	}
	return schema.Create(ctx, s.db)
}

// DB returns the database for the host's own tables. Its transactions are
// IMMEDIATE, which is to say that they lock out other writers from their start,
// unless they are begun as read-only. It is closed by Close.
func (s *Store) DB() *bun.DB { return s.db }

// Close waits until what is being written is written and closes the file. Every
// other method fails from then on.
func (s *Store) Close() error { return s.close() }

func (s *Store) shutDown() error {
	s.writer.stop()
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

// A backend reads beside its one writer.
type backend struct {
	*writer
	readers *sql.DB
}

func (b backend) Read(ctx context.Context, f sqlstore.Op) error {
	if b.stopped() {
		return errClosed
	}
	return b.dialect.Retry(ctx, func() error { return f(ctx, b.readers) })
}

func (b backend) WriteOne(ctx context.Context, f sqlstore.Op) error { return b.Write(ctx, f) }
