package market

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// ErrNoJob says that this node knows no job of that ID.
var ErrNoJob = wire.ErrNoJob

// ErrNotOrigin says that another node decides the job.
var ErrNotOrigin = errors.New("this node is not its origin")

// JobView is a job as people see it.
type JobView struct {
	Record wire.JobRecord // without the submission
	Spec   tasks.Spec
	Status tasks.JobStatus
	Why    []tasks.Wait // what it waits for; empty when it is over

	// Of a job that this node published and others run.
	Published bool
	Origin    tasks.PeerID // heard last; "" when nobody has taken it. Also of a job that is kept here for another
	Term      uint64       // its term
	Answer    *tasks.JobAnswer
}

// Jobs lists every job that this node holds, and those that it published,
// newest first, without their tasks.
func (s *Service) Jobs(ctx context.Context) ([]JobView, error) {
	records, err := s.cfg.Store.Jobs(ctx)
	if err != nil {
		return nil, err
	}
	views := make([]JobView, 0, len(records))
	for _, r := range records {
		if !elsewhere(r) {
			v, err := s.view(ctx, r)
			if err != nil {
				return nil, err
			}
			views = append(views, v)
		}
	}
	published, err := s.published(ctx, "")
	if err != nil {
		return nil, err
	}
	views = append(views, published...)
	slices.SortStableFunc(views, func(a, b JobView) int { return b.Record.Created.Compare(a.Record.Created) })
	return views, nil
}

// Job gives one job.
func (s *Service) Job(ctx context.Context, id tasks.JobID) (JobView, error) {
	r, err := s.cfg.Store.Job(ctx, id)
	if err == nil && !elsewhere(r) {
		if r.State.Over() { // before this node started, perhaps
			if _, err := s.machine(ctx, id); err != nil {
				return JobView{}, err
			}
		}
		v, err := s.view(ctx, r)
		if err != nil {
			return JobView{}, err
		}
		if sub, _, err := openSubmission(r.Submission); err == nil {
			v.Spec = sub.Spec
		}
		return v, nil
	}
	if err != nil && !errors.Is(err, ErrNoJob) {
		return JobView{}, err
	}
	list, perr := s.published(ctx, id)
	if perr != nil {
		return JobView{}, perr
	}
	if len(list) == 0 {
		return JobView{}, fmt.Errorf("job %s: %w", id, ErrNoJob)
	}
	return list[0], nil
}

// elsewhere says of a job that it was kept here, and was answered by another
// node: what became of it is not known here.
func elsewhere(r wire.JobRecord) bool { return r.Forgotten && !r.State.Over() }

// ErrStalled says that a job's last step can't be made durable for now, and so that
// what it came to can't be told yet.
var ErrStalled = errors.New("the job waits until its last step can be written down")

// durable locks the desk for a look at its machine when all that it knows is on
// disk: what a reader was told must not be undone by a crash.
func (d *desk) durable(ctx context.Context) (unlock func(), err error) {
	if d.ahead == nil { // made from disk, to be looked at
		d.mu.Lock()
		return d.mu.Unlock, nil
	}
	select {
	case d.ahead <- struct{}{}:
	default:
		select {
		case d.ahead <- struct{}{}:
		case <-d.stall.begins():
			return nil, ErrStalled
		case <-ctx.Done():
			return nil, fmt.Errorf("its last step is not durable yet: %w", ctx.Err())
		}
	}
	d.mu.Lock()
	unlock = func() { d.mu.Unlock(); <-d.ahead }
	if d.lost {
		unlock()
		return nil, notReady()
	}
	return unlock, nil
}

// view adds what the machine says to what the store has.
func (s *Service) view(ctx context.Context, r wire.JobRecord) (JobView, error) {
	r.Submission = nil
	v := JobView{Record: r, Status: tasks.JobStatus{State: r.State, Reason: r.Reason, Detail: r.Detail, Tasks: r.Tasks, Output: r.Output, Size: r.Size}}
	d := s.history(r.ID)
	if d == nil {
		if !r.State.Over() {
			s.whoHolds(ctx, &v)
		}
		if why := s.putOffFor(r.ID); why != "" && !r.State.Over() {
			v.Why = []tasks.Wait{{Text: why, Tasks: r.Tasks}}
		}
		if r.State == tasks.Done {
			v.Status.Decided = r.Tasks
		}
		return v, nil
	}
	unlock, err := d.durable(ctx)
	for errors.Is(err, ErrStalled) {
		if w, ok := d.stall.why(); ok {
			w.Tasks, v.Why = r.Tasks, []tasks.Wait{w}
			return v, nil // what is on disk
		}
		unlock, err = d.durable(ctx) // it goes on again
	}
	if err != nil {
		return v, err
	}
	defer unlock()
	v.Spec = d.job.Spec
	switch {
	case d.origin != nil:
		v.Status, v.Why = d.origin.Status(), d.origin.Why(time.Now())
		if len(v.Why) > 0 && v.Status.Waiting > 0 && (v.Status.Leased == 0 || len(d.s.host.Members()) == 0) {
			v.Why[0].Text += s.whoIsThere(d.job.Spec.Resources, &v.Why[0].Next)
		}
		if v.Status.State.Over() && !r.State.Over() { // decided, and not durable yet
			v.Status.State = tasks.Assembling
		}
	case d.result != nil:
		v.Status = *d.result
	case !r.State.Over():
		w := d.waits
		if w.Text == "" {
			w.Text = "inputs are being fetched and cut into tasks"
		}
		w.Tasks = r.Tasks
		v.Why = []tasks.Wait{w}
	}
	if damages, ok := s.cfg.Data.(Damages); ok && !v.Status.State.Over() {
		if text := damages.Damaged(ctx, slices.Collect(maps.Keys(d.roots))); text != "" {
			v.Why = append([]tasks.Wait{{Tasks: v.Status.Tasks - v.Status.Decided, Text: text}}, v.Why...)
		}
	}
	if w, ok := d.stall.why(); ok {
		w.Tasks = v.Status.Tasks - v.Status.Decided
		v.Why = append([]tasks.Wait{w}, v.Why...)
	}
	return v, nil
}

// whoIsThere says of whom work could be had, for a job that nobody works on.
// next becomes sooner when this node's own pause ends before it.
func (s *Service) whoIsThere(need tasks.Resources, next *time.Time) string {
	members, paused, full, small := 0, 0, 0, 0
	tooSmall := func(c p2p.Capacity) bool { // a zero is not known yet
		return c.Memory > 0 && c.Memory < need.Memory || c.Cores > 0 && c.Cores < need.CPU
	}
	for _, m := range s.host.Members() {
		if m.Grant.Rights.Has(auth.Work) {
			members++
			if m.Capacity.Paused {
				paused++
			}
			if m.Capacity.Full {
				full++
			}
			if tooSmall(m.Capacity) {
				small++
			}
		}
	}
	text := "; no other member is connected"
	if members > 0 {
		if text = fmt.Sprintf("; other members connected: %d", members); paused > 0 {
			text += fmt.Sprintf(", %d of them paused", paused)
		}
		if full > 0 {
			text += fmt.Sprintf(", %d of them whose disk is full", full)
		}
		if small > 0 {
			text += fmt.Sprintf(", %d of them with less than the %v cores and %d MiB of memory that a task may use", small, need.CPU, need.Memory>>20)
		}
	}
	if n := s.clocksApart(); n > 0 {
		text += fmt.Sprintf("; %d not let in, since the clocks are more than an hour apart: kith doctor tells which is off", n)
	}
	own, works := s.Work()
	switch {
	case !works:
		text += "; this node itself runs no work"
	case tooSmall(s.host.Capacity()):
		text += "; this node itself offers less than a task may use"
	case own.Paused:
		if text += "; this node itself is paused"; !own.Until.IsZero() && (next.IsZero() || own.Until.Before(*next)) {
			*next = own.Until
		}
	default:
		if err := s.cfg.Room(); err != nil {
			text += "; this node itself takes no work: " + err.Error()
		}
	}
	return text
}

// clocksApart counts the peers that are no members now because of their clock or
// this node's.
func (s *Service) clocksApart() (n int) {
	for _, t := range s.host.Troubles() {
		var r *p2p.Refusal
		if errors.As(t.Why, &r) && r.Code == p2p.CodeClock {
			n++
		}
	}
	return n
}

// history finds a job in hand or among the last that were.
func (s *Service) history(id tasks.JobID) *desk {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.desks[id]; d != nil {
		return d
	}
	for _, d := range s.finished {
		if d.job.ID == id {
			return d
		}
	}
	return nil
}

// published gives what this node published: one job, or all with "".
func (s *Service) published(ctx context.Context, id tasks.JobID) ([]JobView, error) {
	list, err := s.cfg.Store.Published(ctx)
	if err != nil {
		return nil, err
	}
	origins, terms := map[tasks.JobID]tasks.PeerID{}, map[tasks.JobID]uint64{}
	why := map[tasks.JobID][]tasks.Wait{}
	err = s.hall.ask(ctx, func(h *hall) {
		for job, p := range h.submissions {
			why[job] = p.machine.Why(time.Now())
			if list := why[job]; len(list) > 0 && len(s.host.Members()) == 0 {
				list[0].Text += "; no other member is connected: kith peers tells why"
			}
			origins[job], terms[job] = p.machine.Holder()
		}
	})
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	stalled, stalls := s.hall.stall.why()
	var views []JobView
	for _, r := range list {
		if id != "" && r.ID != id {
			continue
		}
		if stalls && r.Answer == nil {
			why[r.ID] = []tasks.Wait{stalled}
		}
		v := JobView{Published: true, Origin: origins[r.ID], Term: terms[r.ID], Why: why[r.ID], Answer: r.Answer,
			Record: wire.JobRecord{ID: r.ID, Name: r.Name, Submitter: s.self, Published: true, Created: r.Created, Finished: r.Answered, Retention: r.Retention, State: tasks.Splitting}}
		if sub, _, err := openSubmission(r.Submission); err == nil {
			v.Spec = sub.Spec
		}
		if a := r.Answer; a != nil {
			v.Origin, v.Term = a.Origin, a.Term
			v.Record.State, v.Record.Reason, v.Record.Detail, v.Record.Output, v.Record.Size, v.Record.Term = a.State, a.Reason, a.Detail, a.Output, a.Size, a.Term
		}
		v.Status = tasks.JobStatus{State: v.Record.State, Reason: v.Record.Reason, Detail: v.Record.Detail, Output: v.Record.Output, Size: v.Record.Size}
		views = append(views, v)
	}
	return views, nil
}

// Tasks gives n tasks of a stage of a job, from the one at first on, with who
// ran them. Of a job that was over before this node started, only what was
// durable is known.
func (s *Service) Tasks(ctx context.Context, id tasks.JobID, stage tasks.Stage, first uint32, n int) ([]tasks.TaskStatus, error) {
	var list []tasks.TaskStatus
	err := s.look(ctx, id, func(o *tasks.Origin) { list = o.Tasks(stage, first, min(max(n, 0), 10_000)) })
	return list, err
}

// Results gives the results of a stage so far, in task order.
func (s *Service) Results(ctx context.Context, id tasks.JobID, stage tasks.Stage) ([]tasks.Result, error) {
	var list []tasks.Result
	err := s.look(ctx, id, func(o *tasks.Origin) { list = o.Results(stage) })
	return list, err
}

// look shows a job's machine to f, if there is one, when all that it knows is
// durable.
func (s *Service) look(ctx context.Context, id tasks.JobID, f func(*tasks.Origin)) error {
	for {
		d, err := s.machine(ctx, id)
		if err != nil || d == nil {
			return err
		}
		unlock, err := d.durable(ctx)
		if err != nil {
			return err
		}
		if d.origin == nil && d.result != nil {
			unlock()
			continue // its history was let go of under us
		}
		if d.origin != nil {
			f(d.origin)
		}
		unlock()
		return nil
	}
}

// machine finds a job's machine, or makes one from disk to look at.
func (s *Service) machine(ctx context.Context, id tasks.JobID) (*desk, error) {
	if d := s.history(id); d != nil && !d.brief() {
		return d, nil
	}
	r, err := s.cfg.Store.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	if r.Tasks == 0 || r.Term == 0 {
		return nil, nil
	}
	sub, _, err := openSubmission(r.Submission)
	if err != nil {
		return nil, err
	}
	records, err := s.cfg.Store.Records(ctx, id, r.Term)
	if err != nil {
		return nil, err
	}
	job := tasks.Job{ID: r.ID, Spec: sub.Spec, Submission: r.Submission, Submitter: r.Submitter, Term: r.Term, Created: r.Created, Published: r.Published}
	m, err := tasks.RestoreOrigin(s.originConfig(id), job, records, time.Now())
	if err != nil {
		return nil, err
	}
	d := &desk{s: s, job: job, origin: m}
	if r.State.Over() {
		s.remember(d)
	}
	return d, nil
}

// brief reports whether only the end of a job is in memory.
func (d *desk) brief() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.result != nil
}

// Why says what a job waits for.
func (s *Service) Why(ctx context.Context, id tasks.JobID) ([]tasks.Wait, error) {
	v, err := s.Job(ctx, id)
	return v.Why, err
}

// Logs gives the tries of one task with the tails of their logs, oldest first.
func (s *Service) Logs(ctx context.Context, id tasks.JobID, ref tasks.Ref) ([]wire.LogRecord, error) {
	if _, err := s.cfg.Store.Job(ctx, id); err != nil {
		return nil, err
	}
	return s.cfg.Store.Logs(ctx, id, ref)
}

// Cancel ends a job of this node, or withdraws one that it published, and returns
// when that is durable. One that is over already stays what it is.
func (s *Service) Cancel(ctx context.Context, id tasks.JobID, why string) error {
	d := s.desk(id)
	if d == nil && s.putOffFor(id) != "" { // it may be cancelled however many are in hand
		if r, err := s.cfg.Store.Job(ctx, id); err == nil && r.Origin() && !r.State.Over() {
			s.putOff(id)
			s.openDesk(id, r.Submitter)
			d = s.desk(id)
		}
	}
	if d != nil {
		d.push(tasks.CancelJob{Detail: clip(why)})
		select {
		case <-d.done:
		case <-ctx.Done():
			if w, ok := d.stall.why(); ok { // it is cancelled when there is room
				return &FullError{errors.New(w.Text)}
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.origin == nil && d.waits.Text != "" { // it is cancelled when that is over
				return fmt.Errorf("job %s: %s", id, d.waits.Text)
			}
			return ctx.Err()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.finish == nil {
			return notReady()
		}
		return nil
	}
	r, err := s.cfg.Store.Job(ctx, id)
	switch {
	case errors.Is(err, ErrNoJob):
		return s.withdraw(ctx, id, why)
	case err != nil:
		return err
	case r.State.Over():
		return nil
	case r.Origin():
		r := p2p.Refuse(p2p.CodeBusy, "this node was away, and asks whether another host has taken the job")
		r.RetryAfter = time.Second
		return fmt.Errorf("job %s: %w", id, r)
	}
	return fmt.Errorf("job %s: %w", id, ErrNotOrigin)
}

// withdraw answers a job that this node published itself: hosts that hold it
// hear that it has its answer.
func (s *Service) withdraw(ctx context.Context, id tasks.JobID, why string) error {
	a := tasks.JobAnswer{Job: id, Origin: s.self, State: tasks.Cancelled, Reason: tasks.CancelledByUser, Detail: clip(why)}
	told := make(chan answered, 1)
	if err := s.hall.askWith(ctx, func(ctx context.Context, h *hall) {
		p := h.submissions[id]
		if p == nil {
			if s.answeredBefore(ctx, id) == nil {
				told <- answered{}
			} else {
				told <- answered{err: fmt.Errorf("job %s: %w", id, ErrNoJob)}
			}
			return
		}
		p.waiting[s.self] = append(p.waiting[s.self], told)
		h.submit(ctx, id, tasks.AnswerIn{Answer: a})
	}); err != nil {
		return err
	}
	select {
	case t := <-told:
		return t.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Wait returns when a job is over, or ctx ends.
func (s *Service) Wait(ctx context.Context, id tasks.JobID) (JobView, error) {
	for {
		if d := s.desk(id); d != nil {
			select {
			case <-d.done:
			case <-ctx.Done():
				return JobView{}, ctx.Err()
			}
		}
		v, err := s.Job(ctx, id)
		if err != nil || v.Record.State.Over() {
			return v, err
		}
		if !sleep(ctx, 200*time.Millisecond) { // the node starts, or another one holds the job
			return v, ctx.Err()
		}
	}
}

// Work tells what this node does for others, and whether it does at all.
func (s *Service) Work() (tasks.WorkerStatus, bool) {
	if s.bench == nil {
		return tasks.WorkerStatus{}, false
	}
	s.bench.mu.Lock()
	defer s.bench.mu.Unlock()
	return s.bench.machine.Status(), true
}

// Tally is what became of a peer's receipts, over all jobs of this node.
func (s *Service) Tally(p tasks.PeerID) wire.Tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tallies[p]
}

func (s *Service) forgetHistory(id tasks.JobID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, d := range s.finished {
		if d.job.ID == id {
			s.finished = append(s.finished[:i:i], s.finished[i+1:]...)
			return
		}
	}
}
