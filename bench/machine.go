package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// printMachine says above the table what it was measured on.
func (b *bench) printMachine(ctx context.Context) {
	processor := "processors"
	if model := find(`(?m)^model name\s*: (.+)$`, "/proc/cpuinfo"); model != "" {
		processor = "of " + model
	}
	facts := []string{
		fmt.Sprintf("%s, %d pairs, %v each", time.Now().Format(time.DateOnly), b.pairs, b.each),
		fmt.Sprintf("%s/%s, %d %s, load before: %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor, find(`^\S+`, "/proc/loadavg")),
		runtime.Version(),
		"SQLite " + version(ctx, `SELECT sqlite_version() || ', synchronous FULL'`, func() (*sql.DB, error) { return sql.Open("sqlite", ":memory:") }),
		"PostgreSQL " + version(ctx, `SELECT current_setting('server_version') || ', fsync ' || current_setting('fsync') || ', synchronous_commit ' || current_setting('synchronous_commit')`,
			func() (*sql.DB, error) { return openPostgres("") }),
		"MariaDB " + version(ctx, `SELECT CONCAT(VERSION(), ', innodb_flush_log_at_trx_commit ', @@innodb_flush_log_at_trx_commit)`, func() (*sql.DB, error) { return openMySQL("") }),
		"PocketBase " + find(`pocketbase/pocketbase (v\S+)`, pocketBaseDir+"/go.mod"),
	}
	fmt.Printf("%s\n\n", strings.Join(facts, "; "))
}

func version(ctx context.Context, query string, open func() (*sql.DB, error)) (v string) {
	db, err := open()
	if err != nil {
		return "not here"
	}
	defer db.Close()
	if err := db.QueryRowContext(ctx, query).Scan(&v); err != nil {
		return "not here: " + err.Error()
	}
	return v
}

// find returns the last group of the first match in a file, or "".
func find(pattern, file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	groups := regexp.MustCompile(pattern).FindStringSubmatch(string(text))
	if groups == nil {
		return ""
	}
	return groups[len(groups)-1]
}
