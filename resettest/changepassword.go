package resettest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// ChangePassword sets a new password as a person with a browser does: it opens
// the mailed link, fills in the form of Service.Pages and submits it. A host's
// own templates may add to the form.
//
// It makes requests through client, http.DefaultClient if that is nil, but with
// cookies of its own. The error says at which step the host or the pages
// refused, with the text of the page for a refused password.
func ChangePassword(ctx context.Context, client *http.Client, link, password string) error {
	b, err := newBrowser(client)
	if err != nil {
		return fmt.Errorf("resettest: change password: %w", err)
	}
	form, err := b.openForm(ctx, link, "password", "confirm")
	if err != nil {
		return fmt.Errorf("resettest: change password: %w", err)
	}
	form.fields.Set("password", password)
	form.fields.Set("confirm", password)
	p, err := b.submit(ctx, form)
	switch {
	case err != nil:
	case p.status != http.StatusOK || !strings.HasSuffix(p.url.Path, "/done"):
		err = fmt.Errorf("the form led to %v", p)
	}
	if err != nil {
		return fmt.Errorf("resettest: change password: %w", err)
	}
	return nil
}

// A browser makes requests with cookies and follows redirects.
type browser struct{ client http.Client }

func newBrowser(client *http.Client) (*browser, error) {
	if client == nil {
		client = http.DefaultClient
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	b := &browser{*client}
	b.client.Jar, b.client.CheckRedirect = jar, nil
	return b, nil
}

// A page is what a request led to.
type page struct {
	method string
	url    *url.URL
	status int
	header http.Header
	body   string
}

// String names the page and what it says is wrong. Its URL has no query, which
// could be a secret.
func (p *page) String() string {
	s := fmt.Sprintf("%s %s://%s%s: %d", p.method, p.url.Scheme, p.url.Host, p.url.Path, p.status)
	if text := problemOf(p.body); text != "" {
		s += ": " + text
	}
	return s
}

func (b *browser) do(r *http.Request) (*page, error) {
	response, err := b.client.Do(r)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	return &page{response.Request.Method, response.Request.URL, response.StatusCode, response.Header, string(body)}, nil
}

// withoutURL takes the URL, which may hold a secret, out of an error.
func withoutURL(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		return fmt.Errorf("%s: %w", failed.Op, failed.Err)
	}
	return err
}

// once is do without following redirects.
func (b *browser) once(r *http.Request) (*page, error) {
	still := *b
	still.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return still.do(r)
}

func (b *browser) get(ctx context.Context, address string) (*page, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, withoutURL(err)
	}
	return b.do(r)
}

// openForm opens a link that leads to a form with the given fields.
func (b *browser) openForm(ctx context.Context, link string, fields ...string) (*form, error) {
	p, err := b.get(ctx, link)
	if err != nil {
		return nil, err
	}
	if p.status != http.StatusOK {
		return nil, fmt.Errorf("the link led to %v", p)
	}
	for _, f := range formsOf(p) {
		if f.has(fields) {
			return f, nil
		}
	}
	return nil, fmt.Errorf("the link led to %v, which has no form with the fields %s", p, strings.Join(fields, ", "))
}

// submit posts a form as a browser does from its own page.
func (b *browser) submit(ctx context.Context, f *form) (*page, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, f.action.String(), strings.NewReader(f.fields.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", f.page.Scheme+"://"+f.page.Host)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.do(r)
}

// A form is one on a page, with its values.
type form struct {
	page   *url.URL
	action *url.URL
	fields url.Values
}

func (f *form) has(names []string) bool {
	for _, name := range names {
		if _, ok := f.fields[name]; !ok {
			return false
		}
	}
	return true
}

// formsOf returns the forms of a page that are posted.
func formsOf(p *page) (forms []*form) {
	var open *form
	for z := html.NewTokenizer(strings.NewReader(p.body)); z.Next() != html.ErrorToken; {
		token := z.Token()
		switch {
		case token.Type != html.StartTagToken && token.Type != html.SelfClosingTagToken:
			if token.Type == html.EndTagToken && token.DataAtom == atom.Form {
				open = nil
			}
		case token.DataAtom == atom.Form:
			action, err := p.url.Parse(attribute(token, "action"))
			if err != nil || !strings.EqualFold(attribute(token, "method"), http.MethodPost) {
				continue
			}
			open = &form{p.url, action, make(url.Values)}
			forms = append(forms, open)
		case token.DataAtom == atom.Input && open != nil:
			if name := attribute(token, "name"); name != "" {
				open.fields.Add(name, attribute(token, "value"))
			}
		}
	}
	return forms
}

func attribute(token html.Token, name string) string {
	for _, a := range token.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// problemOf returns what a page says is wrong: the error beside a field, or else
// the heading.
func problemOf(body string) string {
	var heading string
	for z := html.NewTokenizer(strings.NewReader(body)); z.Next() != html.ErrorToken; {
		token := z.Token()
		switch {
		case token.Type != html.StartTagToken:
		case token.DataAtom == atom.P && attribute(token, "class") == "error":
			return textUntil(z, atom.P)
		case token.DataAtom == atom.H1:
			heading = textUntil(z, atom.H1)
		}
	}
	return heading
}

// textUntil returns the text up to an end tag.
func textUntil(z *html.Tokenizer, end atom.Atom) string {
	var text strings.Builder
	for z.Next() != html.ErrorToken {
		token := z.Token()
		if token.Type == html.EndTagToken && token.DataAtom == end {
			break
		}
		if token.Type == html.TextToken {
			text.WriteString(token.Data)
		}
	}
	return strings.Join(strings.Fields(text.String()), " ")
}
