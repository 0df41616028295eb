package market

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// do carries out one effect whose durable part is on disk.
func (d *desk) do(e tasks.Effect) {
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
		s.tell(e.Lease.Worker, func(c *courier) { c.grant(granted{lease: e.Lease, desk: d}) })
	case tasks.Renew:
		s.tell(e.Worker, func(c *courier) { c.renew(d.job.ID, e.Leases) })
	case tasks.Revoke:
		s.tell(e.Worker, func(c *courier) {
			c.revoke(wire.Revocation{Job: d.job.ID, Lease: e.Lease, Refs: e.Refs})
		})
	case tasks.Hold:
		d.hold(e)
	case tasks.Reveal:
		s.tell(e.Worker, func(c *courier) { c.ask(d, e) })
	case tasks.Record:
		if e.Attempt.Reason != tasks.OK {
			s.emit(Event{Kind: TaskFailed, Job: d.job.ID, Ref: e.Attempt.Ref, Worker: e.Attempt.Worker, Reason: e.Attempt.Reason, Text: e.Attempt.Detail})
		}
	case tasks.Decide:
		s.metrics.decided(len(e.Verdicts))
		d.decided++
		ev := Event{Kind: TaskDecided, Job: d.job.ID, Ref: e.Result.Ref, Decided: d.decided}
		if len(e.Result.Workers) > 0 {
			ev.Worker = e.Result.Workers[0]
		}
		s.emit(ev)
	case tasks.Assemble:
		s.crew.spawn(func(ctx context.Context) { d.assemble(ctx, e.Stage) })
	}
}

// tellVerdicts gives each worker its verdicts of one step, in one go.
func (d *desk) tellVerdicts(effects []tasks.Effect) {
	said := map[tasks.PeerID][]tasks.Verdict{}
	var order []tasks.PeerID
	add := func(vs ...tasks.Verdict) {
		for _, v := range vs {
			if said[v.Worker] == nil {
				order = append(order, v.Worker)
			}
			said[v.Worker] = append(said[v.Worker], v)
		}
	}
	for _, e := range effects {
		switch e := e.(type) {
		case tasks.Record:
			add(e.Verdict)
		case tasks.Decide:
			add(e.Verdicts...)
		case tasks.Answer:
			add(e.Verdicts...)
		}
	}
	for _, p := range order {
		d.s.tell(p, func(c *courier) { c.judge(said[p]...) })
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

// offerInputs is how many inputs an offer names, for peers that hold them to say
// so: more would not fit into a small message.
const offerInputs = 32

// fill adds where this node is and how it is reached.
func (s *Service) fill(o tasks.Offer) tasks.Offer {
	o.Inputs = o.Inputs[:min(len(o.Inputs), offerInputs)]
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
		d.mu.Lock()
		d.probes[id] = true
		d.mu.Unlock()
		s.crew.spawn(func(ctx context.Context) { d.probeOne(ctx, id, req) })
	}
}

// probed reports whether a peer was asked directly since it was last gone.
func (d *desk) probed(id peer.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.probes[id]
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

// nothing is the CID of no bytes: an output that is never fetched.
const nothing tasks.CID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"

// small reports whether an output's bytes are here already, in its receipt.
func small(h tasks.Hold) bool { return h.Inline != nil || h.Output == nothing }

// feed steps the machine. An output that was held for another task of this job is
// not stored again: the machine has its answer at once.
func (d *desk) feed(now time.Time, ev tasks.Event) []tasks.Effect {
	if h, ok := ev.(tasks.HeldOutput); ok {
		if len(d.here) >= deskHere {
			clear(d.here)
		}
		d.here[h.Output] = h
	}
	out := d.origin.Step(now, ev)
	for i := 0; i < len(out); i++ {
		h, ok := out[i].(tasks.Hold)
		if !ok {
			continue
		}
		if held, ok := d.here[h.Output]; ok {
			held.Ref, held.Worker = h.Ref, h.Worker
			out = slices.Concat(out[:i], d.origin.Step(now, held), out[i+1:])
			i--
		}
	}
	return out
}

// hold fetches an output, when one of the job's tokens is free.
func (d *desk) hold(h tasks.Hold) {
	lease := d.leaseOf(h)
	d.withToken(func(ctx context.Context) { d.push(d.held(ctx, h, lease)) })
}

// holdSmall stores the outputs that came inside their receipts, in one commit.
func (d *desk) holdSmall(list []tasks.Hold) {
	if len(list) == 0 {
		return
	}
	d.withToken(func(ctx context.Context) {
		files := make([]wire.Blob, len(list))
		for i, h := range list {
			files[i] = wire.Blob{CID: h.Output, Data: h.Inline}
		}
		errs := d.s.cfg.Data.PutAll(ctx, d.job.ID, files)
		evs := make([]deskEvent, len(list))
		for i, h := range list {
			evs[i].ev = d.heldOr(ctx, h, Held{Size: int64(len(h.Inline))}, errs[i])
		}
		d.inbox.push(evs...)
	})
}

// withToken does f when one of the job's tokens is free.
func (d *desk) withToken(f func(ctx context.Context)) {
	d.s.crew.spawn(func(ctx context.Context) {
		select {
		case d.holds <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-d.holds }()
		f(ctx)
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
	req := HoldRequest{Job: d.job.ID, Output: h.Output, Limit: h.Limit}
	if from != d.s.host.ID() {
		req.From = from
		if req.Ticket, err = wire.MarshalTicket(wire.Ticket{Job: d.job.ID, Lease: lease}); err != nil {
			return tasks.HoldFailed{Ref: h.Ref, Worker: h.Worker, Output: h.Output, Reason: tasks.WorkerFault, Detail: clip(err.Error())}
		}
	}
	got, err := d.s.cfg.Data.Hold(ctx, req)
	return d.heldOr(ctx, h, got, err)
}

// heldOr is what the machine is told of an output: that it is held, or why not.
func (d *desk) heldOr(ctx context.Context, h tasks.Hold, got Held, err error) tasks.Event {
	if err == nil {
		return tasks.HeldOutput{Ref: h.Ref, Worker: h.Worker, Output: h.Output, Size: got.Size, Folder: got.Folder}
	}
	reason := tasks.WorkerFault
	if errors.Is(err, ErrOutputTooLarge) {
		reason = tasks.OutputTooLarge
	} else if errors.Is(err, ErrBadOutput) {
		reason = tasks.OutputMissing
	}
	if ctx.Err() == nil {
		d.s.log.Info("output not held", "job", d.job.ID, "peer", h.Worker, "output", h.Output, "err", err)
	}
	return tasks.HoldFailed{Ref: h.Ref, Worker: h.Worker, Output: h.Output, Reason: reason, Detail: clip(err.Error())}
}

func (d *desk) assemble(ctx context.Context, stage tasks.Stage) {
	d.mu.Lock()
	outputs := d.origin.Outputs(stage)
	d.mu.Unlock()
	out, err := d.s.cfg.Data.Assemble(ctx, d.job.ID, stage, outputs)
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
