package kith_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// awake are the functions of tests that wait in real time, each with the reason.
var awake = map[string]string{
	"cmd/kith.ready":  "asks a real process again until it answers, 30 s at most",
	"cmd/kith.prints": "asks a real process again until it says so, 30 s at most",
}

// sleeper is a function of a test file, by what it does outside any bubble.
type sleeper struct {
	at    token.Position  // of its first sleep of its own
	names map[string]bool // functions that it calls or hands on, methods that it calls
}

// sleeps looks for real waits: time.Sleep, and a receive from time.After that
// is no case of a select. What is handed to synctest.Test, or to a function
// that hands it on, runs in virtual time.
//
// Functions are told apart by folder and name, methods by folder and bare name:
// "gossip.inMesh", "gossip..close".
type sleeps struct {
	fset    *token.FileSet
	files   []sleepsFile
	bubbles map[string]bool // functions that run what they are given in a bubble
	funcs   map[string]*sleeper
}

type sleepsFile struct {
	dir     string
	ast     *ast.File
	imports map[string]string // folder or package by local name
}

func newSleeps() *sleeps {
	return &sleeps{fset: token.NewFileSet(), bubbles: map[string]bool{"testing/synctest.Test": true}, funcs: map[string]*sleeper{}}
}

// TestNoRealSleeps fails when a test waits in real time: its name, and the
// sleep that it reaches.
func TestNoRealSleeps(t *testing.T) {
	s := newSleeps()
	if err := filepath.WalkDir(".", s.visit); err != nil {
		t.Fatal(err)
	}
	s.collect()
	used := map[string]bool{}
	for name := range s.funcs {
		if !isTest(path.Ext(name)[1:]) {
			continue
		}
		for by, at := range s.waits(name) {
			if awake[by] != "" {
				used[by] = true
				continue
			}
			t.Errorf("%s: %s waits in real time, in %s: run it in a bubble of testing/synctest, or wait for what it waits for", at, name, by)
		}
	}
	for by := range awake {
		if !used[by] {
			t.Errorf("the exception for %s is stale: no test waits there any more", by)
		}
	}
}

// TestSleepsAreSeen shows that TestNoRealSleeps can fail, and where it must not.
func TestSleepsAreSeen(t *testing.T) {
	const src = `package p
import ("time"; "testing"; "testing/synctest"; "github.com/kith-mesh/kith/testnet/sim")
func TestBare(t *testing.T) { time.Sleep(1) }
func TestFar(t *testing.T) { far() }
func far() { go func() { <-time.After(1) }() }
func TestIn(t *testing.T) { synctest.Test(t, func(t *testing.T) { time.Sleep(1) }) }
func TestHanded(t *testing.T) { in(t, func() { far() }) }
func in(t *testing.T, f func()) { synctest.Test(t, func(t *testing.T) { time.Sleep(1); f() }) }
func TestSelect(t *testing.T) { select { case <-time.After(1): } }
func TestSelected(t *testing.T) { select { case <-time.After(1): far() } }
func TestNamed(t *testing.T) { in(t, sleepy) }
func sleepy() { time.Sleep(1) }
func TestBeside(t *testing.T) { in(t, func() {}); sleepy() }
func TestSub(t *testing.T) { t.Run("", func(t *testing.T) { time.Sleep(1) }) }
func TestOther(t *testing.T) { sim.Run(t, func() { time.Sleep(1) }) }
func TestMethod(t *testing.T) { var m mesh; m.close() }
func (mesh) close() { time.Sleep(1) }
func TestBuiltin(t *testing.T) { close(make(chan int)) }
`
	const other = `package sim
import "testing/synctest"
func Run(t *testing.T, f func()) { synctest.Test(t, func(t *testing.T) { f() }) }
`
	s := newSleeps()
	s.parse(t, "p", src)
	s.parse(t, "testnet/sim", other)
	s.collect()
	for name, want := range map[string]string{
		"TestBare": "[p.TestBare]", "TestFar": "[p.far]", "TestIn": "[]", "TestHanded": "[]", "TestSelect": "[]",
		"TestSelected": "[p.far]", "TestNamed": "[]", "TestBeside": "[p.sleepy]", "TestSub": "[p.TestSub]",
		"TestOther": "[]", "TestMethod": "[p..close]", "TestBuiltin": "[]",
	} {
		by := slices.Sorted(maps.Keys(s.waits("p." + name)))
		if got := fmt.Sprint(by); got != want {
			t.Errorf("%s waits in %s, want %s", name, got, want)
		}
	}
}

func (s *sleeps) parse(t *testing.T, dir, src string) {
	t.Helper()
	file, err := parser.ParseFile(s.fset, dir+"/x_test.go", src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	s.add(dir, file)
}

func (s *sleeps) visit(name string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if d.IsDir() {
		if name == "." {
			return nil
		}
		if strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" {
			return filepath.SkipDir
		}
		if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
			return filepath.SkipDir
		}
		return nil
	}
	dir := path.Dir(filepath.ToSlash(name))
	// What testnet has beside its tests is there for tests.
	if !strings.HasSuffix(name, ".go") || dir == "." || !strings.HasSuffix(name, "_test.go") && !strings.HasPrefix(dir, "testnet") {
		return nil
	}
	file, err := parser.ParseFile(s.fset, name, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	s.add(dir, file)
	return nil
}

func (s *sleeps) add(dir string, file *ast.File) {
	imports := map[string]string{}
	for _, imp := range file.Imports {
		at := strings.Trim(imp.Path.Value, `"`)
		name := path.Base(at)
		if imp.Name != nil {
			name = imp.Name.Name
		}
		imports[name] = strings.TrimPrefix(at, module+"/")
	}
	s.files = append(s.files, sleepsFile{dir: dir, ast: file, imports: imports})
}

func isTest(name string) bool {
	return name != "TestMain" && slices.ContainsFunc([]string{"Test", "Benchmark", "Fuzz", "Example"}, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

// name is how an expression names a function, "" when it names none.
func (f sleepsFile) name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return f.dir + "." + e.Name
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok {
			if f.imports[x.Name] != "" {
				return f.imports[x.Name] + "." + e.Sel.Name
			}
			if slices.Contains([]string{"t", "b", "f", "tb"}, x.Name) { // package testing's: t.Run is no runner
				return ""
			}
		}
		return f.dir + ".." + e.Sel.Name
	}
	return ""
}

// declared is the name of a function that a file declares.
func (f sleepsFile) declared(d *ast.FuncDecl) string {
	if d.Recv != nil {
		return f.dir + ".." + d.Name.Name
	}
	return f.dir + "." + d.Name.Name
}

func (s *sleeps) collect() {
	for grown := true; grown; {
		grown = s.findBubbles()
	}
	for _, f := range s.files {
		for _, d := range f.ast.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Body != nil {
				s.read(f, d)
			}
		}
	}
}

// findBubbles adds the functions that take a function and call a bubble.
func (s *sleeps) findBubbles() (grown bool) {
	for _, f := range s.files {
		for _, d := range f.ast.Decls {
			d, ok := d.(*ast.FuncDecl)
			if !ok || d.Body == nil || s.bubbles[f.declared(d)] || !takesFunc(d) {
				continue
			}
			ast.Inspect(d.Body, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && s.bubbles[f.name(call.Fun)] {
					s.bubbles[f.declared(d)], grown = true, true
				}
				return true
			})
		}
	}
	return grown
}

func takesFunc(d *ast.FuncDecl) bool {
	return slices.ContainsFunc(d.Type.Params.List, func(p *ast.Field) bool {
		_, ok := p.Type.(*ast.FuncType)
		return ok
	})
}

// read notes what a function names and where it sleeps, without what it hands
// to a bubble.
func (s *sleeps) read(f sleepsFile, d *ast.FuncDecl) {
	who := f.declared(d)
	fn := s.funcs[who]
	if fn == nil {
		fn = &sleeper{names: map[string]bool{}}
		s.funcs[who] = fn
	}
	sleep := func(n ast.Node) {
		if !fn.at.IsValid() {
			fn.at = s.fset.Position(n.Pos())
		}
	}
	var look func(n ast.Node) bool
	look = func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			name := f.name(n.Fun)
			if name == "time.Sleep" {
				sleep(n)
			}
			fn.names[name] = true
			return !s.bubbles[name]
		case *ast.UnaryExpr:
			if call, ok := n.X.(*ast.CallExpr); ok && n.Op == token.ARROW && f.name(call.Fun) == "time.After" {
				sleep(n)
			}
		case *ast.CommClause: // a time to wait at most is no sleep
			for _, stmt := range n.Body {
				ast.Inspect(stmt, look)
			}
			return false
		case *ast.SelectorExpr: // as a value it counts when it is no method: fields have names too
			if name := f.name(n); !strings.Contains(name, "..") {
				fn.names[name] = true
			}
			ast.Inspect(n.X, look)
			return false
		case *ast.Ident:
			fn.names[f.name(n)] = true
		}
		return true
	}
	ast.Inspect(d.Body, look)
}

// waits are the functions that a function reaches and that wait in real time,
// each with the place.
func (s *sleeps) waits(name string) map[string]token.Position {
	found, seen := map[string]token.Position{}, map[string]bool{}
	var reach func(name string)
	reach = func(name string) {
		fn := s.funcs[name]
		if fn == nil || seen[name] {
			return
		}
		seen[name] = true
		if fn.at.IsValid() {
			found[name] = fn.at
		}
		for to := range fn.names {
			reach(to)
		}
	}
	reach(name)
	return found
}
