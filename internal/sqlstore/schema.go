package sqlstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"strings"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

const latestVersion = 1

// A Schema is the history of the tables of one dialect: the statements of
// Schema[i] lead from version i to version i+1. There are no tables in version
// 0. Where DDL ends a transaction, as in MySQL, a step can be run again from
// its start.
type Schema [][]string

// SchemaOf returns the schema as it is known today.
func SchemaOf(name dialect.Name) (Schema, error) {
	d, err := dialectNamed(name)
	if err != nil {
		return nil, err
	}
	var s Schema
	for version := 1; version <= latestVersion; version++ {
		b, err := schemaFiles.ReadFile(fmt.Sprintf("schema/%s_%d.sql", d.name, version))
		if err != nil {
			return nil, err
		}
		s = append(s, statements(string(b)))
	}
	return s, nil
}

func statements(text string) (list []string) {
	for part := range strings.SplitSeq(text, ";\n") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

const (
	createVersion = `CREATE TABLE IF NOT EXISTS reset_schema (id INTEGER NOT NULL PRIMARY KEY, version INTEGER NOT NULL)`
	selectVersion = `SELECT version FROM reset_schema WHERE id = 1`
	insertVersion = `INSERT INTO reset_schema (id, version) VALUES (1, %d)`
	updateVersion = `UPDATE reset_schema SET version = %d WHERE id = 1`
)

// Script returns the statements that lead from a version to the latest.
func (s Schema) Script(from int) ([]string, error) {
	if from < 0 || from > len(s) {
		return nil, fmt.Errorf("version %d of the schema is not known, the latest is %d", from, len(s))
	}
	var script []string
	for version := from; version < len(s); version++ {
		if version == 0 {
			script = append(script, createVersion)
		}
		script = append(script, s[version]...)
		if version == 0 {
			script = append(script, fmt.Sprintf(insertVersion, 1))
		} else {
			script = append(script, fmt.Sprintf(updateVersion, version+1))
		}
	}
	return script, nil
}

// Version returns the version of a database, and 0 for one whose table of
// versions is empty.
func Version(ctx context.Context, c Conn) (version int, err error) {
	err = each(ctx, c, func(r *sql.Rows) error { return r.Scan(&version) }, selectVersion)
	return version, err
}

// Check returns an error unless a database has the latest version.
func (s Schema) Check(ctx context.Context, c Conn) error {
	version, err := Version(ctx, c)
	switch {
	case err != nil:
		return fmt.Errorf("version of the schema can't be read; has CreateSchema been called? %w", err)
	case version > len(s):
		return fmt.Errorf("schema has version %d, from a newer release; this one knows versions up to %d", version, len(s))
	case version < len(s):
		return fmt.Errorf("schema has version %d, not %d: call CreateSchema", version, len(s))
	}
	return nil
}

// Create brings a database to the latest version. Processes that do this at
// the same time wait for each other.
func (s Schema) Create(ctx context.Context, db *bun.DB) error {
	d, err := DialectOf(db)
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	switch d {
	case mysql:
		return s.createMySQL(ctx, conn)
	case postgres:
		return s.createPostgres(ctx, conn)
	default:
		return d.Retry(ctx, func() error { return s.createSQLite(ctx, conn) })
	}
}

func (s Schema) create(ctx context.Context, c Conn) error {
	if err := exec(ctx, c, createVersion); err != nil {
		return err
	}
	version, err := Version(ctx, c)
	if err != nil {
		return err
	}
	script, err := s.Script(version)
	if err != nil {
		return err
	}
	for _, statement := range script {
		if err := exec(ctx, c, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// createSQLite takes the lock before it reads.
func (s Schema) createSQLite(ctx context.Context, c Conn) error {
	if err := exec(ctx, c, `BEGIN IMMEDIATE`); err != nil {
		return err
	}
	err := s.create(ctx, c)
	if err == nil {
		err = exec(ctx, c, `COMMIT`)
	}
	if err != nil {
		_ = exec(context.WithoutCancel(ctx), c, `ROLLBACK`)
	}
	return err
}

// lockName is short enough for MySQL, whose named locks are the server's.
func lockName(database string) string {
	sum := sha256.Sum256([]byte(database))
	return fmt.Sprintf("reset_schema.%x", sum[:16])
}

// advisoryLock is "reset" in ASCII.
const advisoryLock = 0x7265736574

func (s Schema) createPostgres(ctx context.Context, conn bun.Conn) error {
	return conn.RunInTx(ctx, postgres.TxOptions, func(ctx context.Context, tx bun.Tx) error {
		if err := exec(ctx, tx, `SELECT pg_advisory_xact_lock(?)`, advisoryLock); err != nil {
			return err
		}
		return s.create(ctx, tx)
	})
}

func (s Schema) createMySQL(ctx context.Context, conn bun.Conn) error {
	var database sql.NullString
	if err := conn.QueryRowContext(ctx, `SELECT DATABASE()`).Scan(&database); err != nil {
		return err
	}
	var got sql.NullInt64
	name := []byte(lockName(database.String))
	if err := conn.QueryRowContext(ctx, `SELECT GET_LOCK(?, 60)`, name).Scan(&got); err != nil {
		return err
	}
	if got.Int64 != 1 {
		return errors.New("another process has been creating the schema for a minute")
	}
	defer func() { _ = exec(context.WithoutCancel(ctx), conn, `DO RELEASE_LOCK(?)`, name) }()
	return s.create(ctx, conn)
}
