package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/uptrace/bun/dialect"
)

var (
	//go:embed schema.sql
	schemaSQL string
	//go:embed schema_mysql.sql
	schemaMySQL string
)

// createTables may be called by every process that starts.
func (d *database) createTables(ctx context.Context) error {
	schema := schemaSQL
	if d.Dialect().Name() == dialect.MySQL {
		schema = schemaMySQL
	}
	for statement := range strings.SplitSeq(schema, ";\n") {
		if statement = strings.TrimSpace(statement); statement == "" {
			continue
		}
		if _, err := d.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("create tables: %w", err)
		}
	}
	return nil
}

// alone runs f while no other process does, on the servers that would not
// otherwise let several create a table at once.
func (d *database) alone(ctx context.Context, f func(context.Context) error) (err error) {
	var lock, unlock string
	switch d.Dialect().Name() {
	case dialect.PG:
		lock, unlock = "SELECT 1 FROM pg_advisory_lock(hashtext('reset example'))", "SELECT pg_advisory_unlock(hashtext('reset example'))"
	case dialect.MySQL:
		lock, unlock = "SELECT GET_LOCK(SHA1(CONCAT('reset example ', DATABASE())), 600)", "DO RELEASE_LOCK(SHA1(CONCAT('reset example ', DATABASE())))"
	default: // SQLite has one writer at a time
		return f(ctx)
	}
	conn, err := d.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var got int
	if err := conn.QueryRowContext(ctx, lock).Scan(&got); err != nil {
		return fmt.Errorf("wait for other processes that start: %w", err)
	}
	if got != 1 {
		return errors.New("another process has been starting for ten minutes")
	}
	defer func() {
		_, unlockErr := conn.ExecContext(context.WithoutCancel(ctx), unlock)
		err = errors.Join(err, unlockErr)
	}()
	return f(ctx)
}
