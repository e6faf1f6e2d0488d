package ui_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/gopassreset/reset/internal/ui"
)

func renderPage(t *testing.T, r *ui.Renderer, lang string, p ui.Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Page(&b, lang, p); err != nil {
		t.Fatalf("page %s in %s: %v", p.Name, lang, err)
	}
	return b.String()
}

func TestPages(t *testing.T) {
	r := newRenderer(t, options())
	for _, lang := range r.Languages() {
		t.Run(lang, func(t *testing.T) { checkPages(t, r, lang) })
	}
	withLogo, bare := options(), options()
	withLogo.Brand.Logo = "/logo.svg"
	bare.SignInURL, bare.SupportURL = "", ""
	t.Run("logo", func(t *testing.T) { checkPages(t, newRenderer(t, withLogo), "en") })
	t.Run("bare", func(t *testing.T) { checkPages(t, newRenderer(t, bare), "en") })
}

func checkPages(t *testing.T, r *ui.Renderer, lang string) {
	for _, p := range ui.SamplePages() {
		t.Run(strings.Join([]string{p.Name, p.Field, p.Problem}, " "), func(t *testing.T) {
			checkPage(t, lang, p, renderPage(t, r, lang, p))
		})
	}
}

// checkPage checks what is true of every page.
func checkPage(t *testing.T, lang string, p ui.Page, page string) {
	t.Helper()
	checkBalanced(t, page)
	d := parseDoc(t, page)

	root := d.one(t, "html")
	dir := "ltr"
	if lang == "ar" || lang == "he" {
		dir = "rtl"
	}
	if root["lang"] != lang || root["dir"] != dir {
		t.Errorf("html has lang %q and dir %q, want %q and %q", root["lang"], root["dir"], lang, dir)
	}
	for _, tag := range []string{"h1", "main", "header", "title", "style", "script"} {
		d.one(t, tag)
	}
	if strings.ContainsAny(d.text, "{}") || strings.Contains(page, "ZgotmplZ") {
		t.Errorf("something was not filled in:\n%s", d.text)
	}

	ids := make(map[string]bool)
	for _, e := range d.elements {
		if id := e["id"]; id != "" {
			if ids[id] {
				t.Errorf("id %q twice", id)
			}
			ids[id] = true
		}
		if _, ok := e["style"]; ok {
			t.Errorf("style attribute on %v", e)
		}
	}
	labels := make(map[string]bool)
	for _, e := range d.all("label") {
		labels[e["for"]] = true
	}
	atFault := []string{p.Field}
	if p.Field == "confirm" { // both are empty then
		atFault = []string{"password", "confirm"}
	}
	focus := 0
	for _, e := range d.elements {
		for _, id := range strings.Fields(e["aria-describedby"]) {
			if !ids[id] {
				t.Errorf("%v is described by %q, which does not exist", e, id)
			}
		}
		if e[""] == "input" && e["type"] != "hidden" && !labels[e["id"]] {
			t.Errorf("no label for %v", e)
		}
		if _, ok := e["autofocus"]; ok {
			focus++
			if p.Field != "" && e["id"] != atFault[0] {
				t.Errorf("focus is on %q, not on the first field at fault", e["id"])
			}
		}
		invalid := e["aria-invalid"] == "true"
		if e[""] == "input" && invalid != (p.Field != "" && slices.Contains(atFault, e["id"])) {
			t.Errorf("aria-invalid=%t on %v", invalid, e)
		}
		if invalid && !strings.Contains(e["aria-describedby"], p.Field+"-error") {
			t.Errorf("the error is not tied to %v", e)
		}
		for _, attr := range []string{"href", "src", "action"} {
			v, ok := e[attr]
			if ok && !strings.HasPrefix(v, "https://app.example.com/") && v != "/logo.svg" && v != "mailto:help@example.com?subject=Account" {
				t.Errorf("%s leads to %q", attr, v)
			}
		}
	}
	if forms := len(d.all("form")); focus > 1 || forms > 1 {
		t.Errorf("%d forms, %d fields with focus", forms, focus)
	}
}

func TestForms(t *testing.T) {
	r := newRenderer(t, options())
	for _, tt := range []struct {
		page   ui.Page
		action string
		fields []string // name=value or id=value of inputs in order
	}{
		{ui.Page{Name: "forgot"}, "/forgot", []string{"email="}},
		{ui.Page{Name: "forgot", Email: "a@", Field: "email", Problem: "invalid"}, "/forgot", []string{"email=a@"}},
		{ui.Page{Name: "choose", Email: "a@b.example", Check: "c-_"}, "/reset", []string{"check=c-_", "#username=a@b.example", "password=", "confirm=", "#show="}},
		{ui.Page{Name: "revoke", Email: "a@b.example", Check: "c-_"}, "/revoke", []string{"check=c-_"}},
	} {
		d := parseDoc(t, renderPage(t, r, "en", tt.page))
		form := d.one(t, "form")
		if form["method"] != "post" || form["action"] != "https://app.example.com/account"+tt.action {
			t.Errorf("%s: form %v", tt.page.Name, form)
		}
		var got []string
		for _, e := range d.all("input") {
			name := e["name"]
			if name == "" {
				name = "#" + e["id"]
			}
			got = append(got, name+"="+e["value"])
		}
		if !slices.Equal(got, tt.fields) {
			t.Errorf("%s: fields %q, want %q", tt.page.Name, got, tt.fields)
		}
	}

	d := parseDoc(t, renderPage(t, r, "en", ui.Page{Name: "choose", Email: "a@b.example"}))
	for id, want := range map[string]string{"username": "username", "password": "new-password", "confirm": "new-password"} {
		for _, e := range d.all("input") {
			if e["id"] == id && e["autocomplete"] != want {
				t.Errorf("autocomplete of %s is %q, want %q", id, e["autocomplete"], want)
			}
		}
	}
	if !strings.Contains(d.text, "At least 8 characters, at most 256.") {
		t.Error("the rules are not stated before one fails them")
	}
}

// Where bytes are counted, the form says so before and after a password is too
// long, in every language. Nothing cuts passwords off: with maxlength a browser
// would, without a word.
func TestFormCountsBytes(t *testing.T) {
	o := options()
	plain := newRenderer(t, o)
	o.MaxPassword, o.CountsBytes = 72, true
	bytes := newRenderer(t, o)
	for lang := range pluralForms {
		says := readLocale(t, lang)["choose.bytes"][""]
		for _, problem := range []string{"", "too_long"} {
			p := ui.Page{Name: "choose", Problem: problem}
			if problem != "" {
				p.Field = "password"
			}
			page := renderPage(t, bytes, lang, p)
			if text := parseDoc(t, page).text; !strings.Contains(text, says) || !strings.Contains(text, "72") || strings.Contains(page, "maxlength") {
				t.Errorf("%s %s: want %q, 72 and no maxlength in\n%s", lang, problem, says, text)
			}
			if strings.Contains(parseDoc(t, renderPage(t, plain, lang, p)).text, says) {
				t.Errorf("%s %s: it says %q where characters are counted", lang, problem, says)
			}
		}
	}
}

func TestPageProblems(t *testing.T) {
	r := newRenderer(t, options())
	for _, tt := range []struct{ field, problem, message, want string }{
		{"email", "missing", "", "Enter your email address."},
		{"email", "invalid", "", "Enter an email address such as name@example.com."},
		{"password", "too_short", "", "This password is too short. Use at least 8 characters."},
		{"password", "too_long", "", "This password is too long. Use at most 256 characters."},
		{"password", "common", "", "This password is easy to guess. Choose another one."},
		{"password", "breached", "", "This password is not accepted. Choose another one."},
		{"password", "custom", "Found in <3> breaches.", "Found in <3> breaches."},
		{"confirm", "differs", "", "The two passwords don’t match. Enter both again."},
	} {
		name := "choose"
		if tt.field == "email" {
			name = "forgot"
		}
		d := parseDoc(t, renderPage(t, r, "en", ui.Page{Name: name, Field: tt.field, Problem: tt.problem, Message: tt.message}))
		if !strings.Contains(d.text, tt.want) || !strings.Contains(d.text, "Error: ") {
			t.Errorf("%s %s: want %q and a marked title in\n%s", tt.field, tt.problem, tt.want, d.text)
		}
	}
}

func TestPageEscapes(t *testing.T) {
	o := options()
	o.Brand.Name = `A&B <b>"{{.}}"</b>`
	r := newRenderer(t, o)
	const hostile = `"><script>alert(1)</script>{brand}{{.Check}}`
	for _, p := range ui.SamplePages() {
		p.Email, p.Check = hostile, hostile
		if p.Problem == "custom" {
			p.Message = hostile
		}
		page := renderPage(t, r, "en", p)
		checkBalanced(t, page)
		d := parseDoc(t, page)
		if n := len(d.all("script")); n != 1 {
			t.Errorf("%s: %d scripts", p.Name, n)
		}
		if !strings.Contains(d.text, o.Brand.Name) {
			t.Errorf("%s: the brand is not as it was given: %s", p.Name, d.text)
		}
		for _, e := range d.all("input") {
			if v := e["value"]; v != "" && v != hostile {
				t.Errorf("%s: value %q", p.Name, v)
			}
		}
		if p.Name == "sent" && !strings.Contains(d.text, "account for "+hostile) {
			t.Errorf("sent: the address is not as it was typed: %s", d.text)
		}
	}
}

func TestPageIsWholeOrNothing(t *testing.T) {
	r := newRenderer(t, options())
	var b bytes.Buffer
	if err := r.Page(&b, "en", ui.Page{Name: "nosuch"}); err == nil || b.Len() > 0 {
		t.Errorf("unknown page: error %v, %d bytes written", err, b.Len())
	}
	w := &writes{}
	if err := r.Page(w, "en", ui.Page{Name: "choose"}); err != nil || w.n != 1 {
		t.Errorf("error %v, %d writes, want 1: a page that fails halfway would be half written", err, w.n)
	}
	if got := renderPage(t, r, "xx", ui.Page{Name: "done"}); !strings.Contains(got, `lang="en"`) {
		t.Error("a language that is not there is not English")
	}
}

// writes counts calls of Write.
type writes struct{ n int }

func (w *writes) Write(b []byte) (int, error) { w.n++; return len(b), nil }
