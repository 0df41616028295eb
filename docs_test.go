package kith_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// table finds the Markdown table whose header begins with first, and gives its
// rows by the header's words, without backticks.
func table(t *testing.T, doc, text, first string) []map[string]string {
	t.Helper()
	var head []string
	var rows []map[string]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if head != nil {
				break
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "`", ""))
		}
		switch {
		case head == nil && cells[0] == first:
			head = cells
		case head == nil, strings.Trim(cells[0], "-: ") == "":
		case len(cells) != len(head):
			t.Errorf("%s: row %q has %d cells, its table has %d", doc, line, len(cells), len(head))
		default:
			row := map[string]string{}
			for i, c := range cells {
				row[head[i]] = c
			}
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		t.Fatalf("%s has no table that begins with %q", doc, first)
	}
	return rows
}

// same compares what the code has with what a document lists.
func same(t *testing.T, doc, what string, code, listed []string) {
	t.Helper()
	for _, c := range code {
		if !slices.Contains(listed, c) {
			t.Errorf("%s lacks %s %s", doc, what, c)
		}
	}
	for i, l := range listed {
		if !slices.Contains(code, l) {
			t.Errorf("%s lists %s %s, which the code does not have", doc, what, l)
		}
		if slices.Contains(listed[:i], l) {
			t.Errorf("%s lists %s %s twice", doc, what, l)
		}
	}
}

const architecture = "ARCHITECTURE.md"

// wireProtocol is one p2p.Protocol of the code, its fields in words.
type wireProtocol struct {
	where  string
	fields map[string]constant.Value
}

// protocols finds every p2p.Protocol that the code declares, by name.
func protocols(t *testing.T, tr *tree) map[string]wireProtocol {
	t.Helper()
	out := map[string]wireProtocol{}
	for _, s := range tr.files {
		is := func(e ast.Expr) bool {
			switch e := e.(type) {
			case *ast.Ident:
				return s.dir == "p2p" && e.Name == "Protocol"
			case *ast.SelectorExpr:
				pkg, ok := e.X.(*ast.Ident)
				return ok && e.Sel.Name == "Protocol" && s.imports[pkg.Name] == module+"/p2p"
			}
			return false
		}
		take := func(lit *ast.CompositeLit) {
			if len(lit.Elts) == 0 {
				return
			}
			p := wireProtocol{where: tr.fset.Position(lit.Pos()).String(), fields: map[string]constant.Value{}}
			for _, e := range lit.Elts {
				kv, ok := e.(*ast.KeyValueExpr)
				if !ok {
					t.Errorf("%s: a p2p.Protocol without field names", p.where)
					return
				}
				v, err := tr.eval(s, kv.Value, 0, 0)
				if err != nil {
					t.Error(err)
					return
				}
				p.fields[kv.Key.(*ast.Ident).Name] = v
			}
			name := p.text("Name")
			if name == "" || out[name].where != "" {
				t.Errorf("%s: protocol %q has no name, or stands at %s too", p.where, name, out[name].where)
			}
			out[name] = p
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if list, ok := lit.Type.(*ast.ArrayType); ok && is(list.Elt) {
				for _, e := range lit.Elts {
					if inner, ok := e.(*ast.CompositeLit); ok && inner.Type == nil {
						take(inner)
					}
				}
			}
			if lit.Type != nil && is(lit.Type) {
				take(lit)
			}
			return true
		})
	}
	return out
}

func (p wireProtocol) text(field string) string {
	if v := p.fields[field]; v != nil && v.Kind() == constant.String {
		return constant.StringVal(v)
	}
	return ""
}

func (p wireProtocol) flag(field string) bool {
	v := p.fields[field]
	return v != nil && v.Kind() == constant.Bool && constant.BoolVal(v)
}

// protocolDefaults are what p2p fills in for a field that a protocol leaves out.
var protocolDefaults = map[string]string{
	"MaxMessage": "defaultMaxMessage", "Deadline": "defaultDeadline", "Streams": "defaultStreams", "Rate": "defaultRate", "Burst": "defaultBurst",
}

func (p wireProtocol) number(t *testing.T, tr *tree, field string) float64 {
	t.Helper()
	v := p.fields[field]
	if v == nil {
		var err error
		if v, err = tr.named("p2p", protocolDefaults[field]); err != nil {
			t.Error(err)
			return 0
		}
	}
	f, _ := constant.Float64Val(constant.ToFloat(v))
	return f
}

// bytesOf reads "8 KiB" or "9216.5 KiB".
func bytesOf(text string) (float64, error) {
	num, unit, _ := strings.Cut(text, " ")
	f, err := strconv.ParseFloat(num, 64)
	scale := map[string]float64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}[unit]
	if err != nil || scale == 0 {
		return 0, fmt.Errorf("%q: write a number and B, KiB or MiB", text)
	}
	return f * scale, nil
}

// TestProtocolTable fails when a protocol of the code is missing from
// ARCHITECTURE.md, stands there and not in the code, or stands there with
// another bound. "pubsub" stands where pubsub's own options bound a stream.
func TestProtocolTable(t *testing.T) {
	tr := parseTree(t)
	code, text := protocols(t, tr), readDoc(t, architecture)
	var listed []string
	for _, row := range table(t, architecture, text, "protocol") {
		name := row["protocol"]
		listed = append(listed, name)
		p, ok := code[name]
		if !ok {
			continue // same tells
		}
		want := func(column, got, is string) {
			if got != is {
				t.Errorf("%s: protocol %s: %s is %q, the code has %q (%s)", architecture, name, column, got, is, p.where)
			}
		}
		want("version", row["version"], p.text("Version"))
		who := "members"
		if p.flag("Open") {
			who = "anyone"
		}
		if p.flag("Direct") {
			who += ", direct"
		}
		want("to", row["to"], who)
		if n, err := bytesOf(row["message"]); err != nil {
			t.Errorf("%s: protocol %s: message: %v", architecture, name, err)
		} else if is := p.number(t, tr, "MaxMessage"); n != is {
			t.Errorf("%s: protocol %s: message is %q, the code has %v bytes (%s)", architecture, name, row["message"], is, p.where)
		}
		limits := []struct{ column, field string }{{"deadline", "Deadline"}, {"streams", "Streams"}, {"rate", "Rate"}, {"burst", "Burst"}}
		for _, l := range limits {
			if row[l.column] == "pubsub" {
				if p.fields[l.field] != nil {
					t.Errorf("%s: protocol %s: %s is pubsub's, but the code sets it (%s)", architecture, name, l.column, p.where)
				}
				continue
			}
			is := p.number(t, tr, l.field)
			if l.column == "deadline" {
				d, err := time.ParseDuration(row[l.column])
				if err != nil || float64(d) != is {
					t.Errorf("%s: protocol %s: deadline is %q, the code has %v (%s)", architecture, name, row[l.column], time.Duration(is), p.where)
				}
				continue
			}
			if got, err := strconv.ParseFloat(row[l.column], 64); err != nil || got != is {
				t.Errorf("%s: protocol %s: %s is %q, the code has %v (%s)", architecture, name, l.column, row[l.column], is, p.where)
			}
		}
	}
	same(t, architecture, "protocol", slices.Sorted(maps.Keys(code)), listed)
}

// TestExemptProtocols fails when a protocol passes the gate that
// ARCHITECTURE.md does not name.
func TestExemptProtocols(t *testing.T) {
	tr, text := parseTree(t), readDoc(t, architecture)
	found := 0
	for _, s := range tr.files {
		if s.name != filepath.Join("p2p", "registry.go") {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || spec.Names[0].Name != "exempt" {
				return true
			}
			for _, e := range spec.Values[0].(*ast.CompositeLit).Elts {
				v, err := tr.eval(s, e.(*ast.KeyValueExpr).Key, 0, 0)
				if err != nil {
					t.Error(err)
					continue
				}
				found++
				if id := constant.StringVal(v); !strings.Contains(text, "`"+id+"`") {
					t.Errorf("%s does not name %s, which passes the gate", architecture, id)
				}
			}
			return false
		})
	}
	if found == 0 {
		t.Error("p2p/registry.go has no map called exempt: this test must learn where the gate's exceptions are now")
	}
}

// TestDomains fails when something is signed under a domain that
// ARCHITECTURE.md does not name.
func TestDomains(t *testing.T) {
	tr, text := parseTree(t), readDoc(t, architecture)
	name := regexp.MustCompile(`^Domain|[dD]omain$`)
	var code []string
	for dir, consts := range tr.consts {
		for c := range consts {
			if !name.MatchString(c) {
				continue
			}
			v, err := tr.named(dir, c)
			if err != nil {
				t.Error(err)
			} else if v.Kind() == constant.String && strings.HasPrefix(constant.StringVal(v), "kith") {
				code = append(code, constant.StringVal(v))
			}
		}
	}
	var listed []string
	for _, row := range table(t, architecture, text, "domain") {
		if row["domain"] != "libp2p-peer-record" { // libp2p's own
			listed = append(listed, row["domain"])
		}
	}
	same(t, architecture, "domain", code, listed)
}

// TestPackageTable: ARCHITECTURE.md's table has the packages of arch.txt, and
// each says in a package comment what it is for.
func TestPackageTable(t *testing.T) {
	text := readDoc(t, architecture)
	if n := strings.Count(text, "\n"); n >= 300 {
		t.Errorf("%s has %d lines: keep it under 300", architecture, n)
	}
	var listed []string
	for _, row := range table(t, architecture, text, "package") {
		listed = append(listed, row["package"])
	}
	packages := slices.Sorted(maps.Keys(readRules(t)))
	same(t, architecture, "package", packages, listed)
	said := map[string]bool{}
	for _, s := range parseTree(t).files {
		if doc := s.ast.Doc.Text(); strings.HasPrefix(doc, "Package "+s.ast.Name.Name+" ") || strings.HasPrefix(doc, "Command ") {
			said[s.dir] = true
		}
	}
	for _, p := range packages {
		if !said[p] {
			t.Errorf("package %s has no package comment", p)
		}
	}
}

// TestDecisions: every record in docs/adr stands in ARCHITECTURE.md's index, and
// has its number once and its four parts.
func TestDecisions(t *testing.T) {
	text := readDoc(t, architecture)
	var linked []string
	for _, m := range regexp.MustCompile(`(?m)^\d+\. \[[^]]+\]\(docs/adr/([^)]+)\)`).FindAllStringSubmatch(text, -1) {
		linked = append(linked, m[1])
	}
	entries, err := os.ReadDir("docs/adr")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	numbers := map[string]string{}
	for _, e := range entries {
		files = append(files, e.Name())
		number, _, ok := strings.Cut(e.Name(), "-")
		if !ok || len(number) != 4 || numbers[number] != "" {
			t.Errorf("docs/adr/%s: want a name such as 0012-what.md with a number of its own; %s", e.Name(), numbers[number])
		}
		numbers[number] = e.Name()
		body := readDoc(t, filepath.Join("docs/adr", e.Name()))
		for _, part := range []string{"## Context", "## Decision", "## Alternatives", "## Consequences"} {
			if !strings.Contains(body, "\n"+part+"\n") {
				t.Errorf("docs/adr/%s has no part %q", e.Name(), part)
			}
		}
	}
	same(t, architecture, "decision", files, linked)
}

const jobsDoc = "docs/jobs.md"

// specKeys asks the parser itself for every key of a job spec: it lists them
// when it meets one that it does not know.
func specKeys(t *testing.T) (keys []string) {
	t.Helper()
	const strange = "qqqqqqqqqqqqqqqqqqqqqqqq"
	var visit func(at, spec string)
	visit = func(at, spec string) {
		_, err := tasks.ParseSpec(fmt.Appendf(nil, spec, strange+": 1"))
		var faulty *tasks.SpecError
		if !errors.As(err, &faulty) {
			return
		}
		for _, f := range faulty.Faults {
			known, ok := strings.CutPrefix(f.Text, "unknown key: known are ")
			if !ok {
				continue
			}
			for _, k := range strings.Split(known, ", ") {
				keys = append(keys, at+k)
				visit(at+k+".", fmt.Sprintf(spec, k+": {%s}"))
				visit(at+k+"[].", fmt.Sprintf(spec, k+": [{%s}]"))
			}
		}
	}
	visit("", "{%s}")
	if len(keys) < 10 {
		t.Fatalf("the parser told %d keys %q: this test must learn how it lists them now", len(keys), keys)
	}
	return keys
}

// TestJobKeys: docs/jobs.md has every key of a spec, with its default, and every
// bound.
func TestJobKeys(t *testing.T) {
	text := readDoc(t, jobsDoc)
	var listed []string
	rows := map[string]map[string]string{}
	for _, row := range table(t, jobsDoc, text, "key") {
		listed = append(listed, row["key"])
		rows[row["key"]] = row
	}
	same(t, jobsDoc, "key", specKeys(t), listed)
	d := tasks.Spec{}.WithDefaults()
	q := tasks.Spec{Verify: tasks.Verify{Mode: tasks.VerifyQuorum}}.WithDefaults()
	for key, is := range map[string]string{
		"name": d.Name, "kind": string(d.Kind), "tasks": fmt.Sprint(d.Tasks),
		"resources.cpu": fmt.Sprint(d.Resources.CPU), "resources.memory": tasks.FormatSize(d.Resources.Memory),
		"resources.timeout": tasks.FormatDuration(d.Resources.Timeout), "resources.output": tasks.FormatSize(d.Resources.Output),
		"verify.mode": string(d.Verify.Mode), "verify.replicas": fmt.Sprintf("%d, or %d with quorum", d.Verify.Replicas, q.Verify.Replicas),
		"retry.max": fmt.Sprint(d.Retry.Max), "retention": tasks.FormatDuration(d.Retention), "nondeterministic": fmt.Sprint(d.Nondeterministic),
	} {
		if got := rows[key]["default"]; got != is {
			t.Errorf("%s: default of %s is %q, the code has %q", jobsDoc, key, got, is)
		}
	}
	for name, n := range map[string]int{
		"tasks of one job": tasks.MaxTasks, "tasks before a reduce": tasks.MaxReduceInputs, "bytes of a job file": tasks.MaxSpecBytes,
		"args of one stage": tasks.MaxArgs, "env of a job": tasks.MaxEnv, "bytes of all args, or of all env": tasks.MaxTextBytes,
		"inputs": tasks.MaxInputs, "replicas": tasks.MaxReplicas, "retries": tasks.MaxRetry,
	} {
		if row := fmt.Sprintf("| %s | %d |", name, n); !strings.Contains(text, row) {
			t.Errorf("%s lacks the bound %q", jobsDoc, row)
		}
	}
}

// TestReasonTable: docs/jobs.md has every reason by its number, with its name
// and the text that users meet.
func TestReasonTable(t *testing.T) {
	tr := parseTree(t)
	var code []string
	for name, c := range tr.consts["tasks"] {
		if c.typ != "Reason" {
			continue
		}
		v, err := tr.named("tasks", name)
		if err != nil {
			t.Error(err)
			continue
		}
		n, _ := constant.Uint64Val(v)
		code = append(code, fmt.Sprintf("%d %s: %v", n, name, tasks.Reason(n)))
	}
	var listed []string
	for _, row := range table(t, jobsDoc, readDoc(t, jobsDoc), "number") {
		listed = append(listed, fmt.Sprintf("%s %s: %s", row["number"], row["name"], row["text"]))
	}
	slices.Sort(code)
	same(t, jobsDoc, "reason", code, listed)
}

// TestTables: every table of the database stands in ARCHITECTURE.md.
func TestTables(t *testing.T) {
	text, found := readDoc(t, architecture), 0
	create := regexp.MustCompile(`CREATE TABLE (?:IF NOT EXISTS )?(\w+)`)
	for _, s := range parseTree(t).files {
		ast.Inspect(s.ast, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok {
				return true
			}
			for _, m := range create.FindAllStringSubmatch(lit.Value, -1) {
				found++
				if !strings.Contains(text, "`"+m[1]+"`") {
					t.Errorf("%s does not name the table %s of %s", architecture, m[1], s.name)
				}
			}
			return true
		})
	}
	if found == 0 {
		t.Error("no table is made in the code: this test must learn where they are now")
	}
}
