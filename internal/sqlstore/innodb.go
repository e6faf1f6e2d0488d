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
//   - Who removes rows of users and has not locked the users comes through that
//     index as well, in its order.
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

// removeMail is Settle for one mail that is done with.
func (s *Store) removeMail(ctx context.Context, d reset.Settlement) error {
	return s.backend.Write(ctx, func(ctx context.Context, c Conn) error {
		user, err := userOf(ctx, c, d)
		if err != nil {
			return err
		}
		if user == nil {
			return settle(ctx, c, d)
		}
		return exec(ctx, c, s.dialect.deleteOf("reset_mails")+` AND id = ? AND lease = ?`, user, d.Mail[:], d.Lease[:])
	})
}

// purgeInnoDB is purge.
func (s *Store) purgeInnoDB(ctx context.Context, c Conn, now time.Time, n int) (removed int, err error) {
	for _, t := range tables {
		passed := make(map[string]bool) // the keys of rows that others had locked
		for more := true; more && removed < n; {
			limit := n - removed + len(passed)
			rows, err := t.expired(ctx, c, now, limit, "")
			if err != nil {
				return 0, err
			}
			more = len(rows) == limit
			rows = slices.DeleteFunc(rows, func(r row) bool { return passed[string(r.key)] })
			if len(rows) > n-removed { // some that were passed over are gone
				rows, more = rows[:n-removed], true
			}
			free, err := s.lockRows(ctx, c, now, t, rows, passed)
			if err == nil {
				err = s.remove(ctx, c, t, free)
			}
			if err != nil {
				return 0, err
			}
			removed += len(free)
		}
	}
	return removed, nil
}

// lockRows returns the rows that nobody else has locked, or changed meanwhile,
// and adds the keys of the others to passed.
func (s *Store) lockRows(ctx context.Context, c Conn, now time.Time, t table, rows []row, passed map[string]bool) (free []row, err error) {
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
		} else {
			passed[string(r.key)] = true
		}
	}
	return free, nil
}
