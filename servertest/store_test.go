package servertest

import (
	"context"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
	storebun "github.com/gopassreset/reset/store_bun"
)

func TestStore(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		resettest.TestStore(t, emptied(s, s.open(t, 10), storebun.Options{}))
	})
}

func TestStoreElsewhere(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		resettest.TestStoreElsewhere(t, emptied(s, s.open(t, 10), storebun.Options{UsersElsewhere: true}))
	})
}

// emptied removes all rows for every new store: that takes a server less time
// than new tables.
func emptied(s server, db *bun.DB, o storebun.Options) func(*testing.T) reset.Store {
	return func(t *testing.T) reset.Store {
		for _, table := range []string{"reset_activations", "reset_mails", "reset_locks"} {
			if _, err := db.ExecContext(t.Context(), "DELETE FROM "+table); err != nil {
				t.Fatal(err)
			}
		}
		return quiet{newStore(t, db, o), func(ctx context.Context) {
			if ctx.Err() != nil && t.Context().Err() == nil {
				awaitQuiet(t, s.name, db)
			}
		}}
	}
}

// A quiet store returns from a cancelled call when the server has done what it
// will do.
type quiet struct {
	reset.Store
	await func(ctx context.Context)
}

func (q quiet) Enqueue(ctx context.Context, m reset.Mail) error {
	defer q.await(ctx)
	return q.Store.Enqueue(ctx, m)
}

func (q quiet) Issue(ctx context.Context, now time.Time, a reset.Activation, max int, m *reset.Mail) error {
	defer q.await(ctx)
	return q.Store.Issue(ctx, now, a, max, m)
}

func (q quiet) Redeem(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
	defer q.await(ctx)
	return q.Store.Redeem(ctx, now, a, notification, apply)
}

func (q quiet) Revoke(ctx context.Context, userID string) error {
	defer q.await(ctx)
	return q.Store.Revoke(ctx, userID)
}

func (q quiet) Lease(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
	defer q.await(ctx)
	return q.Store.Lease(ctx, now, until, n)
}

func (q quiet) Settle(ctx context.Context, done []reset.Settlement) error {
	defer q.await(ctx)
	return q.Store.Settle(ctx, done)
}

func (q quiet) Purge(ctx context.Context, now time.Time, n int) (int, error) {
	defer q.await(ctx)
	return q.Store.Purge(ctx, now, n)
}
