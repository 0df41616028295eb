package kith_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"
)

// tree is every non-test Go file of the module, parsed, and its constants. It
// knows no types: an expression is literals, operators, conversions and names of
// constants, of this module or of package time.
type tree struct {
	fset   *token.FileSet
	files  []source
	consts map[string]map[string]constDecl // by package folder and name
}

type source struct {
	dir, name string
	ast       *ast.File
	imports   map[string]string // path by local name
}

type constDecl struct {
	in    source
	typ   string
	value ast.Expr
	iota  int
}

func parseTree(t *testing.T) *tree {
	t.Helper()
	tr := &tree{fset: token.NewFileSet(), consts: map[string]map[string]constDecl{}}
	goFiles(t, func(dir, file string) {
		f, err := parser.ParseFile(tr.fset, file, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			return
		}
		s := source{dir: dir, name: file, ast: f, imports: map[string]string{}}
		for _, imp := range f.Imports {
			p, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Error(err)
				continue
			}
			local := path.Base(p)
			if imp.Name != nil {
				local = imp.Name.Name
			}
			s.imports[local] = p
		}
		tr.files = append(tr.files, s)
		tr.collect(s)
	})
	return tr
}

// collect notes the constants that a file declares for its package.
func (tr *tree) collect(s source) {
	if tr.consts[s.dir] == nil {
		tr.consts[s.dir] = map[string]constDecl{}
	}
	for _, d := range s.ast.Decls {
		group, ok := d.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		var last *ast.ValueSpec // an empty one repeats it
		for i, spec := range group.Specs {
			v := spec.(*ast.ValueSpec)
			if len(v.Values) > 0 {
				last = v
			}
			for k, name := range v.Names {
				if last == nil || k >= len(last.Values) {
					continue
				}
				typ := ""
				if id, ok := last.Type.(*ast.Ident); ok {
					typ = id.Name
				}
				tr.consts[s.dir][name.Name] = constDecl{in: s, typ: typ, value: last.Values[k], iota: i}
			}
		}
	}
}

// times are the constants of package time that stand in our declarations.
var times = map[string]time.Duration{
	"Nanosecond": time.Nanosecond, "Microsecond": time.Microsecond, "Millisecond": time.Millisecond,
	"Second": time.Second, "Minute": time.Minute, "Hour": time.Hour,
}

// named is the value of a package's constant.
func (tr *tree) named(dir, name string) (constant.Value, error) {
	return tr.constant(dir, name, 0)
}

func (tr *tree) constant(dir, name string, depth int) (constant.Value, error) {
	d, ok := tr.consts[dir][name]
	if !ok {
		return nil, fmt.Errorf("package %s has no constant %s", dir, name)
	}
	return tr.eval(d.in, d.value, d.iota, depth+1)
}

// eval computes an expression that stands in a file.
func (tr *tree) eval(in source, e ast.Expr, iota, depth int) (constant.Value, error) {
	if depth > 64 {
		return nil, fmt.Errorf("%s: names refer to each other", tr.fset.Position(e.Pos()))
	}
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0), nil
	case *ast.ParenExpr:
		return tr.eval(in, e.X, iota, depth+1)
	case *ast.Ident:
		switch e.Name {
		case "iota":
			return constant.MakeInt64(int64(iota)), nil
		case "true", "false":
			return constant.MakeBool(e.Name == "true"), nil
		}
		return tr.constant(in.dir, e.Name, depth)
	case *ast.SelectorExpr:
		pkg, ok := e.X.(*ast.Ident)
		if !ok {
			break
		}
		from := in.imports[pkg.Name]
		if d, ok := times[e.Sel.Name]; ok && from == "time" {
			return constant.MakeInt64(int64(d)), nil
		}
		if dir, ours := strings.CutPrefix(from, module+"/"); ours {
			return tr.constant(dir, e.Sel.Name, depth)
		}
	case *ast.CallExpr: // a conversion
		if len(e.Args) == 1 {
			return tr.eval(in, e.Args[0], iota, depth+1)
		}
	case *ast.UnaryExpr:
		x, err := tr.eval(in, e.X, iota, depth+1)
		if err != nil {
			return nil, err
		}
		return constant.UnaryOp(e.Op, x, 0), nil
	case *ast.BinaryExpr:
		return tr.binary(in, e, iota, depth)
	}
	return nil, fmt.Errorf("%s: not a constant that this test can compute: write it with literals, operators and named constants", tr.fset.Position(e.Pos()))
}

func (tr *tree) binary(in source, e *ast.BinaryExpr, iota, depth int) (constant.Value, error) {
	x, err := tr.eval(in, e.X, iota, depth+1)
	if err != nil {
		return nil, err
	}
	y, err := tr.eval(in, e.Y, iota, depth+1)
	if err != nil {
		return nil, err
	}
	switch op := e.Op; op {
	case token.SHL, token.SHR:
		n, exact := constant.Uint64Val(y)
		if !exact || n > 1<<10 {
			return nil, fmt.Errorf("%s: a shift by %s", tr.fset.Position(e.Pos()), y)
		}
		return constant.Shift(x, op, uint(n)), nil
	case token.QUO:
		if x.Kind() == constant.Int && y.Kind() == constant.Int {
			return constant.BinaryOp(x, token.QUO_ASSIGN, y), nil // integer division
		}
		return constant.BinaryOp(x, op, y), nil
	default:
		return constant.BinaryOp(x, op, y), nil
	}
}
