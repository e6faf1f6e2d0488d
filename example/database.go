package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/mysqldialect"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/gopassreset/reset"
	storebun "github.com/gopassreset/reset/store_bun"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// maxConns leaves room on a server for another process of ours, and for others.
const maxConns = 24

// A database holds the host's tables and the library's side by side, so that a
// new password, the end of the sessions and the end of the link that led there
// are one transaction.
type database struct {
	*bun.DB
	store reset.Store
	name  string // to be shown: without a password
	close func() error
}

// A source is where a database can be had.
type source struct {
	name string
	open func(ctx context.Context) (*database, error)
}

// sourceOf understands the flag -db. It opens nothing.
func sourceOf(s string) (source, error) {
	scheme, _, isURL := strings.Cut(s, "://")
	switch {
	case s == "":
		return source{"a temporary file", openTemporary}, nil
	case !isURL:
		return fileSource(s), nil
	case scheme == "postgres" || scheme == "postgresql":
		return postgresSource(s)
	case scheme == "mysql":
		return mysqlSource(s)
	}
	return source{}, errors.New("is neither a file nor a URL that begins with postgres:// or mysql://")
}

func openTemporary(ctx context.Context) (*database, error) {
	folder, err := os.MkdirTemp("", "reset-example-")
	if err != nil {
		return nil, err
	}
	return fileSource(filepath.Join(folder, "demo.db")).open(ctx)
}

// fileSource is the embedded default. The library opens the file and lends it
// to the host.
func fileSource(path string) source {
	return source{path, func(context.Context) (*database, error) {
		store, err := storesqlite.Open(path)
		if err != nil {
			return nil, err
		}
		return &database{DB: store.DB(), store: store, name: path, close: store.Close}, nil
	}}
}

func postgresSource(s string) (source, error) {
	if _, err := url.Parse(s); err != nil {
		return source{}, errors.New("is not a URL")
	}
	config, err := pgx.ParseConfig(s)
	if err != nil {
		cause := cmp.Or(errors.Unwrap(err), errors.New("a setting is wrong")) // err itself repeats the URL
		return source{}, fmt.Errorf("is not understood: %w", cause)
	}
	name := fmt.Sprintf("postgres://%s/%s", net.JoinHostPort(config.Host, fmt.Sprint(config.Port)), config.Database)
	// bun writes arguments into its statements itself, so there is nothing to
	// prepare.
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return source{name, func(ctx context.Context) (*database, error) {
		return openServer(ctx, name, bun.NewDB(stdlib.OpenDB(*config), pgdialect.New()))
	}}, nil
}

func mysqlSource(s string) (source, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") == "" {
		return source{}, errors.New("is not of the form mysql://user:pass@host:port/db")
	}
	host := u.Host
	if u.Port() == "" {
		host += ":3306"
	}
	config, err := mysql.ParseDSN("tcp(" + host + ")/?" + u.RawQuery)
	if err != nil {
		return source{}, fmt.Errorf("is not understood: %w", err)
	}
	config.User = u.User.Username()
	config.Passwd, _ = u.User.Password()
	config.DBName = strings.Trim(u.Path, "/")
	config.ClientFoundRows = true // an UPDATE that changes nothing has found its row
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return source{}, fmt.Errorf("is not understood: %w", err)
	}
	return source{u.Redacted(), func(ctx context.Context) (*database, error) {
		return openServer(ctx, u.Redacted(), bun.NewDB(sql.OpenDB(connector), mysqldialect.New()))
	}}, nil
}

// openServer is for hosts that have a database already: the library's tables
// are added to it.
func openServer(ctx context.Context, name string, db *bun.DB) (_ *database, err error) {
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	db.SetConnMaxLifetime(3 * time.Minute)
	defer func() {
		if err != nil {
			_ = db.Close()
		}
	}()
	if err := storebun.CreateSchema(ctx, db); err != nil {
		return nil, err
	}
	store, err := storebun.New(ctx, db)
	if err != nil {
		return nil, err
	}
	return &database{DB: db, store: store, name: name, close: db.Close}, nil
}

// ready reports whether the database answers.
func (d *database) ready(ctx context.Context) error {
	var one int
	return d.QueryRowContext(ctx, "SELECT 1").Scan(&one)
}
