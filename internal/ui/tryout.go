package ui

import (
	"bytes"
	"fmt"
	"regexp"
	"time"
)

// tryOut renders every page and mail once in each language and returns the first
// error.
func (r *Renderer) tryOut() error {
	for _, l := range r.locales {
		for _, p := range samplePages() {
			var b bytes.Buffer
			if err := r.Page(&b, l.lang, p); err != nil {
				return err
			}
			if err := r.checkInline(b.String()); err != nil {
				return fmt.Errorf("%s.html: %w", p.Name, err)
			}
		}
		for _, m := range sampleMails(l.lang) {
			if _, _, _, err := r.Mail(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// samplePages returns every page, and every problem that a page can show.
func samplePages() (pages []Page) {
	const email, check = "name@example.com", "AbCdEf-_0123"
	for _, name := range pageNames {
		pages = append(pages, Page{Name: name, Email: email, Check: check, RetryAfter: time.Minute})
	}
	for _, problem := range []string{"missing", "invalid"} {
		pages = append(pages, Page{Name: "forgot", Email: email, Field: "email", Problem: problem})
	}
	for _, problem := range []string{"missing", "too_short", "too_long", "common", "address", "invalid", "busy", "custom"} {
		pages = append(pages, Page{Name: "choose", Email: email, Check: check, Field: "password", Problem: problem})
	}
	return append(pages, Page{Name: "choose", Email: email, Check: check, Field: "confirm", Problem: "differs"})
}

// sampleMails returns every mail, with and without a name.
func sampleMails(lang string) (mails []Mail) {
	const link = "https://example.com/reset?activation=AbCdEfGhIjKlMnOpQrStUvWx"
	for _, kind := range mailKinds {
		for _, name := range []string{"", "Ann Lee"} {
			mails = append(mails, Mail{
				Kind: kind, To: "name@example.com", Name: name, Locale: lang,
				Link: link, RevokeLink: link, ExpiresIn: time.Hour,
			})
		}
	}
	return mails
}

var (
	inlineElement = regexp.MustCompile(`(?is)<(style|script)\b[^>]*>(.*?)</`)
	notAllowed    = regexp.MustCompile(`(?i)<[^<>]*\s(?:style|on[a-z]+)\s*=|<link\b[^>]*stylesheet`)
)

// checkInline reports elements and attributes that browsers would silently
// ignore because the Content-Security-Policy does not allow them.
func (r *Renderer) checkInline(html string) error {
	for _, m := range inlineElement.FindAllStringSubmatch(html, -1) {
		if m[2] != r.css && m[2] != r.js {
			return fmt.Errorf("has a <%s> other than the layout's: use style.css or script.js", m[1])
		}
	}
	if m := notAllowed.FindString(html); m != "" {
		return fmt.Errorf("%q: use style.css or script.js", m)
	}
	return nil
}
