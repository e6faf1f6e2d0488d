package servertest

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/figure"
	"github.com/gopassreset/reset/resettest"
	storebun "github.com/gopassreset/reset/store_bun"
)

// These tests reach PostgreSQL through a PgBouncer in transaction mode.
// .ci/pgbouncer.sh starts one and prints its address:
//
//	RESET_TEST_PGBOUNCER=postgres://postgres@127.0.0.1:6543/test

const pgBouncerEnv = "RESET_TEST_PGBOUNCER"

// pgBouncer is the PostgreSQL behind it, to a pgx in one of its modes.
func pgBouncer(mode pgx.QueryExecMode) server {
	return server{string(kindPgBouncer), kindPgBouncer, pgBouncerEnv, func(t *testing.T, address string, conns int) *bun.DB {
		t.Helper()
		config, err := pgx.ParseConfig(address)
		if err != nil {
			t.Fatal(err)
		}
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
		admin := stdlib.OpenDB(*config)
		// PgBouncer takes no search_path: a database, not a schema.
		name := freshName()
		makeAndDrop(t, admin, "CREATE DATABASE "+name, "DROP DATABASE "+name+" WITH (FORCE)")
		config.Database = name
		config.DefaultQueryExecMode = mode
		config.RuntimeParams["application_name"] = name
		return pool(t, bun.NewDB(stdlib.OpenDB(*config), pgdialect.New()), conns)
	}, apiBun}
}

// onPgBouncer runs f in each mode that works.
func onPgBouncer(t *testing.T, f func(t *testing.T, s server)) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		for _, api := range []api{apiBun, apiPgx} {
			s := pgBouncer(mode)
			s.api = api
			t.Run(strings.TrimSuffix(mode.String()+", "+string(api), ", "), func(t *testing.T) { f(t, s) })
		}
	}
}

func TestPgBouncerStore(t *testing.T) {
	onPgBouncer(t, func(t *testing.T, s server) {
		resettest.TestStore(t, emptied(s, s.open(t, 10), false))
	})
}

func TestPgBouncerStoreElsewhere(t *testing.T) {
	onPgBouncer(t, func(t *testing.T, s server) {
		resettest.TestStoreElsewhere(t, emptied(s, s.open(t, 10), true))
	})
}

// The pool has more connections than PgBouncer has to the server.
func TestPgBouncerRaces(t *testing.T) {
	onPgBouncer(t, func(t *testing.T, s server) {
		raceIssues(t, s, s.open(t, raceConns))
		raceRedeems(t, s, s.open(t, raceConns), false)
		raceRedeems(t, s, s.open(t, raceConns), true)
	})
}

// Calls through a pooler that the driver is set up for do not fail.
func TestPgBouncerCalls(t *testing.T) {
	const calls = 500
	onPgBouncer(t, func(t *testing.T, s server) {
		db := s.open(t, 20)
		failed, _ := callThrough(t, newStore(t, db, storebun.Options{}), calls, "")
		if failed > 0 {
			t.Errorf("%d calls failed", failed)
		}
		figure.Report(t, "calls through PgBouncer that fail", failed, 2*calls)
	})
}

// callThrough makes calls at once, twice as many as n, and counts those that
// fail and those of them whose error has a hint.
func callThrough(t *testing.T, store *storebun.Store, n int, hint string) (failed, hints int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			a := activation(i, fmt.Sprint("user ", i))
			_, err := store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, mailFor(a))
			if err == nil {
				_, err = store.Find(t.Context(), start, a.Hash)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed++
			}
			if err != nil && strings.Contains(err.Error(), hint) {
				hints++
			}
		})
	}
	wg.Wait()
	return failed, hints
}

// New refuses the modes that fail, and so do calls where New could not find out.
func TestPgBouncerRefuses(t *testing.T) {
	const calls, hint = 200, "default_query_exec_mode=exec"
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec} {
		t.Run(mode.String(), func(t *testing.T) {
			db := pgBouncer(mode).open(t, 20)
			if _, err := storebun.New(t.Context(), db); err == nil || !strings.Contains(err.Error(), hint) {
				t.Errorf("New: got error %v, want one that says %q", err, hint)
			}
			db = pgBouncer(mode).open(t, 1)
			store := newStore(t, db, storebun.Options{})
			db.SetMaxOpenConns(20)
			failures, hints := callThrough(t, store, calls, hint)
			if failures == 0 || hints == 0 {
				t.Errorf("of %d calls %d failed, %d with a hint", calls, failures, hints)
			}
			t.Logf("of %d calls %d failed, %d with a hint", calls, failures, hints)
		})
	}
}
