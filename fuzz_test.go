package kith_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// primitives turn bytes or text into values. Whoever calls one is a decoder. One
// without a package is a method. Parsers of a single word (a CID, an address)
// are not among them.
var primitives = map[string][]string{
	"google.golang.org/protobuf/proto":        {"Unmarshal", "UnmarshalOptions"},
	"encoding/json":                           {"Unmarshal", "NewDecoder"},
	"encoding/binary":                         {"Uvarint", "ReadUvarint", "Varint", "ReadVarint", "Read", "Decode"},
	"archive/tar":                             {"NewReader"},
	"compress/gzip":                           {"NewReader"},
	"go.yaml.in/yaml/v3":                      {"Unmarshal", "NewDecoder"},
	"github.com/knadh/koanf/parsers/yaml":     {"Parser"},
	"github.com/libp2p/go-libp2p/core/record": {"ConsumeEnvelope", "ConsumeTypedEnvelope", "UnmarshalEnvelope"},
	"github.com/libp2p/go-libp2p/core/crypto": {"UnmarshalPublicKey", "UnmarshalPrivateKey"},
	"github.com/libp2p/go-libp2p/core/peer":   {"IDFromBytes"},
	"github.com/multiformats/go-multiaddr":    {"NewMultiaddrBytes"},
	"github.com/ipfs/go-cid":                  {"Cast", "CidFromBytes"},
	"github.com/ipld/go-car/v2":               {"NewBlockReader", "NewReader", "OpenReader"},
	"github.com/ipfs/boxo/ipld/merkledag":     {"DecodeProtobuf", "DecodeProtobufBlock"},
	"github.com/ipfs/boxo/ipld/unixfs":        {"FSNodeFromBytes", "ExtractFSNode"},
	"":                                        {"CompileModule"},
}

// undecoded are the functions that call a primitive and need no fuzz target,
// each with the reason. Bytes that another could have made are no reason.
var undecoded = map[string]string{
	"node.inviteRecords":        "reads the record that this node signed a line before",
	"node.loadPolicy":           "reads this node's own setting from its database",
	"node.ReadAPIAddress":       "reads a file in the home, which this user's own node wrote",
	"testnet/bench.startChild":  "reads what a child of its own says",
	"testnet/bench.ChildMain":   "reads what its parent, our own process, says",
	"testnet/bench.newChild":    "reads a key that its parent made",
	"testnet/bench.startEcho":   "reads what a child of its own says",
	"testnet/bench.serveEcho":   "reads what its parent, our own process, says",
	"testnet/bench.echoHost":    "reads a key that its parent made",
	"testnet/chaos.ClientMain":  "reads what its parent, our own test, says",
	"testnet/chaos.ReadLog":     "reads the log of a client of its own",
	"testnet.tryReady":          "reads a file in a home that it made",
	"p2p.LoadKey":               "reads this node's own key file",
	"p2p.UnmarshalRecord":       "keeps the bytes as they are",
	"p2p/auth.UnmarshalRecord":  "keeps the bytes as they are",
	"node/policy.UnmarshalText": "hands its text to Set, as FuzzShare and FuzzAmount do",
}

// pkgFuncs is what one package's functions name, by their own name: for
// methods, the bare one.
type pkgFuncs struct {
	calls    map[string]map[string]bool // what each names
	decoders map[string]string          // function: the primitive
	fuzz     []string
}

// TestDecodersAreFuzzed fails when a function that decodes is reached by no fuzz
// target of its own package, when a fuzz target has no seeds, and when an
// exception is stale. Functions are told apart by name alone.
func TestDecodersAreFuzzed(t *testing.T) {
	pkgs := map[string]*pkgFuncs{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == "." {
				return nil
			}
			base := d.Name()
			_, err := os.Stat(filepath.Join(name, "go.mod"))
			if err == nil || strings.HasPrefix(base, ".") || base == "testdata" || base == "pb" || exempt(filepath.ToSlash(name)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || path.Dir(filepath.ToSlash(name)) == "." {
			return nil
		}
		file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(filepath.ToSlash(name))
		if pkgs[dir] == nil {
			pkgs[dir] = &pkgFuncs{calls: map[string]map[string]bool{}, decoders: map[string]string{}}
		}
		pkgs[dir].collect(file, strings.HasSuffix(name, "_test.go"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for dir, p := range pkgs {
		reached := map[string]bool{}
		for _, f := range p.fuzz {
			own := map[string]bool{}
			p.reach(f, own)
			if corpus, err := os.ReadDir(filepath.Join(dir, "testdata", "fuzz", f)); !own["Add"] && (err != nil || len(corpus) == 0) {
				t.Errorf("%s: %s has no seeds: give it f.Add or files in testdata/fuzz", dir, f)
			}
			for name := range own {
				reached[name] = true
			}
		}
		for f, by := range p.decoders {
			who := dir + "." + f
			switch why := undecoded[who]; {
			case why != "":
				used[who] = true
			case !reached[f]:
				t.Errorf("%s decodes (%s) and no fuzz target of its package calls it", who, by)
			}
		}
	}
	for who := range undecoded {
		if !used[who] {
			t.Errorf("the exception for %s is stale: it decodes nothing any more", who)
		}
	}
}

// reach adds what a function names, and what that names in turn.
func (p *pkgFuncs) reach(f string, into map[string]bool) {
	for name := range p.calls[f] {
		if !into[name] {
			into[name] = true
			p.reach(name, into)
		}
	}
}

func (p *pkgFuncs) collect(file *ast.File, test bool) {
	imports := map[string]string{}
	for _, imp := range file.Imports {
		at := strings.Trim(imp.Path.Value, `"`)
		name := path.Base(at)
		if strings.HasPrefix(name, "v") && len(name) == 2 {
			name = path.Base(path.Dir(at))
		}
		name = strings.TrimPrefix(name, "go-")
		if imp.Name != nil {
			name = imp.Name.Name
		}
		imports[name] = at
	}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		name := f.Name.Name
		if p.calls[name] == nil {
			p.calls[name] = map[string]bool{}
		}
		// A reader of one message may leave the bytes to a common one.
		if low := strings.ToLower(name); !test && takesBytes(f) && (strings.HasPrefix(low, "unmarshal") || strings.HasPrefix(low, "parse")) {
			p.decoders[name] = "by its name"
		}
		if test && strings.HasPrefix(name, "Fuzz") {
			p.fuzz = append(p.fuzz, name)
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				p.calls[name][n.Name] = true
			case *ast.SelectorExpr:
				from := ""
				if x, ok := n.X.(*ast.Ident); ok {
					from = imports[x.Name]
				}
				if !test && slices.Contains(primitives[from], n.Sel.Name) {
					p.decoders[name] = from + "." + n.Sel.Name
				}
			}
			return true
		})
	}
}

func takesBytes(f *ast.FuncDecl) bool {
	for _, p := range f.Type.Params.List {
		list, ok := p.Type.(*ast.ArrayType)
		if !ok || list.Len != nil {
			continue
		}
		if elt, ok := list.Elt.(*ast.Ident); ok && elt.Name == "byte" {
			return true
		}
	}
	return false
}
