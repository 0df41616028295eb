package market

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// bench is this node's work for others: the one goroutine that drives its
// Worker.
type bench struct {
	s     *Service
	inbox *inbox[benchEvent]
	wall  func() time.Time

	mu       sync.Mutex
	machine  *tasks.Worker
	jobs     map[workKey]*benchJob
	running  map[runKey]context.CancelFunc
	kept     map[wire.ReceiptKey]kept // durable, without a verdict
	owed     []wire.OwedReceipt       // from before the last start
	shown    map[wire.ReceiptKey]bool // of owed, those that their origin asked to see
	wake     chan struct{}            // for those; has room for one
	settled  wire.Settled             // to be forgotten with the next that are kept
	fetching map[tasks.Span]chan struct{}

	pins chan struct{}               // has its one token while small outputs are stored or let go; taken before mu
	let  map[tasks.JobID][]tasks.CID // outputs to let go of after this batch; run's alone
}

// kept is what is known of a receipt that is on disk.
type kept struct {
	origin tasks.PeerID
	nonce  []byte // of one that is committed to
	hash   tasks.Hash
}

// workKey names work: two origins may hold one published job for a while.
type workKey struct {
	origin tasks.PeerID
	job    tasks.JobID
}

// benchJob is what the shell knows of a job that it works for.
type benchJob struct {
	grace  time.Duration
	made   map[tasks.CID]bool       // outputs that its origin may fetch
	stored map[tasks.CID]bool       // of those, the small ones that are in the store
	fresh  map[tasks.CID]int        // runs that made them, and that the machine has not heard of
	here   map[tasks.Span]time.Time // when it was brought
}

type runKey struct {
	work    workKey
	lease   tasks.LeaseID
	ref     tasks.Ref
	replica uint32
}

// benchEvent is one event. answer, when not nil, gets what the step said to the
// peer that asked, instead of that being sent.
type benchEvent struct {
	ev     tasks.WorkerEvent
	said   *wire.SaidVerdicts          // how the verdicts of ev were signed; nil: not to be kept
	answer chan<- []tasks.WorkerEffect // has room for one
	then   chan<- struct{}             // closed when the machine has it
}

func newBench(s *Service) (*bench, error) {
	c := s.cfg.Worker
	c.Self, c.Rand, c.Limits = s.self, s.rand("worker"), s.cfg.Limits
	m, err := tasks.NewWorker(c)
	if err != nil {
		return nil, err
	}
	return &bench{s: s, inbox: newInbox[benchEvent](&s.waiting), wall: s.cfg.Now, machine: m, jobs: map[workKey]*benchJob{},
		running: map[runKey]context.CancelFunc{}, kept: map[wire.ReceiptKey]kept{},
		shown: map[wire.ReceiptKey]bool{}, wake: make(chan struct{}, 1), fetching: map[tasks.Span]chan struct{}{},
		pins: make(chan struct{}, 1), let: map[tasks.JobID][]tasks.CID{}}, nil
}

func (b *bench) push(ev tasks.WorkerEvent) { b.inbox.push(benchEvent{ev: ev}) }

func (b *bench) run(ctx context.Context) {
	b.s.crew.spawn(b.settleOld)
	next := newAlarm()
	defer next.t.Stop()
	batch := []benchEvent{{ev: tasks.WorkerTick{}}}
	for {
		for _, e := range batch {
			b.step(ctx, e)
		}
		b.letAllGo()
		b.mu.Lock()
		next.set(b.machine.Next())
		b.mu.Unlock()
		select {
		case <-b.inbox.ready:
			batch = b.inbox.take(stepAtOnce)
		case <-next.t.C:
			batch = []benchEvent{{ev: tasks.WorkerTick{}}}
		case <-ctx.Done():
			return
		}
	}
}

func (b *bench) step(ctx context.Context, e benchEvent) {
	if ev, ok := e.ev.(tasks.VerdictsIn); ok { // before the machine lets go of the job, and with it of what is kept
		b.judged(ev.Origin, ev.Verdicts, e.said)
	}
	b.mu.Lock()
	switch ev := e.ev.(type) {
	case tasks.LeaseIn:
		b.note(ev.Lease)
	case tasks.Ran:
		if j := b.jobs[workKey{ev.Origin, ev.Job}]; j != nil && ev.Outcome.Output != "" {
			if j.fresh[ev.Outcome.Output]--; j.fresh[ev.Outcome.Output] <= 0 {
				delete(j.fresh, ev.Outcome.Output)
			}
		}
	}
	effects := b.machine.Step(time.Now(), e.ev)
	if ev, ok := e.ev.(tasks.LeaseIn); ok && !b.machine.Holds(ev.Lease.Job, ev.Lease.Origin) {
		delete(b.jobs, workKey{ev.Lease.Origin, ev.Lease.Job}) // it was refused
	}
	b.mu.Unlock()
	var said []tasks.WorkerEffect
	for _, f := range effects {
		if e.answer != nil && answers(f) {
			said = append(said, f)
			continue
		}
		b.do(ctx, f)
	}
	if e.answer != nil {
		e.answer <- said
	}
	if e.then != nil {
		close(e.then)
	}
}

// note is called with the lock held.
func (b *bench) note(l tasks.Lease) {
	k := workKey{l.Origin, l.Job}
	j := b.jobs[k]
	if j == nil {
		j = &benchJob{made: map[tasks.CID]bool{}, stored: map[tasks.CID]bool{}, fresh: map[tasks.CID]int{}, here: map[tasks.Span]time.Time{}}
		b.jobs[k] = j
	}
	j.grace = max(j.grace, min(l.Duration+l.Grace, maxGrace))
}

// maxGrace bounds how long an origin's word keeps receipts here.
const maxGrace = 24 * time.Hour

func answers(f tasks.WorkerEffect) bool {
	switch f.(type) {
	case tasks.SendBid, tasks.Refuse:
		return true
	}
	return false
}

func (b *bench) do(ctx context.Context, f tasks.WorkerEffect) {
	s := b.s
	switch f := f.(type) {
	case tasks.SendBid:
		s.crew.spawn(func(ctx context.Context) { b.bid(ctx, f) })
	case tasks.Start:
		runCtx, cancel := context.WithCancel(ctx)
		k := runKey{workKey{f.Origin, f.Execution.Job}, f.Lease, f.Execution.Ref, f.Replica}
		b.mu.Lock()
		b.running[k] = cancel
		b.mu.Unlock()
		s.emit(Event{Kind: WorkStarted, Job: f.Execution.Job, Ref: f.Execution.Ref, Worker: f.Origin})
		if !s.crew.spawn(func(context.Context) { b.execute(runCtx, cancel, k, f) }) {
			cancel()
		}
	case tasks.Stop:
		b.mu.Lock()
		if cancel := b.running[runKey{workKey{f.Origin, f.Job}, f.Lease, f.Ref, f.Replica}]; cancel != nil {
			cancel()
		}
		b.mu.Unlock()
	case tasks.Deliver:
		s.crew.spawn(func(ctx context.Context) { b.deliver(ctx, f) })
	case tasks.ReleaseOutput:
		if b.letGo(f) {
			b.let[f.Job] = append(b.let[f.Job], f.Output)
		}
	case tasks.ReleaseJob:
		b.mu.Lock()
		delete(b.jobs, workKey{f.Origin, f.Job})
		var gone []wire.ReceiptKey
		for k, x := range b.kept {
			if k.Job == f.Job && x.origin == f.Origin {
				gone = append(gone, k)
				delete(b.kept, k)
			}
		}
		b.mu.Unlock()
		s.crew.spawn(func(ctx context.Context) {
			b.settle(ctx, gone, nil, true)
			b.pins <- struct{}{}
			defer func() { <-b.pins }()
			if !b.works(f.Job) {
				b.release(ctx, f.Job)
			}
		})
	case tasks.Refuse:
		s.log.Debug("refusal has nobody to go to", "job", f.Job, "reason", f.Reason)
	}
}

// letGo notes that an output is owed to an origin no more, and reports whether
// nobody else waits for it: another origin, or a run that made the same and of
// which the machine has yet to hear.
func (b *bench) letGo(f tasks.ReleaseOutput) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if j := b.jobs[workKey{f.Origin, f.Job}]; j != nil {
		if j.fresh[f.Output] > 0 {
			return false
		}
		delete(j.made, f.Output)
		delete(j.stored, f.Output)
	}
	for k, j := range b.jobs {
		if k.job == f.Job && j.made[f.Output] {
			return false
		}
	}
	return true
}

// works reports whether this node has work of a job, whoever its origin is.
func (b *bench) works(job tasks.JobID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.jobs {
		if k.job == job {
			return true
		}
	}
	for _, o := range b.owed {
		if o.Receipt.Job == job {
			return true
		}
	}
	return false
}

// letAllGo lets go of what one batch of events let go of, in one commit a job.
// Nothing is pinned that was never stored: what is empty, and what failed to be.
func (b *bench) letAllGo() {
	for job, outputs := range b.let {
		b.s.crew.spawn(func(ctx context.Context) {
			b.pins <- struct{}{}
			defer func() { <-b.pins }()
			outputs = slices.DeleteFunc(outputs, func(c tasks.CID) bool { return c == nothing || b.stores(job, c) })
			if len(outputs) > 0 {
				b.release(ctx, job, outputs...)
			}
		})
	}
	clear(b.let)
}

// stores reports whether an output was stored again for a job since it was let
// go of.
func (b *bench) stores(job tasks.JobID, output tasks.CID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, j := range b.jobs {
		if k.job == job && j.stored[output] {
			return true
		}
	}
	return false
}

// release lets go of outputs; with none named, of all of a job's.
func (b *bench) release(ctx context.Context, job tasks.JobID, outputs ...tasks.CID) {
	if err := b.s.cfg.Data.ReleaseWork(ctx, job, outputs...); err != nil && ctx.Err() == nil {
		b.s.log.Warn("work not released", "job", job, "outputs", len(outputs), "err", err)
	}
}

// execute brings a task's inputs, runs it and says what came of it.
func (b *bench) execute(ctx context.Context, cancel context.CancelFunc, k runKey, f tasks.Start) {
	defer cancel()
	out := b.outcome(ctx, f)
	b.mu.Lock()
	delete(b.running, k)
	if j := b.jobs[k.work]; j != nil && out.Output != "" {
		j.made[out.Output] = true
		j.fresh[out.Output]++
	}
	b.mu.Unlock()
	b.s.metrics.ran(out)
	b.s.emit(Event{Kind: WorkEnded, Job: k.work.job, Ref: k.ref, Worker: f.Origin, Reason: out.Reason, Text: out.Detail})
	b.push(tasks.Ran{Origin: k.work.origin, Job: k.work.job, Lease: k.lease, Ref: k.ref, Replica: k.replica, Outcome: out, Runner: b.s.cfg.Version})
}

func (b *bench) outcome(ctx context.Context, f tasks.Start) tasks.Outcome {
	x := f.Execution
	if err := b.bring(ctx, f.Origin, f.Lease, x); err != nil {
		reason := b.fault(err, tasks.InputUnavailable)
		if errors.Is(err, ErrBadSpan) {
			reason = tasks.BadInput
		}
		return tasks.Outcome{Reason: reason, Detail: clip(err.Error())}
	}
	out, err := b.s.cfg.Runner.Run(ctx, x)
	if err != nil || out.Reason != tasks.OK {
		b.doubt(workKey{f.Origin, x.Job})
	}
	if err != nil {
		return tasks.Outcome{Reason: b.fault(err, tasks.WorkerFault), Detail: clip(err.Error())}
	}
	return bounded(out)
}

// fault names the reason of this node's own failure. A child process that had no
// room says so in words only.
func (b *bench) fault(err error, otherwise tasks.Reason) tasks.Reason {
	if b.s.cfg.Full(err) || b.s.cfg.Room() != nil {
		return tasks.WorkerFull
	}
	return otherwise
}

// bounded keeps an outcome within what a receipt carries.
func bounded(o tasks.Outcome) tasks.Outcome {
	o.Detail = clip(o.Detail)
	if len(o.Inline) > wire.MaxInline {
		o.Inline = nil
	}
	if len(o.Log) > wire.MaxLog {
		o.Log = o.Log[len(o.Log)-wire.MaxLog:]
	}
	if o.Reason != tasks.OK {
		o.Output, o.Inline = "", nil
	}
	return o
}

// seen hears that a peer is there again.
func (b *bench) seen(p tasks.PeerID) { b.push(tasks.OriginSeen{Origin: p}) }

// caughtUp waits until the machine has what was pushed: whoever sends faster than
// that is slowed, also when it does not wait for the answer, or sends what is
// refused half-way.
func (b *bench) caughtUp() error {
	run, ok := b.s.crew.enter()
	if !ok {
		return notReady()
	}
	defer b.s.crew.leave()
	then := make(chan struct{})
	b.inbox.push(benchEvent{ev: tasks.WorkerTick{}, then: then})
	select {
	case <-then:
		return nil
	case <-run.Done():
		return notReady()
	}
}
