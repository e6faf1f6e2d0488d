package servertest

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/gopassreset/reset"
	storebun "github.com/gopassreset/reset/store_bun"
)

// PostgreSQL takes a table that was empty when it was last analysed for a nearly
// empty one, however much is queued since. All the same it finds what a mail, an
// activation or a user has by its key. To see the plans takes a superuser.
func TestPlans(t *testing.T) {
	ctx := t.Context()
	db := postgresServer.open(t, 1)
	tables := map[string]string{
		"reset_activations": "(hash, request, user_id, expires) SELECT key, key, key, later",
		"reset_mails":       "(id, kind, user_id, due, expires, attempts) SELECT key, 'reset', key, later, later, 0",
		"reset_locks":       "(user_id, claim_until, expires) SELECT key, 0, later",
		"reset_history":     "(user_id, id, kind, expires) SELECT key, key, 'public', later",
	}
	for table, row := range tables {
		insert := "INSERT INTO " + table + " " + row + " FROM (SELECT sha256(i::text::bytea) AS key, 9000000000000 AS later FROM generate_series(1, ?) AS i) AS rows"
		mustExec(t, db, "ALTER TABLE "+table+" SET (autovacuum_enabled = off)")
		mustExec(t, db, insert, 1)
		mustExec(t, db, "DELETE FROM "+table)
		mustExec(t, db, "ANALYZE "+table)
		mustExec(t, db, insert, 5000)
	}

	db, plans := explained(t, db)
	here, elsewhere := newStore(t, db, storebun.Options{}), newStore(t, db, storebun.Options{UsersElsewhere: true})
	a, b, limits := activation(11, "u"), activation(12, "u"), reset.Limits{MaxRequests: 2, Join: true, MaxPerHour: 3, MaxPerDay: 12}
	note := &reset.Note{UserID: "u", Kind: reset.HistoryPublic, At: start, Refusal: "450"}
	refuse := func(context.Context) error { return reset.ErrNotChanged }
	change := func(context.Context) error { return nil }
	var mails []reset.Mail
	for i, step := range []func() error{
		func() error {
			return errors.Join(here.Enqueue(ctx, publicRequest(1)), here.Enqueue(ctx, publicRequest(2)), here.Enqueue(ctx, publicRequest(3)))
		},
		func() (err error) { mails, err = here.Lease(ctx, start, start.Add(time.Minute), 3); return err },
		func() error { _, err := here.Issue(ctx, start, a, limits, &mails[0]); return err },
		func() error { _, err := here.Issue(ctx, start, b, limits, mailFor(b)); return err },
		func() error { _, err := here.Issue(ctx, start, activation(14, "u"), limits, &mails[1]); return err }, // step by step, as there is a third
		func() error { return here.Settle(ctx, []reset.Settlement{{Mail: mails[0].ID, Lease: mails[0].Lease}}) },
		func() error {
			return here.Settle(ctx, []reset.Settlement{
				{Mail: mails[1].ID, Lease: mails[1].Lease, Retry: start, Note: note}, {Mail: mails[2].ID, Lease: mails[2].Lease, Retry: start, Held: true},
			})
		},
		func() error { _, err := here.Find(ctx, start, a.Hash); return err },
		func() error { _, err := here.History(ctx, start, "u", 9); return err },
		func() error {
			err := elsewhere.Redeem(ctx, start, a, notification(13, "u"), refuse)
			if errors.Is(err, reset.ErrNotChanged) {
				return nil
			}
			return errors.Join(errors.New("Redeem did not refuse"), err)
		},
		func() error { return here.Redeem(ctx, start, a, notification(13, "u"), change) },
		func() error { return here.Revoke(ctx, start, "u", start.Add(time.Hour)) },
		func() error { _, _, err := here.Purge(ctx, start.Add(2*week), 100); return err },
		func() error { return here.EraseHistory(ctx, "u") },
	} {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}

	// A node of a plan that reads a table, and one that finds rows by a key.
	reads := regexp.MustCompile(`(Seq|Index|Index Only|Bitmap Index) Scan .*on reset_(activations|mails|locks|history)`)
	finds := regexp.MustCompile(`Index Cond: .*\b(id|hash|user_id) (=|IS) `)
	seen := 0
	for _, plan := range plans() {
		if strings.Contains(plan, " ORDER BY class, due ") || strings.Contains(plan, " ORDER BY expires ") { // Lease and Purge search
			continue
		}
		for _, node := range strings.Split(plan, "->") {
			if reads.MatchString(node) {
				seen++
				if !finds.MatchString(node) {
					t.Errorf("%s\nin %s", node, plan)
				}
			}
		}
	}
	if seen < 30 {
		t.Errorf("saw %d scans", seen)
	}
}

// explained opens the database of db again, and returns a function that returns
// the plans of what has run there since.
func explained(t *testing.T, db *bun.DB) (again *bun.DB, plans func() []string) {
	config, err := connConfig(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["session_preload_libraries"] = "auto_explain"
	config.RuntimeParams["auto_explain.log_min_duration"] = "0"
	config.RuntimeParams["auto_explain.log_level"] = "notice"
	var mu sync.Mutex
	var seen []string
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, n.Message)
	}
	return pool(t, bun.NewDB(stdlib.OpenDB(*config), pgdialect.New()), 4), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}
