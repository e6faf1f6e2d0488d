// Command pocketbase is PocketBase as the bench of package reset runs it: its
// own collection of users; a plain index on their addresses, without which each
// look-up reads all users, since its unique index is partial; no rate limits and
// no log of requests, as beside it; mail through the sink. Its SQLite has
// synchronous=NORMAL, as it comes, which waits for the disk less often than
// package reset does; and it answers before the mail has left, which it keeps in
// memory only. It is a module of its own so that the versions that it needs are
// not everybody's.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	_ "github.com/pocketbase/pocketbase/migrations"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: pocketbase DIR SMTP-ADDRESS USERS")
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func run(dir, smtp, users string) error {
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: dir})
	if err := app.Bootstrap(); err != nil {
		return err
	}
	if err := app.RunAllMigrations(); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(smtp)
	if err != nil {
		return err
	}
	settings := app.Settings()
	settings.SMTP.Enabled, settings.SMTP.Host = true, host
	if settings.SMTP.Port, err = strconv.Atoi(port); err != nil {
		return err
	}
	settings.RateLimits.Enabled = false
	settings.Logs.MaxDays = 0
	settings.Meta.SenderAddress = "bench@example.com"
	if err := app.Save(settings); err != nil {
		return err
	}
	n, err := strconv.Atoi(users)
	if err != nil {
		return err
	}
	for _, query := range []string{
		`CREATE INDEX bench_users_email ON users (email)`,
		fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i < %d)
			INSERT INTO users (id, email, password, tokenKey, verified, created, updated)
			SELECT printf('%%015d', i), 'user'||i||'@example.com', 'x', printf('%%050d', i), TRUE, '2026-01-01 00:00:00.000Z', '2026-01-01 00:00:00.000Z' FROM n`, n-1),
	} {
		if _, err := app.DB().NewQuery(query).Execute(); err != nil {
			return err
		}
	}
	router, err := apis.NewRouter(app)
	if err != nil {
		return err
	}
	handler, err := router.BuildMux()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	go http.Serve(listener, handler)
	io.Copy(io.Discard, os.Stdin) // until the bench closes it or is gone
	return app.ResetBootstrapState()
}
