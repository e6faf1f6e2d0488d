package browsertest

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/gopassreset/reset"
)

// The module of docs/spa.md works in a browser, in an app on another origin.
func TestApp(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/spa.md")
	if err != nil {
		t.Fatal(err)
	}
	module := regexp.MustCompile("(?s)```js\n(const base = .*?)```").FindSubmatch(page)
	if module == nil {
		t.Fatal("docs/spa.md has no module")
	}
	h := startHost(t, false, func(c *reset.Config) {
		app := strings.TrimSuffix(c.SupportURL, "/support")
		c.AllowedOrigins, c.ResetURL, c.RevokeURL = []string{app}, app+"/page0", app+"/page0"
	})
	h.users.add(alice, "")
	app := h.publish("<!doctype html><h1>App</h1><script type=module>" +
		strings.Replace(string(module[1]), "https://api.example.com/account", h.base, 1) +
		"Object.assign(window, { forgot, changePassword, revoke, openLink })</script>")
	b := newTab(t, h)

	// run returns what a call answers, or how it fails.
	run := func(format string, args ...any) string {
		t.Helper()
		return evaluate[string](b, "(async () => JSON.stringify(await "+fmt.Sprintf(format, args...)+"))().catch((e) => [e.code, e.reason, e.retryAfter].join())")
	}
	want := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	const ok = `{"message":"ok"}`

	b.open(app)
	want(run(`forgot(%q)`, "nonsense"), "BAD_REQUEST,email,0")
	want(run(`forgot(%q)`, alice), ok)
	h.limiter.on.Store(true)
	want(run(`forgot(%q)`, alice), "TOO_MANY_REQUESTS,,90")
	h.limiter.on.Store(false)

	b.open(h.mail(t, alice).Link + ".") // as some mail programs make it
	link := run(`openLink().then((l) => { window.link = l; return [l.email, l.minPassword, l.maxPassword, l.expiresIn > 3500] })`)
	want(link, fmt.Sprintf(`["%s",8,256,true]`, alice))
	want(b.location(), app)
	want(run(`changePassword(link.activation, "short")`), "PASSWORD_REFUSED,too_short,0")
	want(run(`changePassword(link.activation, %q)`, newPassword), ok)
	h.wantPassword(t, alice, newPassword)
	want(run(`changePassword(link.activation, %q)`, newPassword), "BAD_REQUEST,invalid_activation,0")

	_, query, _ := strings.Cut(h.link(t, alice), "?")
	b.open(app + "?" + query)
	want(run(`openLink().then((l) => revoke(l.activation))`), ok)
	b.open(app + "?" + query)
	want(run(`openLink()`), "BAD_REQUEST,invalid_activation,0")

	// Another origin of the same machine can't, as the console says.
	b.open(strings.Replace(app, h.webmail, h.sibling, 1))
	want(run(`forgot(%q)`, alice), ",,")
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.console) != 1 || !strings.Contains(b.console[0], "CORS policy") {
		t.Errorf("in the console: %q", b.console)
	}
	b.console = nil
}
