package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gopassreset/reset"
)

// demoPassword is what every account is made with.
const demoPassword = "correct horse battery staple"

// demoUsers are there from the start.
var demoUsers = []user{
	{ID: "alice", Email: "alice@example.com", Name: "Alice Archer"},
	{ID: "bob", Email: "bob@example.com", Name: "Bob Becker", Locale: "de"},
	{ID: "carol", Email: "carol@example.com", Name: "Carol Clark", Disabled: true},
}

// seed makes the demo's accounts, and n for load tests, unless they are there:
// what has become of them stays.
func (u *users) seed(ctx context.Context, n int, log *slog.Logger) error {
	hash, err := u.hasher.hash(ctx, demoPassword)
	if err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	accounts := make([]user, 0, len(demoUsers))
	for _, account := range demoUsers {
		account.Address, account.Hash, account.Created = account.Email, hash, now
		accounts = append(accounts, account)
	}
	if err := u.insertNew(ctx, accounts); err != nil {
		return fmt.Errorf("create demo users: %w", err)
	}
	if err := u.seedMany(ctx, n, hash, log); err != nil {
		return fmt.Errorf("create users: %w", err)
	}
	return nil
}

// seedBatch is how many rows one statement inserts, some 1.5 MB of it.
const seedBatch = 5000

// seedMany makes user0000001@example.com up to the nth. They come in order, so
// that those that are missing follow the last one of an earlier start.
func (u *users) seedMany(ctx context.Context, n int, hash string, log *slog.Logger) error {
	if n == 0 {
		return nil
	}
	switch _, err := u.byAddress(ctx, loadUser(n, "", 0).Address); {
	case err == nil:
		return nil
	case !errors.Is(err, reset.ErrNoUser):
		return err
	}
	start := time.Now()
	batch := make([]user, 0, seedBatch)
	for i := 1; i <= n; i++ {
		batch = append(batch, loadUser(i, hash, start.UnixMilli()))
		if len(batch) == seedBatch || i == n {
			if err := u.insertNew(ctx, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	log.Info("users created", "n", n, "took", time.Since(start).Round(time.Millisecond))
	return nil
}

func loadUser(i int, hash string, now int64) user {
	id := fmt.Sprintf("user%07d", i)
	return user{ID: id, Address: id + "@example.com", Email: id + "@example.com", Name: fmt.Sprintf("User %d", i), Hash: hash, Created: now}
}

// insertNew passes over what is there already.
func (u *users) insertNew(ctx context.Context, accounts []user) error {
	_, err := u.db.NewInsert().Model(&accounts).Ignore().Exec(ctx)
	return err
}
