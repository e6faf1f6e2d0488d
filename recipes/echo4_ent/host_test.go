package echo4ent_test

import (
	"testing"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	_ "modernc.org/sqlite"

	echo4ent "github.com/gopassreset/reset/recipes/echo4_ent"
	"github.com/gopassreset/reset/recipes/internal/host"
	"github.com/gopassreset/reset/recipes/internal/hosttest"
)

func TestHost(t *testing.T) {
	hosttest.Test(t, hosttest.Recipe{New: func(t *testing.T, d hosttest.Database, c host.Config) (*host.Host, error) {
		name := map[string]string{
			hosttest.SQLite: dialect.SQLite, hosttest.Postgres: dialect.Postgres, hosttest.MySQL: dialect.MySQL,
		}[d.Dialect]
		return echo4ent.New(t.Context(), entsql.OpenDB(name, d.DB), d.ForStore(), c)
	}})
}
