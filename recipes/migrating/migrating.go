// Package migrating creates the tables of package reset by tools for migrations
// instead of storebun.CreateSchema.
package migrating

import (
	"database/sql"
	"io/fs"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/pressly/goose/v3"

	"github.com/gopassreset/reset/migrations"
)

// Goose returns what brings the tables up to date with Up, beside the host's own
// migrations: goose keeps its notes on these in the table reset_goose. The folder
// is mysql, postgres or sqlite.
func Goose(db *sql.DB, dialect goose.Dialect, folder string) (*goose.Provider, error) {
	files, err := fs.Sub(migrations.FS, "goose/"+folder)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(dialect, db, files, goose.WithTableName("reset_goose"))
}

// Migrate does the same with golang-migrate. Let the driver's MigrationsTable be
// reset_migrate, and on MySQL and MariaDB its DSN have multiStatements=true.
func Migrate(driver database.Driver, folder string) (*migrate.Migrate, error) {
	files, err := iofs.New(migrations.FS, "migrate/"+folder)
	if err != nil {
		return nil, err
	}
	return migrate.NewWithInstance("iofs", files, folder, driver)
}
