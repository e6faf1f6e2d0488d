package reset_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gopassreset/reset"
)

// The documentation of Config.Logger lists every event under its level.
func TestEventsAreDocumented(t *testing.T) {
	var want []string
	for _, e := range reset.Events() {
		want = append(want, fmt.Sprintf("%v %s", e.Level, e.Name))
	}
	_, list, ok := strings.Cut(fieldDoc(t, "config.go", "Logger"), "The events are:")
	if !ok {
		t.Fatal("no list of events")
	}
	var got []string
	level := ""
	for _, word := range regexp.MustCompile(`\w+`).FindAllString(list, -1) {
		if word == strings.ToUpper(word) {
			level = word
			continue
		}
		got = append(got, level+" "+word)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("documented events:\n%q, want\n%q", got, want)
	}
}

// fieldDoc returns the comment of a field of a struct in a file.
func fieldDoc(t *testing.T, file, name string) (doc string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if field, ok := n.(*ast.Field); ok && len(field.Names) > 0 && field.Names[0].Name == name {
			doc = field.Doc.Text()
		}
		return true
	})
	return doc
}
