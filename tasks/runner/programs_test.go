package runner

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/examples"
	"github.com/kith-mesh/kith/tasks"
)

// TestForeign runs a module that clang compiled against wasi-libc.
func TestForeign(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	named := filepath.Join(dir, "named.txt")
	if err := os.WriteFile(named, []byte("1\n2\n3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t)
	var stdout bytes.Buffer
	out := filepath.Join(dir, "out")
	task := ofJob("c", func(t *Task) {
		t.Ref.Index, t.Tasks = 4, 5
		t.Args = []string{"/in/named.txt"}
		t.Inputs = map[string]string{"named.txt": named}
		t.Stdin = strings.NewReader("a\nb\n")
		t.Stdout, t.Out = &stdout, out
	})
	began := time.Now()
	res, err := r.Run(t.Context(), Program{Path: filepath.Join("testdata", "lines.wasm")}, task)
	if err != nil || res.Reason != tasks.OK {
		t.Fatalf("%v %q %v\nlog: %s", res.Reason, res.Detail, err, res.Log)
	}
	want := `stdin 2
/in/named.txt 3
unlink Read-only file system
task 4
link Operation not permitted
rmdir Directory not empty
climb refused
/out/a/ 0 1577836800
/out/b/ 0 1577836800
/out/a/new 5 1577836800
/out/b/two 5 1577836800
slept 3600
`
	if stdout.String() != want {
		t.Errorf("it printed\n%snot\n%s", stdout.String(), want)
	}
	if string(res.Log) != "done\n" {
		t.Errorf("log %q", res.Log)
	}
	tree := map[string]string{}
	for _, name := range []string{"a/new", "b/two"} {
		b, err := os.ReadFile(filepath.Join(out, filepath.FromSlash(name)))
		if err != nil {
			t.Error(err)
		}
		tree[name] = string(b)
	}
	if res.OutFiles != 4 || !maps.Equal(tree, map[string]string{"a/new": "moved", "b/two": "2233"}) {
		t.Errorf("%d entries, %v", res.OutFiles, tree)
	}
	if res.Usage.Output != int64(stdout.Len())+5+4 {
		t.Errorf("output of %d bytes, not %d", res.Usage.Output, stdout.Len()+5+4)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("an hour's sleep took %v", took)
	}
}

// TestExamples runs every example in two runners and compares, as replicas are.
func TestExamples(t *testing.T) {
	t.Parallel()
	text, err := examples.Text()
	if err != nil {
		t.Fatal(err)
	}
	want, err := examples.CountWords(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	runners := []*Runner{start(t), start(t, func(c *Config) { c.unsandboxed = true })}
	both := func(name, stdin string, index, of uint32, args ...string) string {
		t.Helper()
		wasm, err := examples.Program(name)
		if err != nil {
			t.Fatal(err)
		}
		var outs [2]bytes.Buffer
		for i, r := range runners {
			res, err := r.Run(t.Context(), Program{Key: name, Wasm: wasm}, ofJob("examples", func(t *Task) {
				t.Ref.Index, t.Tasks, t.Args = index, of, args
				t.Stdin, t.Stdout = strings.NewReader(stdin), &outs[i]
				t.Limits.Memory = 256 << 20
			}))
			if err != nil || res.Reason != tasks.OK {
				t.Fatalf("%s: %v %q %v\nlog: %s", name, res.Reason, res.Detail, err, res.Log)
			}
			if len(res.Log) > 0 {
				t.Logf("%s: %s", name, res.Log)
			}
		}
		if outs[0].String() != outs[1].String() {
			t.Errorf("%s: replicas differ", name)
		}
		return outs[0].String()
	}

	half := bytes.LastIndexByte(text[:len(text)/2], '\n') + 1
	sum := both("wcsum", both("wordcount", string(text[:half]), 0, 2)+both("wordcount", string(text[half:]), 1, 2), 0, 1)
	if got, err := examples.ReadCounts(strings.NewReader(sum)); err != nil || !maps.Equal(got, want) {
		t.Errorf("%d words, not %d; %v", len(got), len(want), err)
	}

	if raceDetector {
		return // which makes compiling a Go program take ten seconds
	}
	a, b := both("pi", "", 0, 2, "200000"), both("pi", "", 1, 2, "200000")
	if a == b {
		t.Error("two tasks of pi threw the same points")
	}
	var pi float64
	if _, err := fmt.Sscan(both("pisum", a+b, 0, 1), &pi); err != nil || pi < 3.12 || pi > 3.16 {
		t.Errorf("pi is %v, %v", pi, err)
	}

	var list string
	for i := range uint32(3) {
		list += both("primes", "", i, 3, "30", "list")
	}
	if list != "2\n3\n5\n7\n11\n13\n17\n19\n23\n29\n" {
		t.Errorf("primes below 30: %q", list)
	}
	if got := both("grep", string(text), 0, 1, "-c", "Romeo"); !strings.HasPrefix(got, "lines 40000\nmatches 1") {
		t.Errorf("grep: %q", got)
	}
}

func ExampleSeed() {
	// Every replica of a task draws the same, and every task its own.
	first := Seed("job", tasks.Ref{Index: 0})
	fmt.Println(first == Seed("job", tasks.Ref{Index: 0}), first == Seed("job", tasks.Ref{Index: 1}))
	// Output: true false
}

// A program that takes too much to compile is at fault, and one that is given too
// little to be compiled by is not.
func TestCompileLimits(t *testing.T) {
	t.Parallel()
	wasm, err := examples.Program("wordcount")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		config func(*Config)
		want   string
		blamed bool
	}{
		{"much to compile", func(c *Config) { c.LoadTime = 20 * time.Millisecond }, "can't be compiled here: took 20ms of CPU time", true},
		{"little CPU", func(c *Config) { c.LoadWall = 20 * time.Millisecond }, "runner: load program: this machine is too busy to compile it: it ran for 20ms and had less than 2m0s of CPU time", false},
	} {
		r := start(t, c.config, func(cfg *Config) { cfg.CacheDir = t.TempDir() })
		res, err := r.Run(t.Context(), Program{Wasm: wasm}, ofJob(c.name, func(t *Task) { t.Stdout = io.Discard }))
		said, blamed := res.Detail, err == nil
		if err != nil {
			said = err.Error()
		}
		if said != c.want || blamed != (res.Reason == tasks.BadProgram) || blamed != c.blamed {
			t.Errorf("%s: %v %q, blamed %v; want %q", c.name, res.Reason, said, blamed, c.want)
		}
	}
}
