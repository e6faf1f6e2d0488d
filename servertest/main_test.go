// Package servertest runs the stores on real servers. It reads where they are
// from the environment:
//
//	RESET_TEST_POSTGRES=postgres://postgres@127.0.0.1:5432/test
//	RESET_TEST_MYSQL='root@tcp(127.0.0.1:3306)/test'
//	RESET_TEST_MYSQL9='root@tcp(127.0.0.1:3410)/test'
//	RESET_TEST_POSTGRES18=postgres://postgres@127.0.0.1:5418/test
//	RESET_TEST_MARIADB11='root@tcp(127.0.0.1:3418)/test'
//	RESET_TEST_GALERA='root@tcp(127.0.0.1:3407)/test,root@tcp(127.0.0.1:3408)/test'
//	RESET_TEST_GALERA_CONTROL=…
//	RESET_TEST_GROUP='test:secret@tcp(127.0.0.1:3411)/test,…'
//	RESET_TEST_GROUP_CONTROL=…
//	RESET_TEST_PGBOUNCER=postgres://postgres@127.0.0.1:6543/test
//	RESET_TEST_POSTGRES_BIN=/usr/lib/postgresql/15/bin
//
// .ci/mysql.sh, .ci/newest.sh, .ci/galera.sh and .ci/pgbouncer.sh start servers
// and print where they are. The last variable has the programs of which tests of failover start
// servers. Every test makes a schema or database of its own and drops it at the
// end; the accounts must be allowed to do that.
package servertest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/mysqldialect"
	"github.com/uptrace/bun/dialect/pgdialect"

	storebun "github.com/gopassreset/reset/store_bun"
)

const howTo = `needs servers. To run it on all:

	RESET_TEST_POSTGRES=postgres://postgres@127.0.0.1:5432/test \
	RESET_TEST_MYSQL='root@tcp(127.0.0.1:3306)/test' \
	RESET_TEST_POSTGRES_BIN=/usr/lib/postgresql/15/bin \
	env $(.ci/mysql.sh) $(.ci/newest.sh) $(.ci/galera.sh) $(.ci/pgbouncer.sh) go test ./servertest`

// TestMain names the servers on which nothing is tested: go test shows the skips
// of a package that passes only with -v.
func TestMain(m *testing.M) {
	var missing []string
	all := append(slices.Concat(servers, newest), galera.server, group.server, pgBouncer(pgx.QueryExecModeExec), postgresPrograms)
	for _, s := range all {
		if os.Getenv(s.env) == "" {
			missing = append(missing, s.name)
		}
	}
	if len(missing) > 0 && os.Getenv("CI") != "true" {
		fmt.Println("testing: warning: no tests to run") // go test adds it to its summary
		fmt.Printf("on %s: servertest %s\n", strings.Join(missing, ", "), howTo)
		if len(missing) == len(all) {
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// A server is a database; the environment variable env has its address.
type server struct {
	name string
	kind kind
	env  string
	// fresh opens a new, empty database with at most conns connections.
	fresh func(t *testing.T, address string, conns int) *bun.DB
	api   api
}

// A kind is what servers have in common that take the same SQL.
type kind string

const (
	kindSQLite    kind = "SQLite"
	kindPostgres  kind = "PostgreSQL"
	kindMySQL     kind = "MySQL" // or MariaDB
	kindPgBouncer kind = "PgBouncer"
)

var (
	postgresServer = server{"PostgreSQL", kindPostgres, "RESET_TEST_POSTGRES", freshPostgres, apiBun}
	mysqlServer    = server{"MySQL", kindMySQL, "RESET_TEST_MYSQL", freshMySQL, apiBun}
	mysql9Server   = server{"MySQL 9", kindMySQL, "RESET_TEST_MYSQL9", freshMySQL, apiBun}
	servers        = []server{postgresServer, mysqlServer, mysql9Server}
	// newest are newer versions of the servers. The contract, races and crashes
	// are tested on them.
	newest = []server{
		{"PostgreSQL 18", kindPostgres, "RESET_TEST_POSTGRES18", freshPostgres, apiBun},
		{"MariaDB 11", kindMySQL, "RESET_TEST_MARIADB11", freshMySQL, apiBun},
	}
)

// onEach runs f on each server.
func onEach(t *testing.T, f func(t *testing.T, s server)) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			s.address(t)
			f(t, s)
		})
	}
}

func (s server) address(t testing.TB) string {
	t.Helper()
	address := os.Getenv(s.env)
	switch {
	case address != "":
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is not set", s.env)
	default:
		t.Skipf("%s is not set: %s", s.env, howTo)
	}
	return address
}

// open returns a database with empty tables of the store and nothing else.
func (s server) open(t *testing.T, conns int) *bun.DB {
	t.Helper()
	db := s.empty(t, conns)
	createSchema(t, db)
	return db
}

func createSchema(t *testing.T, db *bun.DB) {
	t.Helper()
	if err := storebun.CreateSchema(t.Context(), db); err != nil {
		t.Fatal(err)
	}
}

// empty returns a database without tables.
func (s server) empty(t *testing.T, conns int) *bun.DB {
	t.Helper()
	return s.fresh(t, s.address(t), conns)
}

// store returns a store on a database of its own.
func (s server) store(t *testing.T, conns int, o storebun.Options) *storebun.Store {
	t.Helper()
	return newStore(t, s.open(t, conns), o)
}

func newStore(t *testing.T, db *bun.DB, o storebun.Options) *storebun.Store {
	t.Helper()
	store, err := storebun.NewWith(t.Context(), db, o)
	if err != nil {
		t.Fatal(err)
	}
	store.KeepHistory(week)
	return store
}

const week = 7 * 24 * time.Hour

func freshName() string { return "reset_test_" + strings.ToLower(rand.Text()) }

// freshPostgres makes a schema, which costs less than a database.
func freshPostgres(t *testing.T, address string, conns int) *bun.DB {
	t.Helper()
	config, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	name := freshName()
	admin := stdlib.OpenDB(*config)
	makeAndDrop(t, admin, "CREATE SCHEMA "+name, "DROP SCHEMA "+name+" CASCADE")
	config.RuntimeParams["search_path"] = name
	config.RuntimeParams["application_name"] = name // distinguishes its connections from those of others
	return pool(t, bun.NewDB(stdlib.OpenDB(*config), pgdialect.New()), conns)
}

func freshMySQL(t *testing.T, address string, conns int) *bun.DB {
	t.Helper()
	config, err := mysql.ParseDSN(address)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := sql.Open("mysql", config.FormatDSN())
	if err != nil {
		t.Fatal(err)
	}
	name := freshName()
	makeAndDrop(t, admin, "CREATE DATABASE "+name, "DROP DATABASE "+name)
	config.DBName = name
	return openMySQL(t, config, conns)
}

func openMySQL(t *testing.T, config *mysql.Config, conns int) *bun.DB {
	t.Helper()
	connector, err := mysql.NewConnector(config)
	if err != nil {
		t.Fatal(err)
	}
	return pool(t, bun.NewDB(sql.OpenDB(connector), mysqldialect.New()), conns)
}

func makeAndDrop(t *testing.T, admin *sql.DB, create, drop string) {
	t.Helper()
	if _, err := admin.ExecContext(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer admin.Close()
		if _, err := admin.ExecContext(context.WithoutCancel(t.Context()), drop); err != nil {
			t.Error(err)
		}
	})
}

func pool(t *testing.T, db *bun.DB, conns int) *bun.DB {
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	t.Cleanup(func() { db.Close() })
	return db
}
