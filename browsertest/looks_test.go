package browsertest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/gopassreset/reset"
)

// everyPage leads to each page of the journey, the faults and the mails, and
// calls visit there.
func everyPage(t *testing.T, b *tab, email string, visit func(name string, response *network.Response)) {
	t.Helper()
	h := b.h
	forgot := func(email string) *network.Response {
		call(b, network.ClearBrowserCookies, cdp.Empty{}) // one of them holds an address
		b.open(h.base + "/forgot")
		b.write("#email", email)
		return b.submit()
	}
	at := func(name, path string, response *network.Response) {
		t.Helper()
		if got := b.location(); got != h.base+path {
			t.Fatalf("%s: the page is at %s, want %s", name, got, path)
		}
		visit(name, response)
	}

	at("forgot", "/forgot", b.open(h.base+"/forgot"))
	at("forgot-error", "/forgot", forgot("robin"))
	at("sent", "/sent", forgot("nobody@example.com"))
	call(b, network.ClearBrowserCookies, cdp.Empty{})
	at("sent-blank", "/sent", b.open(h.base+"/sent"))
	h.limiter.on.Store(true)
	at("limited", "/forgot", forgot(email))
	h.limiter.on.Store(false)
	h.store.Fail(errors.New("database is down"))
	at("failed", "/forgot", forgot(email))
	h.store.Fail(nil)
	at("notfound", "/nowhere", b.open(h.base+"/nowhere"))

	if _, err := h.service.RequestReset(t.Context(), email, reset.RequestOptions{}); err != nil {
		t.Fatal(err)
	}
	m := h.mail(t, email)
	visit("mail-reset", b.open(h.publish(m.HTML)))
	at("revoke", "/revoke", b.open(m.RevokeLink))
	at("revoked", "/revoked", b.submit())

	link := h.link(t, email)
	at("choose", "/reset", b.open(link))
	at("choose-short", "/reset", b.choose("short"))
	b.fill(newPassword, newPassword+"!")
	at("choose-differs", "/reset", b.submit())
	call(b, network.ClearBrowserCookies, cdp.Empty{})
	at("reopen", "/reset", b.choose(newPassword))
	b.open(link)
	at("done", "/done", b.choose(newPassword))
	at("invalid", "/reset", b.open(link))
	visit("mail-notification", b.open(h.publish(h.mail(t, email).HTML)))
}

func (b *tab) setLook(scheme string, width int64) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme},
		{Name: "prefers-reduced-motion", Value: "reduce"},
	}})
	b.do(chromedp.EmulateViewport(width, 800))
}

// A finding of axe-core.
type finding struct {
	ID     string   `json:"id"`
	Help   string   `json:"help"`
	Impact string   `json:"impact"`
	Where  []string `json:"where"`
}

const runAxe = `axe.run(document, {resultTypes: ["violations"], rules: %s}).then((r) => r.violations.map((v) => (
	{id: v.id, help: v.help, impact: v.impact, where: v.nodes.map((n) => n.html)})))`

// A mail is part of somebody else's page, which has the landmarks and headings.
const (
	pageRules = `{}`
	mailRules = `{"landmark-one-main": {enabled: false}, "page-has-heading-one": {enabled: false}, "region": {enabled: false}}`
)

func (b *tab) findings(rules string) []finding {
	b.t.Helper()
	if !evaluate[bool](b, `typeof axe !== "undefined"`) {
		evaluate[chromedp.Void](b, axe)
	}
	return evaluate[[]finding](b, fmt.Sprintf(runAxe, rules))
}

// Every page and mail, in languages of three scripts and both directions, is accessible
// by the rules of axe-core in light and in dark, and fits on a narrow screen.
func TestLooks(t *testing.T) {
	folder := os.Getenv("RESET_TEST_SCREENSHOTS")
	for _, lang := range []string{"en", "de", "ar", "ja"} {
		t.Run(lang, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			email := "robin@example.com"
			h.users.add(email, lang)
			b := newTab(t, h)
			call(b, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": lang}})
			everyPage(t, b, email, func(name string, _ *network.Response) {
				if got := evaluate[string](b, "document.documentElement.lang"); got != lang {
					t.Errorf("%s: the language is %q", name, got)
				}
				for _, look := range []struct {
					name, scheme string
					width        int64
				}{{"light", "light", 1280}, {"dark", "dark", 1280}, {"narrow", "light", 320}} {
					b.setLook(look.scheme, look.width)
					at := name + "-" + look.name
					b.capture(folder, filepath.Join(lang, at+".png"), look.width, 800)
					if got := evaluate[int64](b, "document.documentElement.scrollWidth"); got > look.width {
						t.Errorf("%s: %d pixels wide", at, got)
					}
					if look.name == "narrow" {
						continue
					}
					rules := pageRules
					if strings.HasPrefix(name, "mail") {
						rules = mailRules
						// Mail has no background of its own, which axe-core takes for a white one.
						evaluate[string](b, `document.documentElement.style.background = "Canvas"`)
					}
					for _, f := range b.findings(rules) {
						t.Errorf("%s: %s (%s, %s): %q", at, f.Help, f.ID, f.Impact, f.Where)
					}
				}
				b.setLook("light", 1280)
			})
		})
	}
}

// The pictures of the README, as the example shows the pages. To make them anew:
//
//	RESET_TEST_SCREENSHOTS=../docs go test -count=1 -run TestPictures ./browsertest
func TestPictures(t *testing.T) {
	t.Parallel()
	folder := os.Getenv("RESET_TEST_SCREENSHOTS")
	h := startHost(t, false, func(c *reset.Config) {
		c.Brand = reset.Brand{Name: "Harbour", Color: "#0f766e"}
		c.SupportURL = ""
	})
	h.users.add(alice, "")
	b := newTab(t, h)
	for _, page := range []struct{ picture, url, heading string }{
		{"forgot.png", h.base + "/forgot", pageForgot},
		{"choose.png", h.link(t, alice), pageChoose},
	} {
		b.setLook("light", 720)
		b.open(page.url)
		b.wantPage(page.heading)
		b.awaitFocus()
		evaluate[string](b, `document.activeElement.style.caretColor = "transparent"`) // it blinks
		b.capture(folder, page.picture, 720, 900)
	}
}

// capture leaves a picture of the whole page in a folder, if there is one, of
// at least some height.
func (b *tab) capture(folder, name string, width, least int64) {
	b.t.Helper()
	if folder == "" {
		return
	}
	// A picture of more than the viewport can be off to the side where text
	// runs from right to left: the viewport is made to fit instead.
	for fitted := int64(-1); ; { // what the page fits to its width may still grow
		height := evaluate[int64](b, "document.documentElement.scrollHeight")
		if height <= fitted {
			break
		}
		fitted = max(least, height+40)
		b.do(chromedp.EmulateViewport(width, fitted))
		evaluate[bool](b, `new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn(true))))`)
	}
	picture := value(b, chromedp.CaptureScreenshot())
	path := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
