package tasks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// ParseSpec reads a job spec from YAML. Keys are strict: an unknown one is a
// fault that names the nearest known one. All faults are reported at once, as
// a *SpecError. Program and source texts are kept as written: a path is for the
// client to add and replace by its CID, so the result is not yet validated;
// call WithDefaults and Validate when it holds CIDs. An input from a path that
// is not split is named after it.
func ParseSpec(text []byte) (Spec, error) {
	var s Spec
	var r reader
	if len(text) > MaxSpecBytes {
		r.add(0, "", "%d bytes are more than %d: move data to inputs", len(text), MaxSpecBytes)
		return Spec{}, r.err()
	}
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		r.add(0, "", "empty: write at least `program: PATH`")
		return Spec{}, r.err()
	} else if err != nil {
		r.yaml(err)
		return Spec{}, r.err()
	}
	if err := dec.Decode(&more); err == nil {
		r.add(more.Line, "", "a second document: keep one job in one file")
	} else if !errors.Is(err, io.EOF) {
		r.yaml(err)
	}
	r.spec(doc.Content[0], &s)
	if err := r.err(); err != nil {
		return Spec{}, err
	}
	return s, nil
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// reader walks YAML nodes, so that each fault knows its line. Walking by known
// keys only bounds the work, aliases or not.
type reader struct{ faults }

func (r *reader) yaml(err error) {
	text, line := err.Error(), 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1]) // digits by the expression; 0 when out of range
		text = text[len(m[0]):]
	}
	r.add(line, "", "not YAML: %s", strings.TrimPrefix(text, "yaml: "))
}

func (r *reader) spec(n *yaml.Node, s *Spec) {
	r.mapping(n, "", map[string]func(*yaml.Node, string){
		"name":    func(n *yaml.Node, p string) { r.text(n, p, &s.Name) },
		"kind":    func(n *yaml.Node, p string) { readText(r, n, p, &s.Kind) },
		"program": func(n *yaml.Node, p string) { readText(r, n, p, &s.Program) },
		"args":    func(n *yaml.Node, p string) { r.texts(n, p, &s.Args) },
		"env":     func(n *yaml.Node, p string) { r.env(n, p, &s.Env) },
		"inputs":  func(n *yaml.Node, p string) { r.inputs(n, p, &s.Inputs) },
		"tasks":   func(n *yaml.Node, p string) { r.count(n, p, MaxTasks, &s.Tasks) },
		"reduce": func(n *yaml.Node, p string) {
			s.Reduce = &Reduce{}
			r.mapping(n, p, map[string]func(*yaml.Node, string){
				"program": func(n *yaml.Node, p string) { readText(r, n, p, &s.Reduce.Program) },
				"args":    func(n *yaml.Node, p string) { r.texts(n, p, &s.Reduce.Args) },
			})
		},
		"resources": func(n *yaml.Node, p string) {
			r.mapping(n, p, map[string]func(*yaml.Node, string){
				"cpu":     func(n *yaml.Node, p string) { r.cores(n, p, &s.Resources.CPU) },
				"memory":  func(n *yaml.Node, p string) { r.size(n, p, &s.Resources.Memory) },
				"timeout": func(n *yaml.Node, p string) { r.duration(n, p, &s.Resources.Timeout) },
				"cpuTime": func(n *yaml.Node, p string) { r.duration(n, p, &s.Resources.CPUTime) },
				"output":  func(n *yaml.Node, p string) { r.size(n, p, &s.Resources.Output) },
			})
		},
		"locality": func(n *yaml.Node, p string) {
			r.mapping(n, p, map[string]func(*yaml.Node, string){
				"maxRTT": func(n *yaml.Node, p string) { r.duration(n, p, &s.Locality.MaxRTT) },
			})
		},
		"verify": func(n *yaml.Node, p string) {
			r.mapping(n, p, map[string]func(*yaml.Node, string){
				"mode":     func(n *yaml.Node, p string) { readText(r, n, p, &s.Verify.Mode) },
				"replicas": func(n *yaml.Node, p string) { r.count(n, p, MaxReplicas, &s.Verify.Replicas) },
			})
		},
		"retry": func(n *yaml.Node, p string) {
			r.mapping(n, p, map[string]func(*yaml.Node, string){
				"max": func(n *yaml.Node, p string) { r.count(n, p, MaxRetry, &s.Retry.Max) },
			})
		},
		"retention":        func(n *yaml.Node, p string) { r.duration(n, p, &s.Retention) },
		"nondeterministic": func(n *yaml.Node, p string) { r.flag(n, p, &s.Nondeterministic) },
	})
}

// mapping calls the field of each key.
func (r *reader) mapping(n *yaml.Node, at string, fields map[string]func(*yaml.Node, string)) {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		r.add(n.Line, at, "is %s: write keys and values", kindOf(n))
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		p := k.Value
		if at != "" {
			p = at + "." + p
		}
		field, known := fields[k.Value]
		switch {
		case k.Kind != yaml.ScalarNode:
			r.add(k.Line, at, "a key must be a word")
		case !known:
			names := make([]string, 0, len(fields))
			for name := range fields {
				names = append(names, name)
			}
			sort.Strings(names)
			if near := nearest(k.Value, names); near != "" {
				r.add(k.Line, clip(p), "unknown key: did you mean %s?", near)
			} else {
				r.add(k.Line, clip(p), "unknown key: known are %s", strings.Join(names, ", "))
			}
		case seen[k.Value] > 0:
			r.add(k.Line, p, "given twice, first on line %d", seen[k.Value])
		default:
			seen[k.Value] = k.Line
			field(v, p)
		}
	}
}

func (r *reader) inputs(n *yaml.Node, at string, out *[]Input) {
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		r.add(n.Line, at, "is %s: write a list such as [{source: ./data, split: {by: lines, size: 1000}}]", kindOf(n))
		return
	}
	if len(n.Content) > MaxInputs {
		r.add(n.Line, at, "%d are more than %d: put them in a folder", len(n.Content), MaxInputs)
		return
	}
	for i, item := range n.Content {
		var in Input
		r.mapping(item, fmt.Sprintf("%s[%d]", at, i), map[string]func(*yaml.Node, string){
			"name":   func(n *yaml.Node, p string) { r.text(n, p, &in.Name) },
			"source": func(n *yaml.Node, p string) { readText(r, n, p, &in.Source) },
			"split":  func(n *yaml.Node, p string) { r.split(n, p, &in.Split) },
		})
		if base := path.Base(strings.ReplaceAll(string(in.Source), `\`, "/")); in.Name == "" && in.Split.By == SplitNone && !IsCID(string(in.Source)) && fileName.MatchString(base) {
			in.Name = base
		}
		*out = append(*out, in)
	}
}

func (r *reader) split(n *yaml.Node, at string, out *Split) {
	if s := resolve(n); s.Kind == yaml.ScalarNode {
		parsed, err := ParseSplit(s.Value)
		if err != nil {
			r.add(s.Line, at, "%v", err)
		}
		*out = parsed
		return
	}
	r.mapping(n, at, map[string]func(*yaml.Node, string){
		"by":   func(n *yaml.Node, p string) { readText(r, n, p, &out.By) },
		"size": func(n *yaml.Node, p string) { r.size(n, p, &out.Size) },
	})
}

func (r *reader) env(n *yaml.Node, at string, out *map[string]string) {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		r.add(n.Line, at, "is %s: write names and values", kindOf(n))
		return
	}
	*out = make(map[string]string)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if _, twice := (*out)[k.Value]; twice || k.Kind != yaml.ScalarNode {
			r.add(k.Line, at, "%q is given twice or is no name", clip(k.Value))
			continue
		}
		var value string
		r.text(v, at+"."+clip(k.Value), &value)
		(*out)[k.Value] = value
	}
}

func (r *reader) texts(n *yaml.Node, at string, out *[]string) {
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		r.add(n.Line, at, "is %s: write a list such as [a, b]", kindOf(n))
		return
	}
	if len(n.Content) > MaxArgs {
		r.add(n.Line, at, "%d are more than %d", len(n.Content), MaxArgs)
		return
	}
	*out = make([]string, len(n.Content))
	for i, item := range n.Content {
		r.text(item, fmt.Sprintf("%s[%d]", at, i), &(*out)[i])
	}
}

func (r *reader) text(n *yaml.Node, at string, out *string) { readText(r, n, at, out) }

// readText takes any scalar as it is written, so that args: [1, true] works.
func readText[T ~string](r *reader, n *yaml.Node, at string, out *T) {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Tag == "!!binary" {
		r.add(n.Line, at, "is %s: write a text", kindOf(n))
		return
	}
	*out = T(n.Value)
}

func (r *reader) flag(n *yaml.Node, at string, out *bool) {
	if n = resolve(n); n.Kind == yaml.ScalarNode {
		switch n.Value {
		case "true":
			*out = true
			return
		case "false":
			return
		}
	}
	r.add(n.Line, at, "is %s: write true or false", kindOf(n))
}

// A count, size or duration that is written down must be above 0: 0 stands for
// the default.
func (r *reader) count(n *yaml.Node, at string, most uint64, out *uint32) {
	n = resolve(n)
	v, err := strconv.ParseUint(n.Value, 10, 32)
	if n.Kind != yaml.ScalarNode || err != nil || v < 1 || v > most {
		r.add(n.Line, at, "is %s: write a number from 1 to %d", kindOf(n), most)
		return
	}
	*out = uint32(v)
}

func (r *reader) cores(n *yaml.Node, at string, out *float64) {
	n = resolve(n)
	v, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || err != nil || !(v >= minCPU && v <= maxCPU) {
		r.add(n.Line, at, "is %s: write cores, from %v to %d", kindOf(n), minCPU, maxCPU)
		return
	}
	*out = v
}

func (r *reader) size(n *yaml.Node, at string, out *int64) {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode {
		r.add(n.Line, at, "is %s: write a size such as 256Mi", kindOf(n))
		return
	}
	v, err := ParseSize(n.Value)
	if err == nil && v == 0 {
		err = fmt.Errorf("size %q: must be above 0", n.Value)
	}
	if err != nil {
		r.add(n.Line, at, "%v", err)
		return
	}
	*out = v
}

func (r *reader) duration(n *yaml.Node, at string, out *time.Duration) {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode {
		r.add(n.Line, at, "is %s: write a duration such as 60s", kindOf(n))
		return
	}
	v, err := ParseDuration(n.Value)
	if err == nil && v == 0 {
		err = fmt.Errorf("duration %q: must be above 0", n.Value)
	}
	if err != nil {
		r.add(n.Line, at, "%v", err)
		return
	}
	*out = v
}

func resolve(n *yaml.Node) *yaml.Node {
	for i := 0; n.Kind == yaml.AliasNode && i < 8; i++ {
		n = n.Alias
	}
	return n
}

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return "empty"
	case n.Kind == yaml.ScalarNode:
		return strconv.Quote(clip(n.Value))
	}
	return "not a value"
}

// clip keeps a peer's or a file's text short in messages.
func clip(t string) string {
	if len(t) > 80 {
		return strings.ToValidUTF8(t[:80], "") + "…"
	}
	return t
}
