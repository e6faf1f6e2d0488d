package ui

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/language"
)

// maxAcceptLanguage is how many bytes of the header are read.
const maxAcceptLanguage = 512

// writtenAs lists spoken languages whose readers write another one: the Chinese
// languages are written as zh, the Arabic ones as ar.
var writtenAs = byReader(map[string]string{
	"zh": "cdo cjy cmn cpx csp czh czo gan hak hsn lzh mnp nan wuu yue",
	"ar": "acm acq acw acx aeb afb ajp apc apd arb arq ars ary arz ayl ayn",
})

// schooledIn lists languages without a locale whose readers, nearly all of
// them, also read another one: it is an official language where they live and
// the language of their schools. It keeps that part of CLDR's language matching
// and leaves out, among others, af → nl, az, hy, mn and uz → ru, ckb → ar,
// ku → tr, la → it and mr → hi.
var schooledIn = byReader(map[string]string{
	"de": "gsw lb rm",
	"es": "ast ay ca eu gl gn qu",
	"fr": "br co ht kg ln lua mg oc wo",
	"nl": "fy",
	"no": "nn",
	"ru": "ab be kk ky tt",
})

// byReader turns target → readers into reader → target.
func byReader(targets map[string]string) map[string]language.Tag {
	m := make(map[string]language.Tag)
	for target, readers := range targets {
		for reader := range strings.FieldsSeq(readers) {
			m[reader] = language.Make(target)
		}
	}
	return m
}

// Language returns the language that suits an Accept-Language header best, or
// "en".
func (t *theme) Language(acceptLanguage string) string {
	if len(acceptLanguage) > maxAcceptLanguage {
		acceptLanguage = acceptLanguage[:maxAcceptLanguage]
		acceptLanguage = acceptLanguage[:max(0, strings.LastIndexByte(acceptLanguage, ','))]
	}
	return t.match(parseAcceptLanguage(acceptLanguage)).lang
}

// parseAcceptLanguage returns the languages of an Accept-Language header (RFC
// 9110, section 12.5.4), preferred ones first. It skips elements that it does
// not understand.
func parseAcceptLanguage(header string) (tags []language.Tag) {
	type element struct {
		tag    language.Tag
		weight float64
	}
	var elements []element
	for s := range strings.SplitSeq(header, ",") {
		s, parameter, weighted := strings.Cut(s, ";")
		e := element{weight: 1}
		if weighted {
			q, found := strings.CutPrefix(strings.ToLower(strings.TrimSpace(parameter)), "q=")
			weight, err := strconv.ParseFloat(q, 64)
			if !found || err != nil || !(weight > 0 && weight <= 1) {
				continue
			}
			e.weight = weight
		}
		// After an error the tag has the subtags that were understood.
		if e.tag, _ = language.Parse(strings.TrimSpace(s)); e.tag != language.Und {
			elements = append(elements, e)
		}
	}
	slices.SortStableFunc(elements, func(a, b element) int { return cmp.Compare(b.weight, a.weight) })
	for _, e := range elements {
		tags = append(tags, e.tag)
	}
	return tags
}

// userLocale returns the locale for a user's language tag, in BCP 47 (de-AT) or
// POSIX form (de_AT.UTF-8).
func (t *theme) userLocale(name string) *locale {
	if i := strings.IndexAny(name, ".@"); i >= 0 {
		name = name[:i]
	}
	return t.match([]language.Tag{language.Make(name)})
}

// match returns the locale of the first tag that has one. If none has, it
// returns that of the first tag whose readers are schooled in another language
// that has one, or else the English one.
func (t *theme) match(tags []language.Tag) *locale {
	for _, tag := range tags {
		if l := t.matchLanguage(tag); l != nil {
			return l
		}
	}
	for _, tag := range tags {
		base, _ := tag.Base()
		if other, ok := schooledIn[base.String()]; ok {
			if l := t.matchLanguage(other); l != nil {
				return l
			}
		}
	}
	return t.locales[0]
}

// matchLanguage returns the best locale in the language of tag, or nil.
func (t *theme) matchLanguage(tag language.Tag) *locale {
	tag = written(tag)
	_, i, confidence := t.matcher.Match(tag)
	// Match falls back to other languages, some of which only share a script.
	if confidence == language.No || macroBase(tag) != macroBase(t.locales[i].tag) {
		return nil
	}
	return t.locales[i]
}

// written replaces a language of writtenAs. Without a region the script decides
// which locale suits: yue is written in traditional characters.
func written(tag language.Tag) language.Tag {
	base, script, region := tag.Raw()
	target, ok := writtenAs[base.String()]
	if !ok {
		return tag
	}
	if (region == language.Region{}) && (script == language.Script{}) {
		if likely, confidence := tag.Script(); confidence > language.No {
			script = likely
		}
	}
	composed, err := language.Compose(target, script, region)
	if err != nil {
		return target
	}
	return composed
}

// macroBase returns the base language, or the macrolanguage that includes it:
// nb and no are one language.
func macroBase(tag language.Tag) language.Base {
	tag, err := language.Macro.Canonicalize(tag)
	if err != nil {
		return language.Base{}
	}
	base, _ := tag.Base()
	return base
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
