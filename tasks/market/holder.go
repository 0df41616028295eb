package market

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// holder tells who holds a job that this node published, as far as it heard, and
// whether it has an answer; ok is false when it did not publish the job.
func (s *Service) holder(ctx context.Context, id tasks.JobID) (told tasks.HolderTold, ok bool, err error) {
	err = s.hall.ask(ctx, func(h *hall) {
		p := h.submissions[id]
		if p == nil {
			return
		}
		ok = true
		if a := p.record.Answer; a != nil {
			told = tasks.HolderTold{Origin: a.Origin, Term: a.Term, State: a.State}
			return
		}
		told.State = tasks.Splitting
		told.Origin, told.Term = p.machine.Holder()
	})
	return told, ok, err
}

// askHolder asks a job's submitter, for an origin that was away, who holds it.
func (h *hall) askHolder(ctx context.Context, id tasks.JobID, a *adoption) {
	told, err := h.callHolder(ctx, id, a.submitter)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		h.s.log.Info("submitter does not say who holds its job", "job", id, "peer", a.submitter, "err", err)
	}
	h.do(func(ctx context.Context) {
		if h.adoptions[id] == a {
			h.adopt(ctx, id, told)
		}
	})
}

func (h *hall) callHolder(ctx context.Context, id tasks.JobID, submitter tasks.PeerID) (tasks.HolderTold, error) {
	s := h.s
	if submitter == s.self {
		told, _, err := s.holder(ctx, id)
		return told, err
	}
	to, err := peerOf(submitter)
	if err != nil {
		return tasks.HolderTold{}, err
	}
	req, err := wire.MarshalFollow(id)
	if err != nil {
		return tasks.HolderTold{}, err
	}
	resp, err := s.host.Call(ctx, to, followProtocol, req)
	if err != nil {
		return tasks.HolderTold{}, err
	}
	p, err := wire.UnmarshalProgress(resp)
	if err != nil || p.Job != id {
		return tasks.HolderTold{}, err
	}
	return tasks.HolderTold{Origin: p.Origin, Term: p.Term, State: p.State}, nil
}

// forget ends this node's part in a published job. A copy that it was origin of,
// and that is not over, ends by another's answer.
func (h *hall) forget(ctx context.Context, id tasks.JobID, e tasks.Forget) error {
	s := h.s
	var rec wire.JobRecord
	err := s.durably(ctx, &h.stall, func(ctx context.Context) (err error) {
		if rec, err = s.cfg.Store.Job(ctx, id); errors.Is(err, ErrNoJob) {
			err = nil
		}
		return err
	})
	if err != nil || rec.ID == "" { // nothing was kept
		return err
	}
	d, c := s.desk(id), wire.Change{Job: id, Forgotten: true}
	if d == nil && rec.Term > 0 && !rec.State.Over() {
		c.Finish = &tasks.Finish{State: tasks.Cancelled, Reason: tasks.AnsweredElse, Detail: clip(e.String())}
	}
	if err := s.apply(ctx, &h.stall, c); err != nil {
		return err
	}
	if d != nil {
		d.push(tasks.CancelJob{Reason: tasks.AnsweredElse, Detail: clip(e.String())})
	} else if c.Finish != nil {
		s.emit(Event{Kind: JobFinished, Job: id, State: c.Finish.State, Reason: c.Finish.Reason, Text: c.Finish.Detail})
	}
	return nil
}

// whoHolds says of a job that this node does not work on who does.
func (s *Service) whoHolds(ctx context.Context, v *JobView) {
	var back time.Time
	err := s.hall.ask(ctx, func(h *hall) {
		if a := h.adoptions[v.Record.ID]; a != nil {
			_, v.Term, v.Origin = a.machine.Role()
			back = a.machine.Returning()
		}
	})
	if err != nil { // the node stops, or the hall waits for room
		v.Term, v.Origin = 0, ""
	}
	switch {
	case v.Record.Origin() && !back.IsZero():
		v.Why = []tasks.Wait{{Text: "this node was away: it asks the submitter whether another host has taken the job", Next: back}}
	case v.Record.Origin():
	case v.Origin == "":
		v.Why = []tasks.Wait{{Text: "kept here in case its origin falls silent"}}
	default:
		v.Why = []tasks.Wait{{Text: fmt.Sprintf("%s is its origin, at term %d; kept here in case its origin falls silent", v.Origin, v.Term)}}
	}
}
