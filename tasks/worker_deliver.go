package tasks

import (
	"math"
	"slices"
	"time"
)

const (
	maxDelivery      = 256       // receipts in one message
	maxDeliveryBytes = 768 << 10 // of outputs and logs in one message
	resend           = 10 * time.Second
	resendPending    = time.Minute
)

// deliverBy makes the next delivery to a job no later than at, and no sooner
// than Flush after the last.
func (w *Worker) deliverBy(s *served, at time.Time) {
	if s.tries > 0 && !s.due.IsZero() {
		return // backing off
	}
	if !s.last.IsZero() {
		if soonest := s.last.Add(w.cfg.Flush); at.Before(soonest) {
			at = soonest
		}
	}
	if s.due.IsZero() || at.Before(s.due) {
		s.due = at
	}
}

// deliver sends what is due and gives up origins that are lost.
func (w *Worker) deliver() {
	for _, s := range slices.Clone(w.jobs) {
		if len(s.leases) == 0 {
			continue // only what was stopped still runs
		}
		if !w.now.Before(s.lost()) {
			w.abandon(s)
			continue
		}
		if s.out || s.due.IsZero() || s.due.After(w.now) {
			continue
		}
		s.out, s.last, s.due = true, w.now, time.Time{}
		report := Report{Job: s.job, Worker: w.cfg.Self, Slots: w.limits.Slots, Queue: w.wait(s.origin), Want: w.want(s)}
		for _, l := range s.leases {
			report.Slots = max(w.limits.Slots/cores(l.lease.Needs), 1)
			if l.live() && len(report.Held) < MaxHeld {
				report.Held = append(report.Held, l.lease.ID)
			}
		}
		for _, r := range w.running {
			if r.served == s && !r.stopped {
				report.Running = append(report.Running, r.task.Ref)
			}
		}
		d := Deliver{To: s.origin, Report: report}
		w.load(s, &d)
		w.emit(d)
	}
}

// live reports whether a lease has anything that its origin waits for. One
// whose receipts are all there needs no heartbeat, however long the verdicts
// take: a quorum may lack its second worker for hours.
func (l *granted) live() bool {
	return slices.ContainsFunc(l.runs, func(r *run) bool { return r.state != runOwed || !r.pending })
}

// load picks what the origin has not judged, by age.
func (w *Worker) load(s *served, d *Deliver) {
	n, size := 0, 0
	s.sent = s.sent[:0]
	for _, r := range s.owed {
		wait := resend
		if r.pending {
			wait = resendPending
		}
		if !r.sent.IsZero() && w.now.Sub(r.sent) < wait {
			continue
		}
		bytes := len(r.receipt.Inline) + len(r.receipt.Log)
		if n > 0 && (n == maxDelivery || size+bytes > maxDeliveryBytes) {
			w.deliverBy(s, w.now) // the rest right after
			break
		}
		n, size = n+1, size+bytes
		switch {
		case !r.commit:
			d.Receipts = append(d.Receipts, r.receipt)
		case r.asked:
			d.Reveals = append(d.Reveals, r.receipt)
		default:
			d.Commits = append(d.Commits, r.receipt)
		}
		s.sent = append(s.sent, r)
	}
}

// want is how many more tasks of a job this node would take now.
func (w *Worker) want(s *served) uint32 {
	if w.limits.Paused || w.limits.Full || len(s.leases) == 0 || w.laden(s.book) {
		return 0
	}
	l := &s.leases[len(s.leases)-1].lease
	slots := max(w.limits.Slots/cores(l.Needs), 1)
	target := 2 * slots
	if sp := w.speeds[l.Program]; sp != nil {
		target = max(target, uint32(min(w.cfg.Ahead/sp.mean, time.Duration(w.cfg.MaxQueue)))*slots)
	}
	target = min(target, w.cfg.MaxQueue)
	have := w.queued + uint32(len(w.running))
	if w.wait(s.origin) < w.waitBeside(s.origin, math.MaxInt64) { // another brought more than anybody asked for
		have = s.book.queued + uint32(len(w.running))
	}
	if have >= target || w.fairWait(s.origin) > w.cfg.QueueTime {
		return 0
	}
	return target - have
}

func (w *Worker) onDelivered(ev Delivered) {
	s := w.find(ev.Origin, ev.Job)
	if s == nil || !s.out {
		return
	}
	s.out, s.tries, s.heard = false, 0, w.now
	for _, r := range s.sent {
		if !ev.Unkept || !r.commit || r.asked {
			r.sent = w.now
		}
	}
	s.sent = s.sent[:0]
	w.deliverBy(s, w.now.Add(s.beat))
}

func (w *Worker) onDeliverFailed(ev DeliverFailed) {
	s := w.find(ev.Origin, ev.Job)
	if s == nil || !s.out {
		return
	}
	s.out = false
	if ev.Reason >= TooManyFailures { // the origin answers that there is no such job there
		w.disowned(s)
		return
	}
	s.sent = s.sent[:0]
	wait := doubled(250*time.Millisecond, s.tries, 15*time.Second)
	wait += time.Duration(w.cfg.Rand.Int64N(int64(wait)/4 + 1))
	s.tries++
	s.due = w.now.Add(max(wait, min(ev.RetryAfter, 10*time.Minute)))
}

// onReveal: the answer is shown at once. One that is on its way as a commitment is
// sent again.
func (w *Worker) onReveal(ev RevealIn) {
	s, l := w.heard(ev.Origin, ev.Job, ev.Lease)
	if l == nil {
		return
	}
	r := l.run(ev.Ref, ev.Replica)
	if r == nil || r.state != runOwed || !r.commit {
		return
	}
	if r.asked && slices.Contains(s.sent, r) {
		return // on its way
	}
	r.asked, r.pending, r.sent = true, false, time.Time{}
	s.sent = slices.DeleteFunc(s.sent, func(x *run) bool { return x == r })
	s.tries, s.due = 0, time.Time{}
	w.deliverBy(s, w.now)
}

// onSeen: an origin that is back may have forgotten what it did not judge.
func (w *Worker) onSeen(origin PeerID) {
	for _, s := range w.jobs {
		if s.origin != origin {
			continue
		}
		for _, r := range s.owed {
			r.sent, r.pending = time.Time{}, false
		}
		s.tries, s.due = 0, time.Time{}
		w.deliverBy(s, w.now)
	}
}

func (w *Worker) onVerdicts(ev VerdictsIn) {
	for _, v := range ev.Verdicts {
		s := w.find(ev.Origin, v.Job)
		if s == nil {
			continue
		}
		s.heard = w.now
		l := s.lease(v.Lease)
		if l == nil {
			continue
		}
		r := l.run(v.Ref, v.Replica)
		if r == nil || r.state != runOwed {
			continue
		}
		switch v.Status {
		case Pending:
			r.pending = true
			continue
		case Accepted:
			w.done++
		default:
			if r.receipt.Reason == OK {
				w.rejected++
			}
		}
		w.drop(r)
		w.tidy(s)
	}
}

// disowned: the origin holds the job no more. Its verdicts may be on their way, or
// kept there, so each receipt is given up only when an origin that was shown it said
// so; the others are shown at once.
func (w *Worker) disowned(s *served) {
	for _, l := range slices.Clone(s.leases) {
		for _, r := range slices.Clone(l.runs) {
			if r.state != runOwed || slices.Contains(s.sent, r) {
				w.drop(r)
			} else {
				r.sent, r.pending = time.Time{}, false
			}
		}
	}
	s.sent, s.tries, s.due = s.sent[:0], 0, time.Time{}
	w.deliverBy(s, w.now)
	w.tidy(s)
}

// abandon drops a job whose origin is gone for good.
func (w *Worker) abandon(s *served) {
	for _, l := range slices.Clone(s.leases) {
		for _, r := range slices.Clone(l.runs) {
			w.drop(r)
		}
	}
	w.tidy(s)
}
