package guess_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gopassreset/reset/internal/guess"
)

// enough is how many guesses package reset asks for.
const enough = 1e7

func TestGuessable(t *testing.T) {
	for _, kind := range []struct {
		name      string
		passwords []string
	}{
		{"listed", []string{"password", "contraseña", "sonnenblume", "tournesol", "słonecznik", "ayçiçeği", "пароль", "ひまわり"}},
		{"decorated", []string{"12345678!", "abcdefgh1", "1password", "!!password!!", "Sonnenblume42!", "Girasole2026", "***baseball***", "(letmein)", "Summer2026!", "2026summer"}},
		{"capitals", []string{"PASSWORD", "Password", "passworD", "PaSsWoRd", "pASSWORD1"}},
		{"leet", []string{"p@ssw0rd", "P455W0RD", "$unfl0wer", "m0nk3y123", "tr1n1ty1", "f00tba11", "b4s3b@ll", "|loveyou", "P@ssw0rd!2024#", "sönnenschein"}},
		{"reversed", []string{"drowssap", "1drowssap", "llabesab!", "0987drowssap"}},
		{"joined", []string{"monkeydragon", "iloveyoubaby", "qwer1234", "1234qwer", "abcd1234", "asdf1234!", "qwertyasdfgh", "abc123xyz", "HelloWorld2024"}},
		{"rows", []string{"qwertyuiop", "poiuytrewq", "qwertzuiop", "azertyuiop", "asdfghjkl", "qsdfghjklm", "zxcvbnm,", "yxcvbnm,", "йцукенгш", "фывапролдж", "asdfghjklö"}},
		{"shifted rows", []string{"!@#$%^&*", `!"§$%&/(`, "QWERTYUI", "QWErtyui", "!QAZ@WSX", `ASDFGHJK`}},
		{"columns", []string{"1qaz2wsx", "1qay2wsx", "1aqw2zsx", "qazwsxedc", "zaq12wsx", "q1w2e3r4", "a1z2e3r4", "!QAZ2wsx", "741852963", "159357159357"}},
		{"sequences", []string{"12345678", "87654321", "abcdefgh", "zyxwvuts", "24681012", "acegikmo", "абвгдежз", "01234567890123456789"}},
		{"repeats", []string{"aaaaaaaa", "abababab", "abcabcabc1", "monkeymonkey", "monkeymonkey1", "helloworldhelloworld", "xk7xk7xk7xk7", strings.Repeat("password", 30)}},
		{"full width", []string{"ｐａｓｓｗｏｒｄ", "１２３４５６７８", "Ｐａｓｓｗｏｒｄ１", "ⓟⓐⓢⓢⓦⓞⓡⓓ"}},
		{"separated", []string{"p a s s w o r d", "pass-word", "1 2 3 4 5 6 7 8", "1-2-3-4-5-6-7-8", "i love you", "dragon.dragon"}},
		{"dates", []string{"24121984", "12241984", "19841224", "24.12.1984", "24/12/84", "1984-12-24", "01011990!"}},
	} {
		for _, p := range kind.passwords {
			if got := guess.Guesses(p); got >= enough {
				t.Errorf("%s: %q takes %.2g guesses, want less than %.0g", kind.name, p, got, enough)
			}
		}
	}
}

// Attackers try first what they know of the service and of the user.
func TestHints(t *testing.T) {
	hints := []string{"Harbour", "Kontor Süd", "Mikołaj Wiśniewski-Zając", "m.wisniewski_84", "mw", ""}
	for _, p := range []string{
		"Harbour2026", "harbour!", "H4rb0ur2026!", "HARBOUR-2026", "ruobrah123", "harbourharbour", "kontorsüd2026", "KontorSud!", "Mikołaj84",
		"mikolaj.1984", "Wiśniewski99!", "WISNIEWSKI99!", "mikolajwisniewski", "wisniewski84", "passwordharbour", "ＨＡＲＢＯＵＲ１",
	} {
		if got := guess.Guesses(p, hints...); got >= enough {
			t.Errorf("%q takes %.2g guesses, want less than %.0g", p, got, enough)
		}
	}
	if without := guess.Guesses("Wisniewski99!"); without < enough {
		t.Errorf("%.2g guesses for a name that nobody gave", without)
	}
	if got := guess.Guesses(strings.Repeat("a", 100) + "J8#kd92LsPq0"); got < enough {
		t.Errorf("%.2g guesses for what ends in random characters", got)
	}
	if got := guess.Guesses("mw7-quark-x3", hints...); got < enough {
		t.Errorf("%.2g guesses: a word of two letters counts", got)
	}
}

// Passphrases and random passwords are not refused.
func TestPassphrases(t *testing.T) {
	for lang, phrases := range map[string]string{
		"en": `nine grey herons|correct horse battery staple|my aunt keeps seven goats|purple-kettle-harvest|the tram was late again today|Seven old clocks tick softly|rusty bicycle lantern|eat more toast, Gerald|thirteenCuriousOtters|window plum gravel
			|two owls argue about jazz|cold tea and warm rain|four green umbrellas|never trust a quiet goose|lampshade museum tickets|paint the shed on Tuesday|blue mountain paper boat|soup before six please|an elephant on the stairs|quiet library thunder`,
		"de": `mein Hund heißt Kaltschale|sieben graue Reiher|Oma backt montags Zwiebelkuchen|der Zug kommt nie pünktlich|lila-kessel-ernte|drei Gurken im Aquarium|wer hat die Leiter geklaut|Nebel über dem Deich|achtzehn Stufen bis zum Keller|Regenschirm Pfütze Laterne
			|Tante Erna züchtet Ziegen|kalter Tee und warmer Regen|morgen wird alles gelb|ein Elefant auf der Treppe|bitte keine Suppe heute|Fahrrad ohne Klingel|die Uhr geht sieben vor|stille Bibliothek im Gewitter|das Schaf trägt Hut|Besen Mond Gabel`,
		"fr": `mon chien mange des poires|sept hérons gris|la tante élève des chèvres|parapluie flaque lanterne|le train est encore en retard|trois concombres dans le bain|vélo rouillé sans sonnette|jamais de soupe le mardi|un éléphant dans l’escalier|thé froid et pluie chaude
			|brume sur le canal|qui a volé mon échelle|bouilloire-violette-moisson|dix-huit marches vers la cave|demain tout sera jaune|bibliothèque muette orage|horloge en avance de sept|le mouton porte un chapeau|balai lune fourchette|peindre la cabane jeudi`,
		"es": `siete garzas grises|mi tía cría cabras|el tren llega tarde otra vez|tetera morada cosecha|tres pepinos en la bañera|bicicleta oxidada sin timbre|paraguas charco farol|nunca hay sopa los martes|un elefante en la escalera|té frío y lluvia tibia
			|niebla sobre el puerto|quién robó la escalera|dieciocho peldaños al sótano|mañana todo será amarillo|biblioteca muda trueno|el reloj adelanta siete|la oveja lleva sombrero|escoba luna tenedor|pintar el cobertizo el jueves|barco de papel azul`,
		"pl": `siedem szarych czapli|ciotka hoduje kozy|pociąg znowu się spóźnia|fioletowy czajnik żniwa|trzy ogórki w wannie|zardzewiały rower bez dzwonka|parasol kałuża latarnia|nigdy zupy we wtorek|słoń na schodach|zimna herbata ciepły deszcz
			|mgła nad kanałem|kto ukradł drabinę|osiemnaście stopni do piwnicy|jutro wszystko będzie żółte|cicha biblioteka grzmot|zegar spieszy się siedem|owca nosi kapelusz|miotła księżyc widelec|malować szopę w czwartek|łódka z papieru`,
		"ru": `семь серых цапель|тётя разводит коз|поезд опять опоздал|лиловый чайник урожай|три огурца в ванне|ржавый велосипед без звонка|зонтик лужа фонарь|слон на лестнице|холодный чай тёплый дождь|овца в шляпе`,
		"ja": `七羽の灰色の鷺が飛ぶ|叔母は山羊を飼っている|冷たいお茶と温かい雨|象が階段にいます|錆びた自転車と提灯`,
	} {
		for phrase := range strings.SplitSeq(phrases, "|") {
			phrase = strings.TrimSpace(phrase)
			if got := guess.Guesses(phrase, "Harbour", "Ann", "Lee", "ann.lee", "example"); got < enough {
				t.Errorf("%s: %q takes %.2g guesses, want %.0g or more", lang, phrase, got, enough)
			}
		}
	}
}

func TestRandomPasswords(t *testing.T) {
	const lower, digits = "abcdefghijklmnopqrstuvwxyz", "0123456789"
	r := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		alphabet string
		length   int
		most     int // refused of 1,000
	}{
		{lower, 8, 5}, {lower + digits, 8, 5}, {lower + strings.ToUpper(lower) + digits + "!@#$%^&*-_", 8, 5},
		{lower, 10, 0}, {lower + digits, 10, 0}, {lower + strings.ToUpper(lower) + digits + "!@#$%^&*-_", 10, 0},
	} {
		var refused []string
		for range 1000 {
			password := make([]byte, tt.length)
			for i := range password {
				password[i] = tt.alphabet[r.IntN(len(tt.alphabet))]
			}
			if guess.Guesses(string(password)) < enough {
				refused = append(refused, string(password))
			}
		}
		if len(refused) > tt.most {
			t.Errorf("%d of 1,000 random passwords of %d out of %d characters are guessable, want %d at most: %q",
				len(refused), tt.length, len(tt.alphabet), tt.most, refused)
		}
	}
}

func TestWordList(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(guess.WordList, "\n"), "\n")
	if len(lines) < 10_000 {
		t.Errorf("%d words, want 10,000 or more", len(lines))
	}
	var previous string
	for i, line := range lines {
		word, digit, ok := strings.Cut(line, " ")
		log, err := strconv.ParseUint(digit, 36, 8)
		if !ok || err != nil || log > 15 || word != strings.ToLower(word) || utf8.RuneCountInString(word) < 3 {
			t.Fatalf("line %d is %q, want a word in lower case, a space, and a digit up to f", i+1, line)
		}
		if word <= previous {
			t.Fatalf("line %d: %q comes after %q", i+1, word, previous)
		}
		previous = word
		if i%97 == 0 { // each takes some 50 µs
			for _, password := range []string{word, strings.ToUpper(word), word + "1", "1" + word + "!", word + "123"} {
				if got := guess.Guesses(password); got >= enough && len(password) >= 8 {
					t.Errorf("%q takes %.2g guesses, want less than %.0g", password, got, enough)
				}
			}
		}
	}
	for _, line := range slices.Concat(lines[:1], lines[len(lines)-1:]) {
		if word, _, _ := strings.Cut(line, " "); guess.Guesses(word) >= enough {
			t.Errorf("%q, at an end of the list, is not found", word)
		}
	}
}

func FuzzGuesses(f *testing.F) {
	for _, s := range []string{"", "password", "P@ssw0rd!2024#", "24.12.1984", "ｐａｓｓ", "\xff\x00", "e\u0301\u200d", strings.Repeat("ab", 100)} {
		f.Add(s, "Harbour")
	}
	f.Fuzz(func(t *testing.T, password, hint string) {
		got := guess.Guesses(password, hint)
		if !(got >= 0.5) {
			t.Errorf("Guesses(%q, %q) = %v", password, hint, got)
		}
		if with, without := got, guess.Guesses(password); with > without {
			t.Errorf("Guesses(%q) = %v with hint %q, and %v without", password, with, hint, without)
		}
	})
}

func BenchmarkGuesses(b *testing.B) {
	for _, password := range []string{"nine grey herons", "Tr0ub4dour&3", strings.Repeat("!QAZ2wsx#EDC4rfv ", 60)} {
		b.Run(fmt.Sprintf("%.16s", password), func(b *testing.B) {
			for b.Loop() {
				guess.Guesses(password, "Harbour", "Ann", "Lee")
			}
		})
	}
}
