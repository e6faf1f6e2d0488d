package gingorm_test

import (
	"testing"

	"github.com/gin-gonic/gin"
	"gorm.io/driver/mysql"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	_ "modernc.org/sqlite"

	gingorm "github.com/gopassreset/reset/recipes/gin_gorm"
	"github.com/gopassreset/reset/recipes/internal/host"
	"github.com/gopassreset/reset/recipes/internal/hosttest"
)

func init() { gin.SetMode(gin.ReleaseMode) }

func TestHost(t *testing.T) {
	hosttest.Test(t, hosttest.Recipe{New: func(t *testing.T, d hosttest.Database, c host.Config) (*host.Host, error) {
		var dialector gorm.Dialector = postgres.New(postgres.Config{Conn: d.DB}) // SQLite understands it, too
		if d.Dialect == hosttest.MySQL {
			dialector = mysql.New(mysql.Config{Conn: d.DB})
		}
		return gingorm.New(t.Context(), dialector, d.ForStore(), c)
	}})
}
