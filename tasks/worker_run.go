package tasks

import (
	"slices"
	"strings"
	"time"
)

const (
	maxGrace  = 24 * time.Hour
	maxDetail = 512
)

func (w *Worker) onLease(l Lease, bytes int64) {
	refuse := func(why Reason, again time.Duration) {
		w.emit(Refuse{To: l.Origin, Job: l.Job, Lease: l.ID, Reason: why, RetryAfter: again})
	}
	s := w.find(l.Origin, l.Job)
	switch {
	case l.Worker != w.cfg.Self || len(l.Assignments) == 0 || l.Duration <= 0:
		refuse(WorkerPolicy, time.Minute)
		return
	case s != nil && s.lease(l.ID) != nil:
		return // told twice
	case !w.hasRoom(&l, bytes):
		refuse(WorkerBusy, max(w.wait(l.Origin)/2, time.Second))
		return
	}
	// Others' leases may have come since the bid. Then its origin does better
	// elsewhere; if it can't, it asks again, and hears of the longer wait.
	if said, ok := w.promised(l.Origin, l.Job); ok && s == nil {
		if wait := w.wait(l.Origin); wait > said+maxLater {
			refuse(WorkerBusy, wait/2)
			return
		}
	}
	if why, again := w.unfit(l.Origin, l.Needs); why == WorkerPaused || why == WorkerFull || why == WorkerLacks {
		refuse(why, again)
		return
	}
	if s == nil {
		s = &served{origin: l.Origin, book: w.bookOf(l.Origin), job: l.Job, kept: make(map[CID]int), beat: w.cfg.Heartbeat}
		w.jobs = append(w.jobs, s)
		s.book.jobs = append(s.book.jobs, s)
	}
	g := &granted{lease: l, bytes: bytes}
	w.weigh(s.book, bytes)
	g.lease.Assignments = nil
	for _, a := range l.Assignments {
		if g.run(a.Task.Ref, a.Replica) != nil {
			continue
		}
		r := &run{served: s, lease: g, task: a.Task, replica: a.Replica}
		g.runs = append(g.runs, r)
		s.queue = append(s.queue, r)
		w.queue(r)
	}
	s.leases = append(s.leases, g)
	s.heard = w.now
	s.beat = max(min(s.beat, l.Duration/3), 100*time.Millisecond)
	s.grace = max(s.grace, min(l.Duration+max(l.Grace, 0), maxGrace))
	w.deliverBy(s, w.now.Add(s.beat))
}

// start fills free slots, one origin after the other.
func (w *Worker) start() {
	for tried := 0; tried < len(w.books) && !w.limits.Paused && !w.limits.Full; {
		w.turn = (w.turn + 1) % len(w.books)
		b := w.books[w.turn]
		s := w.nextOf(b)
		if s == nil {
			tried++
			continue
		}
		tried = 0
		r := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		w.unqueue(r)
		w.slots += cores(r.lease.lease.Needs)
		w.memory += r.lease.lease.Needs.Memory
		r.state, r.started = runRunning, w.now
		w.running = append(w.running, r)
		l := &r.lease.lease
		w.emit(Start{Origin: s.origin, Lease: l.ID, Replica: r.replica, Execution: Execution{
			Job: l.Job, Ref: r.task.Ref, Tasks: l.Tasks, Kind: l.Kind, Program: l.Program, Args: l.Args, Env: l.Env,
			Stdin: r.task.Stdin, Inputs: r.task.Inputs, Needs: l.Needs, Nondeterministic: l.Nondeterministic}})
	}
}

// nextOf gives the job of an origin whose turn it is, and that has a task which
// may start; nil when there is none.
func (w *Worker) nextOf(b *account) *served {
	if b.queued == 0 || w.laden(b) {
		return nil
	}
	for range b.jobs {
		b.turn = (b.turn + 1) % len(b.jobs)
		if s := b.jobs[b.turn]; len(s.queue) > 0 && w.fits(s.queue[0].lease.lease.Needs) {
			return s
		}
	}
	return nil
}

func (w *Worker) fits(r Resources) bool {
	return w.slots+cores(r) <= w.limits.Slots && (w.limits.Memory == 0 || w.memory+r.Memory <= w.limits.Memory)
}

func (s *served) running(w *Worker) int {
	n := 0
	for _, r := range w.running {
		if r.served == s {
			n++
		}
	}
	return n
}

func (w *Worker) onRan(ev Ran) {
	i := slices.IndexFunc(w.running, func(r *run) bool {
		return r.lease.lease.ID == ev.Lease && r.served.job == ev.Job && r.served.origin == ev.Origin && r.task.Ref == ev.Ref && r.replica == ev.Replica
	})
	if i < 0 {
		return
	}
	r := w.running[i]
	w.running = slices.Delete(w.running, i, i+1)
	w.slots -= cores(r.lease.lease.Needs)
	w.memory -= r.lease.lease.Needs.Memory
	out := ev.Outcome
	if r.stopped {
		r.state = runOver
		if out.Reason == OK && out.Output != "" && r.served.kept[out.Output] == 0 {
			w.emit(ReleaseOutput{Origin: ev.Origin, Job: ev.Job, Output: out.Output})
		}
		w.tidy(r.served)
		return
	}
	if out.Reason == OK && out.Output == "" || out.Reason >= LateReceipt {
		out.Reason, out.Detail = WorkerFault, "the runner gave no output: "+out.Detail
	}
	if out.Reason == OK {
		w.learn(r.lease.lease.Program, w.now.Sub(r.started))
	} else {
		w.failed++
		out.Output, out.Inline = "", nil
	}
	w.owe(r, out, ev.Runner)
}

// owe makes the receipt of a run that ended.
func (w *Worker) owe(r *run, out Outcome, runner string) {
	s := r.served
	r.state = runOwed
	r.receipt = Receipt{Job: s.job, Ref: r.task.Ref, Replica: r.replica, Lease: r.lease.lease.ID, Worker: w.cfg.Self,
		Reason: out.Reason, Detail: cut(out.Detail, maxDetail), Output: out.Output, Inline: out.Inline,
		Log: out.Log, Runner: cut(runner, 64), Usage: out.Usage}
	r.commit = r.lease.lease.Commit && r.receipt.mustCommit()
	if extra := len(out.Log) - w.cfg.MaxLog; extra > 0 {
		r.receipt.Log = out.Log[extra:]
	}
	if out.Output != "" {
		s.kept[out.Output]++
	}
	s.owed = append(s.owed, r)
	w.owes(r)
	w.deliverBy(s, w.now)
}

func cut(t string, most int) string {
	if len(t) > most {
		t = t[:most]
	}
	return strings.ToValidUTF8(t, "?")
}

// drop forgets an assignment whatever its state; a running one is stopped, and
// forgotten when it ended.
func (w *Worker) drop(r *run) {
	s := r.served
	switch r.state {
	case runQueued:
		s.queue = slices.DeleteFunc(s.queue, func(x *run) bool { return x == r })
		w.unqueue(r)
	case runRunning:
		if !r.stopped {
			r.stopped = true
			w.emit(Stop{Origin: s.origin, Job: s.job, Lease: r.lease.lease.ID, Ref: r.task.Ref, Replica: r.replica})
		}
		r.lease.runs = slices.DeleteFunc(r.lease.runs, func(x *run) bool { return x == r })
		return
	case runOwed:
		s.owed = slices.DeleteFunc(s.owed, func(x *run) bool { return x == r })
		w.settles(r)
		if c := r.receipt.Output; c != "" {
			if s.kept[c]--; s.kept[c] == 0 {
				delete(s.kept, c)
				w.emit(ReleaseOutput{Origin: s.origin, Job: s.job, Output: c})
			}
		}
	}
	r.state = runOver
	r.lease.runs = slices.DeleteFunc(r.lease.runs, func(x *run) bool { return x == r })
}

// tidy forgets leases and jobs with nothing left.
func (w *Worker) tidy(s *served) {
	s.leases = slices.DeleteFunc(s.leases, func(l *granted) bool {
		if len(l.runs) > 0 {
			return false
		}
		w.weigh(s.book, -l.bytes)
		return true
	})
	if len(s.leases) > 0 || s.running(w) > 0 {
		return
	}
	i := slices.Index(w.jobs, s)
	if i < 0 {
		return
	}
	w.jobs = slices.Delete(w.jobs, i, i+1)
	w.closed(s)
	w.emit(ReleaseJob{Origin: s.origin, Job: s.job})
}

// onRenew hears of the origin. What it believes to be here and is not, it must
// know: this process may have started since.
func (w *Worker) onRenew(ev RenewIn) {
	s := w.find(ev.Origin, ev.Job)
	if s != nil {
		s.heard = w.now
	}
	for _, id := range ev.Leases {
		if s == nil || s.lease(id) == nil {
			w.emit(Refuse{To: ev.Origin, Job: ev.Job, Lease: id, Reason: UnknownLease})
		}
	}
}

// heard notes that an origin spoke of a lease and finds it, nil when there is none.
func (w *Worker) heard(origin PeerID, job JobID, lease LeaseID) (*served, *granted) {
	s := w.find(origin, job)
	if s == nil {
		return nil, nil
	}
	s.heard = w.now
	return s, s.lease(lease)
}

func (w *Worker) onRevoke(ev RevokeIn) {
	s, l := w.heard(ev.Origin, ev.Job, ev.Lease)
	if l == nil {
		return
	}
	for _, r := range slices.Clone(l.runs) {
		if ev.Refs == nil || slices.Contains(ev.Refs, r.task.Ref) {
			w.drop(r)
		}
	}
	w.tidy(s)
}

// onLimits: what is queued when the owner pauses goes back to its origins.
func (w *Worker) onLimits(ev SetLimits) {
	ev.Slots = max(ev.Slots, 1)
	w.limits = ev
	why := WorkerPaused
	if ev.Full {
		why = WorkerFull
	}
	if !ev.Paused && !ev.Full {
		w.reconsider()
		return
	}
	for _, s := range w.jobs {
		queue := s.queue
		s.queue = nil
		for _, r := range queue {
			w.unqueue(r)
			w.owe(r, Outcome{Reason: why}, "")
		}
	}
}
