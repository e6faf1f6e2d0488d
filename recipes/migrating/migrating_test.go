package migrating_test

import (
	"database/sql"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	atlas "ariga.io/atlas/sql/migrate"
	"github.com/golang-migrate/migrate/v4/database"
	"github.com/golang-migrate/migrate/v4/database/mysql"
	pgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/database/sqlite"
	"github.com/pressly/goose/v3"
	"github.com/uptrace/bun"

	"github.com/gopassreset/reset/migrations"
	"github.com/gopassreset/reset/recipes/internal/hosttest"
	"github.com/gopassreset/reset/recipes/migrating"
	storebun "github.com/gopassreset/reset/store_bun"
)

const migrateTable = "reset_migrate"

// Each tool makes the tables that storebun wants, and removes them.
func TestTools(t *testing.T) {
	hosttest.OnEach(t, func(t *testing.T, dialect string) {
		t.Run("goose", func(t *testing.T) {
			d := hosttest.NewDatabase(t, dialect)
			name := map[string]goose.Dialect{
				hosttest.SQLite: goose.DialectSQLite3, hosttest.Postgres: goose.DialectPostgres, hosttest.MySQL: goose.DialectMySQL,
			}[dialect]
			p, err := migrating.Goose(d.DB, name, dialect)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Up(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantStore(t, d)
			if _, err := p.DownTo(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			wantTables(t, d, "reset_goose")
		})
		t.Run("golang-migrate", func(t *testing.T) {
			d := hosttest.NewDatabase(t, dialect)
			driver, err := migrateDriver(d)
			if err != nil {
				t.Fatal(err)
			}
			m, err := migrating.Migrate(driver, dialect)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Up(); err != nil {
				t.Fatal(err)
			}
			wantStore(t, d)
			if err := m.Down(); err != nil {
				t.Fatal(err)
			}
			wantTables(t, d, migrateTable)
			if err, dbErr := m.Close(); err != nil || dbErr != nil {
				t.Error(err, dbErr)
			}
		})
		t.Run("Atlas", func(t *testing.T) {
			d := hosttest.NewDatabase(t, dialect)
			for _, statement := range atlasStatements(t, dialect) {
				if _, err := d.ExecContext(t.Context(), statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
			wantStore(t, d)
		})
	})
}

func migrateDriver(d hosttest.Database) (database.Driver, error) {
	switch d.Dialect {
	case hosttest.Postgres:
		return pgx.WithInstance(d.DB, &pgx.Config{MigrationsTable: migrateTable})
	case hosttest.MySQL:
		return mysql.WithInstance(d.DB, &mysql.Config{MigrationsTable: migrateTable})
	}
	return sqlite.WithInstance(d.DB, &sqlite.Config{MigrationsTable: migrateTable})
}

// atlasStatements returns what Atlas would run, after it has verified atlas.sum.
func atlasStatements(t *testing.T, folder string) (statements []string) {
	t.Helper()
	files, err := fs.Sub(migrations.FS, "atlas/"+folder)
	if err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	if err := os.CopyFS(copied, files); err != nil {
		t.Fatal(err)
	}
	dir, err := atlas.NewLocalDir(copied)
	if err != nil {
		t.Fatal(err)
	}
	if err := atlas.Validate(dir); err != nil {
		t.Error(err)
	}
	list, err := dir.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range list {
		s, err := file.Stmts()
		if err != nil {
			t.Fatal(err)
		}
		statements = append(statements, s...)
	}
	return statements
}

// wantStore tests that a database is as CreateSchema would leave it.
func wantStore(t *testing.T, d hosttest.Database) {
	t.Helper()
	if _, err := storebun.New(t.Context(), bun.NewDB(d.DB, d.Bun())); err != nil {
		t.Error(err)
	}
	created := hosttest.NewDatabase(t, d.Dialect)
	if err := storebun.CreateSchema(t.Context(), bun.NewDB(created.DB, created.Bun())); err != nil {
		t.Fatal(err)
	}
	got, want := columns(t, d), columns(t, created)
	if !slices.Equal(got, want) {
		t.Errorf("got the columns\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// wantTables tests which tables a database has.
func wantTables(t *testing.T, d hosttest.Database, want ...string) {
	t.Helper()
	query := "SELECT table_name FROM information_schema.tables WHERE table_schema = " + currentSchema(d) + " ORDER BY 1"
	if d.Dialect == hosttest.SQLite {
		query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
	}
	if got := list(t, d.DB, query); !slices.Equal(got, want) {
		t.Errorf("the tables are %v, want %v", got, want)
	}
}

// columns returns the columns of the store's tables.
func columns(t *testing.T, d hosttest.Database) []string {
	t.Helper()
	tools := "'reset_goose', '" + migrateTable + "'"
	query := "SELECT CONCAT(table_name, '.', column_name, ' ', data_type, ' ', is_nullable, ' ', COALESCE(column_default, '-')) AS c" +
		" FROM information_schema.columns WHERE table_schema = " + currentSchema(d) + " AND table_name NOT IN (" + tools + ") ORDER BY c"
	if d.Dialect == hosttest.SQLite {
		query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name LIKE 'reset%' AND tbl_name NOT IN (" + tools + ") ORDER BY sql"
	}
	return list(t, d.DB, query)
}

func currentSchema(d hosttest.Database) string {
	if d.Dialect == hosttest.MySQL {
		return "DATABASE()"
	}
	return "current_schema()"
}

func list(t *testing.T, db *sql.DB, query string) (list []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}
