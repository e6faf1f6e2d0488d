// Package ui renders the pages and mails of package reset from templates and
// translated messages, in the colours of a brand.
package ui

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"io/fs"
	"strings"
	"time"
)

// Options configure a Renderer. They are expected to be checked.
type Options struct {
	Brand      Brand  // see Brand.Check
	Templates  fs.FS  // overrides built-in files by name; nil for none
	BaseURL    string // where the pages are mounted, without a trailing slash
	SignInURL  string // may be ""
	SupportURL string // http(s) or mailto; may be ""

	TTL         time.Duration // how long a link is valid
	MinPassword int           // code points
	MaxPassword int           // code points, or bytes where CountsBytes
	CountsBytes bool          // characters outside ASCII count as several
}

// A Renderer renders pages and mails in any of its languages. It is safe for
// concurrent use.
type Renderer struct {
	*theme
	options  Options
	prepared preparedMails
	light    scheme // mail on a light background
	dark     scheme // mail in programs that report a dark one
	css      string // of every page
	policy   string
}

// New returns a Renderer. If o.Templates is set, New renders every page and mail
// once in each language, so that a broken file fails here and not in front of a
// visitor.
func New(o Options) (*Renderer, error) {
	t, err := themeFor(o.Templates)
	if err != nil {
		return nil, err
	}
	brand, err := parseColor(cmp.Or(o.Brand.Color, defaultColor))
	if err != nil {
		return nil, err
	}
	light, dark := schemes(brand)
	r := &Renderer{theme: t, options: o, light: light, dark: dark}
	r.dark.Link = brand.against(mailSurface, white, textContrast)
	r.light.Button = brand.against(white, black, paleContrast) // buttons in mail have no outline
	r.light.OnButton = textOn(r.light.Button)
	r.css = light.css() + "\n@media (prefers-color-scheme: dark) {" + dark.css() + "}\n" + t.css
	r.policy = strings.Join([]string{
		"default-src 'none'",
		"style-src " + hashSource(r.css),
		"script-src " + hashSource(t.js),
		"img-src 'self'",
		"form-action 'self'",
		"frame-ancestors 'none'",
		"base-uri 'none'",
	}, "; ")
	if o.Templates != nil {
		if err := r.tryOut(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// ContentSecurityPolicy returns the value of the header of that name for every
// page. It allows the inline style and script by their hashes, images and forms
// of the same origin, and nothing else.
func (r *Renderer) ContentSecurityPolicy() string { return r.policy }

// hashSource allows one inline element (CSP Level 3, section 2.3.1).
func hashSource(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
