// Package limitersql has a reset.Limiter whose counts are in a database of the
// host, through its own *bun.DB, so that all processes share them: SQLite,
// PostgreSQL (9.5 or later), MySQL (8 or later) or MariaDB (10.6 or later).
//
//	if err := limitersql.CreateSchema(ctx, db); err != nil { … }
//	perClient, err := limitersql.New(ctx, db, "client", 20, time.Minute)
//	svc, err := reset.New(reset.Config{PerClient: perClient, …})
//
// Package limiterredis does the same in Redis, at less cost.
//
// # Failures
//
// While the database can't be reached, Allow fails and the Service refuses
// public requests, after 200 ms at the latest.
//
// # Clocks
//
// Allow counts with the time that it is given. A process whose clock is behind
// that of another one allows a key less, by the difference, and never more.
package limitersql

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/bunpool"
	"github.com/gopassreset/reset/internal/gcra"
	"github.com/gopassreset/reset/internal/sqlstore"
)

var _ reset.Limiter = (*Limiter)(nil)

// A Limiter is a reset.Limiter in a database. A key that is an IPv6 /64 prefix
// is also charged to its /48, /40 and /32, as by reset.MemoryLimiter.
//
// Each call of Allow reads a row, and a second statement writes it if the event
// is allowed. The table has a row for each key whose bucket is not full; a new
// key removes up to two that are. Rows hold SHA-256 hashes of keys.
type Limiter struct {
	db      *bun.DB
	dialect *sqlstore.Dialect
	name    string
	rate    gcra.Rate
}

// New returns a Limiter that allows each key n events at once and n more over
// each period. Limiters with the same name on one database share their counts:
// give each that has another purpose another name.
//
// New fails unless n and period are positive, and name is not empty, and if
// [CreateSchema] has not been called. db stays the host's.
func New(ctx context.Context, db *bun.DB, name string, n int, period time.Duration) (*Limiter, error) {
	l, err := newLimiter(ctx, db, name, n, period)
	if err != nil {
		return nil, fmt.Errorf("limitersql: %w", err)
	}
	return l, nil
}

func newLimiter(ctx context.Context, db *bun.DB, name string, n int, period time.Duration) (*Limiter, error) {
	rate, err := gcra.NewRate(n, period)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, errors.New("name is empty")
	}
	d, err := bunpool.DialectOf(db)
	if err != nil {
		return nil, err
	}
	if err := readable(ctx, db); err != nil {
		return nil, fmt.Errorf("the table can't be read; has CreateSchema been called? %w", err)
	}
	return &Limiter{db, d, name, rate}, nil
}

// Burst returns how many events one key may have at once.
func (l *Limiter) Burst() int { return l.rate.Burst() }

// Allow implements reset.Limiter.
func (l *Limiter) Allow(ctx context.Context, key string, now time.Time) error {
	var buckets []*bucket
	for _, limit := range l.rate.Limits(key) {
		buckets = append(buckets, &bucket{Limit: limit, id: l.id(limit.Key)})
	}
	err := l.dialect.Retry(ctx, func() error { return l.allow(ctx, buckets, now.UnixMicro()) })
	var limit *reset.LimitError
	if err == nil || errors.As(err, &limit) {
		return err
	}
	return fmt.Errorf("limitersql: %w", err)
}

// id returns the primary key of a key's row.
func (l *Limiter) id(key string) []byte {
	sum := sha256.Sum256([]byte(l.name + "\x00" + key))
	return sum[:]
}

// A bucket is a row of the table, or none while the bucket is full.
type bucket struct {
	gcra.Limit
	id     []byte
	exists bool
	full   int64 // when it will be full again
}

// errChanged means that a row was not as it had been read.
var errChanged = errors.New("changed meanwhile")

// allow reads before it writes, so that refused calls, of which there may be a
// flood, wait for no lock. What another call changes in between makes it begin
// again: then that one was counted.
func (l *Limiter) allow(ctx context.Context, buckets []*bucket, now int64) error {
	for {
		if err := l.read(ctx, buckets); err != nil {
			return err
		}
		var wait time.Duration
		for _, b := range buckets {
			wait = max(wait, b.Wait(now, max(b.full, now)))
		}
		if wait > 0 {
			return &reset.LimitError{RetryAfter: wait}
		}
		err := l.charge(ctx, buckets, now)
		if !errors.Is(err, errChanged) {
			return err
		}
	}
}

func (l *Limiter) read(ctx context.Context, buckets []*bucket) error {
	byID := make(map[string]*bucket)
	ids := make([][]byte, len(buckets))
	for i, b := range buckets {
		b.exists, b.full = false, 0
		ids[i], byID[string(b.id)] = b.id, b
	}
	rows, err := l.db.QueryContext(ctx, `SELECT id, full_at FROM reset_limits WHERE id IN (?)`, bun.List(ids))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id []byte
		var full int64
		if err := rows.Scan(&id, &full); err != nil {
			return err
		}
		b := byID[string(id)]
		b.exists, b.full = true, full
	}
	return rows.Err()
}

// charge counts the event for every bucket, or returns errChanged.
func (l *Limiter) charge(ctx context.Context, buckets []*bucket, now int64) error {
	if !buckets[0].exists {
		if err := l.purge(ctx, now); err != nil {
			return err
		}
	}
	if len(buckets) == 1 {
		return chargeOne(ctx, l.db, buckets[0], now)
	}
	// Every call comes from the narrowest network to the widest, so that none
	// waits for a row while it holds one that the other waits for, and the rows
	// that most calls share are locked for the shortest time.
	return l.db.RunInTx(ctx, l.dialect.TxOptions, func(ctx context.Context, tx bun.Tx) error {
		for _, b := range buckets {
			if err := chargeOne(ctx, tx, b, now); err != nil {
				return err
			}
		}
		return nil
	})
}

// chargeOne is one guarded write. It leaves no row as it was, so that all
// drivers count the rows affected alike.
func chargeOne(ctx context.Context, db bun.IDB, b *bucket, now int64) error {
	var result sql.Result
	var err error
	if b.exists {
		result, err = db.ExecContext(ctx, `UPDATE reset_limits SET full_at = CASE WHEN full_at < ? THEN ? ELSE full_at END + ? WHERE id = ? AND full_at <= ?`,
			now, now, b.Interval, b.id, b.Latest(now))
	} else {
		result, err = db.NewInsert().Ignore().Model(&row{ID: b.id, FullAt: now + b.Interval}).Exec(ctx)
	}
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		return errChanged
	}
	return err
}

type row struct {
	bun.BaseModel `bun:"table:reset_limits"`

	ID     []byte `bun:",pk"`
	FullAt int64
}

const (
	purgeRows   = 2
	purgeMargin = int64(3 * time.Hour / time.Microsecond) // beyond how far clocks may differ
)

// purge removes rows of full buckets one by one, so that it holds one lock at a
// time.
func (l *Limiter) purge(ctx context.Context, now int64) error {
	var expired []row
	err := l.db.NewSelect().Model(&expired).Where("full_at <= ?", now-purgeMargin).Order("full_at").Limit(purgeRows).Scan(ctx)
	for _, r := range expired {
		if err != nil {
			break
		}
		_, err = l.db.ExecContext(ctx, `DELETE FROM reset_limits WHERE id = ? AND full_at = ?`, r.ID, r.FullAt)
	}
	return err
}
