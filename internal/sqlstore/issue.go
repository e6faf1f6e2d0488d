package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/gopassreset/reset"
)

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
	if err := s.checkCap(ctx, c, now, a, max); err != nil {
		return err
	}
	err := exec(ctx, c,
		`INSERT INTO reset_activations (realm, hash, request, user_id, email, expires) VALUES (?, ?, ?, ?, ?, ?)`,
		s.realm, a.Hash[:], a.Request[:], text(a.UserID), text(a.Email), a.Expires.UnixMilli())
	switch {
	case err != nil || m == nil:
		return err
	case leased:
		return exec(ctx, c, `UPDATE reset_mails SET user_id = ?, due = ? WHERE realm = ? AND id = ?`,
			text(a.UserID), m.Due.UnixMilli(), s.realm, m.ID[:])
	default:
		return s.insertMail(ctx, c, *m)
	}
}

// hold locks m, or returns ErrGone if it is not under its lease any more or is
// another user's. The count of an UPDATE would not do: MySQL leaves out rows
// whose values stay the same.
func (s *Store) hold(ctx context.Context, c Conn, m reset.Mail, userID string) error {
	held, err := exists(ctx, c,
		`SELECT id FROM reset_mails WHERE realm = ? AND id = ? AND lease = ? AND kind = ? AND (user_id IS NULL OR user_id = ?)`+s.dialect.forUpdate,
		s.realm, m.ID[:], m.Lease[:], text(string(reset.MailReset)), text(userID))
	if err == nil && !held {
		return reset.ErrGone
	}
	return err
}

// checkCap returns a *LimitError if a would be one request too many. Claimed
// activations count, since they may be given back.
func (s *Store) checkCap(ctx context.Context, c Conn, now time.Time, a reset.Activation, max int) error {
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
	}, `SELECT request, MAX(expires), MAX(CASE WHEN claim IS NULL THEN 1 ELSE 0 END) FROM reset_activations WHERE realm = ? AND user_id = ? AND expires > ?
		AND (claim IS NULL OR claim IN (SELECT claim FROM reset_locks WHERE realm = ? AND user_id = ? AND claim_until > ?)) GROUP BY request ORDER BY 2`,
		s.realm, text(a.UserID), now.UnixMilli(), s.realm, text(a.UserID), now.UnixMilli())
	if err != nil || joins || len(ends) < max {
		return err
	}
	// One more fits when as many have expired as there are too many.
	wait := ends[len(ends)-max] - now.UnixMilli()
	return &reset.LimitError{RetryAfter: time.Duration(wait) * time.Millisecond}
}

func (s *Store) find(ctx context.Context, c Conn, now time.Time, h reset.Hash) (reset.Activation, error) {
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
	}, `SELECT request, user_id, email, expires FROM reset_activations WHERE realm = ? AND hash = ? AND expires > ? AND claim IS NULL`,
		s.realm, h[:], now.UnixMilli())
	if err == nil && !found {
		err = reset.ErrInvalidActivation
	}
	return a, err
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

// removeAll removes a user's activations and reset mails.
func (s *Store) removeAll(ctx context.Context, c Conn, userID string) error {
	if err := exec(ctx, c, s.dialect.deleteByUser("reset_activations")+` WHERE realm = ? AND user_id = ?`, s.realm, text(userID)); err != nil {
		return err
	}
	return exec(ctx, c, s.dialect.deleteByUser("reset_mails")+` WHERE realm = ? AND user_id = ? AND kind = ?`, s.realm, text(userID), text(string(reset.MailReset)))
}
