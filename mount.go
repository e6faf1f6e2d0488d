package reset

import (
	"cmp"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// A mount is where the pages are, as far as requests show it.
type mount struct {
	*Service
	routes map[string]route // by path below the mount
}

type route struct{ get, post http.HandlerFunc }

// moved marks the URL of a request that was redirected to the host of BaseURL.
const moved = "moved"

// routePath returns the path of a request below the mount. It removes the prefix
// of BaseURL where the host has not done that. linked says that the request
// carries an activation.
func (m *mount) routePath(r *http.Request, linked bool) string {
	path := r.URL.Path
	rest, ok := strings.CutPrefix(path, m.base.Path)
	ok = ok && (rest == "" || rest[0] == '/')
	switch _, route := m.routes[path]; {
	case m.mayBePrefix(rest, ok): // a proxy may have removed the prefix, and a link needs its route
		if !linked && isGet(r) && requestedPath(r) == path {
			return rest
		}
		return path
	case route:
		return path
	case ok:
		return rest
	}
	// The host may have removed something else than the prefix, its last slash
	// for instance.
	requested := requestedPath(r)
	rest, ok = strings.CutPrefix(requested, m.base.Path)
	mended, _ := mendLink(rest, r)
	if _, route := m.routes[mended]; ok && route && requested != "" {
		return rest
	}
	return path
}

// mayBePrefix reports whether the path of a link below the mount, and the prefix
// of the mount itself, look alike.
func (m *mount) mayBePrefix(rest string, ok bool) bool {
	return ok && (rest == "" || rest == "/") && (m.base.Path == "/reset" || m.base.Path == "/revoke")
}

func isGet(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// requestedPath returns the path that a request had when it came, before the
// host removed anything, or "" if that is not known.
func requestedPath(r *http.Request) string {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		return ""
	}
	return u.Path
}

// redirection returns where to lead a browser that visits a route under another
// name of the same site, or "": forms and cookies would not work there. A host
// is such a name if it differs by "www." only, or if both are this machine's.
//
// A proxy may change the name on its way here, and then the redirect comes back
// under the same one. The mark in the URL shows that. It counts for its own
// request alone, since anybody can send it.
func (m *mount) redirection(r *http.Request, path string) string {
	host := visitedHost(r)
	if m.isBase(host) {
		return ""
	}
	if r.URL.Query().Has(moved) {
		m.hostRewritten.Store(true)
		return ""
	}
	if !m.isAlias(host) {
		return ""
	}
	if _, found := linkActivation(r.URL.RawQuery); found {
		return path + "?" + r.URL.RawQuery + "&" + moved + "=1"
	}
	return path + "?" + moved + "=1"
}

// visitedHost returns the host that the browser has asked for, as far as is
// known here. It decides on nothing but a redirect to BaseURL and a warning.
func visitedHost(r *http.Request) string {
	first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Host"), ",") // each proxy may add one
	return cmp.Or(strings.TrimSpace(first), r.Host)
}

func (m *mount) isBase(host string) bool {
	name, port := m.splitHost(host)
	baseName, basePort := m.splitHost(m.base.Host)
	return name == baseName && port == basePort
}

func (m *mount) isAlias(host string) bool {
	name, port := m.splitHost(host)
	baseName, basePort := m.splitHost(m.base.Host)
	if port != basePort {
		return false
	}
	local := isLoopback(name) || strings.HasSuffix(name, ".localhost")
	name = strings.TrimSuffix(name, ".")
	return local && isLoopback(baseName) || name == baseName || "www."+name == baseName || name == "www."+baseName
}

// splitHost splits a host into its name, in lower case, and its port.
func (m *mount) splitHost(host string) (name, port string) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), ""
	}
	defaultPort := map[string]string{"https": "443", "http": "80"}[m.base.Scheme]
	return strings.ToLower(name), cmp.Or(port, defaultPort)
}

// warnOfMount says once that the pages are visited elsewhere than BaseURL says,
// where all their links and forms lead. Behind a proxy, which may change host
// and path, it says so only of a host that the proxy reports.
func (m *mount) warnOfMount(r *http.Request, path string) {
	if m.mountWarned.Load() {
		return
	}
	proxied := m.proxyKnown || m.hostRewritten.Load() || forwardingHeader(r) != ""
	prefix, known := m.prefix(r, path)
	host := visitedHost(r)
	strayHost := !m.isBase(host) && (!proxied || host != r.Host)
	strayPrefix := known && prefix != m.base.Path && !proxied
	if (strayHost || strayPrefix) && m.mountWarned.CompareAndSwap(false, true) {
		m.events.log(r.Context(), baseURLMismatch, "visited", clip(host+prefix), "base_url", m.cfg.BaseURL)
	}
}

// prefix returns what stands before the route in the path that a request had
// when it came, before the host removed anything. A path that is no route may
// be one with a prefix that nobody knows of.
func (m *mount) prefix(r *http.Request, path string) (prefix string, known bool) {
	came := requestedPath(r)
	if came == "" {
		return "", false
	}
	if strings.TrimSuffix(came, "/") == m.base.Path { // it may look like a route
		return m.base.Path, true
	}
	if _, ok := m.routes[path]; ok {
		return strings.CutSuffix(came, path)
	}
	for route := range m.routes {
		if prefix, ok := strings.CutSuffix(came, route); ok && len(route) > 1 {
			return prefix, true
		}
	}
	return "", false
}
