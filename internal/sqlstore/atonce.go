package sqlstore

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/gopassreset/reset"
)

// issueAtOnce issues without a transaction of several statements.
func (s *Store) issueAtOnce(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (done bool, err error) {
	err = s.backend.WriteOne(ctx, func(ctx context.Context, c Conn) (err error) {
		done, err = s.dialect.issueAtOnce(ctx, s, c, now, a, limits, m)
		if ctx.Err() == nil && s.dialect.Busy(err) {
			return nil // waiting for the lock first is better than to try again
		}
		return err
	})
	return done, err
}

// issueAtOnce is Issue on PostgreSQL where nobody else is at the same user and
// the limits allow it: nearly always. All parts of a statement see the database
// as it was when the statement began, before it had the lock. So the parts that
// insert do so only if the lock row was then as this statement has found it when
// it got the lock: nobody has had the lock in between.
//
// Where the server's default is another isolation level than READ COMMITTED, a
// statement that has waited for the lock would fail: it does nothing there.
//
// Each part takes its rows from the one before, which keeps the order of locks:
// the user, the mail, its entry in the history.
func issueAtOnce(ctx context.Context, s *Store, c Conn, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (bool, error) {
	var q parts
	user, ms, first := text(a.UserID), now.UnixMilli(), firstWritten()
	leased := isLeased(m)
	public := leased && m.UserID == ""

	q.add(`WITH known AS (SELECT written, claim, claim_until, quiet_until FROM reset_locks WHERE realm = ? AND user_id = ?)`, s.realm, user)
	q.add(`, locked AS (`+lockColumns+` SELECT ?, ?, 0, ?, ? WHERE current_setting('transaction_isolation') = 'read committed'`+lockAgain+` RETURNING written)`,
		s.realm, user, a.Expires.UnixMilli(), first)
	q.add(`, allowed AS (SELECT written FROM locked WHERE written = COALESCE((SELECT written + 1 FROM known), ?)
		AND (SELECT count(DISTINCT request) < ? OR bool_or(request = ? AND claim IS NULL) FROM reset_activations WHERE realm = ? AND user_id = ? AND `+unexpired+`
			AND (claim IS NULL OR claim IN (SELECT claim FROM known WHERE claim_until > ?)))`,
		first, limits.MaxRequests, a.Request[:], s.realm, user, ms, ms)
	if public {
		q.add(` AND NOT EXISTS (SELECT 1 FROM known WHERE quiet_until > ?)
			AND (SELECT `+withinBudget+` FROM reset_history WHERE realm = ? AND user_id = ? AND bound > ?)`,
			slices.Concat([]any{ms}, budgetArgs(now, limits), []any{s.realm, user, now.Add(-day).UnixMilli()})...)
	}
	q.add(`)`)
	from := `allowed`
	switch {
	case leased:
		q.add(`, mail AS (UPDATE reset_mails SET user_id = ?, due = ? FROM allowed WHERE `+s.dialect.inRealm+` AND id = ? AND lease = ? AND kind = ? AND `,
			user, m.Due.UnixMilli(), s.realm, m.ID[:], m.Lease[:], text(string(reset.MailReset)))
		if public {
			q.add(`user_id IS NULL`)
		} else {
			q.add(`user_id = ?`, user)
		}
		q.add(` RETURNING id)`)
		from = `mail`
	case m != nil:
		args := s.mailArgs(*m)
		q.add(`, mail AS (`+insertMail+` SELECT `+values(len(args))+` FROM allowed)`, args...)
	}
	if e, set := s.entryIssued(now, a.Request, &a, m, public); e != nil {
		insert, args, change, again := s.recording(*e, set)
		q.add(`, entry AS (`+insert+` SELECT `+values(len(args))+` FROM `+from+change+`)`, append(args, again...)...)
	}
	q.add(` `+insertActivation+` SELECT `+values(6)+` FROM `+from, s.activationArgs(a)...)
	n, err := execCount(ctx, c, q.String(), q.args...)
	return n == 1, err
}

// parts are those of a statement.
type parts struct {
	strings.Builder
	args []any
}

func (p *parts) add(text string, args ...any) {
	p.WriteString(text)
	p.args = append(p.args, args...)
}

// values returns a list of n placeholders.
func values(n int) string { return strings.Trim(list(n), "()") }
