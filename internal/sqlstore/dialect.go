package sqlstore

import (
	"context"
	"database/sql"
	"math/bits"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/gopassreset/reset"
)

// A Dialect is everything that differs between databases.
type Dialect struct {
	name     string
	product  string
	identify string // a SELECT that fails on every other database
	numbered bool   // database/sql takes "$1" for an argument, not "?"

	// TxOptions are for BeginTx. At READ COMMITTED a transaction that has
	// waited for a lock row sees what its predecessor did, and MySQL locks no
	// gaps between rows, which would make other users wait. They are explicit
	// so that the server's default does not matter.
	TxOptions *sql.TxOptions
	// readCommitted makes the next statement a transaction at READ COMMITTED, or
	// is "" if that makes no difference to what a statement locks.
	readCommitted string

	// begin starts a transaction in which nobody else writes what this one
	// reads.
	begin func(ctx context.Context, p Pool) (*Tx, error)
	// commit commits no later than ctx allows.
	commit func(ctx context.Context, t *Tx) error
	// busy reports whether an error, not one that it wraps, means a lost race.
	busy func(error) bool

	// lock makes other transactions that lock the user wait for the end of
	// this one. until is when the lock row may be purged at the earliest.
	lock func(ctx context.Context, s *Store, c Conn, userID string, until time.Time) error
	// lockAgain follows the INSERT of a lock row, and writes the row that is there
	// already. It changes the row in any case: a cluster of several writable nodes
	// replicates no write that leaves a row as it was, and so would not notice
	// that two nodes lock the same user.
	lockAgain string
	// issueAtOnce is Issue in one statement, or nil. It reports false if it has
	// changed nothing but the lock row, and Issue has to go step by step.
	issueAtOnce func(ctx context.Context, s *Store, c Conn, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (bool, error)
	forUpdate   string // follows a SELECT and locks its rows
	skipLocked  string // the same, without those that are locked

	asksInTurn bool // a SELECT for each question is faster than one for all

	// dueMails follows the columns in a SELECT of the first n mails that are
	// due at now and have not expired, with the arguments realm, now, now and n.
	// Of expired mails, of which there are many after an outage, it reads no
	// more than the index.
	dueMails string
	// leaseByKey means that Lease looks for due mails before its transaction,
	// which then reads only these, and not through dueMails: nobody can write
	// while it looks.
	leaseByKey bool
	// inRealm compares the realm of rows that another column finds. On PostgreSQL
	// it must not match an index: a queue is mostly empty when it is analysed, so
	// that all indexes seem equally good, and the planner could choose one that
	// begins with the realm, and read all that the realm has there.
	inRealm string
	// byUser names a table for a statement about one user.
	byUser func(table string) string
	// deleteByUser begins a DELETE of one user's rows.
	deleteByUser func(table string) string
	// byKey and deleteByKey are the same for rows by their primary keys.
	byKey, deleteByKey func(table string) string
	// addEntry follows an INSERT of an entry of the history, and precedes what
	// changes in one that is there.
	addEntry string
	// maxRemoved is how many primary keys a DELETE may list.
	maxRemoved int

	settleOne func(ctx context.Context, s *Store, done reset.Settlement) error
	settleAll func(ctx context.Context, s *Store, c Conn, done []reset.Settlement) error
	purge     func(ctx context.Context, s *Store, c Conn, now time.Time, n int) (purged, error)

	// finish runs apply in the transaction of Redeem and ends the transaction.
	finish func(ctx context.Context, s *Store, tx *Tx, notification reset.ID, apply func(context.Context) error) error

	create      func(ctx context.Context, d *Dialect, conn *Session, s Schema) error
	beat        string                                            // inserts a row of reset_realms, or writes the later times
	setBaseURL  string                                            // inserts a row of reset_realms, or writes its base_url
	valuesTwice bool                                              // these two, and addEntry, take the arguments for changes a second time
	selectNow   string                                            // selects the time in milliseconds; "" if the database has no clock of its own
	selectBytes string                                            // selects its only argument, which is bytes
	probe       func(ctx context.Context, s *Store, c Conn) error // fails where a setting would break a promise
	probePool   func(context.Context, Pool) error
}

// Busy reports whether err means that a transaction has lost a race and was
// certainly rolled back.
func (d *Dialect) Busy(err error) bool { return anyError(err, d.busy) }

// anyError reports whether f holds for err or an error that it wraps.
func anyError(err error, f func(error) bool) bool {
	if err == nil || f(err) {
		return err != nil
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return anyError(e.Unwrap(), f)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			if anyError(err, f) {
				return true
			}
		}
	}
	return false
}

// lockByRow is lock where transactions overlap: a row that is there to be
// written keeps the cap at every isolation level, while SELECT ... FOR UPDATE
// can't lock the rows that are not there yet.
func lockByRow(ctx context.Context, s *Store, c Conn, userID string, until time.Time) error {
	return s.lockAll(ctx, c, until, userID)
}

// lockAll locks users in order, with a power of two in each statement, so that
// there are few different ones to prepare.
func (s *Store) lockAll(ctx context.Context, c Conn, until time.Time, users ...string) error {
	if err := s.checkRealm(); err != nil {
		return err
	}
	for len(users) > 0 {
		n := 1 << (bits.Len(uint(len(users))) - 1)
		var args []any
		for _, user := range users[:n] {
			args = append(args, s.realm, text(user), until.UnixMilli(), firstWritten())
		}
		err := exec(ctx, c, lockColumns+` VALUES (?, ?, 0, ?, ?)`+strings.Repeat(`, (?, ?, 0, ?, ?)`, n-1)+s.dialect.lockAgain, args...)
		if err != nil {
			return err
		}
		users = users[n:]
	}
	return nil
}

const lockColumns = `INSERT INTO reset_locks (realm, user_id, claim_until, expires, written)`

// firstWritten returns a random number, so that a lock row never repeats a value
// of one that was there before it.
func firstWritten() int64 { return rand.Int64N(1 << 62) }

// unexpired keeps PostgreSQL from the index of expires where another column
// finds the rows, for the reason of inRealm. Other databases do not need that.
const unexpired = `expires + 0 > ?`

const onEntryConflict = ` ON CONFLICT (realm, user_id, id) DO UPDATE SET `

func never(error) bool { return false }

func noPooler(context.Context, Pool) error { return nil }

// Without hints, a planner finds a user's rows by itself.
func plainTable(table string) string  { return table }
func plainDelete(table string) string { return "DELETE FROM " + table }
