package browsertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

const (
	alice   = "alice@example.com"
	bob     = "bob@example.com"
	mallory = "mallory@example.com"
)

func twoUsers(t *testing.T) *host {
	t.Helper()
	h := newHost(t)
	h.users.add(alice, "")
	h.users.add(bob, "")
	return h
}

// The form of the first link must not change the account of the second.
func TestTwoLinks(t *testing.T) {
	t.Parallel()
	h := twoUsers(t)
	first := newTab(t, h)
	first.open(h.link(t, alice))
	second := first.sibling()
	second.open(h.link(t, bob))

	first.choose(newPassword)
	first.wantPage(pageReopen)
	h.wantPassword(t, alice, oldPassword)
	h.wantPassword(t, bob, oldPassword)

	second.choose(newPassword)
	second.wantPage(pageDone)
	h.wantPassword(t, alice, oldPassword)
	h.wantPassword(t, bob, newPassword)
}

// An attacker's own link, opened behind the back of somebody who is about to
// choose a password, must not make that the attacker's.
func TestPlantedLink(t *testing.T) {
	t.Parallel()
	h := twoUsers(t)
	h.users.add(mallory, "")
	planted := h.link(t, mallory)

	// As a picture it keeps no cookie, from another site nor from this one; the
	// form goes on to work.
	b := newTab(t, h)
	b.open(h.link(t, alice))
	other := b.sibling()
	cats := h.publish(fmt.Sprintf(`<!doctype html><h1>Cats</h1><img alt="" src="%s">`, planted))
	for _, page := range []string{cats, strings.Replace(cats, h.webmail, h.sibling, 1)} {
		other.open(page)
		if c := b.cookie(); c == nil || strings.HasSuffix(planted, c.Value) {
			t.Errorf("a picture on %s has changed the cookie", page)
		}
	}
	b.choose(newPassword)
	b.wantPage(pageDone)
	h.wantPassword(t, alice, newPassword)

	// As a page it does; then the form is refused.
	b.open(h.link(t, bob))
	other.open(h.publish(fmt.Sprintf(`<!doctype html><a href="%s">Win</a>`, planted)))
	other.click("a")
	b.choose(newPassword)
	b.wantPage(pageReopen)
	h.wantPassword(t, bob, oldPassword)
	h.wantPassword(t, mallory, oldPassword)
}

// Another site's page can send no form here, whatever cookie there is.
func TestForeignForm(t *testing.T) {
	t.Parallel()
	h := twoUsers(t)
	link := h.link(t, alice)
	b := newTab(t, h)
	b.open(link)
	check := value(b, chromedp.Value(chromedp.CSS("[name=check]")))
	for _, form := range []string{
		fmt.Sprintf(`<form method="post" action="%s/reset"><input name="check" value="%s"><input name="password" value="%s"><input name="confirm" value="%[3]s">`, h.base, check, newPassword),
		fmt.Sprintf(`<form method="post" action="%s/forgot"><input name="email" value="%s">`, h.base, bob),
		fmt.Sprintf(`<form method="post" action="%s/revoke"><input name="check" value="%s">`, h.base, check),
	} {
		b.open(h.publish("<!doctype html>" + form + "<button>Win</button></form>"))
		if got := b.click("button").Status; got != 403 {
			t.Errorf("%s was answered with %d", form, got)
		}
	}
	if got := h.mailbox.Messages(); len(got) > 0 {
		t.Errorf("%d mails were sent", len(got))
	}
	h.wantPassword(t, alice, oldPassword)
	b.open(link)
	b.wantPage(pageChoose)
}

// To open a link uses nothing up.
func TestLinkOpenedTwice(t *testing.T) {
	t.Parallel()
	h := twoUsers(t)
	link := h.link(t, alice)
	first := newTab(t, h)
	first.open(link)
	second := first.sibling()
	second.open(link)
	elsewhere := newTab(t, h) // another browser, such as a scanner's
	elsewhere.open(link)
	elsewhere.wantPage(pageChoose)

	first.choose(newPassword)
	first.wantPage(pageDone)
	second.choose("another " + newPassword)
	second.wantPage(pageInvalid)
	elsewhere.choose("another " + newPassword)
	elsewhere.wantPage(pageInvalid)
	second.open(link)
	second.wantPage(pageInvalid)
	h.wantPassword(t, alice, newPassword)
	if got := h.users.get(alice).changes; got != 1 {
		t.Errorf("the password was changed %d times", got)
	}
}

// A link that is no longer valid says so, alike for all reasons, and leads to
// the form that brings another one.
func TestInvalidLinks(t *testing.T) {
	t.Parallel()
	h := twoUsers(t)
	revoked := h.link(t, bob)
	if err := h.service.Revoke(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	b := newTab(t, h)
	var first string
	for _, link := range []string{
		h.expiredLink(t, h.users.get(alice).User),
		revoked,
		h.base + "/reset?activation=AAAAAAAAAAAAAAAAAAAAAAAA",
		h.base + "/reset?activation=",
	} {
		b.open(h.link(t, alice)) // whose cookie must not answer for the next one
		response := b.open(link)
		b.wantPage(pageInvalid)
		if response.Status != 400 {
			t.Errorf("%s: the status is %d", link, response.Status)
		}
		html := value(b, chromedp.OuterHTML(chromedp.CSS("html")))
		if first == "" {
			first = html
		}
		if html != first {
			t.Errorf("%s: the page differs from that of an expired link", link)
		}
	}
	b.click("a.button")
	b.wantPage(pageForgot)

	b.open(h.link(t, alice))
	b.wantPage(pageChoose)
	if err := h.service.Revoke(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	b.choose(newPassword)
	b.wantPage(pageInvalid)
	h.wantPassword(t, alice, oldPassword)
}

// A browser that keeps no cookie is led to open the link again: the link is not
// dead.
func TestNoCookie(t *testing.T) {
	t.Parallel()
	h := twoUsers(t)
	b := newTab(t, h)
	link := h.link(t, alice)
	for _, path := range []string{"/reset", "/revoke"} {
		b.open(link)
		call(b, network.ClearBrowserCookies, cdp.Empty{})
		if got := b.open(h.base + path).Status; got != 400 {
			t.Errorf("%s: the status is %d", path, got)
		}
		b.wantPage(pageReopen)
	}
	b.open(link)
	b.wantPage(pageChoose)
}

// The page after a request sends no mail when it is loaded again, but on demand,
// and leads back to the form with the address in it.
func TestAfterRequest(t *testing.T) {
	t.Parallel()
	h := twoUsers(t)
	b := newTab(t, h)
	b.withoutScripts()
	b.open(h.base + "/forgot")
	b.write("#email", alice)
	b.submit()
	b.wantPage(pageSent)
	b.do(chromedp.Reload())
	b.wantPage(pageSent)
	if got := h.posts.Load(); got != 1 {
		t.Errorf("%d requests after a reload, want 1", got)
	}
	b.submit()
	b.wantPage(pageSent)
	if got := h.posts.Load(); got != 2 {
		t.Errorf("%d requests after \"Send again\", want 2", got)
	}
	b.click(`main a[href$="/forgot"]`)
	b.wantPage(pageForgot)
	if got := value(b, chromedp.Value(chromedp.CSS("#email"))); got != alice {
		t.Errorf("the form holds %q, want %q", got, alice)
	}
	b.click(`main a[href$="/login"]`)
	b.wantPage("Sign in")
}

// A link can expire while its form is open. Then the form changes nothing, and
// the page leads on to another link, without JavaScript, too.
func TestExpiredMeanwhile(t *testing.T) {
	t.Parallel()
	h := twoUsers(t)
	b := newTab(t, h)
	b.withoutScripts()
	b.open(h.link(t, alice))
	b.wantPage(pageChoose)
	h.ahead.Store(int64(59 * time.Minute))
	b.choose("short")
	b.wantPage(pageChoose)
	h.ahead.Store(int64(time.Hour))
	if got := b.choose(newPassword).Status; got != 400 {
		t.Errorf("the status is %d", got)
	}
	b.wantPage(pageInvalid)
	h.wantPassword(t, alice, oldPassword)
	b.click("a.button")
	b.wantPage(pageForgot)
	b.write("#email", alice)
	b.submit()
	b.wantPage(pageSent)
}

// What is kept of a link is a cookie that no script and no other site sees.
func TestCookie(t *testing.T) {
	for _, test := range []struct {
		name   string
		secure bool
		cookie string
	}{
		{"https", true, "__Host-reset"},
		{"http on loopback", false, "reset"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := startHost(t, test.secure)
			h.users.add(alice, "")
			link := h.link(t, alice)
			_, activation, _ := strings.Cut(link, "?activation=")
			b := newTab(t, h)
			b.open(h.publish(fmt.Sprintf(`<!doctype html><a href="%s">Open</a>`, link)))
			b.click("a")
			b.wantPage(pageChoose)

			c := b.cookie()
			if c == nil {
				t.Fatal("there is no cookie")
			}
			if c.Name != test.cookie || c.Value != activation || c.Path != "/" || c.Domain != "127.0.0.1" ||
				!c.HTTPOnly || c.Secure != test.secure || c.SameSite != network.CookieSameSiteLax || c.Session {
				t.Errorf("the cookie is %+v", *c)
			}
			if got := evaluate[string](b, "document.cookie"); got != "" {
				t.Errorf("scripts see the cookie: %s", got)
			}
			for _, e := range call(b, page.GetNavigationHistory, cdp.Empty{}).Entries {
				if strings.Contains(e.URL, activation) {
					t.Errorf("the history has %s", e.URL)
				}
			}
			if html := value(b, chromedp.OuterHTML(chromedp.CSS("html"))); strings.Contains(html, activation) {
				t.Errorf("the page has the activation in it")
			}
			b.choose(newPassword)
			b.wantPage(pageDone)
			h.wantPassword(t, alice, newPassword)
		})
	}
}
