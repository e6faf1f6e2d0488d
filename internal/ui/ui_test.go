package ui_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopassreset/reset/internal/ui"
	"golang.org/x/net/html"
)

// options returns checked options.
func options() ui.Options {
	return ui.Options{
		BaseURL:     "https://app.example.com/account",
		SignInURL:   "https://app.example.com/login",
		SupportURL:  "mailto:help@example.com?subject=Account",
		Brand:       ui.Brand{Name: "Fernweh"},
		TTL:         time.Hour,
		MinPassword: 8,
		MaxPassword: 256,
	}
}

func newRenderer(t testing.TB, o ui.Options) *ui.Renderer {
	t.Helper()
	r, err := ui.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

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
		{"confirm", "differs", "", "The two passwords do not match. Enter both again."},
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

// The policy must allow the style and the script that are in the page, which a
// browser hashes, and nothing else.
func TestPolicy(t *testing.T) {
	for _, color := range []string{"", "#ffcc00"} {
		o := options()
		o.Brand.Color = color
		r := newRenderer(t, o)
		page := renderPage(t, r, "en", ui.Page{Name: "choose"})
		want := "default-src 'none'; style-src " + hashOf(t, page, "style") + "; script-src " + hashOf(t, page, "script") +
			"; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
		if got := r.ContentSecurityPolicy(); got != want {
			t.Errorf("colour %q: policy\n%s\nwant\n%s", color, got, want)
		}
		if !strings.Contains(page, "--button:") || strings.Contains(page, "style=") {
			t.Errorf("colour %q: not in the style sheet", color)
		}
	}
}

func hashOf(t *testing.T, page, tag string) string {
	t.Helper()
	m := regexp.MustCompile(`(?s)<`+tag+`>(.*)</`+tag+`>`).FindAllStringSubmatch(page, -1)
	if len(m) != 1 || strings.TrimSpace(m[0][1]) == "" {
		t.Fatalf("not one %s with contents", tag)
	}
	sum := sha256.Sum256([]byte(m[0][1]))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
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

type writes struct{ n int }

func (w *writes) Write(b []byte) (int, error) { w.n++; return len(b), nil }

func TestDurations(t *testing.T) {
	r := newRenderer(t, options())
	for _, tt := range []struct {
		d             time.Duration
		lasting, wait string
	}{
		{0, "1 minute.", "1 second."},
		{1500 * time.Millisecond, "1 minute.", "2 seconds."},
		{59*time.Minute + 59*time.Second, "59 minutes.", "60 minutes."},
		{time.Hour, "60 minutes.", "60 minutes."},
		{2 * time.Minute, "2 minutes.", "120 seconds."},
		{2*time.Minute + 1, "2 minutes.", "3 minutes."},
		{2*time.Hour - 1, "119 minutes.", "120 minutes."},
		{2 * time.Hour, "2 hours.", "120 minutes."},
		{2*time.Hour + 1, "2 hours.", "3 hours."},
		{24*time.Hour - 1, "23 hours.", "24 hours."},
		{24 * time.Hour, "24 hours.", "24 hours."},
	} {
		lasting, err1 := r.Translate("en", "sent.expires", "n", ui.RoundDown(tt.d))
		wait, err2 := r.Translate("en", "limited.wait", "n", ui.RoundUp(tt.d))
		if err1 != nil || err2 != nil || !strings.HasSuffix(lasting, " "+tt.lasting) || !strings.HasSuffix(wait, " "+tt.wait) {
			t.Errorf("%v: %q and %q (%v, %v), want %q rounded down and %q rounded up", tt.d, lasting, wait, err1, err2, tt.lasting, tt.wait)
		}
	}
}

const (
	resetLink  = "https://app.example.com/account/reset?activation=yQ3c0vTrS-4k9ZpX_1aBwGhE"
	revokeLink = "https://app.example.com/account/revoke?activation=yQ3c0vTrS-4k9ZpX_1aBwGhE"
	forgotLink = "https://app.example.com/account/forgot"
)

func resetMail(locale string) ui.Mail {
	return ui.Mail{
		Kind: "reset", To: "mia.schmidt@example.com", Name: "Mia Schmidt", Locale: locale,
		Link: resetLink, RevokeLink: revokeLink, ExpiresIn: 59*time.Minute + 58*time.Second,
	}
}

func notificationMail(locale string) ui.Mail {
	return ui.Mail{Kind: "notification", To: "mia.schmidt@example.com", Name: "Mia Schmidt", Locale: locale, Link: forgotLink}
}

// A rendered is a mail with its rendered parts.
type rendered struct {
	ui.Mail
	Subject, Text, HTML string
}

func renderMail(t *testing.T, r *ui.Renderer, m ui.Mail) rendered {
	t.Helper()
	subject, text, html, err := r.Mail(m)
	if err != nil {
		t.Fatalf("mail %s in %s: %v", m.Kind, m.Locale, err)
	}
	return rendered{m, subject, text, html}
}

func TestMailText(t *testing.T) {
	r := newRenderer(t, options())
	for _, tt := range []struct {
		mail          ui.Mail
		subject, text string
	}{
		{resetMail("en"), "Reset your Fernweh password", `Hello Mia Schmidt,

We received a request to reset the password of your account mia.schmidt@example.com at Fernweh.

Open this address to choose a new password:
` + resetLink + `

The link is valid for 60 minutes and works only once.
Do not pass it on: whoever has it can change your password.

If it was not you, you can ignore this email: your password stays as it is. You can also cancel the link:
` + revokeLink + `

Fernweh
`},
		{notificationMail("en"), "Your Fernweh password was changed", `Hello Mia Schmidt,

The password of your account mia.schmidt@example.com at Fernweh has been changed. You have been signed out on all devices.

If it was you, there is nothing else you need to do.

If it was not you, choose a new password right away:
` + forgotLink + `

If you need help, contact us:
help@example.com

Fernweh
`},
	} {
		m := renderMail(t, r, tt.mail)
		if m.Subject != tt.subject {
			t.Errorf("subject %q, want %q", m.Subject, tt.subject)
		}
		if m.Text != tt.text {
			t.Errorf("text\n%s\nwant\n%s", m.Text, tt.text)
		}
	}
}

// A mail sent at once states the duration that the page has stated, and never
// more than 30 s too much.
func TestMailExpiresIn(t *testing.T) {
	r := newRenderer(t, options())
	for _, tt := range []struct {
		left time.Duration
		want string
	}{
		{time.Hour, "60 minutes"},
		{time.Hour - time.Millisecond, "60 minutes"},
		{59*time.Minute + 30*time.Second, "60 minutes"},
		{59*time.Minute + 30*time.Second - 1, "59 minutes"},
		{5 * time.Minute, "5 minutes"},
		{90 * time.Second, "2 minutes"},
		{time.Second, "1 minute"},
		{24*time.Hour - 5*time.Second, "24 hours"},
		{24*time.Hour - 31*time.Second, "23 hours"},
		{2*time.Hour - 10*time.Second, "2 hours"},
		{2*time.Hour - 40*time.Second, "119 minutes"},
	} {
		reset := resetMail("en")
		reset.ExpiresIn = tt.left
		m := renderMail(t, r, reset)
		for _, part := range []string{m.Text, m.HTML} {
			if !strings.Contains(part, "valid for "+tt.want+" and") {
				t.Errorf("with %v left a part does not say %s:\n%s", tt.left, tt.want, part)
			}
		}
	}
}

// Both parts hold the same facts and the same links, and nothing else.
func TestMailParts(t *testing.T) {
	r := newRenderer(t, options())
	for _, lang := range r.Languages() {
		for _, tt := range []struct {
			mail  ui.Mail
			links []string
		}{
			{resetMail(lang), []string{resetLink, revokeLink}},
			{notificationMail(lang), []string{forgotLink, "mailto:help@example.com?subject=Account"}},
		} {
			t.Run(lang+"/"+tt.mail.Kind, func(t *testing.T) {
				m := renderMail(t, r, tt.mail)
				checkBalanced(t, m.HTML)
				d := parseDoc(t, m.HTML)
				checkMailHTML(t, d, m, lang)

				var links []string
				for _, a := range d.all("a") {
					if !slices.Contains(links, a["href"]) {
						links = append(links, a["href"])
					}
				}
				if !slices.Equal(links, tt.links) {
					t.Errorf("HTML links to %q, want %q", links, tt.links)
				}
				for _, link := range tt.links {
					link = strings.TrimSuffix(strings.TrimPrefix(link, "mailto:"), "?subject=Account")
					if !strings.Contains(m.Text, "\n"+link+"\n") {
						t.Errorf("the text has no line %q:\n%s", link, m.Text)
					}
				}
				checkSameWords(t, r, lang, m.Text, d.text)
			})
		}
	}
}

func checkMailHTML(t *testing.T, d doc, m rendered, lang string) {
	t.Helper()
	if root := d.one(t, "html"); root["lang"] != lang || (root["dir"] == "rtl") != (lang == "ar" || lang == "he") {
		t.Errorf("html has lang %q and dir %q", root["lang"], root["dir"])
	}
	for _, tag := range []string{"img", "link", "script", "iframe", "form", "table", "svg"} {
		if len(d.all(tag)) > 0 {
			t.Errorf("the mail has <%s>", tag)
		}
	}
	if regexp.MustCompile(`(?i)url\(|@import|\ssrc=|background=|ZgotmplZ`).MatchString(m.HTML) {
		t.Error("the mail loads something, or something was not filled in")
	}
	if len(m.HTML) > 10_000 || len(m.Text) > 10_000 {
		t.Errorf("HTML has %d bytes, text %d", len(m.HTML), len(m.Text))
	}
	for _, a := range d.all("a") {
		if a["class"] != "button" && !strings.Contains(a["style"], "color: #") {
			t.Errorf("the link to %s has no colour", a["href"])
		}
	}
	if m.Subject == "" || strings.ContainsAny(m.Subject, "\r\n{}") {
		t.Errorf("subject %q", m.Subject)
	}
	if strings.ContainsAny(m.Text+d.text, "{}") {
		t.Errorf("something was not filled in:\n%s", m.Text)
	}
	if m.Kind == "notification" && strings.Contains(m.HTML+m.Text, "activation") {
		t.Error("a notification carries a credential")
	}
	if !strings.Contains(d.text, m.Link) && m.Kind == "reset" {
		t.Error("the link cannot be read")
	}
}

// checkSameWords looks for every line of the text in the HTML, but for links
// and for what introduces one in place of a button.
func checkSameWords(t *testing.T, r *ui.Renderer, lang, text, htmlText string) {
	t.Helper()
	open, err := r.Translate(lang, "reset_mail.open")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(strings.NewReplacer("\u2068", "", "\u2069", "").Replace(text)) {
		line = strings.TrimSpace(line)
		if line == open || strings.Contains(line, "://") || line == "help@example.com" {
			continue
		}
		if !strings.Contains(htmlText, line) {
			t.Errorf("the HTML does not say %q:\n%s", line, htmlText)
		}
	}
}

// Whatever colour a brand has, a mail can be read (WCAG 2.2 AA) on white and on
// what dark mail programs have instead.
func TestMailColors(t *testing.T) {
	const color = `(#[0-9a-f]{6})`
	onLight := regexp.MustCompile(`<a href="[^"]*/revoke[^"]*" style="color: ` + color)
	button := regexp.MustCompile(`background-color: ` + color + `; color: ` + color + `; font`)
	onDark := regexp.MustCompile(`a \{ color: ` + color + ` !important`)
	darkButton := regexp.MustCompile(`background-color: ` + color + ` !important; color: ` + color + ` !important`)
	for _, brand := range []string{"", "#000000", "#0a1a40", "#0f766e", "#ff0000", "#ffcc00", "#808080", "#f4f4f4", "#ffffff"} {
		o := options()
		o.Brand.Color = brand
		m := renderMail(t, newRenderer(t, o), resetMail("en"))
		find := func(what *regexp.Regexp) []string {
			found := what.FindStringSubmatch(m.HTML)
			if found == nil {
				t.Fatalf("brand %s: no %s in\n%s", brand, what, m.HTML)
			}
			return found[1:]
		}
		light, dark := find(button), find(darkButton)
		for _, tt := range []struct {
			what, a, b string
			least      float64
		}{
			{"link on white", find(onLight)[0], "#ffffff", 4.5},
			{"link on dark", find(onDark)[0], "#2b2b2b", 4.5},
			{"link on black", find(onDark)[0], "#000000", 4.5},
			{"label of the button", light[0], light[1], 4.5},
			{"label of the button on dark", dark[0], dark[1], 4.5},
		} {
			if got := contrastOf(t, tt.a, tt.b); got < tt.least {
				t.Errorf("brand %s: %s has contrast %.2f, want %.1f", brand, tt.what, got, tt.least)
			}
		}
	}
}

func TestMailEscapes(t *testing.T) {
	o := options()
	o.Brand.Name = `A&B <i>"{{.}}"</i>`
	r := newRenderer(t, o)
	reset := resetMail("en")
	reset.Name, reset.To = `Ann {{.Link}} {brand} & "Bo"`, `o'{{x}}&{brand}@example.com`
	m := renderMail(t, r, reset)
	checkBalanced(t, m.HTML)
	d := parseDoc(t, m.HTML)
	for _, want := range []string{m.Name, m.To, o.Brand.Name} {
		if !strings.Contains(m.Text, want) || !strings.Contains(d.text, want) {
			t.Errorf("%q is not as it was given:\n%s\n%s", want, m.Text, d.text)
		}
	}
	if n := len(d.all("i")); n > 0 {
		t.Error("the brand's name became markup")
	}
}

func TestMailFailures(t *testing.T) {
	subject, text, html, err := newRenderer(t, options()).Mail(ui.Mail{Kind: "nosuch"})
	if err == nil || subject+text+html != "" {
		t.Errorf("unknown kind: got %q, %q, %q, error %v", subject, text, html, err)
	}
}

func TestMailWithout(t *testing.T) {
	o := options()
	o.SupportURL = ""
	r := newRenderer(t, o)
	if m := renderMail(t, r, notificationMail("en")); strings.Contains(m.Text, "help") {
		t.Errorf("no SupportURL, but the text has\n%s", m.Text)
	}
	nameless := resetMail("en")
	nameless.Name = ""
	if m := renderMail(t, r, nameless); !strings.HasPrefix(m.Text, "Hello,\n") {
		t.Errorf("no name, but the text is\n%s", m.Text)
	}
}

func TestMailIsolates(t *testing.T) {
	m := renderMail(t, newRenderer(t, options()), resetMail("ar"))
	if !strings.Contains(m.Text, "\u2068mia.schmidt@example.com\u2069") || !strings.Contains(m.Text, "\u2068Mia Schmidt\u2069") {
		t.Errorf("values are not isolated:\n%s", m.Text)
	}
}

func TestSalutation(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"", ""},
		{"Ann Lee", "Ann Lee"},
		{"  Ann \t\r\n Lee ", "Ann Lee"},
		{"J. R. R. Tolkien", "J. R. R. Tolkien"},
		{"J.R. Ewing", "J.R. Ewing"},
		{"Renée O’Neil-Smith Jr.", "Renée O’Neil-Smith Jr."},
		{"محمد عبد الله", "محمد عبد الله"},
		{"می\u200cخواهم", "می\u200cخواهم"}, // a joiner that spells a word
		{"山田 太郎", "山田 太郎"},
		{"Louis 14", "Louis 14"},
		{"Ann\x00\x1b Lee\u200b", "Ann Lee"},
		{"\u202eeeL nnA\u202c", "eeL nnA"},
		{"\xffAnn", "Ann"},
		{"https://evil.example", ""},
		{"evil.example", ""},
		{"Click evil。example now", ""},
		{"WWW.evil", ""},
		{"a/b", ""},
		{`\\evil\share`, ""},
		{"mail me@evil", ""},
		{"call:me", ""},
		{"<b>Ann</b>", ""},
		{"Ann, call 0800 123456", ""},
		{strings.Repeat("é", 50), strings.Repeat("é", 50)},
		{strings.Repeat("é", 51), ""},
	} {
		if got := ui.Salutation(tt.name); got != tt.want {
			t.Errorf("Salutation(%q) = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzSalutation(f *testing.F) {
	for _, s := range []string{"Ann Lee", "evil.example", "\u202e\xff\x00", "a\nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := ui.Salutation(name)
		if strings.ContainsAny(got, "\r\n\t\x00/@:<>\u202a\u202b\u202d\u202e\u2066\u2067\u2068") || len(got) > 4*50 {
			t.Errorf("Salutation(%q) = %q", name, got)
		}
		if got != "" && ui.Salutation(got) != got {
			t.Errorf("Salutation(%q) = %q, which is not its own", name, got)
		}
	})
}

// doc is what the tests ask of HTML: the attributes of its elements in order,
// with the name of the element under "", and its text without style and script.
type doc struct {
	elements []map[string]string
	text     string
}

func parseDoc(t *testing.T, s string) (d doc) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for n := range root.Descendants() {
		switch {
		case n.Type == html.ElementNode:
			e := map[string]string{"": n.Data}
			for _, a := range n.Attr {
				e[a.Key] = a.Val
			}
			d.elements = append(d.elements, e)
			if n.Data == "p" || n.Data == "br" || n.Data == "h1" {
				text.WriteString("\n")
			}
		case n.Type == html.TextNode && n.Parent.Data != "style" && n.Parent.Data != "script":
			text.WriteString(n.Data)
		}
	}
	d.text = text.String()
	return d
}

func (d doc) all(tag string) (found []map[string]string) {
	for _, e := range d.elements {
		if e[""] == tag {
			found = append(found, e)
		}
	}
	return found
}

func (d doc) one(t *testing.T, tag string) map[string]string {
	t.Helper()
	all := d.all(tag)
	if len(all) != 1 {
		t.Fatalf("%d elements <%s>, want 1", len(all), tag)
	}
	return all[0]
}

var voidElements = []string{"br", "hr", "img", "input", "link", "meta"}

// checkBalanced finds tags that a browser would have to repair.
func checkBalanced(t *testing.T, s string) {
	t.Helper()
	z := html.NewTokenizer(strings.NewReader(s))
	var open []string
	for {
		kind := z.Next()
		token := z.Token()
		switch {
		case kind == html.ErrorToken:
			if z.Err() != io.EOF || len(open) > 0 {
				t.Errorf("not well-formed: %v, open: %q", z.Err(), open)
			}
			return
		case kind == html.StartTagToken && !slices.Contains(voidElements, token.Data):
			open = append(open, token.Data)
		case kind == html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != token.Data {
				t.Errorf("</%s> where %q are open", token.Data, open)
				return
			}
			open = open[:len(open)-1]
		}
	}
}

// builtin is the folder of the module, for tests that compare with its files.
func builtin() fs.FS { return os.DirFS(".") }
