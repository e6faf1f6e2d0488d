package ui

import (
	"fmt"
	"strings"
	"time"
)

// A Mail holds the facts of one mail.
type Mail struct {
	Kind       string        // one of mailKinds
	To         string        // the address of the account
	Name       string        // for the salutation, as Salutation returns it; may be ""
	Locale     string        // BCP 47 or POSIX; may be ""
	Link       string        // reset: where to choose a new password; notification: where to request a link
	RevokeLink string        // reset: cancels the request; notification: ""
	Secret     string        // the part of both links that no other mail has, of ASCII letters, digits, - and _; may be ""
	ExpiresIn  time.Duration // reset: how long the link is still valid
}

// mailKinds are the kinds of mail; their templates are named mail_KIND.
var mailKinds = []string{"reset", "notification"}

// A mailView is the data of a mail's templates.
type mailView struct {
	Lang, Dir, Subject      string
	Brand                   Brand
	Name, Email             string
	Link, RevokeLink        string
	SupportURL, SupportText string
	ExpiresIn               duration
	Light, Dark             scheme
}

// execute renders a mail by executing its templates.
func (r *Renderer) execute(m Mail) (subject, text, html string, err error) {
	htmlTemplate, textTemplate := r.mailHTML[m.Kind], r.mailText[m.Kind]
	if htmlTemplate == nil || textTemplate == nil {
		return "", "", "", fmt.Errorf("no mail %q", m.Kind)
	}
	l := r.userLocale(m.Locale)
	t := translator{l, r.options.Brand.Name}
	if subject, err = t.plain(m.Kind + "_mail.subject"); err != nil {
		return "", "", "", err
	}
	view := mailView{
		Lang:       l.lang,
		Dir:        l.dir(),
		Subject:    subject,
		Brand:      r.options.Brand,
		Name:       m.Name,
		Email:      m.To,
		Link:       m.Link,
		RevokeLink: m.RevokeLink,

		SupportURL:  r.options.SupportURL,
		SupportText: withoutMailto(r.options.SupportURL),

		ExpiresIn: expiresIn(m),
		Light:     r.light,
		Dark:      r.dark,
	}
	var textPart, htmlPart strings.Builder
	if err := textTemplate.Execute(&textPart, struct {
		mailView
		textTranslator
	}{view, textTranslator{t}}); err != nil {
		return "", "", "", err
	}
	if err := htmlTemplate.Execute(&htmlPart, struct {
		mailView
		htmlTranslator
	}{view, htmlTranslator{t}}); err != nil {
		return "", "", "", err
	}
	return subject, textPart.String(), htmlPart.String(), nil
}

// expiresIn is rounded to a minute: a mail sent at once states the same duration
// as the page before it, and no mail promises more than 30 s too much.
func expiresIn(m Mail) duration { return roundDown(m.ExpiresIn.Round(time.Minute)) }

// withoutMailto returns a link as readers expect to see it.
func withoutMailto(link string) string {
	address, ok := strings.CutPrefix(link, "mailto:")
	if !ok {
		return link
	}
	address, _, _ = strings.Cut(address, "?")
	return address
}
