package reset

import (
	"iter"
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/gopassreset/reset/internal/clientkey"
)

const (
	maxHops    = 20  // proxies in a row
	maxHopSize = 512 // bytes
)

// ClientIPBehind returns a function for [Config.ClientIP] for hosts behind
// proxies: the client is the right-most hop of X-Forwarded-For that is not in
// one of the given prefixes, among the last 20 hops. A request that does not
// come from one of them is its own client, and its headers are not read;
// without prefixes that is every request, which is the default of
// Config.ClientIP.
//
// The result is an IPv4 address, or the /64 prefix of an IPv6 address. It is ""
// where RemoteAddr is not an IP address, as on a Unix socket: such hosts need a
// ClientIP of their own.
func ClientIPBehind(proxies ...netip.Prefix) func(*http.Request) string {
	return ClientIPFromHeader("X-Forwarded-For", proxies...)
}

// ClientIPFromHeader is [ClientIPBehind] for proxies that write another header
// than X-Forwarded-For: Forwarded (RFC 7239), or one that holds the client
// alone, such as CF-Connecting-IP, Fly-Client-IP, True-Client-IP or X-Real-IP.
// The proxies must overwrite such a header, or the client chooses its value; so
// it does where a proxy adds the Host to Forwarded without quotes. A proxy that
// sends no IP address in it is the client itself.
func ClientIPFromHeader(name string, proxies ...netip.Prefix) func(*http.Request) string {
	name = http.CanonicalHeaderKey(name)
	hops := only
	switch name {
	case "X-Forwarded-For":
		hops = forwardedFor
	case "Forwarded":
		hops = forwarded
	}
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
		if !trusted(client) {
			return clientkey.Of(client)
		}
		n := 0
		for hop := range hops(r.Header[name]) {
			ip, ok := hopIP(hop)
			if !ok {
				break // written by whoever came before: believe the proxy's own hop
			}
			client = ip
			if n++; n == maxHops || !trusted(client) {
				break
			}
		}
		return clientkey.Of(client)
	}
}

// forwardingHeaders are headers in which proxies name the client.
var forwardingHeaders = [...]string{
	"X-Forwarded-For", "Forwarded", "X-Real-Ip", "Cf-Connecting-Ip", "True-Client-Ip", "Fly-Client-Ip",
	"Fastly-Client-Ip", "Do-Connecting-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "X-Azure-Clientip",
}

// forwardingHeader returns the name of such a header that a request has, or "".
func forwardingHeader(r *http.Request) string {
	for _, name := range forwardingHeaders {
		if len(r.Header[name]) > 0 {
			return name
		}
	}
	return ""
}

func remoteIP(r *http.Request) (netip.Addr, bool) {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr().Unmap().WithZone(""), err == nil
}

// only yields the value of a header that occurs once.
func only(values []string) iter.Seq[string] {
	if len(values) != 1 {
		values = nil
	}
	return slices.Values(values)
}

// forwardedFor yields the hops of X-Forwarded-For, the last first.
func forwardedFor(values []string) iter.Seq[string] {
	return backward(values, func(s string) int { return strings.LastIndexByte(s, ',') })
}

// forwarded yields the parameters "for" of Forwarded, the last first.
func forwarded(values []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for hop := range backward(values, lastComma) {
			if client, ok := forwardedClient(hop); !ok || !yield(client) {
				return
			}
		}
	}
}

// forwardedClient returns the parameter "for" of a hop. A colon needs quotes
// (RFC 7239, 4), but proxies write "host=example.com:8080". Of two clients one may
// be what a client has sent as its Host: then there is none.
func forwardedClient(hop string) (client string, ok bool) {
	_, params, err := mime.ParseMediaType("text/plain;" + hop) // has the same parameters
	if err == nil || strings.Contains(hop, `"`) {
		return params["for"], err == nil
	}
	for parameter := range strings.SplitSeq(hop, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if strings.EqualFold(strings.TrimSpace(name), "for") {
			if ok {
				return "", false
			}
			client, ok = strings.TrimSpace(value), true
		}
	}
	return client, ok
}

// backward yields the elements of a list, the last first, until one is longer
// than maxHopSize. It reads no more of the list than it yields.
func backward(values []string, lastComma func(string) int) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, list := range slices.Backward(values) {
			for {
				start := max(0, len(list)-maxHopSize)
				comma := lastComma(list[start:])
				if comma < 0 && start > 0 || !yield(list[start+comma+1:]) {
					return
				}
				if comma < 0 {
					break
				}
				list = list[:start+comma]
			}
		}
	}
}

// lastComma returns the index of the last comma outside of quoted strings, or
// -1. A quote that a client left open stands to the left of what the proxy
// wrote, and hides none of it.
func lastComma(s string) int {
	quoted := false
	for i := len(s) - 1; i >= 0; i-- {
		switch s[i] {
		case '"':
			if before := strings.TrimRight(s[:i], `\`); (i-len(before))%2 == 0 {
				quoted = !quoted
			}
		case ',':
			if !quoted {
				return i
			}
		}
	}
	return -1
}

// hopIP parses one hop. Some proxies add the port, or put IPv6 addresses into
// brackets.
func hopIP(hop string) (netip.Addr, bool) {
	if len(hop) > maxHopSize {
		return netip.Addr{}, false
	}
	hop = strings.TrimSpace(hop)
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
