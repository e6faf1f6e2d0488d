package ui

import (
	"strings"

	"golang.org/x/text/language"
)

// maxAcceptLanguage is how many bytes of the header are read.
const maxAcceptLanguage = 512

// Language returns the language that suits an Accept-Language header best, or
// "en".
func (t *theme) Language(acceptLanguage string) string {
	if len(acceptLanguage) > maxAcceptLanguage {
		acceptLanguage = acceptLanguage[:maxAcceptLanguage]
		acceptLanguage = acceptLanguage[:max(0, strings.LastIndexByte(acceptLanguage, ','))]
	}
	tags, _, err := language.ParseAcceptLanguage(acceptLanguage)
	if err != nil {
		return t.locales[0].lang
	}
	return t.match(tags...).lang
}

// userLocale returns the locale for a user's language tag, in BCP 47 (de-AT) or
// POSIX form (de_AT.UTF-8).
func (t *theme) userLocale(name string) *locale {
	if i := strings.IndexAny(name, ".@"); i >= 0 {
		name = name[:i]
	}
	return t.match(language.Make(name))
}

func (t *theme) match(tags ...language.Tag) *locale {
	_, i, _ := t.matcher.Match(tags...)
	return t.locales[i]
}

// exactLocale returns the locale of exactly this language, or the English one.
func (t *theme) exactLocale(lang string) *locale {
	for _, l := range t.locales {
		if l.lang == lang {
			return l
		}
	}
	return t.locales[0]
}
