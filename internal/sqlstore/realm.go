package sqlstore

import (
	"context"
	"fmt"
	"sync/atomic"
)

// maxRealm is what MySQL's columns hold. Without strict mode it would truncate.
const maxRealm = 64

// Realm returns the store of a realm, in the same database.
func (s *Store) Realm(name string) *Store {
	view := *s
	view.realm, view.keep = []byte(name), new(atomic.Int64)
	return &view
}

func (s *Store) checkRealm() error {
	if len(s.realm) > maxRealm {
		return fmt.Errorf("realm has %d bytes, more than %d", len(s.realm), maxRealm)
	}
	return nil
}

// SetBaseURL implements reset.RealmStore.
func (s *Store) SetBaseURL(ctx context.Context, baseURL string) (last string, err error) {
	if err := s.checkRealm(); err != nil {
		return "", err
	}
	err = s.backend.Write(ctx, func(ctx context.Context, c Conn) error {
		last = ""
		err := each(ctx, c, func(r Row) error {
			var url []byte
			err := r.Scan(&url)
			last = string(url)
			return err
		}, `SELECT base_url FROM reset_realms WHERE realm = ?`+s.dialect.forUpdate, s.realm)
		if err != nil || last == baseURL {
			return err
		}
		return exec(ctx, c, s.dialect.setBaseURL, s.realmArgs(text(baseURL))...)
	})
	if err != nil {
		return "", err
	}
	return last, nil
}

// realmArgs returns the arguments of beat and setBaseURL.
func (s *Store) realmArgs(values ...any) []any {
	args := append([]any{s.realm}, values...)
	if s.dialect.valuesTwice {
		args = append(args, values...)
	}
	return args
}

const insertRealm = `INSERT INTO reset_realms (realm, ran, mailer_failed, base_url) VALUES (?, 0, 0, ?)`
