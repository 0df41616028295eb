package runner

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// ErrStopped is what Run returns once Serve has ended.
var ErrStopped = errors.New("runner: stopped")

// Config says where a Runner works and how much of the machine it may take.
type Config struct {
	Exe      string        // the binary to re-execute; "": this one
	CacheDir string        // compiled programs; may outlive the Runner; "": Scratch/compiled
	Scratch  string        // emptied at start, one Runner's at a time; required
	Slots    int           // tasks at once, at most; 0: one a core
	CPU      float64       // cores that all programs together may use; 0: as many as Slots. Programs are stopped and continued to keep to it, on their wall time
	LogBytes int           // tail of a program's log that is kept; 0: 64 KiB
	Idle     time.Duration // how long a child waits for another task of its job; 0: 10 s

	MaxProgram  int64         // bytes of a module, at most; 0: 64 MiB
	LoadTime    time.Duration // CPU time to compile a module; 0: 2 min
	LoadWall    time.Duration // wall time, at the lowest priority; 0: 10 min
	LoadMemory  int64         // resident bytes while compiling; 0: 2 GiB
	CacheBytes  int64         // compiled programs kept, about; 0: 1 GiB
	Log         *slog.Logger  // nil: nowhere
	guard       bool          // tests: the supervisor of systems that lack a parent-death signal
	unsandboxed bool          // tests: without OS sandbox, to see what wasm alone keeps out
}

// Program is a module. Its bytes are Wasm, or else the file at Path.
type Program struct {
	Key  string // names the bytes, such as their CID; "": their SHA-256
	Wasm []byte
	Path string
}

// Task is one run of a program.
type Task struct {
	Job    tasks.JobID
	Ref    tasks.Ref
	Tasks  uint32 // in the stage: KITH_TASKS
	Args   []string
	Env    map[string]string
	Stdin  io.Reader         // nil: empty. Run returns no sooner than a Read that it began
	Stdout io.Writer         // nil: counted and dropped
	Inputs map[string]string // name under /in to a host file or folder, which must not change
	Out    string            // host folder for what the program left in /out, made when there is something; "": no /out
	Limits tasks.Resources   // all but CPU and CPUTime must be positive

	Nondeterministic bool
}

// Result is what a run came to.
type Result struct {
	Reason   tasks.Reason
	Detail   string // for people; at most 2 KiB
	Code     uint32 // the program's exit code
	Log      []byte // tail of standard error
	Usage    tasks.Usage
	OutFiles int // files and folders now in Task.Out
}

// Runner runs tasks in child processes. Serve must be running for Run to work.
type Runner struct {
	cfg      Config
	slots    chan struct{}
	ready    chan struct{} // closed when Serve takes work
	stopped  chan struct{} // closed when Serve gives up
	refill   chan struct{}
	throttle *throttle
	launch   *launcher

	mu        sync.Mutex
	isolation string
	told      []string // what of it was logged
	blank     *child
	idle      []*child // least recently used first
	live      map[*child]struct{}
	serial    int
	closing   bool
	loads     map[string]*load
	children  sync.WaitGroup
}

// New checks cfg. It starts nothing.
func New(cfg Config) (*Runner, error) {
	var errs []error
	if cfg.Exe == "" {
		exe, err := os.Executable()
		if err != nil {
			errs = append(errs, fmt.Errorf("find this binary to re-execute: %w", err))
		}
		cfg.Exe = exe
	}
	if cfg.Scratch == "" {
		errs = append(errs, errors.New("scratch: is empty: name a folder that the runner may clear"))
	} else if abs, err := filepath.Abs(cfg.Scratch); err != nil {
		errs = append(errs, fmt.Errorf("scratch %q: %w", cfg.Scratch, err))
	} else {
		cfg.Scratch = abs
	}
	if cfg.CacheDir == "" {
		cfg.CacheDir = filepath.Join(cfg.Scratch, "compiled")
	} else if abs, err := filepath.Abs(cfg.CacheDir); err != nil {
		errs = append(errs, fmt.Errorf("cache %q: %w", cfg.CacheDir, err))
	} else {
		cfg.CacheDir = abs
	}
	if cfg.Slots < 0 {
		errs = append(errs, fmt.Errorf("slots %d: want 1 or more, or 0 for one a core", cfg.Slots))
	}
	if cfg.CPU < 0 {
		errs = append(errs, fmt.Errorf("cpu %v: want cores above 0, or 0 for as many as slots", cfg.CPU))
	}
	if cfg.LogBytes < 0 || cfg.LogBytes > maxLog {
		errs = append(errs, fmt.Errorf("log bytes %d: want 0 to %d", cfg.LogBytes, maxLog))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("runner: %w", err)
	}
	fill(&cfg.Slots, runtime.NumCPU())
	fill(&cfg.CPU, float64(cfg.Slots))
	fill(&cfg.LogBytes, 64<<10)
	fill(&cfg.Idle, 10*time.Second)
	fill(&cfg.MaxProgram, 64<<20)
	fill(&cfg.LoadTime, 2*time.Minute)
	fill(&cfg.LoadWall, 10*time.Minute)
	fill(&cfg.LoadMemory, 2<<30)
	fill(&cfg.CacheBytes, 1<<30)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Runner{
		cfg:       cfg,
		slots:     make(chan struct{}, cfg.Slots),
		ready:     make(chan struct{}),
		stopped:   make(chan struct{}),
		refill:    make(chan struct{}, 1),
		launch:    newLauncher(cfg),
		live:      map[*child]struct{}{},
		loads:     map[string]*load{},
		isolation: "not known yet: no child has started",
	}
	if cfg.CPU < float64(cfg.Slots) {
		r.throttle = &throttle{rate: cfg.CPU}
	}
	return r, nil
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Slots is how many tasks run at once.
func (r *Runner) Slots() int { return r.cfg.Slots }

// Isolation says which walls the newest child stands behind, such as
// "process, rlimits, no-new-privs, landlock 7". What the system lacks is missing
// from it. It is known soon after Serve starts.
func (r *Runner) Isolation() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.isolation
}

// stands notes what a child stands behind, and logs each once: it differs between
// one that waits and one that has its program.
func (r *Runner) stands(isolation string) {
	r.mu.Lock()
	fresh := r.isolation != isolation && !slices.Contains(r.told, isolation) && len(r.told) < 8
	if r.isolation = isolation; fresh {
		r.told = append(r.told, isolation)
	}
	r.mu.Unlock()
	if fresh {
		r.cfg.Log.Info("programs are walled off", "by", isolation)
	}
}

// Run runs one task and waits for it. A program's failure is the Result's
// Reason; an error means that this worker failed or ctx ended, and then the
// Reason is WorkerFault. It waits while all slots are taken.
func (r *Runner) Run(ctx context.Context, p Program, t Task) (Result, error) {
	fault := Result{Reason: tasks.WorkerFault}
	if err := t.check(); err != nil {
		return fault, fmt.Errorf("runner: %w", err)
	}
	select {
	case <-r.ready:
	case <-r.stopped:
		return fault, ErrStopped
	case <-ctx.Done():
		return fault, ctx.Err()
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-r.stopped:
		return fault, ErrStopped
	case <-ctx.Done():
		return fault, ctx.Err()
	}
	c, res, err := r.acquire(ctx, p, t)
	if err != nil || res.Reason != tasks.OK {
		if err != nil {
			res.Reason = tasks.WorkerFault
			err = fmt.Errorf("runner: load program: %w", err)
		}
		return res, err
	}
	res, err = c.run(ctx, t)
	if err != nil {
		c.discard()
		res.Reason = tasks.WorkerFault
		return res, fmt.Errorf("runner: run task: %w", err)
	}
	r.release(c)
	return res, nil
}

// check reports every fault of t at once.
func (t Task) check() error {
	var errs []error
	l := t.Limits
	if l.Memory <= 0 || l.Timeout <= 0 || l.Output <= 0 || l.CPUTime < 0 {
		errs = append(errs, fmt.Errorf("limits: memory %d, timeout %v, output %d, cpu time %v: want all but cpu time above 0",
			l.Memory, l.Timeout, l.Output, l.CPUTime))
	}
	for name, path := range t.Inputs {
		if !validName(name) {
			errs = append(errs, fmt.Errorf("input %q: want one file name without slashes", name))
		}
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("input %q: path %q is not absolute", name, path))
		}
	}
	if t.Out != "" && !filepath.IsAbs(t.Out) {
		errs = append(errs, fmt.Errorf("out %q: is not absolute", t.Out))
	}
	for name, value := range t.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
			errs = append(errs, fmt.Errorf("env %q: a name has no '=', and neither has a NUL", name))
		}
	}
	for i, a := range t.Args {
		if strings.Contains(a, "\x00") {
			errs = append(errs, fmt.Errorf("argument %d: has a NUL", i))
		}
	}
	return errors.Join(errs...)
}

// cpuLimit is the CPU time that t may take.
func (t Task) cpuLimit() time.Duration {
	if t.Limits.CPUTime > 0 {
		return t.Limits.CPUTime
	}
	return time.Duration(float64(t.Limits.Timeout) * max(t.Limits.CPU, 1))
}

// validName reports whether name may stand under /in.
func validName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= 255 && !strings.ContainsAny(name, "/\\\x00")
}

// Seed is what a deterministic task's random bytes are drawn from.
func Seed(job tasks.JobID, ref tasks.Ref) [32]byte {
	b := append([]byte("kith task seed 1\x00"), job...)
	b = append(b, 0, byte(ref.Stage))
	return sha256.Sum256(binary.LittleEndian.AppendUint32(b, ref.Index))
}

// engine is the version of wazero, as go.mod has it.
const engine = "v1.12.0"

// Version names the runner in receipts: its contract's version and the engine's.
func Version() string {
	return "wasm 1 (wazero " + engine + " " + runtime.GOOS + "/" + runtime.GOARCH + ")"
}

// key is the program's name, and its bytes.
func (p Program) key() string {
	switch {
	case p.Key != "":
		return p.Key
	case p.Wasm != nil:
		sum := sha256.Sum256(p.Wasm)
		return hex.EncodeToString(sum[:])
	}
	return p.Path
}

// bytes reads the module, at most limit bytes of it. tooLarge is what it is
// refused for.
func (p Program) bytes(limit int64) (b []byte, tooLarge bool, err error) {
	if p.Wasm != nil {
		return p.Wasm, int64(len(p.Wasm)) > limit, nil
	}
	f, err := os.Open(p.Path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	b, err = io.ReadAll(io.LimitReader(f, limit+1))
	return b, int64(len(b)) > limit, err
}
