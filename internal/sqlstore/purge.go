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

// notNil returns a realm as it is stored: drivers scan an empty one as nil.
func notNil(realm []byte) []byte { return append([]byte{}, realm...) }

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
// for it in the index of due mails, and read all that a realm has there. It
// removes entries of the history one after the other: for a list of pairs
// PostgreSQL may read all that a realm has, for the reason of Dialect.inRealm.
func (s *Store) remove(ctx context.Context, c Conn, t table, rows []row) error {
	query := s.dialect.deleteByKey(t.name) + ` WHERE `
	switch t.name {
	case historyTable:
		for _, r := range rows {
			if err := exec(ctx, c, query+`realm = ? AND user_id = ? AND id = ?`, notNil(r.realm), r.user, r.key); err != nil {
				return err
			}
		}
		return nil
	case locksTable:
		users := make(map[string][]any) // by realm
		for _, r := range rows {
			users[string(r.realm)] = append(users[string(r.realm)], r.user)
		}
		for _, realm := range slices.Sorted(maps.Keys(users)) {
			if err := s.execByKeys(ctx, c, s.dialect.maxRemoved, query+`realm = ? AND user_id IN `, users[realm], []byte(realm)); err != nil {
				return err
			}
		}
		return nil
	}
	var keys []any
	for _, r := range rows {
		keys = append(keys, r.key)
	}
	return s.execByKeys(ctx, c, s.dialect.maxRemoved, query+t.key+` IN `, keys)
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
		err := s.record(ctx, c, entry{realm: notNil(m.realm), userID: string(m.user), id: m.key, kind: kind, made: now},
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
