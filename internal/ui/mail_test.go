package ui_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopassreset/reset/internal/ui"
)

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

We received a request to reset the password for your Fernweh account mia.schmidt@example.com.

Open this link to choose a new password:
` + resetLink + `

The link is valid for 60 minutes and works only once.
Links from earlier emails work until they expire.
Don’t share it: anyone who has the link can change your password.

If you didn’t request this, you can ignore this email. Your password won’t change. You can also cancel the link:
` + revokeLink + `

Fernweh
`},
		{notificationMail("en"), "Your Fernweh password was changed", `Hello Mia Schmidt,

The password for your Fernweh account mia.schmidt@example.com has been changed. You have been signed out on all devices.

If this was you, you don’t need to do anything else.

If this wasn’t you, choose a new password right away:
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
		if a["dir"] != "" { // Outlook drops it
			t.Errorf("the link to %s has dir %q", a["href"], a["dir"])
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

// checkSameWords looks for every line of the text in the HTML, except links and
// the line before one that is a button in the HTML.
func checkSameWords(t *testing.T, r *ui.Renderer, lang, text, htmlText string) {
	t.Helper()
	open, err := r.Translate(lang, "reset_mail.open")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
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

// Mail programs drop <bdi> and dir, so characters isolate what may run the other
// way. Links stay free of them: readers copy links.
func TestMailIsolates(t *testing.T) {
	r := newRenderer(t, options())
	for _, tt := range []struct{ locale, name, text, html string }{
		{"ar", "Mia", "\u2068Mia\u2069،", "<bdi>\u2068Mia\u2069</bdi>،"},
		{"he", "Mia", "\u2068mia.schmidt@example.com\u2069", "<bdi>\u2068mia.schmidt@example.com\u2069</bdi>"},
		{"ar", "Mia", "\n" + resetLink + "\n", "&#x2068;<a href=\"" + resetLink + "\""},
		{"ar", "Mia", "\n" + resetLink + "\n", ">" + resetLink + "</a>&#x2069;"},
		{"en", "Mia", "Hello Mia,", "Hello <bdi>Mia</bdi>,"},
		{"en", "محمد", "Hello \u2068محمد\u2069,", "Hello <bdi>\u2068محمد\u2069</bdi>,"},
		{"en", "דוד", "Hello \u2068דוד\u2069,", "Hello <bdi>\u2068דוד\u2069</bdi>,"},
		{"en", "Mia", "\n" + resetLink + "\n", "<br><a href=\"" + resetLink + "\""},
	} {
		facts := resetMail(tt.locale)
		facts.Name = tt.name
		m := renderMail(t, r, facts)
		if !strings.Contains(m.Text, tt.text) {
			t.Errorf("%s, %s: the text has no %q:\n%s", tt.locale, tt.name, tt.text, m.Text)
		}
		if !strings.Contains(m.HTML, tt.html) {
			t.Errorf("%s, %s: the HTML has no %q:\n%s", tt.locale, tt.name, tt.html, m.HTML)
		}
	}
	m := renderMail(t, r, notificationMail("ar"))
	if want := ">help@example.com</a>&#x2069;"; !strings.Contains(m.HTML, want) {
		t.Errorf("the HTML has no %q:\n%s", want, m.HTML)
	}
}

// Links that are shown as such break anywhere; links with a text do not.
func TestMailLongLinks(t *testing.T) {
	r := newRenderer(t, options())
	for _, tt := range []struct {
		mail ui.Mail
		want int
	}{{resetMail("en"), 1}, {notificationMail("en"), 2}} {
		m := renderMail(t, r, tt.mail)
		long := regexp.MustCompile(`<a href="[^"]*" style="[^"]*word-break: break-all[^"]*">(.*?)</a>`).FindAllStringSubmatch(m.HTML, -1)
		if len(long) != tt.want {
			t.Errorf("%s mail: %d links break anywhere, want %d:\n%s", m.Kind, len(long), tt.want, m.HTML)
		}
		for _, l := range long {
			if strings.Contains(l[1], " ") {
				t.Errorf("%s mail: %q breaks inside of words", m.Kind, l[1])
			}
		}
	}
}
