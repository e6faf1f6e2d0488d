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

// pluralForms are the plural forms that whole numbers below 1,000,000 take in
// each language (CLDR 48).
var pluralForms = map[string][]string{
	"ar":      {"few", "many", "one", "other", "two", "zero"},
	"de":      {"one", "other"},
	"en":      {"one", "other"},
	"es":      {"one", "other"},
	"fr":      {"one", "other"},
	"he":      {"one", "other", "two"},
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
	if strings.Contains(text, "\u2011") { // many fonts have none
		t.Errorf("%s: a non-breaking hyphen in %q", key, text)
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
