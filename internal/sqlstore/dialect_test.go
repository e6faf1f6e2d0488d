package sqlstore

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	_ "github.com/gopassreset/reset/internal/bubble"
)

// The errors of drivers, as Dialect knows them.
type (
	pgxError   struct{ state string }
	pgError    struct{ state string } // of lib/pq and of bun's driver
	mysqlError struct {
		Number uint16
		text   string
	}
)

func (e pgxError) Error() string      { return "pgx " + e.state }
func (e pgxError) SQLState() string   { return e.state }
func (e pgError) Error() string       { return "pg " + e.state }
func (e pgError) Field(k byte) string { return map[byte]string{'C': e.state}[k] }
func (e *mysqlError) Error() string   { return fmt.Sprint("mysql ", e.Number, e.text) }

func TestBusy(t *testing.T) {
	for _, tt := range []struct {
		dialect *Dialect
		err     error
		want    bool
	}{
		{PostgreSQL, pgxError{"40001"}, true}, // serialization failure
		{PostgreSQL, pgxError{"40P01"}, true}, // deadlock
		{PostgreSQL, pgError{"40001"}, true},
		{PostgreSQL, pgxError{"55P03"}, true}, // lock_timeout
		{PostgreSQL, pgxError{"57014"}, true}, // statement_timeout
		{PostgreSQL, pgxError{"25P03"}, true}, // idle_in_transaction_session_timeout
		{PostgreSQL, pgxError{"23505"}, false},
		{PostgreSQL, errors.New("40001"), false},
		{MySQL, &mysqlError{Number: 1213}, true}, // deadlock
		{MySQL, &mysqlError{Number: 1205}, true}, // lock wait timeout
		{MySQL, &mysqlError{Number: 1020}, true}, // record has changed
		{MySQL, &mysqlError{Number: 3024}, true}, // statement timeout of MySQL
		{MySQL, &mysqlError{Number: 1969}, true}, // of MariaDB
		{MySQL, &mysqlError{Number: 3101}, true}, // another member of a replication group was first
		{MySQL, &mysqlError{1180, ": Got error 149 - 'Lock deadlock; Retry transaction' during COMMIT"}, true},
		{MySQL, &mysqlError{1180, ": Got error 28 - 'No space left on device' during COMMIT"}, false},
		{MySQL, &mysqlError{Number: 1062}, false},
		{MySQL, errors.New("1213"), false},
		{SQLite, errors.New("database is locked (5) (SQLITE_BUSY)"), true},
		{SQLite, errors.New("database is locked (517)"), true},
		{SQLite, errors.New("interrupted (9)"), true}, // a moment too late, for another's context
		{SQLite, errors.New("disk is full"), false},
		{SQLite, nil, false},
	} {
		wrapped := tt.err
		if tt.err != nil {
			wrapped = fmt.Errorf("commit: %w", errors.Join(errors.New("other"), tt.err))
		}
		for _, err := range []error{tt.err, wrapped} {
			if got := tt.dialect.Busy(err); got != tt.want {
				t.Errorf("%s: Busy(%v) = %v", tt.dialect.name, err, got)
			}
		}
	}
}

func TestCheckVariables(t *testing.T) {
	sound := map[string]string{"autocommit": "ON", "completion_type": "NO_CHAIN", "sql_select_limit": "18446744073709551615"}
	galera := map[string]string{"wsrep_on": "ON", "wsrep_sync_wait": "7"}
	group := map[string]string{"group_replication_group_name": "g", "group_replication_single_primary_mode": "OFF", "group_replication_consistency": "BEFORE"}
	for _, tt := range []struct {
		setUp           map[string]string
		variable, value string
		want            string
	}{
		{nil, "", "", ""},
		{nil, "autocommit", "OFF", "autocommit"},
		{nil, "completion_type", "CHAIN", "completion_type"},
		{nil, "sql_select_limit", "1000", "sql_select_limit"},
		{galera, "", "", ""},
		{galera, "wsrep_sync_wait", "15", ""},
		{galera, "wsrep_sync_wait", "0", "wsrep_sync_wait"},
		{galera, "wsrep_sync_wait", "1", "wsrep_sync_wait"},
		{group, "", "", ""},
		{group, "group_replication_consistency", "AFTER", ""},
		{group, "group_replication_consistency", "EVENTUAL", "group_replication_consistency"},
	} {
		variables := maps.Clone(sound)
		maps.Copy(variables, tt.setUp)
		variables[tt.variable] = tt.value
		err := checkVariables(variables)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s = %s: got error %v, want one about %q", tt.variable, tt.value, err, tt.want)
		}
	}
}

// A lost race is run again for 5 s, and other errors are not.
func TestRetryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy, calls := pgxError{"40001"}, 0
		began := time.Now()
		err := PostgreSQL.Retry(t.Context(), func() error { calls++; return busy })
		if took := time.Since(began); !errors.Is(err, busy) || !errors.Is(err, reset.ErrBusy) || calls < 100 || took < 5*time.Second || took > 6*time.Second {
			t.Errorf("Retry returned %v, a reset.ErrBusy: %v, after %d calls and %v", err, errors.Is(err, reset.ErrBusy), calls, took)
		}
		calls = 0
		failure := errors.New("failure")
		if err := PostgreSQL.Retry(t.Context(), func() error { calls++; return failure }); err != failure || calls != 1 {
			t.Errorf("Retry returned %v after %d calls", err, calls)
		}
	})
}
