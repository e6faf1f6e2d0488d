package ui

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
)

const defaultColor = "#1d4ed8"

// A color is red, green and blue in sRGB, each from 0 to 255.
type color [3]uint8

var colorForm = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)

func parseColor(s string) (color, error) {
	if !colorForm.MatchString(s) {
		return color{}, errors.New("is not of the form #rrggbb")
	}
	n, err := strconv.ParseUint(s[1:], 16, 32)
	return color{uint8(n >> 16), uint8(n >> 8), uint8(n)}, err
}

func (c color) String() string { return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2]) }

// luminance returns the relative luminance of WCAG 2.2.
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

// contrast returns the contrast ratio of WCAG 2.2, from 1 to 21.
func contrast(a, b color) float64 {
	la, lb := a.luminance(), b.luminance()
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

// toward mixes c with a percentage of another colour.
func (c color) toward(other color, percent int) (mixed color) {
	for i := range c {
		mixed[i] = uint8((int(c[i])*(100-percent) + int(other[i])*percent) / 100)
	}
	return mixed
}

// isGray reports whether c has hardly any hue.
func (c color) isGray() bool {
	return max(c[0], c[1], c[2])-min(c[0], c[1], c[2]) < 24
}

var (
	white = color{0xff, 0xff, 0xff}
	black = color{}

	// The surfaces of style.css on which text has the least contrast.
	lightSurface = color{0xf3, 0xf4, 0xf6}
	darkSurface  = color{0x1a, 0x1d, 0x23}
	mailSurface  = color{0x2b, 0x2b, 0x2b} // the lightest background of dark mail programs
)

const (
	textContrast  = 4.5 // WCAG 2.2 AA, 1.4.3
	darkContrast  = 6   // text on dark, where 4.5 still looks dim
	shapeContrast = 3   // WCAG 2.2 AA, 1.4.11
	grayContrast  = 12  // grays that must move at all
	paleContrast  = 1.4 // buttons in mail, which only show where their label is
)

// A scheme holds the colours derived from the brand's for one background, light
// or dark.
type scheme struct {
	Button, OnButton color
	Link             color // also outlines buttons and the focused element
}

// schemes keeps the colour of buttons where they stand out, and moves that of
// links toward black or white until they are readable.
func schemes(brand color) (light, dark scheme) {
	light = scheme{Button: brand, Link: brand.against(lightSurface, black, textContrast)}
	// On a light background even the palest button has its outline; on a dark
	// one a deep colour would look disabled.
	dark = scheme{Button: brand.against(darkSurface, white, shapeContrast), Link: brand.against(darkSurface, white, darkContrast)}
	light.OnButton, dark.OnButton = textOn(light.Button), textOn(dark.Button)
	return light, dark
}

// against moves c toward a pole until it contrasts enough with a surface. A gray
// moves a long way: halfway it would look disabled.
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

// textOn returns white where that is readable, else black, which then is.
func textOn(c color) color {
	if contrast(c, white) >= textContrast {
		return white
	}
	return black
}

// css declares the custom properties that style.css uses.
func (s scheme) css() string {
	return fmt.Sprintf(":root{--button:%v;--on-button:%v;--link:%v}", s.Button, s.OnButton, s.Link)
}
