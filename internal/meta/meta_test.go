package meta

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	root     = "../.."
	maxLines = 900 // of a Go file; one subject each makes most far shorter
)

// sources calls f with each file of the repository that is ours.
func sources(t *testing.T, f func(path string, content []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch name := d.Name(); {
			case name == "node_modules", name == "dist", name == ".git", name == "testdata":
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		f(filepath.ToSlash(rel), content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// goFiles calls f with each Go file, parsed.
func goFiles(t *testing.T, f func(path string, content []byte, fset *token.FileSet, file *ast.File)) {
	t.Helper()
	sources(t, func(path string, content []byte) {
		if !strings.HasSuffix(path, ".go") {
			return
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, content, parser.ParseComments)
		if err != nil {
			t.Errorf("%v", err)
			return
		}
		f(path, content, fset, file)
	})
}

func TestGoFilesAreFormattedAndOfReadableLength(t *testing.T) {
	goFiles(t, func(path string, content []byte, _ *token.FileSet, _ *ast.File) {
		formatted, err := format.Source(content)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if !bytes.Equal(formatted, content) {
			t.Errorf("%s is not formatted: run gofmt -w", path)
		}
		if n := bytes.Count(content, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines; at most %d: split it by subject", path, n, maxLines)
		}
	})
}

func TestEveryPackageSaysWhatLivesThere(t *testing.T) {
	documented := map[string]bool{}
	goFiles(t, func(path string, _ []byte, _ *token.FileSet, file *ast.File) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		dir := filepath.Dir(path)
		documented[dir] = documented[dir] || file.Doc != nil && file.Doc.Text() != ""
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

// TestNoTestSleeps finds waits by the clock: a test waits for a signal. Inside
// a synctest bubble time is virtual, and time.Sleep costs nothing.
func TestNoTestSleeps(t *testing.T) {
	goFiles(t, func(path string, _ []byte, fset *token.FileSet, file *ast.File) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		var bubbles []ast.Node
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && (isCall(call, "synctest", "Test") || isCall(call, "synctest", "Run")) {
				bubbles = append(bubbles, call)
			}
			return true
		})
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !isCall(call, "time", "Sleep") {
				return true
			}
			for _, b := range bubbles {
				if b.Pos() <= call.Pos() && call.Pos() < b.End() {
					return true
				}
			}
			t.Errorf("%s sleeps: wait for a signal, or run it in a synctest bubble", fset.Position(call.Pos()))
			return true
		})
	})
}

func isCall(call *ast.CallExpr, pkg, name string) bool {
	s, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg
}

func TestNothingIsLeftForLater(t *testing.T) {
	marker := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	sources(t, func(path string, content []byte) {
		switch filepath.Ext(path) {
		case ".go", ".sol", ".mjs", ".sql", ".md", ".sh":
		default:
			return
		}
		if m := marker.Find(content); m != nil {
			t.Errorf("%s holds %s: do it, or file an issue", path, m)
		}
	})
}

// TestMigrationsAreNumbered from 1 without a gap, so that a database can only
// be at one point of one history.
func TestMigrationsAreNumbered(t *testing.T) {
	entries, err := os.ReadDir(filepath.Join(root, "internal/store/migrations"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`^\d{4}_[a-z0-9_]+\.sql$`)
	for i, e := range entries {
		if !named.MatchString(e.Name()) || !strings.HasPrefix(e.Name(), fmt.Sprintf("%04d_", i+1)) {
			t.Errorf("migration %s is not the one numbered %04d", e.Name(), i+1)
		}
	}
	if len(entries) == 0 {
		t.Error("there is no migration")
	}
}

// TestDecisionsAreNumbered: each decision is one file, and no two share a
// number.
func TestDecisionsAreNumbered(t *testing.T) {
	entries, err := os.ReadDir(filepath.Join(root, "docs/adr"))
	if err != nil {
		t.Fatal(err)
	}
	number := map[string]string{}
	for _, e := range entries {
		n, _, ok := strings.Cut(e.Name(), "-")
		if !ok || len(n) != 4 {
			t.Errorf("docs/adr/%s is not named 0000-words.md", e.Name())
		}
		if other := number[n]; other != "" {
			t.Errorf("docs/adr/%s and %s have the same number", other, e.Name())
		}
		number[n] = e.Name()
	}
}

// TestLinksOfDocumentsLead somewhere in the repository.
func TestLinksOfDocumentsLead(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)\s]*)?\)`)
	sources(t, func(path string, content []byte) {
		if filepath.Ext(path) != ".md" {
			return
		}
		for _, m := range link.FindAllSubmatch(content, -1) {
			target := string(m[1])
			if strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(path), target)); err != nil {
				t.Errorf("%s links to %s, which does not exist", path, target)
			}
		}
	})
}

func TestEveryFuzzTargetHasSeeds(t *testing.T) {
	goFiles(t, func(path string, _ []byte, fset *token.FileSet, file *ast.File) {
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(fn.Name.Name, "Fuzz") || !strings.HasSuffix(path, "_test.go") {
				continue
			}
			added := false
			ast.Inspect(fn, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if ok {
					// Either f.Add itself, or a helper that is given f.
					added = added || isCall(call, "f", "Add")
					for _, a := range call.Args {
						if id, ok := a.(*ast.Ident); ok && id.Name == "f" {
							added = true
						}
					}
				}
				return true
			})
			if !added {
				t.Errorf("%s: %s has no seeds", fset.Position(fn.Pos()), fn.Name.Name)
			}
		}
	})
}
