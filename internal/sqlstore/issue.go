package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
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
	leased, public := isLeased(m), false
	if leased {
		var err error
		if public, err = s.hold(ctx, c, *m, a.UserID); err != nil {
			return err
		}
	}
	if public {
		if err := s.checkBudget(ctx, c, now, a.UserID, limits); err != nil {
			return err
		}
	}
	id := a.Request // a may join another
	if err := s.checkCap(ctx, c, now, a, limits); err != nil {
		return err
	}
	err := exec(ctx, c, insertActivation+` VALUES (?, ?, ?, ?, ?, ?)`, s.activationArgs(*a)...)
	if err != nil {
		return err
	}
	switch {
	case leased:
		err = exec(ctx, c, `UPDATE `+s.dialect.byKey("reset_mails")+` SET user_id = ?, due = ? WHERE realm = ? AND id = ?`,
			text(a.UserID), m.Due.UnixMilli(), s.realm, m.ID[:])
	case m != nil:
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

const insertActivation = `INSERT INTO reset_activations (realm, hash, request, user_id, email, expires)`

func (s *Store) activationArgs(a reset.Activation) []any {
	return []any{s.realm, a.Hash[:], a.Request[:], text(a.UserID), text(a.Email), a.Expires.UnixMilli()}
}

// hold locks m and reports whether it is a public request. It returns ErrGone if
// m is not under its lease any more or is another user's. The count of an UPDATE
// would not do: MySQL leaves out rows whose values stay the same.
func (s *Store) hold(ctx context.Context, c Conn, m reset.Mail, userID string) (public bool, err error) {
	held := false
	err = each(ctx, c, func(r Row) error {
		var user []byte
		err := r.Scan(&user)
		held, public = true, user == nil
		return err
	}, `SELECT user_id FROM reset_mails WHERE realm = ? AND id = ? AND lease = ? AND kind = ? AND (user_id IS NULL OR user_id = ?)`+s.dialect.forUpdate,
		s.realm, m.ID[:], m.Lease[:], text(string(reset.MailReset)), text(userID))
	if err == nil && !held {
		return false, reset.ErrGone
	}
	return public, err
}

const day = 24 * time.Hour

// checkBudget returns a *LimitError if the user may get no mail for a public
// request now.
func (s *Store) checkBudget(ctx context.Context, c Conn, now time.Time, userID string, limits reset.Limits) error {
	var sent []int64 // the latest first
	var free int64   // when the next one is allowed
	err := each(ctx, c, func(r Row) error {
		var at, quiet int64
		err := r.Scan(&at, &quiet)
		if quiet > 0 {
			free = quiet
		} else {
			sent = append(sent, at)
		}
		return err
	}, `SELECT bound, 0 FROM reset_history WHERE realm = ? AND user_id = ? AND bound > ?
		UNION ALL SELECT 0, quiet_until FROM reset_locks WHERE realm = ? AND user_id = ? AND quiet_until > ? ORDER BY 1 DESC`,
		s.realm, text(userID), now.Add(-day).UnixMilli(), s.realm, text(userID), now.UnixMilli())
	if err != nil {
		return err
	}
	if n := limits.MaxPerHour; n > 0 && len(sent) >= n {
		free = max(free, sent[n-1]+time.Hour.Milliseconds())
	}
	if n := limits.MaxPerDay; n > 0 && len(sent) >= n {
		free = max(free, sent[n-1]+day.Milliseconds())
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
// can join another. Claimed activations count, since they may be given back.
func (s *Store) checkCap(ctx context.Context, c Conn, now time.Time, a *reset.Activation, limits reset.Limits) error {
	var ends []int64 // of the requests that count, in order
	joins := false
	var last *reset.Activation // of the live request that expires last
	err := each(ctx, c, func(r Row) error {
		var request []byte
		var expires int64
		var live int // 1 if it is
		if err := r.Scan(&request, &expires, &live); err != nil {
			return err
		}
		ends = append(ends, expires)
		joins = joins || live == 1 && bytes.Equal(request, a.Request[:])
		if live == 1 {
			last = &reset.Activation{Request: reset.ID(request), Expires: fromMillis(expires)}
		}
		return nil
	}, `SELECT request, MAX(expires), MAX(CASE WHEN claim IS NULL THEN 1 ELSE 0 END) FROM reset_activations WHERE realm = ? AND user_id = ? AND expires > ?
		AND (claim IS NULL OR claim IN (SELECT claim FROM reset_locks WHERE realm = ? AND user_id = ? AND claim_until > ?)) GROUP BY request ORDER BY 2, 1`,
		s.realm, text(a.UserID), now.UnixMilli(), s.realm, text(a.UserID), now.UnixMilli())
	if err != nil || joins || len(ends) < limits.MaxRequests {
		return err
	}
	if limits.Join && last != nil {
		a.Request, a.Expires = last.Request, last.Expires
		return nil
	}
	// One more fits when as many have expired as there are too many.
	return limitUntil(ends[len(ends)-limits.MaxRequests], now)
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
	}, `SELECT request, user_id, email, expires FROM reset_activations WHERE realm = ? AND hash = ? AND expires > ? AND claim IS NULL`,
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
	var leased []bool
	if s.kept() > 0 {
		mails, leased, err = s.resetMails(ctx, c, userID)
		if err == nil && len(mails) == 0 {
			return e.record(ctx, s, c, userID, nil, nil)
		}
	}
	if err == nil {
		err = exec(ctx, c, s.dialect.deleteByUser("reset_mails")+` WHERE realm = ? AND user_id = ? AND kind = ?`, s.realm, text(userID), text(string(reset.MailReset)))
	}
	if err != nil || s.kept() <= 0 {
		return err
	}
	return e.record(ctx, s, c, userID, mails, leased)
}
