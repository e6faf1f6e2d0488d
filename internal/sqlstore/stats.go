package sqlstore

import (
	"context"
	"time"

	"github.com/gopassreset/reset"
)

// What Stats reads of the records at most. Each limit comes before the filter by
// realm, so that others' records do not make Stats slow.
const (
	maxCounted = 10_000
	maxOldest  = 1000
)

const (
	countUnexpired = `SELECT count(*) - count(lease), count(lease) FROM (SELECT realm, lease FROM reset_mails WHERE expires > ? LIMIT ?) AS m WHERE realm = ?`
	countExpired   = `SELECT count(*) FROM (SELECT realm FROM reset_mails WHERE expires <= ? LIMIT ?) AS m WHERE realm = ?`
	countLive      = `SELECT count(DISTINCT request) FROM (SELECT realm, request, claim FROM reset_activations WHERE expires > ? LIMIT ?) AS a WHERE realm = ? AND claim IS NULL`
	selectRun      = `SELECT ran, mailer_failed FROM reset_runs WHERE realm = ?`
	// Only the latest times are kept: clocks differ.
	insertRun = `INSERT INTO reset_runs (realm, ran, mailer_failed) VALUES (?, ?, ?)`
)

// Queued implements reset.StatsStore.
func (s *Store) Queued(ctx context.Context, limit int) (n int, err error) {
	err = s.backend.Read(ctx, func(ctx context.Context, c Conn) error {
		return each(ctx, c, func(r Row) error { return r.Scan(&n) },
			`SELECT count(*) FROM (SELECT realm FROM reset_mails WHERE realm = ? LIMIT ?) AS m`, s.realm, limit)
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
		{`SELECT id, due` + s.dialect.dueMails, []any{s.realm, ms, ms, maxOldest}, func(r Row) error {
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
		return exec(ctx, c, s.dialect.beat, s.realm, now.UnixMilli(), failed)
	})
}

func orZero(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return fromMillis(ms)
}
