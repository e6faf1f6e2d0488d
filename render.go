package reset

import (
	"io"
	"net/url"
	"time"
)

type renderer struct{}

func newRenderer(c *Config) (*renderer, error) { return &renderer{}, nil }

func (b Brand) check(base *url.URL) error { return nil }

// language returns the best language for an Accept-Language header.
func (r *renderer) language(acceptLanguage string) string { return "en" }

// A page is one page of Pages.
type page struct {
	Name    string        // the template: forgot, sent, choose, done, invalid, reopen, limited, failed, revoke, revoked
	Email   string        // forgot, sent: as typed; choose, revoke: the account's
	Check   string        // choose, revoke: binds the form to the activation in the cookie
	Field   string        // the field at fault: email, password, confirm
	Problem string        // what is wrong with it: invalid, missing, differs, too_short, too_long, common, address, or custom
	Message string        // of a custom problem
	Wait    time.Duration // limited
}

func (r *renderer) page(w io.Writer, lang string, p page) error { return nil }

// csp is the Content-Security-Policy of every page.
func (r *renderer) csp() string { return "" }

// mail fills in Subject, Text and HTML from the facts of m. left is how long a
// reset link still lives.
func (r *renderer) mail(m *Message, left time.Duration) error { return nil }
