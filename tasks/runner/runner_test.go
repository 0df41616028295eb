package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case ChildArg:
			os.Exit(ChildMain(os.Args[2:]))
		case nodeArg:
			os.Exit(nodeMain(os.Args[2:]))
		case wallsArg:
			os.Exit(wallsMain(os.Args[2:]))
		}
	}
	dir, err := os.MkdirTemp("", "kith-runner-test-")
	if err != nil {
		panic(err)
	}
	sharedCache = dir
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// sharedCache is one folder for all the tests' runners, as a node has one.
var sharedCache string

// start runs a Runner for the length of a test, and checks that it leaves
// nothing behind.
func start(t testing.TB, change ...func(*Config)) *Runner {
	t.Helper()
	cfg := Config{Scratch: t.TempDir(), CacheDir: sharedCache, Slots: 2, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
	for _, f := range change {
		f(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		left, err := filepath.Glob(filepath.Join(cfg.Scratch, childDir+"*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind in scratch: %v, %v", left, err)
		}
		if len(r.live) > 0 {
			t.Errorf("%d children left", len(r.live))
		}
	})
	return r
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// roomy are limits that nothing here should meet.
var roomy = tasks.Resources{CPU: 1, Memory: 64 << 20, Timeout: time.Minute, Output: 1 << 20}

func ofJob(job string, change ...func(*Task)) Task {
	t := Task{Job: tasks.JobID(job), Tasks: 1, Limits: roomy}
	for _, f := range change {
		f(&t)
	}
	return t
}

func run(t testing.TB, r *Runner, p *program, task Task) (Result, string) {
	t.Helper()
	var out bytes.Buffer
	if task.Stdout == nil {
		task.Stdout = &out
	}
	res, err := r.Run(t.Context(), Program{Wasm: p.wasm()}, task)
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	return res, out.String()
}

// TestReasons runs what must fail, each with its number, all in one Runner that
// works on after it.
func TestReasons(t *testing.T) {
	t.Parallel()
	r := start(t)
	limit := func(f func(*tasks.Resources)) func(*Task) { return func(t *Task) { f(&t.Limits) } }
	withOut := func(task *Task) { task.Out = filepath.Join(t.TempDir(), "out") }
	tooLarge := nothing()
	tooLarge.min = 2000 // 125 MiB
	library := nothing()
	library.export = "run"
	stranger := newProgram().exit(0)
	stranger.from = "env"
	for _, c := range []struct {
		name   string
		p      *program
		change func(*Task)
		want   tasks.Reason
		detail string
	}{
		{"nothing", nothing(), nil, tasks.OK, ""},
		{"exit 0", newProgram().exit(0), nil, tasks.OK, ""},
		{"exit 3", newProgram().exit(3), nil, tasks.ExitCode, "exit code 3"},
		{"trap", newProgram().unreachable(), nil, tasks.Trap, "unreachable"},
		{"out of bounds", newProgram().i32(1 << 30).load32().drop(), nil, tasks.Trap, "out of bounds"},
		{"spin", spin(), limit(func(l *tasks.Resources) { l.Timeout, l.CPUTime = 200*time.Millisecond, time.Minute }), tasks.TimeLimit, "200ms"},
		{"burn", spin(), limit(func(l *tasks.Resources) { l.CPUTime = 100 * time.Millisecond }), tasks.CPULimit, "100ms"},
		{"grow", growForEver(), nil, tasks.OutOfMemory, "67108864 allowed"},
		{"grow a table", growTable(), nil, tasks.OutOfMemory, ""},
		{"born too large", tooLarge, nil, tasks.OutOfMemory, "131072000 bytes"},
		{"print", printForEver(1), nil, tasks.OutputLimit, "1048576 bytes"},
		{"print a little too much", hello("12345"), limit(func(l *tasks.Resources) { l.Output = 4 }), tasks.OutputLimit, "4 bytes"},
		{"print just enough", hello("12345"), limit(func(l *tasks.Resources) { l.Output = 5 }), tasks.OK, ""},
		{"file", writeOut("f", "12345"), func(t *Task) { withOut(t); t.Limits.Output = 4 }, tasks.OutputLimit, "4 bytes"},
		{"library", library, nil, tasks.BadProgram, "_start"},
		{"stranger", stranger, nil, tasks.BadProgram, "env.proc_exit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := ofJob("reasons")
			if c.change != nil {
				c.change(&task)
			}
			res, _ := run(t, r, c.p, task)
			if res.Reason != c.want || !strings.Contains(res.Detail, c.detail) {
				t.Errorf("%v: %q; want %v with %q", res.Reason, res.Detail, c.want, c.detail)
			}
			if c.want == tasks.ExitCode && res.Code != 3 {
				t.Errorf("code %d, not 3", res.Code)
			}
		})
	}
	recurse := newProgram()
	recurse.op(0x10, 0)                                                                                              // calls itself: it imports nothing
	if res, _ := run(t, r, recurse, ofJob("reasons")); res.Reason != tasks.Trap && res.Reason != tasks.OutOfMemory { // which limit it meets first is chance
		t.Errorf("recursion: %v: %q", res.Reason, res.Detail)
	}
	if res, out := run(t, r, hello("still here"), ofJob("reasons")); res.Reason != tasks.OK || out != "still here" {
		t.Errorf("after it all: %v, %q", res, out)
	}
}

func TestNotModules(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.MaxProgram = 1000 })
	for _, wasm := range [][]byte{{}, []byte("hello"), []byte("\x00asm\x01\x00\x00\x00\xff"), make([]byte, 1001)} {
		res, err := r.Run(t.Context(), Program{Wasm: wasm}, ofJob("bad"))
		if err != nil || res.Reason != tasks.BadProgram || res.Detail == "" {
			t.Errorf("%.10q: %v %q, %v", wasm, res.Reason, res.Detail, err)
		}
	}
	if _, err := r.Run(t.Context(), Program{Path: filepath.Join(t.TempDir(), "none")}, ofJob("bad")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestStdin(t *testing.T) {
	t.Parallel()
	r := start(t)
	with := func(r io.Reader) Task { return ofJob("stdin", func(t *Task) { t.Stdin = r }) }
	res, out := run(t, r, copyOnce(5), with(strings.NewReader("hello, world")))
	if res.Reason != tasks.OK || out != "hello" || res.Usage.Input != 5 || res.Usage.Output != 5 {
		t.Errorf("%v %q %+v", res.Reason, out, res.Usage)
	}
	// A program that reads little of much doesn't wait for the rest, and the
	// child stays good for the next task.
	endless := &counter{}
	res, out = run(t, r, copyOnce(3), with(endless))
	if res.Reason != tasks.OK || out != "\x00\x00\x00" || endless.n > 4<<20 {
		t.Errorf("%v %q after %d bytes", res.Reason, out, endless.n)
	}
	if res, out = run(t, r, copyOnce(3), with(strings.NewReader("abc"))); out != "abc" {
		t.Errorf("the next task read %q", out)
	}
	if n := len(r.idle); n != 2 { // one a program: copyOnce(5) and copyOnce(3)
		t.Errorf("%d children wait, not 2", n)
	}
	if _, out = run(t, r, copyOnce(3), ofJob("stdin")); out != "" {
		t.Errorf("no stdin gave %q", out)
	}
	// A reader that fails is the worker's failure, never a short input.
	broken := io.MultiReader(strings.NewReader("ab"), failing{})
	res, err := r.Run(t.Context(), Program{Wasm: spin().wasm()}, with(broken))
	if !errors.Is(err, errBroken) || res.Reason != tasks.WorkerFault {
		t.Errorf("%v, %v", res.Reason, err)
	}
	res, err = r.Run(t.Context(), Program{Wasm: hello("x").wasm()}, ofJob("stdin", func(t *Task) { t.Stdout = failing{} }))
	if !errors.Is(err, errBroken) || res.Reason != tasks.WorkerFault {
		t.Errorf("stdout: %v, %v", res.Reason, err)
	}
}

var errBroken = errors.New("broken on purpose")

type failing struct{}

func (failing) Read([]byte) (int, error)  { return 0, errBroken }
func (failing) Write([]byte) (int, error) { return 0, errBroken }

type counter struct{ n int }

func (c *counter) Read(p []byte) (int, error) { c.n += len(p); clear(p); return len(p), nil }

func TestLog(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.LogBytes = 10 })
	p := newProgram().text(64, "the log of a failure").print(2, 64, 20).exit(1)
	if res, _ := run(t, r, p, ofJob("log")); string(res.Log) != " a failure" {
		t.Errorf("log %q", res.Log)
	}
	p = newProgram().text(64, "last words").print(2, 64, 10)
	p.loop(func() {})
	res, _ := run(t, r, p, ofJob("log", func(t *Task) { t.Limits.CPUTime = 100 * time.Millisecond }))
	if string(res.Log) != "last words" || res.Reason != tasks.CPULimit {
		t.Errorf("%v, log %q", res.Reason, res.Log)
	}
	res, _ = run(t, r, printForEver(2), ofJob("log", func(t *Task) { t.Limits.CPUTime = 100 * time.Millisecond }))
	if res.Reason != tasks.CPULimit || len(res.Log) != 10 {
		t.Errorf("endless log: %v, %d bytes", res.Reason, len(res.Log))
	}
}

func TestOut(t *testing.T) {
	t.Parallel()
	r := start(t)
	for i := range 3 { // one child, one name, three tasks
		out := filepath.Join(t.TempDir(), "o")
		res, _ := run(t, r, writeOut("result", fmt.Sprint("number ", i)), ofJob("out", func(t *Task) { t.Out = out }))
		b, err := os.ReadFile(filepath.Join(out, "result"))
		if err != nil || string(b) != fmt.Sprint("number ", i) || res.OutFiles != 1 || res.Usage.Output != 8 {
			t.Errorf("%q, %v; %+v", b, err, res)
		}
	}
	out := filepath.Join(t.TempDir(), "o")
	p := writeOut("result", "x").unreachable()
	if res, _ := run(t, r, p, ofJob("out", func(t *Task) { t.Out = out })); res.Reason != tasks.Trap || res.OutFiles != 0 {
		t.Errorf("a failed task left %+v", res)
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed task left a folder: %v", err)
	}
	if res, letter := run(t, r, tryOpen(dirOut, "x", oCreate, bothRights), ofJob("out")); res.OutFiles != 0 || letter != "i" {
		t.Errorf("without /out: errno %q", letter) // i: EBADF
	}
}

func TestIn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("in/a", "A")
	write("in/sub/b", "B")
	write("single", "S")
	write("secret", "not for you")
	for link, to := range map[string]string{"in/up": "../secret", "in/abs": filepath.Join(dir, "secret"), "in/good": "sub/b", "in/dir": ".."} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Skipf("this system makes no links: %v", err)
		}
	}
	letter := func(errno int) string { return string([]byte{byte('a' + errno)}) }
	ok := letter(0)
	for _, unsandboxed := range []bool{false, true} {
		r := start(t, func(c *Config) { c.unsandboxed = unsandboxed })
		task := ofJob("in", func(t *Task) {
			t.Inputs = map[string]string{"d": filepath.Join(dir, "in"), "one": filepath.Join(dir, "single")}
			t.Out = filepath.Join(dir, "out")
		})
		for _, c := range []struct {
			path   string
			oflags int
			rights int64
			want   []string
		}{
			{"d/a", 0, rightRead, []string{ok}},
			{"d/sub/b", 0, rightRead, []string{ok}},
			{"d/sub/../a", 0, rightRead, []string{ok}},
			{"d/good", 0, rightRead, []string{ok}},
			{"one", 0, rightRead, []string{ok}},
			{"none", 0, rightRead, []string{letter(errnoNoEnt)}},
			{"d/a", 0, bothRights, []string{letter(errnoROFS)}},
			{"d/new", oCreate, bothRights, []string{letter(errnoROFS)}},
			{"new", oCreate, bothRights, []string{letter(errnoROFS)}},
			{"../secret", 0, rightRead, []string{letter(errnoPerm)}},
			{"d/../../secret", 0, rightRead, []string{letter(errnoPerm)}},
			{"/etc/passwd", 0, rightRead, []string{letter(errnoPerm), letter(errnoNoEnt)}},
			{"one/../secret", 0, rightRead, []string{letter(errnoNoEnt)}},
			{"secret", 0, rightRead, []string{letter(errnoNoEnt)}},
			{"d/up", 0, rightRead, []string{letter(errnoPerm), letter(errnoAccess)}},
			{"d/abs", 0, rightRead, []string{letter(errnoPerm), letter(errnoAccess)}},
			{"d/dir/secret", 0, rightRead, []string{letter(errnoPerm), letter(errnoAccess)}},
		} {
			if _, got := run(t, r, tryOpen(dirIn, c.path, c.oflags, c.rights), task); !slices.Contains(c.want, got) {
				t.Errorf("open /in/%s: errno %d, want one of %q from 'a'", c.path, got[0]-'a', c.want)
			}
		}
		p := newProgram().text(64, "../single").text(96, "link").i32(64).i32(9).i32(dirOut).i32(96).i32(4).call("path_symlink").letter()
		if _, got := run(t, r, p, task); got != letter(errnoPerm) {
			t.Errorf("symlink in /out: errno %d", got[0]-'a')
		}
	}
}

// TestReplicas: what chance and clock give depends on the job and the task
// alone.
func TestReplicas(t *testing.T) {
	t.Parallel()
	a, b := start(t), start(t, func(c *Config) { c.unsandboxed = true })
	get := func(r *Runner, job string, index uint32, wild bool) string {
		task := ofJob(job, func(t *Task) { t.Ref.Index, t.Nondeterministic = index, wild })
		res, out := run(t, r, chance(), task)
		if res.Reason != tasks.OK || len(out) != 64 {
			t.Fatalf("%v, %d bytes", res.Reason, len(out))
		}
		return out
	}
	first := get(a, "j", 0, false)
	if get(a, "j", 0, false) != first || get(b, "j", 0, false) != first {
		t.Error("replicas differ")
	}
	others := []string{get(a, "j", 1, false), get(a, "k", 0, false), get(a, "j", 0, true), get(a, "j", 0, true)}
	for i, other := range others {
		if other[:32] == first[:32] || slices.Contains(others[:i], other) {
			t.Errorf("other %d is no other", i)
		}
	}
	if others[0][32:] != first[32:] {
		t.Error("the fixed clock depends on the task")
	}
}

func TestEnvironment(t *testing.T) {
	got := environment(Task{Job: "j", Ref: tasks.Ref{Index: 7}, Tasks: 9, Env: map[string]string{"B": "2", "KITH_TASK": "forged"}})
	if want := []string{"B=2", "KITH_JOB=j", "KITH_TASK=7", "KITH_TASKS=9"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTaskCheck(t *testing.T) {
	bad := Task{
		Inputs: map[string]string{"../x": "/a", "y": "relative"}, Out: "relative",
		Env: map[string]string{"a=b": ""}, Args: []string{"\x00"},
	}
	err := bad.check()
	for _, want := range []string{"limits", `"../x"`, `"y"`, `out "relative"`, `"a=b"`, "argument 0"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v names no %s", err, want)
		}
	}
	if _, err := New(Config{Slots: -1, CPU: -1, LogBytes: -1}); err == nil || len(strings.Split(err.Error(), "\n")) != 4 {
		t.Errorf("New: %v", err)
	}
}
