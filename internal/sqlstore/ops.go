package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gopassreset/reset"
)

// IsVerdict reports whether an Op ended with an answer rather than a failure.
// It has then changed nothing, or no more than added the lock row of a user,
// which tells nobody anything: it need not be undone.
func IsVerdict(err error) bool {
	return errors.Is(err, reset.ErrTooManyRequests) || errors.Is(err, reset.ErrGone) || errors.Is(err, reset.ErrInvalidActivation)
}

// Strings are bound as bytes, for columns of bytes: so they are equal only to
// themselves, whatever the collation, and bun, which writes arguments into the
// statement, writes them in hexadecimal. Empty ones are NULL.
func text(s string) any {
	if s == "" {
		return nil
	}
	return []byte(s)
}

// The most that MySQL's columns hold. Without strict mode it would truncate.
const (
	maxUserID = 255
	maxText   = 65_535
)

func checkUserID(id string) error {
	if id == "" || len(id) > maxUserID {
		return fmt.Errorf("user id has %d bytes, not 1 to %d", len(id), maxUserID)
	}
	return nil
}

func checkText(texts ...string) error {
	for _, s := range texts {
		if len(s) > maxText {
			return fmt.Errorf("text of %d bytes, at most %d can be stored", len(s), maxText)
		}
	}
	return nil
}

func orNULL(id reset.ID) any {
	if id == (reset.ID{}) {
		return nil
	}
	return id[:]
}

func newID(now time.Time) (id reset.ID) {
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16)
	rand.Read(id[6:]) // never fails
	return id
}

func exec(ctx context.Context, c Conn, query string, args ...any) error {
	_, err := c.ExecContext(ctx, query, args...)
	return err
}

// each calls f for every row. f may scan but makes no statement.
func each(ctx context.Context, c Conn, f func(*sql.Rows) error, query string, args ...any) error {
	rows, err := c.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// exists reports whether a query has a row.
func exists(ctx context.Context, c Conn, query string, args ...any) (found bool, err error) {
	err = each(ctx, c, func(*sql.Rows) error { found = true; return nil }, query, args...)
	return found, err
}

// lock makes every other transaction that locks the user wait for the end of
// this one. A transaction that reads before it writes begins with it: a row
// that is there to be written keeps the cap at every isolation level, where
// SELECT ... FOR UPDATE can't lock the rows that are not there yet. On SQLite
// nobody else is writing. until is when the row may be removed at the earliest.
func (s *Store) lock(ctx context.Context, c Conn, userID string, until time.Time) error {
	if s.dialect.IsSQLite() {
		return nil
	}
	return s.addLock(ctx, c, userID, until)
}

// addLock is a lock that leaves a row in any case.
func (s *Store) addLock(ctx context.Context, c Conn, userID string, until time.Time) error {
	return exec(ctx, c,
		`INSERT INTO reset_locks (user_id, claim_until, expires) VALUES (?, 0, ?) `+s.dialect.onConflict,
		text(userID), until.UnixMilli())
}

func insertMail(ctx context.Context, c Conn, m reset.Mail) error {
	if m.UserID != "" {
		if err := checkUserID(m.UserID); err != nil {
			return err
		}
	}
	if err := checkText(m.Email, m.Name, m.Locale); err != nil {
		return err
	}
	return exec(ctx, c,
		`INSERT INTO reset_mails (id, kind, user_id, email, name, locale, due, expires, attempts, lease) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		m.ID[:], text(string(m.Kind)), text(m.UserID), text(m.Email), text(m.Name), text(m.Locale),
		m.Due.UnixMilli(), m.Expires.UnixMilli(), m.Attempts, orNULL(m.Lease))
}

func (s *Store) issue(ctx context.Context, c Conn, now time.Time, a reset.Activation, max int, m *reset.Mail) error {
	if max < 1 {
		return fmt.Errorf("at most %d requests", max)
	}
	if err := cmp.Or(checkUserID(a.UserID), checkText(a.Email)); err != nil {
		return err
	}
	if err := s.lock(ctx, c, a.UserID, a.Expires); err != nil {
		return err
	}
	leased := m != nil && m.Lease != reset.ID{}
	if leased {
		if err := s.hold(ctx, c, *m, a.UserID); err != nil {
			return err
		}
	}
	if err := checkCap(ctx, c, now, a, max); err != nil {
		return err
	}
	err := exec(ctx, c,
		`INSERT INTO reset_activations (hash, request, user_id, email, expires) VALUES (?, ?, ?, ?, ?)`,
		a.Hash[:], a.Request[:], text(a.UserID), text(a.Email), a.Expires.UnixMilli())
	switch {
	case err != nil || m == nil:
		return err
	case leased:
		return exec(ctx, c, `UPDATE reset_mails SET user_id = ?, due = ? WHERE id = ?`,
			text(a.UserID), m.Due.UnixMilli(), m.ID[:])
	default:
		return insertMail(ctx, c, *m)
	}
}

// hold locks m, or returns ErrGone if it is not under its lease any more or is
// another user's. An UPDATE would not tell: MySQL does not count the rows that
// it leaves as they are.
func (s *Store) hold(ctx context.Context, c Conn, m reset.Mail, userID string) error {
	held, err := exists(ctx, c,
		`SELECT id FROM reset_mails WHERE id = ? AND lease = ? AND kind = ? AND (user_id IS NULL OR user_id = ?)`+s.dialect.forUpdate,
		m.ID[:], m.Lease[:], text(string(reset.MailReset)), text(userID))
	if err == nil && !held {
		return reset.ErrGone
	}
	return err
}

// checkCap returns a *LimitError if a would be one request too many. What is
// claimed counts, since it may be given back.
func checkCap(ctx context.Context, c Conn, now time.Time, a reset.Activation, max int) error {
	var ends []int64 // of the requests that count, in order
	joins := false
	err := each(ctx, c, func(r *sql.Rows) error {
		var request []byte
		var expires int64
		var live bool
		if err := r.Scan(&request, &expires, &live); err != nil {
			return err
		}
		ends = append(ends, expires)
		joins = joins || live && bytes.Equal(request, a.Request[:])
		return nil
	}, `SELECT request, MAX(expires), MAX(CASE WHEN claim IS NULL THEN 1 ELSE 0 END) FROM reset_activations WHERE user_id = ? AND expires > ?
		AND (claim IS NULL OR claim IN (SELECT claim FROM reset_locks WHERE user_id = ? AND claim_until > ?)) GROUP BY request ORDER BY 2`,
		text(a.UserID), now.UnixMilli(), text(a.UserID), now.UnixMilli())
	if err != nil || joins || len(ends) < max {
		return err
	}
	// One more fits when as many have expired as there are too many.
	wait := ends[len(ends)-max] - now.UnixMilli()
	return &reset.LimitError{RetryAfter: time.Duration(wait) * time.Millisecond}
}

func find(ctx context.Context, c Conn, now time.Time, h reset.Hash) (reset.Activation, error) {
	a := reset.Activation{Hash: h}
	found := false
	err := each(ctx, c, func(r *sql.Rows) error {
		var request, userID, email []byte
		var expires int64
		if err := r.Scan(&request, &userID, &email, &expires); err != nil {
			return err
		}
		found = true
		copy(a.Request[:], request)
		a.UserID, a.Email, a.Expires = string(userID), string(email), fromMillis(expires)
		return nil
	}, `SELECT request, user_id, email, expires FROM reset_activations WHERE hash = ? AND expires > ? AND claim IS NULL`,
		h[:], now.UnixMilli())
	if err == nil && !found {
		err = reset.ErrInvalidActivation
	}
	return a, err
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// checkLive returns ErrInvalidActivation for what can't be redeemed.
func checkLive(ctx context.Context, c Conn, now time.Time, a reset.Activation) error {
	live, err := exists(ctx, c,
		`SELECT hash FROM reset_activations WHERE hash = ? AND user_id = ? AND expires > ? AND claim IS NULL`,
		a.Hash[:], text(a.UserID), now.UnixMilli())
	if err == nil && !live {
		return reset.ErrInvalidActivation
	}
	return err
}

// use does all that Redeem has to do, but for apply.
func (s *Store) use(ctx context.Context, c Conn, now time.Time, a reset.Activation, notification reset.Mail) error {
	if err := s.lock(ctx, c, a.UserID, now); err != nil {
		return err
	}
	if err := checkLive(ctx, c, now, a); err != nil {
		return err
	}
	if err := s.removeAll(ctx, c, a.UserID); err != nil {
		return err
	}
	return insertMail(ctx, c, notification)
}

func (s *Store) removeAll(ctx context.Context, c Conn, userID string) error {
	if err := exec(ctx, c, s.dialect.deleteOf("reset_activations"), text(userID)); err != nil {
		return err
	}
	return exec(ctx, c, s.dialect.deleteOf("reset_mails")+` AND kind = ?`, text(userID), text(string(reset.MailReset)))
}

// claim makes the user's live activations not live and keeps others from
// claiming until the claim is settled or its time is over.
func (s *Store) claim(ctx context.Context, c Conn, now time.Time, a reset.Activation, claim reset.ID) error {
	until := now.Add(claimTime).UnixMilli()
	if err := s.addLock(ctx, c, a.UserID, now); err != nil {
		return err
	}
	held, err := exists(ctx, c, `SELECT user_id FROM reset_locks WHERE user_id = ? AND claim_until > ?`,
		text(a.UserID), now.UnixMilli())
	if err != nil {
		return err
	}
	if held {
		return reset.ErrInvalidActivation
	}
	if err := checkLive(ctx, c, now, a); err != nil {
		return err
	}
	err = exec(ctx, c, `UPDATE reset_activations`+s.dialect.byUser("reset_activations")+` SET claim = ? WHERE user_id = ? AND expires > ? AND claim IS NULL`,
		claim[:], text(a.UserID), now.UnixMilli())
	if err != nil {
		return err
	}
	return exec(ctx, c,
		`UPDATE reset_locks SET claim = ?, claim_until = ?, expires = CASE WHEN expires < ? THEN ? ELSE expires END WHERE user_id = ?`,
		claim[:], until, until, until, text(a.UserID))
}

// settleClaim ends a claim as outcome says.
func (s *Store) settleClaim(ctx context.Context, c Conn, a reset.Activation, claim reset.ID, outcome outcome, notification reset.Mail) error {
	if err := s.addLock(ctx, c, a.UserID, time.UnixMilli(0)); err != nil {
		return err
	}
	var err error
	switch outcome {
	case changed:
		if err = s.removeAll(ctx, c, a.UserID); err == nil {
			err = insertMail(ctx, c, notification)
		}
	case notChanged:
		err = exec(ctx, c, `UPDATE reset_activations`+s.dialect.byUser("reset_activations")+` SET claim = NULL WHERE user_id = ? AND claim = ?`,
			text(a.UserID), claim[:])
	}
	if err != nil {
		return err
	}
	return exec(ctx, c, `UPDATE reset_locks SET claim = NULL, claim_until = 0 WHERE user_id = ? AND claim = ?`, text(a.UserID), claim[:])
}

func (s *Store) revoke(ctx context.Context, c Conn, userID string) error {
	if userID == "" {
		return nil // public requests are not bound to a user
	}
	if err := s.lock(ctx, c, userID, time.UnixMilli(0)); err != nil {
		return err
	}
	return s.removeAll(ctx, c, userID)
}

func (s *Store) anyDue(ctx context.Context, c Conn, now time.Time) (bool, error) {
	return exists(ctx, c, `SELECT id`+s.dialect.dueMails, now.UnixMilli(), now.UnixMilli(), 1)
}

func (s *Store) lease(ctx context.Context, c Conn, now, until time.Time, n int) ([]reset.Mail, error) {
	var mails []reset.Mail
	var ids []any
	lease := newID(now)
	err := each(ctx, c, func(r *sql.Rows) error {
		m, err := scanMail(r)
		if err != nil {
			return err
		}
		ids = append(ids, m.ID[:])
		m.WasDue = m.Due
		m.Due, m.Lease, m.Attempts = fromMillis(until.UnixMilli()), lease, m.Attempts+1
		mails = append(mails, m)
		return nil
	}, `SELECT id, kind, user_id, email, name, locale, due, expires, attempts`+s.dialect.dueMails+s.dialect.skipLocked,
		now.UnixMilli(), now.UnixMilli(), n)
	if err != nil || len(mails) == 0 {
		return nil, err
	}
	return mails, s.execByKeys(ctx, c, `UPDATE reset_mails SET due = ?, lease = ?, attempts = attempts + 1 WHERE id IN `,
		ids, until.UnixMilli(), lease[:])
}

func scanMail(r *sql.Rows) (m reset.Mail, err error) {
	var id, kind, userID, email, name, locale []byte
	var due, expires int64
	if err := r.Scan(&id, &kind, &userID, &email, &name, &locale, &due, &expires, &m.Attempts); err != nil {
		return m, err
	}
	copy(m.ID[:], id)
	m.Kind, m.UserID, m.Due, m.Expires = reset.MailKind(kind), string(userID), fromMillis(due), fromMillis(expires)
	m.Email, m.Name, m.Locale = string(email), string(name), string(locale)
	return m, nil
}

// execByKeys runs query once or several times, with a list of keys at its end.
func (s *Store) execByKeys(ctx context.Context, c Conn, query string, keys []any, args ...any) error {
	for some := range slices.Chunk(keys, s.dialect.maxKeys) {
		if err := exec(ctx, c, query+list(len(some)), slices.Concat(args, some)...); err != nil {
			return err
		}
	}
	return nil
}

// list returns a parenthesized list of n placeholders.
func list(n int) string { return "(?" + strings.Repeat(", ?", n-1) + ")" }

func settle(ctx context.Context, c Conn, d reset.Settlement) error {
	if d.Retry.IsZero() {
		return exec(ctx, c, `DELETE FROM reset_mails WHERE id = ? AND lease = ?`, d.Mail[:], d.Lease[:])
	}
	set := `due = ?, lease = NULL`
	switch {
	case d.Held:
		set = `due = ?`
	case d.Unspent:
		set += `, attempts = attempts - 1`
	}
	return exec(ctx, c, `UPDATE reset_mails SET `+set+` WHERE id = ? AND lease = ?`, d.Retry.UnixMilli(), d.Mail[:], d.Lease[:])
}

// settleAll locks the users first, in order, so that nobody who removes what they
// have holds one of the mails and waits for another.
func (s *Store) settleAll(ctx context.Context, c Conn, done []reset.Settlement) error {
	if !s.dialect.IsSQLite() {
		users := make(map[string]bool)
		for _, d := range done {
			user, err := userOf(ctx, c, d)
			if err != nil {
				return err
			}
			users[string(user)] = true
		}
		delete(users, "") // nobody's
		for _, user := range slices.Sorted(maps.Keys(users)) {
			if err := s.lock(ctx, c, user, time.UnixMilli(0)); err != nil {
				return err
			}
		}
	}
	for _, d := range slices.SortedFunc(slices.Values(done), byMail) {
		if err := settle(ctx, c, d); err != nil {
			return err
		}
	}
	return nil
}

func byMail(a, b reset.Settlement) int { return bytes.Compare(a.Mail[:], b.Mail[:]) }

// userOf returns whom a mail is bound to, nil if to nobody. That changes only
// under its lease.
func userOf(ctx context.Context, c Conn, d reset.Settlement) (user []byte, err error) {
	err = each(ctx, c, func(r *sql.Rows) error { return r.Scan(&user) },
		`SELECT user_id FROM reset_mails WHERE id = ? AND lease = ?`, d.Mail[:], d.Lease[:])
	return user, err
}

// A table is one whose rows expire.
type table struct{ name, key string }

const locksTable = "reset_locks"

// tables is in the order in which Revoke locks them.
var tables = []table{{locksTable, "user_id"}, {"reset_activations", "hash"}, {"reset_mails", "id"}}

// A row is one to be purged.
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

// purge passes over rows that somebody has locked: they are being removed, or
// will be there the next time.
func (s *Store) purge(ctx context.Context, c Conn, now time.Time, n int) (removed int, err error) {
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
