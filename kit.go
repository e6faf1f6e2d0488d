package reset

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	texttemplate "text/template"
	"time"

	"golang.org/x/text/language"
)

//go:embed templates/*.html templates/*.txt templates/*.css templates/*.js locales/*.json
var builtinFiles embed.FS

var (
	pageNames = []string{"forgot", "sent", "choose", "done", "invalid", "reopen", "limited", "failed", "revoke", "revoked", "notfound"}
	mailKinds = []MailKind{MailReset, MailNotification}
)

// A kit is the parsed templates and messages.
type kit struct {
	pages     map[string]*htmltemplate.Template
	mailHTML  map[MailKind]*htmltemplate.Template
	mailText  map[MailKind]*texttemplate.Template
	css, js   string
	languages []*catalogue // the first, English, is for everybody else
	matcher   language.Matcher
}

// builtinKit is parsed once: it depends on nothing.
var builtinKit = sync.OnceValues(func() (*kit, error) { return parseKit(files{builtinFiles}) })

// kitFor returns the built-in kit with what override has instead.
func kitFor(override fs.FS) (*kit, error) {
	if override == nil {
		return builtinKit()
	}
	if err := checkNames(override); err != nil {
		return nil, err
	}
	return parseKit(files{override, builtinFiles})
}

// checkNames refuses files that would not be used, but for those that come
// along with a copied folder. Locales of further languages are welcome.
func checkNames(override fs.FS) error {
	return fs.WalkDir(override, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		folder, file := path.Split(name)
		if strings.HasPrefix(file, ".") || file == "README.md" || folder == "locales/" && path.Ext(file) == ".json" {
			return nil
		}
		if _, err := fs.Stat(builtinFiles, name); err != nil {
			return fmt.Errorf("%s: there is nothing of this name to override", name)
		}
		return nil
	})
}

func parseKit(f files) (*kit, error) {
	k := &kit{
		pages:    make(map[string]*htmltemplate.Template),
		mailHTML: make(map[MailKind]*htmltemplate.Template),
		mailText: make(map[MailKind]*texttemplate.Template),
	}
	var err error
	for _, name := range pageNames {
		if k.pages[name], err = f.html("layout.html", name+".html"); err != nil {
			return nil, err
		}
	}
	for _, kind := range mailKinds {
		name := "mail_" + string(kind)
		if k.mailHTML[kind], err = f.html("mail_layout.html", name+".html"); err != nil {
			return nil, err
		}
		if k.mailText[kind], err = f.text(name + ".txt"); err != nil {
			return nil, err
		}
	}
	if k.css, err = f.inline("style.css", "</style"); err != nil {
		return nil, err
	}
	if k.js, err = f.inline("script.js", "</script", "<!--"); err != nil {
		return nil, err
	}
	if k.languages, err = f.catalogues(); err != nil {
		return nil, err
	}
	tags := make([]language.Tag, len(k.languages))
	for i, c := range k.languages {
		tags[i] = c.tag
	}
	k.matcher = language.NewMatcher(tags)
	return k, nil
}

// files are layers of which the first that has a file provides it.
type files []fs.FS

func (f files) read(name string) (string, error) {
	for _, layer := range f {
		b, err := fs.ReadFile(layer, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		// Browsers hash an inline element after this, and mail is to have one
		// kind of line ends before it gets its own.
		return strings.ReplaceAll(string(b), "\r\n", "\n"), err
	}
	return "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

// html parses a layout with a template as its "content".
func (f files) html(layout, content string) (*htmltemplate.Template, error) {
	outer, err := f.read("templates/" + layout)
	if err != nil {
		return nil, err
	}
	inner, err := f.read("templates/" + content)
	if err != nil {
		return nil, err
	}
	t, err := htmltemplate.New(layout).Parse(outer)
	if err != nil {
		return nil, err
	}
	// Parsed under the name of its file, for the errors.
	named, err := t.New(content).Parse(inner)
	if err != nil {
		return nil, err
	}
	_, err = t.AddParseTree("content", named.Tree)
	return t, err
}

func (f files) text(name string) (*texttemplate.Template, error) {
	s, err := f.read("templates/" + name)
	if err != nil {
		return nil, err
	}
	return texttemplate.New(name).Parse(s)
}

// inline reads what goes into an element that none of ends may end.
func (f files) inline(name string, ends ...string) (string, error) {
	s, err := f.read("templates/" + name)
	if err != nil {
		return "", err
	}
	for _, end := range ends {
		if strings.Contains(strings.ToLower(s), end) {
			return "", fmt.Errorf("%s: contains %q", name, end)
		}
	}
	return s, nil
}

// catalogues reads all locales. The built-in English one is what each of them
// must translate.
func (f files) catalogues() ([]*catalogue, error) {
	const english = "locales/en.json"
	model, err := files{builtinFiles}.catalogue(english)
	if err != nil {
		return nil, err
	}
	names := []string{english}
	for _, layer := range f {
		more, err := fs.Glob(layer, "locales/*.json")
		if err != nil {
			return nil, err
		}
		for _, name := range more {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	all := make([]*catalogue, len(names))
	for i, name := range names {
		if all[i], err = f.catalogue(name); err != nil {
			return nil, err
		}
		if err := all[i].check(model); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return all, nil
}

func (f files) catalogue(name string) (*catalogue, error) {
	s, err := f.read(name)
	if err != nil {
		return nil, err
	}
	c, err := parseCatalogue(strings.TrimSuffix(path.Base(name), ".json"), s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// maxAcceptLanguage bounds, in bytes, what is read of a header.
const maxAcceptLanguage = 512

// language returns the best language for an Accept-Language header.
func (k *kit) language(acceptLanguage string) string {
	if len(acceptLanguage) > maxAcceptLanguage {
		acceptLanguage = acceptLanguage[:maxAcceptLanguage]
		acceptLanguage = acceptLanguage[:max(0, strings.LastIndexByte(acceptLanguage, ','))]
	}
	tags, _, err := language.ParseAcceptLanguage(acceptLanguage)
	if err != nil {
		return k.languages[0].lang
	}
	return k.match(tags...).lang
}

// locale returns the catalogue for a user's locale, also for one as POSIX
// writes it: de_AT.UTF-8.
func (k *kit) locale(name string) *catalogue {
	if i := strings.IndexAny(name, ".@"); i >= 0 {
		name = name[:i]
	}
	return k.match(language.Make(name))
}

func (k *kit) match(tags ...language.Tag) *catalogue {
	_, i, _ := k.matcher.Match(tags...)
	return k.languages[i]
}

// catalogue returns the catalogue of exactly a language, or the English one.
func (k *kit) catalogue(lang string) *catalogue {
	for _, c := range k.languages {
		if c.lang == lang {
			return c
		}
	}
	return k.languages[0]
}

// tryOut renders everything once, in each language, so that a mistake in a
// template shows before a visitor finds it.
func (r *renderer) tryOut() error {
	for _, c := range r.languages {
		for _, p := range samplePages() {
			var b bytes.Buffer
			if err := r.page(&b, c.lang, p); err != nil {
				return err
			}
			if err := r.checkInline(b.String()); err != nil {
				return fmt.Errorf("%s.html: %w", p.Name, err)
			}
		}
		for _, m := range sampleMails(c.lang) {
			if err := r.mail(&m, time.Hour); err != nil {
				return err
			}
		}
	}
	return nil
}

func samplePages() (pages []page) {
	const email, check = "name@example.com", "AbCdEf-_0123"
	for _, name := range pageNames {
		pages = append(pages, page{Name: name, Email: email, Check: check, Wait: time.Minute})
	}
	for _, problem := range []string{"missing", "invalid"} {
		pages = append(pages, page{Name: "forgot", Email: email, Field: "email", Problem: problem})
	}
	for _, problem := range []string{"missing", "too_short", "too_long", "common", "address", "invalid", "custom"} {
		pages = append(pages, page{Name: "choose", Email: email, Check: check, Field: "password", Problem: problem})
	}
	return append(pages, page{Name: "choose", Email: email, Check: check, Field: "confirm", Problem: "differs"})
}

func sampleMails(lang string) (mails []Message) {
	const link = "https://example.com/reset?activation=AbCdEfGhIjKlMnOpQrStUvWx"
	for _, kind := range mailKinds {
		for _, name := range []string{"", "Ann Lee"} {
			mails = append(mails, Message{Kind: kind, To: "name@example.com", Name: name, Locale: lang, Link: link, RevokeLink: link})
		}
	}
	return mails
}

var (
	inlineElement = regexp.MustCompile(`(?is)<(style|script)\b[^>]*>(.*?)</`)
	notAllowed    = regexp.MustCompile(`(?i)<[^<>]*\s(?:style|on[a-z]+)\s*=|<link\b[^>]*stylesheet`)
)

// checkInline finds what browsers would pass over in silence, since the
// Content-Security-Policy does not allow it.
func (r *renderer) checkInline(html string) error {
	for _, m := range inlineElement.FindAllStringSubmatch(html, -1) {
		if m[2] != r.css && m[2] != r.js {
			return fmt.Errorf("a <%s> other than the layout's: use style.css or script.js", m[1])
		}
	}
	if m := notAllowed.FindString(html); m != "" {
		return fmt.Errorf("%q: use style.css or script.js", m)
	}
	return nil
}
