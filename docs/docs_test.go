// Package docs_test checks what README.md, CONTRIBUTING.md, SECURITY.md and the
// pages beside it say: tests that they name exist, Go snippets are code of this
// repository, links lead somewhere, and the transcript of the contract is what
// the handler answers.
package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = ".."

// pages returns the text of each Markdown file that is documentation, by its
// path in the repository.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for _, pattern := range []string{"*.md", "docs/*.md", ".github/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, err := filepath.Rel(root, file)
			if err != nil {
				t.Fatal(err)
			}
			found[filepath.ToSlash(name)] = string(text)
		}
	}
	return found
}

// goFiles calls f for each Go file of the repository, nested modules included.
func goFiles(t *testing.T, f func(name, text string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(file) != ".go":
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		f(filepath.ToSlash(name), string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// needsCheckout skips a test where the nested modules are missing, as they are
// in the module cache.
func needsCheckout(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, "servertest", "go.mod")); err != nil && os.Getenv("CI") == "" {
		t.Skip("needs a checkout with the nested modules: ", err)
	}
}

// A reference such as `TestStore/Race/cap`, or with the folder of the package
// as in `internal/smtp.TestHang`.
var reference = regexp.MustCompile("`(?:([a-z_/]+)\\.)?((?:Test|Fuzz|Benchmark|Example)[A-Z_][A-Za-z0-9_]*)((?:/[\\w …]+)*)`")

// Every test that a page names exists, and so does every subtest.
func TestNamesExist(t *testing.T) {
	needsCheckout(t)
	tests := make(map[string][]string) // the folders that have a test, by its name
	literals := make(map[string]bool)
	goFiles(t, func(name, text string) {
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil {
					tests[n.Name.Name] = append(tests[n.Name.Name], path.Dir(name))
				}
			case *ast.BasicLit:
				if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					for part := range strings.SplitSeq(strings.ReplaceAll(s, " ", "_"), "/") {
						literals[part] = true
					}
				}
			}
			return true
		})
	})
	for page, text := range pages(t) {
		for _, m := range reference.FindAllStringSubmatch(text, -1) {
			folders, ok := tests[m[2]]
			if !ok || m[1] != "" && !slices.Contains(folders, m[1]) {
				t.Errorf("%s names %s, which is not a test", page, m[0])
			}
			for part := range strings.SplitSeq(strings.Trim(m[3], "/"), "/") {
				if part != "" && part != "…" && !literals[part] {
					t.Errorf("%s names %s, whose %q is not the name of a subtest", page, m[0], part)
				}
			}
		}
	}
}

var fence = regexp.MustCompile("(?ms)^([ ]*)```(\\w*)\n(.*?)^[ ]*```$")

// snippets returns the fenced blocks of a language.
func snippets(text, language string) (blocks []string) {
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		if m[2] == language {
			blocks = append(blocks, m[3])
		}
	}
	return blocks
}

// Every Go snippet stands in a Go file, so that it compiles and is tested. A
// line "// …" separates pieces that need not be adjacent there.
func TestSnippetsAreCode(t *testing.T) {
	needsCheckout(t)
	var files []string
	goFiles(t, func(_, text string) { files = append(files, dedent(text)) })
	for page, text := range pages(t) {
		for _, block := range snippets(text, "go") {
			for piece := range strings.SplitSeq(dedent(block), "\n// …\n") {
				if !slices.ContainsFunc(files, func(file string) bool { return strings.Contains(file, strings.Trim(piece, "\n")) }) {
					t.Errorf("%s has a snippet that is in no Go file:\n%s", page, piece)
				}
			}
		}
	}
}

var mounting = regexp.MustCompile(`(?ms)^## Mounting\n.*?^## `)

// So does the code in the table of routers, in README.md.
func TestMountsAreCode(t *testing.T) {
	needsCheckout(t)
	var code strings.Builder
	goFiles(t, func(_, text string) { code.WriteString(text) })
	mounts := regexp.MustCompile("`(\\w+\\.\\w+\\([^`]+\\))`").FindAllStringSubmatch(mounting.FindString(pages(t)["README.md"]), -1)
	if len(mounts) == 0 {
		t.Fatal("README.md has no mounts")
	}
	for _, m := range mounts {
		if !strings.Contains(code.String(), m[1]) {
			t.Errorf("README.md has a mount that is in no Go file: %s", m[0])
		}
	}
}

// dedent removes the indentation of every line: a snippet may stand anywhere.
func dedent(text string) string {
	return regexp.MustCompile(`(?m)^[ \t]+|[ \t]+$`).ReplaceAllString(text, "")
}

var (
	link    = regexp.MustCompile(`(?:\]\(|src=")([^)"\s]+)[)"]`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	outside = regexp.MustCompile("(?s)```.*?```")
)

// Every link to a file or a heading of the repository leads there.
func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	for page, text := range all {
		for _, m := range link.FindAllStringSubmatch(outside.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], ":") {
				continue
			}
			target, anchor, _ := strings.Cut(m[1], "#")
			file := page
			if target != "" {
				file = path.Join(path.Dir(page), target)
			}
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(file))); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			}
			if anchor != "" && !slices.Contains(anchors(all[file]), anchor) {
				t.Errorf("%s links to %s, which has no such heading", page, m[1])
			}
		}
	}
}

// anchors returns the anchors that GitHub gives to headings.
func anchors(text string) (list []string) {
	for _, m := range heading.FindAllStringSubmatch(outside.ReplaceAllString(text, ""), -1) {
		anchor := strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")
		list = append(list, regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(anchor, ""))
	}
	return list
}

// Each page says in its first line whom it is for.
func TestPagesNameTheirReader(t *testing.T) {
	for page, text := range pages(t) {
		if _, first, _ := strings.Cut(text, "\n\n"); strings.HasPrefix(page, "docs/") && !strings.HasPrefix(first, "For ") {
			t.Errorf("%s begins with %.40q, want the reader it is for", page, first)
		}
	}
}

// README.md is a door, not the house, and the host to copy fits it.
func TestREADMEIsShort(t *testing.T) {
	needsCheckout(t)
	for file, most := range map[string]int{"README.md": 150, "example/minimal/main.go": 80} {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); n > most {
			t.Errorf("%s has %d lines, want at most %d", file, n, most)
		}
	}
}

var (
	step     = regexp.MustCompile(`(?m)^\d+\. .+\n(?: .+\n)*`)
	codeFile = regexp.MustCompile(`\]\(\.\./([\w/]+\.go)\)`)
	name     = regexp.MustCompile("`([A-Za-z]\\w*)`")
)

// architecture.md names every file of package reset and every nested module,
// and what a step names is in the files of that step.
func TestMap(t *testing.T) {
	page := pages(t)["docs/architecture.md"]
	files, err := filepath.Glob(filepath.Join(root, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		file = filepath.Base(file)
		if !strings.HasSuffix(file, "_test.go") && !strings.Contains(page, "](../"+file+")") {
			t.Errorf("docs/architecture.md lacks %s", file)
		}
	}
	work, err := os.ReadFile(filepath.Join(root, "go.work"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\s+\./(\S+)$`).FindAllStringSubmatch(string(work), -1) {
		if !strings.Contains(page, "](../"+m[1]+")") {
			t.Errorf("docs/architecture.md lacks %s", m[1])
		}
	}
	steps := step.FindAllString(page, -1)
	if len(steps) == 0 {
		t.Fatal("docs/architecture.md has no steps")
	}
	for _, step := range steps {
		var code strings.Builder
		for _, file := range codeFile.FindAllStringSubmatch(step, -1) {
			text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file[1])))
			if err != nil {
				t.Fatal(err)
			}
			code.Write(text)
		}
		for _, m := range name.FindAllStringSubmatch(step, -1) {
			if !regexp.MustCompile(`\b` + m[1] + `\b`).MatchString(code.String()) {
				t.Errorf("docs/architecture.md: %s is in no file of this step: %s", m[0], step)
			}
		}
	}
}

// security.md lists the advisories about the versions that go.mod names.
func TestDependencies(t *testing.T) {
	needsCheckout(t)
	rows := regexp.MustCompile(`(?m)^\| ([\w./-]+\.[\w./-]+) (v[\w.+-]+)(?: \(([\w, ]+)\))? \|`).
		FindAllStringSubmatch(pages(t)["docs/security.md"], -1)
	if len(rows) == 0 {
		t.Fatal("docs/security.md has no table of modules")
	}
	for _, row := range rows {
		module, version, folders := row[1], row[2], row[3]
		if folders == "" {
			folders = "."
		}
		for folder := range strings.SplitSeq(folders, ", ") {
			mod, err := os.ReadFile(filepath.Join(root, folder, "go.mod"))
			if err != nil {
				t.Fatal(err)
			}
			if want := regexp.MustCompile(`(?m)^\s+` + regexp.QuoteMeta(module+" "+version) + `\b`); !want.Match(mod) {
				t.Errorf("docs/security.md: %s/go.mod does not require %s %s", folder, module, version)
			}
		}
	}
}
