package ui

import (
	"bytes"
	"fmt"
	htmltemplate "html/template"
	"io"
	"time"
)

// A Page is one HTML page, named after its template.
type Page struct {
	Name       string        // one of pageNames
	Email      string        // forgot, sent: as typed; choose, revoke: the account's
	Check      string        // choose, revoke: binds the form to the activation in the cookie
	Field      string        // the field at fault: email, password, confirm
	Problem    string        // what is wrong with it: missing, invalid, differs, too_short, too_long, common, address, busy or custom
	Message    string        // the text of a custom problem
	RetryAfter time.Duration // limited
}

// pageNames are the templates that Page can name.
var pageNames = []string{"forgot", "sent", "choose", "done", "invalid", "reopen", "limited", "failed", "revoke", "revoked", "notfound"}

// A pageView is the data of a page's template.
type pageView struct {
	pageTranslator
	Lang, Dir, Title               string
	Brand                          Brand
	Initial                        string
	BaseURL, SignInURL, SupportURL string
	Email, Check, Field, Problem   string
	MinPassword, MaxPassword       int
	CountsBytes                    bool
	ExpiresIn, RetryAfter          duration
	Style                          htmltemplate.CSS
	Script                         htmltemplate.JS
}

// Page writes a whole page in one call of Write, or nothing. lang is a result
// of Language; any other value means English.
func (r *Renderer) Page(w io.Writer, lang string, p Page) error {
	t, ok := r.pages[p.Name]
	if !ok {
		return fmt.Errorf("no page %q", p.Name)
	}
	v, err := r.pageView(r.exactLocale(lang), p)
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

func (r *Renderer) pageView(l *locale, p Page) (v pageView, err error) {
	o := &r.options
	v = pageView{
		pageTranslator: pageTranslator{translator{l, o.Brand.Name}},
		Lang:           l.lang,
		Dir:            l.dir(),
		Brand:          o.Brand,
		Initial:        o.Brand.initial(),

		BaseURL:    o.BaseURL,
		SignInURL:  o.SignInURL,
		SupportURL: o.SupportURL,

		Email:       p.Email,
		Check:       p.Check,
		Field:       p.Field,
		MinPassword: o.MinPassword,
		MaxPassword: o.MaxPassword,
		CountsBytes: o.CountsBytes,
		ExpiresIn:   roundDown(o.TTL),
		RetryAfter:  roundUp(p.RetryAfter),

		Style:  htmltemplate.CSS(r.css),
		Script: htmltemplate.JS(r.js),
	}
	if v.Title, err = v.plain(p.Name + ".title"); err != nil || p.Problem == "" {
		return v, err
	}
	if v.Problem, err = r.problem(v.translator, p); err != nil {
		return v, err
	}
	v.Title, err = v.plain("title.problem", "title", v.Title)
	return v, err
}

// problem returns the sentence that explains what is wrong with a field.
func (r *Renderer) problem(t translator, p Page) (string, error) {
	if p.Message != "" {
		return p.Message, nil
	}
	key := "problem." + p.Field + "." + p.Problem
	switch {
	case p.Problem == "too_short":
		return t.plain(key, countName, r.options.MinPassword)
	case p.Problem == "too_long":
		return t.plain(key, countName, r.options.MaxPassword)
	case t.has(key):
		return t.plain(key)
	}
	return t.plain("problem.password.refused")
}
