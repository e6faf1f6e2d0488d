package reset

import (
	"bytes"
	"cmp"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/gopassreset/reset/internal/ui"
)

// answerCrossOrigin is what a single-page app on another origin gets.
var answerCrossOrigin = answer{status: http.StatusForbidden, body: `{"error":"FORBIDDEN","message":"Cross-origin requests are refused."}`}

// checkLength is how much of an activation's hash a form is bound by.
const checkLength = 12

// Pages returns the handler for browsers: HTML pages that work without
// JavaScript, and JSON for single-page apps on the same routes. Nothing that it
// answers, or when, reveals who has an account. Mount it where Config.BaseURL
// says; it does not matter whether the prefix is stripped before.
//
//	GET  /forgot               the form
//	POST /forgot               form: email; JSON: {"email"}
//	GET  /sent                 where the form leads
//	GET  /reset?activation=…   from the mail: takes the activation out of the URL
//	GET  /reset                the form
//	POST /reset                form: check (as in the form that GET shows), password, confirm;
//	                           JSON: {"activation", "newPassword"}
//	GET  /revoke?activation=…  "it wasn't me", likewise
//	POST /revoke               ends all live links of the user; form: check; JSON: {"activation"}
//	GET  /done, /revoked       where the forms lead
//
// GET /reset and GET /revoke answer JSON where the header Reset-Activation holds
// the activation, or the whole query of a mailed link: an object with the members
// activation, email, expiresIn (seconds), minPassword and maxPassword (code
// points) and maxPasswordBytes. Single-page apps on Config.AllowedOrigins may call the JSON routes;
// docs/spa.md has the details.
//
// The JSON answers are {"message":"ok"}, or an object with the members error
// and message: BAD_REQUEST (400), TOO_MANY_REQUESTS (429, with Retry-After),
// UNKNOWN_ERROR (503 with Retry-After where the host or its store is busy or has
// failed, 500 where trying again is pointless), and for a refused password PASSWORD_REFUSED (400) with the member
// reason of [PasswordError].
//
// Between the link and the form the activation is in a cookie, __Host-reset, or
// reset where BaseURL is http. The name demands Path=/, so every handler of the
// origin receives the cookie until the form has served. The address that was
// typed is in __Secure-reset-email, or reset-email, for 10 minutes.
// docs/templates.md describes the fields of the forms.
//
// Of a mailed link that a mail program has damaged, by a full stop behind it for
// instance, the activation is taken if it can be recognized for certain.
//
// GET and HEAD redeem nothing, so mail scanners do no harm. Cross-site requests
// are refused here: exempt the mount from the host's own CSRF middleware.
func (s *Service) Pages() http.Handler {
	s.noteStart()
	p := newPages(s)
	return p.guard(p.serve, p.serveFailed)
}

func newPages(s *Service) *pages {
	p := &pages{mount: mount{Service: s}, origin: http.NewCrossOriginProtection(), apps: s.cfg.AllowedOrigins}
	// Behind a proxy that rewrites Host, the origin can only be known from here.
	if err := p.origin.AddTrustedOrigin(originOf(s.base)); err != nil {
		panic(fmt.Sprintf("reset: Pages: the origin of a checked BaseURL: %v", err))
	}
	p.link = http.Cookie{Name: "reset", Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode}
	p.email = http.Cookie{Name: "reset-email", Path: cmp.Or(s.base.EscapedPath(), "/"), HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if s.base.Scheme == "https" {
		p.link.Name, p.link.Secure = "__Host-reset", true
		p.email.Name, p.email.Secure = "__Secure-reset-email", true
	}

	p.routes = map[string]route{
		"":         {get: p.toForgot},
		"/":        {get: p.toForgot},
		"/forgot":  {p.emailPage("forgot"), p.post(p.postForgot, p.jsonForgot)},
		"/sent":    {get: p.emailPage("sent")},
		"/reset":   {p.getLink("/reset", "choose"), p.post(p.postReset, p.jsonReset)},
		"/done":    {get: p.page("done")},
		"/revoke":  {p.getLink("/revoke", "revoke"), p.post(p.postRevoke, p.jsonRevoke)},
		"/revoked": {get: p.page("revoked")},
	}
	return p
}

func (p *pages) serve(w http.ResponseWriter, r *http.Request) {
	p.warnOfProxy(r)
	path := p.routePath(r, p.carriesLink(r))
	get := isGet(r)
	if get {
		path, r = mendLink(path, r)
	}
	route := p.routes[path]
	if get && route.get != nil && !isJSONGet(r) {
		if to := p.redirection(r, path); to != "" {
			p.redirectSecret(w, to)
			return
		}
	}
	p.warnOfMount(r, path)
	switch {
	case route.get == nil, route.post == nil && !get && isJSON(r):
		p.refuseRoute(w, r, answerNotFound)
	case get:
		route.get(w, r)
	case r.Method == http.MethodPost && route.post != nil:
		route.post(w, r)
	case route.post != nil && isPreflight(r) && p.apps.allow(r):
		p.jsonHeaders(w, r)
		p.apps.preflight(w)
	default:
		w.Header().Set("Allow", "GET, HEAD")
		if route.post != nil {
			w.Header().Set("Allow", "GET, HEAD, POST")
		}
		origin := r.Header.Get("Origin")
		if isPreflight(r) && !p.apps.allow(r) && origin != "" && origin != originOf(p.base) {
			p.reportForeign(r)
		}
		p.refuseRoute(w, r, answerMethodNotAllowed)
	}
}

// refuseRoute answers a request for which there is no route.
func (p *pages) refuseRoute(w http.ResponseWriter, r *http.Request, a answer) {
	if !isJSON(r) && !isJSONGet(r) {
		p.write(w, r, a.status, ui.Page{Name: "notfound"})
		return
	}
	p.headers(w)
	a.write(w)
}

func (p *pages) serveFailed(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && isJSON(r) || isJSONGet(r) {
		p.jsonHeaders(w, r)
		answerUnknown.write(w)
		return
	}
	p.write(w, r, http.StatusInternalServerError, ui.Page{Name: "failed"})
}

type pages struct {
	mount
	origin      *http.CrossOriginProtection
	apps        appOrigins
	link, email http.Cookie // names and attributes
}

// headers sets what every response of Pages has.
func (p *pages) headers(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Robots-Tag", "noindex")
	// Not no-referrer: under that a form posts "Origin: null".
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Content-Security-Policy", p.render.ContentSecurityPolicy())
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// jsonHeaders sets what every JSON response of Pages has.
func (p *pages) jsonHeaders(w http.ResponseWriter, r *http.Request) {
	p.headers(w)
	p.apps.headers(w, r)
}

// write answers with a page.
func (p *pages) write(w http.ResponseWriter, r *http.Request, status int, pg ui.Page) {
	var b bytes.Buffer
	if err := p.render.Page(&b, p.language(r), pg); err != nil {
		p.failure(r.Context(), fmt.Errorf("reset: page %s: %w", pg.Name, err))
		status = http.StatusInternalServerError
		b.Reset()
		b.WriteString("Something went wrong.\n")
	}
	p.headers(w)
	h := w.Header()
	if _, found := linkActivation(r.URL.RawQuery); found { // and was not moved to the cookie
		h.Set("Referrer-Policy", "no-referrer")
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	h.Add("Vary", "Accept-Language")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

func (p *pages) language(r *http.Request) string {
	return p.render.Language(r.Header.Get("Accept-Language"))
}

// page serves a page that depends on nothing.
func (p *pages) page(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { p.write(w, r, http.StatusOK, ui.Page{Name: name}) }
}

func (p *pages) redirect(w http.ResponseWriter, path string) {
	p.headers(w)
	p.seeOther(w, path)
}

// redirectSecret redirects where the URL of the response is itself a secret.
func (p *pages) redirectSecret(w http.ResponseWriter, path string) {
	p.headers(w)
	w.Header().Set("Referrer-Policy", "no-referrer")
	p.seeOther(w, path)
}

// seeOther leads to a route with 303, which turns a POST into a GET.
func (p *pages) seeOther(w http.ResponseWriter, path string) {
	w.Header().Set("Location", p.cfg.BaseURL+path)
	w.WriteHeader(http.StatusSeeOther)
}

func (p *pages) toForgot(w http.ResponseWriter, _ *http.Request) { p.redirect(w, "/forgot") }

// emailPage serves a page with the address that was typed last.
func (p *pages) emailPage(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p.write(w, r, http.StatusOK, ui.Page{Name: name, Email: p.typedEmail(r)})
	}
}

// getLink serves the two routes that mail leads to. With an activation in the
// query it moves that to a cookie and redirects to the clean URL, which shows
// a form. The cookie is SameSite=Lax: a Strict one would be withheld on a click
// that comes from webmail.
func (p *pages) getLink(path, form string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if isJSONGet(r) {
			p.jsonHeaders(w, r)
			p.answerJSON(w, r, answerUnavailable, func() (answer, error) {
				leave, err := p.waiting.enter()
				if err != nil {
					return answer{}, err
				}
				defer leave()
				return p.getJSON(r)
			})
			return
		}
		leave, err := p.waiting.enter()
		if err != nil {
			p.refuse(w, r, err)
			return
		}
		defer leave()
		w = leaving{w, leave}
		if activation, found := linkActivation(r.URL.RawQuery); found {
			p.keepActivation(w, r, activation, path)
			return
		}
		activation := p.activation(r)
		if activation == "" { // no cookie does not mean that the link is dead
			p.write(w, r, http.StatusBadRequest, ui.Page{Name: "reopen"})
			return
		}
		if activation == deadLink {
			p.refuse(w, r, ErrInvalidActivation)
			return
		}
		_, user, err := p.find(r.Context(), activation)
		if err != nil {
			p.refuse(w, r, err)
			return
		}
		p.write(w, r, http.StatusOK, ui.Page{Name: form, Email: user.Email, Check: checkOf(activation)})
	}
}

func (p *pages) keepActivation(w http.ResponseWriter, r *http.Request, activation, path string) {
	// A page of a sibling domain could plant an activation by an <img>.
	if dest := r.Header.Get("Sec-Fetch-Dest"); dest == "" || dest == "document" {
		a, _, err := p.find(r.Context(), activation)
		if err != nil && !errors.Is(err, ErrInvalidActivation) {
			p.refuse(w, r, err)
			return
		}
		if left := a.Expires.Sub(p.clock.now(r.Context())); err == nil && left >= time.Second {
			c := p.link
			c.Value, c.MaxAge = activation, int(left/time.Second)
			http.SetCookie(w, &c)
		} else {
			p.endLink(w) // an earlier link's cookie must not answer for this one
		}
	}
	p.redirectSecret(w, path)
}

// deadLink is what the cookie holds once its activation has served or has turned
// out to be dead. A browser without the cookie gets another page.
const deadLink = "dead"

// pageMemory is how long a browser remembers a dead link and a typed address.
const pageMemory = 10 * time.Minute

// endLink takes the activation out of the cookie.
func (p *pages) endLink(w http.ResponseWriter) {
	c := p.link
	c.Value, c.MaxAge = deadLink, int(pageMemory/time.Second)
	http.SetCookie(w, &c)
}

// activation returns what the cookie holds, or "".
func (p *pages) activation(r *http.Request) string {
	cookies := r.CookiesNamed(p.link.Name)
	if len(cookies) != 1 {
		return ""
	}
	return cookies[0].Value
}

// carriesLink reports whether a request has an activation, dead or live.
func (p *pages) carriesLink(r *http.Request) bool {
	_, found := linkActivation(r.URL.RawQuery)
	return found || isJSONGet(r) || p.activation(r) != ""
}

// keepEmail keeps a well-formed address for the next page. It stands in no URL,
// and nothing about it depends on who has an account.
func (p *pages) keepEmail(w http.ResponseWriter, email string) {
	if _, err := CanonicalAddress(email); err != nil {
		return
	}
	c := p.email
	c.Value, c.MaxAge = base64.RawURLEncoding.EncodeToString([]byte(email)), int(pageMemory/time.Second)
	http.SetCookie(w, &c)
}

// typedEmail returns what keepEmail has kept, or "".
func (p *pages) typedEmail(r *http.Request) string {
	cookies := r.CookiesNamed(p.email.Name)
	if len(cookies) != 1 {
		return ""
	}
	email, err := base64.RawURLEncoding.DecodeString(cookies[0].Value)
	if err != nil {
		return ""
	}
	if _, err := CanonicalAddress(string(email)); err != nil {
		return ""
	}
	return string(email)
}

// checkOf is what binds a form to the activation it was shown for: a second
// link, opened or planted meanwhile, has replaced the cookie.
func checkOf(activation string) string {
	h, _ := hashActivation(activation)
	return base64.RawURLEncoding.EncodeToString(h[:])[:checkLength]
}

// refuse answers an error with a page.
func (p *pages) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var tooLarge *http.MaxBytesError
	var limit *LimitError
	switch {
	case errors.Is(err, ErrInvalidActivation):
		p.endLink(w)
		p.write(w, r, http.StatusBadRequest, ui.Page{Name: "invalid"})
	case errors.As(err, &tooLarge):
		p.refuseBody(w, r, answerTooLarge)
	case errors.Is(err, ErrBadRequest):
		p.write(w, r, http.StatusBadRequest, ui.Page{Name: "failed"})
	case errors.As(err, &limit):
		p.limited(w, r, limit, "")
	default:
		status := http.StatusInternalServerError
		if p.failure(r.Context(), err) != hostMistake {
			status = http.StatusServiceUnavailable
			w.Header().Set("Retry-After", retryWhenBusy)
		}
		p.write(w, r, status, ui.Page{Name: "failed"})
	}
}

// refuseBody answers with a page where a JSON body would get a.
func (p *pages) refuseBody(w http.ResponseWriter, r *http.Request, a answer) {
	p.events.log(r.Context(), badRequest, "reason", a.reason)
	w.Header().Set("Reset-Reason", a.reason)
	p.write(w, r, a.status, ui.Page{Name: "failed"})
}

func (p *pages) limited(w http.ResponseWriter, r *http.Request, limit *LimitError, email string) {
	w.Header().Set("Retry-After", strconv.Itoa(wholeSeconds(limit.RetryAfter)))
	p.write(w, r, http.StatusTooManyRequests, ui.Page{Name: "limited", Email: email, RetryAfter: limit.RetryAfter})
}

// post serves a POST by the media type of its body, from its own origin only.
func (p *pages) post(form func(http.ResponseWriter, *http.Request, url.Values), route jsonRoute) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		crossOrigin := p.origin.Check(r) != nil
		fromApp := crossOrigin && p.apps.allow(r)
		crossOrigin = crossOrigin && !fromApp
		if crossOrigin {
			p.reportForeign(r)
		}
		kind, _, err := mediaType(r)
		switch {
		case fromApp && !isJSON(r): // a form may change nothing from there
			p.jsonHeaders(w, r)
			p.events.count(r.Context(), appNotJSON, append(callerAttrs(r.Context()), "origin", r.Header.Get("Origin"))...)
			p.writeJSON(w, r, answerUnsupported)
		case isJSON(r):
			p.jsonHeaders(w, r)
			if crossOrigin {
				answerCrossOrigin.write(w)
				return
			}
			p.serveJSON(w, r, route, answerUnavailable)
		case crossOrigin:
			p.write(w, r, http.StatusForbidden, ui.Page{Name: "failed"})
		case err != nil || kind != "application/x-www-form-urlencoded":
			p.refuseBody(w, r, answerUnsupported)
		default:
			values, err := readForm(w, r)
			if err != nil {
				p.refuse(w, r, err)
				return
			}
			leave, err := p.waiting.enter()
			if err != nil {
				p.refuse(w, r, err)
				return
			}
			defer leave()
			form(leaving{w, leave}, r, values)
		}
	}
}

func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if r.PostForm != nil && r.ContentLength <= maxBody { // a middleware has parsed it
		return r.PostForm, nil
	}
	body, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, fmt.Errorf("%w: form: %w", ErrBadRequest, err)
	}
	return values, nil
}

func (p *pages) postForgot(w http.ResponseWriter, r *http.Request, form url.Values) {
	email := form.Get("email")
	address := pastedAddress(email)
	p.keepEmail(w, address)
	err := p.forgot(r, email)
	var limit *LimitError
	switch {
	case err == nil:
		p.redirect(w, "/sent")
	case errors.As(err, &limit):
		p.limited(w, r, limit, address)
	case errors.Is(err, ErrBadRequest):
		problem := "invalid"
		if address == "" {
			problem = "missing"
		}
		if !utf8.ValidString(email) || len(email) > 4*maxAddress {
			email = ""
		}
		p.write(w, r, http.StatusBadRequest, ui.Page{Name: "forgot", Email: email, Field: "email", Problem: problem})
	default:
		p.refuse(w, r, err)
	}
}

// forgot is Service.Forgot for the client that sent r.
func (p *pages) forgot(r *http.Request, email string) error {
	client := p.cfg.ClientIP(r)
	if client == "" {
		return &mistake{fmt.Errorf("reset: Config.ClientIP does not know the client at %q", r.RemoteAddr)}
	}
	return p.Forgot(r.Context(), email, client, ForgotOptions{Locale: p.language(r)})
}

// bound returns the activation in the cookie if the form was shown for it. It
// has answered otherwise.
func (p *pages) bound(w http.ResponseWriter, r *http.Request, form url.Values) (activation string, ok bool) {
	activation = p.activation(r)
	if activation == deadLink { // the form was sent twice, for instance
		p.refuse(w, r, ErrInvalidActivation)
		return "", false
	}
	if activation == "" || subtle.ConstantTimeCompare([]byte(form.Get("check")), []byte(checkOf(activation))) != 1 {
		p.write(w, r, http.StatusBadRequest, ui.Page{Name: "reopen"})
		return "", false
	}
	return activation, true
}

func (p *pages) postReset(w http.ResponseWriter, r *http.Request, form url.Values) {
	activation, ok := p.bound(w, r, form)
	if !ok {
		return
	}
	a, user, err := p.find(r.Context(), activation)
	if err != nil {
		p.refuse(w, r, err)
		return
	}
	again := ui.Page{Name: "choose", Email: user.Email, Check: checkOf(activation), Field: "password"}
	status, password := http.StatusBadRequest, form.Get("password")
	switch {
	case password == "":
		again.Problem = "missing"
	case password != form.Get("confirm"):
		again.Field, again.Problem = "confirm", "differs"
	default:
		err := p.redeem(r.Context(), a, user, password)
		var refused *PasswordError
		if err == nil {
			p.endLink(w)
			p.redirect(w, "/done")
			return
		}
		switch {
		case errors.Is(err, errNoSlot):
			p.failure(r.Context(), err)
			w.Header().Set("Retry-After", retryWhenBusy)
			status, again.Problem = http.StatusServiceUnavailable, "busy"
		case !errors.As(err, &refused):
			p.refuse(w, r, err)
			return
		case refused.Message != "":
			again.Problem, again.Message = "custom", refused.Message
		default:
			again.Problem = refused.Reason
		}
	}
	p.write(w, r, status, again)
}

func (p *pages) postRevoke(w http.ResponseWriter, r *http.Request, form url.Values) {
	activation, ok := p.bound(w, r, form)
	if !ok {
		return
	}
	if err := p.revokeBy(r.Context(), activation); err != nil {
		p.refuse(w, r, err)
		return
	}
	p.endLink(w)
	p.redirect(w, "/revoked")
}

func (p *pages) jsonForgot(r *http.Request, m map[string]any) (answer, error) {
	email, err := stringMember(m, "email")
	if err != nil {
		return answer{}, err
	}
	return answerOK, p.forgot(r, email)
}

func (p *pages) jsonReset(r *http.Request, m map[string]any) (answer, error) {
	activation, err := stringMember(m, "activation")
	if err != nil {
		return answer{}, err
	}
	password, err := stringMember(m, "newPassword")
	if err != nil {
		return answer{}, err
	}
	err = p.ChangePassword(r.Context(), activation, password)
	if refused := (*PasswordError)(nil); errors.As(err, &refused) {
		return answerRefused(refused).because(err), nil
	}
	return answerOK, err
}

func answerRefused(e *PasswordError) answer {
	body, err := json.Marshal(struct {
		Error   string `json:"error"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	}{"PASSWORD_REFUSED", e.Reason, cmp.Or(e.Message, "The password was refused.")})
	if err != nil { // strings always marshal
		return answerBadRequest
	}
	return answer{status: http.StatusBadRequest, body: string(body)}
}

func (p *pages) jsonRevoke(r *http.Request, m map[string]any) (answer, error) {
	activation, err := stringMember(m, "activation")
	if err != nil {
		return answer{}, err
	}
	return answerOK, p.revokeBy(r.Context(), activation)
}

// warnOfProxy says once that a proxy may stand in front of a host that does not
// know of it: all clients would then share one limit.
func (p *pages) warnOfProxy(r *http.Request) {
	if p.proxyKnown || p.proxyWarned.Load() {
		return
	}
	if header := forwardingHeader(r); header != "" && p.proxyWarned.CompareAndSwap(false, true) {
		p.events.log(r.Context(), proxyUnknown, "header", header, "peer", r.RemoteAddr)
	}
}
