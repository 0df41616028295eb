package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// bounds is what the parent holds a child to for a while.
type bounds struct {
	wall     time.Duration
	cpu      time.Duration // beyond what it had used before
	resident int64         // bytes
}

// watch meters the child, which had used first of CPU, until done, stops it beyond a bound, and pauses it
// while all programs together take more CPU than they may. It gives the most
// bytes that were resident.
func (c *child) watch(ctx context.Context, done <-chan struct{}, first time.Duration, b bounds) (peak int64) {
	began := time.Now()
	seen := first
	defer func() { // what the last tick missed
		if used, err := c.meter.cpu(); err == nil {
			c.r.throttle.charge(time.Now(), used-seen)
		}
	}()
	timer := time.NewTimer(min(meterTick, b.wall))
	defer timer.Stop()
	for {
		select {
		case <-done:
			return peak
		case <-c.dead:
			return peak
		case <-ctx.Done():
			c.kill(stop{err: ctx.Err()})
			return peak
		case <-timer.C:
		}
		used, err := c.meter.cpu()
		resident, err2 := c.meter.resident()
		if err = errors.Join(err, err2); err != nil {
			if !c.gone() {
				c.kill(stop{err: fmt.Errorf("meter child: %w", err)})
			}
			return peak
		}
		peak = max(peak, resident)
		now := time.Now()
		switch {
		case now.Sub(began) >= b.wall:
			c.kill(stop{reason: tasks.TimeLimit, detail: fmt.Sprintf("ran for %v", b.wall)})
			return peak
		case used-first >= b.cpu:
			c.kill(stop{reason: tasks.CPULimit, detail: fmt.Sprintf("took %v of CPU time", b.cpu)})
			return peak
		case resident > b.resident:
			c.kill(stop{reason: tasks.OutOfMemory, detail: fmt.Sprintf("%d bytes resident, %d allowed", resident, b.resident)})
			return peak
		}
		next := min(meterTick, b.cpu-(used-first)+time.Millisecond)
		if pause := c.r.throttle.charge(now, used-seen); pause > 0 && canPause {
			c.pause(ctx, done, min(pause, b.wall-now.Sub(began)))
		}
		seen = used
		timer.Reset(max(min(next, b.wall-time.Since(began)), 0))
	}
}

// pause stops the child for d, or until it need not be any more.
func (c *child) pause(ctx context.Context, done <-chan struct{}, d time.Duration) {
	if err := pauseProcess(c.pid); err != nil {
		return // it is gone; watch sees that
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-done:
	case <-c.dead:
		return
	}
	if err := resumeProcess(c.pid); err != nil && !c.gone() {
		c.kill(stop{err: fmt.Errorf("resume child: %w", err)})
	}
}

// run runs one task in a child that has its program loaded.
func (c *child) run(ctx context.Context, t Task) (Result, error) {
	if err := c.afford(ctx); err != nil {
		return Result{}, err
	}
	cpu, err := c.meter.cpu()
	if err != nil {
		return Result{}, c.failure(err)
	}
	began := time.Now()
	done := make(chan struct{})
	var peak int64
	var wg sync.WaitGroup
	wg.Go(func() {
		peak = c.watch(ctx, done, cpu, bounds{
			wall: t.Limits.Timeout, cpu: t.cpuLimit(), resident: c.baseline + t.Limits.Memory + slackMemory,
		})
	})
	if t.Stdin == nil {
		c.feed(t, done)
	} else {
		wg.Go(func() { c.feed(t, done) })
	}
	got := collection{limit: t.Limits.Output, log: tail{max: c.r.cfg.LogBytes}, stdout: t.Stdout}
	err = got.read(&c.frames)
	if err != nil {
		c.kill(c.died(err))
	}
	close(done)
	wg.Wait()

	res := Result{Usage: tasks.Usage{Wall: time.Since(began), Memory: max(got.done.Memory, peak-c.baseline)}}
	if err != nil || c.stopping() {
		<-c.dead
		c.mu.Lock()
		why := *c.why
		c.mu.Unlock()
		res.Reason, res.Detail = why.reason, clip(why.detail)
		res.Log = got.log.bytes()
		res.Usage.Output = got.bytes
		if p := c.cmd.ProcessState; p != nil {
			res.Usage.CPU = max(p.UserTime()+p.SystemTime()-cpu, 0)
		}
		if why.err != nil {
			return res, why.err
		}
		return res, nil
	}
	if used, err := c.meter.cpu(); err == nil {
		res.Usage.CPU = used - cpu
	}
	d := got.done
	got.log.Write(d.Log)
	res.Reason, res.Detail, res.Code = tasks.Reason(d.Reason), clip(d.Detail), d.Code
	res.Log = got.log.bytes()
	res.Usage.Input, res.Usage.Output = d.Input, got.bytes
	if res.Reason == tasks.OK {
		if res.OutFiles, err = c.collect(t, got, &res.Usage.Output); err != nil {
			return res, fmt.Errorf("collect /out: %w", err)
		}
	}
	return res, nil
}

// afford waits until the throttle has CPU time left.
func (c *child) afford(ctx context.Context) error {
	for {
		wait := c.r.throttle.charge(time.Now(), 0)
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-c.dead:
			timer.Stop()
			return c.failure(errors.New("died before its task"))
		}
	}
}

// feed sends the task, its stdin while it lasts, and the end.
func (c *child) feed(t Task, done <-chan struct{}) {
	m := taskMessage{Args: t.Args, Output: t.Limits.Output, Out: t.Out != "", Env: environment(t)}
	if !t.Nondeterministic {
		seed := Seed(t.Job, t.Ref)
		m.Seed = seed[:]
	}
	if t.Stdin == nil { // in one write, so that the child wakes once
		var both bytes.Buffer
		err := writeMessage(&both, frameTask, m)
		if err == nil {
			err = writeFrame(&both, frameEnd, nil)
		}
		if err == nil {
			_, err = c.in.Write(both.Bytes())
		}
		c.fed(err, done)
		return
	}
	err := writeMessage(c.in, frameTask, m)
	if c.piece == nil {
		c.piece = make([]byte, 64<<10)
	}
	for err == nil {
		n, readErr := t.Stdin.Read(c.piece)
		if n > 0 {
			err = writeFrame(c.in, frameStdin, c.piece[:n])
		}
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			c.kill(stop{err: fmt.Errorf("read stdin: %w", readErr)})
			return
		}
		select {
		case <-done: // the program left the rest unread
			readErr = io.EOF
		default:
		}
		if readErr == io.EOF {
			break
		}
	}
	if err == nil {
		err = writeFrame(c.in, frameEnd, nil)
	}
	c.fed(err, done)
}

// fed ends the child whose feeding failed by itself.
func (c *child) fed(err error, done <-chan struct{}) {
	if err == nil {
		return
	}
	select {
	case <-done: // it died or was stopped, and whoever reads knows why
	default:
		if !errors.Is(err, os.ErrClosed) && !brokenPipe(err) {
			c.kill(stop{err: fmt.Errorf("feed child: %w", err)})
		}
	}
}

// environment is what the program finds, sorted.
func environment(t Task) []string {
	env := map[string]string{}
	for k, v := range t.Env {
		env[k] = v
	}
	env["KITH_JOB"] = string(t.Job)
	env["KITH_TASK"] = strconv.FormatUint(uint64(t.Ref.Index), 10)
	env["KITH_TASKS"] = strconv.FormatUint(uint64(t.Tasks), 10)
	var out []string
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

// died says why a child's answer broke off when nobody stopped it.
func (c *child) died(err error) stop {
	var over outputError
	if errors.As(err, &over) {
		return stop{reason: tasks.OutputLimit, detail: err.Error()}
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return stop{err: err}
	}
	<-c.dead // its pipe is closed, so it is ending
	text := c.stderr.String()
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	for _, sign := range []string{"out of memory", "cannot allocate memory", "failed to reserve"} {
		if strings.Contains(text, sign) {
			return stop{reason: tasks.OutOfMemory, detail: first}
		}
	}
	return stop{err: fmt.Errorf("child ended by itself (%v): %q", c.cmd.ProcessState, first)}
}

// outputError is a program that wrote more than it may.
type outputError int64

func (e outputError) Error() string {
	return fmt.Sprintf("more than %d bytes of output", int64(e))
}

// collection is what a child answers to one task.
type collection struct {
	limit  int64
	stdout io.Writer
	bytes  int64 // of stdout
	log    tail
	files  []fileMessage
	done   doneMessage
}

// read reads frames until done. It believes no count of the child's.
func (g *collection) read(frames *frameReader) error {
	for {
		kind, payload, err := frames.next()
		if err != nil {
			return err
		}
		switch kind {
		case frameOut:
			if g.bytes += int64(len(payload)); g.bytes > g.limit {
				return outputError(g.limit)
			}
			if g.stdout != nil {
				if _, err := g.stdout.Write(payload); err != nil {
					return fmt.Errorf("write stdout: %w", err)
				}
			}
		case frameLog:
			g.log.Write(payload)
		case frameFile:
			var f fileMessage
			if err := json.Unmarshal(payload, &f); err != nil {
				return fmt.Errorf("frame %q: %w", kind, err)
			}
			if err := f.check(len(g.files)); err != nil {
				return fmt.Errorf("frame %q: entry %d: %w", kind, len(g.files), err)
			}
			g.files = append(g.files, f)
		case frameDone:
			if err := json.Unmarshal(payload, &g.done); err != nil {
				return fmt.Errorf("frame %q: %w", kind, err)
			}
			return g.done.check()
		default:
			return fmt.Errorf("frame %q came from a child", kind)
		}
	}
}

// check refuses what no program can come to.
func (d doneMessage) check() error {
	switch tasks.Reason(d.Reason) {
	case tasks.OK, tasks.ExitCode, tasks.Trap, tasks.OutOfMemory, tasks.OutputLimit, tasks.BadProgram:
	default:
		return fmt.Errorf("a program ended by reason %d", d.Reason)
	}
	if d.Memory < 0 || d.Input < 0 {
		return fmt.Errorf("a program took %d bytes of memory and %d of input", d.Memory, d.Input)
	}
	return nil
}

func (f fileMessage) check(before int) error {
	if before >= maxEntries {
		return fmt.Errorf("more than %d", maxEntries)
	}
	if !fs.ValidPath(f.Path) || f.Path == "." || len(f.Path) > maxPath {
		return fmt.Errorf("path %.64q not valid", f.Path)
	}
	if !f.Dir && (!validName(f.Name) || f.Size < 0) {
		return fmt.Errorf("file %.64q of %d bytes not valid", f.Name, f.Size)
	}
	return nil
}

// collect moves what the program left in /out to t.Out, and adds its bytes to
// total.
func (c *child) collect(t Task, got collection, total *int64) (n int, err error) {
	if len(got.files) == 0 {
		return 0, nil
	}
	if t.Out == "" {
		return 0, errors.New("files came, but no folder was given")
	}
	if err := os.MkdirAll(t.Out, 0o700); err != nil {
		return 0, err
	}
	for _, f := range got.files {
		local, err := filepath.Localize(f.Path)
		if err != nil {
			return n, fmt.Errorf("%q: this system has no such file names: %w", f.Path, err)
		}
		to := filepath.Join(t.Out, local)
		if _, err := os.Lstat(to); err == nil {
			return n, fmt.Errorf("%q: this system takes it for another file's name: %w", f.Path, fs.ErrExist)
		}
		if f.Dir {
			if err := os.Mkdir(to, 0o700); err != nil {
				return n, err
			}
			n++
			continue
		}
		from := filepath.Join(c.scratch, f.Name)
		info, err := os.Lstat(from)
		if err != nil {
			return n, err
		}
		if *total += info.Size(); !info.Mode().IsRegular() || *total > t.Limits.Output {
			return n, fmt.Errorf("%q: %v of %d bytes, beyond what the child may leave", f.Path, info.Mode(), info.Size())
		}
		if err := moveFile(from, to); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// moveFile renames, or copies where that can't be done.
func moveFile(from, to string) error {
	if os.Rename(from, to) == nil {
		return nil
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close(), os.Remove(from))
}

// tail keeps the end of what is written to it.
type tail struct {
	max int
	b   []byte
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if n > t.max {
		p = p[n-t.max:]
	}
	if len(t.b)+len(p) > 2*t.max {
		t.b = append(t.b[:0], t.b[len(t.b)-t.max:]...)
	}
	t.b = append(t.b, p...)
	return n, nil
}

func (t *tail) bytes() []byte { return t.b[max(len(t.b)-t.max, 0):] }
