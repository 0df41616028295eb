package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// childKey is what a child is bound to when it loads a program. The sandbox is
// built around it, so a child never serves another.
type childKey struct {
	job     tasks.JobID
	program string
	memory  int64
	inputs  string
}

func keyOf(p Program, t Task) (childKey, error) {
	k := childKey{job: t.Job, program: p.key(), memory: t.Limits.Memory}
	if len(t.Inputs) > 0 {
		b, err := json.Marshal(t.Inputs) // sorted by name
		if err != nil {
			return k, err
		}
		k.inputs = string(b)
	}
	return k, nil
}

// load lets one child compile a program while the others that want it wait for
// the cache.
type load struct {
	gate   chan struct{}
	cached bool
}

// maxLoads bounds the table of programs that are known to be compiled.
const maxLoads = 1024

// Serve clears what an earlier run left in Scratch, keeps a child warm, and ends
// children that wait too long. It returns when ctx ends and no child is left;
// tasks that still run then fail with ErrStopped.
func (r *Runner) Serve(ctx context.Context) error {
	r.mu.Lock()
	if r.serial > 0 || r.closing {
		r.mu.Unlock()
		return errors.New("runner: Serve runs once")
	}
	r.serial = 1
	r.mu.Unlock()
	defer close(r.stopped)
	if err := r.clean(); err != nil {
		return fmt.Errorf("runner: %w", err)
	}
	if err := r.launch.open(); err != nil {
		return fmt.Errorf("runner: %w", err)
	}
	launcherDone := make(chan struct{})
	go func() { defer close(launcherDone); r.launch.serve() }()
	defer func() { r.launch.close(); <-launcherDone }()
	close(r.ready)
	r.wantBlank()

	sweep := time.NewTicker(max(r.cfg.Idle/4, 50*time.Millisecond))
	defer sweep.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-r.refill:
			r.fillBlank(ctx)
		case <-sweep.C:
			old := time.Now().Add(-r.cfg.Idle)
			r.drop(func(c *child) bool { return c.idleSince.Before(old) || c.gone() })
		}
	}
	r.mu.Lock()
	r.closing = true
	for c := range r.live {
		c.kill(stop{err: ErrStopped})
	}
	r.mu.Unlock()
	r.drop(func(*child) bool { return true })
	r.children.Wait()
	return nil
}

// Forget ends the waiting children of a job that is over.
func (r *Runner) Forget(job tasks.JobID) {
	r.drop(func(c *child) bool { return c.key.job == job })
}

// drop ends idle children, and the blank one once the runner closes.
func (r *Runner) drop(which func(*child) bool) {
	r.mu.Lock()
	var out []*child
	r.idle = slices.DeleteFunc(r.idle, func(c *child) bool {
		if which(c) {
			out = append(out, c)
			return true
		}
		return false
	})
	if r.closing && r.blank != nil {
		out = append(out, r.blank)
		r.blank = nil
	}
	r.mu.Unlock()
	for _, c := range out {
		c.discard()
	}
}

// clean removes leftovers of a run that ended without cleaning up, and makes
// the folders.
func (r *Runner) clean() error {
	for _, dir := range []string{r.cfg.Scratch, r.cfg.CacheDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	left, err := os.ReadDir(r.cfg.Scratch)
	if err != nil {
		return fmt.Errorf("clear scratch: %w", err)
	}
	for _, e := range left {
		if strings.HasPrefix(e.Name(), childDir) {
			if err := os.RemoveAll(filepath.Join(r.cfg.Scratch, e.Name())); err != nil {
				return fmt.Errorf("clear scratch: %w", err)
			}
		}
	}
	return pruneCache(r.cfg.CacheDir, r.cfg.CacheBytes)
}

// wantBlank asks Serve for a child that waits for its first job.
func (r *Runner) wantBlank() {
	select {
	case r.refill <- struct{}{}:
	default:
	}
}

func (r *Runner) fillBlank(ctx context.Context) {
	r.mu.Lock()
	have := r.blank != nil
	r.mu.Unlock()
	if have {
		return
	}
	c, err := r.spawn(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.cfg.Log.Error("child did not start", "err", err)
		}
		return
	}
	r.mu.Lock()
	r.blank = c
	r.mu.Unlock()
}

// acquire gives a child that has p loaded for t. A Reason other than OK says
// that the program can't run.
func (r *Runner) acquire(ctx context.Context, p Program, t Task) (*child, Result, error) {
	key, err := keyOf(p, t)
	if err != nil {
		return nil, Result{}, err
	}
	if c := r.takeIdle(key, t.cpuLimit()); c != nil {
		return c, Result{}, nil
	}
	c := r.takeBlank()
	if c == nil {
		if c, err = r.spawn(ctx); err != nil {
			return nil, Result{}, err
		}
	}
	c.key = key
	res, err := r.loadInto(ctx, c, p, t)
	if err != nil || res.Reason != tasks.OK {
		c.discard()
		return nil, res, err
	}
	return c, Result{}, nil
}

// takeIdle gives a waiting child of key whose CPU budget covers another task.
func (r *Runner) takeIdle(key childKey, need time.Duration) *child {
	var found *child
	var out []*child
	r.mu.Lock()
	for i := len(r.idle) - 1; i >= 0 && found == nil; i-- {
		c := r.idle[i]
		if c.key != key {
			continue
		}
		r.idle = slices.Delete(r.idle, i, i+1)
		if c.gone() || !c.affords(need) {
			out = append(out, c)
		} else {
			found = c
		}
	}
	r.mu.Unlock()
	for _, c := range out {
		c.discard()
	}
	return found
}

func (r *Runner) takeBlank() *child {
	r.mu.Lock()
	c := r.blank
	r.blank = nil
	r.mu.Unlock()
	r.wantBlank()
	if c != nil && c.gone() {
		c.discard()
		return nil
	}
	return c
}

// idleLeast is how many children may wait, however few slots there are: a worker
// takes tasks of its jobs in turn, and a new child costs more than most tasks.
const idleLeast = 4

// release keeps c for the next task of its job, or ends it.
func (r *Runner) release(c *child) {
	if c.gone() || c.stopping() {
		c.discard()
		return
	}
	c.idleSince = time.Now()
	var out *child
	r.mu.Lock()
	r.idle = append(r.idle, c)
	if len(r.idle) > max(r.cfg.Slots, idleLeast) || r.closing {
		out = r.idle[0]
		r.idle = slices.Delete(r.idle, 0, 1)
	}
	r.mu.Unlock()
	if out != nil {
		out.discard()
	}
}

// loadInto has c compile p, one child of a program at a time until the cache
// holds it.
func (r *Runner) loadInto(ctx context.Context, c *child, p Program, t Task) (Result, error) {
	key := c.key.program
	r.mu.Lock()
	l := r.loads[key]
	if l == nil {
		if len(r.loads) >= maxLoads {
			clear(r.loads) // costs a wait, no more
		}
		l = &load{gate: make(chan struct{}, 1)}
		r.loads[key] = l
	}
	cached := l.cached
	r.mu.Unlock()
	if cached {
		return c.load(ctx, p, t)
	}
	select {
	case l.gate <- struct{}{}:
		defer func() { <-l.gate }()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	case <-r.stopped:
		return Result{}, ErrStopped
	}
	res, err := c.load(ctx, p, t)
	if err == nil && res.Reason == tasks.OK {
		r.mu.Lock()
		l.cached = true
		r.mu.Unlock()
		if err := pruneCache(r.cfg.CacheDir, r.cfg.CacheBytes); err != nil {
			r.cfg.Log.Warn("prune compiled programs", "err", err)
		}
	}
	return res, err
}

// pruneCache removes the oldest compiled programs until about limit bytes are
// left.
func pruneCache(dir string, limit int64) error {
	type entry struct {
		path string
		size int64
		when time.Time
	}
	var all []entry
	var total int64
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return ignoreMissing(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		all = append(all, entry{path, info.Size(), info.ModTime()})
		total += info.Size()
		return nil
	})
	if err != nil {
		return fmt.Errorf("read compiled programs: %w", err)
	}
	slices.SortFunc(all, func(a, b entry) int { return a.when.Compare(b.when) })
	for _, e := range all {
		if total <= limit {
			break
		}
		if err := ignoreMissing(os.Remove(e.path)); err != nil {
			return fmt.Errorf("remove compiled program: %w", err)
		}
		total -= e.size
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
