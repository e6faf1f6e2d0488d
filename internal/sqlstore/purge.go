package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gopassreset/reset"
)

// A table is one whose rows expire.
type table struct{ name, key string }

const (
	locksTable   = "reset_locks"
	mailsTable   = "reset_mails"
	historyTable = "reset_history"
)

// tables is in the order in which Revoke locks them.
var tables = []table{{locksTable, "user_id"}, {"reset_activations", "hash"}, {mailsTable, "id"}, {historyTable, "id"}}

// purged counts rows, and those of them that were mails.
type purged struct {
	removed, unsent int
	mails           []row // that were bound to users
}

func (p *purged) add(t table, rows []row) {
	p.removed += len(rows)
	if t.name != mailsTable {
		return
	}
	p.unsent += len(rows)
	for _, r := range rows {
		if r.user != nil {
			p.mails = append(p.mails, r)
		}
	}
}

// A row has expired.
type row struct {
	realm, key, user []byte
	kind             []byte // of a mail
	expires          int64
}

// id identifies a row of one table.
func (r row) id() string { return fmt.Sprintf("%q %q %q", r.realm, r.user, r.key) }

func (t table) expired(ctx context.Context, c Conn, now time.Time, n int, lock string) (rows []row, err error) {
	kind := "user_id"
	if t.name == mailsTable {
		kind = "kind"
	}
	err = each(ctx, c, func(r Row) error {
		var found row
		err := r.Scan(&found.realm, &found.key, &found.user, &found.kind, &found.expires)
		rows = append(rows, found)
		return err
	}, `SELECT realm, `+t.key+`, user_id, `+kind+`, expires FROM `+t.name+` WHERE expires <= ? ORDER BY expires LIMIT ?`+lock, now.UnixMilli(), n)
	return rows, err
}

// remove leaves the realm out where the key does not need it: SQLite would look
// for it in the index of due mails, and read all that a realm has there.
func (s *Store) remove(ctx context.Context, c Conn, t table, rows []row) error {
	query := s.dialect.deleteByKey(t.name) + ` WHERE `
	if t.name != locksTable && t.name != historyTable {
		var keys []any
		for _, r := range rows {
			keys = append(keys, r.key)
		}
		return s.execByKeys(ctx, c, s.dialect.maxRemoved, query+t.key+` IN `, keys)
	}
	found := make(map[string][]row) // by realm
	for _, r := range rows {
		found[string(r.realm)] = append(found[string(r.realm)], r)
	}
	for _, realm := range slices.Sorted(maps.Keys(found)) {
		var err error
		if t.name == historyTable {
			err = s.removeEntries(ctx, c, []byte(realm), found[realm])
		} else {
			var users []any
			for _, r := range found[realm] {
				users = append(users, r.user)
			}
			err = s.execByKeys(ctx, c, s.dialect.maxRemoved, query+`realm = ? AND user_id IN `, users, []byte(realm))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) removeEntries(ctx context.Context, c Conn, realm []byte, rows []row) error {
	for some := range slices.Chunk(rows, s.dialect.maxRemoved) {
		some = padded(some)
		args := []any{realm}
		for _, r := range some {
			args = append(args, r.user, r.key)
		}
		if err := exec(ctx, c, s.dialect.deleteByKey(historyTable)+` WHERE realm = ? AND `+s.dialect.entries(len(some)), args...); err != nil {
			return err
		}
	}
	return nil
}

// noteExpired records what has become of the mails that were removed, once all
// of t are locked.
func (s *Store) noteExpired(ctx context.Context, c Conn, now time.Time, t table, mails []row) error {
	if t.name != mailsTable {
		return nil
	}
	slices.SortFunc(mails, func(a, b row) int {
		return cmp.Or(bytes.Compare(a.realm, b.realm), bytes.Compare(a.user, b.user), bytes.Compare(a.key, b.key))
	})
	for _, m := range mails {
		kind := kindOf(reset.MailKind(m.kind))
		realm := append([]byte{}, m.realm...) // drivers scan an empty one as nil
		err := s.record(ctx, c, entry{realm: realm, userID: string(m.user), id: m.key, kind: kind, made: now},
			set("outcome", text(string(reset.OutcomeExpired))), set("outcome_at", m.expires), set("attempted", 0))
		if err != nil {
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
		if err := s.noteExpired(ctx, c, now, t, p.mails); err != nil {
			return purged{}, err
		}
	}
	return p, nil
}
