package ui_test

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gopassreset/reset/internal/ui"
)

// overridden returns options that override files.
func overridden(files map[string]string) ui.Options {
	own := make(fstest.MapFS)
	for name, content := range files {
		own[name] = &fstest.MapFile{Data: []byte(content)}
	}
	o := options()
	o.Templates = own
	return o
}

func readBuiltin(t *testing.T, name string) string {
	t.Helper()
	b, err := fs.ReadFile(builtin(), name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// edited returns a built-in file with one change.
func edited(t *testing.T, name, old, new string) string {
	t.Helper()
	content := readBuiltin(t, name)
	if !strings.Contains(content, old) {
		t.Fatalf("%s does not contain %q", name, old)
	}
	return strings.Replace(content, old, new, 1)
}

func TestOverride(t *testing.T) {
	o := overridden(map[string]string{
		"templates/README.md": "copied along",
		".DS_Store":           "so is this",
		"templates/done.html": `<h1>{{.T "done.title"}}</h1><p>Welcome to {{.Brand.Name}}!</p>`,
		"templates/style.css": "main { color: red }\r\n",
		"templates/script.js": "",
		"locales/de.json":     edited(t, "locales/de.json", "Passwort vergessen?", "Kennwort vergessen?"),
		"locales/cs.json":     edited(t, "locales/ru.json", "Забыли пароль?", "Zapomněli jste heslo?"),
	})
	// Czech has the form other where Russian has many.
	own := o.Templates.(fstest.MapFS)
	own["locales/cs.json"].Data = []byte(strings.ReplaceAll(string(own["locales/cs.json"].Data), `"many"`, `"other"`))
	r := newRenderer(t, o)

	if got := renderPage(t, r, "en", ui.Page{Name: "done"}); !strings.Contains(got, "<p>Welcome to Fernweh!</p>") || !strings.Contains(got, "color: red }\n<") {
		t.Errorf("the page is not the host's:\n%s", got)
	}
	if got := renderPage(t, r, r.Language("de"), ui.Page{Name: "forgot"}); !strings.Contains(got, "Kennwort vergessen?") {
		t.Error("the locale is not the host's")
	}
	if got := renderPage(t, r, r.Language("cs-CZ"), ui.Page{Name: "forgot"}); !strings.Contains(got, "Zapomněli jste heslo?") {
		t.Error("the new language is not there")
	}
	page := renderPage(t, r, "en", ui.Page{Name: "choose"})
	if want := "style-src " + hashOf(t, page, "style"); !strings.Contains(r.ContentSecurityPolicy(), want) {
		t.Errorf("policy %s, want %s: browsers see line ends as LF", r.ContentSecurityPolicy(), want)
	}
	if builtin := renderPage(t, newRenderer(t, options()), "en", ui.Page{Name: "done"}); strings.Contains(builtin, "Welcome") {
		t.Error("another service got the page")
	}
}

func TestOverrideErrors(t *testing.T) {
	for _, tt := range []struct{ name, content, want string }{
		{"forgot.html", "x", "forgot.html: no built-in file of this name"},
		{"templates/forget.html", "x", "templates/forget.html: no built-in file of this name"},
		{"templates/sub/forgot.html", "x", "templates/sub/forgot.html: no built-in file of this name"},
		{"locales/de.yaml", "x", "locales/de.yaml: no built-in file of this name"},
		{"templates/forgot.html", "{{if}}", "forgot.html:1"},
		{"templates/forgot.html", "{{.NoSuchField}}", "NoSuchField"},
		{"templates/forgot.html", `{{.T "nosuch"}}`, `no message "nosuch"`},
		{"templates/forgot.html", `{{.T "sent.body"}}`, "no value for {email}"},
		{"templates/forgot.html", `{{if eq .Problem "x"}}`, "forgot.html:1"},
		{"templates/forgot.html", `{{with .Problem}}{{.T "x"}}{{end}}`, "forgot.html:1"},
		{"templates/forgot.html", `<a href="{{if .Email}}"{{end}}>`, "forgot.html"},
		{"templates/forgot.html", `<style>p { color: red }</style>`, "forgot.html: has a <style> other than the layout's"},
		{"templates/forgot.html", `<script src="/x.js"></script>`, "forgot.html: has a <script> other than the layout's"},
		{"templates/forgot.html", `<p style="color: red">`, "use style.css"},
		{"templates/forgot.html", `<p onclick="x()">`, "use style.css or script.js"},
		{"templates/layout.html", `<p>{{template "nosuch" .}}`, "nosuch"},
		{"templates/mail_reset.html", `{{.Check}}`, "Check"},
		{"templates/mail_reset.txt", `{{if .Name}}{{.Check}}{{end}}`, "Check"},
		{"templates/mail_notification.txt", `{{end}}`, "mail_notification.txt:1"},
		{"templates/style.css", `</STYLE>`, `style.css: contains "</style"`},
		{"templates/script.js", `"<!--"`, `script.js: contains "<!--"`},
		{"locales/german.json", "{}", "not a canonical language tag"},
		{"locales/pt-br.json", "{}", "not a canonical language tag"},
		{"locales/de.json", "", "locales/de.json: "},
		{"locales/de.json", "{}", `locales/de.json: missing message`},
		{"locales/de.json", "{} {}", "locales/de.json: text after the object"},
		{"locales/en.json", edited(t, "locales/en.json", `"forgot.title"`, `"forgot.titel"`), `locales/en.json: unknown message "forgot.titel"`},
		{"locales/de.json", edited(t, "locales/de.json", `"Passwort vergessen?"`, `" "`), "empty message"},
		{"locales/de.json", edited(t, "locales/de.json", `"Passwort vergessen?"`, `null`), "forgot.title"},
		{"locales/de.json", edited(t, "locales/de.json", `"Passwort vergessen?"`, `3`), `message "forgot.title": neither a string nor`},
		{"locales/de.json", edited(t, "locales/de.json", `"Passwort vergessen?"`, `{"other": "x"}`), `"forgot.title": has plural forms: true, want false`},
		{"locales/de.json", edited(t, "locales/de.json", `für {email}`, `für {name}`), `"sent.body": has placeholders ["name"], want ["email"]`},
		{"locales/de.json", edited(t, "locales/de.json", `für {email}`, `für {email`), "braces without a placeholder"},
		{"locales/de.json", edited(t, "locales/de.json", `für {email}`, `für }{email}`), "braces without a placeholder"},
		{"locales/de.json", edited(t, "locales/de.json", `für {email}`, `für {}{email}`), "braces without a placeholder"},
		{"locales/de.json", edited(t, "locales/de.json", `"one": "Der Link ist {n} Minute`, `"few": "Der Link ist {n} Minute`), `plural form one is missing`},
		{"locales/de.json", edited(t, "locales/de.json", `"one": "Der`, `"once": "Der`), `"once" is not a plural form`},
		{"locales/de.json", edited(t, "locales/de.json", `{n} Minuten`, `60 Minuten`), `plural form other: has placeholders [], want ["n"]`},
		{"locales/fr.json", edited(t, "locales/fr.json", `{n} minute.`, `une minute.`), `plural form one: has placeholders [], want ["n"]`},
	} {
		_, err := ui.New(overridden(map[string]string{tt.name: tt.content}))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s with %.40q: error %v, want one with %q", tt.name, tt.content, err, tt.want)
		}
	}
	for _, tt := range []struct{ name, old, new string }{
		{"locales/de.json", `{n} Minute gültig.`, `eine Minute gültig.`}, // only 1 takes the form
		{"locales/de.json", `"other": "Der Link ist {n} Minuten`, `"many": "{n}", "other": "Der Link ist {n} Minuten`},
		{"locales/he.json", `"two": "הקישור תקף לשתי דקות."`, `"many": "{n}", "two": "הקישור תקף לשתי דקות."`}, // before CLDR 42
		{"locales/es.json", `"one": "El`, `"many": "{n}", "one": "El`},                                         // since CLDR 38
	} {
		if _, err := ui.New(overridden(map[string]string{tt.name: edited(t, tt.name, tt.old, tt.new)})); err != nil {
			t.Errorf("%s with %q: %v", tt.name, tt.new, err)
		}
	}
}
