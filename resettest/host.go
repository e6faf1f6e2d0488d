package resettest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

// A Host is what TestHost needs of a host besides its handler.
type Host struct {
	Service *reset.Service
	BaseURL string   // Config.BaseURL
	Mailbox *Mailbox // Config.Mailer

	// Logged returns everything that the host has logged so far: its access log,
	// and what Config.Logger has received at level INFO and above.
	Logged func() string
	// SignUp adds an account as the host's sign-up does.
	SignUp func(ctx context.Context, email, password string) error
	// SignIn starts a session as the host's sign-in does, or fails, for instance
	// because the password is wrong. client has its own cookies and reaches the
	// handler at the origin of BaseURL. alive reports whether the session, a
	// cookie or a token, still gives access to the account.
	SignIn func(ctx context.Context, client *http.Client, email, password string) (alive func(context.Context) (bool, error), err error)

	// ChangePassword changes the password of an account as the host's own
	// settings page or administrator does. Defaults to nil, for a host that has
	// no other way than Service.
	ChangePassword func(ctx context.Context, email, oldPassword, newPassword string) error
	// Proxy is the address of the proxy in front of the host. Requests then come
	// from there over plain http. The proxy adds the client to X-Forwarded-For
	// and sets X-Real-Ip, X-Forwarded-Proto and X-Forwarded-Host. Defaults to no
	// proxy: clients connect directly.
	Proxy netip.Addr
	// ProxyStrips is the prefix that Proxy takes off each path. Defaults to
	// none.
	ProxyStrips string
}

// TestHost tests how a host has mounted a Service: handler is all that it
// serves, its middleware included, and is called directly. Each subtest tests
// one of the host's duties in the documentation of package reset, with accounts
// that it adds itself, and says what to change. The accounts stay.
//
// Mailed links must lead to the built-in pages. TestHost calls Service.Run, and
// takes some seconds, since public requests are mailed late on purpose.
func TestHost(t *testing.T, handler http.Handler, h Host) {
	if h.Service == nil || h.Mailbox == nil || h.Logged == nil || h.SignUp == nil || h.SignIn == nil {
		t.Fatal("resettest: Host needs Service, Mailbox, Logged, SignUp and SignIn")
	}
	base, err := url.Parse(strings.TrimRight(h.BaseURL, "/"))
	if err != nil || base.Host == "" {
		t.Fatalf("resettest: Host.BaseURL %q is not a URL", h.BaseURL)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Service.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { stop(); wg.Wait() })
	failed := inOrder(hostSentences(h), hostNeeds, func(s sentence[*hostCheck]) bool {
		return t.Run(s.name, func(t *testing.T) {
			cite(t, s.quote)
			s.check(&hostCheck{t, h, base, handler})
		})
	})
	if failed != "" {
		t.Fatalf("until %q passes nothing else can be tested", failed)
	}
}

// hostNeeds is how many of hostSentences the others need: without mount and
// forms they fail for reasons that mislead.
const hostNeeds = 2

// hostSentences returns the duties of a host.
func hostSentences(h Host) []sentence[*hostCheck] {
	all := []sentence[*hostCheck]{
		{"mount", "Mount Pages where Config.BaseURL says.", (*hostCheck).mounted},
		{"forms", "Exempt the mount of Pages from the host's own CSRF middleware", (*hostCheck).takesForms},
		{"other origins", "a stricter check is built in", (*hostCheck).refusesOrigins},
		{"responses", "Pass the responses of Pages on unchanged", (*hostCheck).keepsResponses},
		{"clients", "Behind a proxy, set Config.ClientIP to ClientIPBehind.", (*hostCheck).tellsClientsApart},
		{"link", "GET requests redeem nothing", (*hostCheck).followsLink},
		{"sessions", "End all sessions in Users.SetPassword.", (*hostCheck).endsSessions},
		{"long passwords", "Set Config.MaxPasswordBytes to what the host can hash: 72 for bcrypt.", (*hostCheck).takesLongPasswords},
		{"log", "Keep the query of mailed links out of access logs", (*hostCheck).keepsSecrets},
	}
	if h.ChangePassword != nil {
		all = append(all, sentence[*hostCheck]{"other changes",
			"Call Service.Revoke when a password or an address was changed by other means.", (*hostCheck).revokes})
	}
	return all
}

type hostCheck struct {
	testing.TB
	Host
	base    *url.URL
	handler http.Handler
}

const (
	mailTimeout = 20 * time.Second
	publicDelay = 5 * time.Second // after which a public request was worked on
	maxTries    = 500             // of one client, until it is limited
)

// A hostTransport calls a handler as its server does for one client.
type hostTransport struct {
	*hostCheck
	client netip.Addr
}

func (t *hostTransport) RoundTrip(r *http.Request) (response *http.Response, err error) {
	if r.URL.Host != t.base.Host || r.URL.Scheme != t.base.Scheme {
		return nil, fmt.Errorf("the host led to %s://%s, which is not the origin of BaseURL", r.URL.Scheme, r.URL.Host)
	}
	in := r.Clone(r.Context())
	in.Host, in.Proto, in.ProtoMajor, in.ProtoMinor = r.URL.Host, "HTTP/1.1", 1, 1
	in.RemoteAddr = netip.AddrPortFrom(t.client, 50000).String()
	if r.URL.Scheme == "https" {
		in.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: r.URL.Hostname()}
	}
	if t.Proxy.IsValid() {
		t.forward(in)
	}
	in.URL.Scheme, in.URL.Host = "", "" // as a server has it
	in.RequestURI = in.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the handler panicked: %v", p)
		}
	}()
	w := httptest.NewRecorder()
	t.handler.ServeHTTP(w, in)
	response = w.Result()
	response.Request = r
	return response, nil
}

// forward changes a request as a proxy does.
func (t *hostTransport) forward(r *http.Request) {
	hops := append(r.Header.Values("X-Forwarded-For"), t.client.String())
	r.Header.Set("X-Forwarded-For", strings.Join(hops, ", "))
	r.Header.Set("X-Real-Ip", t.client.String())
	r.Header.Set("X-Forwarded-Proto", r.URL.Scheme)
	r.Header.Set("X-Forwarded-Host", r.Host)
	r.RemoteAddr = netip.AddrPortFrom(t.Proxy, 50000).String()
	r.TLS = nil
	if path, ok := strings.CutPrefix(r.URL.Path, t.ProxyStrips); ok {
		r.URL.Path, r.URL.RawPath = "/"+strings.TrimPrefix(path, "/"), ""
	}
}

// anyClient returns an address that is nobody's (RFC 2544).
func anyClient() netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte(rand.N(256)), byte(rand.N(256))})
}

// newBrowser returns a browser of a new client.
func (c *hostCheck) newBrowser() *browser { return c.browserAt(anyClient()) }

func (c *hostCheck) browserAt(client netip.Addr) *browser {
	c.Helper()
	b, err := newBrowser(&http.Client{Transport: &hostTransport{c, client}})
	if err != nil {
		c.Fatal(err)
	}
	return b
}

// do makes a request for a path of Pages and follows no redirect.
func (c *hostCheck) do(b *browser, method, path, body string, header ...string) *page {
	c.Helper()
	p, err := b.once(c.request(method, path, body, header...))
	if err != nil {
		c.Fatalf("%s %s%s: %v", method, c.base, path, err)
	}
	return p
}

// request returns a request for a path of Pages. header has names and values in
// turn.
func (c *hostCheck) request(method, path, body string, header ...string) *http.Request {
	c.Helper()
	r, err := http.NewRequestWithContext(c.Context(), method, c.base.String()+path, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
		if !strings.HasPrefix(body, "{") {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		r.Header.Set("Origin", c.base.Scheme+"://"+c.base.Host)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for pair := range slices.Chunk(header, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	return r
}

// direct answers a request by Pages alone.
func (c *hostCheck) direct(r *http.Request, path string) *page {
	c.Helper()
	in := r.Clone(r.Context())
	in.Host, in.RemoteAddr = c.base.Host, netip.AddrPortFrom(anyClient(), 50000).String()
	in.URL.Scheme, in.URL.Host = "", ""
	in.URL.Path, _, _ = strings.Cut(path, "?")
	w := httptest.NewRecorder()
	c.Service.Pages().ServeHTTP(w, in)
	response := w.Result()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.Fatal(err)
	}
	return &page{r.Method, r.URL, response.StatusCode, response.Header, string(body)}
}

// isOurs reports whether Pages has answered, perhaps for another path.
func (c *hostCheck) isOurs(p *page) bool {
	return p.header.Get("X-Robots-Tag") == "noindex" && p.header.Get("Cache-Control") == "no-store"
}

// isAccepted reports whether Pages has taken a form.
func (c *hostCheck) isAccepted(p *page) bool {
	return p.status == http.StatusOK || p.status == http.StatusSeeOther && strings.HasPrefix(p.header.Get("Location"), c.base.String()+"/")
}

// reportOnce returns a function that reports failures, of those with the same
// advice only the first.
func (c *hostCheck) reportOnce() func(advice, format string, args ...any) {
	said := make(map[string]bool)
	return func(advice, format string, args ...any) {
		c.Helper()
		if !said[advice] {
			said[advice] = true
			c.Errorf(format+"; %s", append(args, advice)...)
		}
	}
}

func (c *hostCheck) mounted() {
	want := c.base.String() + "/forgot"
	leads := func(p *page) bool {
		return slices.ContainsFunc(formsOf(p), func(f *form) bool { return f.action.String() == want })
	}
	if !leads(c.direct(c.request(http.MethodGet, "/forgot", ""), "/forgot")) {
		c.Fatalf("the form of Service.Pages does not lead to %s; set Host.BaseURL and Config.BaseURL alike", want)
	}
	prefix := strings.TrimPrefix(c.base.Path, c.ProxyStrips)
	report := c.reportOnce()
	b := c.newBrowser()
	for _, path := range []string{"/forgot", "/sent", "/reset", "/revoke", "/done", "/revoked"} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			got, want := c.do(b, method, path, ""), c.direct(c.request(method, path, ""), path)
			advice := fmt.Sprintf("Pages was not called: mount svc.Pages() for every method and path under %s/, without sign-in, "+
				"or let BaseURL end with the prefix of the mount", prefix)
			if c.isOurs(got) {
				advice = fmt.Sprintf("Pages got another path: mount http.StripPrefix(%q, svc.Pages()), with the path of BaseURL less what a proxy strips", prefix)
			}
			if got.status != want.status {
				report(advice, "%v, want %d", got, want.status)
			}
		}
	}
	if p := c.do(b, http.MethodGet, "/forgot", ""); !c.Failed() && !leads(p) {
		c.Errorf("the form of %v does not lead to %s; mount the Pages of Host.Service", p, want)
	}
}

func (c *hostCheck) takesForms() {
	report := c.reportOnce()
	b := c.newBrowser()
	for _, body := range []string{
		url.Values{"email": {unique("nobody-*@example.com")}}.Encode(),
		fmt.Sprintf(`{"email":%q}`, unique("nobody-*@example.com")),
	} {
		for _, header := range [][]string{
			nil,
			{"Sec-Fetch-Site", ""}, // an older browser, which sends Origin only
		} {
			p := c.do(b, http.MethodPost, "/forgot", body, header...)
			switch {
			case c.isAccepted(p):
			case !c.isOurs(p):
				report(fmt.Sprintf("a middleware of the host refused the request before Pages: exempt %s/ from CSRF middleware and from other filters of POST", c.base.Path), "%v", p)
			case p.status == http.StatusForbidden:
				report("Pages took it for a request of another site: leave Origin and Sec-Fetch-Site as they come, and serve on the origin of BaseURL", "%v", p)
			default:
				report("if the address was missing, or body_consumed is logged, a middleware has read the body before Pages: let it leave r.Body alone, or restore it", "%v", p)
			}
		}
	}
}

func (c *hostCheck) refusesOrigins() {
	const stranger = "https://attacker.example"
	b := c.newBrowser()
	for _, body := range []string{"email=nobody%40example.com", `{"email":"nobody@example.com"}`} {
		p := c.do(b, http.MethodPost, "/forgot", body, "Origin", stranger, "Sec-Fetch-Site", "cross-site")
		if p.status != http.StatusForbidden {
			c.Errorf("a form on another site: %v, want %d; a middleware must not change Origin or Sec-Fetch-Site", p, http.StatusForbidden)
		}
	}
	for _, p := range []*page{
		c.do(b, http.MethodGet, "/forgot", "", "Origin", stranger),
		c.do(b, http.MethodOptions, "/reset", "", "Origin", stranger, "Access-Control-Request-Method", http.MethodPost, "Access-Control-Request-Headers", "content-type"),
	} {
		if allowed := p.header.Get("Access-Control-Allow-Origin"); allowed != "" {
			c.Errorf("%v has Access-Control-Allow-Origin: %s; exempt %s/ from CORS middleware", p, allowed, c.base.Path)
		}
	}
}

// keepsResponses compares responses that came through the host with those of
// Pages alone.
func (c *hostCheck) keepsResponses() {
	b := c.newBrowser()
	for _, test := range []struct{ method, path, body string }{
		{http.MethodGet, "/forgot", ""},
		{http.MethodGet, "/", ""},
		{http.MethodGet, "/reset", ""},
		{http.MethodGet, "/nowhere", ""},
		{http.MethodGet, "/reset?activation=AAAAAAAAAAAAAAAAAAAAAAAA", ""},
		{http.MethodPost, "/forgot", "email=nobody"},
		{http.MethodPost, "/forgot", `{"email":"nobody"}`},
	} {
		got, want := c.do(b, test.method, test.path, test.body), c.direct(c.request(test.method, test.path, test.body), test.path)
		if got.status != want.status {
			c.Errorf("%v, want %d; pass the status of Pages on: no error pages or redirects of the host's own", got, want.status)
		}
		if got.body != want.body {
			c.Errorf("%v: the body was changed; exempt %s/ from middleware that rewrites or injects HTML", got, c.base.Path)
		}
		for name, values := range want.header {
			if name == "Content-Length" || name == "Vary" {
				continue // others may add to them
			}
			same := slices.Equal(got.header[name], values)
			if name == "Set-Cookie" { // the host may set others
				same = !slices.ContainsFunc(values, func(v string) bool { return !slices.Contains(got.header[name], v) })
			}
			if !same {
				c.Errorf("%v: got %s %q, want %q; set headers before Pages is called, or not under %s/", got, name, got.header[name], values, c.base.Path)
			}
		}
	}
}

func (c *hostCheck) tellsClientsApart() {
	forgot := func(client netip.Addr, header ...string) *page {
		body := fmt.Sprintf(`{"email":%q}`, unique("nobody-*@example.com"))
		return c.do(c.browserAt(client), http.MethodPost, "/forgot", body, header...)
	}
	greedy := anyClient()
	other := greedy.Next()
	for n := 1; ; n++ {
		p := forgot(greedy)
		if p.status == http.StatusTooManyRequests {
			break
		}
		if p.status != http.StatusOK || n == maxTries {
			c.Fatalf("request %d of one client: %v, want %d at the end; set Config.PerClient", n, p, http.StatusTooManyRequests)
		}
	}
	if p := forgot(other); p.status != http.StatusOK {
		c.Errorf("another client: %v, while the limit was only the first one's; all clients look alike: "+
			"behind a proxy set Config.ClientIP to reset.ClientIPBehind(prefixes of the proxy), and let no middleware overwrite RemoteAddr with the proxy's", p)
	}
	for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Forwarded"} {
		value := other.Next().String()
		if name == "Forwarded" {
			value = "for=" + value
		}
		if p := forgot(greedy, name, value); p.status != http.StatusTooManyRequests {
			c.Errorf("a client that is limited, with the header %s: %v, want %d; everybody can write that header: "+
				"take the client from reset.ClientIPBehind, and no middleware before it that trusts such headers", name, p, http.StatusTooManyRequests)
		}
	}
}

// mailed asks for a link in public and returns it.
func (c *hostCheck) mailed(email string) string {
	c.Helper()
	p := c.do(c.newBrowser(), http.MethodPost, "/forgot", url.Values{"email": {email}}.Encode())
	if !c.isAccepted(p) {
		c.Fatalf("%v", p)
	}
	return c.nextLink(email)
}

// nextLink returns the link of the next mail, which must be on the host.
func (c *hostCheck) nextLink(email string) string {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), mailTimeout)
	defer cancel()
	for {
		m, err := c.Mailbox.Wait(ctx, email)
		if err != nil {
			c.Fatalf("%v; give Host.Mailbox to Config.Mailer", err)
		}
		if m.Kind == reset.MailReset {
			if where, _, _ := strings.Cut(m.Link, "?"); where != c.base.String()+"/reset" {
				c.Fatalf("the mailed link leads to %s, not to the page below BaseURL; leave Config.ResetURL and RevokeURL out in this test", where)
			}
			return m.Link
		}
	}
}

// requested has a link mailed at once.
func (c *hostCheck) requested(email string) string {
	c.Helper()
	if _, err := c.Service.RequestReset(c.Context(), email, reset.RequestOptions{}); err != nil {
		c.Fatalf("RequestReset: %v", err)
	}
	return c.nextLink(email)
}

func (c *hostCheck) signUp(form string) (email string) {
	c.Helper()
	email = unique(form)
	if err := c.SignUp(c.Context(), email, firstPassword); err != nil {
		c.Fatalf("SignUp of %q: %v", email, err)
	}
	return email
}

// signIn must succeed.
func (c *hostCheck) signIn(email, password string) (alive func() bool) {
	c.Helper()
	session, err := c.SignIn(c.Context(), &c.newBrowser().client, email, password)
	if err != nil {
		c.Fatalf("SignIn of %q: %v", email, err)
	}
	alive = func() bool {
		c.Helper()
		is, err := session(c.Context())
		if err != nil {
			c.Fatalf("a session of %q: %v", email, err)
		}
		return is
	}
	if !alive() {
		c.Fatalf("the session of %q is not alive after SignIn", email)
	}
	return alive
}

// opens reports whether a password opens an account.
func (c *hostCheck) opens(email, password string) bool {
	_, err := c.SignIn(c.Context(), &c.newBrowser().client, email, password)
	return err == nil
}

// change sets a new password through the pages. An answer of 500 or 503 says
// nothing to a user; the error quotes what the log says of it.
func (c *hostCheck) change(link, password string) error {
	err := ChangePassword(c.Context(), &c.newBrowser().client, link, password)
	has := func(status int) bool { return strings.Contains(err.Error(), fmt.Sprint(": ", status)) }
	if err == nil || !has(http.StatusInternalServerError) && !has(http.StatusServiceUnavailable) {
		return err
	}
	for _, message := range []string{"reset: request failed", "reset: request refused for now"} {
		if line := lineWith(c.Logged(), message); line != "" {
			err = fmt.Errorf("%w; the log has: %s", err, line)
		}
	}
	return fmt.Errorf("%w; run TestUsers, which says more about SetPassword", err)
}

// followsLink opens a mailed link as mail scanners do, then as its reader does.
func (c *hostCheck) followsLink() {
	email := c.signUp("link-*@example.com")
	link := c.mailed(email)
	path := strings.TrimPrefix(link, c.base.String())
	for _, method := range []string{http.MethodHead, http.MethodGet, http.MethodGet} {
		p := c.do(c.newBrowser(), method, path, "")
		if want := c.base.String() + "/reset"; p.status != http.StatusSeeOther || p.header.Get("Location") != want {
			c.Errorf("%v to %q, want %d to %s; the link must reach Pages with its query: no sign-in, no canonical redirect and no rewriting before it",
				p, p.header.Get("Location"), http.StatusSeeOther, want)
		}
		cookie, _, _ := strings.Cut(c.direct(c.request(method, path, ""), path).header.Get("Set-Cookie"), "=")
		if !slices.ContainsFunc(p.header.Values("Set-Cookie"), func(s string) bool { return strings.HasPrefix(s, cookie+"=") }) {
			c.Errorf("%v does not set the cookie %s; let no middleware remove or rename cookies", p, cookie)
		}
	}
	if err := c.change(link, secondPassword); err != nil {
		c.Fatalf("a mailed link does not lead to a new password: %v", err)
	}
	if !c.opens(email, secondPassword) || c.opens(email, firstPassword) {
		c.Errorf("SignIn does not follow the change of the password; let Users.SetPassword save the hash where SignIn reads it")
	}
	if err := c.change(link, firstPassword); err == nil {
		c.Errorf("a link worked twice; do not wrap the Store in a cache")
	}
}

func (c *hostCheck) endsSessions() {
	email := c.signUp("sessions-*@example.com")
	other := c.signUp("other-*@example.com")
	sessions := []func() bool{c.signIn(email, firstPassword), c.signIn(email, firstPassword)}
	untouched := c.signIn(other, firstPassword)
	if err := c.change(c.requested(email), secondPassword); err != nil {
		c.Fatalf("%v", err)
	}
	for i, alive := range sessions {
		if alive() {
			c.Errorf("session %d of %d still gives access once the password was changed; end sessions in Users.SetPassword, past any cache of them, "+
				"and let tokens (JWT) carry a version that is compared with the user's on each request", i+1, len(sessions))
		}
	}
	if !untouched() {
		c.Errorf("the session of another user ended; end those of the one user")
	}
}

func (c *hostCheck) takesLongPasswords() {
	email := c.signUp("long-*@example.com")
	link := c.requested(email)
	p := c.direct(c.request(http.MethodGet, "/reset", "", "Reset-Activation", activationOf(link)), "/reset")
	var limits struct{ MaxPasswordBytes int }
	if err := json.Unmarshal([]byte(p.body), &limits); err != nil {
		c.Fatalf("%v: %v", p, err)
	}
	password, _ := longest(limits.MaxPasswordBytes)
	if err := c.change(link, password); err != nil {
		if other := c.change(link, secondPassword); other != nil { // it is not the length
			c.Fatalf("%v", other)
		}
		c.Errorf("a password of %d bytes is not taken: %v; hash long passwords (argon2id, scrypt), or set Config.MaxPasswordBytes to what the host can hash: 72 for bcrypt",
			limits.MaxPasswordBytes, err)
		return
	}
	if !c.opens(email, password) {
		c.Errorf("a password of %d bytes does not open the account once it was set; let sign-in take it as it is, or set Config.MaxPasswordBytes", limits.MaxPasswordBytes)
	}
}

// activationOf returns the activation of a mailed link.
func activationOf(link string) string { return link[strings.LastIndex(link, "=")+1:] }

func (c *hostCheck) keepsSecrets() {
	email := c.signUp("log-*@example.com")
	link := c.mailed(email)
	nobody := unique("nobody-*@example.com")
	c.do(c.newBrowser(), http.MethodPost, "/forgot", url.Values{"email": {nobody}}.Encode())
	const password = "Correct 3rd passphrase, unlogged."
	if err := c.change(link, "short"); err == nil {
		c.Errorf("a password of five characters was taken")
	}
	if err := c.change(link, password); err != nil {
		c.Fatalf("%v", err)
	}
	c.awaitDelivery()
	log := c.Logged()
	if !strings.Contains(log, "password_changed") {
		c.Errorf("Host.Logged does not have the event password_changed; return what Config.Logger receives, too")
	}
	for _, secret := range []struct{ name, value, advice string }{
		{"the activation of a mailed link", activationOf(link), "log r.URL.Path, or drop the query under " + c.base.Path + "/"},
		{"a new password", password, "log no bodies of requests"},
		{"a new password", url.QueryEscape(password), "log no bodies of requests"},
		{"an address without an account", nobody, "log no bodies of requests"},
		{"an address without an account", url.QueryEscape(nobody), "log no bodies of requests"},
	} {
		if strings.Contains(log, secret.value) {
			c.Errorf("the log has %s: %q; %s", secret.name, strings.ReplaceAll(lineWith(log, secret.value), secret.value, "…"), secret.advice)
		}
	}
}

// awaitDelivery waits until the queue is empty, that is until every address was
// looked up, or for a while where something else is in it.
func (c *hostCheck) awaitDelivery() {
	const step = 50 * time.Millisecond
	for range publicDelay / step {
		if stats, err := c.Service.Stats(c.Context()); err == nil && stats.Waiting+stats.Leased == 0 {
			return
		}
		time.Sleep(step)
	}
}

// lineWith returns the first line of a log that has a text, or "".
func lineWith(log, text string) string {
	for line := range strings.Lines(log) {
		if strings.Contains(line, text) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func (c *hostCheck) revokes() {
	email := c.signUp("revoke-*@example.com")
	link := c.requested(email)
	if err := c.ChangePassword(c.Context(), email, firstPassword, secondPassword); err != nil {
		c.Fatalf("ChangePassword: %v", err)
	}
	if err := c.change(link, firstPassword); err == nil {
		c.Errorf("a link that was mailed before the host changed the password still works; call Service.Revoke wherever a password or an address changes")
	}
}
