package market

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

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
		s.tell(e.Worker, func(c *courier) { c.renew(d.job.ID, e.Leases) })
	case tasks.Revoke:
		s.tell(e.Worker, func(c *courier) {
			c.revoke(wire.Revocation{Job: d.job.ID, Lease: e.Lease, Refs: e.Refs})
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
		d.s.tell(v.Worker, func(c *courier) { c.judge(v) })
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
