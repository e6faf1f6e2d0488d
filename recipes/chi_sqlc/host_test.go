package chisqlc_test

import (
	"testing"

	_ "modernc.org/sqlite"

	chisqlc "github.com/gopassreset/reset/recipes/chi_sqlc"
	"github.com/gopassreset/reset/recipes/internal/host"
	"github.com/gopassreset/reset/recipes/internal/hosttest"
)

func TestHost(t *testing.T) {
	hosttest.Test(t, hosttest.Recipe{
		Dialects: []string{hosttest.SQLite, hosttest.Postgres},
		New: func(t *testing.T, d hosttest.Database, c host.Config) (*host.Host, error) {
			return chisqlc.New(t.Context(), d.DB, d.ForStore(), c)
		},
	})
}
