package migrating_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	echobun "github.com/gopassreset/reset/recipes/echo_bun"
	"github.com/gopassreset/reset/recipes/internal/host"
	"github.com/gopassreset/reset/recipes/internal/hosttest"
	"github.com/gopassreset/reset/resettest"
	storebun "github.com/gopassreset/reset/store_bun"
)

// One role makes the tables. The other, of the app, may only use them.
func TestRoles(t *testing.T) {
	hosttest.OnEach(t, func(t *testing.T, dialect string) {
		d := hosttest.NewDatabase(t, dialect)
		hosttest.CreateTables(t, d)
		if err := storebun.CreateSchema(t.Context(), bun.NewDB(d.DB, d.Bun())); err != nil {
			t.Fatal(err)
		}
		app := bun.NewDB(openAsApp(t, d), d.Bun())
		if _, err := app.ExecContext(t.Context(), "CREATE TABLE others (id INTEGER)"); err == nil {
			t.Fatal("the role of the app may create tables")
		}
		if err := storebun.CreateSchema(t.Context(), app); err != nil {
			t.Errorf("with nothing to do: %v", err)
		}
		use(t, app)
	}, hosttest.Postgres, hosttest.MySQL)
}

// The store's tables are in the first schema of search_path, the host's may be in
// another.
func TestSchema(t *testing.T) {
	hosttest.OnEach(t, func(t *testing.T, dialect string) {
		d, own := hosttest.NewDatabase(t, dialect), hosttest.NewDatabase(t, dialect)
		hosttest.CreateTables(t, d)
		u, err := url.Parse(own.DSN)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := url.Parse(d.DSN)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("search_path", q.Get("search_path")+","+theirs.Query().Get("search_path"))
		u.RawQuery = q.Encode()
		db, err := sql.Open("pgx", u.String())
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		use(t, bun.NewDB(db, d.Bun()))
		wantTables(t, d, "sessions", "users")
	}, hosttest.Postgres)
}

// openAsApp makes a role without the right to create and connects with it.
func openAsApp(t *testing.T, d hosttest.Database) *sql.DB {
	t.Helper()
	role := "reset_app_" + strings.ToLower(rand.Text()[:8])
	var driver, dsn string
	var grants []string
	if d.Dialect == hosttest.MySQL {
		config, err := mysql.ParseDSN(d.DSN)
		if err != nil {
			t.Fatal(err)
		}
		grants = []string{
			"CREATE USER " + role,
			"GRANT SELECT, INSERT, UPDATE, DELETE ON " + config.DBName + ".* TO " + role,
		}
		config.User = role
		driver, dsn = "mysql", config.FormatDSN()
	} else {
		u, err := url.Parse(d.DSN)
		if err != nil {
			t.Fatal(err)
		}
		schema := u.Query().Get("search_path")
		grants = []string{
			"CREATE ROLE " + role + " LOGIN",
			"GRANT USAGE ON SCHEMA " + schema + " TO " + role,
			"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " + schema + " TO " + role,
		}
		u.User = url.User(role)
		driver, dsn = "pgx", u.String()
	}
	for _, grant := range grants {
		if _, err := d.ExecContext(t.Context(), grant); err != nil {
			t.Fatalf("%s: %v", grant, err)
		}
	}
	t.Cleanup(func() {
		drop := []string{"DROP OWNED BY " + role, "DROP ROLE " + role}
		if d.Dialect == hosttest.MySQL {
			drop = []string{"DROP USER " + role}
		}
		for _, statement := range drop {
			if _, err := d.ExecContext(context.WithoutCancel(t.Context()), statement); err != nil {
				t.Errorf("%s: %v", statement, err)
			}
		}
	})
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// use takes a host through what the store does for it.
func use(t *testing.T, app *bun.DB) {
	t.Helper()
	mailbox := new(resettest.Mailbox)
	h, err := echobun.New(t.Context(), app, host.Config{Reset: reset.Config{
		Mailer: mailbox, BaseURL: "https://app.example.com/account", APIKeys: []string{"Vb7qLm2Zx9Rt4Wd6Yp1Kc8Hs3Nf5Gj0a"},
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	delivered := make(chan error, 1)
	go func() { delivered <- h.Service.Run(ctx) }()
	const email, first, second, third = "ann@example.com", "seven brown otters", "nine grey herons", "four white storks"
	if _, err := host.SignUp(t.Context(), h.Users, email, first); err != nil {
		t.Fatal(err)
	}
	activation, err := h.Service.RequestReset(t.Context(), email, reset.RequestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Service.Forgot(t.Context(), email, "192.0.2.1", reset.ForgotOptions{}); err != nil {
		t.Error(err)
	}
	if err := h.Service.ChangePassword(t.Context(), activation, second); err != nil {
		t.Error(err)
	}
	if err := h.ChangePassword(t.Context(), email, second, third); err != nil {
		t.Error(err)
	}
	for {
		m, err := mailbox.Wait(t.Context(), email)
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind == reset.MailNotification {
			break
		}
	}
	stop()
	if err := <-delivered; err != nil {
		t.Error(err)
	}
}
