package market

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// hall is where published jobs are heard, kept, taken up and answered: the one
// goroutine that drives every Adoption and Submission.
type hall struct {
	s     *Service
	inbox *inbox[func(context.Context)]
	stall stall // run waits for room

	// The rest belongs to run.
	adoptions   map[tasks.JobID]*adoption
	submissions map[tasks.JobID]*submission
	early       []early // notices of jobs not heard yet, oldest first
}

// early is a notice of a job that this host has not heard of.
type early struct {
	from   tasks.PeerID
	notice tasks.Notice
	at     time.Time
}

// earlyLife is for how long one is worth something: an origin says every few
// seconds that it is there.
const earlyLife = 2 * time.Minute

// adoption is a published job that this host heard of.
type adoption struct {
	machine   *tasks.Adoption
	submitter tasks.PeerID
	sealed    []byte
	sub       wire.Submission
}

// submission is a job that this node published.
type submission struct {
	machine *tasks.Submission
	record  wire.PublishedRecord
	waiting map[tasks.PeerID][]chan<- answered // calls of origins that wait for a word
}

// answered is what an origin's call is told.
type answered struct {
	accepted bool
	err      error // it could not be taken now
}

// tell answers every call of an origin that waits.
func (p *submission) tell(to tasks.PeerID, a answered) {
	for _, w := range p.waiting[to] {
		w <- a
	}
	delete(p.waiting, to)
}

// hallInbox bounds what the jobs topic may leave.
const hallInbox = 4096

// What stands first in a message of the jobs topic.
const (
	topicSubmission = 1
	topicNotice     = 2
)

// MaxTopic is the most that a message of the jobs topic may weigh.
const MaxTopic = 80 << 10

func newHall(s *Service) *hall {
	return &hall{s: s, inbox: newInbox[func(context.Context)](&s.waiting), adoptions: map[tasks.JobID]*adoption{},
		submissions: map[tasks.JobID]*submission{}}
}

func (h *hall) run(ctx context.Context) {
	next := newAlarm()
	defer next.t.Stop()
	for {
		now := time.Now()
		for id, a := range h.adoptions {
			if due(now, a.machine.Next()) {
				h.adopt(ctx, id, tasks.AdoptionTick{})
			}
		}
		for id, p := range h.submissions {
			if due(now, p.machine.Next()) {
				h.submit(ctx, id, tasks.SubmissionTick{})
			}
		}
		next.set(h.next())
		select {
		case <-h.inbox.ready:
			for _, f := range h.inbox.take(stepAtOnce) {
				f(ctx)
			}
		case <-next.t.C:
		case <-ctx.Done():
			return
		}
	}
}

func due(now, at time.Time) bool { return !at.IsZero() && !at.After(now) }

func (h *hall) next() (at time.Time) {
	sooner := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for _, a := range h.adoptions {
		sooner(a.machine.Next())
	}
	for _, p := range h.submissions {
		sooner(p.machine.Next())
	}
	return at
}

// do runs f on the hall's goroutine.
func (h *hall) do(f func(context.Context)) { h.inbox.push(f) }

// restore takes up, before run, what was durable.
func (h *hall) restore(ctx context.Context) error {
	store := h.s.cfg.Store
	published, err := store.Published(ctx)
	if err != nil {
		return fmt.Errorf("market: read published jobs: %w", err)
	}
	for _, r := range published {
		if err := h.follow(r); err != nil { // what is answered too: a host may not know yet
			return err
		}
		if r.Answer != nil {
			continue
		}
		if sub, _, err := openSubmission(r.Submission); err == nil {
			h.s.keepNamed(ctx, r.ID, sub.Spec) // a crash may have come before
		}
	}
	jobs, err := store.Jobs(ctx)
	if err != nil {
		return fmt.Errorf("market: read jobs: %w", err)
	}
	for _, j := range jobs {
		if !j.Published || j.Forgotten || h.s.cfg.NoHost {
			continue
		}
		full, err := store.Job(ctx, j.ID)
		if err != nil {
			return fmt.Errorf("market: read job: %w", err)
		}
		sub, _, err := openSubmission(full.Submission)
		if err != nil {
			return fmt.Errorf("market: job %s: %w", j.ID, err)
		}
		rec := tasks.AdoptionRecord{Adopted: true, Term: j.Term, Yielded: j.Yielded}
		if j.State.Over() {
			rec.Answer = answerOf(j, h.s.self)
		}
		m, err := tasks.RestoreAdoption(h.adoptionConfig(j.ID), j.ID, j.Submitter, rec, time.Now())
		if err != nil {
			return fmt.Errorf("market: job %s: %w", j.ID, err)
		}
		h.s.learnLater(sub.Record, j.Submitter)
		h.adoptions[j.ID] = &adoption{machine: m, submitter: j.Submitter, sealed: full.Submission, sub: sub}
	}
	return nil
}

func answerOf(j wire.JobRecord, self tasks.PeerID) *tasks.JobAnswer {
	return &tasks.JobAnswer{Job: j.ID, Term: j.Term, Origin: self, State: j.State, Reason: j.Reason, Detail: j.Detail, Output: j.Output, Size: j.Size}
}

func (s *Service) learnLater(record []byte, of tasks.PeerID) {
	if id, err := peerOf(of); err == nil {
		s.learn(record, id)
	}
}

func (h *hall) adoptionConfig(id tasks.JobID) tasks.AdoptionConfig {
	c := h.s.cfg.Adoption
	c.Self, c.Rand, c.Hosts = h.s.self, h.s.rand("adoption "+string(id)), h.hosts()
	return c
}

// hosts counts the members that could adopt, this node included. Who has not
// told its rights may be one.
func (h *hall) hosts() int {
	n := 1
	for _, c := range h.s.host.Known() {
		if c.Capacity.Rights == 0 || c.Capacity.Rights.Has(auth.Host) {
			n++
		}
	}
	return n
}

// OnJob takes a message of the jobs topic; from is who signed it there. What
// can't be used is dropped.
func (s *Service) OnJob(from peer.ID, payload []byte) {
	if from == s.host.ID() || len(payload) < 2 {
		return
	}
	var err error
	switch payload[0] {
	case topicSubmission:
		err = s.hall.hearSubmission(from, payload[1:])
	case topicNotice:
		err = s.hall.hearNotice(from, payload[1:])
	default: // of a later version
	}
	if err != nil {
		s.log.Warn("message of the jobs topic refused", "peer", from, "err", err)
	}
}

func (h *hall) hearSubmission(from peer.ID, sealed []byte) error {
	if h.s.cfg.NoHost || !h.s.rights().Has(auth.Host) {
		return nil
	}
	sub, signer, err := openSubmission(sealed)
	if err != nil {
		return err
	}
	if signer != from {
		return fmt.Errorf("submission of %s, published by another", signer)
	}
	if sub.Mesh != h.s.mesh {
		return fmt.Errorf("submission of mesh %q", sub.Mesh)
	}
	if m, ok := h.s.host.Member(signer); ok && !m.Grant.Rights.Has(auth.Submit) {
		return fmt.Errorf("submitter's token does not allow submit")
	}
	if err := sub.Spec.Validate(); err != nil {
		return fmt.Errorf("submission's spec: %w", err)
	}
	h.s.learn(sub.Record, signer)
	id := JobIDOf(sealed)
	h.inbox.offer(hallInbox, idOf(signer), len(sealed), func(ctx context.Context) {
		if h.adoptions[id] != nil {
			h.adopt(ctx, id, tasks.Resubmitted{})
			return
		}
		if len(h.adoptions) >= h.s.cfg.MaxAdoptions || h.adopted(idOf(signer)) >= (h.s.cfg.MaxAdoptions+3)/4 {
			return // others have room; and nobody takes all of it
		}
		if _, err := h.s.cfg.Store.Job(ctx, id); !errors.Is(err, ErrNoJob) {
			return // over, and forgotten here; or nobody can tell, and it is said again
		}
		if err := h.s.cfg.Room(); err != nil {
			h.s.log.Info("published job not followed", "job", id, "err", err)
			return // others may have room; it is said again
		}
		m, err := tasks.NewAdoption(h.adoptionConfig(id), id, idOf(signer), time.Now())
		if err != nil {
			h.s.log.Warn("published job not followed", "job", id, "err", err)
			return
		}
		h.adoptions[id] = &adoption{machine: m, submitter: idOf(signer), sealed: sealed, sub: sub}
		h.adopt(ctx, id, tasks.AdoptionTick{})
		for _, n := range h.forgetEarly(id) {
			h.adopt(ctx, id, tasks.NoticeIn{Notice: n.notice})
		}
	})
	return nil
}

// adopted counts the jobs of one submitter that are followed.
func (h *hall) adopted(by tasks.PeerID) (n int) {
	for _, a := range h.adoptions {
		if a.submitter == by {
			n++
		}
	}
	return n
}

func (h *hall) hearNotice(from peer.ID, sealed []byte) error {
	signer, payload, err := p2p.OpenSealed(wire.DomainNotice, wire.MaxNotice+envelope, sealed)
	if err != nil {
		return err
	}
	mesh, n, err := wire.UnmarshalNotice(payload)
	if err != nil {
		return err
	}
	if signer != from || n.From != idOf(signer) || mesh != h.s.mesh {
		return fmt.Errorf("notice of %s in mesh %q, published by another", n.From, mesh)
	}
	if m, ok := h.s.host.Member(signer); ok && n.Kind != tasks.NoticeAnswered && !m.Grant.Rights.Has(auth.Host) {
		return fmt.Errorf("notice of a member that may not host")
	}
	h.inbox.offer(hallInbox, idOf(signer), len(sealed), func(ctx context.Context) {
		if p := h.submissions[n.Job]; p != nil && n.Kind == tasks.NoticeOrigin {
			h.s.learn(n.Addresses, signer)
			h.submit(ctx, n.Job, tasks.OriginHeard{Notice: n})
		}
		switch {
		case h.adoptions[n.Job] != nil:
			h.adopt(ctx, n.Job, tasks.NoticeIn{Notice: n})
		case n.Kind != tasks.NoticeAnswered:
			h.hearEarly(early{idOf(signer), n, time.Now()})
		default:
			h.forgetEarly(n.Job)
		}
	})
	return nil
}

// hearEarly keeps a notice for when its job is heard of: the last of each signer on
// a job. Most are of jobs that were never published, so a signer's own oldest goes
// when it has a quarter of what is kept, and the oldest of all when all is full.
func (h *hall) hearEarly(e early) {
	most := h.s.cfg.MaxAdoptions
	h.early = slices.DeleteFunc(h.early, func(o early) bool {
		return o.from == e.from && o.notice.Job == e.notice.Job || e.at.Sub(o.at) > earlyLife
	})
	oldest, mine := -1, 0
	for i, o := range h.early {
		if o.from == e.from {
			if mine++; oldest < 0 {
				oldest = i
			}
		}
	}
	switch {
	case mine >= (most+3)/4:
		h.early = slices.Delete(h.early, oldest, oldest+1)
	case len(h.early) >= most:
		h.early = slices.Delete(h.early, 0, 1)
	}
	h.early = append(h.early, e)
}

// forgetEarly gives and forgets what was said of a job.
func (h *hall) forgetEarly(id tasks.JobID) (said []early) {
	h.early = slices.DeleteFunc(h.early, func(o early) bool {
		if o.notice.Job != id {
			return false
		}
		said = append(said, o)
		return true
	})
	return said
}

// over hears from a desk that a published job is over, durably.
func (h *hall) over(a tasks.JobAnswer) {
	h.do(func(ctx context.Context) { h.adopt(ctx, a.Job, tasks.JobOver{Answer: a}) })
}

// adopt steps one adoption and does what it asks.
func (h *hall) adopt(ctx context.Context, id tasks.JobID, ev tasks.AdoptionEvent) {
	a := h.adoptions[id]
	if a == nil {
		return
	}
	for _, e := range a.machine.Step(time.Now(), ev) {
		if err := h.doAdoption(ctx, id, a, e); err != nil {
			return // the store failed: Run ends
		}
	}
}

func (h *hall) doAdoption(ctx context.Context, id tasks.JobID, a *adoption, e tasks.AdoptionEffect) error {
	s := h.s
	switch e := e.(type) {
	case tasks.Adopt:
		rec := record(id, a.sealed, a.sub, a.submitter, s.cfg.Now())
		rec.Published = true
		return s.durably(ctx, &h.stall, func(ctx context.Context) error { _, err := s.cfg.Store.AddJob(ctx, rec); return err })
	case tasks.SendNotice:
		h.notice(e.Notice)
	case tasks.BecomeOrigin:
		if err := s.apply(ctx, &h.stall, wire.Change{Job: id, Term: e.Term}); err != nil {
			return err
		}
		s.emit(Event{Kind: JobAdopted, Job: id, Text: fmt.Sprintf("term %d", e.Term)})
		s.takeUp(adopted{id, a.submitter})
	case tasks.Yield:
		if err := s.apply(ctx, &h.stall, wire.Change{Job: id, Yielded: e.Term}); err != nil {
			return err
		}
		s.putOff(id)
		if d := s.desk(id); d != nil {
			d.push(tasks.Superseded{Term: e.Term, By: e.To})
		}
	case tasks.SendAnswer:
		s.crew.spawn(func(ctx context.Context) { h.sendAnswer(ctx, id, a, e.Answer) })
	case tasks.AskHolder:
		s.crew.spawn(func(ctx context.Context) { h.askHolder(ctx, id, a) })
	case tasks.Resume:
		if s.desk(id) == nil {
			s.takeUp(adopted{id, a.submitter})
		}
	case tasks.Forget:
		s.putOff(id)
		if err := h.forget(ctx, id, e); err != nil {
			return err
		}
		delete(h.adoptions, id)
	}
	return nil
}

func record(id tasks.JobID, sealed []byte, sub wire.Submission, submitter tasks.PeerID, now time.Time) wire.JobRecord {
	return wire.JobRecord{ID: id, Submission: sealed, Name: sub.Spec.Name, Submitter: submitter, Created: now, State: tasks.Splitting, Retention: sub.Spec.Retention}
}

// notice signs and publishes.
func (h *hall) notice(n tasks.Notice) {
	s := h.s
	if rec, err := s.host.Record(); err == nil {
		n.Addresses = rec
	}
	b, err := wire.MarshalNotice(s.mesh, n)
	if err == nil {
		b, err = s.seal(wire.DomainNotice, b)
	}
	if err != nil {
		s.log.Error("notice not encoded", "job", n.Job, "err", err)
		return
	}
	h.publish(append([]byte{topicNotice}, b...))
}

func (h *hall) publish(message []byte) {
	s := h.s
	s.metrics.sent("jobs topic")
	s.crew.spawn(func(ctx context.Context) {
		if err := s.cfg.Publisher.PublishJob(ctx, message); err != nil && ctx.Err() == nil {
			s.log.Warn("not published on the jobs topic", "err", err)
		}
	})
}

// sendAnswer gives the submitter what its job came to.
func (h *hall) sendAnswer(ctx context.Context, id tasks.JobID, a *adoption, ans tasks.JobAnswer) {
	err := h.callAnswer(ctx, a.submitter, ans)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		h.s.log.Info("answer not delivered", "job", id, "peer", a.submitter, "err", err)
		h.do(func(ctx context.Context) { h.adopt(ctx, id, tasks.AnswerFailed{}) })
		return
	}
	h.do(func(ctx context.Context) {
		if h.adoptions[id] == a {
			h.adopt(ctx, id, tasks.AnswerTaken{})
		}
	})
}

func (h *hall) callAnswer(ctx context.Context, to tasks.PeerID, ans tasks.JobAnswer) error {
	s := h.s
	id, err := peerOf(to)
	if err != nil {
		return err
	}
	ans.Detail = clip(ans.Detail)
	b, err := wire.MarshalAnswer(s.mesh, ans)
	if err == nil {
		b, err = s.seal(wire.DomainAnswer, b)
	}
	if err != nil {
		return err
	}
	s.metrics.sent("answer")
	resp, err := s.host.Call(ctx, id, answerProtocol, b)
	if err != nil {
		return err
	}
	_, err = wire.UnmarshalAnswerReply(resp)
	return err
}
