package ui_test

import (
	"strings"
	"testing"

	"github.com/gopassreset/reset/internal/ui"
)

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
