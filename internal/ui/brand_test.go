package ui_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/gopassreset/reset/internal/ui"
)

func TestBrandCheck(t *testing.T) {
	base, err := url.Parse("https://app.example.com/account")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		brand ui.Brand
		want  string // how the error begins; "" for none
	}{
		{ui.Brand{Name: "Fernweh"}, ""},
		{ui.Brand{Name: "Café & Söhne <3 日本"}, ""},
		{ui.Brand{Name: strings.Repeat("é", 64)}, ""},
		{ui.Brand{Name: strings.Repeat("é", 65)}, "Name: "},
		{ui.Brand{Name: "A\r\nBcc: x"}, "Name: "},
		{ui.Brand{Name: "A\u202eB"}, "Name: "},
		{ui.Brand{Name: " A"}, "Name: "},
		{ui.Brand{Name: "\xff"}, "Name: "},
		{ui.Brand{Name: "A", Logo: "/logo.svg?v=2"}, ""},
		{ui.Brand{Name: "A", Logo: "https://app.example.com/logo.png"}, ""},
		{ui.Brand{Name: "A", Logo: "logo.svg"}, "Logo: "},
		{ui.Brand{Name: "A", Logo: "//cdn.example.net/logo.svg"}, "Logo: "},
		{ui.Brand{Name: "A", Logo: "https://cdn.example.net/logo.svg"}, "Logo: "},
		{ui.Brand{Name: "A", Logo: "http://app.example.com/logo.svg"}, "Logo: "},
		{ui.Brand{Name: "A", Logo: "https://x@app.example.com/logo.svg"}, "Logo: "},
		{ui.Brand{Name: "A", Logo: "data:image/gif;base64,AAAA"}, "Logo: "},
		{ui.Brand{Name: "A", Logo: "javascript:alert(1)"}, "Logo: "},
		{ui.Brand{Name: "A", Logo: "/%zz"}, "Logo: "},
		{ui.Brand{Name: "A", Color: "#1D4ed8"}, ""},
		{ui.Brand{Name: "A", Color: "1d4ed8"}, "Color: "},
		{ui.Brand{Name: "A", Color: "#fff"}, "Color: "},
		{ui.Brand{Name: "A", Color: "#1d4ed80"}, "Color: "},
		{ui.Brand{Name: "A", Color: "#1d4ed8\n"}, "Color: "},
		{ui.Brand{Name: "A", Color: "red;}"}, "Color: "},
	} {
		err := tt.brand.Check(base)
		if (err == nil) != (tt.want == "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%+v: error %v, want %q", tt.brand, err, tt.want)
		}
	}
}
