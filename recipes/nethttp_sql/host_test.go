package nethttpsql_test

import (
	"testing"

	_ "modernc.org/sqlite"

	"github.com/gopassreset/reset/recipes/internal/host"
	"github.com/gopassreset/reset/recipes/internal/hosttest"
	nethttpsql "github.com/gopassreset/reset/recipes/nethttp_sql"
)

func TestHost(t *testing.T) {
	hosttest.Test(t, hosttest.Recipe{
		Dialects: []string{hosttest.SQLite, hosttest.MySQL},
		New: func(t *testing.T, d hosttest.Database, c host.Config) (*host.Host, error) {
			return nethttpsql.New(t.Context(), d.DB, d.ForStore(), c)
		},
	})
}
