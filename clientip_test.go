package reset_test

import (
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

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
		{"10.0.0.1:1234", []string{"203.0.113.9," + strings.Repeat("10.0.0.2,", 18) + "10.0.0.3"}, "10.0.0.1", "203.0.113.9"},
		{"10.0.0.1:1234", []string{"203.0.113.9,10.0.0.4," + strings.Repeat("10.0.0.2,", 18) + "10.0.0.3"}, "10.0.0.1", "10.0.0.4"}, // 20 hops at most
		{"10.0.0.1:1234", []string{"203.0.113.9" + strings.Repeat(" ", 600) + ",10.0.0.2"}, "10.0.0.1", "10.0.0.2"},
		{"10.0.0.1:1234", []string{""}, "10.0.0.1", "10.0.0.1"},
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

func TestClientIPFromHeader(t *testing.T) {
	proxy := netip.MustParsePrefix("10.0.0.0/8")
	for _, tt := range []struct {
		name   string
		values []string
		want   string
	}{
		{"CF-Connecting-IP", []string{"198.51.100.1"}, "198.51.100.1"},
		{"cf-connecting-ip", []string{" 2001:db8:1:2::3 "}, "2001:db8:1:2::/64"},
		{"X-Real-IP", []string{"10.2.3.4"}, "10.2.3.4"},
		{"X-Real-IP", []string{"203.0.113.9, 198.51.100.1"}, "10.0.0.1"},
		{"X-Real-IP", []string{"203.0.113.9", "198.51.100.1"}, "10.0.0.1"},
		{"X-Real-IP", []string{"evil"}, "10.0.0.1"},
		{"X-Real-IP", nil, "10.0.0.1"},
		{"X-Forwarded-For", []string{"203.0.113.9, 198.51.100.1, 10.2.3.4"}, "198.51.100.1"},

		{"Forwarded", []string{"for=198.51.100.1"}, "198.51.100.1"},
		{"Forwarded", []string{`for=203.0.113.9, For="198.51.100.1:80";proto=https;by=10.0.0.1 , for=10.2.3.4`}, "198.51.100.1"},
		{"Forwarded", []string{"for=203.0.113.9", `proto=https;for="[2001:db8:1:2::3]:4711"`}, "2001:db8:1:2::/64"},
		{"Forwarded", []string{"for=203.0.113.9,for=unknown"}, "10.0.0.1"},
		{"Forwarded", []string{"for=203.0.113.9,for=_hidden,for=10.2.3.4"}, "10.2.3.4"},
		{"Forwarded", []string{"for=203.0.113.9,proto=https"}, "10.0.0.1"},
		{"Forwarded", []string{"for=203.0.113.9;for=198.51.100.1"}, "10.0.0.1"},
		{"Forwarded", []string{"for=198.51.100.1;host=example.com:8080"}, "198.51.100.1"}, // lacks quotes
		{"Forwarded", []string{"by=10.0.0.1:80; For=198.51.100.1:4711;"}, "198.51.100.1"},
		{"Forwarded", []string{"host=a:1;for=203.0.113.9;for=198.51.100.1"}, "10.0.0.1"},
		{"Forwarded", []string{`host=a:1;for="203.0.113.9`}, "10.0.0.1"},
		{"Forwarded", []string{"for=203.0.113.9, host=a:1"}, "10.0.0.1"},
		{"Forwarded", []string{`for="203.0.113.9,for=198.51.100.1`}, "198.51.100.1"}, // the client left a quote open
		{"Forwarded", []string{`host="a,for=203.0.113.9";for=198.51.100.1`}, "198.51.100.1"},
		{"Forwarded", []string{`host="a;for=203.0.113.9";for=198.51.100.1`}, "198.51.100.1"},
		{"Forwarded", []string{`host="a\",for=203.0.113.9,\"";for=198.51.100.1`}, "198.51.100.1"},
		{"Forwarded", []string{`for=203.0.113.9,host="\\";for=198.51.100.1`}, "198.51.100.1"},
		{"Forwarded", []string{`for=203.0.113.9, for=10.2.3.4;host="` + strings.Repeat("a", 600) + `"`}, "10.0.0.1"},
	} {
		for remote, want := range map[string]string{"10.0.0.1:1234": tt.want, "192.0.2.1:1234": "192.0.2.1"} {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = remote
			for _, v := range tt.values {
				r.Header.Add(tt.name, v)
			}
			if got := reset.ClientIPFromHeader(tt.name, proxy)(r); got != want {
				t.Errorf("%s: %q from %s: %q; want %q", tt.name, tt.values, remote, got, want)
			}
		}
	}
}

// A client cannot make its headers expensive, whether it names itself or comes
// through a proxy.
func TestClientIPIsCheap(t *testing.T) {
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "X-Real-IP"} {
		clientIP := reset.ClientIPFromHeader(name, netip.MustParsePrefix("10.0.0.0/8"))
		for _, value := range []string{strings.Repeat(",", 900_000), strings.Repeat("10.0.0.1,", 100_000), strings.Repeat(`"\`, 450_000), strings.Repeat("for=10.0.0.1,", 70_000)} {
			for _, remote := range []string{"192.0.2.1:1234", "10.0.0.1:1234"} {
				r := httptest.NewRequest("GET", "/", nil)
				r.RemoteAddr = remote
				r.Header.Set(name, value)
				const calls = 1000
				start := time.Now()
				allocs := testing.AllocsPerRun(calls, func() { clientIP(r) })
				if took := time.Since(start); took > time.Second || allocs > 100 {
					t.Errorf("%s: %.20s… from %s: %d calls take %v and allocate %v times each", name, value, remote, calls, took, allocs)
				}
			}
		}
	}
}

func FuzzClientIPFromHeader(f *testing.F) {
	for _, s := range []string{"for=1.2.3.4", `for="[::1]:1",for=10.0.0.1`, `host="\",";for=10.0.0.1,`} {
		f.Add(s)
	}
	clientIP := reset.ClientIPFromHeader("Forwarded", netip.MustParsePrefix("10.0.0.0/8"))
	f.Fuzz(func(t *testing.T, before string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = "10.0.0.1:1234"
		r.Header["Forwarded"] = []string{before + ",for=198.51.100.1, for=10.0.0.2"}
		if got := clientIP(r); got != "198.51.100.1" {
			t.Errorf("behind %q the client is %q", before, got)
		}
	})
}
