package servertest

import (
	"testing"
)

// The cap holds whatever the default isolation level of a server is.
func TestIsolationLevels(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		variable, levels := "default_transaction_isolation", []string{"repeatable read", "serializable"}
		if s.kind == kindMySQL {
			variable, levels = "transaction_isolation", []string{"'READ-UNCOMMITTED'", "'READ-COMMITTED'", "'SERIALIZABLE'"}
			if isMariaDB(t, s.empty(t, 1)) {
				variable = "tx_isolation"
			}
		}
		for _, level := range levels {
			t.Run(level, func(t *testing.T) { raceIssues(t, server{}, s.with(t, raceConns, variable, level)) })
		}
	})
}
