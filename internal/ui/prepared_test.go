package ui_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gopassreset/reset/internal/ui"
)

// A mail is the same whether it was prepared or its templates were executed.
func TestMailPrepared(t *testing.T) {
	prepared := newRenderer(t, options())
	for _, lang := range prepared.Languages() {
		for _, name := range []string{"", "Mia Schmidt", `A <b>&"'+ B`, "دانا", "Mia Schmidt"} {
			for i, to := range []string{"mia.schmidt@example.com", `o'neil+x&y<z@example.com`, "אב@example.com"} {
				secret := strings.Repeat("-_aZ09"[i:i+2], 12)
				for _, m := range []ui.Mail{resetMail(lang), notificationMail(lang)} {
					m.Name, m.To, m.Secret, m.ExpiresIn = name, to, secret, time.Duration(i)*40*time.Minute
					m.Link = strings.ReplaceAll(m.Link, "yQ3c0vTrS-4k9ZpX_1aBwGhE", secret)
					m.RevokeLink = strings.ReplaceAll(m.RevokeLink, "yQ3c0vTrS-4k9ZpX_1aBwGhE", secret)
					subject, text, html, err := prepared.Execute(m)
					if err != nil {
						t.Fatal(err)
					}
					want := rendered{m, subject, text, html}
					if got := renderMail(t, prepared, m); got != want {
						t.Fatalf("%s in %s for %q, %s: prepared:\n%s\nexecuted:\n%s", m.Kind, lang, name, to, got.HTML, want.HTML)
					}
				}
			}
		}
	}
}

func BenchmarkMail(b *testing.B) {
	r, err := ui.New(options())
	if err != nil {
		b.Fatal(err)
	}
	m := resetMail("en")
	m.Secret = "yQ3c0vTrS-4k9ZpX_1aBwGhE"
	for name, mail := range map[string]func(ui.Mail) (string, string, string, error){"executed": r.Execute, "prepared": r.Mail} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, _, _, err := mail(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
