package tasks_test

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"pgregory.net/rapid"
)

const cid = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"

func TestParseSpec(t *testing.T) {
	got, err := tasks.ParseSpec([]byte(`
name: wordcount
kind: wasm                 # wasm
program: ./wordcount.wasm  # path or CID
args: [-n, 3, true]
env: {LANG: C}
inputs:
  - {source: ./books, split: {by: lines, size: 1000}}
  - {source: ./stop.txt}
  - {source: big, split: bytes:1MiB, name: big}
reduce: {program: ./sum.wasm, args: [x]}
resources: {cpu: 1.5, memory: 256Mi, timeout: 60s, cpuTime: 1m30s, output: 1GB}
locality: {maxRTT: 80ms}
verify: {mode: quorum, replicas: 2}
retry: {max: 5}
retention: 7d
`))
	if err != nil {
		t.Fatal(err)
	}
	want := tasks.Spec{
		Name: "wordcount", Kind: "wasm", Program: "./wordcount.wasm", Args: []string{"-n", "3", "true"}, Env: map[string]string{"LANG": "C"},
		Inputs: []tasks.Input{
			{Source: "./books", Split: tasks.Split{By: "lines", Size: 1000}},
			{Source: "./stop.txt", Name: "stop.txt"},
			{Source: "big", Name: "big", Split: tasks.Split{By: "bytes", Size: 1 << 20}},
		},
		Reduce:    &tasks.Reduce{Program: "./sum.wasm", Args: []string{"x"}},
		Resources: tasks.Resources{CPU: 1.5, Memory: 256 << 20, Timeout: time.Minute, CPUTime: 90 * time.Second, Output: 1e9},
		Locality:  tasks.Locality{MaxRTT: 80 * time.Millisecond},
		Verify:    tasks.Verify{Mode: "quorum", Replicas: 2},
		Retry:     tasks.Retry{Max: 5},
		Retention: 7 * 24 * time.Hour,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseSpecReportsEveryFault(t *testing.T) {
	_, err := tasks.ParseSpec([]byte(`
programm: x
resources:
  memroy: 1Gi
  cpu: -1
  timeout: soon
inputs:
  - source: a
    split: {by: lines, sise: 3}
  - [1]
verify: {mode: quorum, replicas: 0}
args: {a: b}
name: x
name: y
zzzzzz: 1
retry: {max: 1000}
tasks: many
env: [a]
locality:
`))
	var spec *tasks.SpecError
	if !errors.As(err, &spec) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{
		"line 2: programm: unknown key: did you mean program?",
		"line 4: resources.memroy: unknown key: did you mean memory?",
		`line 5: resources.cpu: is "-1": write cores, from 0.01 to 1024`,
		`line 6: resources.timeout: duration "soon": write it as 80ms, 60s, 24h or 7d`,
		"line 9: inputs[0].split.sise: unknown key: did you mean size?",
		"line 10: inputs[1]: is a list: write keys and values",
		`line 11: verify.replicas: is "0": write a number from 1 to 16`,
		"line 12: args: is a mapping: write a list such as [a, b]",
		"line 14: name: given twice, first on line 13",
		"line 15: zzzzzz: unknown key: known are args, env,",
		`line 16: retry.max: is "1000": write a number from 1 to 100`,
		`line 17: tasks: is "many": write a number from 1 to 1000000`,
		"line 18: env: is a list: write names and values",
		"line 19: locality: is empty: write keys and values",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if len(spec.Faults) != 14 {
		t.Errorf("%d faults:\n%v", len(spec.Faults), err)
	}
}

func TestParseSpecOddTexts(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "empty",
		"# nothing\n":                  "empty",
		"a: [":                         "not YAML",
		"\tx: 1":                       "not YAML",
		"- 1":                          "is a list",
		"name: a\n---\nname: b":        "second document",
		"<<: *x":                       "not YAML",
		"name: !!binary aGk=":          "write a text",
		"name: ~":                      "write a text",
		"{a: 1}: 2":                    "a key must be a word",
		strings.Repeat("#", 300<<10):   "more than 262144",
		"x: &a [*a]":                   "unknown key",
		"inputs: &a [{source: x}, *a]": "write keys",
	} {
		if _, err := tasks.ParseSpec([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: error %v, not about %q", text, err, want)
		}
	}
}

func TestDefaultsAreValid(t *testing.T) {
	plain := tasks.Spec{Program: cid}.WithDefaults()
	if err := plain.Validate(); err != nil {
		t.Error(err)
	}
	if plain.Tasks != 1 || plain.Verify.Mode != "none" || plain.Resources.CPUTime != time.Minute {
		t.Errorf("%+v", plain)
	}
	quorum := tasks.Spec{Program: cid, Verify: tasks.Verify{Replicas: 3}, Inputs: []tasks.Input{{Source: cid}, {Source: cid}}}
	filled := quorum.WithDefaults()
	if err := filled.Validate(); err != nil || filled.Verify.Mode != "quorum" || filled.Inputs[0].Name != "input" || filled.Inputs[1].Name != "input1" {
		t.Errorf("%v %+v", err, filled)
	}
	if quorum.Inputs[0].Name != "" {
		t.Error("the caller's inputs were changed")
	}
}

func TestValidateReportsEveryFault(t *testing.T) {
	s := tasks.Spec{
		Name: "a b", Kind: "tensor", Program: "./x.wasm", Args: []string{"a\x00b", strings.Repeat("x", 40<<10)},
		Env:    map[string]string{"1x": "", "KITH_JOB": "x", "OK": "\xff"},
		Inputs: []tasks.Input{{Source: "", Name: "../up"}, {Source: cid, Name: "a"}, {Source: cid, Name: "a"}, {Source: cid, Split: tasks.Split{By: "words"}}, {Source: cid, Split: tasks.Split{By: "lines"}}, {Source: cid, Split: tasks.Split{By: "files", Size: 3}}},
		Tasks:  20000, Reduce: &tasks.Reduce{},
		Resources: tasks.Resources{CPU: math.NaN(), Memory: 1, Timeout: -1, CPUTime: 0, Output: 0},
		Locality:  tasks.Locality{MaxRTT: time.Hour}, Verify: tasks.Verify{Mode: "adaptive", Replicas: 1}, Retry: tasks.Retry{Max: 101}, Retention: time.Second,
	}
	err := s.Validate()
	for _, path := range []string{"name:", "kind:", "program:", "args[0]:", "args:", `env: "1x"`, `env: "KITH_JOB"`, "env.OK:",
		"inputs[0].source:", "inputs[0].name:", "inputs[2].name:", "inputs[3].split.by:", "inputs[4].split.size:", "inputs[5].split.size:",
		"tasks: 20000: the split", "tasks: 20000 are", "reduce.program:", "resources.cpu:", "resources.memory:", "resources.timeout:",
		"resources.cpuTime:", "resources.output:", "locality.maxRTT:", "verify.mode:", "retry.max:", "retention:"} {
		if err == nil || !strings.Contains(err.Error(), "\n  "+path) {
			t.Errorf("nothing about %s", path)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
	for _, v := range []tasks.Verify{{Mode: "none", Replicas: 2}, {Mode: "quorum", Replicas: 1}, {Mode: "quorum", Replicas: 17}} {
		s := tasks.Spec{Program: cid}.WithDefaults()
		s.Verify = v
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "verify.replicas") {
			t.Errorf("%+v: %v", v, err)
		}
	}
	q := tasks.Spec{Program: cid, Nondeterministic: true, Verify: tasks.Verify{Replicas: 2}}.WithDefaults()
	if err := q.Validate(); err == nil || !strings.Contains(err.Error(), "nondeterministic") {
		t.Errorf("%v", err)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "4096": 4096, "1B": 1, "64Ki": 64 << 10, "64KiB": 64 << 10, "256Mi": 256 << 20, "1GB": 1e9, "1g": 1e9, "1.5GiB": 3 << 29,
		" 2 Ti ": 2 << 40, "9223372036854775807": math.MaxInt64,
	} {
		if got, err := tasks.ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1 parsec", "1e3", "1..5", "Mi", "9223372036854775808", "9999999999Gi", "1Mi5"} {
		if n, err := tasks.ParseSize(text); err == nil {
			t.Errorf("%q is %d", text, n)
		}
	}
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.Int64Min(0).Draw(r, "n")
		if got, err := tasks.ParseSize(tasks.FormatSize(n)); err != nil || got != n {
			r.Fatalf("%d is written %q and read %d, %v", n, tasks.FormatSize(n), got, err)
		}
	})
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "80ms": 80 * time.Millisecond, "0d5s": 5 * time.Second} {
		if got, err := tasks.ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5", "-1s", "d", "x d", "-3d", "1d-2h", "999999999d", "100000d9999999h"} {
		if d, err := tasks.ParseDuration(text); err == nil {
			t.Errorf("%q is %v", text, d)
		}
	}
	for d, want := range map[time.Duration]string{24 * time.Hour: "24h", time.Minute: "1m", 90 * time.Second: "1m30s", time.Hour + time.Second: "1h0m1s", 10 * time.Second: "10s", 0: "0s"} {
		if got := tasks.FormatDuration(d); got != want {
			t.Errorf("%v is written %q", d, got)
		}
	}
}

func TestParseSplit(t *testing.T) {
	for text, want := range map[string]tasks.Split{
		"lines:1000": {By: "lines", Size: 1000}, "bytes:1MiB": {By: "bytes", Size: 1 << 20}, "files": {By: "files"},
	} {
		got, err := tasks.ParseSplit(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if again, err := tasks.ParseSplit(tasks.FormatSplit(got)); err != nil || again != got {
			t.Errorf("%q is written %q", text, tasks.FormatSplit(got))
		}
	}
	for _, text := range []string{"", "lines", "lines:0", "lines:-1", "lines:x", "bytes:0", "files:3", "words:3", "lines:1Ki:2"} {
		if s, err := tasks.ParseSplit(text); err == nil {
			t.Errorf("%q is %+v", text, s)
		}
	}
}

// specs draws a valid spec.
func specs() *rapid.Generator[tasks.Spec] {
	text := rapid.StringMatching(`[ -~äöü\n\t"'#:]{0,20}`)
	return rapid.Custom(func(r *rapid.T) tasks.Spec {
		s := tasks.Spec{Program: cid, Name: rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,20}`).Draw(r, "name")}
		s.Args = rapid.SliceOfN(text, 0, 4).Draw(r, "args")
		s.Env = rapid.MapOfN(rapid.StringMatching(`[A-Z_][A-Z0-9_]{0,8}`).Filter(func(k string) bool { return !strings.HasPrefix(k, "KITH_") }), text, 0, 3).Draw(r, "env")
		split := false
		for range rapid.IntRange(0, 3).Draw(r, "inputs") {
			in := tasks.Input{Source: cid}
			switch rapid.IntRange(0, 3).Draw(r, "split") {
			case 1:
				in.Split = tasks.Split{By: tasks.SplitLines, Size: rapid.Int64Range(1, 1<<40).Draw(r, "lines")}
			case 2:
				in.Split = tasks.Split{By: tasks.SplitBytes, Size: rapid.Int64Range(1, 1<<60).Draw(r, "bytes")}
			case 3:
				in.Split = tasks.Split{By: tasks.SplitFiles}
			}
			split = split || in.Split.By != ""
			s.Inputs = append(s.Inputs, in)
		}
		if !split {
			s.Tasks = rapid.Uint32Range(0, 10000).Draw(r, "tasks")
		}
		if rapid.Bool().Draw(r, "reduce") {
			s.Reduce = &tasks.Reduce{Program: cid, Args: rapid.SliceOfN(text, 0, 3).Draw(r, "reduce args")}
		}
		s.Resources.CPU = rapid.Float64Range(0.01, 64).Draw(r, "cpu")
		s.Resources.Memory = rapid.Int64Range(1<<20, 1<<40).Draw(r, "memory")
		s.Resources.Timeout = time.Duration(rapid.Int64Range(int64(time.Second), int64(time.Hour)).Draw(r, "timeout"))
		s.Verify.Replicas = rapid.Uint32Range(0, 16).Draw(r, "replicas")
		s.Nondeterministic = s.Verify.Replicas < 2 && rapid.Bool().Draw(r, "nondeterministic")
		return s.WithDefaults()
	})
}

func TestSpecSurvivesItsText(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := specs().Draw(r, "spec")
		if err := s.Validate(); err != nil {
			r.Fatal(err)
		}
		text, err := tasks.FormatSpec(s)
		if err != nil {
			r.Fatal(err)
		}
		got, err := tasks.ParseSpec(text)
		if err != nil {
			r.Fatalf("%v in\n%s", err, text)
		}
		again, err := tasks.FormatSpec(got)
		if err != nil || string(again) != string(text) {
			r.Fatalf("%v\n%s\nread and written:\n%s", err, text, again)
		}
		if len(s.Args) == 0 {
			s.Args, got.Args = nil, nil
		}
		if len(s.Env) == 0 {
			s.Env, got.Env = nil, nil
		}
		if len(s.Inputs) == 0 {
			s.Inputs, got.Inputs = nil, nil
		}
		if s.Reduce != nil && len(s.Reduce.Args) == 0 {
			s.Reduce.Args, got.Reduce.Args = nil, nil
		}
		if !reflect.DeepEqual(got, s) {
			r.Fatalf("got  %+v\nwant %+v\n%s", got, s, text)
		}
	})
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte("name: a\nprogram: b\ninputs: [{source: c, split: lines:3}]\n"))
	f.Add([]byte("args: [1, 2]\nenv: {A: b}\nresources: {cpu: 1, memory: 1Mi}"))
	f.Add([]byte("a: &a [*a, *a]\nx: *a"))
	f.Add([]byte("? [x]\n: y\n<<: {name: z}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := tasks.ParseSpec(text)
		if err != nil {
			var spec *tasks.SpecError
			if !errors.As(err, &spec) || len(spec.Faults) == 0 {
				t.Fatalf("error %v is no SpecError", err)
			}
			return
		}
		if s.WithDefaults().Validate() != nil {
			return
		}
		out, err := tasks.FormatSpec(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tasks.ParseSpec(out); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
	})
}
