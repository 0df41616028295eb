package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/kith-mesh/kith/examples"
	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/runner"
	"github.com/kith-mesh/kith/tasks/wire"
)

// newStore is a store in memory.
func newStore(t testing.TB) *storage.Store {
	t.Helper()
	db, err := state.Open(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.Open(storage.Config{DB: db.DB()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// add stores text in chunks of 16 bytes, so that spans cross blocks.
func add(t testing.TB, s *storage.Store, text string) tasks.CID {
	t.Helper()
	root, err := s.AddReader(t.Context(), strings.NewReader(text), storage.AddOptions{ChunkSize: 16, Audience: storage.Job})
	if err != nil {
		t.Fatal(err)
	}
	return tasks.CID(root.CID.String())
}

func addTree(t testing.TB, s *storage.Store, files map[string]string) tasks.CID {
	t.Helper()
	tree := fstest.MapFS{}
	for name, text := range files {
		tree[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	root, err := s.AddTree(t.Context(), tree, storage.AddOptions{Audience: storage.Job})
	if err != nil {
		t.Fatal(err)
	}
	return tasks.CID(root.CID.String())
}

func read(t testing.TB, s *storage.Store, root tasks.CID, path string) string {
	t.Helper()
	c, err := cid.Decode(string(root))
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), c, path, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func names(t testing.TB, s *storage.Store, root tasks.CID) []string {
	t.Helper()
	c, err := cid.Decode(string(root))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := s.Ls(t.Context(), c, "")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func collect(t testing.TB, s *storage.Store) {
	t.Helper()
	if _, err := s.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// guest is a program written in Go: what it returns is what a runner would.
type guest func(ctx context.Context, t runner.Task) (runner.Result, error)

func (g guest) Run(ctx context.Context, _ runner.Program, t runner.Task) (runner.Result, error) {
	return g(ctx, t)
}

func (g guest) Forget(tasks.JobID) {}

// echo copies its standard input.
func echo(_ context.Context, t runner.Task) (runner.Result, error) {
	if t.Stdin == nil { // the task has none
		return runner.Result{}, nil
	}
	_, err := io.Copy(t.Stdout, t.Stdin)
	var res runner.Result
	if err != nil { // a runner reports that the input broke off, not why
		res = runner.Result{Reason: tasks.Trap, Detail: "input ended"}
	}
	return res, nil
}

func newExecutor(t testing.TB, g guest) (*executor, *storage.Store) {
	s := newStore(t)
	e := &executor{store: s, runner: g, scratch: t.TempDir()}
	t.Cleanup(func() {
		if err := e.workOver("job"); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(e.scratch); err != nil || len(left) > 0 {
			t.Errorf("left in scratch: %v, %v", left, err)
		}
	})
	return e, s
}

func execution(t testing.TB, s *storage.Store, change ...func(*tasks.Execution)) tasks.Execution {
	x := tasks.Execution{Job: "job", Tasks: 1, Kind: tasks.KindWasm, Program: add(t, s, "program"),
		Needs: tasks.Resources{CPU: 1, Memory: 64 << 20, Timeout: time.Minute, Output: 1 << 20}}
	for _, f := range change {
		f(&x)
	}
	return x
}

// execute runs a task and keeps what it left, as the market does before it sends
// the receipt.
func execute(t testing.TB, e *executor, x tasks.Execution) tasks.Outcome {
	t.Helper()
	out, err := e.Run(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	if out.Inline != nil || out.Output == tasks.CID(nothing.String()) {
		d := jobData{store: e.store}
		if err := d.KeepWork(t.Context(), x.Job, []wire.Blob{{CID: out.Output, Data: out.Inline}}); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"

func TestStdinIsItsSpans(t *testing.T) {
	t.Parallel()
	e, s := newExecutor(t, echo)
	whole, tree := add(t, s, alphabet), addTree(t, s, map[string]string{"a/b": "in a folder", "empty": ""})
	for _, c := range []struct {
		name  string
		spans []tasks.Span
		want  string
	}{
		{"none", nil, ""},
		{"whole", []tasks.Span{{Root: whole, Length: -1}}, alphabet},
		{"part", []tasks.Span{{Root: whole, Offset: 10, Length: 20}}, alphabet[10:30]},
		{"to the end", []tasks.Span{{Root: whole, Offset: 30, Length: -1}}, alphabet[30:]},
		{"nothing of it", []tasks.Span{{Root: whole, Offset: 36, Length: 0}}, ""},
		{"several, one twice", []tasks.Span{{Root: whole, Length: 3}, {Root: tree, Path: "empty", Length: -1}, {Root: tree, Path: "a/b", Length: -1}, {Root: whole, Length: 3}}, "abcin a folderabc"},
	} {
		out := execute(t, e, execution(t, s, func(x *tasks.Execution) { x.Stdin = c.spans }))
		if out.Reason != tasks.OK || string(out.Inline) != c.want || read(t, s, out.Output, "") != c.want {
			t.Errorf("%s: %v %q, want %q", c.name, out.Reason, out.Inline, c.want)
		}
	}
}

// TestBadSpanIsTheJobsFault: what the file does not have is told as BadInput;
// what is not here is this node's trouble.
func TestBadSpanIsTheJobsFault(t *testing.T) {
	t.Parallel()
	e, s := newExecutor(t, echo)
	whole, tree := add(t, s, alphabet), addTree(t, s, map[string]string{"a/b": "text"})
	absent, err := storage.SumBytes([]byte("never added"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		span tasks.Span
		bad  bool
	}{
		{"past the end", tasks.Span{Root: whole, Offset: 30, Length: 7}, true},
		{"beyond it", tasks.Span{Root: whole, Offset: 37, Length: -1}, true},
		{"negative", tasks.Span{Root: whole, Offset: -1, Length: 1}, true},
		{"a folder", tasks.Span{Root: tree, Path: "a", Length: -1}, true},
		{"below a file", tasks.Span{Root: tree, Path: "a/b/c", Length: -1}, true},
		{"no CID", tasks.Span{Root: "nonsense", Length: -1}, true},
		{"not here", tasks.Span{Root: tasks.CID(absent.String()), Length: -1}, false},
	} {
		for _, where := range []string{"stdin", "input"} {
			if where == "input" && (c.name == "a folder" || c.name == "beyond it") {
				continue // a folder is a fine named input
			}
			x := execution(t, s, func(x *tasks.Execution) {
				if where == "stdin" {
					x.Stdin = []tasks.Span{{Root: whole, Length: 1}, c.span}
				} else {
					x.Inputs = map[string]tasks.Span{"data": c.span}
				}
			})
			out, err := e.Run(t.Context(), x)
			if c.bad && (err != nil || out.Reason != tasks.BadInput || out.Detail == "") {
				t.Errorf("%s as %s: %v %q, %v; want %v", c.name, where, out.Reason, out.Detail, err, tasks.BadInput)
			}
			if !c.bad && !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("%s as %s: %v %q, %v; want an error", c.name, where, out.Reason, out.Detail, err)
			}
		}
	}
	for _, name := range []string{"..", "a/b", "/etc", ""} {
		x := execution(t, s, func(x *tasks.Execution) { x.Inputs = map[string]tasks.Span{name: {Root: whole, Length: -1}} })
		if out, err := e.Run(t.Context(), x); err != nil || out.Reason != tasks.BadInput {
			t.Errorf("input named %q: %v, %v", name, out.Reason, err)
		}
	}
}

func TestNamedInputs(t *testing.T) {
	t.Parallel()
	e, s := newExecutor(t, func(_ context.Context, task runner.Task) (runner.Result, error) {
		for _, name := range []string{"whole", "part", "tree/a/b", "dir/b"} {
			top, rest, _ := strings.Cut(name, "/")
			b, err := os.ReadFile(filepath.Join(task.Inputs[top], filepath.FromSlash(rest)))
			if err != nil {
				return runner.Result{}, err
			}
			if _, err := io.WriteString(task.Stdout, name+"="+string(b)+" "); err != nil {
				return runner.Result{}, err
			}
		}
		return runner.Result{}, nil
	})
	whole, tree := add(t, s, alphabet), addTree(t, s, map[string]string{"a/b": "text"})
	out := execute(t, e, execution(t, s, func(x *tasks.Execution) {
		x.Inputs = map[string]tasks.Span{"whole": {Root: whole, Length: -1}, "part": {Root: whole, Offset: 14, Length: 4}, "tree": {Root: tree, Length: -1}, "dir": {Root: tree, Path: "a", Length: -1}}
	}))
	if want := "whole=" + alphabet + " part=opqr tree/a/b=text dir/b=text "; string(out.Inline) != want {
		t.Errorf("got %q, want %q", out.Inline, want)
	}
}

// leaves is a guest that prints text and leaves files in /out.
func leaves(text string, files ...string) guest {
	return func(_ context.Context, t runner.Task) (runner.Result, error) {
		_, err := io.WriteString(t.Stdout, text)
		for _, name := range files {
			at := filepath.Join(t.Out, name)
			err = errors.Join(err, os.MkdirAll(filepath.Dir(at), 0o700), os.WriteFile(at, []byte("in "+name), 0o600))
		}
		return runner.Result{OutFiles: len(files)}, err
	}
}

func TestOutFolder(t *testing.T) {
	t.Parallel()
	e, s := newExecutor(t, leaves("said", "a", "sub/b"))
	out := execute(t, e, execution(t, s))
	if out.Reason != tasks.OK || out.Inline != nil || out.Usage.Output != int64(len("said"+"in a"+"in sub/b")) {
		t.Errorf("got %+v", out)
	}
	if got := names(t, s, out.Output); !slices.Equal(got, []string{"a", "stdout", "sub"}) {
		t.Errorf("the output holds %v", got)
	}
	for path, want := range map[string]string{"stdout": "said", "a": "in a", "sub/b": "in sub/b"} {
		if got := read(t, s, out.Output, path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}

	e.runner = leaves("said", "stdout")
	if out := execute(t, e, execution(t, s)); out.Reason != tasks.BadProgram || !strings.Contains(out.Detail, "/out/stdout") || out.Output != "" {
		t.Errorf("a program that takes stdout's name: %+v", out)
	}
}

func TestInlineLimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		size   int
		inline bool
	}{{0, false}, {maxInline, true}, {maxInline + 1, false}, {spill + 1, false}} {
		e, s := newExecutor(t, leaves(strings.Repeat("x", c.size)))
		out := execute(t, e, execution(t, s))
		if out.Reason != tasks.OK || (out.Inline != nil) != c.inline || c.inline && len(out.Inline) != c.size {
			t.Errorf("%d bytes: %v, inline %v of %d", c.size, out.Reason, out.Inline != nil, len(out.Inline))
		}
		if got := read(t, s, out.Output, ""); len(got) != c.size {
			t.Errorf("%d bytes: %d stored", c.size, len(got))
		}
	}
}

func TestProgramFaults(t *testing.T) {
	t.Parallel()
	e, s := newExecutor(t, func(context.Context, runner.Task) (runner.Result, error) {
		return runner.Result{Reason: tasks.ExitCode, Detail: "exit code 3", Log: []byte("oh"), OutFiles: 2}, nil
	})
	if out := execute(t, e, execution(t, s)); out.Reason != tasks.ExitCode || out.Output != "" || string(out.Log) != "oh" {
		t.Errorf("a failed program: %+v", out)
	}
	tree := addTree(t, s, map[string]string{"a": "x"})
	for _, c := range []struct {
		name   string
		change func(*tasks.Execution)
		want   tasks.Reason
	}{
		{"folder as program", func(x *tasks.Execution) { x.Program = tree }, tasks.BadProgram},
		{"program without a CID", func(x *tasks.Execution) { x.Program = "nonsense" }, tasks.BadProgram},
		{"other kind", func(x *tasks.Execution) { x.Kind = "tensor" }, tasks.WorkerLacks},
	} {
		if out := execute(t, e, execution(t, s, c.change)); out.Reason != c.want || out.Detail == "" {
			t.Errorf("%s: %v %q, want %v", c.name, out.Reason, out.Detail, c.want)
		}
	}
	broken := errors.New("no more processes")
	e.runner = guest(func(context.Context, runner.Task) (runner.Result, error) { return runner.Result{}, broken })
	if _, err := e.Run(t.Context(), execution(t, s)); !errors.Is(err, broken) {
		t.Errorf("the runner's own trouble: %v", err)
	}
}

// TestProgramsKeepWithinTheirCache adds up what is held.
func TestProgramsKeepWithinTheirCache(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var p programs
	var all []tasks.CID
	for i := range 3 {
		root, err := s.AddReader(t.Context(), bytes.NewReader(bytes.Repeat([]byte{byte(i)}, programCache/2-1)), storage.AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tasks.CID(root.CID.String()))
	}
	for _, c := range []tasks.CID{all[0], all[1], all[0], all[2]} {
		if _, err := p.load(t.Context(), s, c); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(p.order, []tasks.CID{all[0], all[2]}) || p.bytes > programCache || len(p.held) != 2 {
		t.Errorf("%d bytes held of %v", p.bytes, p.order)
	}
}

// TestRunningTaskKeepsItsInputs collects while the program reads.
func TestRunningTaskKeepsItsInputs(t *testing.T) {
	t.Parallel()
	var s *storage.Store
	var e *executor
	e, s = newExecutor(t, func(ctx context.Context, task runner.Task) (runner.Result, error) {
		if _, err := io.CopyN(task.Stdout, task.Stdin, 1); err != nil {
			return runner.Result{}, err
		}
		collect(t, s)
		return echo(ctx, task)
	})
	x := execution(t, s, func(x *tasks.Execution) { x.Stdin = []tasks.Span{{Root: add(t, s, alphabet), Length: -1}} })
	for _, c := range []tasks.CID{x.Program, x.Stdin[0].Root} {
		root, err := cid.Decode(string(c))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Unpin(t.Context(), root, storage.User); err != nil {
			t.Fatal(err)
		}
	}
	out := execute(t, e, x)
	if string(out.Inline) != alphabet {
		t.Errorf("got %v %q", out.Reason, out.Inline)
	}
	collect(t, s)
	if got := read(t, s, out.Output, ""); got != alphabet { // pinned for the work on the job
		t.Errorf("the output is %q", got)
	}
	if _, err := e.Run(t.Context(), execution(t, s, func(n *tasks.Execution) { n.Stdin = x.Stdin })); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("the inputs outlived the task: %v", err)
	}
}

// TestRealProgram counts words in a child process.
func TestRealProgram(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	wasm, err := examples.Program("wordcount")
	if err != nil {
		t.Fatal(err)
	}
	program, err := s.AddReader(t.Context(), bytes.NewReader(wasm), storage.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := runner.New(runner.Config{Scratch: t.TempDir(), CacheDir: sharedCache, Slots: 1, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	e := &executor{store: s, runner: r, scratch: t.TempDir()}
	text := "one Two two, and two threes more than one\n"
	x := execution(t, s, func(x *tasks.Execution) {
		x.Program = tasks.CID(program.CID.String())
		x.Stdin = []tasks.Span{{Root: add(t, s, text), Length: -1}}
		x.Needs.Memory = 128 << 20
	})
	out := execute(t, e, x)
	want, err := examples.CountWords(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	got, err := examples.ReadCounts(bytes.NewReader(out.Inline))
	if err != nil || out.Reason != tasks.OK || len(got) != len(want) || got["two"] != 3 || got["one"] != 2 {
		t.Errorf("%v %s: %v, %v; want %v", out.Reason, out.Detail, got, err, want)
	}
	if runtime.GOOS == "linux" && out.Usage.CPU <= 0 {
		t.Errorf("used %+v", out.Usage)
	}
	x.Ref.Index, x.Needs.Output = 1, 10
	if out := execute(t, e, x); out.Reason != tasks.OutputLimit || out.Output != "" {
		t.Errorf("an output above its limit: %+v", out)
	}
	x.Ref.Index, x.Needs.Output = 2, 1<<20
	x.Stdin[0].Length = 1000
	if out := execute(t, e, x); out.Reason != tasks.BadInput {
		t.Errorf("a span past the end: %+v", out)
	}
	// The child that saw a broken input is not used for the next.
	x.Ref.Index, x.Stdin[0].Length = 3, -1
	if again := execute(t, e, x); again.Reason != tasks.OK || again.Output != out.Output {
		t.Errorf("the next task: %+v", again)
	}
}
