package market

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// OnOffer takes an offer that gossip brought; origin is who signed it. What
// can't be used is dropped.
func (s *Service) OnOffer(origin peer.ID, payload []byte) {
	if s.bench == nil || origin == s.host.ID() {
		return
	}
	o, err := wire.UnmarshalOffer(payload)
	if err != nil || o.Origin != idOf(origin) {
		s.log.Warn("offer refused", "peer", origin, "err", err)
		return
	}
	if m, ok := s.host.Member(origin); ok && !m.Grant.Rights.Has(auth.Submit) {
		s.log.Warn("offer refused: its origin may not submit", "peer", origin)
		return
	}
	s.learn(o.Addresses, origin)
	s.bench.hear(origin, o, nil)
}

// serveProbe answers an offer that was sent directly: with a bid, or why not.
func (s *Service) serveProbe(ctx context.Context, from peer.ID, req []byte) ([]byte, error) {
	if err := s.may(from, auth.Submit); err != nil {
		return nil, err
	}
	o, err := wire.UnmarshalOffer(req)
	if err != nil {
		return nil, malformed(err)
	}
	if o.Origin != idOf(from) {
		return nil, p2p.Refuse(p2p.CodeMalformed, "the offer is of another origin")
	}
	answer := make(chan []tasks.WorkerEffect, 1)
	if !s.bench.hear(from, o, answer) {
		return nil, refuse(tasks.WorkerBusy, time.Second, "too many offers wait")
	}
	said, err := s.heard(ctx, answer)
	if err != nil {
		return nil, err
	}
	for _, f := range said {
		switch f := f.(type) {
		case tasks.SendBid:
			f.Bid.Cached = s.cached(f.Reads)
			return wire.MarshalBid(f.Bid)
		case tasks.Refuse:
			return nil, refuse(f.Reason, f.RetryAfter, "")
		}
	}
	return nil, refuse(tasks.WorkerBusy, time.Second, "no bid now")
}

// heard waits for what the bench says.
func (s *Service) heard(ctx context.Context, answer <-chan []tasks.WorkerEffect) ([]tasks.WorkerEffect, error) {
	run, ok := s.crew.enter()
	if !ok {
		return nil, notReady()
	}
	defer s.crew.leave()
	select {
	case said := <-answer:
		return said, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-run.Done():
		return nil, notReady()
	}
}

// serveOrders takes leases, renewals, revocations, verdicts and questions of an
// origin, and answers which leases were refused.
func (s *Service) serveOrders(ctx context.Context, from peer.ID, req []byte) (resp []byte, err error) {
	if err := s.may(from, auth.Submit); err != nil {
		return nil, err
	}
	if s.bench == nil {
		return nil, refuse(tasks.WorkerPolicy, 0, "this node runs no work")
	}
	o, err := wire.UnmarshalOrders(req)
	if err != nil {
		return nil, malformed(err)
	}
	defer func() { err = cmp.Or(err, s.bench.caughtUp()) }()
	origin := idOf(from)
	refused, err := s.renew(ctx, origin, o.Renewals)
	if err != nil {
		return nil, err
	}
	for _, r := range o.Revokes {
		s.bench.push(tasks.RevokeIn{Origin: origin, Job: r.Job, Lease: r.Lease, Refs: r.Refs})
	}
	for _, sealed := range o.Verdicts {
		vs, err := openBatch(s, wire.DomainVerdicts, wire.MaxVerdicts, sealed, from, wire.UnmarshalVerdicts)
		if err != nil {
			return nil, err
		}
		mine := vs[:0]
		for _, v := range vs {
			if v.Worker == s.self {
				mine = append(mine, v)
			}
		}
		said := &wire.SaidVerdicts{Origin: origin, Sealed: sealed, At: s.cfg.Now()}
		if len(mine) < len(vs) { // it is not for us to keep what concerns others
			said = nil
		}
		s.bench.inbox.push(benchEvent{ev: tasks.VerdictsIn{Origin: origin, Verdicts: mine}, said: said})
	}
	for _, a := range o.Asks {
		s.bench.asked(origin, a)
	}
	for _, sealed := range o.Leases {
		r, err := s.takeLease(ctx, from, sealed)
		if err != nil {
			return nil, err
		}
		refused = append(refused, r...)
	}
	return wire.MarshalOrdersReply(refused)
}

// openBatch opens what one signature of a peer in this mesh covers.
func openBatch[T any](s *Service, domain string, most int, sealed []byte, from peer.ID, unmarshal func([]byte) (string, []T, error)) ([]T, error) {
	payload, err := openFrom(domain, most, sealed, from)
	if err != nil {
		return nil, err
	}
	mesh, list, err := unmarshal(payload)
	if err != nil {
		return nil, malformed(err)
	}
	if mesh != s.mesh {
		return nil, p2p.Refuse(p2p.CodeOtherMesh, "signed for another mesh")
	}
	return list, nil
}

// renew tells the worker what its origin believes it holds, and gives what it
// does not. Room is left for the leases of the same message.
func (s *Service) renew(ctx context.Context, origin tasks.PeerID, renewals []wire.Renewal) (refused []wire.RefusedLease, err error) {
	for _, r := range renewals {
		answer := make(chan []tasks.WorkerEffect, 1)
		s.bench.inbox.push(benchEvent{ev: tasks.RenewIn{Origin: origin, Job: r.Job, Leases: r.Leases}, answer: answer})
		said, err := s.heard(ctx, answer)
		if err != nil {
			return nil, err
		}
		for _, f := range said {
			if no, ok := f.(tasks.Refuse); ok && len(refused) < wire.MaxLeases/2 {
				refused = append(refused, wire.RefusedLease{Job: no.Job, Lease: no.Lease, Reason: no.Reason})
			}
		}
	}
	return refused, nil
}

// takeLease checks one lease and gives it to the worker.
func (s *Service) takeLease(ctx context.Context, from peer.ID, sealed []byte) ([]wire.RefusedLease, error) {
	payload, err := openFrom(wire.DomainLease, wire.MaxLease, sealed, from)
	if err != nil {
		return nil, err
	}
	l, err := wire.UnmarshalLease(payload)
	if err != nil {
		return nil, malformed(err)
	}
	if l.Origin != idOf(from) || l.Worker != s.self {
		return nil, refuse(tasks.UnknownLease, 0, "the lease is of another origin or for another worker")
	}
	answer := make(chan []tasks.WorkerEffect, 1)
	s.bench.inbox.push(benchEvent{ev: tasks.LeaseIn{Lease: l, Bytes: int64(len(sealed))}, answer: answer})
	said, err := s.heard(ctx, answer)
	if err != nil {
		return nil, err
	}
	var refused []wire.RefusedLease
	for _, f := range said {
		if r, ok := f.(tasks.Refuse); ok && r.Lease == l.ID {
			refused = append(refused, wire.RefusedLease{Job: l.Job, Lease: l.ID, Reason: r.Reason, RetryAfter: r.RetryAfter})
		}
	}
	if len(refused) == 0 {
		s.bench.ahead(l)
	}
	return refused, nil
}

// serveBid takes a worker's bid on a job of this node.
func (s *Service) serveBid(_ context.Context, from peer.ID, req []byte) ([]byte, error) {
	if err := s.may(from, auth.Work); err != nil {
		return nil, err
	}
	b, err := wire.UnmarshalBid(req)
	if err != nil {
		return nil, malformed(err)
	}
	if b.Worker != idOf(from) {
		return nil, p2p.Refuse(p2p.CodeMalformed, "the bid is of another worker")
	}
	d := s.desk(b.Job)
	if d == nil {
		return nil, p2p.Refuse(p2p.CodeNotFound, "no such job in hand")
	}
	if !d.offer(b.Worker, deskEvent{ev: tasks.BidIn{Bid: b, Standing: s.standing(from)}}) {
		return nil, refuse(tasks.OriginBusy, time.Second, "too much waits at this job")
	}
	return nil, nil
}

// serveReport takes a worker's heartbeats and receipts, and answers which of
// the jobs it does not hold. Verdicts and leases come by orders.
func (s *Service) serveReport(ctx context.Context, from peer.ID, req []byte) ([]byte, error) {
	if err := s.may(from, auth.Work); err != nil {
		return nil, err
	}
	worker := idOf(from)
	r, err := wire.UnmarshalReport(req, worker)
	if err != nil {
		return nil, malformed(err)
	}
	committed := map[wire.ReceiptKey]bool{}
	events := map[tasks.JobID][]deskEvent{}
	var order []tasks.JobID
	several := 0 // events that one job may have
	add := func(job tasks.JobID, e deskEvent) {
		if events[job] == nil {
			if order = append(order, job); len(order) == 1 {
				events[job] = make([]deskEvent, 0, several)
			}
		}
		events[job] = append(events[job], e)
	}
	for _, k := range r.Commits {
		committed[wire.CommitmentKey(k)] = true
		add(k.Job, deskEvent{ev: tasks.CommitIn{Commitment: k}})
	}
	if r.Reveals != nil {
		reveals, err := openBatch(s, wire.DomainReveals, wire.MaxReceipts, r.Reveals, from, wire.UnmarshalReveals)
		if err != nil {
			return nil, err
		}
		batch := &wire.SignedBatch{Hash: sha256.Sum256(r.Reveals), Sealed: r.Reveals}
		for _, v := range reveals {
			rec := v.Receipt
			if rec.Worker != worker {
				return nil, refuse(tasks.BadReceipt, 0, "a receipt of another worker")
			}
			if committed[wire.KeyOf(rec)] {
				return nil, refuse(tasks.NotCommitted, 0, "an answer beside the commitment to it")
			}
			opens := wire.HashReceipt(v.Body, v.Nonce, worker)
			add(rec.Job, deskEvent{ev: tasks.ReceiptIn{Receipt: rec, Opens: &opens}, receipt: &wire.SignedReceipt{Receipt: rec, Batch: batch}})
		}
	}
	if r.Receipts != nil {
		receipts, err := openBatch(s, wire.DomainReceipts, wire.MaxReceipts, r.Receipts, from, wire.UnmarshalReceipts)
		if err != nil {
			return nil, err
		}
		batch := &wire.SignedBatch{Hash: sha256.Sum256(r.Receipts), Sealed: r.Receipts}
		several = len(receipts) + len(r.Jobs)
		for _, rec := range receipts {
			if rec.Worker != worker {
				return nil, refuse(tasks.BadReceipt, 0, "a receipt of another worker")
			}
			add(rec.Job, deskEvent{ev: tasks.ReceiptIn{Receipt: rec}, receipt: &wire.SignedReceipt{Receipt: rec, Batch: batch}})
		}
	}
	standing := s.standing(from)
	for _, j := range r.Jobs {
		add(j.Job, deskEvent{ev: tasks.ReportIn{Report: j, Standing: standing}})
	}
	var unknown []tasks.JobID
	for _, job := range order {
		known, err := s.file(ctx, from, job, events[job])
		if err != nil {
			return nil, err
		}
		if !known {
			unknown = append(unknown, job)
		}
	}
	return wire.MarshalTaken(unknown)
}

// file leaves events at their job's desk. A job that is over, or that this node has
// yielded, still gives its verdicts; known is false when there is nothing to say.
func (s *Service) file(ctx context.Context, from peer.ID, job tasks.JobID, events []deskEvent) (known bool, err error) {
	if d := s.desk(job); d != nil {
		if !d.offer(idOf(from), events...) {
			return true, refuse(tasks.WorkerBusy, time.Second, "too much waits at this job")
		}
		return true, nil
	}
	run, ok := s.crew.enter()
	if !ok {
		return false, notReady()
	}
	defer s.crew.leave()
	rec, err := s.cfg.Store.Job(ctx, job)
	switch {
	case run.Err() != nil || ctx.Err() != nil:
		return false, notReady()
	case errors.Is(err, ErrNoJob) || err == nil && (rec.Term == 0 || rec.Forgotten):
		return false, nil
	case err != nil: // whoever asks keeps what it has, and asks again
		s.log.Error("job not read from the database", "job", job, "err", err)
		return true, notReady()
	case !rec.State.Over() && rec.Origin():
		return true, notReady() // it is being taken up
	}
	late := tasks.LateReceipt
	if !rec.State.Over() { // this node has yielded the job
		late = tasks.StaleTerm
	}
	var verdicts []tasks.Verdict
	for _, e := range events {
		var k wire.ReceiptKey
		switch ev := e.ev.(type) {
		case tasks.ReceiptIn:
			k = wire.KeyOf(ev.Receipt)
		case tasks.CommitIn:
			k = wire.CommitmentKey(ev.Commitment)
		default:
			continue
		}
		v, found, err := s.cfg.Store.VerdictOn(ctx, k)
		if err != nil {
			return true, err
		}
		if !found || v.Status == tasks.Pending {
			v.Status, v.Reason = tasks.Rejected, late
		}
		verdicts = append(verdicts, v)
	}
	if len(verdicts) > 0 {
		s.tell(idOf(from), func(c *courier) { c.judge(verdicts...) })
	}
	return len(verdicts) > 0, nil
}
