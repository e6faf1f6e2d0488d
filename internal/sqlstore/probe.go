package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
)

// Probe tries out what the Store relies on and says what the database lacks. It
// leaves nothing behind.
func Probe(ctx context.Context, s *Store) error {
	err := s.backend.Read(ctx, func(ctx context.Context, c Conn) error { return probeBytes(ctx, c, s.dialect) })
	if err == nil && s.dialect == mysql {
		err = s.backend.Read(ctx, probeMySQL)
	}
	if err == nil {
		err = s.backend.Write(ctx, func(ctx context.Context, c Conn) error { return probeTables(ctx, c, s.dialect) })
	}
	return err
}

// probeBytes sees whether bytes survive the way to the server and back. They
// do not with PostgreSQL's standard_conforming_strings off, and with some
// drivers and bytea_output = escape.
func probeBytes(ctx context.Context, c Conn, d *Dialect) error {
	query := `SELECT ?`
	if d == postgres {
		query = `SELECT ?::bytea`
	}
	want := []byte("'\\\x00\x1a\xff?\"x")
	var got []byte
	err := each(ctx, c, func(r *sql.Rows) error { return r.Scan(&got) }, query, want)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("got %x for %x", got, want)
	}
	if err != nil {
		return fmt.Errorf("bytes do not survive; on PostgreSQL, standard_conforming_strings must be on and bytea_output hex: %w", err)
	}
	return nil
}

// probeTables writes, on every table, to no row, and locks as Lease does.
func probeTables(ctx context.Context, c Conn, d *Dialect) error {
	for _, query := range []string{
		`DELETE FROM reset_activations WHERE hash IS NULL`,
		`DELETE FROM reset_mails WHERE id IS NULL`,
		`DELETE FROM reset_locks WHERE user_id IS NULL`,
	} {
		if err := exec(ctx, c, query); err != nil {
			return fmt.Errorf("the tables can't be written to: %w", err)
		}
	}
	if _, err := exists(ctx, c, `SELECT id FROM reset_mails WHERE id IS NULL`+d.skipLocked); err != nil {
		return fmt.Errorf("rows can't be locked; PostgreSQL, MySQL 8 or MariaDB 10.6 at least is needed: %w", err)
	}
	return nil
}

func probeMySQL(ctx context.Context, c Conn) error {
	without := func(query string, args ...any) error {
		var bad string
		err := each(ctx, c, func(r *sql.Rows) error { return r.Scan(&bad) }, query, args...)
		if err == nil && bad != "" {
			err = fmt.Errorf("%s", bad)
		}
		return err
	}
	if err := without(`SELECT 'off' FROM DUAL WHERE @@autocommit = 0`); err != nil {
		return fmt.Errorf("autocommit must be on: %w", err)
	}
	err := without(`SELECT CONCAT(table_name, ' is of ', engine) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN (?, ?, ?) AND engine <> ?`,
		"reset_activations", "reset_mails", "reset_locks", "InnoDB")
	if err != nil {
		return fmt.Errorf("the tables must be InnoDB's: %w", err)
	}
	return nil
}
