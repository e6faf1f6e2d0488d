package main

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

//go:embed web
var webFiles embed.FS

// maxForm is how many bytes of a form are read.
const maxForm = 16 << 10

// templates has a template for each page, within the common layout.
var templates = func() map[string]*template.Template {
	layout := template.Must(template.New("layout.html").Funcs(template.FuncMap{
		"clock": func(t time.Time) string { return t.Format("15:04:05") },
	}).ParseFS(webFiles, "web/layout.html", "web/panels.html"))
	pages := make(map[string]*template.Template)
	for _, name := range []string{"home", "login", "signup", "sessions", "password", "problem"} {
		pages[name] = template.Must(template.Must(layout.Clone()).ParseFS(webFiles, "web/"+name+".html"))
	}
	return pages
}()

// A view is what a page shows.
type view struct {
	Title    string
	Visitor  visitor
	Demo     bool   // mail goes to the inbox page
	Problem  string // with what was typed
	Email    string // as it was typed
	Name     string // as it was typed
	Done     bool
	Accounts []user
	Password string // of the demo's accounts
	Sessions []session
	Panels   panels
}

// An action answers a request of a visitor.
type action func(w http.ResponseWriter, r *http.Request, v visitor) error

// web returns the host's own pages. Unlike the library's they are protected
// here from forms of other sites.
func (h *host) web() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", h.page(h.home))
	mux.Handle("GET /login", h.page(h.loginForm))
	mux.Handle("POST /login", h.page(h.login))
	mux.Handle("GET /signup", h.page(h.signupForm))
	mux.Handle("POST /signup", h.page(h.signup))
	mux.Handle("POST /logout", h.page(h.logout))
	mux.Handle("GET /sessions", h.page(h.member(h.sessions)))
	mux.Handle("POST /sessions/end", h.page(h.member(h.endSession)))
	mux.Handle("GET /password", h.page(h.member(h.passwordForm)))
	mux.Handle("POST /password", h.page(h.member(h.password)))
	mux.HandleFunc("GET /style.css", static("web/style.css"))
	mux.HandleFunc("GET /script.js", static("web/script.js"))
	if h.mailbox != nil {
		mux.Handle("GET /demo/panels", h.page(h.demoPanels))
		mux.HandleFunc("GET /demo/mail", h.demoMail)
	}
	protection := http.NewCrossOriginProtection()
	if err := protection.AddTrustedOrigin(h.base); err != nil {
		panic(err) // the flags are checked
	}
	handler := protection.Handler(http.MaxBytesHandler(mux, maxForm))
	if h.mailbox != nil {
		handler = hereOnly(handler)
	}
	return secured(handler)
}

// hereOnly answers a browser on this machine only under a name of this machine.
// A page of another site could otherwise read the demo's mail through a name of
// its own that leads here (DNS rebinding).
func hereOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err == nil && peer.Addr().Unmap().IsLoopback() && !isLoopback((&url.URL{Host: r.Host}).Hostname()) {
			http.Error(w, "This demo shows mail to all visitors: open it at localhost or 127.0.0.1, or start it with -smtp.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// secured sets headers for everything that the host itself shows.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; connect-src 'self'; "+
			"frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// page finds the user of a session, and answers for an action that fails.
func (h *host) page(next action) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := h.visitor(r)
		if err == nil {
			err = next(w, r, v)
		}
		if err != nil {
			h.log.Error("request failed", "path", r.URL.Path, "error", err)
			h.fail(w)
		}
	})
}

// fail is for an action that has not answered.
func (h *host) fail(w http.ResponseWriter) {
	if err := h.show(w, http.StatusInternalServerError, "problem", view{Title: "Something went wrong"}); err != nil {
		http.Error(w, "Something went wrong.", http.StatusInternalServerError)
	}
}

// member lets only those through who are logged in.
func (h *host) member(next action) action {
	return func(w http.ResponseWriter, r *http.Request, v visitor) error {
		if v.User.ID == "" {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return nil
		}
		return next(w, r, v)
	}
}

// show writes a page, all of it or nothing.
func (h *host) show(w http.ResponseWriter, status int, name string, v view) error {
	v.Demo = h.mailbox != nil
	var b bytes.Buffer
	if err := templates[name].Execute(&b, v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = b.WriteTo(w) // the visitor may have gone
	return nil
}

func static(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, webFiles, name) }
}
