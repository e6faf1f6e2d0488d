package guess

import (
	_ "embed"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// wordList has a line for each word, sorted by bytes: the word in lower case, a
// space, and the binary logarithm of its rank in base 36. See words.LICENSE.
//
//go:embed words.txt
var wordList string

const minWord, maxWord = 3, 32 // runes

// logRank returns the binary logarithm of a word's rank.
func logRank(word string) (log int, ok bool) {
	low, high := 0, len(wordList) // both are beginnings of lines
	for low < high {
		middle := strings.LastIndexByte(wordList[:low+(high-low)/2], '\n') + 1
		middle = max(middle, low)
		line, _, _ := strings.Cut(wordList[middle:], "\n")
		got, digit := line[:len(line)-2], line[len(line)-1]
		switch strings.Compare(got, word) {
		case 0:
			return logOf(digit), true
		case 1:
			high = middle
		default:
			low = middle + len(line) + 1
		}
	}
	return 0, false
}

// logOf returns the value of a digit in base 36.
func logOf(digit byte) int {
	if digit <= '9' {
		return int(digit - '0')
	}
	return int(digit-'a') + 10
}

// A form is a password as it may have been before it was varied.
type form struct {
	s       string
	starts  []int // byte offset of each rune, and of the end
	changed []int // how many of the runes before each rune have been changed
	reverse bool
}

// leet has the letters that digits and punctuation stand for. Where there are
// two, each has a form of its own.
var leet = map[rune]string{
	'0': "oo", '1': "il", '2': "zz", '3': "ee", '4': "aa", '5': "ss", '6': "gb", '7': "tt", '8': "bb", '9': "gg",
	'@': "aa", '$': "ss", '!': "il", '|': "il", '+': "tt", '(': "cc", '<': "cc", '€': "ee", '%': "xx",
}

// newForms returns the forms of a password in lower case: as it is, reversed,
// and with letters in place of digits, punctuation and accented letters.
func newForms(lower []rune) []form {
	plain := make([]rune, len(lower))
	leet1, leet2 := make([]rune, len(lower)), make([]rune, len(lower))
	reversed := make([]rune, len(lower))
	for i, r := range lower {
		plain[i], leet1[i], leet2[i] = r, r, r
		reversed[len(lower)-1-i] = r
		if letters, ok := leet[r]; ok {
			leet1[i], leet2[i] = rune(letters[0]), rune(letters[1])
		} else if base := withoutAccent(r); base != r {
			leet1[i], leet2[i] = base, base
		}
	}
	forms := []form{newForm(plain, lower), newForm(reversed, reversed)}
	forms[1].reverse = true
	if string(leet1) != string(plain) {
		forms = append(forms, newForm(leet1, lower))
	}
	if string(leet2) != string(leet1) {
		forms = append(forms, newForm(leet2, lower))
	}
	return forms
}

func newForm(runes, original []rune) form {
	f := form{s: string(runes), starts: []int{0}, changed: []int{0}}
	for i, r := range runes {
		f.starts = append(f.starts, f.starts[i]+utf8.RuneLen(r))
		changed := f.changed[i]
		if r != original[i] {
			changed++
		}
		f.changed = append(f.changed, changed)
	}
	return f
}

// strokes are letters that do not decompose.
var strokes = map[rune]rune{'ł': 'l', 'ø': 'o', 'đ': 'd', 'ð': 'd', 'ħ': 'h', 'ı': 'i', 'ß': 's'}

// withoutAccent returns the letter that r, a letter in lower case, is based on.
func withoutAccent(r rune) rune {
	if r < utf8.RuneSelf || !unicode.Is(unicode.Latin, r) {
		return r
	}
	if base, ok := strokes[r]; ok {
		return base
	}
	base, _ := utf8.DecodeRuneInString(norm.NFD.String(string(r)))
	return base
}

// word returns the guesses for a word, also one that was reversed or written in
// leet.
func (t *text) word(i, j int) float64 {
	if j-i < minWord || j-i > maxWord {
		return math.Inf(1)
	}
	best := math.Inf(1)
	for _, f := range t.forms {
		a, b, factor := i, j, 1.0
		if f.reverse {
			a, b, factor = len(t.runes)-j, len(t.runes)-i, 2
		}
		if changed := f.changed[b] - f.changed[a]; changed > 0 {
			factor = math.Exp2(float64(min(changed, 3)))
		}
		s := f.s[f.starts[a]:f.starts[b]]
		if t.hints[s] {
			best = min(best, factor)
		} else if log, ok := logRank(s); ok {
			best = min(best, factor*math.Exp2(float64(log)))
		}
	}
	return best
}
