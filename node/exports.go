package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/kith-mesh/kith/tasks"
)

// exports are the inputs that all tasks of a job see whole: each is written to
// disk once and read by all of them, until this node has no work on the job.
// Its zero value is ready.
type exports struct {
	mu     sync.Mutex
	serial int
	held   map[exportKey]*export
}

type exportKey struct {
	job  tasks.JobID
	span tasks.Span
}

type export struct {
	path  string
	ready chan struct{} // closed when path is whole, or err set
	err   error
	users int
	over  bool // forgotten: it goes with its last user
}

// acquire gives the path of a span, which write brings under dir when no task
// had it before, or when the one that began to did not end it. The path must
// not be changed, and stays until release.
func (x *exports) acquire(ctx context.Context, k exportKey, dir string, write func(path string) error) (path string, release func() error, err error) {
	for {
		x.mu.Lock()
		e := x.held[k]
		if e == nil {
			x.serial++
			e = &export{path: filepath.Join(dir, fmt.Sprintf("shared-%d", x.serial)), ready: make(chan struct{}), users: 1}
			if x.held == nil {
				x.held = map[exportKey]*export{}
			}
			x.held[k] = e
			x.mu.Unlock()
			if err := x.fill(k, e, write); err != nil {
				return "", nil, err
			}
			return e.path, func() error { return x.leave(e) }, nil
		}
		e.users++
		x.mu.Unlock()
		select {
		case <-e.ready:
		case <-ctx.Done():
			return "", nil, errors.Join(ctx.Err(), x.leave(e))
		}
		if e.err == nil {
			return e.path, func() error { return x.leave(e) }, nil
		}
		if err := errors.Join(ctx.Err(), x.leave(e)); err != nil {
			return "", nil, err
		}
	}
}

// fill writes a new export. One that failed is nobody's.
func (x *exports) fill(k exportKey, e *export, write func(path string) error) error {
	e.err = write(e.path)
	x.mu.Lock()
	if e.err != nil {
		e.over = true
		if x.held[k] == e {
			delete(x.held, k)
		}
	}
	x.mu.Unlock()
	close(e.ready)
	if e.err != nil {
		return errors.Join(e.err, x.leave(e))
	}
	return nil
}

// leave ends a use.
func (x *exports) leave(e *export) error {
	x.mu.Lock()
	e.users--
	last := e.over && e.users == 0
	x.mu.Unlock()
	if last {
		return os.RemoveAll(e.path)
	}
	return nil
}

// forget removes what was written for a job, each as soon as no task reads it.
func (x *exports) forget(job tasks.JobID) error {
	x.mu.Lock()
	var idle []*export
	for k, e := range x.held {
		if k.job == job {
			delete(x.held, k)
			if e.over = true; e.users == 0 {
				idle = append(idle, e)
			}
		}
	}
	x.mu.Unlock()
	var errs []error
	for _, e := range idle {
		errs = append(errs, os.RemoveAll(e.path))
	}
	return errors.Join(errs...)
}
