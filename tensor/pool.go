package tensor

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/kith-mesh/kith/tensor/internal/kernel"
)

// Pool is the threads that share the work of one operation at a time, that of the
// caller among them. The others wait awake for the next operation, for some
// microseconds on amd64, since training and inference ask again at once, and then
// sleep.
//
// Its methods may be called from several goroutines; operations then take turns.
// A pool that is let go of must be closed.
type Pool struct {
	tier *kernel.Tier

	mu      sync.Mutex // held while an operation runs, and to resize
	workers []*worker
	own     kernel.Scratch // the caller's
	gemm    gemmJob
	rows    rowJob

	job   job
	parts int64
	next  atomic.Int64 // part
	// inside is how many workers look at job, with shut if no more may, and asleep if
	// the caller sleeps until the last of them has left.
	inside atomic.Int64
	left   chan struct{}
}

// job is what an operation's threads do, part by part, in any order.
type job interface {
	part(i int, s *kernel.Scratch)
}

// worker is one goroutine of a pool.
type worker struct {
	calls   atomic.Uint64 // how often it was called
	asleep  atomic.Bool
	wake    chan struct{}
	quit    atomic.Bool
	ended   chan struct{}
	scratch kernel.Scratch
}

const (
	shut   = 1 << 32
	asleep = 1 << 33
)

// NewPool makes a pool of so many threads, at least one, on the fastest
// instruction set of this machine, or the one that the environment variable
// KITH_TENSOR_TIER names. It fails if the machine does not run that.
func NewPool(threads int) (*Pool, error) {
	tier, err := kernel.Best()
	if err != nil {
		return nil, err
	}
	return newPool(tier, threads)
}

func newPool(tier *kernel.Tier, threads int) (*Pool, error) {
	p := &Pool{tier: tier, left: make(chan struct{}, 1)}
	p.inside.Store(shut)
	return p, p.Resize(threads)
}

// Tier names the instruction set: avx512, avx2, neon or portable.
func (p *Pool) Tier() string { return p.tier.Name }

// Threads is how many share an operation.
func (p *Pool) Threads() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.workers) + 1
}

// Resize changes the number of threads, from the next operation on. When it
// returns, those that are too many have ended.
func (p *Pool) Resize(threads int) error {
	if threads < 1 || threads > 1024 {
		return fmt.Errorf("a pool of %d threads: there must be 1 to 1024", threads)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.workers) < threads-1 {
		w := &worker{wake: make(chan struct{}, 1), ended: make(chan struct{})}
		p.workers = append(p.workers, w)
		go p.work(w)
	}
	gone := p.workers[threads-1:]
	for _, w := range gone {
		w.quit.Store(true)
		w.call()
	}
	for i, w := range gone {
		<-w.ended
		gone[i] = nil
	}
	p.workers = p.workers[:threads-1]
	return nil
}

// Close ends the pool's threads. Operations after it run on the caller's alone.
func (p *Pool) Close() {
	if err := p.Resize(1); err != nil {
		panic(err) // 1 is a size
	}
}

// call has a worker look for work.
func (w *worker) call() {
	w.calls.Add(1)
	if w.asleep.CompareAndSwap(true, false) {
		w.wake <- struct{}{}
	}
}

// How long a thread waits awake: rounds of pauses, some 50 microseconds in all.
const (
	spinRounds = 100
	spinPauses = 16
)

// awake waits for ok for a while, and reports it.
func awake(ok func() bool) bool {
	for range spinRounds {
		if ok() {
			return true
		}
		kernel.Spin(spinPauses)
	}
	runtime.Gosched()
	return ok()
}

// work is a worker's loop.
func (p *Pool) work(w *worker) {
	defer close(w.ended)
	var seen uint64
	called := func() bool { return w.calls.Load() != seen }
	for {
		for !awake(called) {
			w.asleep.Store(true)
			// A call from before that was not for a sleeper.
			if called() && w.asleep.CompareAndSwap(true, false) {
				break
			}
			<-w.wake
		}
		seen = w.calls.Load()
		if w.quit.Load() {
			return
		}
		if p.enter() {
			p.take(&w.scratch)
			p.leave()
		}
	}
}

// enter joins the operation that runs. One that was called late finds none.
func (p *Pool) enter() bool {
	for {
		n := p.inside.Load()
		if n >= shut {
			return false
		}
		if p.inside.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (p *Pool) leave() {
	if p.inside.Add(-1) == shut|asleep {
		p.left <- struct{}{}
	}
}

// take does parts until there are no more.
func (p *Pool) take(s *kernel.Scratch) {
	for i := p.next.Add(1) - 1; i < p.parts; i = p.next.Add(1) - 1 {
		p.job.part(int(i), s)
	}
}

// run does all parts of a job. The caller holds mu.
func (p *Pool) run(j job, parts int) {
	if parts <= 1 || len(p.workers) == 0 {
		for i := range parts {
			j.part(i, &p.own)
		}
		return
	}
	p.job, p.parts = j, int64(parts)
	p.next.Store(0)
	p.inside.Store(0)
	defer p.finish() // also when a part panics: the others look at the job
	for _, w := range p.workers[:min(parts-1, len(p.workers))] {
		w.call()
	}
	p.take(&p.own)
}

// finish waits until no worker looks at the job any more. Parts that none has taken
// are left, which only a panic leaves.
func (p *Pool) finish() {
	p.next.Store(p.parts)
	p.inside.Add(shut)
	if !awake(func() bool { return p.inside.Load() == shut }) {
		for n := p.inside.Load(); n != shut; n = p.inside.Load() {
			if p.inside.CompareAndSwap(n, n|asleep) {
				<-p.left
				break
			}
		}
	}
	p.inside.Store(shut)
	p.job = nil
}

// spendJob is what a core can do, on each.
type spendJob struct {
	tier   *kernel.Tier
	rounds int
}

func (j *spendJob) part(int, *kernel.Scratch) { j.tier.Spend(j.rounds) }

// Spend does rounds of multiply-adds on registers, on each thread, and says how
// many operations that was: timed, it is the peak that products are held to.
func (p *Pool) Spend(rounds int) (flops float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	threads := len(p.workers) + 1
	p.run(&spendJob{p.tier, rounds}, threads)
	return float64(threads) * p.tier.Flops(rounds)
}
