package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/gopassreset/reset"
)

// The history is a table of one row for each request or mail of a user, in the
// order of users. For public requests it is the budget of Issue as well, so that
// it costs no row of its own.
//
// An entry of a mail that is queued is written only by who has locked the mail.
// That a mail was sent is not written: it is gone, and an attempt of it is open
// (attempted is not 0).

// KeepHistory implements reset.HistoryStore.
func (s *Store) KeepHistory(d time.Duration) { s.keep.Store(int64(d)) }

func (s *Store) kept() time.Duration { return time.Duration(s.keep.Load()) }

// An entry is a row, or what is to become one.
type entry struct {
	realm  []byte
	userID string
	id     []byte
	kind   reset.HistoryKind
	bound  time.Time // when a public request was bound to the user, for the budget; zero: it was not
	made   time.Time
}

// A value is that of a column.
type value struct {
	column string
	value  any
	isNew  bool // of a new entry: one that is there keeps its own
}

func set(column string, v any) value { return value{column: column, value: v} }

// record inserts an entry, or sets values of one that is there. Where no history
// is kept it inserts only what the budget needs.
func (s *Store) record(ctx context.Context, c Conn, e entry, values ...value) error {
	if s.kept() <= 0 && e.bound.IsZero() {
		return s.change(ctx, c, e, values)
	}
	insert, args, changes, again := s.recording(e, values)
	return exec(ctx, c, insert+` VALUES `+list(len(args))+changes, append(args, again...)...)
}

// recording returns the parts of the statement that inserts an entry or sets
// values of one that is there, and the arguments of either.
func (s *Store) recording(e entry, values []value) (insert string, args []any, change string, again []any) {
	var bound int64
	if !e.bound.IsZero() {
		bound = e.bound.UnixMilli()
	}
	columns := `realm, user_id, id, kind, bound, expires`
	args = []any{e.realm, text(e.userID), e.id, text(string(e.kind)), bound, e.made.Add(max(s.kept(), day)).UnixMilli()}
	var changes []string
	for _, v := range values {
		columns += ", " + v.column
		args = append(args, v.value)
		switch {
		case v.isNew:
		case v.column == "requests":
			changes = append(changes, "requests = reset_history.requests + ?")
			again = append(again, v.value)
		case !s.dialect.valuesTwice:
			changes = append(changes, v.column+" = excluded."+v.column)
		default:
			changes = append(changes, v.column+" = ?")
			again = append(again, v.value)
		}
	}
	if len(changes) == 0 {
		changes = []string{"kind = reset_history.kind"}
	}
	return `INSERT INTO reset_history (` + columns + `)`, args, s.dialect.addEntry + strings.Join(changes, ", "), again
}

// change sets values of an entry that may be there.
func (s *Store) change(ctx context.Context, c Conn, e entry, values []value) error {
	var changes []string
	var args []any
	for _, v := range values {
		switch {
		case v.isNew:
			continue
		case v.column == "requests":
			changes = append(changes, "requests = requests + ?")
		default:
			changes = append(changes, v.column+" = ?")
		}
		args = append(args, v.value)
	}
	if len(changes) == 0 {
		return nil
	}
	return exec(ctx, c, `UPDATE `+s.dialect.byKey(historyTable)+` SET `+strings.Join(changes, ", ")+` WHERE realm = ? AND user_id = ? AND id = ?`,
		append(args, e.realm, text(e.userID), e.id)...)
}

// kindOf returns the kind of a mail that is bound to a user and has no entry
// yet: a public request has had one since it was bound.
func kindOf(kind reset.MailKind) reset.HistoryKind {
	if kind == reset.MailNotification {
		return reset.HistoryNotification
	}
	return reset.HistoryTrusted
}

func hasNote(d reset.Settlement) bool { return d.Note != nil && d.Note.UserID != "" }

// note records the notes of settlements, in the order of entries.
func (s *Store) note(ctx context.Context, c Conn, done ...reset.Settlement) error {
	idOf := func(d reset.Settlement) reset.ID { return cmp.Or(d.Note.ID, d.Mail) }
	slices.SortFunc(done, func(a, b reset.Settlement) int {
		x, y := idOf(a), idOf(b)
		return cmp.Or(cmp.Compare(a.Note.UserID, b.Note.UserID), bytes.Compare(x[:], y[:]))
	})
	for _, d := range done {
		n, id, at := d.Note, idOf(d), d.Note.At.UnixMilli()
		if err := cmp.Or(s.checkRealm(), checkUserID(n.UserID), checkText(n.Refusal)); err != nil {
			return err
		}
		values := []value{set("attempted", 0)}
		if n.Requests > 0 {
			values = append(values, set("requests", n.Requests))
		}
		if n.Attempts > 0 {
			values = append(values, set("attempts", n.Attempts))
		}
		if n.Refusal != "" {
			values = append(values, set("refused", at), set("refusal", text(n.Refusal)))
		}
		if n.Outcome != "" {
			values = append(values, set("outcome", text(string(n.Outcome))), set("outcome_at", at))
		}
		if n.Requests > 0 && n.Refusal == "" && n.Outcome == "" { // it is not about an attempt
			values = values[1:]
		}
		if err := s.record(ctx, c, entry{realm: s.realm, userID: n.UserID, id: id[:], kind: n.Kind, made: n.At}, values...); err != nil {
			return err
		}
	}
	return nil
}

// entryIssued returns the entry of an activation of the request with an id, for
// an attempt to send m or, if m is nil, for a trusted caller. It returns nil if
// there is nothing to record.
func (s *Store) entryIssued(now time.Time, id reset.ID, a *reset.Activation, m *reset.Mail, public bool) (*entry, []value) {
	e := &entry{realm: s.realm, userID: a.UserID, id: id[:], kind: reset.HistoryTrusted, made: now}
	switch {
	case m != nil && m.Lease == (reset.ID{}): // nobody attempts to send it yet
		return nil, nil
	case public:
		e.kind, e.bound = reset.HistoryPublic, now
	case s.kept() <= 0:
		return nil, nil
	}
	values := []value{set("ends", a.Expires.UnixMilli())}
	if m != nil {
		attempted := max(now.UnixMilli(), m.Lease.Time().UnixMilli()) // the clock may have been corrected since the lease
		values = append(values, set("attempts", m.Attempts), set("attempted", attempted))
	}
	if a.Request != id {
		values = append(values, set("joined", a.Request[:]))
	}
	return e, values
}

// An ending is what ends the requests of a user.
type ending struct {
	now     time.Time
	request reset.ID // that was redeemed; zero: all are revoked
}

// record records what becomes of a user's requests, and of the mails that were
// removed with them, which have leases. One with an attempt under its lease may be
// on its way: whoever sends it records how that ended.
func (e ending) record(ctx context.Context, s *Store, c Conn, userID string, mails []row, leases []reset.ID) error {
	now := e.now.UnixMilli()
	for i, m := range mails {
		leased := leases[i] != reset.ID{}
		err := s.record(ctx, c, entry{realm: s.realm, userID: userID, id: m.key, kind: reset.HistoryTrusted, made: e.now},
			value{"ends", m.expires, true},
			value{"outcome", text(string(reset.OutcomeWithdrawn)), leased},
			value{"outcome_at", now, leased},
			value{"attempted", 0, leased})
		if err == nil && leased {
			err = exec(ctx, c, `UPDATE `+s.dialect.byKey(historyTable)+` SET outcome = ?, outcome_at = ?, attempted = 0
				WHERE realm = ? AND user_id = ? AND id = ? AND outcome IS NULL AND attempted < ?`,
				text(string(reset.OutcomeWithdrawn)), now, s.realm, text(userID), m.key, leases[i].Time().UnixMilli())
		}
		if err != nil {
			return err
		}
	}
	how, args := `?`, []any{text(string(reset.RequestRevoked))}
	if e.request != (reset.ID{}) {
		// Without the column PostgreSQL would take the values for text.
		how = `CASE WHEN id = ? OR joined = ? THEN ? ELSE COALESCE(ending, ?) END`
		args = []any{e.request[:], e.request[:], text(string(reset.RequestRedeemed)), text(string(reset.RequestSuperseded))}
	}
	return exec(ctx, c, `UPDATE `+s.dialect.byKey(historyTable)+` SET ending = `+how+`, ended = ? WHERE realm = ? AND user_id = ? AND ends > ? AND ending IS NULL`,
		append(args, now, s.realm, text(userID), now)...)
}

// resetMails locks and returns a user's reset mails and their leases.
func (s *Store) resetMails(ctx context.Context, c Conn, userID string) (mails []row, leases []reset.ID, err error) {
	err = each(ctx, c, func(r Row) error {
		var m row
		var id reset.ID
		var lease []byte
		err := r.Scan(&m.key, &m.expires, &lease)
		copy(id[:], lease)
		mails, leases = append(mails, m), append(leases, id)
		return err
	}, `SELECT id, expires, lease FROM `+s.dialect.byUser(mailsTable)+` WHERE `+s.dialect.inRealm+` AND user_id = ? AND kind = ?`+s.dialect.forUpdate,
		s.realm, text(userID), text(string(reset.MailReset)))
	return mails, leases, err
}

// selectHistory returns one statement, so that it sees the queue and the history
// at one moment. A mail that has no entry yet is in its second half.
func (s *Store) selectHistory() string {
	return `WITH mails AS (SELECT id, kind, due, attempts, lease FROM reset_mails WHERE ` + s.dialect.inRealm + ` AND user_id = ?)
	SELECT h.id, h.kind, h.requests, h.attempts, h.attempted, h.refused, h.refusal, h.outcome, h.outcome_at, h.joined, h.ends, h.ending, h.ended,
		m.id, m.due, m.attempts, m.lease
	FROM (SELECT * FROM reset_history WHERE realm = ? AND user_id = ? AND ` + unexpired + ` ORDER BY id DESC LIMIT ?) AS h
	LEFT JOIN mails AS m ON m.id = h.id
	UNION ALL SELECT m.id, m.kind, 0, 0, 0, 0, NULL, NULL, 0, NULL, 0, NULL, 0, m.id, m.due, m.attempts, m.lease
	FROM mails AS m WHERE NOT EXISTS (SELECT 1 FROM reset_history AS h WHERE h.realm = ? AND h.user_id = ? AND h.id = m.id)
	ORDER BY 1 DESC LIMIT ?`
}

// History implements reset.HistoryStore.
func (s *Store) History(ctx context.Context, now time.Time, userID string, n int) (entries []reset.HistoryEntry, err error) {
	if s.kept() <= 0 || n < 1 || userID == "" {
		return nil, nil
	}
	user := text(userID)
	err = s.backend.Read(ctx, func(ctx context.Context, c Conn) error {
		entries = nil
		return each(ctx, c, func(r Row) error {
			e, err := scanEntry(r)
			entries = append(entries, e)
			return err
		}, s.selectHistory(), s.realm, user, s.realm, user, now.UnixMilli(), n, s.realm, user, n)
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

func scanEntry(r Row) (e reset.HistoryEntry, err error) {
	var id, kind, refusal, outcome, joined, ending, mail, lease []byte
	var attempted, refused, outcomeAt, ends, ended int64
	var due, attempts *int64
	err = r.Scan(&id, &kind, &e.Requests, &e.Attempts, &attempted, &refused, &refusal, &outcome, &outcomeAt, &joined, &ends, &ending, &ended,
		&mail, &due, &attempts, &lease)
	if err != nil {
		return e, err
	}
	copy(e.ID[:], id)
	copy(e.Joined[:], joined)
	e.Kind, e.Requests = reset.HistoryKind(kind), max(e.Requests, 1)
	if e.Kind == reset.HistoryKind(reset.MailReset) { // of a mail without an entry
		e.Kind = kindOf(reset.MailReset)
	}
	e.Refused, e.Refusal = orZero(refused), string(refusal)
	e.Expires, e.End, e.EndAt = orZero(ends), reset.RequestEnd(ending), orZero(ended)
	switch {
	case mail != nil:
		e.Queued, e.Due, e.Attempts = true, fromMillis(*due), int(*attempts)
		if lease != nil {
			e.Leased = reset.ID(lease).Time()
		}
	case outcome != nil:
		e.Outcome, e.OutcomeAt = reset.MailOutcome(outcome), fromMillis(outcomeAt)
	case attempted > 0:
		e.Outcome, e.OutcomeAt = reset.OutcomeSent, fromMillis(attempted)
	}
	return e, nil
}

// EraseHistory implements reset.HistoryStore. It joins the transaction of ctx if
// there is one.
func (s *Store) EraseHistory(ctx context.Context, userID string) error {
	erase := func(ctx context.Context, c Conn) error {
		if err := s.lock(ctx, c, userID, time.UnixMilli(0)); err != nil {
			return err
		}
		return exec(ctx, c, s.dialect.deleteByKey(historyTable)+` WHERE realm = ? AND user_id = ?`, s.realm, text(userID))
	}
	switch c, ok := s.joined(ctx); {
	case userID == "":
		return nil
	case ok:
		return erase(ctx, c)
	}
	return s.backend.Write(ctx, erase)
}
