package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/gopassreset/reset"
)

func (s *Store) insertMail(ctx context.Context, c Conn, m reset.Mail) error {
	if err := s.checkMail(m); err != nil {
		return err
	}
	args := s.mailArgs(m)
	return exec(ctx, c, insertMail+` VALUES `+list(len(args)), args...)
}

func (s *Store) checkMail(m reset.Mail) error {
	if m.UserID != "" {
		if err := checkUserID(m.UserID); err != nil {
			return err
		}
	}
	return cmp.Or(s.checkRealm(), checkText(m.Email, m.Name, m.Locale))
}

const insertMail = `INSERT INTO reset_mails (realm, id, kind, user_id, email, name, locale, class, due, expires, attempts, lease)`

func (s *Store) mailArgs(m reset.Mail) []any {
	return []any{s.realm, m.ID[:], text(string(m.Kind)), text(m.UserID), text(m.Email), text(m.Name), text(m.Locale),
		m.Class, m.Due.UnixMilli(), m.Expires.UnixMilli(), m.Attempts, orNULL(m.Lease)}
}

// dueIDs returns the ids of the first n mails that are due or, unless these are
// needed, of one.
func (s *Store) dueIDs(ctx context.Context, c Conn, now time.Time, n int) (ids []any, err error) {
	query, args := `SELECT id`+s.dialect.dueMails, []any{s.realm, now.UnixMilli(), now.UnixMilli(), 1}
	if s.dialect.leaseByKey {
		query, args = dueByClass, []any{s.realm, s.realm, s.realm, now.UnixMilli(), now.UnixMilli(), n}
	}
	err = each(ctx, c, func(r Row) error {
		var id []byte
		err := r.Scan(&id)
		ids = append(ids, id)
		return err
	}, query, args...)
	return ids, err
}

// dueByClass finds due mail on SQLite, which joins tables in the order in which
// they stand here: class by class, since within one class the index leads to the
// mail that is due, however much of another waits for later.
const dueByClass = `WITH RECURSIVE classes(class) AS (
		SELECT (SELECT min(class) FROM reset_mails WHERE realm = ?)
		UNION ALL
		SELECT (SELECT min(mail.class) FROM reset_mails AS mail WHERE mail.realm = ? AND mail.class > classes.class)
		FROM classes WHERE class IS NOT NULL)
	SELECT id FROM classes CROSS JOIN reset_mails AS mail
	WHERE mail.realm = ? AND mail.class = classes.class AND mail.due <= ? AND mail.expires > ? LIMIT ?`

func (s *Store) lease(ctx context.Context, c Conn, now, until time.Time, n int, due []any) ([]reset.Mail, error) {
	from, args := s.dialect.dueMails, []any{s.realm, now.UnixMilli(), now.UnixMilli(), n}
	if s.dialect.leaseByKey {
		due = padded(due)
		// Each + keeps SQLite from reading the index of due mails from its start
		// to find the few that are listed.
		from = ` FROM reset_mails WHERE id IN ` + list(len(due)) + ` AND +realm = ? AND +due <= ? AND +expires > ? ORDER BY +class, +due`
		args = slices.Concat(due, []any{s.realm, now.UnixMilli(), now.UnixMilli()})
	}
	var mails []reset.Mail
	var ids []any
	lease := newID(now)
	err := each(ctx, c, func(r Row) error {
		m, err := scanMail(r)
		if err != nil {
			return err
		}
		ids = append(ids, m.ID[:])
		m.WasDue = m.Due
		m.Due, m.Lease, m.Attempts = fromMillis(until.UnixMilli()), lease, m.Attempts+1
		mails = append(mails, m)
		return nil
	}, `SELECT id, kind, user_id, email, name, locale, class, due, expires, attempts`+from+s.dialect.skipLocked, args...)
	if err != nil || len(mails) == 0 {
		return nil, err
	}
	return mails, s.execByKeys(ctx, c, maxKeys, `UPDATE `+s.dialect.byKey(mailsTable)+` SET due = ?, lease = ?, attempts = attempts + 1 WHERE id IN `,
		ids, until.UnixMilli(), lease[:])
}

func scanMail(r Row) (m reset.Mail, err error) {
	var id, kind, userID, email, name, locale []byte
	var due, expires int64
	if err := r.Scan(&id, &kind, &userID, &email, &name, &locale, &m.Class, &due, &expires, &m.Attempts); err != nil {
		return m, err
	}
	copy(m.ID[:], id)
	m.Kind, m.UserID, m.Due, m.Expires = reset.MailKind(kind), string(userID), fromMillis(due), fromMillis(expires)
	m.Email, m.Name, m.Locale = string(email), string(name), string(locale)
	return m, nil
}

// maxKeys is how many primary keys a statement may list.
const maxKeys = 1000

// execByKeys runs query once or several times, with a list of at most n keys at
// its end.
func (s *Store) execByKeys(ctx context.Context, c Conn, n int, query string, keys []any, args ...any) error {
	for some := range slices.Chunk(keys, n) {
		some = padded(some)
		if err := exec(ctx, c, query+list(len(some)), slices.Concat(args, some)...); err != nil {
			return err
		}
	}
	return nil
}

// settleOne is Settle for one mail.
func settleOne(ctx context.Context, s *Store, done reset.Settlement) error {
	if !hasNote(done) {
		return s.backend.WriteOne(ctx, func(ctx context.Context, c Conn) error {
			query, args := s.settling(done)
			return exec(ctx, c, query, args...)
		})
	}
	return s.backend.Write(ctx, func(ctx context.Context, c Conn) error {
		return settleEach(ctx, s, c, []reset.Settlement{done})
	})
}

// settling returns the statement that settles a mail.
func (s *Store) settling(d reset.Settlement) (query string, args []any) {
	if d.Retry.IsZero() {
		return s.dialect.deleteByKey("reset_mails") + ` WHERE ` + s.dialect.inRealm + ` AND id = ? AND lease = ?`, []any{s.realm, d.Mail[:], d.Lease[:]}
	}
	set, args := `due = ?`, []any{d.Retry.UnixMilli()}
	if !d.Held {
		set, args = set+`, lease = NULL, class = ?`, append(args, d.Class)
		if d.Unspent {
			set += `, attempts = attempts - 1`
		}
	}
	return `UPDATE ` + s.dialect.byKey("reset_mails") + ` SET ` + set + ` WHERE ` + s.dialect.inRealm + ` AND id = ? AND lease = ?`, append(args, s.realm, d.Mail[:], d.Lease[:])
}

// settle runs such a statement and reports whether to record the note. It does
// not if the mail is held under another lease.
func (s *Store) settle(ctx context.Context, c Conn, d reset.Settlement, query string, args []any) (noted bool, err error) {
	if !hasNote(d) {
		return false, exec(ctx, c, query, args...)
	}
	n, err := execCount(ctx, c, query, args...)
	if err != nil || n > 0 {
		return err == nil, err
	}
	held, err := exists(ctx, c, `SELECT id FROM reset_mails WHERE `+s.dialect.inRealm+` AND id = ?`, s.realm, d.Mail[:])
	return err == nil && !held, err
}

// settleEach writes the history last: whoever locks an entry of a mail that is
// queued has locked the mail.
func settleEach(ctx context.Context, s *Store, c Conn, done []reset.Settlement) error {
	var noted []reset.Settlement
	for _, d := range slices.SortedFunc(slices.Values(done), byMail) {
		query, args := s.settling(d)
		note, err := s.settle(ctx, c, d, query, args)
		if err != nil {
			return err
		}
		if note {
			noted = append(noted, d)
		}
	}
	return s.note(ctx, c, noted...)
}

func byMail(a, b reset.Settlement) int { return bytes.Compare(a.Mail[:], b.Mail[:]) }

// settleLocked locks the users first, in order: nobody who removes a user's
// mails then holds one of these and waits for another.
func settleLocked(ctx context.Context, s *Store, c Conn, done []reset.Settlement) error {
	users, leased := make(map[string]bool), make(map[[2]reset.ID]bool)
	var ids []any
	for _, d := range done {
		leased[[2]reset.ID{d.Mail, d.Lease}] = true
		ids = append(ids, d.Mail[:])
		if hasNote(d) {
			users[d.Note.UserID] = true
		}
	}
	ids = padded(ids)
	err := each(ctx, c, func(r Row) error {
		var id, user, lease []byte
		err := r.Scan(&id, &user, &lease)
		var key [2]reset.ID
		copy(key[0][:], id)
		copy(key[1][:], lease)
		if leased[key] {
			users[string(user)] = true
		}
		return err
	}, `SELECT id, user_id, lease FROM reset_mails WHERE `+s.dialect.inRealm+` AND id IN `+list(len(ids)), append([]any{s.realm}, ids...)...)
	if err != nil {
		return err
	}
	delete(users, "") // of public requests
	if err := s.lockAll(ctx, c, time.UnixMilli(0), slices.Sorted(maps.Keys(users))...); err != nil {
		return err
	}
	return settleEach(ctx, s, c, done)
}

// userOf returns the user a mail is bound to, or nil. That changes only under
// the mail's lease.
func (s *Store) userOf(ctx context.Context, c Conn, d reset.Settlement) (user any, err error) {
	err = each(ctx, c, func(r Row) error {
		var id []byte
		err := r.Scan(&id)
		user = text(string(id))
		return err
	}, `SELECT user_id FROM reset_mails WHERE realm = ? AND id = ? AND lease = ?`, s.realm, d.Mail[:], d.Lease[:])
	return user, err
}
