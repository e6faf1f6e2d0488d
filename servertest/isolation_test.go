package servertest

import (
	"net/url"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// The cap holds whatever the default isolation level of a server is.
func TestIsolationLevels(t *testing.T) {
	t.Run(postgresServer.name, func(t *testing.T) {
		address := postgresServer.address(t)
		for _, level := range []string{"repeatable read", "serializable"} {
			t.Run(level, func(t *testing.T) {
				u, err := url.Parse(address)
				if err != nil {
					t.Fatal(err)
				}
				q := u.Query()
				q.Set("default_transaction_isolation", level)
				u.RawQuery = q.Encode()
				db := freshPostgres(t, u.String(), raceConns)
				createSchemaAtOnce(t, db)
				raceIssues(t, server{}, db)
			})
		}
	})
	t.Run(mysqlServer.name, func(t *testing.T) {
		address := mysqlServer.address(t)
		variable := "transaction_isolation"
		if count(t, freshMySQL(t, address, 1), "SELECT @@version LIKE '%MariaDB%'") == 1 {
			variable = "tx_isolation"
		}
		for _, level := range []string{"READ-UNCOMMITTED", "READ-COMMITTED", "SERIALIZABLE"} {
			t.Run(level, func(t *testing.T) {
				config, err := mysql.ParseDSN(address)
				if err != nil {
					t.Fatal(err)
				}
				config.Params = map[string]string{variable: "'" + level + "'"}
				db := freshMySQL(t, config.FormatDSN(), raceConns)
				createSchemaAtOnce(t, db)
				raceIssues(t, server{}, db)
			})
		}
	})
}
