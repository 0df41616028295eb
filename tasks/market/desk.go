package market

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// deskInbox bounds what peers may leave at one job's desk.
const deskInbox = 16 << 10

// stepAtOnce bounds the events that share a commit.
const stepAtOnce = 1024

// desk is one job in hand: the one goroutine that drives its Origin.
type desk struct {
	s     *Service
	inbox *inbox[deskEvent]
	done  chan struct{} // closed by run when the job is over or the service stops
	holds chan struct{} // a token for each output being fetched

	mu     sync.Mutex
	job    tasks.Job
	submit wire.Submission
	origin *tasks.Origin                          // nil before the split is durable
	roots  map[tasks.CID]bool                     // that leases let workers read
	waits  tasks.Wait                             // before there is a machine
	asked  map[wire.ReceiptKey]wire.SignedReceipt // not judged yet
	finish *tasks.Finish
}

// deskEvent is one event and the proof that came with it.
type deskEvent struct {
	ev      tasks.Event
	receipt *wire.SignedReceipt
}

// openDesk takes a job in hand; it does nothing when that is so already.
func (s *Service) openDesk(id tasks.JobID) *desk {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.desks[id]; d != nil {
		return d
	}
	d := &desk{s: s, inbox: newInbox[deskEvent](), done: make(chan struct{}), holds: make(chan struct{}, s.cfg.Holds),
		job: tasks.Job{ID: id}, roots: map[tasks.CID]bool{}, asked: map[wire.ReceiptKey]wire.SignedReceipt{}}
	s.desks[id] = d
	if !s.crew.spawn(d.run) {
		delete(s.desks, id)
		close(d.done)
	}
	return d
}

// push leaves an event that must not be lost: this node's own, one for each
// thing that it began.
func (d *desk) push(ev tasks.Event) { d.inbox.push(deskEvent{ev: ev}) }

// offer leaves events of a peer, unless too much waits.
func (d *desk) offer(evs ...deskEvent) bool { return d.inbox.offer(deskInbox, evs...) }

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
	s.mu.Lock()
	delete(s.desks, d.job.ID)
	s.finished = append(s.finished, d)
	if len(s.finished) > keepFinished {
		s.finished = append([]*desk(nil), s.finished[1:]...)
	}
	s.mu.Unlock()
}

// open reads the job, cuts it into tasks when that was not done, and makes its
// machine.
func (d *desk) open(ctx context.Context) error {
	rec, err := d.s.cfg.Store.Job(ctx, d.job.ID)
	if err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	sub, _, err := openSubmission(rec.Submission)
	if err != nil {
		return fmt.Errorf("stored submission: %w", err)
	}
	d.mu.Lock()
	d.job = tasks.Job{ID: rec.ID, Spec: sub.Spec, Submission: rec.Submission, Submitter: rec.Submitter, Term: rec.Term, Created: rec.Created, Published: rec.Published}
	d.submit = sub
	d.roots[sub.Spec.Program] = true
	for _, in := range sub.Spec.Inputs {
		d.roots[in.Source] = true
	}
	if r := sub.Spec.Reduce; r != nil {
		d.roots[r.Program] = true
	}
	d.mu.Unlock()
	if rec.Tasks == 0 {
		if fin, err := d.split(ctx); err != nil {
			return err
		} else if fin != nil {
			return d.end(ctx, *fin)
		}
	}
	records, err := d.s.cfg.Store.Records(ctx, d.job.ID, d.job.Term)
	if err != nil {
		return fmt.Errorf("read records: %w", err)
	}
	for _, r := range records.Results {
		d.roots[r.Output] = true
	}
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

// end finishes a job that has no machine.
func (d *desk) end(ctx context.Context, f tasks.Finish) error {
	if err := d.s.apply(ctx, wire.Change{Job: d.job.ID, Finish: &f}); err != nil {
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
	d.mu.Lock()
	for _, e := range batch {
		if e.receipt != nil {
			d.asked[wire.KeyOf(e.receipt.Receipt)] = *e.receipt
		}
		effects = append(effects, d.origin.Step(now, e.ev)...)
	}
	change := d.changeOf(effects)
	d.mu.Unlock()
	if err := d.s.apply(ctx, change); err != nil {
		return err
	}
	d.s.count(change.Tallies)
	var fin *tasks.Finish
	for _, e := range effects {
		if f, ok := e.(tasks.Finish); ok {
			fin = &f
			continue
		}
		d.do(ctx, e)
	}
	if fin != nil {
		d.ended(*fin)
		return errOver
	}
	return nil
}

// changeOf gathers what of the effects must be durable. The receipts behind it
// go along, with the signatures that prove them.
func (d *desk) changeOf(effects []tasks.Effect) wire.Change {
	c := wire.Change{Job: d.job.ID}
	judge := func(v tasks.Verdict) {
		c.Verdicts = append(c.Verdicts, v)
		k := wire.VerdictKey(v)
		if r, ok := d.asked[k]; ok {
			c.Receipts = append(c.Receipts, r)
			delete(d.asked, k)
		}
		tally := func(acc, rej uint32) {
			if c.Tallies == nil {
				c.Tallies = map[tasks.PeerID]wire.Tally{}
			}
			t := c.Tallies[v.Worker]
			c.Tallies[v.Worker] = wire.Tally{Accepted: t.Accepted + acc, Rejected: t.Rejected + rej}
		}
		switch {
		case v.Status == tasks.Accepted:
			tally(1, 0)
		case v.Status == tasks.Rejected && (v.Reason == tasks.OutputMismatch || v.Reason == tasks.OutputMissing):
			tally(0, 1)
		}
	}
	for _, e := range effects {
		switch e := e.(type) {
		case tasks.Grant:
			c.Grants = append(c.Grants, e.Lease.Record())
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

// do carries out one effect whose durable part is on disk.
func (d *desk) do(ctx context.Context, e tasks.Effect) {
	s := d.s
	switch e := e.(type) {
	case tasks.Announce:
		s.crew.spawn(func(ctx context.Context) { d.announce(ctx, e.Offer) })
	case tasks.Probe:
		d.probe(e)
	case tasks.Grant:
		rtt := time.Duration(0)
		if id, err := peerOf(e.Lease.Worker); err == nil {
			rtt, _ = s.rtt(id)
		}
		s.emit(Event{Kind: TaskLeased, Job: d.job.ID, Worker: e.Lease.Worker, RTT: rtt, Count: uint32(len(e.Lease.Assignments)), Ref: e.Lease.Assignments[0].Task.Ref})
		s.metrics.granted(len(e.Lease.Assignments))
		s.tell(e.Lease.Worker, func(c *courier) { c.leases = append(c.leases, granted{e.Lease, d}) })
	case tasks.Renew:
		s.tell(e.Worker, func(c *courier) { c.renewed[d.job.ID] = append(c.renewed[d.job.ID], e.Leases...) })
	case tasks.Revoke:
		s.emit(Event{Kind: TaskLost, Job: d.job.ID, Worker: e.Worker, Count: uint32(len(e.Refs))})
		s.tell(e.Worker, func(c *courier) {
			c.revoked = append(c.revoked, wire.Revocation{Job: d.job.ID, Lease: e.Lease, Refs: e.Refs})
		})
	case tasks.Hold:
		d.hold(ctx, e)
	case tasks.Record:
		if e.Attempt.Reason != tasks.OK {
			s.emit(Event{Kind: TaskFailed, Job: d.job.ID, Ref: e.Attempt.Ref, Worker: e.Attempt.Worker, Reason: e.Attempt.Reason, Text: e.Attempt.Detail})
		}
		d.verdicts(e.Verdict)
	case tasks.Decide:
		s.metrics.decided(len(e.Verdicts))
		ev := Event{Kind: TaskDecided, Job: d.job.ID, Ref: e.Result.Ref, Decided: d.decided()}
		if len(e.Result.Workers) > 0 {
			ev.Worker = e.Result.Workers[0]
		}
		s.emit(ev)
		d.verdicts(e.Verdicts...)
	case tasks.Answer:
		d.verdicts(e.Verdicts...)
	case tasks.Assemble:
		s.crew.spawn(func(ctx context.Context) { d.assemble(ctx, e.Stage) })
	}
}

func (d *desk) decided() uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.origin.Status().Decided
}

func (d *desk) verdicts(vs ...tasks.Verdict) {
	for _, v := range vs {
		d.s.tell(v.Worker, func(c *courier) { c.verdict = append(c.verdict, v) })
	}
}

// announce publishes the offer, and gives it to this node's own worker.
func (d *desk) announce(ctx context.Context, o tasks.Offer) {
	s := d.s
	o = s.fill(o)
	b, err := wire.MarshalOffer(o)
	if err != nil {
		s.log.Error("offer not encoded", "job", o.Job, "err", err)
		return
	}
	s.emit(Event{Kind: JobOffered, Job: o.Job, Count: o.Waiting, RTT: o.Radius, Text: fmt.Sprintf("round %d", o.Round)})
	s.metrics.sent("offer")
	if s.bench != nil {
		s.bench.hear(s.host.ID(), o, nil)
	}
	if err := s.cfg.Publisher.PublishOffer(ctx, b, o.Radius, offerLife(o)); err != nil && ctx.Err() == nil {
		s.log.Warn("offer not published", "job", o.Job, "err", err)
	}
}

// offerLife is how long an offer may travel: bids are worth something a little
// after the window.
func offerLife(o tasks.Offer) time.Duration { return max(2*o.Window, 10*time.Second) }

// fill adds where this node is and how it is reached.
func (s *Service) fill(o tasks.Offer) tasks.Offer {
	o.Coord = s.host.Coordinate()
	if rec, err := s.host.Record(); err == nil {
		o.Addresses = rec
	}
	return o
}

// probe asks far peers directly.
func (d *desk) probe(p tasks.Probe) {
	s := d.s
	o := s.fill(p.Offer)
	req, err := wire.MarshalOffer(o)
	if err != nil {
		s.log.Error("offer not encoded", "job", o.Job, "err", err)
		return
	}
	for _, id := range s.host.SampleFar(p.N) {
		s.crew.spawn(func(ctx context.Context) { d.probeOne(ctx, id, req) })
	}
}

func (d *desk) probeOne(ctx context.Context, id peer.ID, req []byte) {
	d.s.metrics.sent("probe")
	resp, err := d.s.host.Call(ctx, id, probeProtocol, req)
	if err != nil {
		if reason, after := reasonOf(err); reason != tasks.WorkerFault {
			d.push(tasks.RefusedBy{Worker: idOf(id), Reason: reason, RetryAfter: after})
		}
		return
	}
	bid, err := wire.UnmarshalBid(resp)
	if err != nil || bid.Worker != idOf(id) || bid.Job != d.job.ID {
		d.s.log.Warn("peer answered a probe with no bid of its own", "peer", id, "err", err)
		return
	}
	d.push(tasks.BidIn{Bid: bid, Standing: d.s.standing(id)})
}

// hold fetches an output, when one of the job's tokens is free.
func (d *desk) hold(_ context.Context, h tasks.Hold) {
	var lease tasks.LeaseID
	if h.Inline == nil {
		lease = d.leaseOf(h)
	}
	d.s.crew.spawn(func(ctx context.Context) {
		select {
		case d.holds <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-d.holds }()
		d.push(d.held(ctx, h, lease))
	})
}

// leaseOf finds the lease that a receipt to be held came by.
func (d *desk) leaseOf(h tasks.Hold) tasks.LeaseID {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, r := range d.asked {
		if k.Ref == h.Ref && k.Worker == h.Worker && r.Receipt.Output == h.Output {
			return k.Lease
		}
	}
	return ""
}

func (d *desk) held(ctx context.Context, h tasks.Hold, lease tasks.LeaseID) tasks.Event {
	from, err := peerOf(h.Worker)
	if err != nil {
		return tasks.HoldFailed{Ref: h.Ref, Worker: h.Worker, Output: h.Output, Reason: tasks.OutputMissing, Detail: err.Error()}
	}
	req := HoldRequest{Job: d.job.ID, Output: h.Output, Inline: h.Inline}
	if h.Inline == nil && from != d.s.host.ID() {
		req.From = from
		if req.Ticket, err = wire.MarshalTicket(wire.Ticket{Job: d.job.ID, Lease: lease}); err != nil {
			return tasks.HoldFailed{Ref: h.Ref, Worker: h.Worker, Output: h.Output, Reason: tasks.WorkerFault, Detail: clip(err.Error())}
		}
	}
	fetch, cancel := context.WithTimeout(ctx, d.s.cfg.FetchTimeout)
	defer cancel()
	got, err := d.s.cfg.Data.Hold(fetch, req)
	if err == nil {
		return tasks.HeldOutput{Ref: h.Ref, Worker: h.Worker, Output: h.Output, Size: got.Size, Folder: got.Folder}
	}
	reason := tasks.WorkerFault
	if errors.Is(err, ErrBadOutput) || fetch.Err() != nil && ctx.Err() == nil {
		reason = tasks.OutputMissing
	}
	if ctx.Err() == nil {
		d.s.log.Info("output not held", "job", d.job.ID, "peer", h.Worker, "output", h.Output, "err", err)
	}
	return tasks.HoldFailed{Ref: h.Ref, Worker: h.Worker, Output: h.Output, Reason: reason, Detail: clip(err.Error())}
}

func (d *desk) assemble(ctx context.Context, stage tasks.Stage) {
	d.mu.Lock()
	results := d.origin.Results(stage)
	d.mu.Unlock()
	out, err := d.s.cfg.Data.Assemble(ctx, d.job.ID, stage, results)
	if err != nil {
		if ctx.Err() == nil {
			d.s.log.Warn("output not assembled", "job", d.job.ID, "err", err)
		}
		d.push(tasks.AssembleFailed{Detail: clip(err.Error())})
		return
	}
	d.push(tasks.Assembled{Output: out.Output, Size: out.Size})
}

// clip keeps a text for people within what messages carry.
func clip(s string) string {
	if len(s) > wire.MaxDetail {
		return strings.ToValidUTF8(s[:wire.MaxDetail-8], "") + "…"
	}
	return s
}
