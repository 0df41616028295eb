// Package kith_test holds the tests of the tree itself: which package may
// import which, and that the documents list what the code has.
package kith_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/kith-mesh/kith"

// rule is one row of arch.txt.
type rule struct {
	any    bool // everything listed, but what deny names
	allow  []string
	deny   []string
	used   bool // a package of that name exists
	lineNo int
}

// readRules parses arch.txt.
func readRules(t *testing.T) map[string]*rule {
	t.Helper()
	b, err := os.ReadFile("arch.txt")
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]*rule{}
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("arch.txt:%d: %q has no colon", i+1, line)
		}
		if rules[name] != nil {
			t.Fatalf("arch.txt:%d: %s stands twice", i+1, name)
		}
		r := &rule{lineNo: i + 1}
		rest = strings.TrimSpace(rest)
		if but, found := strings.CutPrefix(rest, "any but "); found {
			r.any = true
			r.deny = strings.FieldsFunc(but, func(c rune) bool { return c == ',' || c == ' ' })
		} else if rest != "-" {
			r.allow = strings.Fields(rest)
		}
		rules[name] = r
	}
	for name, r := range rules {
		for _, other := range append(slices.Clone(r.allow), r.deny...) {
			if rules[other] == nil {
				t.Errorf("arch.txt:%d: %s names %s, which has no row", r.lineNo, name, other)
			}
		}
	}
	return rules
}

// row finds the package whose row governs dir: itself, or for X/internal/...
// the package X.
func row(dir string) string {
	if i := strings.Index(dir+"/", "/internal/"); i >= 0 {
		return dir[:i]
	}
	return dir
}

// exempt are programs and modules that stand outside the picture: example
// programs are built for wasip1 and import nothing of ours.
func exempt(dir string) bool {
	return strings.HasPrefix(dir, "examples/")
}

// goFiles walks every non-test Go file of the module, but not of modules within.
func goFiles(t *testing.T, visit func(dir, file string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			base := d.Name()
			if name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil && name != "." {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			visit(path.Dir(filepath.ToSlash(name)), name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestArrows fails on an import that arch.txt does not allow, a package without
// a row and a row without a package. It parses the files itself, so that the
// test cache sees what it reads.
func TestArrows(t *testing.T) {
	rules := readRules(t)
	fset := token.NewFileSet()
	goFiles(t, func(dir, file string) {
		if dir == "." {
			t.Errorf("%s: the module's root holds no package but its tests", file)
			return
		}
		name := row(dir)
		r := rules[name]
		if r == nil && !exempt(dir) {
			t.Errorf("%s: package %s has no row in arch.txt", file, name)
			return
		}
		if r != nil {
			r.used = true
		}
		f, err := parser.ParseFile(fset, file, nil, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			return
		}
		for _, imp := range f.Imports {
			p, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Error(err)
				continue
			}
			if p == "github.com/libp2p/go-libp2p" && name != "p2p" {
				t.Errorf("%s imports go-libp2p's root package, which is p2p's alone", file)
			}
			p, ours := strings.CutPrefix(p, module+"/")
			if !ours {
				continue
			}
			to := row(p)
			switch {
			case to == name && (p == dir || strings.Contains(p+"/", "/internal/") || strings.Contains(dir+"/", "/internal/")):
			case exempt(dir):
				t.Errorf("%s: an example program imports %s; it may import nothing of ours", file, p)
			case strings.Contains(p+"/", "/internal/"):
				t.Errorf("%s imports %s, which is inside %s", file, p, to)
			case r.any && !slices.Contains(r.deny, to) && rules[to] != nil:
			case slices.Contains(r.allow, to):
			default:
				t.Errorf("%s: %s may not import %s (arch.txt:%d)", file, name, p, r.lineNo)
			}
		}
	})
	for name, r := range rules {
		if !r.used {
			t.Errorf("arch.txt:%d: stale row: there is no package %s", r.lineNo, name)
		}
	}
}
