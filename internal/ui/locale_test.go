package ui_test

import (
	"encoding/json"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// The plural forms that whole numbers take in each language, by Unicode's
// table (CLDR 32, which golang.org/x/text has).
var pluralForms = map[string][]string{
	"ar":      {"few", "many", "one", "other", "two", "zero"},
	"de":      {"one", "other"},
	"en":      {"one", "other"},
	"es":      {"one", "other"},
	"fr":      {"one", "other"},
	"he":      {"many", "one", "other", "two"},
	"hi":      {"one", "other"},
	"it":      {"one", "other"},
	"ja":      {"other"},
	"ko":      {"other"},
	"nl":      {"one", "other"},
	"pl":      {"few", "many", "one"},
	"pt-BR":   {"one", "other"},
	"ru":      {"few", "many", "one"},
	"tr":      {"one", "other"},
	"uk":      {"few", "many", "one"},
	"zh-Hans": {"other"},
	"zh-Hant": {"other"},
}

// readLocale returns the texts of each message, those of plural forms by form,
// a single one under "".
func readLocale(t *testing.T, lang string) map[string]map[string]string {
	t.Helper()
	b, err := fs.ReadFile(builtin(), "locales/"+lang+".json")
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]any
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	messages := make(map[string]map[string]string)
	for key, v := range raw {
		messages[key] = make(map[string]string)
		switch v := v.(type) {
		case string:
			messages[key][""] = v
		case map[string]any:
			for form, s := range v {
				messages[key][form] = s.(string)
			}
		}
	}
	return messages
}

func TestLocales(t *testing.T) {
	files, err := fs.Glob(builtin(), "locales/*.json")
	if err != nil || len(files) != len(pluralForms) {
		t.Fatalf("%d locales, want %d (%v)", len(files), len(pluralForms), err)
	}
	english := readLocale(t, "en")
	for _, file := range files {
		lang := strings.TrimSuffix(path.Base(file), ".json")
		t.Run(lang, func(t *testing.T) {
			checkLocale(t, lang, readLocale(t, lang), english)
		})
	}
}

var placeholder = regexp.MustCompile(`\{[^}]*\}`)

func checkLocale(t *testing.T, lang string, messages, english map[string]map[string]string) {
	got, want := slices.Sorted(maps.Keys(messages)), slices.Sorted(maps.Keys(english))
	if !slices.Equal(got, want) {
		t.Errorf("messages\n%q\nwant\n%q", got, want)
	}
	same := 0
	for key, texts := range messages {
		forms := slices.Sorted(maps.Keys(texts))
		wantForms := []string{""}
		if _, single := english[key][""]; !single {
			wantForms = pluralForms[lang]
		}
		if !slices.Equal(forms, wantForms) {
			t.Errorf("%s: plural forms %q, want %q", key, forms, wantForms)
		}
		for form, text := range texts {
			wantText := english[key]["other"] + english[key][""]
			if text == wantText {
				same++
			}
			// Only a form for one number alone may leave the number out.
			exact := form == "two" || form == "one" && (lang == "ar" || lang == "he")
			if g, w := placeholdersOf(text, exact), placeholdersOf(wantText, exact); !slices.Equal(g, w) {
				t.Errorf("%s %s: placeholders %q, want %q", key, form, g, w)
			}
			checkTypography(t, key, text)
		}
	}
	if lang != "en" && same > 2 { // "Account" is Italian too
		t.Errorf("%d texts are English", same)
	}
}

func placeholdersOf(s string, withoutNumber bool) (names []string) {
	for _, name := range placeholder.FindAllString(s, -1) {
		if name != "{n}" || !withoutNumber {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func checkTypography(t *testing.T, key, text string) {
	t.Helper()
	if text != strings.TrimSpace(text) || strings.Contains(text, "  ") {
		t.Errorf("%s: spaces to spare in %q", key, text)
	}
	if strings.ContainsAny(text, "<>&'\"") || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("%s: markup, a straight quote or a control character in %q", key, text)
	}
}

// Every message is used by a template or by the renderer, in any of its units.
func TestMessagesAreUsed(t *testing.T) {
	var templates strings.Builder
	for _, pattern := range []string{"templates/*.html", "templates/*.txt"} {
		files, err := fs.Glob(builtin(), pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := fs.ReadFile(builtin(), file)
			if err != nil {
				t.Fatal(err)
			}
			templates.Write(b)
		}
	}
	unit := regexp.MustCompile(`\.(seconds|minutes|hours)$`)
	byRenderer := regexp.MustCompile(`^problem\.|\.title$|^title\.problem$|_mail\.subject$`)
	for key := range readLocale(t, "en") {
		if !strings.Contains(templates.String(), `"`+unit.ReplaceAllString(key, "")+`"`) && !byRenderer.MatchString(key) {
			t.Errorf("%s is not used", key)
		}
	}
}

func TestPlurals(t *testing.T) {
	r := newRenderer(t, options())
	for _, tt := range []struct {
		lang string
		n    int
		want string
	}{
		{"en", 1, "Use at least 1 character."},
		{"en", 15, "Use at least 15 characters."},
		{"fr", 1, "au moins 1 caractère."},
		{"fr", 2, "au moins 2 caractères."},
		{"pl", 8, "co najmniej 8 znaków."},
		{"uk", 21, "щонайменше 21 символ."},
		{"uk", 22, "щонайменше 22 символи."},
		{"uk", 8, "щонайменше 8 символів."},
		{"ru", 21, "не менее 21 символа."},
		{"ru", 8, "не менее 8 символов."},
		{"ar", 1, "استخدم حرفًا واحدًا على الأقل."},
		{"ar", 2, "استخدم حرفين على الأقل."},
		{"ar", 8, "استخدم 8 أحرف على الأقل."},
		{"ar", 15, "استخدم 15 حرفًا على الأقل."},
		{"ar", 100, "استخدم 100 حرف على الأقل."},
		{"he", 2, "השתמשו בשני תווים לפחות."},
		{"he", 8, "השתמשו ב־8 תווים לפחות."},
		{"ja", 8, "8文字以上にしてください。"},
	} {
		got, err := r.Translate(tt.lang, "problem.password.too_short", "n", tt.n)
		if err != nil || !strings.HasSuffix(got, tt.want) {
			t.Errorf("%s, %d: %q (%v), want %q", tt.lang, tt.n, got, err, tt.want)
		}
	}
}

func TestTranslateFailures(t *testing.T) {
	r := newRenderer(t, options())
	for _, args := range [][]any{
		{"nosuch"},
		{"sent.body"},                        // no {email}
		{"sent.body", 1, "a@b.example"},      // a name that is none
		{"sent.body", "email", 1.5},          // a value that is none
		{"sent.expires.minutes", "email", 1}, // no {n}
	} {
		if got, err := r.Translate("en", args[0].(string), args[1:]...); err == nil {
			t.Errorf("Translate(%v) = %q, want an error", args, got)
		}
	}
}

func TestLanguage(t *testing.T) {
	r := newRenderer(t, options())
	for _, tt := range []struct{ header, want string }{
		{"", "en"},
		{"*", "en"},
		{"en-GB,en;q=0.9", "en"},
		{"de-AT,en;q=0.5", "de"},
		{"fr;q=0.3, es;q=0.8, en;q=0.1", "es"},
		{"ca, fr;q=0.8", "fr"},
		{"nb, en;q=0.9, de;q=0.8", "en"},
		{"pt", "pt-BR"},
		{"pt-PT", "pt-BR"},
		{"zh", "zh-Hans"},
		{"zh-CN,zh;q=0.9", "zh-Hans"},
		{"zh-SG", "zh-Hans"},
		{"zh-TW", "zh-Hant"},
		{"zh-HK", "zh-Hant"},
		{"zh-Hant-MO", "zh-Hant"},
		{"iw", "he"},
		{"ar-EG", "ar"},
		{"JA-jp", "ja"},
		{"nosuchlanguage", "en"},
		{"fi", "en"},
		{"de;q=x", "en"},
		{"\xff\x00,;;=", "en"},
		{"de" + strings.Repeat(",fr;q=0.1", 1<<10), "de"},
		{strings.Repeat("fi,", 1<<10) + "de", "en"}, // only the beginning is read
		{strings.Repeat("de-", 10<<10), "en"},
		{strings.Repeat(",", 10<<10), "en"},
		{strings.Repeat("x", 10<<10) + ",de", "en"},
	} {
		if got := r.Language(tt.header); got != tt.want {
			t.Errorf("Language(%.40q) = %q, want %q", tt.header, got, tt.want)
		}
	}
}

func TestMailLanguage(t *testing.T) {
	r := newRenderer(t, options())
	for _, tt := range []struct{ locale, want string }{
		{"", "en"}, {"de", "de"}, {"de-CH", "de"}, {"de_AT.UTF-8", "de"}, {"de_DE@euro", "de"}, {"pt_BR", "pt-BR"},
		{"zh_TW.UTF-8", "zh-Hant"}, {"C", "en"}, {"nosuchlanguage", "en"}, {"\xff", "en"},
	} {
		m := renderMail(t, r, resetMail(tt.locale))
		if !strings.Contains(m.HTML, `<html lang="`+tt.want+`"`) {
			t.Errorf("locale %q: not in %s:\n%s", tt.locale, tt.want, m.Text)
		}
	}
}

func FuzzLanguage(f *testing.F) {
	r := newRenderer(f, options())
	known := r.Languages()
	for _, s := range []string{"de-AT,en;q=0.5", "zh-Hant-TW-u-rg-twzzzz", "x-y-z;q=1.0.0", strings.Repeat("a-", 600)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if got := r.Language(header); !slices.Contains(known, got) {
			t.Errorf("Language(%q) = %q", header, got)
		}
	})
}
