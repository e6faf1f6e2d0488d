package sqlstore

import (
	"context"
	"errors"
	"time"
)

// Now implements reset.ClockStore.
func (s *Store) Now(ctx context.Context) (now time.Time, err error) {
	if s.dialect.selectNow == "" {
		return time.Time{}, errors.ErrUnsupported
	}
	err = s.backend.Read(ctx, func(ctx context.Context, c Conn) error {
		return each(ctx, c, func(r Row) error {
			var ms int64
			err := r.Scan(&ms)
			now = fromMillis(ms)
			return err
		}, s.dialect.selectNow)
	})
	return now, err
}
