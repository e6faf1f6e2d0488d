package sqlstore

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
	"sync"
)

// A Conn runs statements that have "?" for each argument.
type Conn interface {
	// Exec makes a statement. A Conn of a transaction may put it off until the
	// next one whose answer matters, which then also has its error.
	Exec(ctx context.Context, query string, args ...any) error
	// ExecCount makes a statement and returns how many rows it has changed.
	ExecCount(ctx context.Context, query string, args ...any) (int64, error)
	// Query calls f for every row. f may scan but makes no statement.
	Query(ctx context.Context, f func(Row) error, query string, args ...any) error
}

// A Row is a *sql.Rows, or that of another driver.
type Row interface {
	Scan(dest ...any) error
}

// A Querier is a *sql.DB, *sql.Conn or *sql.Tx, or its counterpart in bun.
type Querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// On returns a Conn on q, which takes "?" for an argument.
func On(q Querier) Conn { return conn{q} }

type conn struct{ Querier }

func (c conn) Exec(ctx context.Context, query string, args ...any) error {
	_, err := c.ExecContext(ctx, query, args...)
	return err
}

func (c conn) ExecCount(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := c.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (c conn) Query(ctx context.Context, f func(Row) error, query string, args ...any) error {
	rows, err := c.QueryContext(ctx, query, args...)
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

// plain returns a Conn on what database/sql provides.
func (d *Dialect) plain(q Querier) Conn {
	if d.numbered {
		return On(numbered{q})
	}
	return On(q)
}

// numbered is for drivers that take "$1" for an argument.
type numbered struct{ q Querier }

func (n numbered) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return n.q.ExecContext(ctx, Numbered(query), args...)
}

func (n numbered) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return n.q.QueryContext(ctx, Numbered(query), args...)
}

var numberedQueries sync.Map // by those with "?"

// Numbered returns a statement of this package with "$1", "$2" and so on for its
// arguments.
func Numbered(query string) string {
	if known, ok := numberedQueries.Load(query); ok {
		return known.(string)
	}
	var b strings.Builder
	n := 0
	for part := range strings.SplitSeq(query, "?") {
		if n > 0 {
			b.WriteString("$" + strconv.Itoa(n))
		}
		b.WriteString(part)
		n++
	}
	if n > 1 { // others are made once
		numberedQueries.Store(query, b.String())
	}
	return b.String()
}

// Every statement of a Store goes through exec, execCount or each.

func exec(ctx context.Context, c Conn, query string, args ...any) (err error) {
	defer recovered(&err)
	return explain(c.Exec(ctx, query, args...))
}

func execCount(ctx context.Context, c Conn, query string, args ...any) (n int64, err error) {
	defer recovered(&err)
	n, err = c.ExecCount(ctx, query, args...)
	return n, explain(err)
}

func each(ctx context.Context, c Conn, f func(Row) error, query string, args ...any) (err error) {
	defer recovered(&err)
	return explain(c.Query(ctx, f, query, args...))
}

// exists reports whether a query has a row.
func exists(ctx context.Context, c Conn, query string, args ...any) (found bool, err error) {
	err = each(ctx, c, func(Row) error { found = true; return nil }, query, args...)
	return found, err
}
