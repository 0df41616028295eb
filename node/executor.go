package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/runner"
)

const (
	maxInline    = 64 << 10 // an output of one block up to this travels in its receipt
	maxProgram   = 64 << 20 // bytes of a module
	programCache = 64 << 20 // bytes of modules kept in memory
	spill        = 1 << 20  // bytes of stdout kept in memory before a file takes over
)

// engine runs one program; a runner.Runner does.
type engine interface {
	Run(ctx context.Context, p runner.Program, t runner.Task) (runner.Result, error)
	Forget(job tasks.JobID) // no more tasks of it are to come
}

// executor runs tasks: it reads program and inputs from the store, and leaves
// the output there. It implements market.Runner.
type executor struct {
	store    *storage.Store
	runner   engine
	scratch  string // for inputs that programs see as files, and for outputs
	serial   atomic.Uint64
	programs programs
	shared   exports
}

// workOver lets go of what was made for a job, when this node has no work on it
// any more.
func (e *executor) workOver(job tasks.JobID) error {
	e.runner.Forget(job)
	return e.shared.forget(job)
}

// workDir is one task's folder, made by whoever first needs it: most tasks have
// no file at all.
type workDir struct {
	path string
	used bool
}

func (d *workDir) make() error {
	d.used = true
	return os.MkdirAll(d.path, 0o700)
}

func (d *workDir) remove() error {
	if !d.used {
		return nil
	}
	return os.RemoveAll(d.path)
}

// Run runs one task. Everything it needs must be in the store.
func (e *executor) Run(ctx context.Context, x tasks.Execution) (out tasks.Outcome, err error) {
	if x.Kind != tasks.KindWasm {
		return tasks.Outcome{Reason: tasks.WorkerLacks, Detail: fmt.Sprintf("no runner for kind %q", x.Kind)}, nil
	}
	defer e.use(x)()
	program, err := e.programs.load(ctx, e.store, x.Program)
	if err != nil {
		if errors.Is(err, errProgram) {
			return tasks.Outcome{Reason: tasks.BadProgram, Detail: err.Error()}, nil
		}
		return tasks.Outcome{}, fmt.Errorf("load program: %w", err)
	}
	dir := workDir{path: filepath.Join(e.scratch, fmt.Sprintf("task-%d", e.serial.Add(1)))}
	defer func() { err = errors.Join(err, dir.remove()) }()
	inputs, release, err := e.inputs(ctx, x, &dir)
	defer func() { err = errors.Join(err, release()) }()
	if err != nil {
		return failedInput(err)
	}
	stdin := &spans{ctx: ctx, store: e.store, rest: x.Stdin}
	defer stdin.Close()
	var read io.Reader // none: the runner has nothing to read then
	if len(x.Stdin) > 0 {
		read = stdin
	}
	stdout := &spool{dir: &dir}
	defer stdout.Close()
	folder := filepath.Join(dir.path, "out")
	res, err := e.runner.Run(ctx, runner.Program{Key: string(x.Program), Wasm: program}, runner.Task{
		Job: x.Job, Ref: x.Ref, Tasks: x.Tasks, Args: x.Args, Env: x.Env,
		Stdin: read, Stdout: stdout, Inputs: inputs, Out: folder, Limits: x.Needs, Nondeterministic: x.Nondeterministic,
	})
	dir.used = dir.used || err != nil || res.OutFiles > 0
	if failed := stdin.err; failed != nil {
		return failedInput(failed)
	}
	if err != nil {
		return tasks.Outcome{}, err
	}
	out = tasks.Outcome{Reason: res.Reason, Detail: res.Detail, Log: res.Log, Usage: res.Usage}
	if res.Reason != tasks.OK {
		return out, nil
	}
	err = e.keep(ctx, x.Job, stdout, folder, res.OutFiles > 0, &out)
	return out, err
}

// use keeps all that the task reads from the collector. What is no CID fails
// where it is read.
func (e *executor) use(x tasks.Execution) (release func()) {
	var roots []cid.Cid
	add := func(c tasks.CID) {
		if root, err := cid.Decode(string(c)); err == nil {
			roots = append(roots, root)
		}
	}
	add(x.Program)
	for _, s := range x.Stdin {
		add(s.Root)
	}
	for _, s := range x.Inputs {
		add(s.Root)
	}
	return e.store.Use(roots...)
}

// spanFaults are the job's own: what it names is not as it says.
var spanFaults = []error{storage.ErrSpan, storage.ErrIsDir, storage.ErrNotDir, storage.ErrNode, storage.ErrEscape}

// workKeeps is how long an output that nobody came for stays after a crash made
// the node forget whose it was.
const workKeeps = 48 * time.Hour

// failedInput tells a span that its file does not have, which is the job's
// fault, from trouble of this node's own.
func failedInput(err error) (tasks.Outcome, error) {
	for _, fault := range spanFaults {
		if errors.Is(err, fault) {
			return tasks.Outcome{Reason: tasks.BadInput, Detail: err.Error()}, nil
		}
	}
	return tasks.Outcome{}, fmt.Errorf("read input: %w", err)
}

// inputs writes named inputs to files and folders: what every map task of a job
// reads whole, once for all of them; the rest under work. The paths are good until
// release, which is to be called also after an error.
func (e *executor) inputs(ctx context.Context, x tasks.Execution, work *workDir) (paths map[string]string, release func() error, err error) {
	var releases []func() error
	release = func() error {
		var errs []error
		for _, r := range releases {
			errs = append(errs, r())
		}
		return errors.Join(errs...)
	}
	if len(x.Inputs) == 0 {
		return nil, release, nil
	}
	dir := filepath.Join(work.path, "in")
	if err := work.make(); err != nil {
		return nil, release, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, release, err
	}
	paths = make(map[string]string, len(x.Inputs))
	for name, span := range x.Inputs {
		if !filepath.IsLocal(name) || filepath.Base(name) != name {
			return nil, release, fmt.Errorf("input name %q: %w", name, storage.ErrEscape)
		}
		at := filepath.Join(dir, name)
		if x.Ref.Stage == tasks.StageMap && span.Offset == 0 && span.Length < 0 {
			var done func() error
			at, done, err = e.shared.acquire(ctx, exportKey{x.Job, span}, e.scratch, func(path string) error { return e.input(ctx, span, path) })
			if err == nil {
				releases = append(releases, done)
			}
		} else {
			err = e.input(ctx, span, at)
		}
		if err != nil {
			return nil, release, fmt.Errorf("input %s: %w", name, err)
		}
		paths[name] = at
	}
	return paths, release, nil
}

func (e *executor) input(ctx context.Context, span tasks.Span, at string) error {
	root, err := cid.Decode(string(span.Root))
	if err != nil {
		return fmt.Errorf("%q is not a CID: %w", span.Root, storage.ErrNode)
	}
	if span.Offset == 0 && span.Length < 0 {
		return e.store.ExportPath(ctx, root, span.Path, at, nil)
	}
	r, err := e.store.Open(ctx, root, span.Path, span.Offset, span.Length)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// keep names what a program left in out, and stores what is not small.
func (e *executor) keep(ctx context.Context, job tasks.JobID, stdout *spool, folder string, hasFiles bool, out *tasks.Outcome) error {
	opts := storage.AddOptions{Audience: storage.Job, Owner: workOwner(job), Until: time.Now().Add(workKeeps)}
	if hasFiles {
		f, err := os.OpenFile(filepath.Join(folder, "stdout"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, os.ErrExist) {
			out.Reason, out.Detail = tasks.BadProgram, "the program wrote /out/stdout: that name is taken by its standard output"
			return nil
		}
		if err != nil {
			return err
		}
		r, err := stdout.Reader()
		if err == nil {
			_, err = io.Copy(f, r)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("keep output: %w", err)
		}
		root, err := e.store.AddPath(ctx, folder, opts)
		if err != nil {
			return fmt.Errorf("keep output: %w", err)
		}
		out.Output, out.Usage.Output = tasks.CID(root.CID.String()), root.Size
		return nil
	}
	if b, ok := stdout.small(maxInline); ok { // it is stored with others, before its receipt is said
		c, err := storage.SumBytes(b)
		if err != nil {
			return fmt.Errorf("keep output: %w", err)
		}
		out.Output, out.Inline = tasks.CID(c.String()), b
		return nil
	}
	r, err := stdout.Reader()
	if err != nil {
		return fmt.Errorf("keep output: %w", err)
	}
	root, err := e.store.AddReader(ctx, r, opts)
	if err != nil {
		return fmt.Errorf("keep output: %w", err)
	}
	out.Output = tasks.CID(root.CID.String())
	return nil
}

// spans reads byte spans of stored files one after the other. It is read by one
// goroutine; err is the first failure, to be read after that one has ended.
type spans struct {
	ctx   context.Context
	store *storage.Store
	rest  []tasks.Span
	open  io.ReadCloser
	err   error
}

func (s *spans) Read(b []byte) (int, error) {
	for {
		if s.err != nil {
			return 0, s.err
		}
		if s.open == nil {
			if len(s.rest) == 0 {
				return 0, io.EOF
			}
			next := s.rest[0]
			s.rest = s.rest[1:]
			root, err := cid.Decode(string(next.Root))
			if err != nil {
				s.err = fmt.Errorf("%q is not a CID: %w", next.Root, storage.ErrNode)
				continue
			}
			if s.open, s.err = s.store.Open(s.ctx, root, next.Path, next.Offset, next.Length); s.err != nil {
				continue
			}
		}
		n, err := s.open.Read(b)
		if err == io.EOF {
			err, s.open = s.open.Close(), nil
		}
		if err != nil {
			s.err = err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// Close releases what is open.
func (s *spans) Close() error {
	if s.open == nil {
		return nil
	}
	return s.open.Close()
}

// spool holds a program's stdout: in memory while it is small, then in a file.
type spool struct {
	dir  *workDir
	buf  bytes.Buffer
	file *os.File
}

func (s *spool) Write(b []byte) (int, error) {
	if s.file == nil && s.buf.Len()+len(b) <= spill {
		return s.buf.Write(b)
	}
	if s.file == nil {
		if err := s.dir.make(); err != nil {
			return 0, err
		}
		f, err := os.OpenFile(filepath.Join(s.dir.path, "stdout"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return 0, err
		}
		s.file = f
		if _, err := f.Write(s.buf.Bytes()); err != nil {
			return 0, err
		}
		s.buf = bytes.Buffer{}
	}
	return s.file.Write(b)
}

// Reader reads all of it from the start.
func (s *spool) Reader() (io.Reader, error) {
	if s.file == nil {
		return bytes.NewReader(s.buf.Bytes()), nil
	}
	_, err := s.file.Seek(0, io.SeekStart)
	return s.file, err
}

// small returns the bytes when they are at most limit.
func (s *spool) small(limit int) ([]byte, bool) {
	if s.file != nil || s.buf.Len() > limit {
		return nil, false
	}
	return s.buf.Bytes(), true
}

// Close drops the file.
func (s *spool) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// programs keeps the modules used last in memory.
type programs struct {
	mu    sync.Mutex
	bytes int
	order []tasks.CID // least recently used first
	held  map[tasks.CID][]byte
}

// errProgram says that a program can't be one.
var errProgram = errors.New("not a usable program")

func (p *programs) load(ctx context.Context, store *storage.Store, c tasks.CID) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b, ok := p.held[c]; ok {
		p.touch(c)
		return b, nil
	}
	root, err := cid.Decode(string(c))
	if err != nil {
		return nil, fmt.Errorf("program %q: %w", c, errProgram)
	}
	st, err := store.Stat(ctx, root, "")
	if err != nil {
		return nil, err
	}
	if st.Type != storage.File || st.Size > maxProgram {
		return nil, fmt.Errorf("program %s is a %s of %d bytes, want a file of at most %d: %w", c, st.Type, st.Size, maxProgram, errProgram)
	}
	r, err := store.Open(ctx, root, "", 0, -1)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	if p.held == nil {
		p.held = map[tasks.CID][]byte{}
	}
	p.held[c] = b
	p.order = append(p.order, c)
	p.bytes += len(b)
	for p.bytes > programCache && len(p.order) > 1 {
		old := p.order[0]
		p.bytes -= len(p.held[old])
		delete(p.held, old)
		p.order = p.order[1:]
	}
	return b, nil
}

func (p *programs) touch(c tasks.CID) {
	for i, o := range p.order {
		if o == c {
			copy(p.order[i:], p.order[i+1:])
			p.order[len(p.order)-1] = c
			return
		}
	}
}
