package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
)

const howTo = `needs a server. To run it on both:

	RESET_TEST_POSTGRES=postgres://postgres@127.0.0.1:5432/test \
	RESET_TEST_MYSQL='root@tcp(127.0.0.1:3306)/test' \
	go test ./example`

// onEachDatabase runs f on each kind of database that the flag -db takes. db is
// its value, for an empty one that is dropped at the end.
func onEachDatabase(t *testing.T, f func(t *testing.T, db string)) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		fresh func(t *testing.T) (db string)
	}{
		{"SQLite", freshFile},
		{"PostgreSQL", freshPostgres},
		{"MySQL", freshMySQL},
	} {
		t.Run(test.name, func(t *testing.T) { f(t, test.fresh(t)) })
	}
}

func freshFile(t *testing.T) string { return filepath.Join(t.TempDir(), "demo.db") }

func freshPostgres(t *testing.T) string {
	t.Helper()
	address := server(t, "RESET_TEST_POSTGRES")
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + makeAndDrop(t, "pgx", address, " ENCODING 'UTF8' TEMPLATE template0")
	return u.String()
}

func freshMySQL(t *testing.T) string {
	t.Helper()
	address := server(t, "RESET_TEST_MYSQL")
	config, err := mysql.ParseDSN(address)
	if err != nil {
		t.Fatal(err)
	}
	if config.Net != "tcp" {
		t.Fatalf("RESET_TEST_MYSQL: the flag -db takes tcp only, not %s", config.Net)
	}
	u := url.URL{Scheme: "mysql", User: url.UserPassword(config.User, config.Passwd), Host: config.Addr}
	_, u.RawQuery, _ = strings.Cut(address[strings.LastIndex(address, "/"):], "?")
	u.Path = "/" + makeAndDrop(t, "mysql", address, "")
	return u.String()
}

// server returns the address that env has.
func server(t *testing.T, env string) string {
	t.Helper()
	address := os.Getenv(env)
	switch {
	case address != "":
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is not set", env)
	default:
		t.Skipf("%s is not set: %s", env, howTo)
	}
	return address
}

// makeAndDrop returns the name of a new database.
func makeAndDrop(t *testing.T, driver, address, how string) string {
	t.Helper()
	admin, err := sql.Open(driver, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	name := "reset_test_" + strings.ToLower(rand.Text())
	if _, err := admin.ExecContext(t.Context(), "CREATE DATABASE "+name+how); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.ExecContext(context.WithoutCancel(t.Context()), "DROP DATABASE "+name); err != nil {
			t.Error(err)
		}
	})
	return name
}
