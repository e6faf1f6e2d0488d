package storepgx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gopassreset/reset/internal/sqlstore"
)

// A querier is a *pgxpool.Pool, *pgxpool.Conn or pgx.Tx.
type querier interface {
	Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
}

// A conn is a sqlstore.Conn that makes each statement at once.
type conn struct{ q querier }

func (c conn) Exec(ctx context.Context, query string, args ...any) error {
	_, err := c.ExecCount(ctx, query, args...)
	return err
}

func (c conn) ExecCount(ctx context.Context, query string, args ...any) (int64, error) {
	tag, err := c.q.Exec(ctx, sqlstore.Numbered(query), args...)
	return tag.RowsAffected(), err
}

func (c conn) Query(ctx context.Context, f func(sqlstore.Row) error, query string, args ...any) error {
	rows, err := c.q.Query(ctx, sqlstore.Numbered(query), args...)
	return each(rows, err, f)
}

func each(rows pgx.Rows, err error, f func(sqlstore.Row) error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// A beginner is a *pgxpool.Pool or *pgxpool.Conn.
type beginner interface {
	BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error)
}

// begin returns a function that starts a transaction which the host may join.
func begin(b beginner) func(context.Context, *sql.TxOptions) (*sqlstore.Tx, error) {
	return func(ctx context.Context, _ *sql.TxOptions) (*sqlstore.Tx, error) {
		tx, err := b.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
		if err != nil {
			return nil, err
		}
		// If ctx has ended, Rollback closes the connection, which ends the
		// transaction as well.
		return sqlstore.NewTx(conn{tx}, tx, nil, func() error { return tx.Commit(ctx) }, func() error { return tx.Rollback(ctx) }), nil
	}
}

func poolOn(pool *pgxpool.Pool) sqlstore.Pool {
	return sqlstore.Pool{
		Conn:     conn{pool},
		Dialect:  sqlstore.PostgreSQL,
		Database: pool,
		BeginTx:  begin(pool),
		Session: func(ctx context.Context) (*sqlstore.Session, error) {
			c, err := pool.Acquire(ctx)
			if err != nil {
				return nil, err
			}
			return &sqlstore.Session{Conn: conn{c}, BeginTx: begin(c), Close: func() error { c.Release(); return nil }}, nil
		},
		WriteFunc: func(ctx context.Context, f sqlstore.Op) error {
			return sqlstore.PostgreSQL.Retry(ctx, func() error { return write(ctx, pool, f) })
		},
	}
}

// write runs f in a transaction that puts statements off.
func write(ctx context.Context, pool *pgxpool.Pool, f sqlstore.Op) error {
	c, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer c.Release() // closes a connection whose transaction has not ended
	p := &pipeline{conn: c}
	p.queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	if err := f(ctx, p); err != nil {
		p.rollback(ctx)
		return err
	}
	if err := p.commit(ctx); err != nil {
		p.rollback(ctx)
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// A pipeline is a sqlstore.Conn that sends statements together with the next one
// whose answer matters.
type pipeline struct {
	conn  *pgxpool.Conn
	batch pgx.Batch
}

func (p *pipeline) queue(query string, args ...any) {
	p.batch.Queue(sqlstore.Numbered(query), args...)
}

// send sends what is queued. last reads the answer to the last statement.
func (p *pipeline) send(ctx context.Context, last func(pgx.BatchResults) error) error {
	batch := p.batch
	p.batch = pgx.Batch{}
	results := p.conn.SendBatch(ctx, &batch)
	err := func() error {
		for range batch.Len() - 1 {
			if _, err := results.Exec(); err != nil {
				return err
			}
		}
		return last(results)
	}()
	if closeErr := results.Close(); err == nil {
		err = closeErr
	}
	return err
}

func (p *pipeline) Exec(_ context.Context, query string, args ...any) error {
	p.queue(query, args...)
	return nil
}

func (p *pipeline) ExecCount(ctx context.Context, query string, args ...any) (n int64, err error) {
	p.queue(query, args...)
	err = p.send(ctx, func(r pgx.BatchResults) error {
		tag, err := r.Exec()
		n = tag.RowsAffected()
		return err
	})
	return n, err
}

func (p *pipeline) Query(ctx context.Context, f func(sqlstore.Row) error, query string, args ...any) error {
	p.queue(query, args...)
	return p.send(ctx, func(r pgx.BatchResults) error {
		rows, err := r.Query()
		return each(rows, err, f)
	})
}

func (p *pipeline) commit(ctx context.Context) error {
	p.queue("COMMIT")
	return p.send(ctx, func(r pgx.BatchResults) error {
		tag, err := r.Exec()
		if err == nil && tag.String() != "COMMIT" {
			err = errors.New("the database rolled the transaction back")
		}
		return err
	})
}

// rollback ignores errors: the connection is closed then.
func (p *pipeline) rollback(ctx context.Context) {
	if p.conn.Conn().PgConn().TxStatus() != 'I' {
		_, _ = p.conn.Exec(ctx, "ROLLBACK")
	}
}
