// Package figure lets tests report how often a fault did harm. The command
// .ci/figures prints a table of what they report.
package figure

import (
	"fmt"
	"testing"
)

// Report records that a harm was done n times out of several.
func Report(t testing.TB, harm string, n, of int) {
	t.Helper()
	t.Attr("figure", fmt.Sprintf("%s: %d of %d", harm, n, of))
}
