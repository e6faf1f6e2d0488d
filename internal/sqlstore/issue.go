package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gopassreset/reset"
)

func (s *Store) checkIssue(a reset.Activation, limits reset.Limits, m *reset.Mail) error {
	if limits.MaxRequests < 1 {
		return fmt.Errorf("at most %d requests", limits.MaxRequests)
	}
	err := cmp.Or(s.checkRealm(), checkUserID(a.UserID), checkText(a.Email))
	if err == nil && m != nil && !isLeased(m) {
		err = s.checkMail(*m)
	}
	return err
}

// isLeased reports whether m is a mail that Lease has returned.
func isLeased(m *reset.Mail) bool { return m != nil && !m.WasDue.IsZero() }

func (s *Store) issue(ctx context.Context, c Conn, now time.Time, a *reset.Activation, limits reset.Limits, m *reset.Mail) error {
	if err := s.lock(ctx, c, a.UserID, a.Expires); err != nil {
		return err
	}
	id, public := a.Request, isLeased(m) && m.UserID == ""
	mailed, err := s.mailAtOnce(ctx, c, now, *a, limits, m)
	if err == nil && !mailed {
		public, err = s.admit(ctx, c, now, a, limits, m) // a may join another request
	}
	if err != nil {
		return err
	}
	err = exec(ctx, c, insertActivation+` VALUES (?, ?, ?, ?, ?, ?)`, s.activationArgs(*a)...)
	switch {
	case err != nil || mailed || m == nil:
	case isLeased(m):
		query, args := s.binding(*a, m)
		err = exec(ctx, c, query, args...)
	default:
		err = s.insertMail(ctx, c, *m)
	}
	if err != nil {
		return err
	}
	if e, values := s.entryIssued(now, id, a, m, public); e != nil {
		err = s.record(ctx, c, *e, values...)
	}
	return err
}

// mailAtOnce adds m or binds it to the user of a, as Issue does, if a is clearly
// within the limits. If it is not, mailAtOnce changes nothing, and admit decides.
// That saves a round trip on MySQL; on SQLite there are none, and PostgreSQL has
// tried as much in issueAtOnce.
func (s *Store) mailAtOnce(ctx context.Context, c Conn, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (done bool, err error) {
	if m == nil || s.dialect.asksInTurn || s.dialect.issueAtOnce != nil {
		return false, nil
	}
	var q parts
	user, ms := text(a.UserID), now.UnixMilli()
	if isLeased(m) {
		query, args := s.binding(a, m)
		q.add(query, args...)
		q.add(` AND lease = ? AND kind = ? AND `, m.Lease[:], text(string(reset.MailReset)))
	} else {
		args := s.mailArgs(*m)
		q.add(insertMail+` SELECT `+values(len(args))+` FROM DUAL WHERE `, args...)
	}
	switch {
	case !isLeased(m):
	case m.UserID != "":
		q.add(`user_id = ? AND `, user)
	default:
		q.add(`user_id IS NULL AND NOT EXISTS (SELECT 1 FROM reset_locks WHERE realm = ? AND user_id = ? AND quiet_until > ?) AND `, s.realm, user, ms)
		q.add(`(SELECT `+withinBudget+` FROM reset_history WHERE realm = ? AND user_id = ? AND bound > ?) AND `,
			append(budgetArgs(now, limits), s.realm, user, now.Add(-day).UnixMilli())...)
	}
	q.add(`(SELECT count(*) FROM `+s.dialect.byUser("reset_activations")+` WHERE realm = ? AND user_id = ? AND expires > ?) < ?`,
		s.realm, user, ms, limits.MaxRequests)
	n, err := execCount(ctx, c, q.String(), q.args...)
	return n == 1, err
}

// binding returns the statement that binds a leased mail to the user of a.
func (s *Store) binding(a reset.Activation, m *reset.Mail) (query string, args []any) {
	return `UPDATE ` + s.dialect.byKey("reset_mails") + ` SET user_id = ?, due = ? WHERE ` + s.dialect.inRealm + ` AND id = ?`,
		[]any{text(a.UserID), m.Due.UnixMilli(), s.realm, m.ID[:]}
}

// withinBudget is whether the entries of a day allow one more mail. Its
// arguments are budgetArgs.
const withinBudget = `count(*) < ? AND count(CASE WHEN bound > ? THEN 1 END) < ?`

func budgetArgs(now time.Time, limits reset.Limits) []any {
	return []any{orUnlimited(limits.MaxPerDay), now.Add(-time.Hour).UnixMilli(), orUnlimited(limits.MaxPerHour)}
}

func orUnlimited(n int) int {
	if n <= 0 {
		return math.MaxInt32
	}
	return n
}

// admit returns an error if the user of a may not get it. If m is leased, admit
// locks it and reports whether it is a public request. a may join another request.
func (s *Store) admit(ctx context.Context, c Conn, now time.Time, a *reset.Activation, limits reset.Limits, m *reset.Mail) (public bool, err error) {
	st, err := s.standing(ctx, c, now, a, m)
	if err != nil {
		return false, err
	}
	if isLeased(m) && !st.held {
		return false, reset.ErrGone
	}
	if st.public {
		if err := st.checkBudget(now, limits); err != nil {
			return false, err
		}
	}
	return st.public, st.checkCap(now, a, limits)
}

const insertActivation = `INSERT INTO reset_activations (realm, hash, request, user_id, email, expires)`

func (s *Store) activationArgs(a reset.Activation) []any {
	return []any{s.realm, a.Hash[:], a.Request[:], text(a.UserID), text(a.Email), a.Expires.UnixMilli()}
}

// A standing is what decides whether a user may get another activation.
type standing struct {
	// held says that the mail is under its lease and not another user's, and
	// public that it is a public request.
	held, public bool
	sent         []int64           // when mail for public requests was, the latest first
	quiet        int64             // there is none until then
	ends         []int64           // of the requests that count, in order
	joins        bool              // there is an activation of the same request
	last         *reset.Activation // of the live request that expires last
}

// The rows of a standing, by their first column.
const (
	selectSent = `SELECT 1, NULL, bound, 0 FROM reset_history WHERE realm = ? AND user_id = ? AND bound > ?
		UNION ALL SELECT 2, NULL, quiet_until, 0 FROM reset_locks WHERE realm = ? AND user_id = ? AND quiet_until > ?`
	// Claimed activations count, since they may be given back.
	selectRequests = `SELECT 3, request, MAX(expires), MAX(CASE WHEN claim IS NULL THEN 1 ELSE 0 END) FROM reset_activations WHERE realm = ? AND user_id = ? AND ` + unexpired + `
		AND (claim IS NULL OR claim IN (SELECT claim FROM reset_locks WHERE realm = ? AND user_id = ? AND claim_until > ?)) GROUP BY request`
)

// standing returns that of a's user. If m is leased, standing locks m, and asks
// for the budget as well. The count of an UPDATE would not do instead: MySQL
// leaves out rows whose values stay the same.
func (s *Store) standing(ctx context.Context, c Conn, now time.Time, a *reset.Activation, m *reset.Mail) (st standing, err error) {
	user, ms := text(a.UserID), now.UnixMilli()
	questions := []question{{selectRequests, []any{s.realm, user, ms, s.realm, user, ms}}}
	if isLeased(m) {
		questions = append([]question{
			{`SELECT 0, user_id, 0, 0 FROM (SELECT user_id FROM reset_mails WHERE ` + s.dialect.inRealm +
				` AND id = ? AND lease = ? AND kind = ? AND (user_id IS NULL OR user_id = ?)` + s.dialect.forUpdate + `) AS mail`,
				[]any{s.realm, m.ID[:], m.Lease[:], text(string(reset.MailReset)), user}},
			{selectSent, []any{s.realm, user, now.Add(-day).UnixMilli(), s.realm, user, ms}},
		}, questions...)
	}
	err = s.ask(ctx, c, func(r Row) error {
		var row, live int
		var id []byte
		var at int64
		if err := r.Scan(&row, &id, &at, &live); err != nil {
			return err
		}
		switch row {
		case 0:
			st.held, st.public = true, id == nil
		case 1:
			st.sent = append(st.sent, at)
		case 2:
			st.quiet = at
		default:
			st.ends = append(st.ends, at)
			st.joins = st.joins || live == 1 && bytes.Equal(id, a.Request[:])
			if a := (reset.Activation{Request: reset.ID(id), Expires: fromMillis(at)}); live == 1 && (st.last == nil || expiresLater(a, *st.last)) {
				st.last = &a
			}
		}
		return nil
	}, questions)
	slices.SortFunc(st.sent, func(a, b int64) int { return cmp.Compare(b, a) })
	slices.Sort(st.ends)
	return st, err
}

// expiresLater reports whether a expires after b, or at the same time and is
// the later request.
func expiresLater(a, b reset.Activation) bool {
	return cmp.Or(a.Expires.Compare(b.Expires), bytes.Compare(a.Request[:], b.Request[:])) > 0
}

// A question is a SELECT with its arguments.
type question struct {
	query string
	args  []any
}

// ask asks questions together, which saves round trips, or in turn, which is
// faster where there are none.
func (s *Store) ask(ctx context.Context, c Conn, f func(Row) error, questions []question) error {
	if s.dialect.asksInTurn {
		for _, q := range questions {
			if err := each(ctx, c, f, q.query, q.args...); err != nil {
				return err
			}
		}
		return nil
	}
	all := questions[0]
	for _, q := range questions[1:] {
		all.query += ` UNION ALL ` + q.query
		all.args = slices.Concat(all.args, q.args)
	}
	return each(ctx, c, f, all.query, all.args...)
}

const day = 24 * time.Hour

// checkBudget returns a *LimitError if the user may get no mail for a public
// request now.
func (st standing) checkBudget(now time.Time, limits reset.Limits) error {
	free := st.quiet // when the next one is allowed
	if n := limits.MaxPerHour; n > 0 && len(st.sent) >= n {
		free = max(free, st.sent[n-1]+time.Hour.Milliseconds())
	}
	if n := limits.MaxPerDay; n > 0 && len(st.sent) >= n {
		free = max(free, st.sent[n-1]+day.Milliseconds())
	}
	return limitUntil(free, now)
}

// limitUntil returns a *LimitError, or nil if free, in milliseconds, has passed.
func limitUntil(free int64, now time.Time) error {
	if wait := free - now.UnixMilli(); wait > 0 {
		return &reset.LimitError{RetryAfter: time.Duration(wait) * time.Millisecond}
	}
	return nil
}

// checkCap returns a *LimitError if a would be one request too many, unless it
// can join another.
func (st standing) checkCap(now time.Time, a *reset.Activation, limits reset.Limits) error {
	if st.joins || len(st.ends) < limits.MaxRequests {
		return nil
	}
	if limits.Join && st.last != nil {
		a.Request, a.Expires = st.last.Request, st.last.Expires
		return nil
	}
	// One more fits when as many have expired as there are too many.
	return limitUntil(st.ends[len(st.ends)-limits.MaxRequests], now)
}

func (s *Store) find(ctx context.Context, c Conn, now time.Time, h reset.Hash) (reset.Activation, error) {
	a := reset.Activation{Hash: h}
	found := false
	err := each(ctx, c, func(r Row) error {
		var request, userID, email []byte
		var expires int64
		if err := r.Scan(&request, &userID, &email, &expires); err != nil {
			return err
		}
		found = true
		copy(a.Request[:], request)
		a.UserID, a.Email, a.Expires = string(userID), string(email), fromMillis(expires)
		return nil
	}, `SELECT request, user_id, email, expires FROM reset_activations WHERE `+s.dialect.inRealm+` AND hash = ? AND `+unexpired+` AND claim IS NULL`,
		s.realm, h[:], now.UnixMilli())
	if err == nil && !found {
		err = reset.ErrInvalidActivation
	}
	return a, err
}

func (s *Store) revoke(ctx context.Context, c Conn, now time.Time, userID string, quiet time.Time) error {
	if userID == "" {
		return nil // public requests are not bound to a user
	}
	if err := s.lock(ctx, c, userID, time.UnixMilli(0)); err != nil {
		return err
	}
	if err := s.keepQuiet(ctx, c, userID, quiet); err != nil {
		return err
	}
	return s.removeAll(ctx, c, userID, ending{now: now})
}

// keepQuiet ends the mail for a user's public requests until a time.
func (s *Store) keepQuiet(ctx context.Context, c Conn, userID string, until time.Time) error {
	if until.IsZero() {
		return nil
	}
	if err := lockByRow(ctx, s, c, userID, until); err != nil { // on SQLite, too: the row holds the time
		return err
	}
	ms := until.UnixMilli()
	return exec(ctx, c, `UPDATE reset_locks SET quiet_until = CASE WHEN quiet_until < ? THEN ? ELSE quiet_until END,
		expires = CASE WHEN expires < ? THEN ? ELSE expires END WHERE realm = ? AND user_id = ?`,
		ms, ms, ms, ms, s.realm, text(userID))
}

// removeAll removes a user's activations and reset mails.
func (s *Store) removeAll(ctx context.Context, c Conn, userID string, e ending) error {
	err := exec(ctx, c, s.dialect.deleteByUser("reset_activations")+` WHERE realm = ? AND user_id = ?`, s.realm, text(userID))
	if err != nil {
		return err
	}
	var mails []row
	var leases []reset.ID
	if s.kept() > 0 {
		mails, leases, err = s.resetMails(ctx, c, userID)
		if err == nil && len(mails) == 0 {
			return e.record(ctx, s, c, userID, nil, nil)
		}
	}
	if err == nil {
		err = exec(ctx, c, s.dialect.deleteByUser("reset_mails")+` WHERE `+s.dialect.inRealm+` AND user_id = ? AND kind = ?`, s.realm, text(userID), text(string(reset.MailReset)))
	}
	if err != nil || s.kept() <= 0 {
		return err
	}
	return e.record(ctx, s, c, userID, mails, leases)
}
