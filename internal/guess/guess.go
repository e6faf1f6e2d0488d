// Package guess estimates how many guesses find a password, if the attacker
// knows which passwords are common and how people vary them. It follows the
// idea of zxcvbn (Wheeler, USENIX Security 2016): a password is as strong as the
// cheapest way to build it from pieces such as words, runs of keys, repeats and
// dates.
package guess

import (
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	maxRunes  = 40 // of a password that are looked at, at either end; more do not make it easier to guess
	perRune   = 20 // guesses for a rune that belongs to no other piece
	perMark   = 10 // guesses for a digit or mark of ASCII that does not
	perPiece  = 2  // factor for each further piece, since the order has to be guessed, too
	separated = 10 // factor for spaces or punctuation between words or runes

	// Digits and marks around a common password cost less than elsewhere.
	maxDecorated = 1 << 17 // guesses for the password inside
	maxAround    = 4       // runes before it, and as many after it
	perAround    = 4       // guesses for each of them
)

// Guesses estimates how many guesses find password. hints are what an attacker
// tries first, such as the names of the service and of the user. Full-width and
// other compatibility forms count as the plain ones (NFKC).
func Guesses(password string, hints ...string) float64 {
	e := estimator{hints: make(map[string]bool), known: make(map[string]float64)}
	for _, hint := range hints {
		e.addHint(hint)
	}
	password = norm.NFKC.String(password)
	n := e.ends([]rune(password))
	if joined := strings.Map(dropSeparator, password); joined != password {
		n = min(n, separated*e.ends([]rune(joined)))
	}
	return n
}

func dropSeparator(r rune) rune {
	if unicode.IsSpace(r) || strings.ContainsRune("-_.,;:/+", r) {
		return -1
	}
	return r
}

func isNoLetter(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsMark(r) }

// An estimator estimates a password and the parts of it that repeat.
type estimator struct {
	hints map[string]bool    // in lower case
	known map[string]float64 // results by password
}

// addHint adds the words of a hint, alone and joined, also without accents.
func (e *estimator) addHint(hint string) {
	hint = strings.ToLower(norm.NFKC.String(hint))
	words := strings.FieldsFunc(hint, isNoLetter)
	lettersAndDigits := strings.Map(func(r rune) rune {
		if isNoLetter(r) && !unicode.IsNumber(r) {
			return -1
		}
		return r
	}, hint)
	for _, word := range append(words, strings.Join(words, ""), lettersAndDigits) {
		if utf8.RuneCountInString(word) >= minWord {
			e.hints[word] = true
			e.hints[strings.Map(withoutAccent, word)] = true
		}
	}
}

// ends returns the cost of runes, which is that of their beginning or of their
// end, whichever is higher.
func (e *estimator) ends(runes []rune) float64 {
	return max(e.guesses(runes), e.guesses(runes[max(0, len(runes)-maxRunes):]))
}

// guesses returns the cost of the cheapest way to build runes from pieces.
func (e *estimator) guesses(runes []rune) float64 {
	runes = runes[:min(len(runes), maxRunes)]
	key := string(runes)
	if n, ok := e.known[key]; ok {
		return n
	}
	t := newText(e, runes)
	best := make([]float64, len(runes)+1) // by how many runes are built
	best[0] = 1
	for j := 1; j <= len(runes); j++ {
		best[j] = t.piece(0, j)
		for i := 1; i < j; i++ {
			best[j] = min(best[j], best[i]*perPiece*t.piece(i, j))
		}
	}
	e.known[key] = min(best[len(runes)], t.decorated())
	return e.known[key]
}

// A text is a password in the forms in which pieces are recognised.
type text struct {
	*estimator
	runes []rune
	lower []rune
	forms []form
}

func newText(e *estimator, runes []rune) *text {
	t := &text{estimator: e, runes: runes, lower: make([]rune, len(runes))}
	for i, r := range runes {
		t.lower[i] = unicode.ToLower(r)
	}
	t.forms = newForms(t.lower)
	return t
}

// piece returns the guesses for the runes i to j as one piece.
func (t *text) piece(i, j int) float64 {
	n := min(bruteForce(t.runes[i:j]), t.repeat(i, j), t.date(i, j))
	if guesses := min(t.word(i, j), t.sequence(i, j), t.walk(i, j), t.track(i, j)); guesses < n {
		n = min(n, guesses*caseFactor(t.runes[i:j]))
	}
	return n
}

// decorated returns the guesses for a common password with digits or marks
// around it.
func (t *text) decorated() float64 {
	best := math.Inf(1)
	for i := 0; i == 0 || i <= maxAround && i <= len(t.runes) && isNoLetter(t.runes[i-1]); i++ {
		for j := len(t.runes); j > i && j >= len(t.runes)-maxAround && (j == len(t.runes) || isNoLetter(t.runes[j])); j-- {
			n := t.piece(i, j)
			if n <= min(maxDecorated, bruteForce(t.runes[i:j])/perRune) {
				best = min(best, n*math.Pow(perAround, float64(i+len(t.runes)-j)))
			}
		}
	}
	return best
}

// bruteForce returns the guesses for runes of which nothing is known.
func bruteForce(runes []rune) float64 {
	n := 1.0
	for _, r := range runes {
		if r < utf8.RuneSelf && isNoLetter(r) {
			n *= perMark
		} else {
			n *= perRune
		}
	}
	return n
}

// caseFactor returns how many ways of writing capitals an attacker tries before
// this one.
func caseFactor(runes []rune) float64 {
	upper := 0
	for _, r := range runes {
		if unicode.IsUpper(r) {
			upper++
		}
	}
	switch {
	case upper == 0:
		return 1
	case upper == len(runes), upper == 1 && (unicode.IsUpper(runes[0]) || unicode.IsUpper(runes[len(runes)-1])):
		return 2
	}
	return 8
}
