package sqlstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A table is one whose rows expire.
type table struct{ name, key string }

const (
	locksTable = "reset_locks"
	mailsTable = "reset_mails"
)

// tables is in the order in which Revoke locks them.
var tables = []table{{locksTable, "user_id"}, {"reset_activations", "hash"}, {mailsTable, "id"}, {"reset_sent", "mail"}}

// purged counts rows, and those of them that were mails.
type purged struct{ removed, unsent int }

func (p *purged) add(t table, rows []row) {
	p.removed += len(rows)
	if t.name == mailsTable {
		p.unsent += len(rows)
	}
}

// A row has expired.
type row struct{ realm, key, user []byte }

// id identifies a row of one table.
func (r row) id() string { return fmt.Sprintf("%q %q", r.realm, r.key) }

func (t table) expired(ctx context.Context, c Conn, now time.Time, n int, lock string) (rows []row, err error) {
	err = each(ctx, c, func(r Row) error {
		var found row
		err := r.Scan(&found.realm, &found.key, &found.user)
		rows = append(rows, found)
		return err
	}, `SELECT realm, `+t.key+`, user_id FROM `+t.name+` WHERE expires <= ? ORDER BY expires LIMIT ?`+lock, now.UnixMilli(), n)
	return rows, err
}

// remove leaves the realm out where the key does not need it: SQLite would look
// for it in the index of due mails, and read all that a realm has there.
func (s *Store) remove(ctx context.Context, c Conn, t table, rows []row) error {
	query := s.dialect.deleteByKey(t.name) + ` WHERE `
	if t.name != locksTable {
		var keys []any
		for _, r := range rows {
			keys = append(keys, r.key)
		}
		return s.execByKeys(ctx, c, query+t.key+` IN `, keys)
	}
	users := make(map[string][]any) // by realm
	for _, r := range rows {
		users[string(r.realm)] = append(users[string(r.realm)], r.key)
	}
	for _, realm := range slices.Sorted(maps.Keys(users)) {
		if err := s.execByKeys(ctx, c, query+`realm = ? AND user_id IN `, users[realm], []byte(realm)); err != nil {
			return err
		}
	}
	return nil
}

// purgeUnlocked passes over rows that are locked: they are about to be removed,
// or the next Purge finds them.
func purgeUnlocked(ctx context.Context, s *Store, c Conn, now time.Time, n int) (p purged, err error) {
	for _, t := range tables {
		rows, err := t.expired(ctx, c, now, n-p.removed, s.dialect.skipLocked)
		if err == nil {
			err = s.remove(ctx, c, t, rows)
		}
		if err != nil {
			return purged{}, err
		}
		p.add(t, rows)
	}
	return p, nil
}
