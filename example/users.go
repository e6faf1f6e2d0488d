package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"

	"github.com/gopassreset/reset"
	storebun "github.com/gopassreset/reset/store_bun"
)

var _ reset.Users = (*users)(nil)

var (
	errWrongLogin = errors.New("no such user, or a wrong password")
	errTaken      = errors.New("the address has an account")
)

// A refusal is of what a person typed.
type refusal struct{ reason string }

func (r *refusal) Error() string { return "refused: " + r.reason }

// A user is a row of the host's own table. The library never sees it.
type user struct {
	bun.BaseModel `bun:"table:users"`

	ID        string `bun:",pk"`
	Address   string // reset.CanonicalAddress of Email, unique
	Email     string
	Name      string
	Locale    string
	Hash      string
	Disabled  bool
	Created   int64
	LastLogin int64
}

// users implements reset.Users, the one interface that a host writes, over its
// own table.
type users struct {
	db     *bun.DB
	hasher *hasher
	dummy  string // a hash that is nobody's
}

func newUsers(ctx context.Context, db *bun.DB) (*users, error) {
	u := &users{db: db, hasher: newHasher()}
	var err error
	u.dummy, err = u.hasher.hash(ctx, rand.Text())
	return u, err
}

// FindByEmail implements reset.Users. Whoever may not get a password by mail is
// nobody here: whether the account is disabled must not show.
func (u *users) FindByEmail(ctx context.Context, address string) (reset.User, error) {
	found, err := u.byAddress(ctx, address)
	if err != nil {
		return reset.User{}, err
	}
	if found.Disabled {
		return reset.User{}, reset.ErrNoUser
	}
	return reset.User{ID: found.ID, Email: found.Email, Name: found.Name, Locale: found.Locale}, nil
}

// HashPassword implements reset.Users.
func (u *users) HashPassword(ctx context.Context, password string) (string, error) {
	return u.hasher.hash(ctx, password)
}

// SetPassword implements reset.Users. storebun.IDB finds the transaction in
// which the library uses up the link, so that a new password, the end of the
// old sessions and the end of the link come true together or not at all.
func (u *users) SetPassword(ctx context.Context, userID, hash string) error {
	db := storebun.IDB(ctx, u.db)
	result, err := db.NewUpdate().Model((*user)(nil)).Set("hash = ?", hash).
		Where("id = ?", userID).Where("NOT disabled").Exec(ctx)
	if err := oneRow(result, err, reset.ErrNoUser); err != nil {
		return err
	}
	return endSessions(ctx, db, userID, "")
}

// byAddress returns reset.ErrNoUser if there is none.
func (u *users) byAddress(ctx context.Context, address string) (user, error) {
	var found user
	err := u.db.NewSelect().Model(&found).Where("address = ?", address).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return user{}, reset.ErrNoUser
	}
	return found, err
}

// logIn returns the value of a new session's cookie, or errWrongLogin. That
// costs the same work whether or not there is such a user.
func (u *users) logIn(ctx context.Context, email, password, device string) (cookie string, err error) {
	found, err := u.byTypedAddress(ctx, email)
	known := err == nil && !found.Disabled
	if err != nil && !errors.Is(err, reset.ErrNoUser) {
		return "", err
	}
	hash := u.dummy
	if known {
		hash = found.Hash
	}
	right, err := u.hasher.verify(ctx, hash, password)
	switch {
	case err != nil:
		return "", err
	case !known || !right:
		return "", errWrongLogin
	}
	if err := forgetExpired(ctx, u.db, found.ID); err != nil {
		return "", err
	}
	err = u.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		// Checking the password took a while. Writing to the user's row waits
		// for a reset that is under way, and finds out whether there was one:
		// the session must not outlive it.
		result, err := tx.NewUpdate().Model((*user)(nil)).Set("last_login = ?", time.Now().UnixMilli()).
			Where("id = ?", found.ID).Where("hash = ?", found.Hash).Where("NOT disabled").Exec(ctx)
		if err := oneRow(result, err, errWrongLogin); err != nil {
			return err
		}
		cookie, err = startSession(ctx, tx, found.ID, device)
		return err
	})
	return cookie, err
}

// byTypedAddress is byAddress for what a person typed.
func (u *users) byTypedAddress(ctx context.Context, email string) (user, error) {
	address, err := reset.CanonicalAddress(email)
	if err != nil {
		return user{}, reset.ErrNoUser
	}
	return u.byAddress(ctx, address)
}

// signUp makes an account. A host for more than demonstrations has the address
// confirmed by mail first, and reveals to nobody else that it has an account.
func (u *users) signUp(ctx context.Context, name, email, password string) error {
	name = strings.TrimSpace(name)
	if !utf8.ValidString(name) || strings.ContainsRune(name, 0) || utf8.RuneCountInString(name) > 100 {
		return &refusal{"Please give a name of at most 100 characters."}
	}
	address, err := reset.CanonicalAddress(email)
	if err != nil {
		return &refusal{"Please give an address such as you@example.com."}
	}
	if err := checkPassword(password); err != nil {
		return err
	}
	hash, err := u.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	result, err := u.db.NewInsert().Ignore().Model(&user{
		ID: rand.Text(), Address: address, Email: email, Name: name, Hash: hash, Created: time.Now().UnixMilli(),
	}).Exec(ctx)
	return oneRow(result, err, errTaken)
}

// changePassword is for somebody who knows the old password. It ends all other
// sessions of the user, and every link that is on its way by mail.
func (u *users) changePassword(ctx context.Context, s session, old, password string, revoke func(context.Context, string) error) error {
	var found user
	if err := u.db.NewSelect().Model(&found).Where("id = ?", s.UserID).Scan(ctx); err != nil {
		return err
	}
	right, err := u.hasher.verify(ctx, found.Hash, old)
	switch {
	case err != nil:
		return err
	case !right:
		return errWrongLogin
	}
	if err := checkPassword(password); err != nil {
		return err
	}
	hash, err := u.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	options := &sql.TxOptions{Isolation: sql.LevelReadCommitted} // at which MySQL locks nothing of other users
	if u.db.Dialect().Name() == dialect.SQLite {
		options = nil // it has one level
	}
	return u.db.RunInTx(ctx, options, func(ctx context.Context, tx bun.Tx) error {
		// First, for that is the order in which a reset takes its locks.
		if err := revoke(storebun.WithTx(ctx, tx), found.ID); err != nil {
			return err
		}
		result, err := tx.NewUpdate().Model((*user)(nil)).Set("hash = ?", hash).
			Where("id = ?", found.ID).Where("hash = ?", found.Hash).Where("NOT disabled").Exec(ctx)
		if err := oneRow(result, err, errWrongLogin); err != nil {
			return err
		}
		return endSessions(ctx, tx, found.ID, s.Hash)
	})
}

// checkPassword is what the library's own rules begin with.
func checkPassword(password string) error {
	if n := utf8.RuneCountInString(password); n < 8 || n > 256 || !utf8.ValidString(password) {
		return &refusal{"Please choose a password of 8 to 256 characters."}
	}
	return nil
}

// oneRow returns err, or otherwise if no row was written.
func oneRow(result sql.Result, err, otherwise error) error {
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		return otherwise
	}
	return err
}
