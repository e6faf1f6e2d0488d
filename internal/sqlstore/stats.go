package sqlstore

import (
	"context"
	"time"

	"github.com/gopassreset/reset"
)

// maxCounted is how many records a statement of Stats reads. It is applied along
// the index of expires, before the filter by realm: neither expired records nor
// those of others make Stats slow.
const maxCounted = 10_000

const (
	unexpiredMails = ` reset_mails WHERE expires > ? ORDER BY expires LIMIT ?) AS m WHERE realm = ?`
	countUnexpired = `SELECT count(*) - count(lease), count(lease) FROM (SELECT realm, lease FROM` + unexpiredMails
	selectDue      = `SELECT id, due FROM (SELECT realm, id, due FROM` + unexpiredMails + ` AND due <= ?`
	countExpired   = `SELECT count(*) FROM (SELECT realm FROM reset_mails WHERE expires <= ? ORDER BY expires LIMIT ?) AS m WHERE realm = ?`
	countLive      = `SELECT count(DISTINCT request) FROM (SELECT realm, request, claim FROM reset_activations WHERE expires > ? ORDER BY expires LIMIT ?) AS a WHERE realm = ? AND claim IS NULL`
	selectRun      = `SELECT ran, mailer_failed FROM reset_realms WHERE realm = ?`
	insertRun      = `INSERT INTO reset_realms (realm, ran, mailer_failed) VALUES (?, ?, ?)`
)

// Queued implements reset.StatsStore.
func (s *Store) Queued(ctx context.Context, now time.Time, limit int) (n int, err error) {
	err = s.backend.Read(ctx, func(ctx context.Context, c Conn) error {
		return each(ctx, c, func(r Row) error { return r.Scan(&n) },
			`SELECT count(*) FROM (SELECT realm FROM reset_mails WHERE realm = ? AND expires > ? LIMIT ?) AS m`, s.realm, now.UnixMilli(), limit)
	})
	return n, err
}

// Stats implements reset.StatsStore.
func (s *Store) Stats(ctx context.Context, now time.Time) (reset.Stats, error) {
	var stats reset.Stats
	var ran, failed int64
	ms := now.UnixMilli()
	for _, q := range []struct {
		query string
		args  []any
		row   func(Row) error
	}{
		{countUnexpired, []any{ms, maxCounted, s.realm}, func(r Row) error { return r.Scan(&stats.Waiting, &stats.Leased) }},
		{countExpired, []any{ms, maxCounted, s.realm}, func(r Row) error { return r.Scan(&stats.Expired) }},
		{countLive, []any{ms, maxCounted, s.realm}, func(r Row) error { return r.Scan(&stats.LiveRequests) }},
		{selectRun, []any{s.realm}, func(r Row) error { return r.Scan(&ran, &failed) }},
		{selectDue, []any{ms, maxCounted, s.realm, ms}, func(r Row) error {
			var id []byte
			var due int64
			if err := r.Scan(&id, &due); err != nil {
				return err
			}
			waited := min(now.Sub(time.UnixMilli(due)), now.Sub(reset.ID(id).Time()))
			stats.OldestDue = max(stats.OldestDue, waited.Truncate(time.Millisecond))
			return nil
		}},
	} {
		err := s.backend.Read(ctx, func(ctx context.Context, c Conn) error { return each(ctx, c, q.row, q.query, q.args...) })
		if err != nil {
			return reset.Stats{}, err
		}
	}
	stats.LastRun, stats.MailerFailed = orZero(ran), orZero(failed)
	return stats, nil
}

// Beat implements reset.StatsStore.
func (s *Store) Beat(ctx context.Context, now time.Time, mailerFails bool) error {
	var failed int64
	if mailerFails {
		failed = now.UnixMilli()
	}
	return s.backend.WriteOne(ctx, func(ctx context.Context, c Conn) error {
		return exec(ctx, c, s.dialect.beat, s.realmArgs(now.UnixMilli(), failed)...)
	})
}

func orZero(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return fromMillis(ms)
}
