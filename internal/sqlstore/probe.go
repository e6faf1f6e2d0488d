package sqlstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
)

// Probe tries out what the Store relies on and returns an error that names what
// the database lacks. It leaves nothing behind.
func Probe(ctx context.Context, s *Store) error {
	err := s.backend.Read(ctx, func(ctx context.Context, c Conn) error { return probeBytes(ctx, c, s.dialect) })
	if err == nil {
		err = s.backend.Read(ctx, func(ctx context.Context, c Conn) error { return s.dialect.probe(ctx, s, c) })
	}
	if err != nil {
		return err
	}
	err = s.backend.Write(ctx, s.probeTables)
	if errors.Is(err, errProbed) {
		return nil
	}
	return err
}

var errProbed = errors.New("probed, to be undone")

// probeBytes checks that bytes survive the way to the server and back. With some
// drivers they do not if PostgreSQL's standard_conforming_strings is off or its
// bytea_output escape.
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

// probeTables writes a row with the largest values to every table, reads it
// back, and locks as Lease does. It returns errProbed so that all is undone.
func (s *Store) probeTables(ctx context.Context, c Conn) error {
	bytesOf := func(n int) []byte { return bytes.Repeat([]byte{0xff}, n) }
	realm, user, long, ms := bytesOf(maxRealm), bytesOf(maxUserID), bytesOf(maxText), int64(1)<<62
	for _, t := range []struct {
		name    string
		columns []string
		values  []any
	}{
		{"reset_activations", []string{"hash", "realm", "request", "user_id", "email", "expires", "claim"},
			[]any{bytesOf(32), realm, bytesOf(16), user, long, ms, bytesOf(16)}},
		{"reset_mails", []string{"id", "realm", "kind", "user_id", "email", "name", "locale", "class", "due", "expires", "attempts", "lease"},
			[]any{bytesOf(16), realm, bytesOf(32), user, long, long, long, int64(9), ms, ms, int64(1) << 30, bytesOf(16)}},
		{"reset_locks", []string{"user_id", "realm", "claim", "claim_until", "quiet_until", "written", "expires"},
			[]any{user, realm, bytesOf(16), ms, ms, ms, ms}},
		{"reset_history", []string{"user_id", "realm", "id", "kind", "requests", "bound", "attempts", "attempted", "refused", "refusal", "outcome", "outcome_at", "joined", "ends", "ending", "ended", "expires"},
			[]any{user, realm, bytesOf(16), bytesOf(32), int64(1) << 30, ms, int64(1) << 30, ms, ms, long, bytesOf(32), ms, bytesOf(16), ms, bytesOf(32), ms, ms}},
		{"reset_realms", []string{"realm", "ran", "mailer_failed", "base_url"}, []any{realm, ms, ms, long}},
	} {
		columns := strings.Join(t.columns, ", ")
		err := exec(ctx, c, `INSERT INTO `+t.name+` (`+columns+`) VALUES `+list(len(t.values)), t.values...)
		if err == nil {
			err = readBack(ctx, c, t.name, columns, t.columns[0], t.values)
		}
		if err != nil {
			return fmt.Errorf("the table %s can't be written to: %w", s.names.rewrite(t.name), err)
		}
	}
	if _, err := exists(ctx, c, `SELECT id FROM reset_mails WHERE id IS NULL`+s.dialect.skipLocked); err != nil {
		return fmt.Errorf("rows can't be locked; PostgreSQL 9.5, MySQL 8 or MariaDB 10.6 is the minimum: %w", err)
	}
	return errProbed
}

// readBack checks that a row has the values.
func readBack(ctx context.Context, c Conn, table, columns, key string, want []any) error {
	same := false
	err := each(ctx, c, func(r Row) error {
		got := make([]any, len(want))
		for i, v := range want {
			if _, ok := v.([]byte); ok {
				got[i] = new([]byte)
			} else {
				got[i] = new(int64)
			}
		}
		err := r.Scan(got...)
		same = true
		for i, v := range want {
			if b, ok := v.([]byte); ok {
				same = same && bytes.Equal(*got[i].(*[]byte), b)
			} else {
				same = same && *got[i].(*int64) == v.(int64)
			}
		}
		return err
	}, `SELECT `+columns+` FROM `+table+` WHERE `+key+` = ?`, want[0])
	if err == nil && !same {
		err = errors.New("it does not keep what is written")
	}
	return err
}
