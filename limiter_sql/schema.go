package limitersql

import (
	"context"
	"fmt"
	"strings"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"

	"github.com/gopassreset/reset/internal/bunpool"
)

var ddl = map[dialect.Name][]string{
	dialect.SQLite: {
		`CREATE TABLE IF NOT EXISTS reset_limits (id BLOB NOT NULL PRIMARY KEY, full_at INTEGER NOT NULL) WITHOUT ROWID`,
		`CREATE INDEX IF NOT EXISTS reset_limits_full ON reset_limits (full_at)`,
	},
	dialect.PG: {
		`CREATE TABLE IF NOT EXISTS reset_limits (id BYTEA NOT NULL PRIMARY KEY, full_at BIGINT NOT NULL)`,
		`CREATE INDEX IF NOT EXISTS reset_limits_full ON reset_limits (full_at)`,
	},
	dialect.MySQL: {
		`CREATE TABLE IF NOT EXISTS reset_limits (id BINARY(32) NOT NULL PRIMARY KEY, full_at BIGINT NOT NULL, KEY reset_limits_full (full_at)) ENGINE=InnoDB`,
	},
}

// pgLock is a key of PostgreSQL's advisory locks: without one, two processes
// that create a table at once can both find it missing.
const pgLock = 0x7265736574_6c696d

// CreateSchema creates the table reset_limits unless it is there. Call it
// whenever a process starts; several may do so at once.
func CreateSchema(ctx context.Context, db *bun.DB) error {
	d, err := bunpool.DialectOf(db)
	if err == nil && readable(ctx, db) != nil {
		err = d.Retry(ctx, func() error { return create(ctx, db) })
	}
	if err != nil {
		return fmt.Errorf("limitersql: create schema: %w", err)
	}
	return nil
}

func create(ctx context.Context, db *bun.DB) error {
	return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if db.Dialect().Name() == dialect.PG {
			if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(?)`, int64(pgLock)); err != nil {
				return err
			}
		}
		for _, statement := range ddl[db.Dialect().Name()] {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}

// DDL returns as SQL what CreateSchema does, for hosts that run their own
// migrations.
func DDL(name dialect.Name) (string, error) {
	statements, ok := ddl[name]
	if !ok {
		return "", fmt.Errorf("limitersql: %v is neither SQLite nor PostgreSQL nor MySQL", name)
	}
	return strings.Join(statements, ";\n") + ";\n", nil
}

func readable(ctx context.Context, db *bun.DB) error {
	rows, err := db.QueryContext(ctx, `SELECT id, full_at FROM reset_limits WHERE full_at < 0 LIMIT 1`)
	if err != nil {
		return err
	}
	defer rows.Close()
	rows.Next()
	return rows.Err()
}
