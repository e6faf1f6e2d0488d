package sqlstore

import (
	"bytes"
	"context"
	"fmt"
)

// Probe tries out what the Store relies on and returns an error that names what
// the database lacks. It leaves nothing behind.
func Probe(ctx context.Context, s *Store) error {
	err := s.backend.Read(ctx, func(ctx context.Context, c Conn) error { return probeBytes(ctx, c, s.dialect) })
	if err == nil {
		err = s.backend.Read(ctx, s.dialect.probe)
	}
	if err == nil {
		err = s.backend.Write(ctx, func(ctx context.Context, c Conn) error { return probeTables(ctx, c, s.dialect) })
	}
	return err
}

// probeBytes checks that bytes survive the way to the server and back. They do
// not with PostgreSQL's standard_conforming_strings off, and with some drivers
// and bytea_output = escape.
func probeBytes(ctx context.Context, c Conn, d *Dialect) error {
	want := []byte("'\\\x00\x1a\xff?\"x")
	var got []byte
	err := each(ctx, c, func(r Row) error { return r.Scan(&got) }, d.selectBytes, want)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("got %x for %x", got, want)
	}
	if err != nil {
		return fmt.Errorf("bytes do not survive; on PostgreSQL, standard_conforming_strings must be on and bytea_output hex: %w", err)
	}
	return nil
}

// probeTables writes to no row of every table, and locks as Lease does.
func probeTables(ctx context.Context, c Conn, d *Dialect) error {
	for _, query := range []string{
		`DELETE FROM reset_activations WHERE hash IS NULL`,
		`DELETE FROM reset_mails WHERE id IS NULL`,
		`DELETE FROM reset_locks WHERE user_id IS NULL`,
		`DELETE FROM reset_realms WHERE realm IS NULL`,
	} {
		if err := exec(ctx, c, query); err != nil {
			return fmt.Errorf("the tables can't be written to: %w", err)
		}
	}
	if _, err := exists(ctx, c, `SELECT id FROM reset_mails WHERE id IS NULL`+d.skipLocked); err != nil {
		return fmt.Errorf("rows can't be locked; PostgreSQL 9.5, MySQL 8 or MariaDB 10.6 is the minimum: %w", err)
	}
	return nil
}
