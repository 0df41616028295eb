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

// busyJob has parts that take a while, and knows how many run.
type busyJob struct {
	tier    *kernel.Tier
	rounds  []int // of each part
	running atomic.Int32
}

func (j *busyJob) part(i int, _ *kernel.Scratch) {
	j.running.Add(1)
	defer j.running.Add(-1)
	j.tier.Spend(j.rounds[i])
}

// When an operation returns nobody works on it any more, however the threads that
// help end or sleep.
func TestPoolWaits(t *testing.T) {
	p, err := NewPool(4)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	run := func(rounds ...int) {
		t.Helper()
		j := &busyJob{tier: p.tier, rounds: rounds}
		p.mu.Lock()
		p.run(j, len(rounds))
		p.mu.Unlock()
		if n := j.running.Load(); n != 0 {
			t.Errorf("%d parts run after the operation", n)
		}
	}
	for i := range 300 {
		// The caller has little to do and sleeps; or all end at once.
		run([][]int{{1, 40_000, 40_000}, {5000, 5000, 1}, {1, 1, 1, 1}}[i%3]...)
		p.count(t, 5)
	}
}

// A part that panics on the caller's thread leaves a pool that works.
func TestPoolPanics(t *testing.T) {
	p, err := NewPool(3)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	j := &lateJob{own: &p.own, others: make(chan struct{})}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is lost")
			}
		}()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.run(j, 3)
	}()
	if n := j.running.Load(); n != 0 {
		t.Errorf("%d parts run after the panic", n)
	}
	for range 50 {
		p.count(t, 7)
	}
}

// lateJob panics on the caller's thread once another is at work, which then takes
// a while.
type lateJob struct {
	own     *kernel.Scratch
	others  chan struct{}
	once    sync.Once
	running atomic.Int32
}

func (j *lateJob) part(_ int, s *kernel.Scratch) {
	if s == j.own {
		<-j.others
		panic("as told")
	}
	j.running.Add(1)
	defer j.running.Add(-1)
	j.once.Do(func() { close(j.others) })
	kernel.Tiers()[0].Spend(1_000_000)
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
