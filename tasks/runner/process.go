package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

const (
	childDir  = "child-"
	helloTime = 30 * time.Second
	// slackMemory is what the runtime may need beyond a program's own limit:
	// its garbage, and the stack of a deep recursion.
	slackMemory = 96 << 20
)

// stop is why the parent ended a child.
type stop struct {
	reason tasks.Reason // a limit of the program
	detail string
	err    error // or: ours, or the caller's
}

// child is the parent's end of one child process. One goroutine at a time owns
// it; kill may be called by any.
type child struct {
	r       *Runner
	cmd     *exec.Cmd
	in      *os.File
	out     *os.File
	life    *os.File // guards: what the guard watches
	frames  frameReader
	stderr  *head
	scratch string
	pid     int // of the process that runs the program
	meter   *meter
	dead    chan struct{} // closed when the process is reaped

	key       childKey
	idleSince time.Time
	budget    time.Duration // CPU that its hard limit allows in its life; 0: none
	baseline  int64         // resident bytes after loading
	piece     []byte        // of stdin on its way; kept from task to task

	mu   sync.Mutex
	why  *stop
	shut sync.Once
}

// spawn starts a child and hears its hello.
func (r *Runner) spawn(ctx context.Context) (*child, error) {
	r.mu.Lock()
	if r.closing {
		r.mu.Unlock()
		return nil, ErrStopped
	}
	r.children.Add(1)
	r.serial++
	c := &child{
		r: r, dead: make(chan struct{}), stderr: &head{max: 16 << 10},
		scratch: filepath.Join(r.cfg.Scratch, childDir+strconv.Itoa(r.serial)),
	}
	r.mu.Unlock()
	if err := c.start(); err != nil {
		r.children.Done()
		return nil, fmt.Errorf("start child: %w", err)
	}
	r.mu.Lock()
	r.live[c] = struct{}{}
	closing := r.closing
	r.mu.Unlock()
	if closing {
		c.discard()
		return nil, ErrStopped
	}
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	unwatch := context.AfterFunc(ctx, func() { c.kill(stop{err: ctx.Err()}) })
	defer unwatch()
	var hello helloMessage
	err := c.frames.message(frameHello, &hello)
	if err == nil {
		c.pid = hello.Pid
		c.meter, err = newMeter(hello.Pid)
	}
	if err != nil {
		err = c.failure(err)
		c.discard()
		return nil, fmt.Errorf("start child: %w", err)
	}
	r.stands(hello.Isolation)
	return c, nil
}

// start makes the folder, the pipes and the process.
func (c *child) start() (err error) {
	if err := os.Mkdir(c.scratch, 0o700); err != nil {
		return err
	}
	var ends []*os.File
	defer func() {
		for _, f := range ends {
			f.Close()
		}
		if err != nil {
			err = errors.Join(err, os.RemoveAll(c.scratch))
		}
	}()
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
		}
		return r, w
	}
	inR, inW := pipe()
	outR, outW := pipe()
	guarded := needsGuard || c.r.cfg.guard
	var lifeR, lifeW *os.File
	if guarded {
		lifeR, lifeW = pipe()
	}
	ends = append(ends, inR, outW, lifeR)
	if err != nil {
		ends = append(ends, inW, outR, lifeW)
		return err
	}
	c.cmd = exec.Command(c.r.cfg.Exe, ChildArg)
	if guarded {
		c.cmd.Args = append(c.cmd.Args, guardArg)
		c.cmd.ExtraFiles = []*os.File{lifeR}
	}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = inR, outW, c.stderr
	c.cmd.Dir = c.scratch
	c.cmd.Env = childEnv()
	c.cmd.WaitDelay = time.Second
	if err = c.r.launch.start(c.cmd); err != nil {
		ends = append(ends, inW, outR, lifeW)
		return err
	}
	c.in, c.out, c.life = inW, outR, lifeW
	c.frames.r = bufio.NewReaderSize(outR, 64<<10)
	go func() { // ends with the process; discard waits for it
		defer close(c.dead)
		if err := c.cmd.Wait(); err != nil && c.cmd.ProcessState == nil {
			c.r.cfg.Log.Error("wait for child", "err", err)
		}
	}()
	return nil
}

// childEnv is all that a child inherits: nothing of ours is any of a guest's
// business.
func childEnv() []string {
	env := []string{"GOMAXPROCS=1", "GOTRACEBACK=single"}
	if v, ok := os.LookupEnv("SystemRoot"); ok { // windows can't start a process without
		env = append(env, "SystemRoot="+v)
	}
	return env
}

// kill ends the process. The first reason given stands.
func (c *child) kill(why stop) {
	c.mu.Lock()
	if c.why == nil {
		c.why = &why
	}
	c.mu.Unlock()
	c.shut.Do(func() {
		if c.life != nil {
			c.life.Close()
			if !c.gone() {
				killGroup(c.cmd.Process)
			}
		}
		if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			c.r.cfg.Log.Error("kill child", "err", err)
		}
	})
}

// discard ends the process, waits for its end and removes its folder.
func (c *child) discard() {
	c.kill(stop{err: errors.New("child not needed any more")})
	<-c.dead
	c.in.Close()
	c.out.Close()
	if c.meter != nil {
		c.meter.close()
	}
	if err := os.RemoveAll(c.scratch); err != nil {
		c.r.cfg.Log.Error("clean scratch", "err", err)
	}
	c.r.mu.Lock()
	delete(c.r.live, c)
	c.r.mu.Unlock()
	c.r.children.Done()
}

func (c *child) gone() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

func (c *child) stopping() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why != nil
}

// affords reports whether the hard CPU limit leaves room for need more.
func (c *child) affords(need time.Duration) bool {
	used, err := c.meter.cpu()
	return err == nil && (c.budget == 0 || used+need < c.budget)
}

// failure explains why reading from the child failed: because it was stopped,
// or because it died by itself.
func (c *child) failure(err error) error {
	c.kill(stop{err: err})
	<-c.dead
	c.mu.Lock()
	why := *c.why
	c.mu.Unlock()
	if why.err == nil {
		return errors.New(why.detail)
	}
	if why.err != err { // stopped by another
		return why.err
	}
	text := strings.TrimSpace(c.stderr.String())
	if first, _, cut := strings.Cut(text, "\n"); cut {
		text = first
	}
	return fmt.Errorf("child ended (%v): %w: %q", c.cmd.ProcessState, err, text)
}

// load hands p over and waits until it is compiled.
func (c *child) load(ctx context.Context, p Program, t Task) (Result, error) {
	cfg := c.r.cfg
	module, tooLarge, err := p.bytes(cfg.MaxProgram)
	if err != nil {
		return Result{}, fmt.Errorf("read program: %w", err)
	}
	if tooLarge {
		return Result{Reason: tasks.BadProgram, Detail: fmt.Sprintf("larger than the %d bytes that a program may have", cfg.MaxProgram)}, nil
	}
	m := loadMessage{
		Size: int64(len(module)), CacheDir: cfg.CacheDir, Scratch: c.scratch, Inputs: map[string]string{},
		Memory: t.Limits.Memory, Sandbox: !cfg.unsandboxed,
		CPU: 16*t.cpuLimit() + cfg.LoadTime,
	}
	for name, path := range t.Inputs {
		if m.Inputs[name], err = filepath.EvalSymlinks(path); err != nil {
			return Result{}, fmt.Errorf("input %q: %w", name, err)
		}
	}
	used, err := c.meter.cpu()
	if err != nil {
		return Result{}, c.failure(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		c.watch(ctx, done, used, bounds{wall: cfg.LoadWall, cpu: cfg.LoadTime, resident: cfg.LoadMemory})
	})
	ready, err := c.converse(m, module)
	close(done)
	wg.Wait()
	if err != nil {
		why := c.failure(err)
		c.mu.Lock()
		stopped := *c.why
		c.mu.Unlock()
		if stopped.reason == tasks.TimeLimit { // others left it too little of the CPU: that is not the program's fault
			return Result{}, fmt.Errorf("this machine is too busy to compile it: it %s and had less than %v of CPU time", stopped.detail, cfg.LoadTime)
		}
		if stopped.err == nil {
			return Result{Reason: tasks.BadProgram, Detail: "can't be compiled here: " + stopped.detail}, nil
		}
		return Result{}, why
	}
	c.r.stands(ready.Isolation)
	if tasks.Reason(ready.Reason) != tasks.OK { // the child is ending
		return Result{Reason: tasks.Reason(ready.Reason), Detail: clip(ready.Detail)}, nil
	}
	c.budget = m.CPU
	if c.baseline, err = c.meter.resident(); err != nil {
		return Result{}, fmt.Errorf("meter child: %w", err)
	}
	return Result{}, nil
}

// converse sends the load message and the module, and reads ready.
func (c *child) converse(m loadMessage, module []byte) (ready readyMessage, err error) {
	if err = writeMessage(c.in, frameLoad, m); err != nil {
		return ready, err
	}
	for len(module) > 0 {
		n := min(len(module), pieceBytes)
		if err = writeFrame(c.in, frameModule, module[:n]); err != nil {
			return ready, err
		}
		module = module[n:]
	}
	err = c.frames.message(frameReady, &ready)
	return ready, err
}

// clip keeps a text for people within bounds.
func clip(s string) string {
	if len(s) > maxDetail {
		return strings.ToValidUTF8(s[:maxDetail-3], "") + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

// head keeps the beginning of what is written to it.
type head struct {
	mu  sync.Mutex
	max int
	b   []byte
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b = append(h.b, p[:min(len(p), h.max-len(h.b))]...)
	return len(p), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.b)
}
