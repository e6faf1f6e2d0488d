package ui

// Internals that package ui_test needs.

var (
	SamplePages = samplePages
	RoundDown   = roundDown
	RoundUp     = roundUp
)

// Languages returns the tags of all locales.
func (r *Renderer) Languages() (tags []string) {
	for _, l := range r.locales {
		tags = append(tags, l.lang)
	}
	return tags
}

// Translate returns a message as plain text.
func (r *Renderer) Translate(lang, key string, args ...any) (string, error) {
	return translator{r.exactLocale(lang), r.options.Brand.Name}.plain(key, args...)
}

// A Scheme is a scheme with its colours in the notation of CSS.
type Scheme struct{ Button, OnButton, Link string }

// Schemes returns the schemes of pages for a brand's colour.
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

// Execute renders a mail without preparing it.
func (r *Renderer) Execute(m Mail) (subject, text, html string, err error) { return r.execute(m) }
