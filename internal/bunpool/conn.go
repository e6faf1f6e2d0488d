package bunpool

import (
	"context"
	"database/sql"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"

	"github.com/gopassreset/reset/internal/sqlstore"
)

// on returns a Conn on q, which is b without bun.
func on(b bun.IDB, q bun.IConn) sqlstore.Conn {
	if b.Dialect().Name() != dialect.PG {
		return sqlstore.On(b)
	}
	return sqlstore.On(withArgs{b, q})
}

// withArgs passes arguments to the driver. bun writes them into the statement,
// which is then another one each time for what prepares statements: PostgreSQL,
// and a driver with a cache. The host's hooks see what bun would have sent, as a
// raw query.
type withArgs struct {
	bun.IDB
	q bun.IConn
}

func (w withArgs) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return w.IDB.NewRaw(query, args...).Conn(hooked{w.q, func(ctx context.Context) (sql.Result, error) {
		return w.q.ExecContext(ctx, sqlstore.Numbered(query), args...)
	}}).Exec(ctx)
}

func (w withArgs) QueryContext(ctx context.Context, query string, args ...any) (rows *sql.Rows, err error) {
	_, err = w.IDB.NewRaw(query, args...).Conn(hooked{w.q, func(ctx context.Context) (_ sql.Result, err error) {
		rows, err = w.q.QueryContext(ctx, sqlstore.Numbered(query), args...)
		return nil, err
	}}).Exec(ctx)
	return rows, err
}

// hooked is what bun runs a statement on, between its hooks.
type hooked struct {
	bun.IConn
	run func(context.Context) (sql.Result, error)
}

func (h hooked) ExecContext(ctx context.Context, _ string, _ ...any) (sql.Result, error) {
	return h.run(ctx)
}
