package reset

import (
	"io"
	"net/url"
	"time"
)

// What the tests of the face need of the inside.

type (
	Page     = page
	Renderer = renderer
	Span     = span
)

var (
	Salutation  = salutation
	SamplePages = samplePages
	CleanLine   = cleanLine
	Lasting     = lasting
	Waiting     = waiting
)

func NewRenderer(c Config) (*Renderer, error) { return newRenderer(&c) }

func (r *renderer) Page(w io.Writer, lang string, p Page) error { return r.page(w, lang, p) }

func (r *renderer) Mail(m *Message, left time.Duration) error { return r.mail(m, left) }

func (r *renderer) CSP() string { return r.policy }

func (r *renderer) Language(acceptLanguage string) string { return r.language(acceptLanguage) }

// Languages returns the tags of all catalogues.
func (r *renderer) Languages() (tags []string) {
	for _, c := range r.languages {
		tags = append(tags, c.lang)
	}
	return tags
}

// Say returns a message as plain text.
func (r *renderer) Say(lang, key string, args ...any) (string, error) {
	return voice{r.catalogue(lang), r.cfg.Brand.Name}.plain(key, args...)
}

func CheckBrand(b Brand, base *url.URL) error { return b.check(base) }

// A Scheme is what becomes of a brand's colour, as CSS writes colours.
type Scheme struct{ Button, OnButton, Link string }

func Schemes(brand string) (light, dark Scheme, err error) {
	c, err := parseColor(brand)
	if err != nil {
		return Scheme{}, Scheme{}, err
	}
	l, d := schemes(c)
	return l.exported(), d.exported(), nil
}

func (s scheme) exported() Scheme {
	return Scheme{s.Button.String(), s.OnButton.String(), s.Link.String()}
}

// Contrast returns the contrast ratio of two colours.
func Contrast(a, b string) (float64, error) {
	ca, err := parseColor(a)
	if err != nil {
		return 0, err
	}
	cb, err := parseColor(b)
	return contrast(ca, cb), err
}
