package ui_test

import (
	"slices"
	"strings"
	"testing"
)

// languageTests has tags that are both a header and a user's locale.
var languageTests = []struct{ tag, want string }{
	{"", "en"},
	{"en-GB", "en"},
	{"en-XA", "en"},
	{"de-AT", "de"},
	{"de-XX", "de"}, // unknown region
	{"de-1", "de"},  // malformed after de
	{"pt", "pt-BR"},
	{"pt-PT", "pt-BR"},
	{"es-419", "es"},
	{"iw", "he"},
	{"ar-EG", "ar"},
	{"JA-jp", "ja"},
	{"uk", "uk"},
	{"und", "en"},
	{"nosuchlanguage", "en"},
	{"x-klingon", "en"},

	// Chinese: the region or the script decides.
	{"zh", "zh-Hans"}, {"zh-CN", "zh-Hans"}, {"zh-SG", "zh-Hans"}, {"zh-Hans-HK", "zh-Hans"},
	{"zh-TW", "zh-Hant"}, {"zh-HK", "zh-Hant"}, {"zh-MO", "zh-Hant"}, {"zh-Hant-MO", "zh-Hant"},
	{"cmn", "zh-Hans"}, {"cmn-TW", "zh-Hant"}, {"zh-cmn-Hans-CN", "zh-Hans"},
	{"yue", "zh-Hant"}, {"yue-CN", "zh-Hans"}, {"yue-Hans", "zh-Hans"}, {"zh-yue", "zh-Hant"},
	{"wuu", "zh-Hans"}, {"nan-TW", "zh-Hant"}, {"hak", "zh-Hans"}, {"cpx", "zh-Hans"},

	// Arabic is written alike in all countries.
	{"arb", "ar"}, {"arz", "ar"}, {"ary-MA", "ar"}, {"apc", "ar"},

	// No locale, but schools that teach another language.
	{"gsw", "de"}, {"lb", "de"},
	{"eu", "es"}, {"gl", "es"}, {"ca-ES", "es"}, {"qu-PE", "es"},
	{"br", "fr"}, {"oc", "fr"}, {"wo", "fr"},
	{"fy", "nl"},
	{"be", "ru"}, {"kk-KZ", "ru"}, {"ky", "ru"},

	// No locale: English, and never a neighbour's language or one that only
	// shares the script.
	{"bg", "en"}, {"sr", "en"}, {"sr-Latn", "en"}, {"mk", "en"}, {"mn", "en"}, {"ce", "en"},
	{"fa", "en"}, {"fa-AF", "en"}, {"ur", "en"}, {"ps", "en"}, {"ckb", "en"}, {"ug", "en"},
	{"mr", "en"}, {"ne", "en"}, {"gu", "en"}, {"hi-Latn", "en"},
	{"az", "en"}, {"az-Cyrl", "en"}, {"hy", "en"}, {"uz", "en"}, {"tg", "en"},
	{"ku", "en"}, {"la", "en"}, {"af", "en"}, {"yi", "en"}, {"lad", "en"},
	{"fi", "en"}, {"nb", "en"}, {"ro", "en"}, {"ja-Latn", "en"}, {"ain", "en"}, {"vi", "en"}, {"za", "en"}, {"bo", "en"},
}

func TestLanguage(t *testing.T) {
	r := newRenderer(t, options())
	for _, tt := range languageTests {
		if got := r.Language(tt.tag); got != tt.want {
			t.Errorf("Language(%q) = %q, want %q", tt.tag, got, tt.want)
		}
	}
	for _, tt := range []struct{ header, want string }{
		{"*", "en"},
		{"en-GB,en;q=0.9", "en"},
		{"de-AT,en;q=0.5", "de"},
		{"fr;q=0.3, es;q=0.8, en;q=0.1", "es"},
		{"fr;q=0.5, es ; Q=0.5", "fr"}, // order breaks the tie
		{"fr;q=0, es;q=0.1", "es"},
		{"nb, en;q=0.9, de;q=0.8", "en"},
		{"zh-CN,zh;q=0.9", "zh-Hans"},
		{"bg,de;q=0.5", "de"},

		// A language that the reader lists wins over one from school.
		{"ca, fr;q=0.8", "fr"},
		{"kk, ru;q=0.9, en;q=0.1", "ru"},
		{"eu, en;q=0.1", "en"},

		// One element that is not understood does not discard the others.
		{"xx,de", "de"},
		{"de,xx", "de"},
		{"xx-YY;q=0.9,fr;q=0.5", "fr"},
		{"de;q=x,fr", "fr"},
		{"de;q=2,fr;q=0.1", "fr"},
		{"de;q=-1,fr;q=0.1", "fr"},
		{"de;q=nan,fr;q=0.1", "fr"},
		{"de;level=1,fr", "fr"},
		{"*,de", "de"},
		{",,;,de", "de"},
		{"en_US_POSIX,de", "en"},
		{"de--AT,fr", "de"},
		{"\xff\x00,;;=,ja", "ja"},

		// Only the beginning is read.
		{"de" + strings.Repeat(",fr;q=0.1", 1<<10), "de"},
		{strings.Repeat("fi,", 1<<10) + "de", "en"},
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
	tests := append(slices.Clone(languageTests), []struct{ tag, want string }{
		{"de_AT.UTF-8", "de"}, {"de_DE@euro", "de"}, {"pt_BR", "pt-BR"}, {"zh_TW.UTF-8", "zh-Hant"},
		{"sr_RS@latin", "en"}, {"C", "en"}, {"POSIX", "en"}, {"C.UTF-8", "en"}, {"\xff", "en"},
	}...)
	for _, tt := range tests {
		m := renderMail(t, r, resetMail(tt.tag))
		if !strings.Contains(m.HTML, `<html lang="`+tt.want+`"`) {
			t.Errorf("locale %q: not in %s:\n%s", tt.tag, tt.want, m.Text)
		}
	}
}

// A locale that a host adds serves its own readers, and no others.
func TestLanguageAdded(t *testing.T) {
	r := newRenderer(t, overridden(map[string]string{
		"locales/nb.json":      edited(t, "locales/en.json", "Account", "Konto"),
		"locales/pt-PT.json":   edited(t, "locales/pt-BR.json", "Senha", "Palavra-passe"),
		"locales/sr-Cyrl.json": strings.ReplaceAll(readBuiltin(t, "locales/ru.json"), `"many"`, `"other"`),
	}))
	for _, tt := range []struct{ header, want string }{
		{"no", "nb"}, {"nb-NO", "nb"}, {"nn", "nb"}, {"nn, de;q=0.5", "de"}, {"da", "en"},
		{"pt", "pt-BR"}, {"pt-PT", "pt-PT"}, {"pt-AO", "pt-PT"},
		{"sr", "sr-Cyrl"}, {"sr-Latn", "sr-Cyrl"}, {"sh", "sr-Cyrl"}, {"hr", "en"}, {"mk", "en"},
	} {
		if got := r.Language(tt.header); got != tt.want {
			t.Errorf("Language(%q) = %q, want %q", tt.header, got, tt.want)
		}
	}
}

func FuzzLanguage(f *testing.F) {
	r := newRenderer(f, options())
	known := r.Languages()
	for _, s := range []string{"de-AT,en;q=0.5", "zh-Hant-TW-u-rg-twzzzz", "x-y-z;q=1.0.0", "xx,de;q=0,*", strings.Repeat("a-", 600)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if got := r.Language(header); !slices.Contains(known, got) {
			t.Errorf("Language(%q) = %q", header, got)
		}
	})
}
