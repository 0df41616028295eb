package market

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// deskInbox bounds what peers may leave at one job's desk, a quarter of it one peer.
const deskInbox = 16 << 10

// stepAtOnce bounds the events that share a commit.
const stepAtOnce = 1024

// desk is one job in hand: the one goroutine that drives its Origin.
type desk struct {
	s     *Service
	by    tasks.PeerID // who published the job; "" when it was handed to this node
	inbox *inbox[deskEvent]
	done  chan struct{} // closed by run when the job is over or the service stops
	holds chan struct{} // a token for each output being fetched
	stall stall         // run waits for room

	// ahead has a token while the machine may know what is not durable yet: who
	// tells people of it takes it, and holds the desk back for that long.
	ahead chan struct{}
	lost  bool // what the machine knows will never be durable: nobody is told

	kept int // tasks of a job that is over whose history is in memory; under Service.mu

	mu     sync.Mutex
	job    tasks.Job
	submit wire.Submission
	origin *tasks.Origin                          // nil before the split is durable
	result *tasks.JobStatus                       // of a job that is over and whose machine was let go of
	roots  map[tasks.CID]bool                     // that leases let workers read
	probes map[peer.ID]bool                       // who was asked directly since it was last gone
	waits  tasks.Wait                             // before there is a machine
	asked  map[wire.ReceiptKey]wire.SignedReceipt // not judged yet
	finish *tasks.Finish
	told   tasks.JobStatus // of the last step

	here    map[tasks.CID]tasks.HeldOutput // outputs that were held last; run's alone
	decided uint32                         // tasks, as far as was told; run's alone
}

// deskHere bounds the outputs that a desk knows to be held: many tasks of a job
// have the same.
const deskHere = 4096

// deskEvent is one event and the proof that came with it.
type deskEvent struct {
	ev      tasks.Event
	receipt *wire.SignedReceipt
}

// eventBytes is about what one takes besides the proof.
const eventBytes = 256

// weight is about what events that came in one message take: those of one batch
// share its proof.
func weight(evs []deskEvent) int {
	n := eventBytes * len(evs)
	var last *wire.SignedBatch
	for _, e := range evs {
		if e.receipt != nil && e.receipt.Batch != last {
			last = e.receipt.Batch
			n += len(last.Sealed)
		}
	}
	return n
}

// openDesk takes a job in hand; it does nothing when that is so already. by is who
// published it; "" when it was handed to this node.
func (s *Service) openDesk(id tasks.JobID, by tasks.PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open(id, by)
}

// open is called with the lock held.
func (s *Service) open(id tasks.JobID, by tasks.PeerID) {
	if s.desks[id] != nil {
		return
	}
	d := &desk{s: s, by: by, inbox: newInbox[deskEvent](&s.waiting), done: make(chan struct{}), holds: make(chan struct{}, s.cfg.Holds),
		job: tasks.Job{ID: id}, roots: map[tasks.CID]bool{}, probes: map[peer.ID]bool{}, asked: map[wire.ReceiptKey]wire.SignedReceipt{},
		here: map[tasks.CID]tasks.HeldOutput{}, ahead: make(chan struct{}, 1)}
	s.desks[id] = d
	if !s.crew.spawn(d.run) {
		delete(s.desks, id)
		close(d.done)
	}
}

// push leaves an event that must not be lost: this node's own, one for each
// thing that it began.
func (d *desk) push(ev tasks.Event) { d.inbox.push(deskEvent{ev: ev}) }

// offer leaves events of a peer, unless too much waits.
func (d *desk) offer(from tasks.PeerID, evs ...deskEvent) bool {
	return d.inbox.offer(deskInbox, from, weight(evs), evs...)
}

func (d *desk) run(ctx context.Context) {
	defer close(d.done)
	err := d.open(ctx)
	if err == nil {
		err = d.loop(ctx)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return
	default:
		d.s.log.Error("job stopped", "job", d.job.ID, "err", err)
	}
	d.s.retire(d)
}

// retire takes a desk whose job is over out of hand, and keeps its history for a
// while.
func (s *Service) retire(d *desk) {
	d.mu.Lock()
	yielded := d.finish != nil && d.finish.Reason == tasks.StaleTerm
	d.mu.Unlock()
	d.inbox.close()
	if !yielded {
		s.remember(d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.desks, d.job.ID)
	s.takeNext()
}

// remember keeps a job that is over for a while.
func (s *Service) remember(d *desk) {
	d.mu.Lock()
	sum := 0
	if d.origin != nil {
		sum = int(d.origin.Status().Tasks)
	}
	d.mu.Unlock()
	s.mu.Lock()
	d.kept = sum
	s.finished = slices.DeleteFunc(s.finished, func(o *desk) bool { return o.job.ID == d.job.ID })
	s.finished = append(s.finished, d)
	if len(s.finished) > keepFinished {
		s.finished = append([]*desk(nil), s.finished[1:]...)
	}
	var heavy []*desk
	for _, o := range slices.Backward(s.finished[:len(s.finished)-1]) {
		if sum+o.kept > s.detailed {
			heavy, o.kept = append(heavy, o), 0
		}
		sum += o.kept
	}
	s.mu.Unlock()
	for _, o := range heavy {
		o.mu.Lock()
		if o.origin != nil {
			st := o.origin.Status()
			o.result, o.origin, o.roots, o.asked = &st, nil, nil, nil
		}
		o.mu.Unlock()
	}
}

// open reads the job, cuts it into tasks when that was not done, and makes its
// machine.
func (d *desk) open(ctx context.Context) error {
	var rec wire.JobRecord
	var sub wire.Submission
	err := d.read(ctx, func() (err error) {
		if rec, err = d.s.cfg.Store.Job(ctx, d.job.ID); err != nil {
			return err
		}
		sub, _, err = openSubmission(rec.Submission)
		return err
	})
	if err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	d.mu.Lock()
	d.job = tasks.Job{ID: rec.ID, Spec: sub.Spec, Submission: rec.Submission, Submitter: rec.Submitter, Term: rec.Term, Created: rec.Created, Published: rec.Published}
	d.submit = sub
	for _, root := range rootsOf(sub.Spec) {
		d.roots[root] = true
	}
	d.mu.Unlock()
	if rec.State.Over() {
		d.ended(tasks.Finish{State: rec.State, Reason: rec.Reason, Detail: rec.Detail, Output: rec.Output, Size: rec.Size})
		return nil
	}
	if rec.Tasks == 0 {
		if fin, err := d.split(ctx); err != nil {
			return err
		} else if fin != nil {
			return d.end(ctx, *fin)
		}
	}
	var records tasks.Records
	err = d.read(ctx, func() (err error) {
		records, err = d.s.cfg.Store.Records(ctx, d.job.ID, d.job.Term)
		return err
	})
	if err != nil {
		return fmt.Errorf("read records: %w", err)
	}
	d.mu.Lock()
	for _, r := range records.Results {
		d.roots[r.Output] = true
	}
	d.mu.Unlock()
	o, err := tasks.RestoreOrigin(d.s.originConfig(d.job.ID), d.job, records, time.Now())
	if err != nil {
		return d.end(ctx, tasks.Finish{State: tasks.Failed, Reason: tasks.BadSpec, Detail: clip(err.Error())})
	}
	d.mu.Lock()
	d.origin = o
	d.mu.Unlock()
	d.s.emit(Event{Kind: JobRunning, Job: d.job.ID, Count: uint32(len(records.Tasks)), State: tasks.Running})
	return nil
}

// What can't be read of a job is tried again after pauses that double.
const (
	readFirst = time.Second
	readLast  = 30 * time.Second
)

// read runs what reads the job from the store until it can be read, and says
// meanwhile what it waits for. What comes in waits too.
func (d *desk) read(ctx context.Context, do func() error) error {
	for wait := readFirst; ; wait = min(2*wait, readLast) {
		err := do()
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrNoJob) {
			d.s.log.Error("job not read from the database", "job", d.job.ID, "err", err, "retry", wait)
			d.waitFor(tasks.Wait{Text: "it can't be read from this node's database, and is tried again: " + clip(err.Error()), Next: time.Now().Add(wait)})
			if sleep(ctx, wait) {
				continue
			}
			err = ctx.Err()
		}
		d.waitFor(tasks.Wait{})
		return err
	}
}

// waitFor says what the job waits for while it has no machine.
func (d *desk) waitFor(w tasks.Wait) {
	d.mu.Lock()
	d.waits = w
	d.mu.Unlock()
}

// end finishes a job that has no machine.
func (d *desk) end(ctx context.Context, f tasks.Finish) error {
	if f.Reason == tasks.StaleTerm { // it goes on elsewhere, and may come back
		d.ended(f)
		return nil
	}
	if err := d.s.apply(ctx, &d.stall, wire.Change{Job: d.job.ID, Finish: &f}); err != nil {
		return err
	}
	d.ended(f)
	return nil
}

// ended tells everyone that the job is over, durably.
func (d *desk) ended(f tasks.Finish) {
	d.mu.Lock()
	d.finish = &f
	job := d.job
	d.mu.Unlock()
	if f.Reason == tasks.StaleTerm {
		return
	}
	d.s.metrics.finished(f.State)
	d.s.emit(Event{Kind: JobFinished, Job: job.ID, State: f.State, Reason: f.Reason, Text: f.Detail})
	if job.Published {
		d.s.hall.over(tasks.JobAnswer{Job: job.ID, Term: job.Term, Origin: d.s.self, State: f.State, Reason: f.Reason, Detail: f.Detail, Output: f.Output, Size: f.Size})
	}
}

// errOver ends a desk's loop: nothing moves the job any more.
var errOver = errors.New("over")

// loop steps the machine with what waits, commits once, and carries out.
func (d *desk) loop(ctx context.Context) error {
	if d.finish != nil {
		return nil
	}
	next := newAlarm()
	defer next.t.Stop()
	batch := []deskEvent{{ev: tasks.Tick{}}}
	for {
		err := d.step(ctx, batch)
		if errors.Is(err, errOver) {
			return nil
		}
		if err != nil {
			return err
		}
		next.set(d.next())
		select {
		case <-d.inbox.ready:
			batch = d.inbox.take(stepAtOnce)
		case <-next.t.C:
			batch = []deskEvent{{ev: tasks.Tick{}}}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *desk) next() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.origin.Next()
}

// step feeds a batch to the machine and does what it asks: first durably, then
// out loud.
func (d *desk) step(ctx context.Context, batch []deskEvent) error {
	var effects []tasks.Effect
	now := time.Now()
	d.ahead <- struct{}{}
	d.mu.Lock()
	for _, e := range batch {
		if e.receipt != nil {
			k := wire.KeyOf(e.receipt.Receipt)
			if _, ok := d.asked[k]; !ok || !d.origin.Heard(k.Ref, k.Lease, k.Replica) { // a second word on it is not what is judged
				d.asked[k] = *e.receipt
			}
		}
		effects = append(effects, d.feed(now, e.ev)...)
	}
	change := d.changeOf(effects)
	status := d.origin.Status()
	d.mu.Unlock()
	err := d.s.apply(ctx, &d.stall, change)
	if err != nil {
		d.mu.Lock()
		d.lost = true
		d.mu.Unlock()
	}
	<-d.ahead
	if err != nil {
		return err
	}
	d.s.count(change.Tallies)
	d.tellReleased(status)
	d.decided = status.Decided - uint32(len(change.Results))
	var fin *tasks.Finish
	var inline []tasks.Hold
	for _, e := range effects {
		switch e := e.(type) {
		case tasks.Finish:
			fin = &e
		case tasks.Hold:
			if small(e) {
				inline = append(inline, e)
				continue
			}
			d.do(e)
		default:
			d.do(e)
		}
	}
	d.tellVerdicts(effects)
	d.holdSmall(inline)
	if fin != nil {
		d.ended(*fin)
		return errOver
	}
	return nil
}

// tellReleased tells of assignments that were leased again since it was called
// last. Only the desk's goroutine calls it.
func (d *desk) tellReleased(st tasks.JobStatus) {
	if n := st.Releases - d.told.Releases; st.Releases > d.told.Releases {
		d.s.emit(Event{Kind: TaskLost, Job: d.job.ID, Count: n})
	}
	if n := st.Copies - d.told.Copies; st.Copies > d.told.Copies {
		d.s.emit(Event{Kind: TaskCopied, Job: d.job.ID, Count: n})
	}
	d.told = st
}

// changeOf gathers what of the effects must be durable. The receipts behind it
// go along, with the signatures that prove them.
func (d *desk) changeOf(effects []tasks.Effect) wire.Change {
	c := wire.Change{Job: d.job.ID}
	decided, judged := 0, 0 // a step may decide thousands
	for _, e := range effects {
		switch e := e.(type) {
		case tasks.Record:
			judged++
		case tasks.Decide:
			decided, judged = decided+1, judged+len(e.Verdicts)
		}
	}
	if judged > 0 {
		c.Results = make([]tasks.Result, 0, decided)
		c.Verdicts = make([]tasks.Verdict, 0, judged)
		c.Receipts = make([]wire.SignedReceipt, 0, judged)
	}
	tally := func(p tasks.PeerID, acc, rej uint32) {
		if c.Tallies == nil {
			c.Tallies = map[tasks.PeerID]wire.Tally{}
		}
		t := c.Tallies[p]
		c.Tallies[p] = wire.Tally{Accepted: t.Accepted + acc, Rejected: t.Rejected + rej}
	}
	judge := func(v tasks.Verdict) {
		c.Verdicts = append(c.Verdicts, v)
		k := wire.VerdictKey(v)
		if r, ok := d.asked[k]; ok {
			c.Receipts = append(c.Receipts, r)
			delete(d.asked, k)
		}
		switch {
		case v.Status == tasks.Accepted:
			tally(v.Worker, 1, 0)
		case v.Status == tasks.Rejected && v.Reason.Blames():
			tally(v.Worker, 0, 1)
		}
	}
	for _, e := range effects {
		switch e := e.(type) {
		case tasks.Grant:
			c.Grants = append(c.Grants, e.Lease.Record())
		case tasks.Commit:
			c.Commits = append(c.Commits, e.Commitment)
		case tasks.Blame:
			tally(e.Worker, 0, 1)
		case tasks.Record:
			c.Attempts = append(c.Attempts, e.Attempt)
			judge(e.Verdict)
		case tasks.Decide:
			c.Results = append(c.Results, e.Result)
			d.roots[e.Result.Output] = true
			for _, v := range e.Verdicts {
				judge(v)
			}
		case tasks.Answer:
			for _, v := range e.Verdicts {
				if v.Status != tasks.Pending {
					delete(d.asked, wire.VerdictKey(v))
				}
			}
		case tasks.Finish:
			if e.Reason != tasks.StaleTerm { // the job goes on elsewhere, and may come back
				c.Finish = &e
			}
		}
	}
	return c
}

// count adds to what is known of peers.
func (s *Service) count(add map[tasks.PeerID]wire.Tally) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, t := range add {
		have := s.tallies[p]
		s.tallies[p] = wire.Tally{Accepted: have.Accepted + t.Accepted, Rejected: have.Rejected + t.Rejected}
	}
}
