package tensor

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kith-mesh/kith/tensor/internal/kernel"
)

// countJob counts how often each part is done.
type countJob struct{ done []atomic.Int32 }

func (j *countJob) part(i int, _ *kernel.Scratch) { j.done[i].Add(1) }

func (p *Pool) count(t *testing.T, parts int) {
	t.Helper()
	j := &countJob{make([]atomic.Int32, parts)}
	p.mu.Lock()
	p.run(j, parts)
	p.mu.Unlock()
	for i := range j.done {
		if n := j.done[i].Load(); n != 1 {
			t.Errorf("part %d of %d was done %d times", i, parts, n)
		}
	}
}

// Each part of each operation is done once, by any number of threads, that
// changes meanwhile, with operations from several goroutines.
func TestPool(t *testing.T) {
	before := runtime.NumGoroutine()
	p, err := NewPool(3)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			for n := range 2000 {
				if i == 0 && n%50 == 0 {
					if err := p.Resize(1 + n/50%5); err != nil {
						t.Error(err)
					}
				}
				p.count(t, n%9)
				if n%500 == 0 {
					runtime.GC() // workers fall asleep meanwhile
				}
			}
		})
	}
	all.Wait()
	if err := p.Resize(4); err != nil || p.Threads() != 4 {
		t.Errorf("%d threads, %v", p.Threads(), err)
	}
	for _, n := range []int{0, -1, 1025} {
		if err := p.Resize(n); err == nil {
			t.Errorf("a pool of %d threads", n)
		}
	}
	p.Close()
	p.count(t, 7)
	// Each has said that it ends; the runtime may still have it on its list.
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

func BenchmarkPoolEmpty(b *testing.B) {
	p, err := NewPool(2)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	j := &countJob{make([]atomic.Int32, 2)}
	b.ReportAllocs()
	for b.Loop() {
		p.mu.Lock()
		p.run(j, 2)
		p.mu.Unlock()
	}
}
