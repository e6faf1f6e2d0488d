package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopassreset/reset"
)

// MySQL is the dialect of MySQL and MariaDB.
//
// InnoDB locks what a statement reads: entries of the index that it goes
// through, then the rows of the table. Removing a row takes the row and its
// entry in every index. Two transactions that come from different sides lock
// each other out, and if one of them is a host's own, with a Revoke, only the
// host could run it again. Therefore:
//
//   - A hint leads statements about a user's rows through the index of users. A
//     planner prefers to scan a small table, and then waits for the rows of
//     other users.
//   - A transaction that removes rows of users whom it has not locked comes
//     through that index as well, in its order.
//
// SKIP LOCKED is not enough: MariaDB queues for a lock even under SKIP LOCKED,
// and can be chosen as a deadlock victim while it waits.
var MySQL = &Dialect{
	name:          "mysql",
	product:       "MySQL or MariaDB",
	identify:      `SELECT CONNECTION_ID()`,
	TxOptions:     &sql.TxOptions{Isolation: sql.LevelReadCommitted},
	readCommitted: `SET TRANSACTION ISOLATION LEVEL READ COMMITTED`,
	begin:         begin,
	commit:        commitInTime,
	busy:          mysqlBusy,
	lock:          lockByRow,
	lockAgain:     ` ON DUPLICATE KEY UPDATE written = written + 1`,
	forUpdate:     ` FOR UPDATE`,
	skipLocked:    ` FOR UPDATE SKIP LOCKED`,
	// Through another index it would lock every mail that is due, and hide them from other processes.
	dueMails:     ` FROM reset_mails FORCE INDEX (reset_mails_due) WHERE realm = ? AND due <= ? AND expires > ? ORDER BY class, due LIMIT ?`,
	inRealm:      `realm = ?`,
	byUser:       forceUserIndex,
	deleteByUser: func(table string) string { return "DELETE " + table + " FROM " + forceUserIndex(table) }, // the form that takes a hint
	// MariaDB reads a small table through any index that begins with the realm, and locks all of it.
	byKey:       forcePrimary,
	deleteByKey: func(table string) string { return "DELETE " + table + " FROM " + forcePrimary(table) },
	// For a list of keys a DELETE scans a small table, whatever the hint, and then
	// waits for rows of others, with its own locked. An UPDATE does not.
	maxRemoved:  1,
	addEntry:    ` ON DUPLICATE KEY UPDATE `,
	settleOne:   settleOneInnoDB,
	settleAll:   settleLocked,
	purge:       purgeInnoDB,
	finish:      finishServer,
	create:      createMySQL,
	setBaseURL:  insertRealm + ` ON DUPLICATE KEY UPDATE base_url = ?`,
	beat:        insertRun + ` ON DUPLICATE KEY UPDATE ran = greatest(ran, ?), mailer_failed = greatest(mailer_failed, ?)`,
	valuesTwice: true, // MySQL warns of VALUES(), and MariaDB has nothing else
	selectNow:   `SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000`,
	selectBytes: `SELECT ?`,
	probe:       probeMySQL,
	probePool:   noPooler,
}

// mysqlBusy also recognises a node of a cluster that refuses a COMMIT because
// another node has changed the same rows: Galera reports a deadlock, and group
// replication one of three errors, depending on how far the COMMIT got.
func mysqlBusy(err error) bool {
	switch mysqlNumber(err) {
	case 1213, 1205, 1020, // deadlock, lock wait timeout, record has changed
		3024, 1969, // statement timeout of MySQL, of MariaDB
		3101: // rolled back during COMMIT
		return true
	case 1180: // error during COMMIT
		return strings.Contains(err.Error(), "error 149 ") // deadlock
	}
	return false
}

// mysqlNumber knows go-sql-driver's *MySQLError, whose number is a field.
func mysqlNumber(err error) uint64 {
	v := reflect.Indirect(reflect.ValueOf(err))
	if v.Kind() != reflect.Struct {
		return 0
	}
	number := v.FieldByName("Number")
	if !number.IsValid() || !number.CanUint() {
		return 0
	}
	return number.Uint()
}

func forcePrimary(table string) string { return table + " FORCE INDEX (PRIMARY)" }

func forceUserIndex(table string) string { return table + " FORCE INDEX (" + table + "_user)" }

// settleOneInnoDB removes a user's mail through the index of users.
func settleOneInnoDB(ctx context.Context, s *Store, done reset.Settlement) error {
	switch {
	case !done.Retry.IsZero():
		return settleOne(ctx, s, done)
	case hasNote(done):
		return s.backend.Write(ctx, func(ctx context.Context, c Conn) error {
			user, err := s.userOf(ctx, c, done)
			if err != nil {
				return err
			}
			query, args := s.removing(done, user)
			noted, err := s.settle(ctx, c, done, query, args)
			if err != nil || !noted {
				return err
			}
			return s.note(ctx, c, done)
		})
	}
	user := text(done.UserID)
	if user == nil {
		err := s.backend.Read(ctx, func(ctx context.Context, c Conn) (err error) {
			user, err = s.userOf(ctx, c, done)
			return err
		})
		if err != nil {
			return err
		}
	}
	return s.backend.WriteRow(ctx, func(ctx context.Context, c Conn) error {
		query, args := s.removing(done, user)
		return exec(ctx, c, query, args...)
	})
}

// removing returns the statement that removes a mail, which is that of a user or
// of nobody.
func (s *Store) removing(done reset.Settlement, user any) (query string, args []any) {
	if user == nil {
		return s.settling(done)
	}
	return s.dialect.deleteByUser("reset_mails") + ` WHERE realm = ? AND user_id = ? AND id = ? AND lease = ?`,
		[]any{s.realm, user, done.Mail[:], done.Lease[:]}
}

// purgeInnoDB locks each row through the index of users before it removes any.
func purgeInnoDB(ctx context.Context, s *Store, c Conn, now time.Time, n int) (p purged, err error) {
	for _, t := range tables {
		passed := make(map[string]bool) // rows that others had locked
		for more := true; more && p.removed < n; {
			limit := n - p.removed + len(passed)
			rows, err := t.expired(ctx, c, now, limit, "")
			if err != nil {
				return purged{}, err
			}
			more = len(rows) == limit
			rows = slices.DeleteFunc(rows, func(r row) bool { return passed[r.id()] })
			if len(rows) > n-p.removed { // some that were passed over are gone
				rows, more = rows[:n-p.removed], true
			}
			free, err := s.lockRows(ctx, c, now, t, rows, passed)
			if err == nil {
				err = s.remove(ctx, c, t, free)
			}
			if err != nil {
				return purged{}, err
			}
			p.add(t, free)
		}
		if err := s.noteExpired(ctx, c, now, t, p.mails); err != nil {
			return purged{}, err
		}
	}
	return p, nil
}

// lockRows returns the rows that nobody else has locked or changed meanwhile,
// and adds the others to passed.
func (s *Store) lockRows(ctx context.Context, c Conn, now time.Time, t table, rows []row, passed map[string]bool) (free []row, err error) {
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(bytes.Compare(a.realm, b.realm), bytes.Compare(a.user, b.user), bytes.Compare(a.key, b.key))
	})
	for _, r := range rows {
		from, where, args := t.name, ` WHERE expires <= ? AND realm = ? AND `+t.key+` = ?`, []any{now.UnixMilli(), r.realm, r.key}
		switch {
		case t.name == historyTable:
			from, where, args = s.dialect.byKey(t.name), where+` AND user_id = ?`, append(args, r.user)
		case r.user != nil && t.name != locksTable:
			from, where, args = s.dialect.byUser(t.name), where+` AND user_id = ?`, append(args, r.user)
		}
		locked, err := exists(ctx, c, `SELECT `+t.key+` FROM `+from+where+s.dialect.skipLocked, args...)
		if err != nil {
			return nil, err
		}
		if locked {
			free = append(free, r)
		} else {
			passed[r.id()] = true
		}
	}
	return free, nil
}

// lockName is short enough for MySQL, whose named locks belong to the server.
func lockName(database string) string {
	sum := sha256.Sum256([]byte(database))
	return fmt.Sprintf("reset_schema.%x", sum[:16])
}

func createMySQL(ctx context.Context, d *Dialect, conn *Session, s Schema) error {
	var database sql.NullString
	if err := each(ctx, conn, func(r Row) error { return r.Scan(&database) }, `SELECT DATABASE()`); err != nil {
		return err
	}
	var got sql.NullInt64
	name := []byte(lockName(database.String))
	if err := each(ctx, conn, func(r Row) error { return r.Scan(&got) }, `SELECT GET_LOCK(?, 60)`, name); err != nil {
		return err
	}
	if got.Int64 != 1 {
		return errors.New("another process has been creating the schema for a minute")
	}
	defer func() { _ = exec(context.WithoutCancel(ctx), conn, `DO RELEASE_LOCK(?)`, name) }()
	applied := func(err error) bool {
		return anyError(err, func(err error) bool {
			switch mysqlNumber(err) {
			case 1060, 1062: // duplicate column; duplicate key, of the version
				return true
			}
			return false
		})
	}
	if err := checkOwn(ctx, conn.Conn); err != nil {
		return err
	}
	variables, err := mysqlVariables(ctx, conn)
	if err != nil {
		return err
	}
	create := func() error {
		return d.Retry(ctx, func() error { return s.create(ctx, conn, applied) })
	}
	if !groupWrites(variables) {
		return create()
	}
	if err := checkVariables(variables); err != nil {
		return err
	}
	return createInGroup(ctx, d, conn, s, create)
}

// createInGroup keeps processes on other members of a replication group away
// from create. A member that is sent DDL which it has run itself leaves the
// group, and its named locks are its own. They meet in a row: a COMMIT on one
// member succeeds.
func createInGroup(ctx context.Context, d *Dialect, conn *Session, s Schema, create func() error) error {
	if err := exec(ctx, conn, createVersion); err != nil { // may be repeated anywhere
		return err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(time.Minute); ; {
		if s.Check(ctx, conn) == nil {
			return nil
		}
		var claimed int64
		err := d.Retry(ctx, func() (err error) {
			if err = exec(ctx, conn, expireClaim); err == nil {
				claimed, err = execCount(ctx, conn, insertClaim)
			}
			return err
		})
		if err != nil {
			return err
		}
		if claimed == 1 {
			break
		}
		if time.Now().After(late) {
			return errors.New("another process has been creating the schema for a minute; if it is dead, run " + rename(conn.Conn, deleteClaim))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	defer func() {
		ctx := context.WithoutCancel(ctx)
		_ = d.Retry(ctx, func() error { return exec(ctx, conn, deleteClaim) })
	}()
	return create()
}

// A claim lasts an hour, in case the process dies.
const (
	insertClaim = `INSERT IGNORE INTO reset_schema (id, version) VALUES (2, UNIX_TIMESTAMP() DIV 60 + 60)`
	expireClaim = `DELETE FROM reset_schema WHERE id = 2 AND version < UNIX_TIMESTAMP() DIV 60`
	deleteClaim = `DELETE FROM reset_schema WHERE id = 2`
)

func mysqlVariables(ctx context.Context, c Conn) (map[string]string, error) {
	variables := make(map[string]string)
	err := each(ctx, c, func(r Row) error {
		var name, value string
		err := r.Scan(&name, &value)
		variables[strings.ToLower(name)] = value
		return err
	}, `SHOW SESSION VARIABLES WHERE variable_name IN ('autocommit', 'completion_type', 'sql_select_limit',
		'wsrep_on', 'wsrep_sync_wait',
		'group_replication_group_name', 'group_replication_single_primary_mode', 'group_replication_consistency')`)
	return variables, err
}

// groupWrites reports whether several members of a replication group take writes.
func groupWrites(v map[string]string) bool {
	return v["group_replication_group_name"] != "" && v["group_replication_single_primary_mode"] == "OFF"
}

func probeMySQL(ctx context.Context, s *Store, c Conn) error {
	variables, err := mysqlVariables(ctx, c)
	if err != nil {
		return err
	}
	if err := checkVariables(variables); err != nil {
		return err
	}
	var args []any
	for _, t := range []string{"reset_activations", "reset_mails", "reset_locks", "reset_history", "reset_realms"} {
		schema, table := s.names.table(t)
		args = append(args, schema, table)
	}
	is := `(table_schema = COALESCE(NULLIF(?, ''), DATABASE()) AND table_name = ?)`
	return each(ctx, c, func(r Row) error {
		var table, engine string
		if err := r.Scan(&table, &engine); err != nil {
			return err
		}
		return fmt.Errorf("the tables must use InnoDB, and %s uses %s", table, engine)
	}, `SELECT table_name, engine FROM information_schema.tables WHERE engine <> 'InnoDB' AND (`+is+strings.Repeat(` OR `+is, len(args)/2-1)+`)`, args...)
}

// checkOwn fails if a table of the host has the name of one of ours: CREATE TABLE
// IF NOT EXISTS would adopt it.
func checkOwn(ctx context.Context, c Conn) error {
	for _, t := range []struct{ table, columns string }{
		{"reset_activations", "hash, request, user_id, email, expires, claim"},
		{"reset_mails", "id, kind, user_id, email, name, locale, due, expires, attempts, lease"},
		{"reset_locks", "user_id, claim, claim_until, expires"},
		{"reset_history", "realm, user_id, id, kind, bound, outcome, expires"},
		{"reset_realms", "realm, ran, mailer_failed, base_url"},
		{"reset_schema", "id, version"},
	} {
		_, err := exists(ctx, c, `SELECT `+t.columns+` FROM `+t.table+` WHERE 1 = 0`)
		missing := anyError(err, func(err error) bool { return mysqlNumber(err) == 1146 })
		if err != nil && !missing {
			return fmt.Errorf("a table of this name is not of this package: %s: %w", rename(c, t.table), err)
		}
	}
	return nil
}

// checkVariables checks the settings of a connection, which a host may have set
// for all of them.
func checkVariables(v map[string]string) error {
	waits, _ := strconv.Atoi(v["wsrep_sync_wait"])
	switch {
	case v["autocommit"] != "ON":
		return errors.New("autocommit must be on")
	case v["completion_type"] != "NO_CHAIN":
		return errors.New("completion_type must be NO_CHAIN")
	case v["sql_select_limit"] != "18446744073709551615":
		return errors.New("sql_select_limit must not be set")
	// The next call may go to another node, which must see what the last one
	// has done: a Settle that misses the lease would leave the mail to be sent
	// again.
	case v["wsrep_on"] == "ON" && waits&7 != 7:
		return errors.New("on a Galera cluster wsrep_sync_wait must be 7 for every connection, as with ?wsrep_sync_wait=7 in a DSN of go-sql-driver")
	case groupWrites(v) && !slices.Contains([]string{"BEFORE", "AFTER", "BEFORE_AND_AFTER"}, v["group_replication_consistency"]):
		return errors.New("in a replication group of several primaries group_replication_consistency must be BEFORE, AFTER or BEFORE_AND_AFTER")
	}
	return nil
}
