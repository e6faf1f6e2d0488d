package main

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// rowsShown is how many rows of each table the start page shows.
const rowsShown = 8

// A kind is how a value of a column is shown.
type kind int

const (
	bytesKind kind = iota // in hexadecimal
	textKind
	numberKind
	timeKind // Unix milliseconds
)

type column struct {
	Name string
	kind kind
}

// A table is what is in one of the tables that the library keeps.
type table struct {
	Name    string
	Hint    string
	Columns []column
	Rows    [][]string
	order   string
}

// tablesShown are the library's, as storebun.DDL gives them, and then the
// host's own that a new password empties.
var tablesShown = []table{
	{Name: "reset_mails", Hint: "mail to be sent; there is no link in it", order: "expires DESC", Columns: []column{
		{"id", bytesKind}, {"kind", textKind}, {"user_id", textKind}, {"email", textKind},
		{"due", timeKind}, {"attempts", numberKind}, {"lease", bytesKind}, {"expires", timeKind},
	}},
	{Name: "reset_activations", Hint: "links that work; the hash of each is kept, not the link", order: "expires DESC", Columns: []column{
		{"hash", bytesKind}, {"request", bytesKind}, {"user_id", textKind}, {"email", textKind}, {"claim", bytesKind}, {"expires", timeKind},
	}},
	{Name: "reset_locks", Hint: "keep order among processes on a server; SQLite has one writer anyway", order: "expires DESC", Columns: []column{
		{"user_id", textKind}, {"claim", bytesKind}, {"expires", timeKind},
	}},
	{Name: "sessions", Hint: "the host’s own, emptied in the transaction that saves a new password", order: "created DESC", Columns: []column{
		{"hash", textKind}, {"user_id", textKind}, {"device", textKind}, {"expires", timeKind},
	}},
}

func readTables(ctx context.Context, db *bun.DB) ([]table, error) {
	tables := make([]table, 0, len(tablesShown))
	for _, t := range tablesShown {
		var err error
		if t.Rows, err = t.read(ctx, db); err != nil {
			return nil, fmt.Errorf("read %s: %w", t.Name, err)
		}
		tables = append(tables, t)
	}
	return tables, nil
}

func (t table) read(ctx context.Context, db *bun.DB) (all [][]string, err error) {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	rows, err := db.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM %s ORDER BY %s LIMIT %d", strings.Join(names, ", "), t.Name, t.order, rowsShown))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		row, err := t.scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

func (t table) scan(rows *sql.Rows) ([]string, error) {
	raw := make([][]byte, len(t.Columns))
	into := make([]any, len(t.Columns))
	for i := range raw {
		into[i] = &raw[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	row := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		row[i] = c.format(raw[i])
	}
	return row, nil
}

func (c column) format(raw []byte) string {
	switch {
	case raw == nil:
		return ""
	case c.kind == bytesKind:
		return shorten(hex.EncodeToString(raw), 16)
	case c.kind == timeKind:
		ms, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			return "?"
		}
		return formatTime(time.UnixMilli(ms))
	}
	return shorten(string(raw), 24)
}

// formatTime gives the day if it is not near.
func formatTime(t time.Time) string {
	if time.Until(t).Abs() < 20*time.Hour {
		return t.Format("15:04:05")
	}
	return t.Format("2 Jan 15:04")
}

func shorten(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
