package reset

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	defaultColor = "#1d4ed8"
	maxBrandName = 64 // code points
)

// check checks a brand whose name is set. Its error begins with a field's name.
func (b Brand) check(base *url.URL) error {
	for _, c := range []struct {
		field string
		err   error
	}{
		{"Name", checkBrandName(b.Name)},
		{"Logo", checkLogo(b.Logo, base)},
		{"Color", checkColor(b.Color)},
	} {
		if c.err != nil {
			return fmt.Errorf("%s: %w", c.field, c.err)
		}
	}
	return nil
}

func checkBrandName(name string) error {
	switch {
	case name != cleanLine(name):
		return errors.New("has control or invisible characters, or spaces to spare")
	case utf8.RuneCountInString(name) > maxBrandName:
		return fmt.Errorf("longer than %d characters", maxBrandName)
	}
	return nil
}

func checkColor(s string) error {
	if s == "" {
		return nil
	}
	_, err := parseColor(s)
	return err
}

func checkLogo(logo string, base *url.URL) error {
	if logo == "" {
		return nil
	}
	u, err := url.Parse(logo)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme == "" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		return nil
	case u.Scheme != base.Scheme || u.Host != base.Host || u.User != nil:
		return errors.New("neither a path that begins with / nor a URL on the origin of BaseURL")
	}
	return nil
}

// initial is what stands for a brand without a logo: the first letter of its
// name, or "" if it begins with something else.
func (b Brand) initial() string {
	r, _ := utf8.DecodeRuneInString(b.Name)
	if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
		return ""
	}
	return string(unicode.ToUpper(r))
}

// cleanLine takes out of s what could break or reorder a line: control and
// format characters, among them the bidirectional overrides, but not the
// joiners that Persian and Indic words are spelt with.
func cleanLine(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == '\u200c' || r == '\u200d':
			return r
		case unicode.Is(unicode.C, r), r == utf8.RuneError:
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// A color is red, green and blue in sRGB, each from 0 to 255.
type color [3]uint8

var colorForm = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)

func parseColor(s string) (color, error) {
	if !colorForm.MatchString(s) {
		return color{}, errors.New("not of the form #rrggbb")
	}
	n, err := strconv.ParseUint(s[1:], 16, 32)
	return color{uint8(n >> 16), uint8(n >> 8), uint8(n)}, err
}

func (c color) String() string { return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2]) }

// luminance is the relative luminance of WCAG 2.2.
func (c color) luminance() float64 {
	var linear [3]float64
	for i, v := range c {
		s := float64(v) / 255
		if s <= 0.04045 {
			linear[i] = s / 12.92
		} else {
			linear[i] = math.Pow((s+0.055)/1.055, 2.4)
		}
	}
	return 0.2126*linear[0] + 0.7152*linear[1] + 0.0722*linear[2]
}

// contrast is the contrast ratio of WCAG 2.2, from 1 to 21.
func contrast(a, b color) float64 {
	la, lb := a.luminance(), b.luminance()
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

// toward is c with a share of another colour, in hundredths.
func (c color) toward(other color, percent int) (mixed color) {
	for i := range c {
		mixed[i] = uint8((int(c[i])*(100-percent) + int(other[i])*percent) / 100)
	}
	return mixed
}

// isGray reports whether a colour has hardly any hue.
func (c color) isGray() bool {
	return max(c[0], c[1], c[2])-min(c[0], c[1], c[2]) < 24
}

var (
	white = color{0xff, 0xff, 0xff}
	black = color{}

	// The surfaces of style.css on which text has the least contrast.
	lightSurface = color{0xf3, 0xf4, 0xf6}
	darkSurface  = color{0x1a, 0x1d, 0x23}
	mailSurface  = color{0x2b, 0x2b, 0x2b} // of the dark mail programs the palest
)

const (
	textContrast  = 4.5 // WCAG 2.2 AA, 1.4.3
	darkContrast  = 6   // of text on dark, where 4.5 still looks dim
	shapeContrast = 3   // WCAG 2.2 AA, 1.4.11
	grayContrast  = 12
	paleContrast  = 1.4 // of what has no outline and no other purpose than to show where text is
)

// A scheme is what becomes of the brand's colour on light or on dark.
type scheme struct {
	Button, OnButton color
	Link             color // also the outline of buttons and of what has the focus
}

// schemes keeps the colour of buttons where they stand out and moves that of
// links toward black or white until they can be read.
func schemes(brand color) (light, dark scheme) {
	light = scheme{Button: brand, Link: brand.against(lightSurface, black, textContrast)}
	// On light even the palest button has the outline; on dark a deep one
	// would look switched off.
	dark = scheme{Button: brand.against(darkSurface, white, shapeContrast), Link: brand.against(darkSurface, white, darkContrast)}
	light.OnButton, dark.OnButton = textOn(light.Button), textOn(dark.Button)
	return light, dark
}

// against moves c toward a pole until it has some contrast with a surface. A
// gray goes a long way: halfway it too would look switched off.
func (c color) against(surface, pole color, enough float64) color {
	if c.isGray() && contrast(c, surface) < enough {
		enough = grayContrast
	}
	moved := c
	for percent := 2; percent <= 100 && contrast(moved, surface) < enough; percent += 2 {
		moved = c.toward(pole, percent)
	}
	return moved
}

// textOn is white wherever that can be read, and else black, which then can.
func textOn(c color) color {
	if contrast(c, white) >= textContrast {
		return white
	}
	return black
}

// css declares the custom properties that style.css draws with.
func (s scheme) css() string {
	return fmt.Sprintf(":root{--button:%v;--on-button:%v;--link:%v}", s.Button, s.OnButton, s.Link)
}
