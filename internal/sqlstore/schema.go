package sqlstore

import (
	"context"
	"embed"
	"fmt"
	"strings"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

const latestVersion = 2

// A Schema is the history of the tables of one dialect: the statements of
// Schema[i] lead from version i to version i+1. Version 0 has no tables. In
// MySQL, where DDL ends a transaction, an interrupted step runs again from its
// start, and so must two at once on different nodes of a cluster: each statement
// either may be repeated or fails for a reason that Dialect knows.
type Schema [][]string

// Schema returns the schema of this release.
func (d *Dialect) Schema() (Schema, error) {
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
		return nil, fmt.Errorf("version %d of the schema is unknown; the latest is %d", from, len(s))
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

// DDL returns as SQL the statements that lead from a version to the latest.
func (d *Dialect) DDL(from int, tablePrefix string) (string, error) {
	names, err := d.names(tablePrefix)
	if err != nil {
		return "", err
	}
	s, err := d.Schema()
	if err != nil {
		return "", err
	}
	script, err := s.Script(from)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, statement := range script {
		text.WriteString(names.rewrite(statement) + ";\n\n")
	}
	return text.String(), nil
}

// Version returns the version of a database, and 0 for one whose table of
// versions is empty.
func Version(ctx context.Context, c Conn) (version int, err error) {
	err = each(ctx, c, func(r Row) error { return r.Scan(&version) }, selectVersion)
	return version, err
}

// Check returns an error unless a database has the latest version.
func (s Schema) Check(ctx context.Context, c Conn) error {
	version, err := Version(ctx, c)
	switch {
	case err != nil:
		return fmt.Errorf("the schema's version can't be read; has CreateSchema been called? %w", err)
	case version > len(s):
		return fmt.Errorf("the schema has version %d, of a newer release; this one knows versions up to %d", version, len(s))
	case version < len(s):
		return fmt.Errorf("the schema has version %d, not %d: call CreateSchema", version, len(s))
	}
	return nil
}

// Create brings a database to the latest version. Processes that do this at
// the same time wait for each other.
func (s Schema) Create(ctx context.Context, p Pool) error {
	conn, err := p.Session(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if s.Check(ctx, conn) == nil {
		return nil // perhaps for a role without the right to create
	}
	return p.Dialect.create(ctx, p.Dialect, conn, s)
}

// create runs what is missing. applied reports that an error means that a
// statement has been applied before.
func (s Schema) create(ctx context.Context, c Conn, applied func(error) bool) error {
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
		if err := exec(ctx, c, statement); err != nil && !applied(err) {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}
