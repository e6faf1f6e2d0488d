package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/gopassreset/reset"
)

// InnoDB locks what a statement comes across: entries of the index that it goes
// through, then the rows of the table. Whoever removes a row needs the row and
// its entry in every index. Two that come from different sides lock each other
// out, and where one of them is a host's own transaction with a Revoke, only the
// host could try again. Therefore, on MySQL and MariaDB:
//
//   - Statements about a user's rows go through the index of users, by a hint. A
//     planner would rather scan a table that is small, and wait for the rows of
//     other users.
//   - What else removes a user's rows comes through that index as well, in its
//     order.
//
// SKIP LOCKED alone would not do: MariaDB lines up for a lock before it passes
// over it, and may meanwhile be found in a circle.

// byUser follows the name of a table where a statement is about one user.
func (d *Dialect) byUser(table string) string {
	if !d.innoDB {
		return ""
	}
	return " FORCE INDEX (" + table + "_user)"
}

// deleteOf removes a user's rows.
func (d *Dialect) deleteOf(table string) string {
	from := "DELETE FROM " + table
	if d.innoDB {
		from = "DELETE " + table + " FROM " + table + d.byUser(table) // the form that takes a hint
	}
	return from + " WHERE user_id = ?"
}

// removeMail is Settle for one mail that is done with. It holds nothing while it
// waits.
func (s *Store) removeMail(ctx context.Context, d reset.Settlement) error {
	var user []byte
	err := s.backend.Read(ctx, func(ctx context.Context, c Conn) (err error) {
		user, err = userOf(ctx, c, d)
		return err
	})
	if err != nil {
		return err
	}
	return s.backend.WriteOne(ctx, func(ctx context.Context, c Conn) error {
		if user == nil {
			return settle(ctx, c, d)
		}
		return exec(ctx, c, s.dialect.deleteOf("reset_mails")+` AND id = ? AND lease = ?`, user, d.Mail[:], d.Lease[:])
	})
}

// purgeInnoDB is purge.
func (s *Store) purgeInnoDB(ctx context.Context, c Conn, now time.Time, n int) (removed int, err error) {
	for _, t := range tables {
		for locked, more := 0, true; more && removed < n; {
			limit := n - removed + locked
			found, err := t.expired(ctx, c, now, limit, "")
			if err != nil {
				return 0, err
			}
			free, err := s.lockRows(ctx, c, now, t, found)
			if err == nil {
				err = s.remove(ctx, c, t, free)
			}
			if err != nil {
				return 0, err
			}
			removed += len(free)
			locked = len(found) - len(free)
			more = len(found) == limit
		}
	}
	return removed, nil
}

// lockRows returns those that nobody else has locked, or changed meanwhile.
func (s *Store) lockRows(ctx context.Context, c Conn, now time.Time, t table, rows []row) (free []row, err error) {
	slices.SortFunc(rows, func(a, b row) int { return cmp.Or(bytes.Compare(a.user, b.user), bytes.Compare(a.key, b.key)) })
	for _, r := range rows {
		from, where, args := t.name, ` WHERE expires <= ? AND `+t.key+` = ?`, []any{now.UnixMilli(), r.key}
		if r.user != nil && t.name != locksTable {
			from, where, args = from+s.dialect.byUser(t.name), where+` AND user_id = ?`, append(args, r.user)
		}
		locked, err := exists(ctx, c, `SELECT `+t.key+` FROM `+from+where+s.dialect.skipLocked, args...)
		if err != nil {
			return nil, err
		}
		if locked {
			free = append(free, r)
		}
	}
	return free, nil
}
