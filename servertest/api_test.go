package servertest

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/sqlstore"
	storebun "github.com/gopassreset/reset/store_bun"
	storepgx "github.com/gopassreset/reset/store_pgx"
	storesql "github.com/gopassreset/reset/store_sql"
)

// An api is how a host reaches its database, and so which store it has.
type api string

const (
	apiBun api = "" // or storesqlite
	apiSQL api = "database/sql"
	apiPgx api = "pgx"
)

// onEachAPI runs f on each server through each api.
func onEachAPI(t *testing.T, f func(t *testing.T, s server)) {
	eachAPI(t, servers, f)
}

// onEachVersion is the same with the newest versions of the servers.
func onEachVersion(t *testing.T, f func(t *testing.T, s server)) {
	eachAPI(t, slices.Concat(servers, newest), f)
}

func eachAPI(t *testing.T, servers []server, f func(t *testing.T, s server)) {
	for _, s := range servers {
		for _, api := range []api{apiBun, apiSQL, apiPgx} {
			if api == apiPgx && s.kind != kindPostgres {
				continue
			}
			s.api = api
			t.Run(strings.TrimSuffix(s.name+", "+string(api), ", "), func(t *testing.T) {
				s.address(t)
				f(t, s)
			})
		}
	}
}

// onAllAPIs is the same with SQLite, side by side.
func onAllAPIs(t *testing.T, f func(t *testing.T, s server)) {
	allAPIs(t, onEachAPI, f)
}

// onAllVersions is the same with the newest versions of the servers.
func onAllVersions(t *testing.T, f func(t *testing.T, s server)) {
	allAPIs(t, onEachVersion, f)
}

func allAPIs(t *testing.T, onEach func(*testing.T, func(*testing.T, server)), f func(t *testing.T, s server)) {
	parallel := func(t *testing.T, s server) {
		t.Parallel()
		f(t, s)
	}
	t.Run(sqliteFile.name, func(t *testing.T) { parallel(t, sqliteFile) })
	t.Run(sqliteFile.name+", database/sql", func(t *testing.T) { parallel(t, server{kind: kindSQLite, api: apiSQL}) })
	onEach(t, parallel)
}

// A wholeStore has all the promises: TestStore skips those of an interface that
// a store hides.
type wholeStore interface {
	reset.Store
	reset.RealmStore
	reset.ClockStore
	reset.StatsStore
	reset.HistoryStore
}

// A connected is a store with its own pool, or that of db.
type connected struct {
	wholeStore
	db   *bun.DB
	pool *pgxpool.Pool // nil: db
}

// connect opens the store of an api beside db, which has its tables.
func connect(ctx context.Context, a api, db *bun.DB, elsewhere bool) (c *connected, err error) {
	c = &connected{db: db}
	switch a {
	case apiSQL:
		d := map[dialect.Name]storesql.Dialect{
			dialect.SQLite: storesql.SQLite, dialect.PG: storesql.PostgreSQL, dialect.MySQL: storesql.MySQL,
		}[db.Dialect().Name()]
		if err := storesql.CreateSchema(ctx, db.DB, d); err != nil {
			return nil, err
		}
		c.wholeStore, err = storesql.NewWith(ctx, db.DB, d, storesql.Options{UsersElsewhere: elsewhere})
	case apiPgx:
		if c.pool, err = newPool(ctx, db); err != nil {
			return nil, err
		}
		if err = storepgx.CreateSchema(ctx, c.pool); err == nil {
			c.wholeStore, err = storepgx.NewWith(ctx, c.pool, storepgx.Options{UsersElsewhere: elsewhere})
		}
	default:
		if err := storebun.CreateSchema(ctx, db); err != nil {
			return nil, err
		}
		c.wholeStore, err = storebun.NewWith(ctx, db, storebun.Options{UsersElsewhere: elsewhere})
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// newPool returns a pool like db's.
func newPool(ctx context.Context, db *bun.DB) (*pgxpool.Pool, error) {
	like, err := connConfig(ctx, db)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(like.ConnString())
	if err != nil {
		return nil, err
	}
	config.ConnConfig = like
	config.MaxConns = int32(db.Stats().MaxOpenConnections)
	return pgxpool.NewWithConfig(ctx, config)
}

// connConfig returns the configuration of a PostgreSQL database's connections.
func connConfig(ctx context.Context, db *bun.DB) (config *pgx.ConnConfig, err error) {
	conn, err := db.DB.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	err = conn.Raw(func(c any) error {
		config = c.(*stdlib.Conn).Conn().Config()
		return nil
	})
	return config, err
}

func (c *connected) close() {
	if c.pool != nil {
		c.pool.Close()
	}
}

// connections returns how many there are, db's included.
func (c *connected) connections() int {
	n := c.db.Stats().OpenConnections
	if c.pool != nil {
		n += int(c.pool.Stat().TotalConns())
	}
	return n
}

// dropIdle drops the connections that nobody uses.
func (c *connected) dropIdle() {
	if c.pool != nil {
		c.pool.Reset()
	}
	c.db.SetMaxIdleConns(0)
	c.db.SetMaxIdleConns(hostConns)
}

// storeOn returns the store of the server's api on a database.
func (s server) storeOn(t *testing.T, db *bun.DB, elsewhere bool) *connected {
	t.Helper()
	c, err := connect(t.Context(), s.api, db, elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// execIn makes a statement in the transaction of ctx, whichever store began it,
// or on db, and returns how many rows it has changed.
func execIn(ctx context.Context, db bun.IDB, query string, args ...any) (int64, error) {
	if tx, ok := storepgx.Tx(ctx); ok {
		tag, err := tx.Exec(ctx, sqlstore.Numbered(query), args...)
		return tag.RowsAffected(), err
	}
	var result sql.Result
	var err error
	if tx, ok := storebun.Tx(ctx); ok {
		result, err = tx.ExecContext(ctx, query, args...)
	} else if tx, ok := storesql.Tx(ctx); ok {
		if db.Dialect().Name() == dialect.PG {
			query = sqlstore.Numbered(query)
		}
		result, err = tx.ExecContext(ctx, query, args...)
	} else {
		result, err = db.ExecContext(ctx, query, args...)
	}
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// One database may serve stores of all packages at once.
func TestTogether(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := s.open(t, 10)
		createUsers(t, db)
		var stores []*connected
		for _, api := range []api{apiBun, apiSQL, apiPgx} {
			if api != apiPgx || s.kind == kindPostgres {
				s.api = api
				stores = append(stores, s.storeOn(t, db, false))
			}
		}
		raceOn(t, db, stores)
		for i, issuer := range stores {
			for j, redeemer := range stores {
				n := 5000 + 10*i + j
				name := fmt.Sprint("together ", n)
				createUser(t, db, name)
				a := activation(n, name)
				if _, err := issuer.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 1}, mailFor(a)); err != nil {
					t.Fatal(err)
				}
				if got, err := redeemer.Find(t.Context(), start, a.Hash); err != nil || got != a {
					t.Errorf("Find: got %+v, %v, want %+v", got, err, a)
				}
				err := redeemer.Redeem(t.Context(), start, a, notification(n, name), func(ctx context.Context) error {
					return setPassword(ctx, db, name, "new")
				})
				if got := password(t, db, name); err != nil || got != "new" {
					t.Errorf("Redeem: %v, and the password is %q", err, got)
				}
			}
		}
	})
}
