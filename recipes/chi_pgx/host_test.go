package chipgx_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	chipgx "github.com/gopassreset/reset/recipes/chi_pgx"
	"github.com/gopassreset/reset/recipes/internal/host"
	"github.com/gopassreset/reset/recipes/internal/hosttest"
)

func TestHost(t *testing.T) {
	hosttest.Test(t, hosttest.Recipe{
		Dialects: []string{hosttest.Postgres},
		New: func(t *testing.T, d hosttest.Database, c host.Config) (*host.Host, error) {
			pool, err := pgxpool.New(t.Context(), d.DSN)
			if err != nil {
				return nil, err
			}
			t.Cleanup(pool.Close)
			return chipgx.New(t.Context(), pool, c)
		},
	})
}
