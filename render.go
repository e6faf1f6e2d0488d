package reset

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	htmltemplate "html/template"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A page is one page of Pages.
type page struct {
	Name    string        // one of pageNames
	Email   string        // forgot, sent: as typed; choose, revoke: the account's
	Check   string        // choose, revoke: binds the form to the activation in the cookie
	Field   string        // the field at fault: email, password, confirm
	Problem string        // what is wrong with it: invalid, missing, differs, too_short, too_long, common, address, or custom
	Message string        // of a custom problem
	Wait    time.Duration // limited
}

// A renderer makes pages and mail, in the host's looks and the reader's
// language.
type renderer struct {
	*kit
	cfg    Config
	light  scheme // of mail
	dark   scheme // of mail, in programs that tell which of the two it is
	css    string // of every page
	policy string // the Content-Security-Policy of every page
}

// newRenderer returns the renderer for a checked config. What that overrides
// is tried out.
func newRenderer(c *Config) (*renderer, error) {
	k, err := kitFor(c.Templates)
	if err != nil {
		return nil, err
	}
	brand, err := parseColor(cmp.Or(c.Brand.Color, defaultColor))
	if err != nil {
		return nil, err
	}
	light, dark := schemes(brand)
	r := &renderer{kit: k, cfg: *c, light: light, dark: dark}
	r.dark.Link = brand.against(mailSurface, white, textContrast)
	r.light.Button = brand.against(white, black, paleContrast) // it has no outline there
	r.light.OnButton = textOn(r.light.Button)
	r.css = light.css() + "\n@media (prefers-color-scheme: dark) {" + dark.css() + "}\n" + k.css
	r.policy = strings.Join([]string{
		"default-src 'none'",
		"style-src " + hashSource(r.css),
		"script-src " + hashSource(k.js),
		"img-src 'self'",
		"form-action 'self'",
		"frame-ancestors 'none'",
		"base-uri 'none'",
	}, "; ")
	if c.Templates != nil {
		if err := r.tryOut(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// hashSource allows one inline element (CSP Level 3, section 2.3.1).
func hashSource(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// A pageView is what the template of a page sees.
type pageView struct {
	htmlVoice
	Lang, Dir, Title               string
	Brand                          Brand
	Initial                        string
	BaseURL, SignInURL, SupportURL string
	Email, Check, Field, Problem   string
	MinPassword, MaxPassword       int
	Lasts, Wait                    span
	Style                          htmltemplate.CSS
	Script                         htmltemplate.JS
}

// page writes a whole page, or nothing. lang is one that language returned.
func (r *renderer) page(w io.Writer, lang string, p page) error {
	t, ok := r.pages[p.Name]
	if !ok {
		return fmt.Errorf("no page %q", p.Name)
	}
	v, err := r.view(r.catalogue(lang), p)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return err
	}
	_, err = b.WriteTo(w)
	return err
}

func (r *renderer) view(c *catalogue, p page) (v pageView, err error) {
	v = pageView{
		htmlVoice: htmlVoice{voice{c, r.cfg.Brand.Name}},
		Lang:      c.lang,
		Dir:       c.dir(),
		Brand:     r.cfg.Brand,
		Initial:   r.cfg.Brand.initial(),

		BaseURL:    r.cfg.BaseURL,
		SignInURL:  r.cfg.SignInURL,
		SupportURL: r.cfg.SupportURL,

		Email:       p.Email,
		Check:       p.Check,
		Field:       p.Field,
		MinPassword: r.cfg.MinPassword,
		MaxPassword: maxPasswordRunes,
		Lasts:       lasting(r.cfg.TTL),
		Wait:        waiting(p.Wait),

		Style:  htmltemplate.CSS(r.css),
		Script: htmltemplate.JS(r.js),
	}
	if v.Title, err = v.plain(p.Name + ".title"); err != nil || p.Problem == "" {
		return v, err
	}
	if v.Problem, err = r.problem(v.voice, p); err != nil {
		return v, err
	}
	v.Title, err = v.plain("title.problem", "title", v.Title)
	return v, err
}

// problem says what is wrong with a field.
func (r *renderer) problem(v voice, p page) (string, error) {
	if p.Message != "" {
		return p.Message, nil
	}
	key := "problem." + p.Field + "." + p.Problem
	switch {
	case p.Problem == "too_short":
		return v.plain(key, countName, r.cfg.MinPassword)
	case p.Problem == "too_long":
		return v.plain(key, countName, maxPasswordRunes)
	case v.has(key):
		return v.plain(key)
	}
	return v.plain("problem.password.refused")
}

// A mailView is what the templates of a mail see.
type mailView struct {
	Lang, Dir, Subject      string
	Brand                   Brand
	Name, Email             string
	Link, RevokeLink        string
	SupportURL, SupportText string
	Left                    span
	Light, Dark             scheme
}

// mail fills in Subject, Text and HTML from the facts of m, after it has taken
// away a Name that might be none. left is how long a reset link still lives.
func (r *renderer) mail(m *Message, left time.Duration) error {
	m.Name = salutation(m.Name)
	html, text := r.mailHTML[m.Kind], r.mailText[m.Kind]
	if html == nil || text == nil {
		return fmt.Errorf("no mail %q", m.Kind)
	}
	c := r.locale(m.Locale)
	v := voice{c, r.cfg.Brand.Name}
	subject, err := v.plain(string(m.Kind) + "_mail.subject")
	if err != nil {
		return err
	}
	facts := mailView{
		Lang:       c.lang,
		Dir:        c.dir(),
		Subject:    subject,
		Brand:      r.cfg.Brand,
		Name:       m.Name,
		Email:      m.To,
		Link:       m.Link,
		RevokeLink: m.RevokeLink,

		SupportURL:  r.cfg.SupportURL,
		SupportText: withoutMailto(r.cfg.SupportURL),

		// To the nearest minute: a mail that is sent at once says what the page
		// before it said, and none promises more than half a minute too much.
		Left:  lasting(left.Round(time.Minute)),
		Light: r.light,
		Dark:  r.dark,
	}
	var htmlPart, textPart strings.Builder
	if err := html.Execute(&htmlPart, struct {
		mailView
		htmlVoice
	}{facts, htmlVoice{v}}); err != nil {
		return err
	}
	if err := text.Execute(&textPart, struct {
		mailView
		textVoice
	}{facts, textVoice{v}}); err != nil {
		return err
	}
	m.Subject, m.HTML, m.Text = subject, htmlPart.String(), textPart.String()
	return nil
}

// withoutMailto is a link as a person reads it.
func withoutMailto(link string) string {
	address, ok := strings.CutPrefix(link, "mailto:")
	if !ok {
		return link
	}
	address, _, _ = strings.Cut(address, "?")
	return address
}

const (
	maxName       = 50 // code points
	maxNameDigits = 4  // fewer than a telephone number has
)

// linkLike is what mail programs may turn into a link.
var linkLike = regexp.MustCompile(`[/\\@:<>]|(?i:www\.)|[\pL\pN][.。．｡]\pL{2}`)

// salutation returns a user's name for the greeting, or "" if it might be no
// name: whoever signs up with somebody else's address can make the name say
// anything to its owner, in a mail from a sender that is trusted.
func salutation(name string) string {
	name = cleanLine(name)
	digits := 0
	for _, r := range name {
		if unicode.IsDigit(r) {
			digits++
		}
	}
	if utf8.RuneCountInString(name) > maxName || digits > maxNameDigits || linkLike.MatchString(name) {
		return ""
	}
	return name
}
