package sqlstore

import (
	"context"
	"database/sql"
	"time"
)

// A table is one whose rows expire.
type table struct{ name, key string }

const locksTable = "reset_locks"

// tables is in the order in which Revoke locks them.
var tables = []table{{locksTable, "user_id"}, {"reset_activations", "hash"}, {"reset_mails", "id"}}

// A row has expired.
type row struct{ key, user []byte }

func (t table) expired(ctx context.Context, c Conn, now time.Time, n int, lock string) (rows []row, err error) {
	err = each(ctx, c, func(r *sql.Rows) error {
		var found row
		err := r.Scan(&found.key, &found.user)
		rows = append(rows, found)
		return err
	}, `SELECT `+t.key+`, user_id FROM `+t.name+` WHERE expires <= ? ORDER BY expires LIMIT ?`+lock, now.UnixMilli(), n)
	return rows, err
}

func (s *Store) remove(ctx context.Context, c Conn, t table, rows []row) error {
	keys := make([]any, len(rows))
	for i, r := range rows {
		keys[i] = r.key
	}
	return s.execByKeys(ctx, c, `DELETE FROM `+t.name+` WHERE `+t.key+` IN `, keys)
}

// purgeUnlocked passes over rows that are locked: they are about to be removed,
// or the next Purge finds them.
func purgeUnlocked(ctx context.Context, s *Store, c Conn, now time.Time, n int) (removed int, err error) {
	for _, t := range tables {
		rows, err := t.expired(ctx, c, now, n-removed, s.dialect.skipLocked)
		if err == nil {
			err = s.remove(ctx, c, t, rows)
		}
		if err != nil {
			return 0, err
		}
		removed += len(rows)
	}
	return removed, nil
}
