package browsertest

import (
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
)

// wantHeaders are what a browser gets with every page, by names in lower case.
var wantHeaders = map[string]*regexp.Regexp{
	"cache-control":           regexp.MustCompile(`^no-store$`),
	"content-type":            regexp.MustCompile(`^text/html; charset=utf-8$`),
	"content-security-policy": regexp.MustCompile(`^default-src 'none'; .*frame-ancestors 'none'`),
	"referrer-policy":         regexp.MustCompile(`^same-origin$`),
	"x-content-type-options":  regexp.MustCompile(`^nosniff$`),
	"x-robots-tag":            regexp.MustCompile(`^noindex$`),

	"cross-origin-opener-policy":   regexp.MustCompile(`^same-origin$`),
	"cross-origin-resource-policy": regexp.MustCompile(`^same-origin$`),
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	b := newTab(t, h)
	h.users.add(alice, "")
	everyPage(t, b, alice, func(name string, response *network.Response) {
		if strings.HasPrefix(name, "mail") {
			return
		}
		headers := lowered(response.Headers)
		for header, want := range wantHeaders {
			if got := headers[header]; !want.MatchString(got) {
				t.Errorf("%s: %s is %q, want %v", name, header, got, want)
			}
		}
		if policy := headers["content-security-policy"]; strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
			t.Errorf("%s: the policy is %s", name, policy)
		}
		if got := headers["set-cookie"]; got != "" && !strings.HasPrefix(got, "reset=dead;") && !strings.HasPrefix(got, "reset-email=") {
			t.Errorf("%s: sets a cookie %q", name, got)
		}
	})

	// The redirect that takes the activation out of the URL.
	for _, r := range b.sent() {
		if r.redirect == nil || !strings.Contains(r.redirect.URL, "?activation=") {
			continue
		}
		headers := lowered(r.redirect.Headers)
		if r.redirect.Status != 303 || headers["referrer-policy"] != "no-referrer" || headers["cache-control"] != "no-store" {
			t.Errorf("%s: %d %v", r.redirect.URL, r.redirect.Status, headers)
		}
		return
	}
	t.Errorf("no link was opened")
}

func lowered(headers network.Headers) map[string]string {
	m := make(map[string]string)
	for name, v := range headers {
		m[strings.ToLower(name)], _ = v.(string)
	}
	return m
}

// A page that is linked from the form does not learn where that was.
func TestReferer(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.users.add(alice, "")
	b := newTab(t, h)
	b.open(h.link(t, alice))
	b.click("footer a")
	b.wantPage("Elsewhere")
	seen := h.seen()
	if len(seen) == 0 {
		t.Fatal("nothing was opened")
	}
	for _, referer := range seen {
		if strings.Contains(referer, "/account") || strings.HasPrefix(referer, h.origin) {
			t.Errorf("the Referer is %q", referer)
		}
	}
}
