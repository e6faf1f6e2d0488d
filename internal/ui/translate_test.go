package ui_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gopassreset/reset/internal/ui"
)

func TestDurations(t *testing.T) {
	r := newRenderer(t, options())
	for _, tt := range []struct {
		d             time.Duration
		lasting, wait string
	}{
		{0, "1 minute.", "1 second."},
		{1500 * time.Millisecond, "1 minute.", "2 seconds."},
		{59*time.Minute + 59*time.Second, "59 minutes.", "60 minutes."},
		{time.Hour, "60 minutes.", "60 minutes."},
		{2 * time.Minute, "2 minutes.", "120 seconds."},
		{2*time.Minute + 1, "2 minutes.", "3 minutes."},
		{2*time.Hour - 1, "119 minutes.", "120 minutes."},
		{2 * time.Hour, "2 hours.", "120 minutes."},
		{2*time.Hour + 1, "2 hours.", "3 hours."},
		{24*time.Hour - 1, "23 hours.", "24 hours."},
		{24 * time.Hour, "24 hours.", "24 hours."},
	} {
		lasting, err1 := r.Translate("en", "sent.expires", "n", ui.RoundDown(tt.d))
		wait, err2 := r.Translate("en", "limited.wait", "n", ui.RoundUp(tt.d))
		if err1 != nil || err2 != nil || !strings.HasSuffix(lasting, " "+tt.lasting) || !strings.HasSuffix(wait, " "+tt.wait) {
			t.Errorf("%v: %q and %q (%v, %v), want %q rounded down and %q rounded up", tt.d, lasting, wait, err1, err2, tt.lasting, tt.wait)
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
		{"he", 20, "השתמשו ב־20 תווים לפחות."},
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
