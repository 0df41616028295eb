package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// started closes when a program has written something.
type started struct {
	once sync.Once
	c    chan struct{}
}

func newStarted() *started { return &started{c: make(chan struct{})} }

func (s *started) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.c) })
	return len(p), nil
}

func TestCancel(t *testing.T) {
	t.Parallel()
	r := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	running := newStarted()
	go func() { <-running.c; cancel() }()
	res, err := r.Run(ctx, Program{Wasm: talkThenSpin().wasm()}, ofJob("cancel", func(t *Task) { t.Stdout = running }))
	if !errors.Is(err, context.Canceled) || res.Reason != tasks.WorkerFault {
		t.Errorf("%v, %v", res.Reason, err)
	}
}

// TestServeEnds: what runs when Serve ends fails with ErrStopped, and so does
// what comes later.
func TestServeEnds(t *testing.T) {
	t.Parallel()
	r, err := New(Config{Scratch: t.TempDir(), Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx) }()
	running := newStarted()
	go func() { <-running.c; cancel() }()
	if _, err := r.Run(t.Context(), Program{Wasm: talkThenSpin().wasm()}, ofJob("end", func(t *Task) { t.Stdout = running })); !errors.Is(err, ErrStopped) {
		t.Errorf("running: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := r.Run(t.Context(), Program{Wasm: nothing().wasm()}, ofJob("end")); !errors.Is(err, ErrStopped) {
		t.Errorf("later: %v", err)
	}
	if err := r.Serve(t.Context()); err == nil {
		t.Error("Serve ran twice")
	}
}

func TestLeftovers(t *testing.T) {
	t.Parallel()
	scratch := t.TempDir()
	for _, name := range []string{"child-7/f1", "keep/f"} {
		path := filepath.Join(scratch, name)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, func(c *Config) { c.Scratch = scratch })
	run(t, r, nothing(), ofJob("left"))
	if _, err := os.Stat(filepath.Join(scratch, "child-7")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a crashed run's folder: %v", err)
	}
	if _, err := os.Stat(filepath.Join(scratch, "keep")); err != nil {
		t.Errorf("what is not ours: %v", err)
	}
}

// TestChildPerJob: a child serves many tasks of one job and program, and none of
// another.
func TestChildPerJob(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.Slots = 1 })
	pid := func(p *program, task Task) int {
		if res, _ := run(t, r, p, task); res.Reason != tasks.OK {
			t.Fatal(res.Reason, res.Detail)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.idle[len(r.idle)-1].pid
	}
	first := pid(nothing(), ofJob("a"))
	for range 5 {
		if pid(nothing(), ofJob("a")) != first {
			t.Error("another child for the same job")
		}
	}
	seen := map[int]bool{first: true}
	for _, task := range []Task{
		ofJob("b"), ofJob("a", func(t *Task) { t.Limits.Memory = 1 << 20 }),
		ofJob("a", func(task *Task) { task.Inputs = map[string]string{"x": t.TempDir()} }),
	} {
		p := pid(nothing(), task)
		if seen[p] {
			t.Errorf("a child of another job serves %+v", task)
		}
		seen[p] = true
	}
	for i := range 2 * idleLeast {
		pid(nothing(), ofJob(fmt.Sprint("other ", i)))
		pid(nothing(), ofJob("a"))
	}
	r.mu.Lock()
	if len(r.idle) != idleLeast {
		t.Errorf("%d children wait beside one slot, want %d", len(r.idle), idleLeast)
	}
	r.mu.Unlock()
	r.Forget("a")
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.idle {
		if c.key.job == "a" {
			t.Error("a child waits for a job that is over")
		}
	}
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.Slots = 4 })
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			text := strings.Repeat("x", i)
			res, out := run(t, r, copyOnce(100), ofJob("many", func(t *Task) { t.Stdin = strings.NewReader(text) }))
			if res.Reason != tasks.OK || out != text {
				t.Errorf("task %d: %v, %q", i, res.Reason, out)
			}
		})
	}
	wg.Wait()
}

// TestThrottle: with a quarter of a core, a program that needs some CPU time
// takes about four times as long.
func TestThrottle(t *testing.T) {
	t.Parallel()
	if !canPause {
		t.Skip("the job object caps CPU here, which nothing in this process sees")
	}
	r := start(t, func(c *Config) { c.Slots, c.CPU = 1, 0.25 })
	res, _ := run(t, r, spin(), ofJob("slow", func(t *Task) { t.Limits.CPUTime = 200 * time.Millisecond }))
	if res.Reason != tasks.CPULimit {
		t.Fatal(res.Reason, res.Detail)
	}
	if least := 400 * time.Millisecond; res.Usage.Wall < least {
		t.Errorf("%v of CPU in %v: not under %v", res.Usage.CPU, res.Usage.Wall, least)
	}
}

func TestThrottleBucket(t *testing.T) {
	b := &throttle{rate: 0.5}
	now := time.Unix(1000, 0)
	if d := b.charge(now, throttleBurst); d != 0 {
		t.Errorf("the burst waits %v", d)
	}
	if d := b.charge(now, time.Second); d != 2*time.Second {
		t.Errorf("a second at half a core waits %v", d)
	}
	if d := b.charge(now.Add(time.Second), 0); d != time.Second {
		t.Errorf("a second later: %v", d)
	}
	if d := b.charge(now.Add(time.Hour), throttleBurst+time.Millisecond); d != 2*time.Millisecond {
		t.Errorf("more than the burst was saved: %v", d)
	}
	if d := (*throttle)(nil).charge(now, time.Hour); d != 0 {
		t.Errorf("no throttle waits %v", d)
	}
}

func TestIsolation(t *testing.T) {
	t.Parallel()
	r := start(t)
	run(t, r, nothing(), ofJob("walls"))
	got := r.Isolation()
	if !strings.HasPrefix(got, "process, ") {
		t.Errorf("%q", got)
	}
	t.Log(got)
	mod, err := os.ReadFile("../../go.mod")
	if err != nil || !strings.Contains(string(mod), "github.com/tetratelabs/wazero "+engine+"\n") {
		t.Errorf("Version tells of wazero %s, go.mod of another; %v", engine, err)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	r := start(t)
	res, _ := run(t, r, spin(), ofJob("usage", func(t *Task) { t.Limits.CPUTime = 50 * time.Millisecond }))
	u := res.Usage
	if u.CPU < 50*time.Millisecond || u.CPU > u.Wall+time.Second {
		t.Errorf("%+v", u)
	}
	res, _ = run(t, r, growForEver(), ofJob("usage"))
	if res.Usage.Memory < 60<<20 || res.Usage.Memory > 64<<20+slackMemory {
		t.Errorf("%+v", res.Usage)
	}
}

// TestPrune: the cache of compiled programs stays within its bound, oldest out.
func TestPrune(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"old", "mid", "new"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	if err := pruneCache(dir, 250); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 || left[0].Name() != "mid" {
		t.Errorf("%v, %v", left, err)
	}
}

// BenchmarkNothing is what a task costs beside its program.
func BenchmarkNothing(b *testing.B) {
	r := start(b)
	p := Program{Wasm: nothing().wasm()}
	p.Key = p.key()
	for b.Loop() {
		if res, err := r.Run(b.Context(), p, ofJob("bench")); err != nil || res.Reason != tasks.OK {
			b.Fatal(res, err)
		}
	}
}

// BenchmarkNothingParallel is the same on all slots.
func BenchmarkNothingParallel(b *testing.B) {
	r := start(b)
	p := Program{Wasm: nothing().wasm()}
	p.Key = p.key()
	b.SetParallelism(2)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if res, err := r.Run(b.Context(), p, ofJob("bench")); err != nil || res.Reason != tasks.OK {
				b.Fatal(res, err)
			}
		}
	})
}
