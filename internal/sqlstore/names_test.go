package sqlstore

import (
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		dialect       *Dialect
		prefix        string
		query, wanted string
	}{
		{PostgreSQL, "", "SELECT id FROM reset_mails", "SELECT id FROM reset_mails"},
		{PostgreSQL, "reset_", "SELECT id FROM reset_mails", "SELECT id FROM reset_mails"},
		{PostgreSQL, "my_", "SELECT id FROM reset_mails", "SELECT id FROM my_mails"},
		{PostgreSQL, "auth.reset_", "SELECT id FROM reset_mails", "SELECT id FROM auth.reset_mails"},
		{PostgreSQL, "auth.my_", "SELECT a.id, reset_locks.written FROM reset_locks, reset_history", "SELECT a.id, auth.my_locks.written FROM auth.my_locks, auth.my_history"},
		{PostgreSQL, "auth.my_", "CREATE INDEX reset_mails_due ON reset_mails (due)", "CREATE INDEX my_mails_due ON auth.my_mails (due)"},
		{PostgreSQL, "auth.my_", "DROP INDEX reset_mails_due", "DROP INDEX auth.my_mails_due"},
		{PostgreSQL, "auth.my_", "ALTER TABLE reset_locks DROP CONSTRAINT reset_locks_pkey", "ALTER TABLE auth.my_locks DROP CONSTRAINT my_locks_pkey"},
		{MySQL, "auth.my_", "DELETE reset_mails FROM reset_mails FORCE INDEX (reset_mails_user)", "DELETE auth.my_mails FROM auth.my_mails FORCE INDEX (my_mails_user)"},
		{MySQL, "auth.my_", "ALTER TABLE reset_mails DROP INDEX reset_mails_due", "ALTER TABLE auth.my_mails DROP INDEX my_mails_due"},
		{SQLite, "my_", "ALTER TABLE reset_locks RENAME TO reset_locks_1", "ALTER TABLE my_locks RENAME TO my_locks_1"},
	} {
		n, err := tt.dialect.names(tt.prefix)
		if err != nil {
			t.Errorf("names(%q): %v", tt.prefix, err)
			continue
		}
		for range 2 { // the second time it is known
			if got := n.rewrite(tt.query); got != tt.wanted {
				t.Errorf("%s, %q: got %s\nwant %s", tt.dialect.name, tt.prefix, got, tt.wanted)
			}
		}
	}
	for _, prefix := range []string{"1reset_", "a.b.reset_", ".reset_", "auth.", "Reset_", "re set_", `reset"`, "a;b", strings.Repeat("x", 41)} {
		if _, err := PostgreSQL.names(prefix); err == nil {
			t.Errorf("names(%q) succeeded", prefix)
		}
	}
	if _, err := SQLite.names("auth.reset_"); err == nil {
		t.Error("SQLite took a schema")
	}
}
