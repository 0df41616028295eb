package tasks

import (
	"slices"
	"time"
)

// lease is a grant as the origin remembers it, while any of its tasks is
// undecided.
type lease struct {
	id       LeaseID
	peer     int32
	items    []item
	granted  time.Time
	expires  time.Time
	duration time.Duration
	check    time.Time     // of the one valid timer
	ahead    uint32        // assignments that its worker had before
	pace     time.Duration // predicted between two receipts, at the grant; 0: not known
	live     bool
	asked    bool // of before a restart: its worker has not said that it holds it
	open     int  // assignments not ended
	left     int  // items whose task is undecided
}

type item struct {
	index   uint32
	replica uint32
}

const (
	classRelease = 0 // was leased before
	classFresh   = 1
	classCopy    = 2 // of one that is slow
)

// mixing is how far replicas after the first are shuffled, in tasks, so that no
// two workers choose to meet on one.
const mixing = 64

// elsewhere is how long a program's failure keeps a task from the same worker,
// while there are others.
const elsewhere = 2 * time.Second

// maxFaultPause bounds how long a worker's own failure keeps a task from it: a
// second at first, twice as long each time that some worker so fails on the task.
// Such a task is never given up: what ails the workers may pass. It is told by Why.
const maxFaultPause = 5 * time.Minute

// unbelieved is how long a task stays away from a worker that was blamed for its
// answer.
const unbelieved = 30 * time.Second

// needs tells how many more workers a task could use.
func (w *work) needs() uint8 {
	if w.decided {
		return 0
	}
	have := uint8(0)
	for i := range w.attempts {
		switch w.attempts[i].state {
		case AttemptHeld, AttemptCommitted, AttemptRevealing, AttemptAnswered:
			have++
		}
	}
	return w.want - min(have, w.want)
}

// update puts a task in the queue, moves it or takes it out, after anything
// about it changed.
func (o *Origin) update(index uint32, class uint8) {
	w := o.work(index)
	need := w.needs()
	o.slots += int(need) - int(w.need)
	if need > 0 {
		o.dirty, o.hint = true, nil
	}
	w.need, w.class = need, class
	if need == 0 {
		o.queue.remove(index)
		return
	}
	key := uint64(index)
	if len(w.attempts) > 0 && o.job.Spec.Verify.Replicas > 1 {
		key += o.cfg.Rand.Uint64N(mixing)
	}
	o.queue.put(index, uint64(class)<<40|key, o.deny(index, w))
}

// deny lists the peers that must not be given a task: who has it or answered
// it; and for a while who failed it.
func (o *Origin) deny(index uint32, w *work) []int32 {
	var deny, soft, faulty []int32
	for i := range w.attempts {
		a := &w.attempts[i]
		switch a.state {
		case AttemptHeld, AttemptLate, AttemptCommitted, AttemptRevealing, AttemptAnswered:
			deny = append(deny, a.peer)
		case AttemptRejected: // it may lie, or have died before its bytes were had
			if left := unbelieved - o.now.Sub(a.end); left > 0 {
				deny = append(deny, a.peer)
				o.requeue(index, w, left)
			}
		case AttemptFailed:
			switch left := doubled(time.Second, uint(max(w.faults, 1)-1), maxFaultPause) - o.now.Sub(a.end); {
			case a.reason < WorkerBusy && o.now.Sub(a.end) < elsewhere:
				soft = append(soft, a.peer)
			case a.reason == WorkerFault && left > 0:
				if faulty = append(faulty, a.peer); left >= elsewhere {
					deny = append(deny, a.peer)
				}
				o.requeue(index, w, left)
			}
		}
	}
	if len(soft) > 0 && o.others(append(soft, deny...)) {
		deny = append(deny, soft...)
		o.requeue(index, w, elsewhere)
	}
	deny = append(deny, faulty...)
	slices.Sort(deny)
	return slices.Compact(deny)
}

// requeue has who must not be given a task listed again after d. One timer a
// task is enough: what is due later is found when the list is made then.
func (o *Origin) requeue(index uint32, w *work, d time.Duration) {
	at := o.now.Add(d)
	if !w.again.IsZero() && !at.Before(w.again) {
		return
	}
	w.again = at
	o.timers.push(timer{at: at, kind: timerRequeue, index: index, stage: o.stage})
}

// others reports whether a peer outside the list could take work soon.
func (o *Origin) others(list []int32) bool {
	for i, p := range o.peers {
		if p.id != "" && !p.gone && !o.tooFar(p) && !contains(list, int32(i)) &&
			(p.holds > 0 || o.now.Sub(p.heard) < o.cfg.BidLife) && o.now.Add(elsewhere).After(p.away()) {
			return true
		}
	}
	return false
}

// open begins a lease for a peer; take fills it, seal sends it.
func (o *Origin) open(p *peer) *lease {
	l := &lease{id: o.nextLease(), peer: o.index(p), granted: o.now, ahead: p.holds, pace: o.paceOf(p), live: true}
	if p.holds == 0 {
		p.busy = o.now
	}
	p.used = true
	p.leases = append(p.leases, l)
	o.leases[l.id] = l
	return l
}

// take puts one replica of a task into a lease.
func (o *Origin) take(p *peer, l *lease, index uint32) {
	w := o.work(index)
	l.items = append(l.items, item{index, w.replicas})
	l.open++
	l.left++
	p.holds++
	o.live++
	o.add(w, attempt{lease: l, peer: l.peer, replica: w.replicas, state: AttemptHeld, rtt: p.standing.RTT, start: o.now})
	w.replicas++
	o.update(index, w.class)
}

// seal sets a lease's time and grants it.
func (o *Origin) seal(p *peer, l *lease) {
	l.duration = o.cfg.MaxLease
	if l.pace > 0 {
		l.duration = min(max(2*(l.pace*time.Duration(p.holds)+p.standing.RTT), o.cfg.MinLease), o.cfg.MaxLease)
	}
	l.expires = o.now.Add(l.duration)
	o.watch(l)
	spec := &o.job.Spec
	grant := Lease{ID: l.id, Job: o.job.ID, Term: o.job.Term, Origin: o.cfg.Self, Worker: p.id,
		Program: spec.Program, Args: spec.Args, Env: spec.Env, Kind: spec.Kind, Needs: spec.Resources,
		Tasks: uint32(len(o.stages[o.stage].tasks)), Nondeterministic: spec.Nondeterministic, Commit: o.commits(),
		Duration: l.duration, Grace: o.cfg.Grace}
	if o.stage == StageReduce {
		grant.Program, grant.Args = spec.Reduce.Program, spec.Reduce.Args
	}
	for _, it := range l.items {
		grant.Assignments = append(grant.Assignments, Assignment{o.stages[o.stage].tasks[it.index], it.replica})
	}
	o.emit(Grant{grant})
}

// add appends to a task's history, forgetting the oldest end when it is long.
func (o *Origin) add(w *work, a attempt) {
	if len(w.attempts) >= maxAttempts {
		i := slices.IndexFunc(w.attempts, func(a attempt) bool {
			switch a.state {
			case AttemptLost, AttemptRefused, AttemptFailed, AttemptRejected, AttemptRevoked:
				return true
			}
			return false
		})
		if i >= 0 {
			o.unlink(w.attempts[i].lease) // its receipt would be of an unknown lease
			w.attempts = slices.Delete(w.attempts, i, i+1)
		}
	}
	w.attempts = append(w.attempts, a)
}

// unlink forgets a lease when nothing undecided names it.
func (o *Origin) unlink(l *lease) {
	if l.left--; l.left <= 0 && !l.live {
		delete(o.leases, l.id)
	}
}

// attempt finds what a lease's replica of a task came to.
func (w *work) attempt(l *lease, replica uint32) *attempt {
	for i := range w.attempts {
		if a := &w.attempts[i]; a.lease == l && a.replica == replica {
			return a
		}
	}
	return nil
}

func (a *attempt) held() bool { return a.state == AttemptHeld || a.state == AttemptLate }

// close moves an attempt out of its worker's hands.
func (o *Origin) close(a *attempt, state AttemptState, reason Reason) {
	if a.held() {
		o.live--
		p := o.peers[a.peer]
		p.holds--
		if a.lease.open--; a.lease.open == 0 {
			a.lease.live = false
			p.leases = slices.DeleteFunc(p.leases, func(l *lease) bool { return l == a.lease })
		}
	}
	a.state, a.reason, a.end = state, reason, o.now
}

// lose ends what is open of a lease and queues its tasks again.
func (o *Origin) lose(l *lease, state AttemptState, reason Reason) {
	for _, it := range l.items {
		w := o.work(it.index)
		if a := w.attempt(l, it.replica); a != nil && a.held() && !w.decided {
			o.close(a, state, reason)
			o.leaseAgain(it.index)
		}
	}
	o.search.tries = 0 // look for another soon
}

// paceOf predicts the time between two receipts of a peer; 0: nothing is known.
func (o *Origin) paceOf(p *peer) time.Duration {
	if own := p.pace(); own > 0 {
		return own
	}
	return o.pace.service / time.Duration(max(p.slots, 1))
}

// late is when an item of a lease is too slow: over twice its prediction, and
// past the 95th percentile of how far others were off; with nothing else left
// to do the percentile alone counts. A prediction from a few tasks is trusted
// less. Each slow attempt that its task has already doubles the patience with
// the next: whoever stalls ends no task, and no task is copied without end.
func (o *Origin) late(l *lease, position int, slow uint) time.Time {
	p := o.peers[l.peer]
	pace := l.pace
	if pace == 0 {
		if pace = o.paceOf(p); pace == 0 {
			pace = o.job.Spec.Resources.Timeout
			if pace == 0 {
				pace = DefaultTimeout
			}
		}
	}
	factor, slack := 4.0, time.Second
	if o.pace.n >= 8 {
		if factor, slack = max(o.pace.p95, 2), 250*time.Millisecond; o.queue.n == 0 {
			factor = max(o.pace.p95, 1)
		}
	}
	expect := pace*time.Duration(int(l.ahead)+position+1) + p.standing.RTT
	slack += 2 * p.standing.RTT
	return l.granted.Add(doubled(time.Duration(min(float64(expect)*factor, float64(maxPatience)))+slack, slow, maxPatience))
}

// maxPatience is the most that a slow attempt is waited for.
const maxPatience = 7 * 24 * time.Hour

// watch sets a lease's timer: its lapse, or its first item's being late.
func (o *Origin) watch(l *lease) {
	at := l.expires
	for k, it := range l.items {
		w := o.work(it.index)
		if a := w.attempt(l, it.replica); a != nil && a.state == AttemptHeld {
			slow := w.slow()
			at = earlier(at, o.late(l, k, slow))
			if slow == 0 {
				break // those behind it are late later
			}
		}
	}
	if l.check.IsZero() || at.Before(l.check) || !o.now.Before(l.check) {
		l.check = at
		o.timers.push(timer{at: at, kind: timerLease, lease: l})
	}
}

// slow is how many attempts are late.
func (w *work) slow() (n uint) {
	for i := range w.attempts {
		if w.attempts[i].state == AttemptLate {
			n++
		}
	}
	return n
}

// look is a lease's timer.
func (o *Origin) look(l *lease) {
	if !o.now.Before(l.expires) {
		o.lose(l, AttemptLost, OK)
		return
	}
	for k, it := range l.items {
		w := o.work(it.index)
		a := w.attempt(l, it.replica)
		if a == nil || a.state != AttemptHeld {
			continue
		}
		slow := w.slow()
		if o.now.Before(o.late(l, k, slow)) {
			if slow > 0 {
				continue
			}
			break
		}
		a.state = AttemptLate
		if w.needs() == 0 {
			continue // others cover it already
		}
		o.copies++
		o.update(it.index, classCopy) // behind everything else
	}
	o.watch(l)
}
