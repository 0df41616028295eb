package market

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// ErrTooLarge is wrapped by Publish when a submission and what travels along with
// it do not fit into one message.
var ErrTooLarge = errors.New("the submission is too large")

// BusyError says that this node holds as many jobs as it may.
type BusyError struct{ RetryAfter time.Duration }

func (e *BusyError) Error() string {
	return fmt.Sprintf("this node holds as many jobs as it may: try again in %s", e.RetryAfter)
}

// Submit takes a job that this node will be the origin of. The job is durable
// when Submit returns its ID.
func (s *Service) Submit(ctx context.Context, spec tasks.Spec) (tasks.JobID, error) {
	if s.cfg.Light {
		return "", fmt.Errorf("submit: this node holds no jobs: publish instead")
	}
	if err := cmp.Or(s.cfg.Room(), s.Stalled()); err != nil {
		return "", fmt.Errorf("submit: %w", &FullError{err})
	}
	if err := s.reserve(); err != nil {
		return "", fmt.Errorf("submit: %w", err)
	}
	defer s.unreserve()
	id, sealed, sub, err := s.sign(spec, nil, nil)
	if err != nil {
		return "", fmt.Errorf("submit: %w", err)
	}
	rec := record(id, sealed, sub, s.self, s.cfg.Now())
	rec.Term = 1
	if _, err := s.cfg.Store.AddJob(ctx, rec); err != nil {
		return "", fmt.Errorf("submit: %w", s.full(err))
	}
	s.keepNamed(ctx, id, sub.Spec)
	s.emit(Event{Kind: JobSubmitted, Job: id, State: tasks.Splitting, Text: spec.Name})
	s.metrics.submitted()
	s.openDesk(id, "")
	return id, nil
}

// sign makes a signed submission of a spec.
func (s *Service) sign(spec tasks.Spec, blobs []wire.Blob, providers []tasks.PeerID) (tasks.JobID, []byte, wire.Submission, error) {
	spec = spec.WithDefaults()
	if err := spec.Validate(); err != nil {
		return "", nil, wire.Submission{}, err
	}
	if err := s.may(s.host.ID(), auth.Submit); err != nil {
		return "", nil, wire.Submission{}, err
	}
	sub := wire.Submission{Mesh: s.mesh, Spec: spec, Nonce: make([]byte, 16), Created: s.cfg.Now(), Blobs: blobs, Providers: providers}
	rand.Read(sub.Nonce) // never fails
	if rec, err := s.host.Record(); err == nil {
		sub.Record = rec
	}
	payload, err := wire.MarshalSubmission(sub)
	if err != nil {
		return "", nil, sub, err
	}
	if _, err := wire.UnmarshalSubmission(payload); err != nil {
		return "", nil, sub, err // nobody would take it
	}
	sealed, err := s.seal(wire.DomainSubmission, payload)
	if err != nil {
		return "", nil, sub, err
	}
	return JobIDOf(sealed), sealed, sub, nil
}

// Publish puts a job on the mesh's jobs topic for any host to adopt, and
// follows it until one answer is accepted. Blobs are programs and inputs that
// travel along, 64 KiB in all; what else the spec names is fetched from this
// node and from providers. The submission is durable when Publish returns.
func (s *Service) Publish(ctx context.Context, spec tasks.Spec, blobs []wire.Blob, providers []tasks.PeerID) (tasks.JobID, error) {
	id, sealed, sub, err := s.sign(spec, blobs, providers)
	if err != nil {
		return "", fmt.Errorf("publish: %w", err)
	}
	if n := len(sealed) + 1; n > MaxTopic {
		return "", fmt.Errorf("publish: %w: %d bytes, at most %d may be published", ErrTooLarge, n, MaxTopic)
	}
	r := wire.PublishedRecord{ID: id, Submission: sealed, Name: sub.Spec.Name, Created: s.cfg.Now(), Retention: sub.Spec.Retention}
	if err := s.cfg.Store.AddPublished(ctx, r); err != nil {
		return "", fmt.Errorf("publish: %w", s.full(err))
	}
	s.keepNamed(ctx, id, sub.Spec)
	s.emit(Event{Kind: JobPublished, Job: id, Text: spec.Name})
	s.hall.do(func(ctx context.Context) {
		if err := s.hall.follow(r); err != nil {
			s.log.Error("published job not followed", "job", id, "err", err)
			return
		}
		s.hall.submit(ctx, id, tasks.SubmissionTick{})
	})
	return id, nil
}

// keepNamed keeps for a job what its spec names and is here, from the moment that
// the job is durable: it may wait for longer than an upload is kept. What is not
// here is fetched and kept by who splits the job.
func (s *Service) keepNamed(ctx context.Context, id tasks.JobID, spec tasks.Spec) {
	for _, root := range rootsOf(spec) {
		if !s.cfg.Data.Cached(ctx, root) {
			continue
		}
		if err := s.cfg.Data.Keep(ctx, id, root); err != nil {
			s.log.Warn("not kept for its job", "job", id, "root", root, "err", err)
		}
	}
}

// rootsOf lists what a spec names: program, inputs, reduce.
func rootsOf(spec tasks.Spec) []tasks.CID {
	roots := []tasks.CID{spec.Program}
	for _, in := range spec.Inputs {
		roots = append(roots, in.Source)
	}
	if spec.Reduce != nil {
		roots = append(roots, spec.Reduce.Program)
	}
	return roots
}

// follow makes the machine of a job that this node published.
func (h *hall) follow(r wire.PublishedRecord) error {
	c := h.s.cfg.Submission
	c.Self, c.Rand = h.s.self, h.s.rand("submission "+string(r.ID))
	m, err := tasks.NewSubmission(c, r.ID, r.Answer, time.Now())
	if err != nil {
		return fmt.Errorf("market: published job %s: %w", r.ID, err)
	}
	h.submissions[r.ID] = &submission{machine: m, record: r, waiting: map[tasks.PeerID][]chan<- answered{}}
	return nil
}

// submit steps one submission and does what it asks.
func (h *hall) submit(ctx context.Context, id tasks.JobID, ev tasks.SubmissionEvent) {
	p := h.submissions[id]
	if p == nil {
		return
	}
	s := h.s
	for _, e := range p.machine.Step(time.Now(), ev) {
		switch e := e.(type) {
		case tasks.PublishSubmission:
			h.publish(append([]byte{topicSubmission}, p.record.Submission...))
		case tasks.KeepOutput:
			s.crew.spawn(func(ctx context.Context) { h.keepOutput(ctx, e.Answer) })
		case tasks.AcceptAnswer:
			if err := s.durably(ctx, &h.stall, func(ctx context.Context) error {
				_, err := s.cfg.Store.AcceptAnswer(ctx, e.Answer, s.cfg.Now())
				return err
			}); err != nil {
				return
			}
			p.record.Answer, p.record.Answered = &e.Answer, s.cfg.Now()
			s.emit(Event{Kind: JobAnswered, Job: id, Worker: e.Answer.Origin, State: e.Answer.State, Reason: e.Answer.Reason, Text: e.Answer.Detail})
		case tasks.TellAnswered:
			p.tell(e.To, answered{accepted: e.Accepted})
		case tasks.AskAgain:
			p.tell(e.To, answered{err: refuse(e.Reason, answerAgain, e.Detail)})
		case tasks.PublishAnswered:
			h.notice(e.Notice)
		}
	}
}

// keepOutput fetches the output of an answer, so that the origin may let go.
func (h *hall) keepOutput(ctx context.Context, a tasks.JobAnswer) {
	kept := tasks.OutputKept{Answer: a, OK: true}
	if err := h.fetchOutput(ctx, a); err != nil {
		kept.OK, kept.Detail = false, clip(err.Error())
	}
	h.do(func(ctx context.Context) { h.submit(ctx, a.Job, kept) })
}

func (h *hall) fetchOutput(ctx context.Context, a tasks.JobAnswer) error {
	from, err := peerOf(a.Origin)
	if err != nil {
		return err
	}
	ticket, err := wire.MarshalTicket(wire.Ticket{Job: a.Job, Lease: submissionTicket})
	if err != nil {
		return err
	}
	if err := h.s.cfg.Data.Fetch(ctx, tasks.Span{Root: a.Output, Length: -1}, []peer.ID{from}, ticket); err != nil {
		return err
	}
	return h.s.cfg.Data.Keep(ctx, a.Job, a.Output)
}

// serveAnswer takes what a published job came to. It answers when one is
// accepted, durably: this one or another.
func (s *Service) serveAnswer(ctx context.Context, from peer.ID, req []byte) ([]byte, error) {
	if err := s.may(from, auth.Host); err != nil {
		return nil, err
	}
	payload, err := openFrom(wire.DomainAnswer, wire.MaxAnswer, req, from)
	if err != nil {
		return nil, err
	}
	mesh, a, err := wire.UnmarshalAnswer(payload)
	if err != nil {
		return nil, malformed(err)
	}
	if mesh != s.mesh || a.Origin != idOf(from) {
		return nil, p2p.Refuse(p2p.CodeMalformed, "an answer of another mesh or origin")
	}
	run, ok := s.crew.enter()
	if !ok {
		return nil, notReady()
	}
	defer s.crew.leave()
	told := make(chan answered, 1)
	unknown := make(chan error, 1)
	if !s.hall.inbox.offer(hallInbox, a.Origin, len(req), func(ctx context.Context) {
		p := s.hall.submissions[a.Job]
		if p == nil {
			unknown <- s.answeredBefore(ctx, a.Job)
			return
		}
		p.waiting[a.Origin] = append(p.waiting[a.Origin], told)
		s.hall.submit(ctx, a.Job, tasks.AnswerIn{Answer: a})
	}) {
		return nil, refuse(tasks.OriginBusy, answerAgain, "too much waits to be heard here")
	}
	select {
	case a := <-told:
		if a.err != nil {
			return nil, a.err
		}
		return wire.MarshalAnswerReply(a.accepted)
	case err := <-unknown:
		if err != nil {
			return nil, err
		}
		return wire.MarshalAnswerReply(false)
	case <-ctx.Done(): // its output is still being fetched
		s.hall.do(func(context.Context) {
			if p := s.hall.submissions[a.Job]; p != nil {
				p.waiting[a.Origin] = slices.DeleteFunc(p.waiting[a.Origin], func(w chan<- answered) bool { return w == told })
			}
		})
		return nil, ctx.Err()
	case <-run.Done():
		return nil, notReady()
	}
}

// answerAgain is when an origin may deliver an answer again that could not be
// taken.
const answerAgain = 5 * time.Second

// answeredBefore is nil when the job was published here and has its answer.
func (s *Service) answeredBefore(ctx context.Context, id tasks.JobID) error {
	list, err := s.cfg.Store.Published(ctx)
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.ID == id && r.Answer != nil {
			return nil
		}
	}
	return p2p.Refuse(p2p.CodeNotFound, "this node did not publish that job")
}

// serveFollow tells a job's submitter how it stands, and a host who holds a job
// that this node published.
func (s *Service) serveFollow(ctx context.Context, from peer.ID, req []byte) ([]byte, error) {
	id, err := wire.UnmarshalFollow(req)
	if err != nil {
		return nil, malformed(err)
	}
	if s.may(from, auth.Host) == nil {
		if told, ok, err := s.holder(ctx, id); err != nil {
			return nil, notReady()
		} else if ok && told.Origin == "" {
			return nil, p2p.Refuse(p2p.CodeNotFound, "no host has taken the job yet")
		} else if ok {
			return wire.MarshalProgress(wire.Progress{Job: id, Term: max(told.Term, 1), Origin: told.Origin, State: told.State})
		}
	}
	if err := s.may(from, auth.Submit); err != nil {
		return nil, err
	}
	none := p2p.Refuse(p2p.CodeNotFound, "no such job of yours here")
	r, err := s.cfg.Store.Job(ctx, id)
	if err != nil && !errors.Is(err, ErrNoJob) {
		return nil, notReady()
	}
	if err != nil || r.Submitter != idOf(from) { // before more is read for it
		return nil, none
	}
	v, err := s.Job(ctx, id)
	if err != nil || v.Record.Submitter != idOf(from) {
		return nil, none
	}
	p := wire.Progress{Job: id, Term: v.Record.Term, Origin: s.self, State: v.Status.State, Reason: v.Status.Reason, Detail: clip(v.Status.Detail),
		Tasks: v.Status.Tasks, Decided: v.Status.Decided, Leased: v.Status.Leased, Waiting: v.Status.Waiting, Releases: v.Status.Releases}
	if len(v.Why) > 0 {
		p.WaitsFor = clip(v.Why[0].Text)
	}
	return wire.MarshalProgress(p)
}

// Follow asks the origin of a job that this node published how it stands.
func (s *Service) Follow(ctx context.Context, id tasks.JobID) (wire.Progress, error) {
	var origin tasks.PeerID
	if err := s.hall.ask(ctx, func(h *hall) {
		if p := h.submissions[id]; p != nil {
			origin, _ = p.machine.Holder()
		}
	}); err != nil {
		return wire.Progress{}, err
	}
	if origin == "" {
		return wire.Progress{}, fmt.Errorf("job %s: no host has taken it yet", id)
	}
	to, err := peerOf(origin)
	if err != nil {
		return wire.Progress{}, err
	}
	req, err := wire.MarshalFollow(id)
	if err != nil {
		return wire.Progress{}, err
	}
	resp, err := s.host.Call(ctx, to, followProtocol, req)
	if err != nil {
		return wire.Progress{}, err
	}
	return wire.UnmarshalProgress(resp)
}

// ask runs f, which does not block, on the hall's goroutine and waits for it. With
// an error, f has not run and never will, or is over: what it writes to is the
// caller's again.
func (h *hall) ask(ctx context.Context, f func(*hall)) error {
	var mu sync.Mutex
	left := false
	err := h.askWith(ctx, func(_ context.Context, h *hall) {
		mu.Lock()
		defer mu.Unlock()
		if !left {
			f(h)
		}
	})
	mu.Lock()
	defer mu.Unlock()
	left = err != nil
	return err
}

// askWith is ask for what may block, and needs the hall's own context. With an
// error, f may still run later.
func (h *hall) askWith(ctx context.Context, f func(context.Context, *hall)) error {
	run, ok := h.s.crew.enter()
	if !ok {
		return notReady()
	}
	defer h.s.crew.leave()
	done := make(chan struct{})
	if !h.inbox.offer(hallInbox, h.s.self, eventBytes, func(ctx context.Context) { f(ctx, h); close(done) }) {
		if w, ok := h.stall.why(); ok {
			return &FullError{errors.New(w.Text)}
		}
		return notReady()
	}
	select {
	case <-done:
		return nil
	case <-h.stall.begins():
		if w, ok := h.stall.why(); ok {
			return &FullError{errors.New(w.Text)}
		}
		return notReady()
	case <-ctx.Done():
		return ctx.Err()
	case <-run.Done():
		return notReady()
	}
}
