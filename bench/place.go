package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/mysqldialect"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/gopassreset/reset"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

var errNotHere = errors.New("this machine or its environment does not have what it takes")

// maxConns is the size of a pool on a server.
const maxConns = 32

// newPlace returns a new database: a file, or the name of a schema or database.
func (b *bench) newPlace(ctx context.Context, place string) (name string, drop func(), err error) {
	b.files++
	name = fmt.Sprintf("reset_bench_%d_%d", os.Getpid(), b.files)
	var db *sql.DB
	create, remove := "CREATE DATABASE "+name, "DROP DATABASE "+name
	switch place {
	case "sqlite", "":
		file := fmt.Sprintf("%s/%s.db", b.dir, name)
		return file, func() {
			for _, suffix := range []string{"", "-wal", "-shm"} {
				os.Remove(file + suffix)
			}
		}, nil
	case "postgres":
		create, remove = "CREATE SCHEMA "+name, "DROP SCHEMA "+name+" CASCADE"
		db, err = openPostgres("")
	case "mysql":
		db, err = openMySQL("")
	}
	if err != nil {
		return "", nil, err
	}
	if _, err := db.ExecContext(ctx, create); err != nil {
		return "", nil, err
	}
	return name, func() {
		db.ExecContext(context.WithoutCancel(ctx), remove)
		db.Close()
	}, nil
}

func openPostgres(schema string) (*sql.DB, error) {
	dsn := os.Getenv("RESET_TEST_POSTGRES")
	if dsn == "" {
		return nil, errNotHere
	}
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	if schema != "" {
		c.RuntimeParams["search_path"] = schema
	}
	return stdlib.OpenDB(*c), nil
}

func openMySQL(database string) (*sql.DB, error) {
	dsn := os.Getenv("RESET_TEST_MYSQL")
	if dsn == "" {
		return nil, errNotHere
	}
	c, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	if database != "" {
		c.DBName = database
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// openPlace opens a database that newPlace has named, with the tables of the
// bench and of the store.
func openPlace(ctx context.Context, place string, c *serverConfig) (db *bun.DB, store reset.Store, err error) {
	key, text := "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "VARCHAR(100)"
	numbers := fmt.Sprintf("SELECT i::text, 'user'||i||'@example.com' FROM generate_series(0, %d) AS i", c.users-1)
	switch place {
	case "sqlite":
		s, err := storesqlite.Open(c.db)
		if err != nil {
			return nil, nil, err
		}
		db, store = s.DB(), s
		key = "INTEGER PRIMARY KEY"
		numbers = fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i < %d) SELECT CAST(i AS TEXT), 'user'||i||'@example.com' FROM n", c.users-1)
	case "postgres":
		plain, err := openPostgres(c.db)
		if err != nil {
			return nil, nil, err
		}
		db = bun.NewDB(plain, pgdialect.New())
	case "mysql":
		plain, err := openMySQL(c.db)
		if err != nil {
			return nil, nil, err
		}
		db = bun.NewDB(plain, mysqldialect.New())
		key = "BIGINT AUTO_INCREMENT PRIMARY KEY"
		numbers = fmt.Sprintf("SELECT CAST(seq AS CHAR), CONCAT('user', seq, '@example.com') FROM seq_0_to_%d", c.users-1)
	default:
		return nil, nil, fmt.Errorf("no database %q", place)
	}
	if store == nil {
		db.SetMaxOpenConns(maxConns)
		db.SetMaxIdleConns(maxConns)
		if store, err = useStoreBun(ctx, db); err != nil {
			return nil, nil, err
		}
	}
	for _, statement := range []string{
		"CREATE TABLE users (id " + text + " NOT NULL PRIMARY KEY, email " + text + " NOT NULL UNIQUE)",
		"INSERT INTO users (id, email) " + numbers,
		"CREATE TABLE floor (id " + key + ", email " + text + " NOT NULL, at BIGINT NOT NULL)",
		"CREATE INDEX floor_email ON floor (email)",
	} {
		if _, err := db.DB.ExecContext(ctx, statement); err != nil {
			return nil, nil, fmt.Errorf("%.60s: %w", statement, err)
		}
	}
	return db, store, nil
}
