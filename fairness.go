package reset

import (
	"net/netip"
	"sync"
	"time"
)

// The classes of queued mail. Trusted mail and notifications go first, then
// public requests: while mail waits, the first of a client goes before further
// ones of other clients, and a first attempt before retries of its class.
// Without a backlog nobody waits. No class depends on who has an account.
const (
	trustedClass = 0
	publicClass  = 1  // of a client's first request
	retryPenalty = 10 // classes that a public request loses with each failed attempt
	maxClass     = 32_767
)

const (
	fairnessWindow = time.Minute // for which the requests of a client are remembered, at least
	maxFairnessKey = 1 << 16     // keys in each half of the memory
)

// A fairness counts the recent requests of clients and their networks in this
// process, in bounded memory.
type fairness struct {
	mu       sync.Mutex
	since    time.Time
	now, old map[string]int // requests in this window, and in the one before
}

// class counts a public request of a client and returns its class.
func (f *fairness) class(client string, now time.Time) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if age := now.Sub(f.since); f.now == nil || age >= fairnessWindow || age < 0 {
		f.old, f.now = f.now, make(map[string]int)
		if age >= 2*fairnessWindow || age < 0 {
			f.old = nil
		}
		f.since = now
	}
	class := publicClass + f.count(client)
	for _, network := range networksOf(client) {
		class = max(class, publicClass+f.count(network.key)/network.share)
	}
	return min(class, maxClass)
}

// count returns how often key was counted before.
func (f *fairness) count(key string) int {
	n := f.now[key] + f.old[key]
	if f.now[key] > 0 || len(f.now) < maxFairnessKey {
		f.now[key]++
	}
	return n
}

// A network stands for many clients: share of its requests weigh as much as one
// of a client.
type network struct {
	key   string
	share int
}

// networksOf returns the networks around a client whose key is an address or a
// prefix, as ClientIPBehind returns it. One subscriber may hold an IPv6 /48,
// and one provider's customer a /32.
func networksOf(client string) (networks []network) {
	prefix, err := netip.ParsePrefix(client)
	if err != nil {
		ip, err := netip.ParseAddr(client)
		if err != nil {
			return nil
		}
		prefix = netip.PrefixFrom(ip, ip.BitLen())
	}
	sizes := []struct{ bits, share int }{{24, 8}}
	if prefix.Addr().Is6() {
		sizes = []struct{ bits, share int }{{48, 4}, {32, 64}}
	}
	for _, size := range sizes {
		if around, err := prefix.Addr().Prefix(size.bits); err == nil && size.bits < prefix.Bits() {
			networks = append(networks, network{around.String(), size.share})
		}
	}
	return networks
}

// retryClass is the class of a mail after another failed attempt.
func retryClass(m Mail) int {
	if m.Class == trustedClass {
		return trustedClass
	}
	return min(m.Class+retryPenalty, maxClass)
}
