// Package clientkey makes the keys under which clients are limited.
package clientkey

import "net/netip"

// Of returns the key of a client: its IPv4 address, or the /64 prefix of its
// IPv6 address, which one client can be expected to have.
func Of(ip netip.Addr) string {
	if ip.Is4() || ip.Is4In6() {
		return ip.Unmap().String()
	}
	p, _ := ip.Prefix(64) // has no zone; any IPv6 address has one
	return p.String()
}

// A Network is a wider prefix that a key belongs to. It may have Factor times
// what one key may.
type Network struct {
	Key    string
	Factor int
}

// Networks returns the networks of a key that is an IPv6 /64 prefix, the widest
// first, and none of any other key. One subscriber commonly holds a whole /48,
// and a /40 or /32 costs little; an access provider has many subscribers there.
func Networks(key string) []Network {
	p, err := netip.ParsePrefix(key)
	if err != nil || p.Bits() != 64 || !p.Addr().Is6() {
		return nil
	}
	network := func(bits, factor int) Network {
		wider, _ := p.Addr().Prefix(bits) // any IPv6 address has it
		return Network{wider.String(), factor}
	}
	return []Network{network(32, 250), network(40, 50), network(48, 10)}
}
