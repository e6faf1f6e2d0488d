package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gopassreset/reset"
)

// text binds a string as bytes, for columns of bytes: so it equals only itself,
// whatever the collation, and bun, which writes arguments into the statement,
// writes it in hexadecimal. Empty strings are NULL.
func text(s string) any {
	if s == "" {
		return nil
	}
	return []byte(s)
}

// The most that MySQL's columns hold. Without strict mode it would truncate.
const (
	maxUserID = 255
	maxText   = 65_535
)

func checkUserID(id string) error {
	if id == "" || len(id) > maxUserID {
		return fmt.Errorf("user id has %d bytes, not 1 to %d", len(id), maxUserID)
	}
	return nil
}

func checkText(texts ...string) error {
	for _, s := range texts {
		if len(s) > maxText {
			return fmt.Errorf("text has %d bytes, more than %d", len(s), maxText)
		}
	}
	return nil
}

func orNULL(id reset.ID) any {
	if id == (reset.ID{}) {
		return nil
	}
	return id[:]
}

func newID(now time.Time) (id reset.ID) {
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16)
	rand.Read(id[6:]) // never fails
	return id
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func exec(ctx context.Context, c Conn, query string, args ...any) error {
	_, err := c.ExecContext(ctx, query, args...)
	return err
}

// each calls f for every row. f may scan but makes no statement.
func each(ctx context.Context, c Conn, f func(*sql.Rows) error, query string, args ...any) error {
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

// exists reports whether a query has a row.
func exists(ctx context.Context, c Conn, query string, args ...any) (found bool, err error) {
	err = each(ctx, c, func(*sql.Rows) error { found = true; return nil }, query, args...)
	return found, err
}

// list returns a parenthesized list of n placeholders.
// padded repeats the last key until there are a power of two, so that there are
// few different statements to prepare.
func padded(keys []any) []any {
	n := 1
	for n < len(keys) {
		n *= 2
	}
	return slices.Concat(keys, slices.Repeat(keys[len(keys)-1:], n-len(keys)))
}

func list(n int) string { return "(?" + strings.Repeat(", ?", n-1) + ")" }
