package reset

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// ClientIPBehind returns a function for [Config.ClientIP] for hosts behind
// proxies: the client is the right-most hop of X-Forwarded-For that is not in
// one of the given prefixes. A request that does not come from one of them
// is its own client, whatever its headers say; without prefixes that is every
// request, which is the default of Config.ClientIP.
//
// The result is an IPv4 address, or the /64 prefix of an IPv6 address. It is ""
// where RemoteAddr is not an IP address, as on a Unix socket: such hosts need a
// ClientIP of their own.
func ClientIPBehind(proxies ...netip.Prefix) func(*http.Request) string {
	proxies = slices.Clone(proxies)
	for i, p := range proxies {
		if p.Addr().Is4In6() && p.Bits() >= 96 { // addresses are compared unmapped
			proxies[i] = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
	}
	trusted := func(ip netip.Addr) bool {
		return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
	}
	return func(r *http.Request) string {
		client, ok := remoteIP(r)
		if !ok {
			return ""
		}
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for _, hop := range slices.Backward(hops) {
			if !trusted(client) {
				break
			}
			ip, ok := hopIP(strings.TrimSpace(hop))
			if !ok {
				break // written by whoever came before: believe the proxy's own hop
			}
			client = ip
		}
		return clientKey(client)
	}
}

func remoteIP(r *http.Request) (netip.Addr, bool) {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr().Unmap().WithZone(""), err == nil
}

// hopIP parses one hop of X-Forwarded-For. Some proxies add the port, or put
// IPv6 addresses into brackets.
func hopIP(hop string) (netip.Addr, bool) {
	bare := hop
	if strings.HasPrefix(hop, "[") && strings.HasSuffix(hop, "]") {
		bare = hop[1 : len(hop)-1]
	}
	ip, err := netip.ParseAddr(bare)
	if err != nil {
		var ap netip.AddrPort
		ap, err = netip.ParseAddrPort(hop)
		ip = ap.Addr()
	}
	return ip.Unmap().WithZone(""), err == nil
}

// clientKey is what one client can be expected to have: an IPv4 address or an
// IPv6 /64.
func clientKey(ip netip.Addr) string {
	if ip.Is4() {
		return ip.String()
	}
	p, err := ip.Prefix(64)
	if err != nil {
		return ""
	}
	return p.String()
}
