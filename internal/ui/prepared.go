package ui

import (
	"html/template"
	"strings"
	"sync"
)

// What stands in a prepared mail for what differs from mail to mail. Nothing
// escapes letters and digits.
const (
	secretMark = "Zq5vSecretK8wZqPlaceX0ru"
	nameMark   = "Zq5vNameK8wZq"
	emailMark  = "Zq5vEmailK8wZq"
)

var marks = [...]string{secretMark, nameMark, emailMark}

// maxPrepared bounds how many mails are kept prepared, of some 10 KB each.
const maxPrepared = 200

// A preparedMail has been rendered from built-in templates for all mails that
// have its facts.
type preparedMail struct {
	subject    string
	text, html pieces
}

// preparedMails holds prepared mails. Mails of different languages, and of
// links that expire after different times, differ in their facts.
type preparedMails struct {
	mu     sync.Mutex
	byFact map[facts]*preparedMail
}

// facts decide the text of a mail, except for the values of its marks.
type facts struct {
	kind, link, revokeLink string
	locale                 *locale
	named                  bool
	expiresIn              duration
}

func (p *preparedMails) get(f facts) *preparedMail {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byFact[f]
}

func (p *preparedMails) put(f facts, m *preparedMail) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byFact == nil || len(p.byFact) >= maxPrepared {
		p.byFact = make(map[facts]*preparedMail)
	}
	p.byFact[f] = m
}

// Mail renders the subject and both parts of a mail. Executing the templates
// costs more than all else that is done to send a mail, so the built-in ones are
// executed once for all mails that differ only in the secret, the name and the
// address. A host's templates may do anything with these.
func (r *Renderer) Mail(m Mail) (subject, text, html string, err error) {
	rtl := strings.ContainsFunc(m.Name, isRightToLeft) || strings.ContainsFunc(m.To, isRightToLeft)
	if r.options.Templates != nil || rtl {
		return r.execute(m)
	}
	marked := m
	marked.To = emailMark
	if m.Secret != "" {
		marked.Link = strings.ReplaceAll(m.Link, m.Secret, secretMark)
		marked.RevokeLink = strings.ReplaceAll(m.RevokeLink, m.Secret, secretMark)
	}
	if m.Name != "" {
		marked.Name = nameMark
	}
	f := facts{m.Kind, marked.Link, marked.RevokeLink, r.userLocale(m.Locale), m.Name != "", expiresIn(m)}
	p := r.prepared.get(f)
	if p == nil {
		subject, text, html, err := r.execute(marked)
		if err != nil {
			return "", "", "", err
		}
		p = &preparedMail{subject, cut(text), cut(html)}
		r.prepared.put(f, p)
	}
	return p.subject, p.text.fill(m.Secret, m.Name, m.To),
		p.html.fill(m.Secret, template.HTMLEscapeString(m.Name), template.HTMLEscapeString(m.To)), nil
}

// pieces are a text that was cut at its marks: each but the last ends where the
// mark with its index stood.
type pieces []piece

type piece struct {
	literal string
	mark    int // index in marks
}

func cut(s string) (all pieces) {
	for {
		at, mark := len(s), -1
		for i, m := range marks {
			if j := strings.Index(s, m); j >= 0 && j < at {
				at, mark = j, i
			}
		}
		all = append(all, piece{s[:at], mark})
		if mark < 0 {
			return all
		}
		s = s[at+len(marks[mark]):]
	}
}

// fill puts values in the places of marks.
func (p pieces) fill(values ...string) string {
	n := 0
	for _, piece := range p {
		n += len(piece.literal)
		if piece.mark >= 0 {
			n += len(values[piece.mark])
		}
	}
	var b strings.Builder
	b.Grow(n)
	for _, piece := range p {
		b.WriteString(piece.literal)
		if piece.mark >= 0 {
			b.WriteString(values[piece.mark])
		}
	}
	return b.String()
}
