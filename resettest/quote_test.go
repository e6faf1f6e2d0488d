package resettest

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// A sentence that a suite quotes stands word for word in a doc comment: an
// implementer can read every promise that the suite tests.
func TestQuotes(t *testing.T) {
	for _, test := range []struct {
		file, name string
		quotes     []string
	}{
		{"../store.go", "Store", slices.Concat(quotes(storeSentences(false)), quotes(storeSentences(true)))},
		{"../clock.go", "ClockStore", quotes(clockSentences())},
		{"../realm.go", "RealmStore", quotes(realmSentences(true))},
		{"../stats.go", "StatsStore", quotes(statsSentences())},
		{"../history.go", "HistoryStore", quotes(historySentences())},
		{"../limiter.go", "Limiter", quotes(limiterSentences())},
		{"../mailer.go", "Mailer", quotes(mailerSentences())},
		{"../users.go", "Users", quotes(usersSentences(UsersHost{Barred: []string{""}}))},
		{"../reset.go", "", quotes(hostSentences(Host{ChangePassword: noChange}))},
	} {
		doc := docOf(t, test.file, test.name)
		for _, quote := range test.quotes {
			if quote == "" || !strings.Contains(doc, quote) {
				t.Errorf("the doc comment of %s does not say %q", test.name, quote)
			}
		}
	}
}

func quotes[T any](sentences []sentence[T]) (quotes []string) {
	for _, s := range sentences {
		quotes = append(quotes, s.quote)
	}
	return quotes
}

func noChange(context.Context, string, string, string) error { return nil }

// docOf returns the doc comments of an interface and its methods, or of the
// package if name is "", with single spaces between words and without the
// brackets of links.
func docOf(t *testing.T, file, name string) string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var doc strings.Builder
	if name == "" {
		doc.WriteString(parsed.Doc.Text())
	}
	for _, decl := range parsed.Decls {
		decl, ok := decl.(*ast.GenDecl)
		if !ok || decl.Tok != token.TYPE || decl.Specs[0].(*ast.TypeSpec).Name.Name != name {
			continue
		}
		doc.WriteString(decl.Doc.Text())
		for _, method := range decl.Specs[0].(*ast.TypeSpec).Type.(*ast.InterfaceType).Methods.List {
			doc.WriteString(method.Doc.Text())
		}
	}
	words := strings.Fields(doc.String())
	return strings.NewReplacer("[", "", "]", "").Replace(strings.Join(words, " "))
}
