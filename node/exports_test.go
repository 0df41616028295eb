package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/kith-mesh/kith/tasks"
)

func TestExports(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	var x exports
	k := exportKey{job: "a", span: tasks.Span{Root: "r", Length: -1}}
	var mu sync.Mutex
	written := 0
	write := func(path string) error {
		mu.Lock()
		written++
		mu.Unlock()
		return os.WriteFile(path, []byte("input"), 0o600)
	}
	left := func(want int, when string) {
		t.Helper()
		list, err := os.ReadDir(dir)
		if err != nil || len(list) != want {
			t.Errorf("%s: %d files, want %d, %v", when, len(list), want, err)
		}
	}

	// Tasks that come at once, or later, see one path, written once.
	paths, releases := make([]string, 20), make([]func() error, 20)
	var all sync.WaitGroup
	for i := range paths {
		all.Go(func() {
			var err error
			if paths[i], releases[i], err = x.acquire(ctx, k, dir, write); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i, p := range paths {
		if p != paths[0] {
			t.Fatalf("task %d reads %s, another %s", i, p, paths[0])
		}
		if i > 0 {
			if err := releases[i](); err != nil {
				t.Error(err)
			}
		}
	}
	if written != 1 {
		t.Errorf("written %d times", written)
	}

	// Forgotten, it stays for who reads it; the next job's tasks get their own.
	if err := errors.Join(x.forget("another"), x.forget("a")); err != nil {
		t.Error(err)
	}
	left(1, "while a task reads it")
	p, release, err := x.acquire(ctx, k, dir, write)
	if err != nil || p == paths[0] {
		t.Errorf("after it was forgotten: %s, %v", p, err)
	}
	if err := errors.Join(releases[0](), release()); err != nil {
		t.Error(err)
	}
	left(1, "between tasks")
	if err := x.forget("a"); err != nil {
		t.Error(err)
	}
	left(0, "after the job")

	// A task that is stopped while it writes takes nothing from the others.
	bad, begun, stopped := errors.New("stopped"), make(chan struct{}), make(chan struct{})
	all.Go(func() {
		_, _, err := x.acquire(ctx, k, dir, func(path string) error {
			if err := os.Mkdir(path, 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(path, "half"), nil, 0o600); err != nil {
				return err
			}
			close(begun)
			<-stopped
			return bad
		})
		if !errors.Is(err, bad) {
			t.Error(err)
		}
	})
	<-begun
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := x.acquire(over, k, dir, write); !errors.Is(err, context.Canceled) {
		t.Errorf("a task that was stopped while it waited: %v", err)
	}
	all.Go(func() {
		_, release, err := x.acquire(ctx, k, dir, write)
		if err != nil {
			t.Error(err)
			return
		}
		if err := release(); err != nil {
			t.Error(err)
		}
	})
	close(stopped)
	all.Wait()
	left(1, "after a failure")
	if err := x.forget("a"); err != nil {
		t.Error(err)
	}
	left(0, "in the end")
}
