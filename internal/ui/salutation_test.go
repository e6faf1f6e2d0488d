package ui_test

import (
	"strings"
	"testing"

	"github.com/gopassreset/reset/internal/ui"
)

func TestSalutation(t *testing.T) {
	for _, name := range []string{
		"", "Ann Lee", "Louis 14", "Henry Ⅷ", "Renée O’Neil-Smith Jr.", "Björk Guðmundsdóttir", "Anna-Lena Müller-Lüdenscheidt",
		"J. R. R. Tolkien", "J.R. Ewing", "J.R.R. Tolkien", "A.P.J.Abdul Kalam", "M.S.Dhoni", "E.T.A.Hoffmann",
		"Ma.Theresa Cruz", "K.Srinivasan", "k.srinivasan", "Dr.Smith", "St.Clair", "Prof.Dr.Schneider", "Sra.García", "Fco.Javier Ruiz",
		"محمد عبد الله", "د.أحمد زويل", "می\u200cخواهم", "ד״ר כהן", "क्\u200dषमा", "के.श्रीनिवासन", "கி.ராஜநாராயணன்",
		"山田 太郎", "ジョン・スミス", "김민수", "佐藤さん", "Иван И.Иванов", "Ann 🙂", "Gal·la Puigdellívol",
		strings.Repeat("é", 50),
	} {
		if got := ui.Salutation(name); got != name {
			t.Errorf("Salutation(%q) = %q, want the same", name, got)
		}
	}
	for _, tt := range []struct{ name, want string }{
		{"  Ann \t\r\n Lee ", "Ann Lee"},
		{"Ann\x00\x1b Lee\u200b", "Ann Lee"},
		{"\u202eeeL nnA\u202c", "eeL nnA"},
		{"\xffAnn", "Ann"},
	} {
		if got := ui.Salutation(tt.name); got != tt.want {
			t.Errorf("Salutation(%q) = %q, want %q", tt.name, got, tt.want)
		}
	}
	for _, name := range []string{
		"https://evil.example", "a/b", `\\evil\share`, "mail me@evil", "call:me", "<b>Ann</b>", "WWW.evil", "ｗｗｗ．evil",
		"evil.com", "Evil.Com", "EVIL.COM", "Click evil.com now", "(evil.com)", "evil.com’s prize", "bit.ly", "x.co", "a.b.shop",
		"evil.com.Smith", "Ann.evil.com", "evil.co-op", "evil_evil.com", "i❤.ws", "☃.net", "evil.com请点击", "请点击evil.com",
		"J.Ng", "Dr.Wang", "Prof.Dr.Weber", // all are top-level domains
		// other scripts
		"हिन्दी.com", "हिन्दी.भारत", "пример.рф", "例え。com", "中国.网络", "مثال.كوم", "evil.xn--h2brj9c",
		// characters that NFKC or IDNA replace by plain ones
		"evil․com", "evil。com", "evil．com", "evil｡com", "evil﹒com", "ｅｖｉｌ．ｃｏｍ", "ⓔⓥⓘⓛ.ⓒⓞⓜ", "evil⒈com", "evil.ⅽom", "𝐞𝐯𝐢𝐥.𝐜𝐨𝐦", "evil.ſe",
		"ann＠evil", "evil／path", "tel：1234", "a℀b",
		// invisible characters
		"evil\u200d.com", "evil.\u200dcom", "evil.co\u200cm", "evil.c\u00adom", "evil.c\ufe0fom", "evil.c\u034fom", "evil\u2060.\u2060com",
		"evil.c\u180bom", "evil.c\U000e0101om", "www\u200c.evil",
		// addresses and numbers
		"1.1.1.1", "①.①.①.①", "Ann, call 0800 123456", "call ⓪⑧⓪⓪①", "call ❶❷❸❹❺", "call ٠٨٠٠١", "call 𝟎𝟖𝟎𝟎𝟏",
		// nothing to see
		"\u3164", "\u115f\u1160", "\u200d", "\ufe0f",
		strings.Repeat("é", 51),
	} {
		if got := ui.Salutation(name); got != "" {
			t.Errorf("Salutation(%q) = %q, want none", name, got)
		}
	}
}

func FuzzSalutation(f *testing.F) {
	for _, s := range []string{"Ann Lee", "evil.example", "\u202e\xff\x00", "a\nb", "K.Srinivasan", "हिन्दी.com"} {
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
