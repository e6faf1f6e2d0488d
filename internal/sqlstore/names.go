package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// DefaultPrefix begins the names of tables in all statements of this package.
const DefaultPrefix = "reset_"

// names are what tables and indexes are called in a database of the host. nil
// means as in the statements.
type names struct {
	schema string // with a dot at its end, or ""
	prefix string
	// qualifiesDropped says that DROP INDEX needs the schema.
	qualifiesDropped bool
	rewritten        sync.Map // statements, by those of this package
}

// maxPrefix leaves room for the longest name of an index in PostgreSQL.
const maxPrefix = 40

var (
	validPrefix = regexp.MustCompile(`^(?:([a-z_][a-z0-9_]*)\.)?([a-z_][a-z0-9_]*)$`)
	ownName     = regexp.MustCompile(`(DROP INDEX )?\breset_(activations|mails|locks|history|realms|schema)(_[a-z0-9]+)?\b`)
)

func (d *Dialect) names(prefix string) (*names, error) {
	if prefix == "" || prefix == DefaultPrefix {
		return nil, nil
	}
	parts := validPrefix.FindStringSubmatch(prefix)
	switch {
	case parts == nil:
		return nil, fmt.Errorf("table prefix %q has other characters than a-z, 0-9, _ and one dot behind a schema, or begins with a digit", prefix)
	case len(parts[2]) > maxPrefix:
		return nil, fmt.Errorf("table prefix %q is longer than %d characters", parts[2], maxPrefix)
	case parts[1] != "" && d == SQLite:
		return nil, fmt.Errorf("table prefix %q has a schema, and SQLite has none", prefix)
	}
	n := &names{prefix: parts[2], qualifiesDropped: d == PostgreSQL}
	if parts[1] != "" {
		n.schema = parts[1] + "."
	}
	return n, nil
}

// rewrite returns a statement of this package with the names of the database.
func (n *names) rewrite(query string) string {
	if n == nil {
		return query
	}
	if known, ok := n.rewritten.Load(query); ok {
		return known.(string)
	}
	text := ownName.ReplaceAllStringFunc(query, func(found string) string {
		parts := ownName.FindStringSubmatch(found)
		drop, name, index := parts[1], n.prefix+parts[2]+parts[3], parts[3] != ""
		if index && !(drop != "" && n.qualifiesDropped) {
			return drop + name
		}
		return drop + n.schema + name
	})
	n.rewritten.Store(query, text)
	return text
}

// table returns the schema, or "", and the name of a table in the database.
func (n *names) table(name string) (schema, table string) {
	if n == nil {
		return "", name
	}
	return strings.TrimSuffix(n.schema, "."), n.prefix + strings.TrimPrefix(name, DefaultPrefix)
}

// on returns a Conn that runs the statements of this package on c.
func (n *names) on(c Conn) Conn {
	if _, done := c.(named); n == nil || done {
		return c
	}
	return named{c, n}
}

// rename returns what a table is called on a Conn.
func rename(c Conn, table string) string {
	if c, ok := c.(named); ok {
		return c.names.rewrite(table)
	}
	return table
}

type named struct {
	Conn
	names *names
}

func (c named) Exec(ctx context.Context, query string, args ...any) error {
	return c.Conn.Exec(ctx, c.names.rewrite(query), args...)
}

func (c named) ExecCount(ctx context.Context, query string, args ...any) (int64, error) {
	return c.Conn.ExecCount(ctx, c.names.rewrite(query), args...)
}

func (c named) Query(ctx context.Context, f func(Row) error, query string, args ...any) error {
	return c.Conn.Query(ctx, f, c.names.rewrite(query), args...)
}

// WithPrefix returns the pool for tables whose names begin with prefix, which may
// have a schema and a dot in front.
func (p Pool) WithPrefix(prefix string) (Pool, error) {
	n, err := p.Dialect.names(prefix)
	if err != nil || n == nil {
		return p, err
	}
	begin := func(beginTx func(context.Context, *sql.TxOptions) (*Tx, error)) func(context.Context, *sql.TxOptions) (*Tx, error) {
		return func(ctx context.Context, o *sql.TxOptions) (*Tx, error) {
			tx, err := beginTx(ctx, o)
			if err == nil {
				tx.Conn = n.on(tx.Conn)
			}
			return tx, err
		}
	}
	session, write := p.Session, p.WriteFunc
	p.names = n
	p.Conn, p.BeginTx = n.on(p.Conn), begin(p.BeginTx)
	p.Session = func(ctx context.Context) (*Session, error) {
		s, err := session(ctx)
		if err == nil {
			s.Conn, s.BeginTx = n.on(s.Conn), begin(s.BeginTx)
		}
		return s, err
	}
	if write != nil {
		p.WriteFunc = func(ctx context.Context, f Op) error {
			return write(ctx, func(ctx context.Context, c Conn) error { return f(ctx, n.on(c)) })
		}
	}
	return p, nil
}
