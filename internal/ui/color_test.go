package ui_test

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/gopassreset/reset/internal/ui"
)

func contrastOf(t *testing.T, a, b string) float64 {
	t.Helper()
	ratio, err := ui.Contrast(a, b)
	if err != nil {
		t.Fatal(err)
	}
	return ratio
}

func TestContrast(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want string // as WebAIM's checker gives it
	}{
		{"#000000", "#ffffff", "21.00"}, {"#777777", "#ffffff", "4.48"}, {"#ffffff", "#ff0000", "4.00"}, {"#1d4ed8", "#1d4ed8", "1.00"},
	} {
		if got := fmt.Sprintf("%.2f", contrastOf(t, tt.a, tt.b)); got != tt.want {
			t.Errorf("contrast of %s and %s is %s, want %s", tt.a, tt.b, got, tt.want)
		}
	}
}

// Whatever colour a brand has, text can be read (WCAG 2.2 AA) on every surface.
func TestColors(t *testing.T) {
	light, dark := surfaces(t)
	for _, brand := range grid() {
		l, d, err := ui.Schemes(brand)
		if err != nil {
			t.Fatal(err)
		}
		if l.Button != brand {
			t.Errorf("%s: the button is %s on light", brand, l.Button)
		}
		for _, tt := range []struct {
			what, a, b string
			least      float64
		}{
			{"link on light", l.Link, light["card"], 4.5},
			{"link on light", l.Link, light["page"], 4.5},
			{"link on dark", d.Link, dark["card"], 4.5},
			{"link on dark", d.Link, dark["page"], 4.5},
			{"label of the button on light", l.OnButton, l.Button, 4.5},
			{"label of the button on dark", d.OnButton, d.Button, 4.5},
			{"button on dark", d.Button, dark["card"], 3},
		} {
			if got := contrastOf(t, tt.a, tt.b); got < tt.least {
				t.Errorf("brand %s: %s has contrast %.2f, want %.1f", brand, tt.what, got, tt.least)
			}
		}
	}
}

// grid returns colours from all over the cube.
func grid() (colors []string) {
	steps := []int{0x00, 0x1d, 0x4e, 0x77, 0x80, 0xa8, 0xd8, 0xff}
	for _, r := range steps {
		for _, g := range steps {
			for _, b := range steps {
				colors = append(colors, fmt.Sprintf("#%02x%02x%02x", r, g, b))
			}
		}
	}
	return colors
}

func TestStyleSheetContrast(t *testing.T) {
	light, dark := surfaces(t)
	for name, s := range map[string]map[string]string{"light": light, "dark": dark} {
		for _, tt := range []struct {
			what, on string
			least    float64
		}{
			{"text", "page", 4.5}, {"text", "card", 4.5}, {"text", "field", 4.5}, {"text", "quiet", 4.5},
			{"muted", "page", 4.5}, {"muted", "card", 4.5},
			{"danger", "card", 4.5}, {"danger", "field", 3},
			{"edge", "card", 3}, {"edge", "field", 3},
		} {
			if got := contrastOf(t, s[tt.what], s[tt.on]); got < tt.least {
				t.Errorf("%s: %s on %s has contrast %.2f, want %.1f", name, tt.what, tt.on, got, tt.least)
			}
		}
	}
}

// surfaces returns the custom properties of style.css that are colours.
func surfaces(t *testing.T) (light, dark map[string]string) {
	t.Helper()
	b, err := fs.ReadFile(builtin(), "templates/style.css")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(b), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of custom properties, want 2", len(blocks))
	}
	both := make([]map[string]string, 2)
	for i, block := range blocks {
		both[i] = make(map[string]string)
		for _, m := range regexp.MustCompile(`--([a-z]+): (#[0-9a-f]+);`).FindAllStringSubmatch(block[1], -1) {
			if len(m[2]) == len("#fff") {
				m[2] = "#" + strings.Repeat(m[2][1:2], 2) + strings.Repeat(m[2][2:3], 2) + strings.Repeat(m[2][3:4], 2)
			}
			both[i][m[1]] = m[2]
		}
	}
	return both[0], both[1]
}
