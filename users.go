package reset

import (
	"context"
	"errors"
	"fmt"
)

// Users is the host's accounts, the one interface that every host implements.
// It is safe for concurrent use.
type Users interface {
	// FindByEmail returns the user whose address has the given canonical form.
	// Hosts keep the [CanonicalAddress] of each user in a unique column and
	// compare with that; lower(email) finds plain ASCII addresses only, since
	// SQLite lowers no other letters and no database knows IDNA.
	//
	// It returns ErrNoUser when there is no such user and when the account must
	// not be reset by mail (disabled, single sign-on, administrators), and
	// ErrManyUsers when several users share the address. Any other error says
	// that the lookup failed: mail that waits for it is kept and retried.
	FindByEmail(ctx context.Context, address string) (User, error)

	// HashPassword returns the hash that SetPassword saves. It takes every
	// password of at most Config.MaxPasswordBytes, which is 72 where it uses
	// bcrypt. It is slow on purpose and runs outside of any transaction, in at
	// most GOMAXPROCS calls at a time. For another reason than the length it may
	// return a *PasswordError; the activation stays live.
	HashPassword(ctx context.Context, password string) (string, error)

	// SetPassword saves the hash and ends every session of the user.
	//
	// A store in the users' database passes a transaction in ctx, which
	// storesql.Tx, storebun.IDB and storepgx.Tx return. SetPassword then writes
	// through that transaction, returns every error of it and repeats no
	// statement, since after a deadlock the database has undone all of it.
	//
	// It returns ErrNoUser if the user is gone, and an error that wraps
	// ErrNotChanged if the password certainly is as it was. It has 2 s on
	// SQLite, 45 s where the users are not in the store's database, and
	// otherwise as long as the request.
	SetPassword(ctx context.Context, userID, hash string) error
}

// A User is an account as the host has stored it.
type User struct {
	ID    string // 1 to 255 bytes
	Email string // mail goes here, never to the address that was typed
	Name  string // for the mail's salutation; may be ""
	// Locale is the language of the user's mail as a BCP 47 tag, such as "de"
	// or "pt-BR". If it is "", a reset mail is in the language of the page that
	// requested it, and any other mail is in English.
	Locale string
}

const maxUserID = 255 // bytes

// accounts looks users up and checks what the host returns.
type accounts struct {
	users  Users
	events eventLog
}

// find returns the user with a canonical address. It believes the host only if
// the user has that address: collations equate more letters than addresses do.
func (a accounts) find(ctx context.Context, address string) (User, error) {
	user, err := inTime(ctx, hostGrace, func() (User, error) { return a.users.FindByEmail(ctx, address) })
	if errors.Is(err, ErrManyUsers) {
		a.events.count(ctx, userAmbiguous)
	}
	if err != nil {
		return User{}, wrap("find user", err)
	}
	stored, err := CanonicalAddress(user.Email)
	if err != nil || stored != address {
		a.events.count(ctx, userMismatch, "user", user.ID)
		return User{}, fmt.Errorf("%w: FindByEmail returned a user with another address", ErrNoUser)
	}
	if user.ID == "" || len(user.ID) > maxUserID {
		return User{}, fmt.Errorf("reset: find user: User.ID has %d bytes, not 1 to %d", len(user.ID), maxUserID)
	}
	return user, nil
}
