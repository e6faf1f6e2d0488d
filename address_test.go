package reset_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/gopassreset/reset"
)

func TestCanonicalAddress(t *testing.T) {
	label63 := strings.Repeat("d", 63)
	domain189 := strings.Join([]string{strings.Repeat("a", 63), strings.Repeat("b", 63), strings.Repeat("c", 61)}, ".")
	for _, tt := range []struct{ in, want string }{
		{"alice@example.com", "alice@example.com"},
		{"Alice@EXAMPLE.com", "alice@example.com"},
		{"a.b+c-d_e'f@example.com", "a.b+c-d_e'f@example.com"},
		{"!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~@example.com"},
		{"root@localhost", "root@localhost"},
		{"jürgen@example.com", "jürgen@example.com"},
		{"JU\u0308RGEN@example.com", "jürgen@example.com"}, // NFD
		{"ΣΊΣΥΦΟΣ@example.com", "σίσυφοσ@example.com"},
		{"用户@例え.jp", "用户@xn--r8jz45g.jp"},
		{"a@BÜCHER.example", "a@xn--bcher-kva.example"},
		{"a@xn--bcher-kva.example", "a@xn--bcher-kva.example"},
		{"a@ｅｘａｍｐｌｅ.com", "a@example.com"}, // full-width letters of a domain are mapped
		{"a@straße.de", "a@xn--strae-oqa.de"},
		{strings.Repeat("l", 64) + "@example.com", strings.Repeat("l", 64) + "@example.com"},
		{"a@" + label63 + ".com", "a@" + label63 + ".com"},
		{strings.Repeat("l", 64) + "@" + domain189, strings.Repeat("l", 64) + "@" + domain189}, // 254 bytes
		{"mıke@example.com", "mıke@example.com"},                                               // dotless i: not mike
		{"paſſ@example.com", "paſſ@example.com"},                                               // long s: not pass
		{"oﬁce@example.com", "oﬁce@example.com"},                                               // ligature: not ofice
	} {
		got, err := reset.CanonicalAddress(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("CanonicalAddress(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
			continue
		}
		if again, err := reset.CanonicalAddress(got); err != nil || again != got {
			t.Errorf("CanonicalAddress(%q) = %q, %v; want it unchanged", got, again, err)
		}
	}

	for _, in := range []string{
		"", " ", "alice", "@", "@example.com", "alice@", "a@b@c", "alice@example.com ", " alice@example.com",
		"a@example.com,b@example.com", "a@example.com;b@example.com", "a@example.com b@example.com",
		"Alice <alice@example.com>", "<alice@example.com>", "alice(comment)@example.com", `"alice"@example.com`, `"a b"@example.com`,
		"alice@[192.0.2.1]", "alice@[IPv6:2001:db8::1]", ".alice@example.com", "alice.@example.com", "a..b@example.com",
		"a\r\nBcc: b@example.com@example.com", "al\tice@example.com", "al\x00ice@example.com", "alice@exa\x00mple.com", "alice@example.com\n",
		"alice＠example.com", "a@.example.com", "a@example..com", "a@example.com.", "a@exa mple.com", "a@exa_mple.com", "a@-example.com",
		"al\u2028ice@example.com", "al\u200bice@example.com", "al\u202eice@example.com", "al\u00a0ice@example.com", "al\ufeffice@example.com",
		"\u212Aim@example.com",                                                  // Kelvin sign: would become kim
		"m\u0130ke@example.com",                                                 // capital dotted i: would become mike
		"a\u037eb@example.com",                                                  // Greek question mark: would become a semicolon
		"a\xff@example.com", "a@\xff.com", "a@xn--zzzzzz999999.com", "a@\u0000", // not UTF-8, not punycode
		strings.Repeat("l", 65) + "@example.com",
		"a@" + strings.Repeat("d", 64) + ".com",
		strings.Repeat("l", 64) + "@" + domain189 + "c", // 255 bytes
		strings.Repeat("a@", 10_000),
	} {
		if got, err := reset.CanonicalAddress(in); !errors.Is(err, reset.ErrBadRequest) || got != "" {
			t.Errorf("CanonicalAddress(%q) = %q, %v; want ErrBadRequest", in, got, err)
		}
	}
}

func FuzzCanonicalAddress(f *testing.F) {
	for _, s := range []string{"alice@example.com", "JU\u0308@BÜCHER.example", "\u212A@k", "a@b@c", "İ@x", "a@１２７.0.0.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := reset.CanonicalAddress(in)
		if err != nil {
			if got != "" || !errors.Is(err, reset.ErrBadRequest) {
				t.Fatalf("CanonicalAddress(%q) = %q, %v", in, got, err)
			}
			return
		}
		if again, err := reset.CanonicalAddress(got); err != nil || again != got {
			t.Errorf("CanonicalAddress(%q) = %q, %v; want it unchanged", got, again, err)
		}
		if strings.ContainsAny(got, "\r\n\x00 \t<>,;:\"()[]\\") || strings.Count(got, "@") != 1 || len(got) > 254 {
			t.Errorf("CanonicalAddress(%q) = %q", in, got)
		}
		// No two local parts that differ outside of ASCII may meet in ASCII.
		local, _, _ := strings.Cut(in, "@")
		canonical, _, _ := strings.Cut(got, "@")
		if !isASCII(local) && isASCII(canonical) {
			t.Errorf("CanonicalAddress(%q) = %q: an ASCII local part", in, got)
		}
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 127 })
}
