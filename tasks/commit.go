package tasks

import (
	"slices"
	"time"
)

// promise is an attempt's commitment.
type promise struct {
	hash  Hash
	asked time.Time // to show it, first; zero: not yet
	told  time.Time // when its worker's node last took the question
}

// revealPause is between two askings for one answer.
const revealPause = 5 * time.Second

// commits reports whether the job's answers are committed to before they are
// shown: with one answer there is nothing to copy from.
func (o *Origin) commits() bool { return o.job.Spec.Verify.Mode == VerifyQuorum }

// mustCommit reports whether a receipt says something of the task, and so could
// be copied. A worker's own failure is said at once.
func (r *Receipt) mustCommit() bool { return r.Reason < WorkerBusy }

// promised reports whether an attempt's answer is committed to and counted, and
// not shown.
func (a *attempt) promised() bool {
	return a.state == AttemptCommitted || a.state == AttemptRevealing
}

// spoken reports whether an attempt counts as its worker's one answer.
func (a *attempt) spoken() bool { return a.promised() || a.state == AttemptAnswered }

// spokenBy reports whether the worker of an attempt answered the task under
// another lease.
func (w *work) spokenBy(a *attempt) bool {
	for i := range w.attempts {
		if b := &w.attempts[i]; b != a && b.peer == a.peer && b.spoken() {
			return true
		}
	}
	return false
}

// onCommit takes a worker's commitment. It is durable before anybody is asked to
// show anything.
func (o *Origin) onCommit(c Commitment) {
	if c.Job != o.job.ID {
		return
	}
	v := Verdict{Job: c.Job, Ref: c.Ref, Replica: c.Replica, Lease: c.Lease, Worker: c.Worker}
	w, a := o.assignment(v)
	if a == nil {
		if w != nil {
			o.reject(v, LateReceipt)
		}
		return
	}
	p := o.peers[a.peer]
	p.gone, p.heard = false, o.now
	switch {
	case a.state == AttemptRejected || a.state == AttemptFailed:
		o.reject(v, a.reason)
		return
	case !o.commits():
		o.reject(v, BadReceipt)
		return
	case a.promise != nil && a.promise.hash != c.Hash:
		o.unmask(c.Ref.Index, a, NotAsCommitted, "it committed twice")
		return
	case a.spoken() || w.spokenBy(a): // told twice, or under another lease
		v.Status = Pending
		o.emit(Answer{[]Verdict{v}})
		return
	}
	if a.promise == nil {
		o.measure(p, a.lease, c.Ref.Index, a)
		a.promise = &promise{hash: c.Hash}
		o.emit(Commit{c})
	}
	p.refused = OK
	o.enough(w, a, c.Ref)
	if o.count(c.Ref.Index, a); a.state == AttemptCommitted {
		v.Status = Pending
		o.emit(Answer{[]Verdict{v}})
	}
}

// count counts a committed answer among those that the task needs.
func (o *Origin) count(index uint32, a *attempt) {
	o.owe(index, a)
	o.update(index, o.work(index).class)
	o.ask(index)
}

// owe notes that a committed answer is to be shown.
func (o *Origin) owe(index uint32, a *attempt) {
	o.close(a, AttemptCommitted, OK)
	p := o.peers[a.peer]
	if p.promises == nil {
		p.promises = make(map[uint32]bool)
	}
	p.promises[index] = true
}

// unasked reports whether a committed answer is shown that was not asked for, as
// by an origin before its restart. It is not looked at, and asked for in time.
func (o *Origin) unasked(index uint32, a *attempt) bool {
	if a.promise == nil || !a.promise.asked.IsZero() {
		return false
	}
	if !a.promised() && !o.work(index).spokenBy(a) {
		o.count(index, a)
	}
	return true
}

// ask has the answers to a task shown, once as many workers have committed as
// the judge wants to hear. Whoever commits later was told nothing either.
func (o *Origin) ask(index uint32) {
	w := o.work(index)
	n := 0
	for i := range w.attempts {
		if w.attempts[i].spoken() {
			n++
		}
	}
	if w.decided || n < int(w.want) || !o.commits() {
		return
	}
	for i := range w.attempts {
		a := &w.attempts[i]
		if a.state != AttemptCommitted {
			continue
		}
		a.state, a.promise.asked, a.promise.told = AttemptRevealing, o.now, time.Time{}
		o.reveal(index, a)
		o.await(index, w)
	}
}

func (o *Origin) reveal(index uint32, a *attempt) {
	o.emit(Reveal{Worker: o.peers[a.peer].id, Lease: a.lease.id, Ref: Ref{o.stage, index}, Replica: a.replica})
}

// await has a timer look after a task.
func (o *Origin) await(index uint32, w *work) {
	if !w.asking {
		w.asking = true
		o.timers.push(timer{at: o.now.Add(min(revealPause, o.cfg.Reveal)), kind: timerReveal, index: index, stage: o.stage})
	}
}

func (o *Origin) onTold(ev RevealTold) {
	l := o.leases[ev.Lease]
	if l == nil || ev.Ref.Stage != o.stage || int(ev.Ref.Index) >= len(o.stages[o.stage].work) || o.peers[l.peer].id != ev.Worker {
		return
	}
	if a := o.work(ev.Ref.Index).attempt(l, ev.Replica); a != nil && a.promise != nil {
		a.promise.told = o.now
	}
}

// askAgain repeats the question to those who have not shown their answer. One
// whose node did not take it twice has died, as far as is known; one whose node
// takes it and that does not answer within cfg.Reveal would not, and is blamed.
func (o *Origin) askAgain(index uint32) {
	w := o.work(index)
	w.asking = false
	for i := range w.attempts {
		a := &w.attempts[i]
		if a.state != AttemptRevealing || w.decided {
			continue
		}
		alive := a.promise.asked
		if a.promise.told.After(alive) {
			alive = a.promise.told
		}
		switch {
		case o.now.Sub(alive) >= 2*revealPause:
			o.withdraw(index, a)
		case o.now.Sub(a.promise.asked) >= o.cfg.Reveal:
			o.unmask(index, a, NotRevealed, "")
		default:
			o.reveal(index, a)
			o.await(index, w)
		}
	}
}

// shown says what is wrong with how a receipt was shown; OK: nothing.
func (o *Origin) shown(r Receipt, a *attempt, opens *Hash) Reason {
	switch {
	case a.promise != nil && (opens == nil || *opens != a.promise.hash):
		return NotAsCommitted
	case a.promise == nil && o.commits() && (opens != nil || r.mustCommit()), a.promise == nil && opens != nil:
		return NotCommitted
	}
	return OK
}

// Heard reports whether an assignment's answer is here, and so what else its
// worker says of it changes nothing.
func (o *Origin) Heard(ref Ref, lease LeaseID, replica uint32) bool {
	l := o.leases[lease]
	if l == nil || ref.Stage != o.stage || int(ref.Index) >= len(o.stages[o.stage].work) {
		return false
	}
	a := o.work(ref.Index).attempt(l, replica)
	return a != nil && a.state == AttemptAnswered
}

// unmask ends an attempt whose worker broke its word, and has another do it.
func (o *Origin) unmask(index uint32, a *attempt, why Reason, detail string) {
	o.settle(index, a, AttemptRejected, why)
	o.condemn(index, a, detail)
	o.leaseAgain(index)
}

// withdraw counts a committed answer no more: its worker is gone. When it is
// back it commits again, to the same, or shows what it was asked for.
func (o *Origin) withdraw(index uint32, a *attempt) {
	o.settle(index, a, AttemptLost, OK)
	o.leaseAgain(index)
}

// leaseAgain has a task leased again.
func (o *Origin) leaseAgain(index uint32) {
	o.work(index).releases++
	o.releases++
	o.update(index, classRelease)
}

// settle closes an attempt and forgets that its worker owes the answer, unless
// it committed to one under another lease as well.
func (o *Origin) settle(index uint32, a *attempt, state AttemptState, why Reason) {
	o.close(a, state, why)
	if !slices.ContainsFunc(o.work(index).attempts, func(b attempt) bool { return b.peer == a.peer && b.promised() }) {
		delete(o.peers[a.peer].promises, index)
	}
}

// promisedTasks counts the tasks with answers committed to: those that wait for
// more commitments, and those whose answers were asked for.
func (o *Origin) promisedTasks() (waiting, asked uint32) {
	seen := make(map[uint32]bool)
	for _, p := range o.peers {
		for index := range p.promises {
			if seen[index] {
				continue
			}
			seen[index] = true
			switch w := o.work(index); {
			case w.asking:
				asked++
			case w.need == 0 && !w.decided:
				waiting++
			}
		}
	}
	return waiting, asked
}
