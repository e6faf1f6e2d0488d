package sqlstore

import (
	"database/sql"
	"fmt"
	"reflect"
	"strings"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
)

// A Dialect is what the databases do not have in common.
type Dialect struct {
	name       string
	onConflict string // what follows the INSERT of a lock row to write one that exists
	forUpdate  string
	skipLocked string
	// dueMails follows the columns in a SELECT of the first n mails that are
	// due at now and have not expired, with the arguments now, now and n. Of
	// those that have expired, of which there are many after an outage, it
	// reads no more than the index.
	dueMails string
	isBusy   func(error) bool // of one error, not of those that it wraps
	innoDB   bool             // see innodb.go
	// maxKeys is how many primary keys a statement that writes may list. MySQL
	// scans small tables for several and then waits for rows of others, with
	// its own locked.
	maxKeys int

	// TxOptions are for BeginTx. At READ COMMITTED a transaction that has
	// waited for a lock row sees what its predecessor has done, and MySQL locks
	// no gaps between rows, which would hold up strangers. It is said here so
	// that the default of a server does not matter.
	TxOptions *sql.TxOptions
}

var (
	sqlite = &Dialect{
		name:       "sqlite",
		onConflict: `ON CONFLICT (user_id) DO UPDATE SET claim_until = reset_locks.claim_until`,
		// By itself SQLite looks up the row before it looks at the index's second column.
		dueMails: ` FROM reset_mails WHERE id IN (SELECT id FROM reset_mails WHERE due <= ? AND expires > ? ORDER BY due LIMIT ?) ORDER BY due`,
		isBusy:   sqliteBusy,
		maxKeys:  1000,
	}
	postgres = &Dialect{
		name:       "postgres",
		onConflict: `ON CONFLICT (user_id) DO UPDATE SET claim_until = reset_locks.claim_until`,
		forUpdate:  ` FOR UPDATE`,
		skipLocked: ` FOR UPDATE SKIP LOCKED`,
		dueMails:   ` FROM reset_mails WHERE due <= ? AND expires > ? ORDER BY due LIMIT ?`,
		isBusy:     postgresBusy,
		maxKeys:    1000,
		TxOptions:  &sql.TxOptions{Isolation: sql.LevelReadCommitted},
	}
	mysql = &Dialect{
		name:       "mysql",
		onConflict: `ON DUPLICATE KEY UPDATE claim_until = claim_until`,
		forUpdate:  ` FOR UPDATE`,
		skipLocked: ` FOR UPDATE SKIP LOCKED`,
		// Through another index it would lock every mail that is due, and hide them from other processes.
		dueMails:  ` FROM reset_mails FORCE INDEX (reset_mails_due) WHERE due <= ? AND expires > ? ORDER BY due LIMIT ?`,
		isBusy:    mysqlBusy,
		maxKeys:   1,
		innoDB:    true,
		TxOptions: &sql.TxOptions{Isolation: sql.LevelReadCommitted},
	}
)

// DialectOf returns the dialect of a database.
func DialectOf(db *bun.DB) (*Dialect, error) { return dialectNamed(db.Dialect().Name()) }

func dialectNamed(name dialect.Name) (*Dialect, error) {
	switch name {
	case dialect.SQLite:
		return sqlite, nil
	case dialect.PG:
		return postgres, nil
	case dialect.MySQL:
		return mysql, nil
	}
	return nil, fmt.Errorf("%v is neither SQLite nor PostgreSQL nor MySQL", name)
}

// IsSQLite reports whether the database has one writer at a time.
func (d *Dialect) IsSQLite() bool { return d == sqlite }

// Busy reports whether err says that a transaction has lost a race and is
// certainly undone.
func (d *Dialect) Busy(err error) bool { return anyError(err, d.isBusy) }

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

// sqliteBusy goes by SQLite's own words for SQLITE_BUSY and its relatives,
// which are the same with every driver. An interrupt is what modernc's driver
// may deliver a moment too late, to the next user of a connection.
func sqliteBusy(err error) bool {
	s := err.Error()
	return strings.Contains(s, "database is locked") || strings.HasPrefix(s, "interrupted")
}

// postgresBusy knows pgx, lib/pq and bun's pgdriver.
func postgresBusy(err error) bool {
	state := ""
	switch e := err.(type) {
	case interface{ SQLState() string }:
		state = e.SQLState()
	case interface{ Field(byte) string }:
		state = e.Field('C')
	}
	return state == "40001" || state == "40P01" // serialization failure, deadlock
}

// mysqlBusy knows go-sql-driver's *MySQLError, whose number is a field.
func mysqlBusy(err error) bool {
	v := reflect.Indirect(reflect.ValueOf(err))
	if v.Kind() != reflect.Struct {
		return false
	}
	number := v.FieldByName("Number")
	if !number.IsValid() || !number.CanUint() {
		return false
	}
	switch number.Uint() {
	case 1213, 1205, 1020: // deadlock, lock wait timeout, record has changed
		return true
	}
	return false
}
