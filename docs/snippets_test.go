package docs_test

import (
	"net/netip"
	"os"

	"github.com/gopassreset/reset"
)

// Snippets of the pages that stand nowhere else. They compile here.

var _ = reset.Config{
	ClientIP: reset.ClientIPBehind(netip.MustParsePrefix("10.0.0.0/8")),
}

var cloudflare []netip.Prefix

var _ = reset.Config{
	ClientIP: reset.ClientIPFromHeader("CF-Connecting-IP", cloudflare...),
}

var _ = reset.Config{
	Templates: os.DirFS("overrides"), // has templates/layout.html and locales/de.json, for example
}
