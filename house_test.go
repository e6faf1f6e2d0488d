package reset_test

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The files of this package depend on each other in one direction: errors and
// records at the bottom, then the interfaces, the service, delivery, and the
// two handlers on top.
func TestFilesFormNoCircle(t *testing.T) {
	uses := fileGraph(t)
	if !uses["reset.go"]["store.go"] || !uses["pages.go"]["http.go"] {
		t.Fatal("the graph lacks arrows that are there")
	}
	for _, circle := range circles(uses) {
		t.Errorf("a circle among files: %s", strings.Join(circle, " → "))
	}
}

// fileGraph returns, for each file of the package, the files that declare what
// it uses.
func fileGraph(t *testing.T) map[string]map[string]bool {
	t.Helper()
	pkg, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range pkg.GoFiles {
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := types.Info{Uses: make(map[*ast.Ident]types.Object)}
	// Other packages are empty here, which costs type errors but no arrow:
	// what this package declares is resolved all the same.
	config := types.Config{Error: func(error) {}, Importer: emptyImporter{}}
	checked, _ := config.Check(pkg.Name, fset, files, &info)
	uses := make(map[string]map[string]bool)
	file := func(pos token.Pos) string { return filepath.Base(fset.Position(pos).Filename) }
	for ident, object := range info.Uses {
		from, to := file(ident.Pos()), file(object.Pos())
		if object.Pkg() != checked || from == to {
			continue
		}
		if uses[from] == nil {
			uses[from] = make(map[string]bool)
		}
		uses[from][to] = true
	}
	return uses
}

type emptyImporter struct{}

func (emptyImporter) Import(path string) (*types.Package, error) {
	p := types.NewPackage(path, filepath.Base(path))
	p.MarkComplete()
	return p, nil
}

// circles returns a path from each file that leads back to it.
func circles(uses map[string]map[string]bool) (found [][]string) {
	const visiting, done = 1, 2
	state := make(map[string]int)
	var visit func(path []string)
	visit = func(path []string) {
		file := path[len(path)-1]
		switch state[file] {
		case visiting:
			found = append(found, path[slices.Index(path, file):])
			return
		case done:
			return
		}
		state[file] = visiting
		for _, next := range slices.Sorted(maps.Keys(uses[file])) {
			visit(append(slices.Clone(path), next))
		}
		state[file] = done
	}
	for _, file := range slices.Sorted(maps.Keys(uses)) {
		visit([]string{file})
	}
	return found
}
