package ui_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// doc is what the tests ask of HTML: the attributes of its elements in order,
// with the name of the element under "", and its text without style and script.
type doc struct {
	elements []map[string]string
	text     string
}

func parseDoc(t *testing.T, s string) (d doc) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for n := range root.Descendants() {
		switch {
		case n.Type == html.ElementNode:
			e := map[string]string{"": n.Data}
			for _, a := range n.Attr {
				e[a.Key] = a.Val
			}
			d.elements = append(d.elements, e)
			if n.Data == "p" || n.Data == "br" || n.Data == "h1" {
				text.WriteString("\n")
			}
		case n.Type == html.TextNode && n.Parent.Data != "style" && n.Parent.Data != "script":
			text.WriteString(n.Data)
		}
	}
	d.text = text.String()
	return d
}

func (d doc) all(tag string) (found []map[string]string) {
	for _, e := range d.elements {
		if e[""] == tag {
			found = append(found, e)
		}
	}
	return found
}

func (d doc) one(t *testing.T, tag string) map[string]string {
	t.Helper()
	all := d.all(tag)
	if len(all) != 1 {
		t.Fatalf("%d elements <%s>, want 1", len(all), tag)
	}
	return all[0]
}

var voidElements = []string{"br", "hr", "img", "input", "link", "meta"}

// checkBalanced finds tags that a browser would have to repair.
func checkBalanced(t *testing.T, s string) {
	t.Helper()
	z := html.NewTokenizer(strings.NewReader(s))
	var open []string
	for {
		kind := z.Next()
		token := z.Token()
		switch {
		case kind == html.ErrorToken:
			if z.Err() != io.EOF || len(open) > 0 {
				t.Errorf("not well-formed: %v, open: %q", z.Err(), open)
			}
			return
		case kind == html.StartTagToken && !slices.Contains(voidElements, token.Data):
			open = append(open, token.Data)
		case kind == html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != token.Data {
				t.Errorf("</%s> where %q are open", token.Data, open)
				return
			}
			open = open[:len(open)-1]
		}
	}
}
