package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// A connection pooler in transaction mode, such as PgBouncer, gives each
// transaction any connection to the server. A driver that prepares a statement
// in one and runs it in the next may find no such statement, or another
// client's.

// poolerHint says what helps.
const poolerHint = "behind a connection pooler in transaction mode, such as PgBouncer, pgx needs default_query_exec_mode=exec in its connection string (or simple_protocol or cache_describe)"

// sqlState returns the SQLSTATE of an error of pgx, lib/pq or bun's pgdriver,
// but not of one that it wraps.
func sqlState(err error) string {
	switch e := err.(type) {
	case interface{ SQLState() string }:
		return e.SQLState()
	case interface{ Field(byte) string }:
		return e.Field('C')
	}
	return ""
}

// explain adds poolerHint to errors about prepared statements, once.
func explain(err error) error {
	prepared := anyError(err, func(err error) bool {
		switch sqlState(err) {
		case "26000", "42P05": // no such statement, there is one already
			return true
		case "08P01": // protocol violation; the pooler itself reports it for a parameter it does not know
			return !strings.Contains(err.Error(), "startup parameter")
		}
		return false
	})
	if prepared && !strings.Contains(err.Error(), poolerHint) {
		return fmt.Errorf("%w; %s", err, poolerHint)
	}
	return err
}

// recovered turns a panic of the driver into an error: pgx panics if the result
// is that of another statement.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the database driver panicked: %v; %s", p, poolerHint)
	}
}

const (
	poolerRounds  = 20
	poolerTimeout = time.Second // for the second connection
)

// probePooler makes statements on two connections of a pool at once, and
// returns an error if they disturb each other, as they do behind a pooler that
// the driver is not set up for.
func probePooler(ctx context.Context, p Pool) error {
	return onTwo(ctx, p, func(conns []*Session) error {
		errs := make([]error, len(conns))
		var wg sync.WaitGroup
		for i, conn := range conns {
			wg.Go(func() { errs[i] = probeStatements(ctx, conn, i) })
		}
		wg.Wait()
		return errors.Join(errs...)
	})
}

// onTwo calls f with two connections of a pool. It does nothing where the pool
// has no second connection to give.
func onTwo(ctx context.Context, p Pool, f func([]*Session) error) error {
	if p.Size != nil && p.Size() == 1 {
		return nil
	}
	var conns []*Session
	for range 2 {
		soon, cancel := context.WithTimeout(ctx, poolerTimeout)
		conn, err := p.Session(soon)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return nil
		}
		if err != nil {
			return err
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	return f(conns)
}

// probeStatements makes statements that are the same on each connection, and
// some that are not. They have an argument: some drivers prepare only those.
func probeStatements(ctx context.Context, c Conn, number int) error {
	for round := range poolerRounds {
		for _, want := range []int{round, 1000*(1+number) + round} {
			got := -1
			err := each(ctx, c, func(r Row) error { return r.Scan(&got) }, fmt.Sprintf("SELECT %d + CAST(? AS INTEGER)", want-1), 1)
			if err == nil && got != want {
				err = fmt.Errorf("a statement got the result of another; %s", poolerHint)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
