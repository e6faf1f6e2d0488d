package reset_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/unicode/rangetable"

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
		{strings.Repeat("l", 64) + "@example.com", strings.Repeat("l", 64) + "@example.com"},
		{"a@" + label63 + ".com", "a@" + label63 + ".com"},
		{strings.Repeat("l", 64) + "@" + domain189, strings.Repeat("l", 64) + "@" + domain189}, // 254 bytes

		// Real accounts that RFC 5321 would have in quotes, or not at all.
		{"taro..yamada@docomo.ne.jp", "taro..yamada@docomo.ne.jp"},
		{"xxx.yyy.@docomo.ne.jp", "xxx.yyy.@docomo.ne.jp"},
		{".taro...@ezweb.ne.jp", ".taro...@ezweb.ne.jp"},
		{"a@abc_d.com", "a@abc_d.com"},
		{"user@internal_exchange", "user@internal_exchange"},
		{"a@_example.例え.jp", "a@_example.xn--r8jz45g.jp"},

		// Local parts: NFC and lower-case.
		{"jürgen@example.com", "jürgen@example.com"},
		{"JU\u0308RGEN@example.com", "jürgen@example.com"}, // NFD
		{"ΣΊΣΥΦΟΣ@example.com", "σίσυφοσ@example.com"},
		{"GROẞ@example.com", "groß@example.com"},
		{"用户@例え.jp", "用户@xn--r8jz45g.jp"},
		{"น้ำ@example.com", "น้ำ@example.com"},
		{"mıke@example.com", "mıke@example.com"}, // dotless i: not mike

		// Domains: NFKC_Casefold, except that ß and ς stay, whatever Go and x/net say.
		{"a@BÜCHER.example", "a@xn--bcher-kva.example"},
		{"a@XN--BCHER-KVA.example", "a@xn--bcher-kva.example"},
		{"a@ＸＮ--bcher-kva.example", "a@xn--bcher-kva.example"},
		{"a@ｅｘａｍｐｌｅ．com", "a@example.com"},
		{"a@例え。jp", "a@xn--r8jz45g.jp"},
		{"a@straße.de", "a@xn--strae-oqa.de"},
		{"a@STRAẞE.de", "a@xn--strae-oqa.de"},
		{"a@strasse.de", "a@strasse.de"},
		{"a@ΣΊΣΥΦΟΣ.gr", "a@xn--kxa6akbbkh.gr"},
		{"a@σίσυφος.gr", "a@xn--kxa6ajbbmh.gr"},
		{"a@İstanbul.com.tr", "a@xn--istanbul-o0e.com.tr"},
		{"a@I\u0307stanbul.com.tr", "a@xn--istanbul-o0e.com.tr"},
		{"a@ıstanbul.com.tr", "a@xn--stanbul-qfb.com.tr"},
		{"a@Ꮳꮃꭹ.com", "a@xn--f9dt7l.com"},
		{"a@نامه\u200cای.com", "a@xn--mgba3gch31f060k.com"}, // a joiner that has a meaning
		{"a@i❤️.ws", "a@xn--i-7iq.ws"},
		{"a@exam\u00adple\u200b.com", "a@example.com"},
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
		"Alice <alice@example.com>", "<alice@example.com>", "mailto:alice@example.com", "alice(comment)@example.com", `"alice"@example.com`, `"a b"@example.com`,
		"alice@[192.0.2.1]", "alice@[IPv6:2001:db8::1]",
		"a\r\nBcc: b@example.com@example.com", "al\tice@example.com", "al\x00ice@example.com", "alice@exa\x00mple.com", "alice@example.com\n",
		"alice＠example.com", "a@.example.com", "a@example..com", "a@example.com.", "a@example.com。", "a@exa mple.com", "a@-example.com", "a@example-.com",
		"a@ab--cd.com", "a@exa/mple.com", "a@exa…mple.com", "a@bü_cher.com", "a@\u0301a.com", "a@\u200cexample.com",
		"al\u2028ice@example.com", "al\u200bice@example.com", "al\u202eice@example.com", "al\u00a0ice@example.com", "al\ufeffice@example.com", "al\u00adice@example.com",
		"a\xff@example.com", "a@\xff.com", "a@\u0000", // not UTF-8, NUL
		strings.Repeat("l", 65) + "@example.com",
		"a@" + strings.Repeat("d", 64) + ".com",
		strings.Repeat("l", 64) + "@" + domain189 + "c", // 255 bytes
		strings.Repeat("a@", 10_000),

		// A-labels that are not what their Unicode form encodes to.
		"victim@xn--example-.com", "victim@xn--.com", "victim@xn---.com", "a@xn--zzzzzz999999.com", "victim@XN--EXAMPLE-.com", "victim@ｘｎ－－example-.com",
		"a@xn--が-.com", "a@xn--bücher-kva.com", "a@xn--xn--bcher-kva-.com", "a@xn--BCHER-KVA-.com",
		"a@xn--bcher-2pa.com", "a@xn--strae-301b.com", "a@xn--sh-1b1n.com", "a@xn--stanbul-ifb.com", // of bÜcher, straẞe, ﬁsh, İstanbul
		"a@xn--bucher-xyd.com", "a@xn--a_-wia.com", "a@xn--ab-j1t.com", "a@xn--a-wbb.com", // of bu\u0308cher, a_ä, a\u200cb, U+0301 before a

		// Local parts with characters that stand for ASCII ones.
		"\u212Aim@example.com", "m\u0130ke@example.com", "mI\u0307ke@example.com", "a\u037eb@example.com", "a\u1fefb@example.com",
		"paſſ@example.com", "oﬁce@example.com", "ｍike@example.com", "mike²@example.com", "a․b@example.com", "ª@example.com", "ﾀﾛｳ@example.com",

		// Local parts with characters that cannot be seen.
		"a\ufffd@example.com", "a\ufffc@example.com", "a\u115f@example.com", "a\u1160@example.com", "a\u3164@example.com", "a\uffa0@example.com",
		"a\u034f@example.com", "a\u17b4@example.com", "a\u180b@example.com", "a\u2800@example.com", "a\ufe0f@example.com", "a\U000e0101@example.com", "a\U00016fe4@example.com",
	} {
		if got, err := reset.CanonicalAddress(in); !errors.Is(err, reset.ErrBadRequest) || got != "" {
			t.Errorf("CanonicalAddress(%q) = %q, %v; want ErrBadRequest", in, got, err)
		}
	}
}

// Canonical forms are stored, so they must not change with the versions of Go
// and its libraries: these are the forms of all characters of Unicode 15.
func TestCanonicalAddressIsStable(t *testing.T) {
	for _, tt := range []struct{ format, want string }{
		{"a%cb@example.com", "4c7384e4458a40fe388797a268b7cfb9"},
		{"a@a%cb.com", "11579892d24e735bbbbf19b42c88c3c5"},
	} {
		forms := sha256.New()
		rangetable.Visit(rangetable.Assigned("15.0.0"), func(r rune) {
			in := fmt.Sprintf(tt.format, r)
			got, err := reset.CanonicalAddress(in)
			if err != nil || r == 0x1806 { // which only newer versions allow in a domain
				return
			}
			if again, err := reset.CanonicalAddress(got); err != nil || again != got {
				t.Errorf("CanonicalAddress(%q) = %q, %v; want it unchanged", got, again, err)
			}
			fmt.Fprintln(forms, in, got)
		})
		if got := fmt.Sprintf("%x", forms.Sum(nil)[:16]); got != tt.want {
			t.Errorf("the hash of all canonical forms of %s is %s; want %s", tt.format, got, tt.want)
		}
	}
}

// What stands around an address is ignored: blanks for everybody, the rest only
// where people paste.
func TestAddressAsTyped(t *testing.T) {
	const blanks = "\u0020\u00a0\u1680\u2000\u200a\u200b\u200e\u200f\u2028\u202a\u202f\u205f\u2060\u2069\u206f\u3000\ufeff"
	for _, tt := range []struct {
		in              string
		trusted, public bool
	}{
		{"ann@example.com", true, true},
		{blanks + "ann@example.com" + blanks, true, true},
		{"\u202aAnn@Example.com\u202c", true, true},
		{"<ann@example.com>", false, true},
		{" < ann@example.com > ", false, true},
		{"＜ann@example.com＞", false, true},
		{"mailto:ann@example.com", false, true},
		{"<MailTo:%61nn@example.com?subject=Hi,%20a@b>", false, true},
		{"ann＠example.com", false, true},
		{"ann﹫example.com", false, true},
		{"ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", false, true},
		{"ann@example.com\n", false, false},
		{"\tann@example.com", false, false},
		{"\x00ann@example.com", false, false},
		{"\u0085ann@example.com", false, false},
		{"ann\u200b@example.com", false, false},
		{"<ann@example.com", false, false},
		{"<<ann@example.com>>", false, false},
		{"Ann <ann@example.com>", false, false},
		{"<ann@example.com>, <bob@example.com>", false, false},
		{"mailto:", false, false},
		{"mailto:ann%0a@example.com", false, false},
		{"mailto:ann%zz@example.com", false, false},
		{"＂ann＂@example.com", false, false},
		{blanks, false, false},
		{"<>", false, false},
	} {
		f := newFixture(t, newHost(ann), nil)
		err := f.Forgot(t.Context(), tt.in, "192.0.2.1", reset.ForgotOptions{})
		mails, _ := f.store.Lease(t.Context(), time.Now().Add(time.Minute), time.Now().Add(2*time.Minute), 10)
		if public := len(mails) == 1 && mails[0].Email == ann.Email; public != tt.public || !public && !errors.Is(err, reset.ErrBadRequest) {
			t.Errorf("Forgot(%q) = %v with %v queued; want it accepted: %v", tt.in, err, mails, tt.public)
		}
		activation, err := f.RequestReset(t.Context(), tt.in, reset.RequestOptions{})
		if trusted := activation != ""; trusted != tt.trusted || !trusted && !errors.Is(err, reset.ErrBadRequest) {
			t.Errorf("RequestReset(%q) = %q, %v; want it accepted: %v", tt.in, activation, err, tt.trusted)
		}
	}
}

func FuzzCanonicalAddress(f *testing.F) {
	for _, s := range []string{"alice@example.com", "JU\u0308@BÜCHER.example", "\u212A@k", "a@b@c", "İ@x", "I\u0307@x", "a@１２７.0.0.1", "a@xn--example-.com", "a@I\u0307.ẞ"} {
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
