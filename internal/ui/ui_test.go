package ui_test

import (
	"crypto/sha256"
	"encoding/base64"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gopassreset/reset/internal/ui"
)

// options returns checked options.
func options() ui.Options {
	return ui.Options{
		BaseURL:     "https://app.example.com/account",
		SignInURL:   "https://app.example.com/login",
		SupportURL:  "mailto:help@example.com?subject=Account",
		Brand:       ui.Brand{Name: "Fernweh"},
		TTL:         time.Hour,
		MinPassword: 8,
		MaxPassword: 256,
	}
}

func newRenderer(t testing.TB, o ui.Options) *ui.Renderer {
	t.Helper()
	r, err := ui.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The policy must allow the style and the script that are in the page, which a
// browser hashes, and nothing else.
func TestPolicy(t *testing.T) {
	for _, color := range []string{"", "#ffcc00"} {
		o := options()
		o.Brand.Color = color
		r := newRenderer(t, o)
		page := renderPage(t, r, "en", ui.Page{Name: "choose"})
		want := "default-src 'none'; style-src " + hashOf(t, page, "style") + "; script-src " + hashOf(t, page, "script") +
			"; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
		if got := r.ContentSecurityPolicy(); got != want {
			t.Errorf("colour %q: policy\n%s\nwant\n%s", color, got, want)
		}
		if !strings.Contains(page, "--button:") || strings.Contains(page, "style=") {
			t.Errorf("colour %q: not in the style sheet", color)
		}
	}
}

func hashOf(t *testing.T, page, tag string) string {
	t.Helper()
	m := regexp.MustCompile(`(?s)<`+tag+`>(.*)</`+tag+`>`).FindAllStringSubmatch(page, -1)
	if len(m) != 1 || strings.TrimSpace(m[0][1]) == "" {
		t.Fatalf("not one %s with contents", tag)
	}
	sum := sha256.Sum256([]byte(m[0][1]))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// builtin is the folder of the module, for tests that compare with its files.
func builtin() fs.FS { return os.DirFS(".") }
