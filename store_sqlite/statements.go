package storesqlite

import (
	"context"
	"database/sql"
	"sync"
)

// maxStatements bounds a cache. The Store has some 30 statements; those with a
// list of keys exist in one version for each length.
const maxStatements = 100

// A preparer is a *sql.DB or a *sql.Conn.
type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// statements is a sqlstore.Querier that prepares each statement once: for SQLite,
// which runs in this process, that is much of the work. SQLite itself prepares a
// statement again when the schema has changed.
type statements struct {
	conn preparer

	mu       sync.Mutex
	prepared map[string]*sql.Stmt
}

func newStatements(conn preparer) *statements {
	return &statements{conn: conn, prepared: make(map[string]*sql.Stmt)}
}

func (s *statements) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	stmt := s.statement(ctx, query)
	if stmt == nil {
		return s.conn.ExecContext(ctx, query, args...)
	}
	return stmt.ExecContext(ctx, args...)
}

func (s *statements) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	stmt := s.statement(ctx, query)
	if stmt == nil {
		return s.conn.QueryContext(ctx, query, args...)
	}
	return stmt.QueryContext(ctx, args...)
}

// statement returns nil if the cache is full or the query cannot be prepared, so
// that its caller reports why.
func (s *statements) statement(ctx context.Context, query string) *sql.Stmt {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stmt := s.prepared[query]; stmt != nil || len(s.prepared) >= maxStatements {
		return stmt
	}
	stmt, err := s.conn.PrepareContext(context.WithoutCancel(ctx), query)
	if err != nil {
		return nil
	}
	s.prepared[query] = stmt
	return stmt
}

// close closes what was prepared. Nothing may be prepared any more.
func (s *statements) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stmt := range s.prepared {
		_ = stmt.Close()
	}
	clear(s.prepared)
}
