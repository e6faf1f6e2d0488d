package proxyjwt_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/gopassreset/reset/recipes/internal/host"
	"github.com/gopassreset/reset/recipes/internal/hosttest"
	proxyjwt "github.com/gopassreset/reset/recipes/proxy_jwt"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

const prefix = "/shop"

func TestHost(t *testing.T) {
	proxy := netip.MustParseAddr("127.0.0.1")
	hosttest.Test(t, hosttest.Recipe{
		Dialects: []string{hosttest.SQLite},
		New: func(t *testing.T, d hosttest.Database, c host.Config) (*host.Host, error) {
			store, err := storesqlite.Open(d.File)
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() {
				if err := store.Close(); err != nil {
					t.Error(err)
				}
			})
			return proxyjwt.New(store, netip.PrefixFrom(proxy, 32), []byte(t.Name()), c)
		},
		Scheme: "https", Prefix: prefix, Proxy: proxy, Serve: serveTLS,
	})
}

// serveTLS is a proxy that ends TLS and strips the prefix.
func serveTLS(t *testing.T, h *host.Host, l net.Listener) *http.Client {
	backend := httptest.NewServer(h.Handler)
	t.Cleanup(backend.Close)
	to, err := url.Parse(backend.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.SetXForwarded()
		r.Out.URL.Path = strings.TrimPrefix(r.Out.URL.Path, prefix)
	}})
	proxy.Listener.Close()
	proxy.Listener = l
	proxy.StartTLS()
	t.Cleanup(proxy.Close)
	return proxy.Client()
}
