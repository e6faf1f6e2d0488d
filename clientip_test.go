package reset_test

import (
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/gopassreset/reset"
)

func TestClientIPBehind(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:ffff::/48"), netip.MustParsePrefix("::ffff:172.16.0.0/108")}
	for _, tt := range []struct {
		remote  string
		headers []string
		direct  string // without proxies
		behind  string
	}{
		{"192.0.2.1:1234", nil, "192.0.2.1", "192.0.2.1"},
		{"192.0.2.1:1234", []string{"198.51.100.1"}, "192.0.2.1", "192.0.2.1"}, // not from a proxy
		{"10.0.0.1:1234", []string{"198.51.100.1"}, "10.0.0.1", "198.51.100.1"},
		{"10.0.0.1:1234", []string{"203.0.113.9, 198.51.100.1, 10.2.3.4"}, "10.0.0.1", "198.51.100.1"},
		{"10.0.0.1:1234", []string{"203.0.113.9", "198.51.100.1"}, "10.0.0.1", "198.51.100.1"}, // two headers are one list
		{"10.0.0.1:1234", []string{"10.9.9.9"}, "10.0.0.1", "10.9.9.9"},
		{"10.0.0.1:1234", []string{"198.51.100.1:5678"}, "10.0.0.1", "198.51.100.1"},
		{"10.0.0.1:1234", []string{"[2001:db8:1:2::3]:5678"}, "10.0.0.1", "2001:db8:1:2::/64"},
		{"10.0.0.1:1234", nil, "10.0.0.1", "10.0.0.1"},
		{"10.0.0.1:1234", []string{"evil"}, "10.0.0.1", "10.0.0.1"},
		{"10.0.0.1:1234", []string{"203.0.113.9, evil, 10.2.3.4"}, "10.0.0.1", "10.2.3.4"},
		{"[::ffff:10.0.0.1]:1234", []string{"::ffff:198.51.100.1"}, "10.0.0.1", "198.51.100.1"},
		{"[2001:db8:1:2:3:4:5:6]:1234", nil, "2001:db8:1:2::/64", "2001:db8:1:2::/64"},
		{"[2001:db8:1:2:ffff::]:1234", nil, "2001:db8:1:2::/64", "2001:db8:1:2::/64"},
		{"[2001:db8:ffff::1]:1234", []string{"2001:db8:1:2:3:4:5:6"}, "2001:db8:ffff::/64", "2001:db8:1:2::/64"},
		{"[fe80::1%eth0]:1234", nil, "fe80::/64", "fe80::/64"},
		{"10.0.0.1:1234", []string{"[2001:db8:1:2::3]"}, "10.0.0.1", "2001:db8:1:2::/64"},
		{"172.16.0.1:1234", []string{"198.51.100.1"}, "172.16.0.1", "198.51.100.1"}, // a proxy, mapped
		{"172.32.0.1:1234", []string{"198.51.100.1"}, "172.32.0.1", "172.32.0.1"},
		{"@", nil, "", ""},
		{"", []string{"198.51.100.1"}, "", ""},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tt.remote
		for _, h := range tt.headers {
			r.Header.Add("X-Forwarded-For", h)
		}
		if got := reset.ClientIPBehind()(r); got != tt.direct {
			t.Errorf("%s %q without proxies: %q; want %q", tt.remote, tt.headers, got, tt.direct)
		}
		if got := reset.ClientIPBehind(proxies...)(r); got != tt.behind {
			t.Errorf("%s %q behind proxies: %q; want %q", tt.remote, tt.headers, got, tt.behind)
		}
	}
}
