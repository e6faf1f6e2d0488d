package hosttest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/uptrace/bun/dialect/mysqldialect"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"github.com/uptrace/bun/schema"

	storesql "github.com/gopassreset/reset/store_sql"
)

// A Database is empty at first and gone when its test is over.
type Database struct {
	Dialect string // SQLite, Postgres or MySQL
	Driver  string // for sql.Open
	DSN     string
	File    string // of SQLite
	*sql.DB
}

// ForStore returns the dialect for package storesql.
func (d Database) ForStore() storesql.Dialect {
	switch d.Dialect {
	case Postgres:
		return storesql.PostgreSQL
	case MySQL:
		return storesql.MySQL
	}
	return storesql.SQLite
}

// Bun returns the dialect for bun.
func (d Database) Bun() schema.Dialect {
	switch d.Dialect {
	case Postgres:
		return pgdialect.New()
	case MySQL:
		return mysqldialect.New()
	}
	return sqlitedialect.New()
}

const (
	SQLite   = "sqlite"
	Postgres = "postgres"
	MySQL    = "mysql"
)

// OnEach runs f for SQLite, whose driver "sqlite" the caller imports, and for
// the servers that RESET_TEST_POSTGRES and RESET_TEST_MYSQL name, side by side;
// only for the given dialects, if there are any. With CI=true no server may be
// missing.
func OnEach(t *testing.T, f func(t *testing.T, dialect string), dialects ...string) {
	for _, dialect := range []string{SQLite, Postgres, MySQL} {
		if len(dialects) > 0 && !slices.Contains(dialects, dialect) {
			continue
		}
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			address(t, dialect)
			f(t, dialect)
		})
	}
}

// address returns where a server is.
func address(t *testing.T, dialect string) string {
	t.Helper()
	env := map[string]string{Postgres: "RESET_TEST_POSTGRES", MySQL: "RESET_TEST_MYSQL"}[dialect]
	if env == "" {
		return ""
	}
	address := os.Getenv(env)
	switch {
	case address != "":
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is not set", env)
	default:
		t.Skipf("%s is not set", env)
	}
	return address
}

// NewDatabase makes a database.
func NewDatabase(t *testing.T, dialect string) Database {
	t.Helper()
	switch dialect {
	case SQLite:
		file := filepath.Join(t.TempDir(), "app.db")
		d := open(t, dialect, "sqlite", "file:"+file+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(1)&_txlock=immediate")
		d.File = file
		return d
	case Postgres:
		name := create(t, "pgx", address(t, dialect), "SCHEMA", " CASCADE")
		u, err := url.Parse(address(t, dialect))
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("search_path", name)
		u.RawQuery = q.Encode()
		return open(t, dialect, "pgx", u.String())
	}
	config, err := mysql.ParseDSN(address(t, dialect))
	if err != nil {
		t.Fatal(err)
	}
	config.DBName = create(t, "mysql", address(t, dialect), "DATABASE", "")
	config.MultiStatements = true // for migrations
	return open(t, dialect, "mysql", config.FormatDSN())
}

func open(t *testing.T, dialect, driver, dsn string) Database {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return Database{Dialect: dialect, Driver: driver, DSN: dsn, DB: db}
}

// create makes something with a new name on a server and drops it at the end.
func create(t *testing.T, driver, dsn, what, cascade string) (name string) {
	t.Helper()
	name = "reset_recipe_" + strings.ToLower(rand.Text())
	admin, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.ExecContext(t.Context(), "CREATE "+what+" "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer admin.Close()
		if _, err := admin.ExecContext(context.WithoutCancel(t.Context()), "DROP "+what+" "+name+cascade); err != nil {
			t.Error(err)
		}
	})
	return name
}

// CreateTables makes the tables of a host, as its own migrations do.
func CreateTables(t *testing.T, d Database) {
	t.Helper()
	collation := ""
	if d.Dialect == MySQL { // compare as bytes
		collation = " CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
	}
	for _, table := range []string{
		"users (id VARCHAR(26) PRIMARY KEY, address VARCHAR(254) NOT NULL UNIQUE, email VARCHAR(254) NOT NULL, hash VARCHAR(100) NOT NULL, version INTEGER NOT NULL DEFAULT 0)",
		"sessions (id VARCHAR(26) PRIMARY KEY, user_id VARCHAR(26) NOT NULL)",
	} {
		if _, err := d.ExecContext(t.Context(), "CREATE TABLE "+table+collation); err != nil {
			t.Fatal(err)
		}
	}
}
