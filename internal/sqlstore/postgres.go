package sqlstore

import (
	"context"
	"database/sql"
)

// PostgreSQL is its dialect.
var PostgreSQL = &Dialect{
	name:         "postgres",
	product:      "PostgreSQL",
	identify:     `SELECT pg_backend_pid()`,
	numbered:     true,
	TxOptions:    &sql.TxOptions{Isolation: sql.LevelReadCommitted},
	begin:        begin,
	commit:       commitInTime,
	busy:         postgresBusy,
	lock:         lockByRow,
	lockAgain:    lockAgain,
	issueAtOnce:  issueAtOnce,
	forUpdate:    ` FOR UPDATE`,
	skipLocked:   ` FOR UPDATE SKIP LOCKED`,
	dueMails:     ` FROM reset_mails WHERE realm = ? AND due <= ? AND expires > ? ORDER BY class, due LIMIT ?`,
	inRealm:      `realm || '' = ?`,
	byUser:       plainTable,
	deleteByUser: plainDelete,
	byKey:        plainTable,
	deleteByKey:  plainDelete,
	maxRemoved:   maxKeys,
	addEntry:     onEntryConflict,
	settleOne:    settleOne,
	settleAll:    settleLocked,
	purge:        purgeUnlocked,
	finish:       finishServer,
	create:       createPostgres,
	setBaseURL:   insertRealm + ` ON CONFLICT (realm) DO UPDATE SET base_url = excluded.base_url`,
	beat:         insertRun + ` ON CONFLICT (realm) DO UPDATE SET ran = greatest(reset_realms.ran, excluded.ran), mailer_failed = greatest(reset_realms.mailer_failed, excluded.mailer_failed)`,
	selectNow:    `SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint`,
	selectBytes:  `SELECT ?::bytea`,
	probePool:    probePooler,
	probe:        func(context.Context, *Store, Conn) error { return nil },
}

// lockAgain keeps the row as long as what is issued under it, for issueAtOnce.
const lockAgain = ` ON CONFLICT (realm, user_id) DO UPDATE SET written = reset_locks.written + 1, expires = greatest(reset_locks.expires, excluded.expires)`

// postgresBusy takes a timeout that is set in the server for a lost race. That
// the caller has cancelled a statement has the same SQLSTATE as its timeout;
// Retry sees the difference in its context.
func postgresBusy(err error) bool {
	switch sqlState(err) {
	case "40001", "40P01", // serialization failure, deadlock
		"55P03", "57014", "25P03": // lock_timeout, statement_timeout, idle_in_transaction_session_timeout
		return true
	}
	return false
}

// advisoryLock is "reset" in ASCII.
const advisoryLock int64 = 0x7265736574

func createPostgres(ctx context.Context, d *Dialect, conn *Session, s Schema) error {
	begin := func(ctx context.Context) (*Tx, error) { return conn.BeginTx(ctx, d.TxOptions) }
	return InTx(ctx, d, begin, func(ctx context.Context, tx Conn) error {
		if err := exec(ctx, tx, `SELECT pg_advisory_xact_lock(?)`, advisoryLock); err != nil {
			return err
		}
		return s.create(ctx, tx, never)
	})
}
