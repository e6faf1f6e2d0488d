package ui

import (
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	texttemplate "text/template"

	"golang.org/x/text/language"
)

//go:embed templates/*.html templates/*.txt templates/*.css templates/*.js locales/*.json
var builtinFiles embed.FS

// A theme is a set of parsed templates, assets and locales.
type theme struct {
	pages    map[string]*htmltemplate.Template // by page name
	mailHTML map[string]*htmltemplate.Template // by kind
	mailText map[string]*texttemplate.Template // by kind
	css, js  string
	locales  []*locale // English first: it serves readers of all other languages
	matcher  language.Matcher
}

// builtinTheme is parsed once and shared by all Renderers without overrides.
var builtinTheme = sync.OnceValues(func() (*theme, error) { return parseTheme(files{builtinFiles}) })

// themeFor returns the built-in theme, with the files of override in place of
// its own.
func themeFor(override fs.FS) (*theme, error) {
	if override == nil {
		return builtinTheme()
	}
	if err := checkNames(override); err != nil {
		return nil, err
	}
	return parseTheme(files{override, builtinFiles})
}

// checkNames refuses files that would not be used. It ignores README.md and dot
// files, and accepts locales of further languages.
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
			return fmt.Errorf("%s: no built-in file of this name to override", name)
		}
		return nil
	})
}

func parseTheme(f files) (*theme, error) {
	t := &theme{
		pages:    make(map[string]*htmltemplate.Template),
		mailHTML: make(map[string]*htmltemplate.Template),
		mailText: make(map[string]*texttemplate.Template),
	}
	var err error
	for _, name := range pageNames {
		if t.pages[name], err = f.html("layout.html", name+".html"); err != nil {
			return nil, err
		}
	}
	for _, kind := range mailKinds {
		name := "mail_" + kind
		if t.mailHTML[kind], err = f.html("mail_layout.html", name+".html"); err != nil {
			return nil, err
		}
		if t.mailText[kind], err = f.text(name + ".txt"); err != nil {
			return nil, err
		}
	}
	if t.css, err = f.inline("style.css", "</style"); err != nil {
		return nil, err
	}
	if t.js, err = f.inline("script.js", "</script", "<!--"); err != nil {
		return nil, err
	}
	if t.locales, err = f.locales(); err != nil {
		return nil, err
	}
	tags := make([]language.Tag, len(t.locales))
	for i, l := range t.locales {
		tags[i] = l.tag
	}
	t.matcher = language.NewMatcher(tags)
	return t, nil
}

// files are layers of file systems. The first layer that has a file provides it.
type files []fs.FS

func (f files) read(name string) (string, error) {
	for _, layer := range f {
		b, err := fs.ReadFile(layer, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		// Browsers normalise line endings before they hash an inline element,
		// and mail sets its own.
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
	// Errors name the file it is parsed under.
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

// inline reads the content of an inline element. None of ends, which would end
// that element, may occur in it.
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

// locales reads all locales, English first, and checks each against the built-in
// English one.
func (f files) locales() ([]*locale, error) {
	const english = "locales/en.json"
	model, err := files{builtinFiles}.locale(english)
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
	all := make([]*locale, len(names))
	for i, name := range names {
		if all[i], err = f.locale(name); err != nil {
			return nil, err
		}
		if err := all[i].check(model); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return all, nil
}

func (f files) locale(name string) (*locale, error) {
	s, err := f.read(name)
	if err != nil {
		return nil, err
	}
	l, err := parseLocale(strings.TrimSuffix(path.Base(name), ".json"), s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}
