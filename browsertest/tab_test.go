package browsertest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// tabTime is what a tab has before its test fails.
const tabTime = 3 * time.Minute

// A tab is one of the browser. When the test ends, it is an error if one of
// the pages sent a request to another origin or wrote to the console.
type tab struct {
	t   *testing.T
	h   *host
	ctx context.Context

	mu       sync.Mutex
	requests []request
	console  []string
}

type request struct {
	method, url, document string
	kind                  network.ResourceType
	redirect              *network.Response // that led here, or nil
}

// newTab opens a tab with no cookies.
func newTab(t *testing.T, h *host) *tab {
	t.Helper()
	return openTab(t, h, chromedp.WithNewBrowserContext())
}

// sibling opens a tab that shares the cookies.
func (b *tab) sibling() *tab {
	b.t.Helper()
	return openTab(b.t, b.h, chromedp.WithExistingBrowserContext(chromedp.FromContext(b.ctx).BrowserContextID))
}

func openTab(t *testing.T, h *host, options ...chromedp.ContextOption) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, options...)
	t.Cleanup(cancel)
	b := &tab{t: t, h: h, ctx: ctx}
	if err := chromedp.Listen(ctx, b.note); err != nil {
		t.Fatalf("open tab: %v", err)
	}
	ctx, cancelTime := context.WithTimeout(ctx, tabTime)
	b.ctx = ctx
	t.Cleanup(func() {
		b.check()
		cancelTime()
	})
	// Tabs behind others have the focus, too.
	call(b, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	return b
}

// note runs between the messages of the browser.
func (b *tab) note(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, request{e.Request.Method, e.Request.URL, e.DocumentURL, e.Type, e.RedirectResponse})
	case *log.EventEntryAdded:
		// Not what is mere advice, nor the network's word on every status from 400.
		if e.Entry.Source == log.EntrySourceSecurity || e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			b.console = append(b.console, e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		b.console = append(b.console, "exception: "+e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		b.console = append(b.console, fmt.Sprintf("console.%s", e.Type))
	}
}

func (b *tab) check() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.requests {
		at := func(origin string) bool { return strings.HasPrefix(r.url, origin+"/") }
		from := func(origin string) bool { return strings.HasPrefix(r.document, origin+"/") && at(origin) }
		if !at(b.h.origin) && !strings.HasPrefix(r.url, "data:") && !from(b.h.webmail) && !from(b.h.sibling) {
			b.t.Errorf("%s sent a request to another origin: %s %s", r.document, r.method, r.url)
		}
	}
	for _, text := range b.console {
		b.t.Errorf("in the console: %s", text)
	}
}

// sent returns the requests so far.
func (b *tab) sent() []request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]request(nil), b.requests...)
}

// call runs a command of the protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	result, err := chromedp.Call(b.ctx, command, params)
	if err != nil {
		b.t.Fatalf("%s: %v", command.Method, err)
	}
	return result
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

func value[T any](b *tab, action chromedp.Action[T]) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// evaluate waits for the value of a promise. It works without the page's
// JavaScript, too.
func evaluate[T any](b *tab, script string) T {
	b.t.Helper()
	return value(b, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
}

// open goes to a URL.
func (b *tab) open(url string) *network.Response {
	b.t.Helper()
	return value(b, chromedp.NavigateResponse(url))
}

// click clicks on what leads to another page and waits for that.
func (b *tab) click(selector string) *network.Response {
	b.t.Helper()
	return b.follow(chromedp.Click(chromedp.CSS(selector)))
}

// follow waits for the page that actions lead to.
func (b *tab) follow(actions ...chromedp.Action[chromedp.Void]) *network.Response {
	b.t.Helper()
	response, err := chromedp.RunResponse(b.ctx, actions...)
	if err != nil {
		b.t.Fatal(err)
	}
	return response
}

// write puts text into a field, all at once, as a password manager does.
func (b *tab) write(selector, text string) {
	b.t.Helper()
	b.do(chromedp.Focus(chromedp.CSS(selector)))
	call(b, input.InsertText, input.InsertTextParams{Text: text})
}

// fill fills in the two passwords.
func (b *tab) fill(password, confirm string) {
	b.t.Helper()
	b.write("#password", password)
	b.write("#confirm", confirm)
}

// submit sends the form of the page.
func (b *tab) submit() *network.Response {
	b.t.Helper()
	return b.click("button[type=submit]")
}

// choose sends the form with a password.
func (b *tab) choose(password string) *network.Response {
	b.t.Helper()
	b.fill(password, password)
	return b.submit()
}

func (b *tab) heading() string {
	b.t.Helper()
	return value(b, chromedp.TextContent(chromedp.CSS("h1")))
}

// wantPage checks what is shown by its heading.
func (b *tab) wantPage(heading string) {
	b.t.Helper()
	if got := b.heading(); got != heading {
		b.t.Fatalf("the page is %q at %s, want %q", got, b.location(), heading)
	}
}

func (b *tab) location() string {
	b.t.Helper()
	return value(b, chromedp.Location())
}

// cookie returns the one that keeps the activation, or nil.
func (b *tab) cookie() *network.Cookie {
	b.t.Helper()
	for _, c := range call(b, network.GetCookies, network.GetCookiesParams{URLs: []string{b.h.origin}}).Cookies {
		if strings.HasSuffix(c.Name, "reset") {
			return c
		}
	}
	return nil
}

// withoutScripts turns the page's JavaScript off.
func (b *tab) withoutScripts() {
	b.t.Helper()
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
}

// wantPassword checks an account.
func (h *host) wantPassword(t *testing.T, email, want string) {
	t.Helper()
	if got := h.users.password(email); got != want {
		t.Errorf("the password of %s is %q, want %q", email, got, want)
	}
}

// The headings of the pages in English.
const (
	pageForgot   = "Forgot your password?"
	pageSent     = "Check your inbox"
	pageChoose   = "Choose a new password"
	pageDone     = "Password changed"
	pageInvalid  = "This link is no longer valid"
	pageReopen   = "Please open the link again"
	pageLimited  = "Too many requests"
	pageFailed   = "Something went wrong"
	pageRevoke   = "Cancel the password reset?"
	pageRevoked  = "Links canceled"
	pageNotFound = "Page not found"
)
