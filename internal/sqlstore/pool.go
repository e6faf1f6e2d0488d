package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
)

// A Pool is a database of the host, through the package that the host uses. It
// is the Backend of a Store.
type Pool struct {
	Conn
	Dialect  *Dialect
	Database any // comparable: what tells it from other pools
	// BeginTx starts a transaction.
	BeginTx func(ctx context.Context, o *sql.TxOptions) (*Tx, error)
	// Session takes a connection out of the pool.
	Session func(ctx context.Context) (*Session, error)
	// WriteFunc is Write for a pool that saves round trips; nil: it saves none.
	WriteFunc func(ctx context.Context, f Op) error
	// Size returns how many connections the pool has at most, 0 for no limit.
	// It is nil for pools that are not of database/sql.
	Size func() int

	names *names
}

// A Session is one connection.
type Session struct {
	Conn
	BeginTx func(ctx context.Context, o *sql.TxOptions) (*Tx, error)
	Close   func() error
	Raw     *sql.Conn // nil for pools that are not of database/sql
}

// SQLPool returns a Pool on a *sql.DB.
func SQLPool(db *sql.DB, d *Dialect) Pool {
	return Pool{
		Conn:     d.plain(db),
		Dialect:  d,
		Database: db,
		BeginTx:  func(ctx context.Context, o *sql.TxOptions) (*Tx, error) { return d.sqlTx(db.BeginTx(ctx, o)) },
		Session: func(ctx context.Context) (*Session, error) {
			conn, err := db.Conn(ctx)
			if err != nil {
				return nil, err
			}
			return &Session{
				Conn:    d.plain(conn),
				BeginTx: func(ctx context.Context, o *sql.TxOptions) (*Tx, error) { return d.sqlTx(conn.BeginTx(ctx, o)) },
				Close:   conn.Close,
				Raw:     conn,
			}, nil
		},
		Size: func() int { return db.Stats().MaxOpenConnections },
	}
}

func (d *Dialect) sqlTx(tx *sql.Tx, err error) (*Tx, error) {
	if err != nil {
		return nil, err
	}
	return NewTx(d.plain(tx), tx, tx, tx.Commit, tx.Rollback), nil
}

// Open returns a Store on a pool whose database has the latest schema and keeps
// what a Store relies on.
func (p Pool) Open(ctx context.Context, usersElsewhere bool, tablePrefix string) (*Store, error) {
	p, err := p.WithPrefix(tablePrefix)
	if err != nil {
		return nil, err
	}
	if err := p.checkDialect(ctx); err != nil {
		return nil, err
	}
	schema, err := p.Dialect.Schema()
	if err != nil {
		return nil, err
	}
	if err := p.Dialect.probePool(ctx, p); err != nil {
		return nil, err
	}
	if err := schema.Check(ctx, p); err != nil {
		return nil, err
	}
	s := New(p, p.Database, p.Dialect, usersElsewhere)
	s.names = p.names
	if err := Probe(ctx, s); err != nil {
		return nil, err
	}
	return s, nil
}

// CreateSchema brings the database to the latest version.
func (p Pool) CreateSchema(ctx context.Context, tablePrefix string) error {
	p, err := p.WithPrefix(tablePrefix)
	if err != nil {
		return err
	}
	if err := p.checkDialect(ctx); err != nil {
		return err
	}
	schema, err := p.Dialect.Schema()
	if err != nil {
		return err
	}
	return schema.Create(ctx, p)
}

// checkDialect returns an error if the database is known to be of another
// dialect. That may work for a while, without the locks that its own one takes.
func (p Pool) checkDialect(ctx context.Context) error {
	is := func(d *Dialect) bool {
		return each(ctx, p, func(Row) error { return nil }, d.identify) == nil
	}
	if is(p.Dialect) {
		return nil
	}
	for _, d := range []*Dialect{SQLite, PostgreSQL, MySQL} {
		if is(d) {
			return fmt.Errorf("the database is %s, not %s: pass its Dialect", d.product, p.Dialect.product)
		}
	}
	return nil
}

// Read implements Backend.
func (p Pool) Read(ctx context.Context, f Op) error { return p.WriteOne(ctx, f) }

// WriteOne implements Backend.
func (p Pool) WriteOne(ctx context.Context, f Op) error {
	return p.Dialect.Retry(ctx, func() error { return f(ctx, p) })
}

// WriteRow implements Backend.
func (p Pool) WriteRow(ctx context.Context, f Op) error {
	if p.Dialect.readCommitted == "" {
		return p.WriteOne(ctx, f)
	}
	conn, err := p.Session(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	err = p.Dialect.Retry(ctx, func() error {
		if err := exec(ctx, conn, p.Dialect.readCommitted); err != nil {
			return err
		}
		return f(ctx, conn)
	})
	if err != nil {
		// Perhaps no statement has followed: the host must not get the connection.
		_ = conn.Raw.Raw(func(any) error { return driver.ErrBadConn })
	}
	return err
}

// Write implements Backend.
func (p Pool) Write(ctx context.Context, f Op) error {
	if p.WriteFunc != nil {
		return p.WriteFunc(ctx, f)
	}
	return InTx(ctx, p.Dialect, p.Begin, f)
}

// Begin implements Backend.
func (p Pool) Begin(ctx context.Context) (*Tx, error) { return p.Dialect.begin(ctx, p) }
