package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/deadline"
)

// SQLite is its dialect. One transaction writes at a time. It locks the whole database from
// its start, so no row needs a lock of its own.
var SQLite = &Dialect{
	name:         "sqlite",
	product:      "SQLite",
	identify:     `SELECT sqlite_version()`,
	begin:        beginSQLite,
	commit:       commitSQLite,
	busy:         sqliteBusy,
	lock:         func(context.Context, *Store, Conn, string, time.Time) error { return nil },
	lockAgain:    ` ON CONFLICT (realm, user_id) DO UPDATE SET written = reset_locks.written + 1`,
	asksInTurn:   true,
	leaseByKey:   true,
	inRealm:      `realm = ?`,
	byUser:       plainTable,
	deleteByUser: plainDelete,
	byKey:        plainTable,
	deleteByKey:  plainDelete,
	maxRemoved:   maxKeys,
	addEntry:     onEntryConflict,
	settleOne:    settleOne,
	settleAll:    settleEach,
	purge:        purgeUnlocked,
	finish:       finishSQLite,
	create:       createSQLite,
	setBaseURL:   insertRealm + ` ON CONFLICT (realm) DO UPDATE SET base_url = excluded.base_url`,
	beat:         insertRun + ` ON CONFLICT (realm) DO UPDATE SET ran = max(ran, excluded.ran), mailer_failed = max(mailer_failed, excluded.mailer_failed)`,
	selectBytes:  `SELECT ?`,
	probe:        func(context.Context, *Store, Conn) error { return nil },
	probePool:    probeSQLitePool,
}

// sqliteBusy knows SQLite's own words for SQLITE_BUSY and its relatives, which
// are the same with every driver. modernc's driver may deliver an interrupt too
// late, to the next user of a connection.
func sqliteBusy(err error) bool {
	s := err.Error()
	return strings.Contains(s, "database is locked") || strings.HasPrefix(s, "interrupted")
}

var (
	errPrivateMemory = errors.New("each connection of the pool has a database of its own in memory: name a file, or call SetMaxOpenConns(1)")
	errNoBusyTimeout = errors.New("a connection of the pool has no busy_timeout, so that what the host writes fails whenever another connection writes: add _pragma=busy_timeout(5000) to the DSN, or _busy_timeout=5000 for github.com/mattn/go-sqlite3, or call SetMaxOpenConns(1)")
)

// probeSQLitePool returns an error where connections of a pool do not share
// their database or can't write side by side.
func probeSQLitePool(ctx context.Context, p Pool) error {
	return onTwo(ctx, p, func(conns []*Session) error {
		there, inMemory := 0, false
		for _, conn := range conns {
			var busyTimeout int
			if err := each(ctx, conn, func(r Row) error { return r.Scan(&busyTimeout) }, "PRAGMA busy_timeout"); err != nil {
				return err
			}
			err := each(ctx, conn, func(r Row) error {
				var seq, name, file []byte
				err := r.Scan(&seq, &name, &file)
				inMemory = inMemory || string(name) == "main" && len(file) == 0
				return err
			}, "PRAGMA database_list")
			if err != nil {
				return err
			}
			if busyTimeout == 0 && !inMemory {
				return errNoBusyTimeout
			}
			if _, err := Version(ctx, conn); err == nil {
				there++
			}
		}
		if inMemory && there > 0 && there < len(conns) { // with none, the schema is missing
			return errPrivateMemory
		}
		return nil
	})
}

func beginSQLite(ctx context.Context, p Pool) (*Tx, error) {
	conn, err := p.Session(ctx)
	if err != nil {
		return nil, err
	}
	end := func(err error) error {
		_ = conn.Close()
		return err
	}
	tx, err := BeginOn(ctx, p.Dialect, conn, end)
	if err != nil {
		return nil, end(err)
	}
	return tx, nil
}

// BeginOn begins a transaction on a connection to SQLite. When the transaction
// is over, end gets the error, if any, with which it was rolled back, gives the
// connection back and returns the outcome. If BeginOn fails, there is no
// transaction, end is not called and the connection remains the caller's.
//
// The transaction is not bound to ctx: database/sql would roll it back on
// another goroutine, perhaps when the connection has already begun the next one.
func BeginOn(ctx context.Context, d *Dialect, conn *Session, end func(error) error) (*Tx, error) {
	ctx = context.WithoutCancel(ctx)
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	// A statement that could write takes the lock, even if BEGIN was not
	// IMMEDIATE on this connection. After one that reads it would be too late
	// if somebody else had written in between.
	if err := exec(ctx, tx, `DELETE FROM reset_locks WHERE user_id IS NULL`); err != nil {
		tx.undo()
		return nil, err
	}
	tx.over = func(err error) error {
		if err != nil {
			_ = exec(ctx, On(conn.Raw), "ROLLBACK")
		}
		return end(err)
	}
	return tx, nil
}

// commitSQLite repeats a COMMIT that has failed because others were reading: the
// transaction is still open. It is a statement, since newer releases of
// modernc.org/sqlite roll back in Tx.Commit what could be committed a moment
// later, and apply must not run again.
func commitSQLite(ctx context.Context, t *Tx) error {
	ctx = context.WithoutCancel(ctx) // the outcome is soon known
	busy := func(err error) bool { return anyError(err, sqliteBusy) }
	if err := retry(ctx, busy, func() error { return exec(ctx, t, "COMMIT") }); err != nil {
		t.undo()
		return fmt.Errorf("commit: %w", err)
	}
	// database/sql has to end its transaction as well: an empty one, which locks
	// nothing.
	if err := exec(ctx, t, "BEGIN"); err == nil {
		_ = t.doRollback()
	}
	return t.over(nil)
}

const (
	// sqliteTimeout bounds apply on SQLite, where a host that bypasses the
	// transaction blocks on its own lock.
	sqliteTimeout = 2 * time.Second
	// sqliteGrace is what an apply gets that returns when its context ends.
	sqliteGrace = 500 * time.Millisecond
)

// finishSQLite does not wait for an apply that waits for the transaction
// instead of using it. Drivers keep waiting when the context ends, so apply has
// a goroutine of its own, which keeps the transaction until apply has returned:
// what the host writes late must never be committed behind an error.
func finishSQLite(ctx context.Context, s *Store, tx *Tx, _ reset.ID, apply func(context.Context) error) error {
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), sqliteTimeout)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, sqliteTimeout)
	defer cancel()
	return tx.end(ctx, s.dialect, func() error {
		err, returned := deadline.Call(wait, sqliteGrace, func() error { return apply(ctx) }, tx.undo)
		switch {
		case !returned:
			tx.lent = true
			return overdue(ctx)
		case err == nil && ctx.Err() != nil:
			// Some drivers return nil for statements that they left out because
			// the context had ended, glebarez/sqlite 1.11 for one.
			return fmt.Errorf("SetPassword returned nil when its context had ended: %w", context.Cause(ctx))
		case err == nil, !s.dialect.Busy(err) && !errors.Is(ctx.Err(), context.DeadlineExceeded):
			return err
		}
		return fmt.Errorf("%w (%w)", err, bypassed(ctx))
	})
}

func overdue(ctx context.Context) error {
	if !joinedBy(ctx) {
		return errBypassed
	}
	return fmt.Errorf("SetPassword took longer than %v: %w (%w)", sqliteTimeout, context.DeadlineExceeded, errPartlyBypassed)
}

// createSQLite takes the lock before it reads.
func createSQLite(ctx context.Context, d *Dialect, conn *Session, s Schema) error {
	return d.Retry(ctx, func() error {
		if err := exec(ctx, conn, `BEGIN IMMEDIATE`); err != nil {
			return err
		}
		err := s.create(ctx, conn, never)
		if err == nil {
			err = exec(ctx, conn, `COMMIT`)
		}
		if err != nil {
			_ = exec(context.WithoutCancel(ctx), conn, `ROLLBACK`)
		}
		return err
	})
}
