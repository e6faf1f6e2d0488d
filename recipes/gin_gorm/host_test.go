package gingorm_test

import (
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/glebarez/sqlite"
	"gorm.io/driver/mysql"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	gingorm "github.com/gopassreset/reset/recipes/gin_gorm"
	"github.com/gopassreset/reset/recipes/internal/host"
	"github.com/gopassreset/reset/recipes/internal/hosttest"
)

func init() { gin.SetMode(gin.ReleaseMode) }

func TestHost(t *testing.T) {
	hosttest.Test(t, hosttest.Recipe{New: func(t *testing.T, d hosttest.Database, c host.Config) (*host.Host, error) {
		dialector := map[string]gorm.Dialector{
			hosttest.SQLite:   sqlite.Dialector{Conn: d.DB},
			hosttest.Postgres: postgres.New(postgres.Config{Conn: d.DB}),
			hosttest.MySQL:    mysql.New(mysql.Config{Conn: d.DB}),
		}[d.Dialect]
		return gingorm.New(t.Context(), dialector, d.Bun(), c)
	}})
}
