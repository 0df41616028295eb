package market

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// JobIDOf names the job of a signed submission.
func JobIDOf(sealed []byte) tasks.JobID {
	sum := sha256.Sum256(sealed)
	return tasks.JobID(strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])))
}

// openSubmission opens signed bytes and says who signed them.
func openSubmission(sealed []byte) (wire.Submission, peer.ID, error) {
	signer, payload, err := p2p.OpenSealed(wire.DomainSubmission, wire.MaxSubmission+envelope, sealed)
	if err != nil {
		return wire.Submission{}, "", fmt.Errorf("submission: %w", err)
	}
	sub, err := wire.UnmarshalSubmission(payload)
	sub.Spec = sub.Spec.WithDefaults() // what another left out
	return sub, signer, err
}

// splitPatience is how long a job's inputs may be out of reach before it fails.
const splitPatience = 15 * time.Minute

// split brings the program and the inputs here, cuts the tasks and makes them
// durable. A Finish says that the job can't be run, and why.
func (d *desk) split(ctx context.Context) (*tasks.Finish, error) {
	deadline := time.Now().Add(splitPatience)
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		list, err := d.planUntil(ctx)
		if err == nil {
			err := d.s.apply(ctx, &d.stall, wire.Change{Job: d.job.ID, Split: list})
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var stopped *stopSplit
		if errors.As(err, &stopped) {
			return &stopped.finish, nil
		}
		var fatal *fatalSplit
		switch {
		case errors.As(err, &fatal):
			return &tasks.Finish{State: tasks.Failed, Reason: fatal.reason, Detail: clip(fatal.Error())}, nil
		case d.s.cfg.Full(err): // as long as it takes
			deadline = time.Now().Add(splitPatience)
		case time.Now().After(deadline):
			return &tasks.Finish{State: tasks.Failed, Reason: tasks.SplitFailed, Detail: clip(err.Error())}, nil
		}
		d.s.log.Info("inputs not here yet", "job", d.job.ID, "err", err, "retry", wait)
		d.waitFor(tasks.Wait{Text: clip(err.Error()), Next: time.Now().Add(wait)})
		if stopped, err := d.pause(ctx, wait); stopped != nil || err != nil {
			return stopped, err
		}
	}
}

// stopSplit says that the job ended while it was being split.
type stopSplit struct{ finish tasks.Finish }

func (e *stopSplit) Error() string { return e.finish.Reason.String() }

// planUntil does one try, and gives up as soon as the job is cancelled: what it
// waits for may be large or far.
func (d *desk) planUntil(ctx context.Context) ([]tasks.Task, error) {
	type plan struct {
		list []tasks.Task
		err  error
	}
	try, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan plan, 1)
	go func() {
		list, err := d.plan(try)
		done <- plan{list, err}
	}()
	var stopped *tasks.Finish
	for {
		select {
		case p := <-done:
			if stopped != nil {
				return nil, &stopSplit{*stopped}
			}
			return p.list, p.err
		case <-d.inbox.ready:
			if f := d.stopped(); f != nil && stopped == nil {
				stopped = f
				stop()
			}
		}
	}
}

// fatalSplit is a fault of the job that no waiting heals.
type fatalSplit struct {
	reason tasks.Reason
	err    error
}

func (e *fatalSplit) Error() string { return e.err.Error() }
func (e *fatalSplit) Unwrap() error { return e.err }

// pause waits before the next try, and hears when the job ends.
func (d *desk) pause(ctx context.Context, wait time.Duration) (stopped *tasks.Finish, err error) {
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return d.stopped(), nil
		case <-d.inbox.ready:
			if f := d.stopped(); f != nil {
				return f, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// stopped looks for the job's end among what came while there is no machine.
// Nothing else can come that matters then.
func (d *desk) stopped() *tasks.Finish {
	for _, e := range d.inbox.take(deskInbox) {
		switch e := e.ev.(type) {
		case tasks.CancelJob:
			return &tasks.Finish{State: tasks.Cancelled, Reason: cmp.Or(e.Reason, tasks.CancelledByUser), Detail: e.Detail}
		case tasks.Superseded:
			if e.Term >= d.job.Term {
				return &tasks.Finish{State: tasks.Cancelled, Reason: tasks.StaleTerm, Detail: fmt.Sprintf("held by %s at term %d", e.By, e.Term)}
			}
		}
	}
	return nil
}

// plan does one try.
func (d *desk) plan(ctx context.Context) ([]tasks.Task, error) {
	spec := d.job.Spec
	if err := d.checkSubmitter(ctx); err != nil {
		return nil, err
	}
	if len(d.submit.Blobs) > 0 {
		for i, err := range d.s.cfg.Data.PutAll(ctx, d.job.ID, d.submit.Blobs) {
			if err == nil {
				continue
			}
			if err = fmt.Errorf("inline %s: %w", d.submit.Blobs[i].CID, err); d.s.cfg.Full(err) {
				return nil, err
			}
			return nil, &fatalSplit{tasks.SplitFailed, err}
		}
	}
	from, ticket, err := d.providers()
	if err != nil {
		return nil, err
	}
	for _, root := range rootsOf(spec) {
		if err := d.bring(ctx, root, from, ticket); err != nil {
			return nil, fmt.Errorf("fetch %s: %w", root, err)
		}
		if err := d.s.cfg.Data.Keep(ctx, d.job.ID, root); err != nil {
			return nil, fmt.Errorf("keep %s: %w", root, err)
		}
	}
	var sources []tasks.Source
	for _, in := range spec.Inputs {
		files, err := d.s.cfg.Data.Files(ctx, in.Source)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", in.Source, err)
		}
		for _, f := range files {
			if err := wire.CheckPath(f.Path); err != nil {
				return nil, &fatalSplit{tasks.SplitFailed, fmt.Errorf("a file of %s: %w", in.Source, err)}
			}
		}
		sources = append(sources, tasks.Source{Input: in, Files: files})
	}
	list, err := tasks.PlanTasks(spec, sources, func(root tasks.CID, path string) (io.ReadCloser, error) {
		return d.s.cfg.Data.Open(ctx, tasks.Span{Root: root, Path: path, Length: -1})
	})
	if err != nil && ctx.Err() == nil && !d.s.cfg.Full(err) && !errors.Is(err, ErrLost) {
		return nil, &fatalSplit{tasks.SplitFailed, err}
	}
	return list, err
}

func (d *desk) bring(ctx context.Context, root tasks.CID, from []peer.ID, ticket []byte) error {
	span := tasks.Span{Root: root, Length: -1}
	var refused error
	if len(from) > 0 {
		if refused = d.s.cfg.Data.Fetch(ctx, span, from, ticket); refused == nil {
			return nil
		}
	}
	// A ticket asks its holders alone. What the spec names by CID may as well be
	// the mesh's, at any member.
	if err := d.s.cfg.Data.Fetch(ctx, span, nil, nil); err != nil {
		return errors.Join(refused, err)
	}
	return nil
}

// providers says who may have a published job's data. A job of this node's own
// has it here, or asks the mesh.
func (d *desk) providers() ([]peer.ID, []byte, error) {
	var from []peer.ID
	for _, p := range append([]tasks.PeerID{d.job.Submitter}, d.submit.Providers...) {
		if id, err := peerOf(p); err == nil && id != d.s.host.ID() {
			from = append(from, id)
		}
	}
	ticket, err := wire.MarshalTicket(wire.Ticket{Job: d.job.ID, Lease: submissionTicket})
	return from, ticket, err
}

// submissionTicket stands where a lease would, in tickets between a published
// job's submitter and its origin.
const submissionTicket tasks.LeaseID = "submission"

// checkSubmitter makes sure that a published job's submitter may submit: it
// must have said hello to this node once before work is given out for it.
func (d *desk) checkSubmitter(ctx context.Context) error {
	if !d.job.Published || d.job.Submitter == d.s.self {
		return nil
	}
	id, err := peerOf(d.job.Submitter)
	if err != nil {
		return &fatalSplit{tasks.NotMember, err}
	}
	if _, ok := d.s.host.Member(id); !ok {
		d.s.learn(d.submit.Record, id)
		if err := d.s.host.Connect(ctx, peer.AddrInfo{ID: id}); err != nil {
			return fmt.Errorf("submitter %s can't be reached: %w", id, err)
		}
	}
	return submitterRefused(id, d.s.may(id, auth.Submit))
}

// submitterRefused says what it means that a submitter may not submit. Its
// token's word is the last; but one that is no member since it said hello has
// died or been cut off meanwhile, and may be back.
func submitterRefused(id peer.ID, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("submitter %s: %w", id, err)
	var r *p2p.Refusal
	if errors.As(err, &r) && r.Code == p2p.CodeNotMember {
		return err
	}
	return &fatalSplit{tasks.NotMember, err}
}

// learn takes a signed peer record of id, so that it can be dialled.
func (s *Service) learn(record []byte, id peer.ID) {
	if len(record) == 0 {
		return
	}
	if got, err := s.host.Learn(record); err != nil || got != id {
		s.log.Debug("peer record not taken", "peer", id, "err", err)
	}
}
