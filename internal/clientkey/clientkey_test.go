package clientkey_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/gopassreset/reset/internal/clientkey"
)

func TestOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":             "192.0.2.1",
		"::ffff:192.0.2.1":      "192.0.2.1",
		"2001:db8:1:2:3:4:5:6":  "2001:db8:1:2::/64",
		"2001:db8:1:2:ffff::":   "2001:db8:1:2::/64",
		"fe80::1%eth0":          "fe80::/64",
		"::1":                   "::/64",
		"2001:db8::%2001:db8::": "2001:db8::/64",
	} {
		if got := clientkey.Of(netip.MustParseAddr(in)); got != want {
			t.Errorf("Of(%s) = %q, want %q", in, got, want)
		}
	}
}

func TestNetworks(t *testing.T) {
	for in, want := range map[string][]clientkey.Network{
		"2001:db8:1234:5678::/64": {{"2001:db8::/32", 250}, {"2001:db8:1200::/40", 50}, {"2001:db8:1234::/48", 10}},
		"2001:db8:1234::/48":      nil,
		"192.0.2.1":               nil,
		"user 7":                  nil,
		"":                        nil,
	} {
		if got := clientkey.Networks(in); !slices.Equal(got, want) {
			t.Errorf("Networks(%q) = %v, want %v", in, got, want)
		}
	}
}
