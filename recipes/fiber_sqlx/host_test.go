package fibersqlx_test

import (
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/gofiber/fiber/v3"
	"github.com/jmoiron/sqlx"
	_ "modernc.org/sqlite"

	fibersqlx "github.com/gopassreset/reset/recipes/fiber_sqlx"
	"github.com/gopassreset/reset/recipes/internal/host"
	"github.com/gopassreset/reset/recipes/internal/hosttest"
)

func TestHost(t *testing.T) {
	var apps sync.Map // of *fiber.App, by *host.Host
	hosttest.Test(t, hosttest.Recipe{
		New: func(t *testing.T, d hosttest.Database, c host.Config) (*host.Host, error) {
			h, app, err := fibersqlx.New(t.Context(), sqlx.NewDb(d.DB, d.Driver), d.ForStore(), c)
			apps.Store(h, app)
			return h, err
		},
		Serve: func(t *testing.T, h *host.Host, l net.Listener) *http.Client {
			v, _ := apps.Load(h)
			app := v.(*fiber.App)
			served := make(chan error, 1)
			go func() { served <- app.Listener(l, fiber.ListenConfig{DisableStartupMessage: true}) }()
			t.Cleanup(func() {
				if err := app.Shutdown(); err != nil {
					t.Error(err)
				}
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
			return new(http.Client)
		},
	})
}
