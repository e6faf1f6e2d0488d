package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

const sessionTime = 14 * 24 * time.Hour

// A session is one browser that is logged in. Its cookie holds a random value
// of which the database has the hash only: reading the table lets nobody sign in.
type session struct {
	bun.BaseModel `bun:"table:sessions"`

	Hash    string `bun:",pk"` // hexadecimal
	UserID  string
	Device  string
	Created int64
	Expires int64
}

// Started and Browser are for the page that lists sessions.
func (s session) Started() time.Time { return time.UnixMilli(s.Created) }

// Browser guesses a name for the User-Agent.
func (s session) Browser() string {
	for _, b := range []struct{ sign, name string }{
		{"Edg/", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}, {"curl/", "curl"},
	} {
		if strings.Contains(s.Device, b.sign) {
			return b.name
		}
	}
	return "Another client"
}

// startSession returns the value of the new session's cookie: 26 characters,
// 130 random bits.
func startSession(ctx context.Context, db bun.IDB, userID, device string) (cookie string, err error) {
	now := time.Now()
	cookie = rand.Text()
	_, err = db.NewInsert().Model(&session{
		Hash: hashCookie(cookie), UserID: userID, Device: printable(device, 200),
		Created: now.UnixMilli(), Expires: now.Add(sessionTime).UnixMilli(),
	}).Exec(ctx)
	return cookie, err
}

func hashCookie(cookie string) string {
	sum := sha256.Sum256([]byte(cookie))
	return hex.EncodeToString(sum[:])
}

// printable is what a database takes of a header: the ASCII in it, not too much.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), most)]
}

// endSessions ends all sessions of a user except one, which may be "".
func endSessions(ctx context.Context, db bun.IDB, userID, except string) error {
	_, err := db.NewDelete().Model((*session)(nil)).Where("user_id = ?", userID).Where("hash <> ?", except).Exec(ctx)
	return err
}

// endSession ends one session of a user.
func endSession(ctx context.Context, db bun.IDB, userID, hash string) error {
	_, err := db.NewDelete().Model((*session)(nil)).Where("user_id = ?", userID).Where("hash = ?", hash).Exec(ctx)
	return err
}

// forgetExpired removes what is left of a user's earlier sessions.
func forgetExpired(ctx context.Context, db bun.IDB, userID string) error {
	_, err := db.NewDelete().Model((*session)(nil)).Where("user_id = ?", userID).Where("expires <= ?", time.Now().UnixMilli()).Exec(ctx)
	return err
}

// sessionsOf returns the sessions of a user, the newest first.
func sessionsOf(ctx context.Context, db bun.IDB, userID string) (all []session, err error) {
	err = db.NewSelect().Model(&all).Where("user_id = ?", userID).Where("expires > ?", time.Now().UnixMilli()).
		OrderExpr("created DESC").Limit(50).Scan(ctx)
	return all, err
}

// A visitor is who sends a request: nobody, for the zero value.
type visitor struct {
	User    user
	Session session
}

// visitor returns who sends r.
func (h *host) visitor(r *http.Request) (v visitor, err error) {
	c, err := r.Cookie(h.cookie.Name)
	if err != nil {
		return visitor{}, nil // no cookie
	}
	err = h.db.NewSelect().Model(&v.Session).
		Where("hash = ?", hashCookie(c.Value)).Where("expires > ?", time.Now().UnixMilli()).Scan(r.Context())
	if err == nil {
		err = h.db.NewSelect().Model(&v.User).Where("id = ?", v.Session.UserID).Where("NOT disabled").Scan(r.Context())
	}
	if errors.Is(err, sql.ErrNoRows) {
		return visitor{}, nil
	}
	return v, err
}

// sessionCookie is the cookie without its value. The prefix __Host- makes
// browsers refuse one that was planted from another host.
func sessionCookie(secure bool) http.Cookie {
	c := http.Cookie{
		Name: "session", Path: "/", MaxAge: int(sessionTime / time.Second),
		HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
	if secure {
		c.Name, c.Secure = "__Host-session", true
	}
	return c
}

// keep sends a session's cookie to the browser, or with "" takes it away.
func (h *host) keep(w http.ResponseWriter, value string) {
	c := h.cookie
	c.Value = value
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, &c)
}
