package guess

import (
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
)

// repeat returns the guesses for one part over and over.
func (t *text) repeat(i, j int) float64 {
	runes := t.runes[i:j]
	n := len(runes)
	for size := 1; size <= n/2; size++ {
		if n%size == 0 && slices.Equal(runes[size:], runes[:n-size]) {
			return t.guesses(runes[:size]) * float64(n/size)
		}
	}
	return math.Inf(1)
}

// sequence returns the guesses for runes at equal distances of one or two, such
// as abcdef, 9876 or 2468.
func (t *text) sequence(i, j int) float64 {
	runes := t.lower[i:j]
	if len(runes) < 3 {
		return math.Inf(1)
	}
	step := runes[1] - runes[0]
	if step == 0 || step < -2 || step > 2 {
		return math.Inf(1)
	}
	for k := 2; k < len(runes); k++ {
		if runes[k]-runes[k-1] != step {
			return math.Inf(1)
		}
	}
	starts := 26.0
	switch {
	case strings.ContainsRune("az019", runes[0]):
		starts = 4
	case unicode.IsDigit(runes[0]):
		starts = 10
	}
	if step != 1 {
		starts *= 2
	}
	return starts * float64(len(runes))
}

// A key is a place on a keyboard.
type key struct{ row, column int }

// layouts are keyboards without and with shift, by rune. Columns are such that
// each key is between two of the row above: its own column and the next one.
var layouts = []map[rune]key{
	layout("`1234567890-=", " qwertyuiop[]\\", " asdfghjkl;'", " zxcvbnm,./",
		"~!@#$%^&*()_+", " QWERTYUIOP{}|", " ASDFGHJKL:\"", " ZXCVBNM<>?"),
	layout("^1234567890ß´", " qwertzuiopü+", " asdfghjklöä#", "<yxcvbnm,.-",
		"°!\"§$%&/()=?`", " QWERTZUIOPÜ*", " ASDFGHJKLÖÄ'", ">YXCVBNM;:_"),
	layout("²&é\"'(-è_çà)=", " azertyuiop^$", " qsdfghjklmù*", "<wxcvbn,;:!",
		" 1234567890°+", " AZERTYUIOP¨£", " QSDFGHJKLM%µ", ">WXCVBN?./§"),
	layout("ё1234567890-=", " йцукенгшщзхъ\\", " фывапролджэ", " ячсмитьбю.",
		"Ё!\"№;%:?*()_+", " ЙЦУКЕНГШЩЗХЪ/", " ФЫВАПРОЛДЖЭ", " ЯЧСМИТЬБЮ,"),
}

func layout(rows ...string) map[rune]key {
	keys := make(map[rune]key)
	for i, row := range rows {
		for column, r := range []rune(row) {
			if r != ' ' {
				keys[r] = key{i % 4, column}
			}
		}
	}
	return keys
}

// walk returns the guesses for keys each of which is next to the one before it.
func (t *text) walk(i, j int) float64 {
	if j-i < 3 {
		return math.Inf(1)
	}
	best := math.Inf(1)
	for _, keys := range layouts {
		if turns, ok := turns(keys, t.runes[i:j]); ok {
			best = min(best, 50*float64(j-i)*math.Pow(5, float64(turns)))
		}
	}
	return best
}

// turns returns how often a walk changes its direction.
func turns(keys map[rune]key, runes []rune) (n int, ok bool) {
	var direction key
	at, ok := keys[runes[0]]
	for k := 1; ok && k < len(runes); k++ {
		next, found := keys[runes[k]]
		d := key{next.row - at.row, next.column - at.column}
		switch {
		case !found:
			return 0, false
		case d == key{0, 1}, d == key{0, -1}, d == key{1, 0}, d == key{1, -1}, d == key{-1, 0}, d == key{-1, 1}:
		default:
			return 0, false
		}
		if k > 1 && d != direction {
			n++
		}
		at, direction = next, d
	}
	return n, ok
}

// tracks are ways over keyboards that are longer than one walk, forward and
// backward.
var tracks = func() string {
	s := strings.Join([]string{
		"01234567890", "147258369", "1472583690", "741852963", "789456123", "159357", "123654789", "123698745",
		"1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/", "1qay2wsx3edc4rfv5tgb6zhn7ujm8ik,9ol.", "1aqw2zsx3edc4rfv5tgb6yhn7uj",
		"qazwsxedcrfvtgbyhnujmikolp", "qaywsxedcrfvtgbzhnujmikolp", "aqwzsxedcrfvtgbyhnujikolpm",
		"q1w2e3r4t5y6u7i8o9p0", "1q2w3e4r5t6y7u8i9o0p", "q1w2e3r4t5z6u7i8o9p0", "1q2w3e4r5t6z7u8i9o0p", "a1z2e3r4t5y6u7i8o9p0", "1a2z3e4r5t6y7u8i9o0p",
		"!qaz@wsx#edc$rfv%tgb^yhn&ujm", "a1s2d3f4g5h6j7k8l9", "1a2s3d4f5g6h7j8k9l", "a1b2c3d4e5f6g7h8i9", "1a2b3c4d5e6f7g8h9i", "йфяцычувскам", "1й2ц3у4к5е6н",
	}, "\n")
	reversed := []rune(s)
	slices.Reverse(reversed)
	return s + "\n" + string(reversed)
}()

// track returns the guesses for a part of a track.
func (t *text) track(i, j int) float64 {
	if j-i < 4 || !strings.Contains(tracks, string(t.lower[i:j])) {
		return math.Inf(1)
	}
	return 50 * float64(j-i)
}

// date returns the guesses for a year, or for a date as digits with or without
// separators.
func (t *text) date(i, j int) float64 {
	n := j - i
	if n < 4 || n > 10 {
		return math.Inf(1)
	}
	digits := make([]byte, 0, 8)
	separators := 0
	for k, r := range t.runes[i:j] {
		switch {
		case r >= '0' && r <= '9' && len(digits) < 8:
			digits = append(digits, byte(r))
		case strings.ContainsRune("./-_ ", r) && k > 0 && k < n-1:
			separators++
		default:
			return math.Inf(1)
		}
	}
	if separators == 0 && n == 4 && "1900" <= string(digits) && string(digits) <= "2049" {
		return 50
	}
	if separators != 0 && separators != 2 {
		return math.Inf(1)
	}
	for _, format := range []string{"02012006", "01022006", "20060102", "020106", "010206", "060102"} {
		if d, err := time.Parse(format, string(digits)); err == nil && d.Year() >= 1900 && d.Year() < 2050 {
			return 365 * 50
		}
	}
	return math.Inf(1)
}
