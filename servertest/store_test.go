package servertest

import (
	"context"
	"testing"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

func TestStore(t *testing.T) {
	onEachAPI(t, func(t *testing.T, s server) { resettest.TestStore(t, emptied(s, s.open(t, 10), false)) })
}

func TestStoreElsewhere(t *testing.T) {
	onEachAPI(t, func(t *testing.T, s server) { resettest.TestStoreElsewhere(t, emptied(s, s.open(t, 10), true)) })
}

// emptied removes all rows for every new store, which is faster than new tables.
func emptied(s server, db *bun.DB, elsewhere bool) func(*testing.T) reset.Store {
	return func(t *testing.T) reset.Store {
		for _, table := range []string{"reset_activations", "reset_mails", "reset_locks", "reset_sent", "reset_realms"} {
			if _, err := db.ExecContext(t.Context(), "DELETE FROM "+table); err != nil {
				t.Fatal(err)
			}
		}
		store := s.storeOn(t, db, elsewhere)
		return &resettest.FaultStore{Store: store, After: func(ctx context.Context, method string, err error) error {
			// A cancelled call returns once the server has done what it will do.
			if method != "Find" && ctx.Err() != nil && t.Context().Err() == nil {
				awaitQuiet(t, s.name, db, store.connections)
			}
			return err
		}}
	}
}
