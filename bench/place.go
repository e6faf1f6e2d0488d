package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/mysqldialect"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/gopassreset/reset"
	storebun "github.com/gopassreset/reset/store_bun"
	storepgx "github.com/gopassreset/reset/store_pgx"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// maxConns is the size of a pool on a server.
const maxConns = 32

// newPlace returns a new database: a file, or the name of a schema or database.
func (b *bench) newPlace(ctx context.Context, place string) (name string, drop func(), err error) {
	b.files++
	name = fmt.Sprintf("reset_bench_%d_%d", os.Getpid(), b.files)
	var db *sql.DB
	create, remove := "CREATE DATABASE "+name, "DROP DATABASE "+name
	switch place {
	case "postgres", "pgx":
		create, remove = "CREATE SCHEMA "+name, "DROP SCHEMA "+name+" CASCADE"
		db, err = openPostgres("")
	case "mysql":
		db, err = openMySQL("")
	default:
		file := fmt.Sprintf("%s/%s.db", b.dir, name)
		return file, func() {
			for _, suffix := range []string{"", "-wal", "-shm", pocketBaseSuffix} {
				os.RemoveAll(file + suffix)
			}
		}, nil
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

func postgresConfig(schema string) (*pgxpool.Config, error) {
	dsn := os.Getenv("RESET_TEST_POSTGRES")
	if dsn == "" {
		return nil, errNotHere
	}
	c, err := pgxpool.ParseConfig(dsn)
	if err == nil && schema != "" {
		c.ConnConfig.RuntimeParams["search_path"] = schema
		c.MaxConns = maxConns
	}
	return c, err
}

func openPostgres(schema string) (*sql.DB, error) {
	c, err := postgresConfig(schema)
	if err != nil {
		return nil, err
	}
	return stdlib.OpenDB(*c.ConnConfig), nil
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
// bench and of the store, and the records that the server begins with.
func openPlace(ctx context.Context, place string, c *server) (*bun.DB, reset.Store, error) {
	var db *bun.DB
	var store reset.Store
	switch place {
	case "sqlite":
		s, err := storesqlite.Open(c.DB)
		if err != nil {
			return nil, nil, err
		}
		db, store = s.DB(), s
	case "postgres", "pgx":
		plain, err := openPostgres(c.DB)
		if err != nil {
			return nil, nil, err
		}
		db = bun.NewDB(plain, pgdialect.New())
	case "mysql":
		plain, err := openMySQL(c.DB)
		if err != nil {
			return nil, nil, err
		}
		db = bun.NewDB(plain, mysqldialect.New())
	default:
		return nil, nil, fmt.Errorf("no database %q", place)
	}
	if store == nil {
		db.SetMaxOpenConns(maxConns)
		db.SetMaxIdleConns(maxConns)
		if err := storebun.CreateSchema(ctx, db); err != nil {
			return nil, nil, err
		}
		var err error
		if store, err = newStore(ctx, db, place, c); err != nil {
			return nil, nil, err
		}
	}
	return db, store, fill(ctx, db, c)
}

// newStore opens a store on a server's database.
func newStore(ctx context.Context, db *bun.DB, place string, c *server) (reset.Store, error) {
	if place != "pgx" {
		return storebun.New(ctx, db)
	}
	config, err := postgresConfig(c.DB)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return storepgx.New(ctx, pool)
}

// fill makes the tables of the bench and writes the records that a server begins
// with: in the database, since a million of them take minutes through a Store.
func fill(ctx context.Context, db *bun.DB, c *server) error {
	// numbers is a query for i from 0 on; bytes makes a text binary.
	key, numbers, bytes := "INTEGER PRIMARY KEY", "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i < %d) SELECT i FROM n", "CAST(%s AS BLOB)"
	begin, end := []string{"PRAGMA cache_size = -400000"}, "PRAGMA cache_size = -2000; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA shrink_memory"
	switch db.Dialect().Name().String() {
	case "pg":
		key, numbers, bytes = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "SELECT generate_series(0, %d) AS i", "convert_to(%s, 'UTF8')"
		begin, end = nil, "ANALYZE"
	case "mysql":
		key, numbers, bytes = "BIGINT AUTO_INCREMENT PRIMARY KEY", "SELECT seq AS i FROM seq_0_to_%d", "%s"
		begin, end = nil, "ANALYZE TABLE users, reset_mails, reset_activations"
	}
	statements := append(begin,
		"CREATE TABLE users (id VARCHAR(100) NOT NULL PRIMARY KEY, email VARCHAR(100) NOT NULL UNIQUE)",
		"CREATE TABLE floor (id "+key+", email VARCHAR(100) NOT NULL, at BIGINT NOT NULL)",
		"CREATE INDEX floor_email ON floor (email)",
	)
	// insert adds n rows. #x# in values is a text as bytes, $now … a time.
	now := time.Now().UnixMilli()
	hour := time.Hour.Milliseconds()
	times := strings.NewReplacer("$now", fmt.Sprint(now), "$later", fmt.Sprint(now+hour), "$tomorrow", fmt.Sprint(now+24*hour),
		"$recently", fmt.Sprint(now-hour-int64(c.Expired)), "$long ago", fmt.Sprint(now-48*hour-int64(c.Purgeable)))
	insert := func(n int, into, values string) {
		if n == 0 {
			return
		}
		parts := strings.Split(times.Replace(values), "#")
		for i := 1; i < len(parts); i += 2 {
			parts[i] = fmt.Sprintf(bytes, "concat("+parts[i]+", '')")
		}
		statements = append(statements, "INSERT INTO "+into+" SELECT "+strings.Join(parts, "")+" FROM ("+fmt.Sprintf(numbers, n-1)+") AS numbers")
	}
	const (
		mails       = "reset_mails (id, kind, user_id, email, class, due, expires, attempts)"
		activations = "reset_activations (hash, request, user_id, email, expires)"
		address     = "'user', i, '@example.com'"
	)
	insert(c.Users, "users (id, email)", "concat(i, ''), concat("+address+")")
	insert(c.Waiting, mails, "#1000000000000000+i#, #'reset'#, #i#, #"+address+"#, 11, $later+i, $tomorrow+i, 1")
	insert(c.Live, activations, "#1000000000000000+i#, #1000000000000000+i#, #i#, #"+address+"#, $later+i")
	insert(c.Live, "reset_locks (user_id, claim_until, expires)", "#i#, 0, $later+i")
	insert(c.Live, "reset_history (user_id, id, kind, bound, attempts, attempted, ends, expires)", "#i#, #1000000000000000+i#, #'public'#, $now, 1, $now, $later+i, $tomorrow+i")
	// What has expired was to be sent first.
	insert(c.Expired/2, mails, "#2000000000000000+i#, #'reset'#, NULL, #"+address+"#, 0, $recently+i, $recently+i, 1")
	insert(c.Expired/2, activations, "#2000000000000000+i#, #2000000000000000+i#, #'gone', i#, #"+address+"#, $recently+i")
	insert(c.Purgeable/2, mails, "#3000000000000000+i#, #'reset'#, NULL, #"+address+"#, 0, $long ago+i, $long ago+i, 1")
	insert(c.Purgeable/2, activations, "#3000000000000000+i#, #3000000000000000+i#, #'gone', i#, #"+address+"#, $long ago+i")
	conn, err := db.DB.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, statement := range append(statements, end) {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%.200s: %w", statement, err)
		}
	}
	return nil
}
