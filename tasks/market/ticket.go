package market

import (
	"context"
	"errors"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// ErrTicket is what CheckTicket refuses with.
var ErrTicket = errors.New("market: the ticket does not cover that")

// CheckTicket says whether from, who shows the ticket, may read root here: a
// worker the inputs of a lease that it holds, an origin the outputs that its
// worker made, a published job's origin what the job names, its submitter the
// job's output. A ticket is worth nothing to another peer.
func (s *Service) CheckTicket(ctx context.Context, from peer.ID, root tasks.CID, ticket []byte) error {
	t, err := wire.UnmarshalTicket(ticket)
	if err != nil {
		return errors.Join(ErrTicket, err)
	}
	who := idOf(from)
	if t.Lease == submissionTicket {
		return s.checkSubmission(ctx, from, t.Job, root)
	}
	if d := s.desk(t.Job); d != nil && s.may(from, auth.Work) == nil {
		d.mu.Lock()
		ok := d.origin != nil && d.roots[root] && d.origin.Granted(t.Lease, who)
		d.mu.Unlock()
		if ok {
			return nil
		}
	}
	if s.bench != nil && s.may(from, auth.Submit) == nil && s.bench.made(t.Job, who, root) {
		return nil
	}
	return ErrTicket
}

// made reports whether an origin may fetch an output that was made here.
func (b *bench) made(job tasks.JobID, origin tasks.PeerID, root tasks.CID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if j := b.jobs[workKey{origin, job}]; j != nil && j.made[root] {
		return true
	}
	for _, o := range b.owed {
		if o.Origin == origin && o.Receipt.Job == job && o.Receipt.Output == root {
			return true
		}
	}
	return false
}

// checkSubmission is for the two ends of a published job.
func (s *Service) checkSubmission(ctx context.Context, from peer.ID, job tasks.JobID, root tasks.CID) error {
	if rec, err := s.cfg.Store.Job(ctx, job); err == nil && rec.Submitter == idOf(from) && rec.State == tasks.Done && rec.Output == root {
		return nil
	}
	if s.may(from, auth.Host) != nil {
		return ErrTicket
	}
	named := false
	if err := s.hall.ask(ctx, func(h *hall) {
		if p := h.submissions[job]; p != nil {
			sub, _, err := openSubmission(p.record.Submission)
			named = err == nil && names(sub.Spec, root)
		}
	}); err != nil {
		return errors.Join(ErrTicket, err)
	}
	if !named {
		return ErrTicket
	}
	return nil
}

// names reports whether a spec names a root.
func names(spec tasks.Spec, root tasks.CID) bool {
	return slices.Contains(rootsOf(spec), root)
}
