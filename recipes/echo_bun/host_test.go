package echobun_test

import (
	"testing"

	"github.com/uptrace/bun"
	_ "modernc.org/sqlite"

	echobun "github.com/gopassreset/reset/recipes/echo_bun"
	"github.com/gopassreset/reset/recipes/internal/host"
	"github.com/gopassreset/reset/recipes/internal/hosttest"
)

func TestHost(t *testing.T) {
	hosttest.Test(t, hosttest.Recipe{New: func(t *testing.T, d hosttest.Database, c host.Config) (*host.Host, error) {
		return echobun.New(t.Context(), bun.NewDB(d.DB, d.Bun()), c)
	}})
}
