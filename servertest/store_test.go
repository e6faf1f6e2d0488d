package servertest

import (
	"context"
	"database/sql"
	"testing"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

func TestStore(t *testing.T) {
	onEachVersion(t, func(t *testing.T, s server) {
		db := s.open(t, 10)
		if s.kind != kindMySQL || isMariaDB(t, db) {
			resettest.TestStore(t, emptied(s, db, false))
			return
		}
		const digests = "performance_schema.events_statements_summary_by_digest"
		mustExec(t, db, "TRUNCATE "+digests) // it is full after some thousand statements
		resettest.TestStore(t, emptied(s, db, false))
		var all int
		var warned sql.NullString // MySQL warns of what it will drop
		err := db.QueryRowContext(t.Context(), "SELECT COUNT(*), GROUP_CONCAT(IF(sum_warnings > 0, digest_text, NULL)) FROM "+digests+
			" WHERE schema_name = DATABASE() AND digest_text LIKE '%reset_%'").Scan(&all, &warned)
		if err != nil || all == 0 || warned.Valid {
			t.Errorf("%d statements, %v, and warnings of %q", all, err, warned.String)
		}
	})
}

func TestStoreElsewhere(t *testing.T) {
	onEachVersion(t, func(t *testing.T, s server) { resettest.TestStoreElsewhere(t, emptied(s, s.open(t, 10), true)) })
}

// emptied removes all rows for every new store, which is faster than new tables.
func emptied(s server, db *bun.DB, elsewhere bool) func(*testing.T) reset.Store {
	return func(t *testing.T) reset.Store {
		for _, table := range []string{"reset_activations", "reset_mails", "reset_locks", "reset_history", "reset_realms"} {
			if _, err := db.ExecContext(t.Context(), "DELETE FROM "+table); err != nil {
				t.Fatal(err)
			}
		}
		store := s.storeOn(t, db, elsewhere)
		return &resettest.FaultStore{Store: store, After: func(ctx context.Context, method string, err error) error {
			// A cancelled call returns once the server has done what it will do.
			if method != "Find" && ctx.Err() != nil && t.Context().Err() == nil {
				awaitQuiet(t, s.kind, db, store.connections)
			}
			return err
		}}
	}
}
