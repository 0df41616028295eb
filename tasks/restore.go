package tasks

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RestoreOrigin takes up a job after a restart, from what was durable. Nothing is
// known of the time in between, so the first Step asks the workers whether they
// still hold their leases. One that does not is leased again at once; one whose
// worker is not heard for Rejoin, after that. Those of this node's own worker are
// leased again at once; what it had done it delivers.
func RestoreOrigin(cfg OriginConfig, job Job, r Records, now time.Time) (*Origin, error) {
	o, err := NewOrigin(cfg, job, r.Tasks)
	if err != nil {
		return nil, err
	}
	o.now = now
	for _, stage := range []Stage{StageMap, StageReduce} {
		if stage == StageReduce {
			ph := &o.stages[StageMap]
			if job.Spec.Reduce == nil || int(ph.decided) < len(ph.tasks) {
				break
			}
			o.enter(StageReduce, []Task{o.reduceTask()})
		}
		for _, res := range r.Results {
			if res.Ref.Stage != stage {
				continue
			}
			if int(res.Ref.Index) >= len(o.stages[stage].tasks) {
				return nil, fmt.Errorf("restore job %s: a result of %s task %d, which it does not have", job.ID, stage, res.Ref.Index)
			}
			if w := o.work(res.Ref.Index); !w.decided {
				w.decided = true
				o.stages[stage].results[res.Ref.Index] = res
				o.stages[stage].decided++
				o.update(res.Ref.Index, w.class)
				o.restoreShares(res)
			}
		}
	}
	if r.Finish != nil {
		o.state, o.finish = r.Finish.State, *r.Finish
		return o, nil
	}
	for _, g := range r.Grants {
		o.restoreGrant(g)
	}
	for _, c := range r.Commitments {
		o.restoreCommitment(c)
	}
	for _, a := range r.Attempts {
		o.restoreAttempt(a)
	}
	if i, ok := o.byID[cfg.Self]; ok { // this node's own worker ended with it
		for _, l := range slices.Clone(o.peers[i].leases) {
			o.lose(l, AttemptLost, OK)
		}
	}
	for index := range o.stages[o.stage].work {
		w := o.work(uint32(index))
		if len(w.answers) > 0 {
			o.rejudge = append(o.rejudge, uint32(index))
		}
		if len(w.attempts) > 0 {
			o.update(uint32(index), classRelease)
		}
	}
	return o, nil
}

// restoreShares credits who agreed on a result: they are no strangers, and
// people ask who did the work.
func (o *Origin) restoreShares(r Result) {
	for _, id := range r.Workers {
		if p := o.meet(id); p != nil {
			p.used = true
			p.accepted++
		}
	}
}

func (o *Origin) restoreGrant(g GrantRecord) {
	o.made = max(o.made+1, o.sequence(g.Lease))
	p := o.meet(g.Worker)
	if p == nil || g.Stage != o.stage || len(g.Replicas) != len(g.Indexes) || o.leases[g.Lease] != nil {
		return
	}
	l := &lease{id: g.Lease, peer: o.index(p), granted: o.now, duration: o.cfg.Rejoin, expires: o.now.Add(o.cfg.Rejoin)}
	for i, index := range g.Indexes {
		if int(index) >= len(o.stages[o.stage].work) || o.work(index).decided {
			continue
		}
		w := o.work(index)
		for k := range w.attempts { // an earlier lease of the same worker was lost
			if a := &w.attempts[k]; a.peer == l.peer && a.held() {
				o.close(a, AttemptLost, OK)
			}
		}
		l.items = append(l.items, item{index, g.Replicas[i]})
		o.add(w, attempt{lease: l, peer: l.peer, replica: g.Replicas[i], state: AttemptHeld, start: o.now})
		w.replicas = max(w.replicas, g.Replicas[i]+1)
		l.open++
		l.left++
	}
	if l.open == 0 {
		return
	}
	p.used, p.heard = true, o.now
	if p.holds == 0 {
		p.busy = o.now
	}
	p.holds += uint32(l.open)
	o.live += l.open
	l.live, l.asked = true, true
	p.leases = append(p.leases, l)
	o.leases[l.id] = l
	o.watch(l)
}

// askWorkers asks who still holds what was restored.
func (o *Origin) askWorkers() {
	for _, p := range o.peers {
		var held []LeaseID
		for _, l := range p.leases {
			held = append(held, l.id)
		}
		if len(held) > 0 {
			o.emit(Renew{Worker: p.id, Leases: held})
		}
	}
}

// sequence is the number in a lease ID of this term.
func (o *Origin) sequence(id LeaseID) uint64 {
	text, ok := strings.CutPrefix(string(id), fmt.Sprintf("t%d-", o.job.Term))
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0 // not a lease that this machine named
	}
	return n
}

// restoreCommitment counts an answer that was committed to. Who is to show theirs
// is found again by the first Step.
func (o *Origin) restoreCommitment(c Commitment) {
	if c.Ref.Stage != o.stage || int(c.Ref.Index) >= len(o.stages[o.stage].work) || o.work(c.Ref.Index).decided {
		return
	}
	w, l := o.work(c.Ref.Index), o.leases[c.Lease]
	if l == nil || o.peers[l.peer].id != c.Worker {
		return
	}
	a := w.attempt(l, c.Replica)
	if a == nil || a.promise != nil {
		return
	}
	a.promise = &promise{hash: c.Hash}
	if w.spokenBy(a) {
		return
	}
	for k := range w.attempts { // it needs not run it again
		if b := &w.attempts[k]; b != a && b.peer == a.peer && b.held() {
			o.close(b, AttemptLost, OK)
		}
	}
	o.owe(c.Ref.Index, a)
}

func (o *Origin) restoreAttempt(r Attempt) {
	if r.Ref.Stage != o.stage || int(r.Ref.Index) >= len(o.stages[o.stage].work) || o.work(r.Ref.Index).decided {
		return
	}
	w, l := o.work(r.Ref.Index), o.leases[r.Lease]
	if l != nil && o.peers[l.peer].id != r.Worker {
		return
	}
	var a *attempt // nil: so many came after it that its history is forgotten
	if l != nil {
		a = w.attempt(l, r.Replica)
	}
	if r.Reason != OK {
		o.restoreFailure(r, w, a)
		return
	}
	if a == nil || !a.held() && a.promise == nil {
		return
	}
	for k := range w.attempts { // an older commitment of the same worker no longer counts
		if b := &w.attempts[k]; b != a && b.peer == a.peer && b.promised() {
			o.settle(r.Ref.Index, b, AttemptLost, OK)
		}
	}
	o.settle(r.Ref.Index, a, AttemptAnswered, OK)
	r.Output = o.share(r.Output)
	a.output = r.Output
	o.peers[l.peer].answered++
	w.answers = append(w.answers, answer{peer: l.peer, replica: r.Replica, lease: r.Lease,
		output: r.Output, size: r.Size, folder: r.Folder})
}

// restoreFailure counts an attempt that failed; also one that a later lease of
// the same worker has closed by now, or whose history is forgotten: retries are
// as many as the job said, however often its origin starts.
func (o *Origin) restoreFailure(r Attempt, w *work, a *attempt) {
	state := AttemptFailed
	if r.Reason.Blames() {
		state = AttemptRejected
	}
	if a != nil && (a.held() || a.promise != nil || a.state == AttemptLost) {
		o.settle(r.Ref.Index, a, state, r.Reason)
	}
	p := o.meet(r.Worker)
	switch {
	case p == nil:
	case state == AttemptRejected:
		p.rejected++
	default:
		p.failed++
	}
	if state == AttemptRejected {
		return
	}
	if r.Reason == WorkerFault && w.faults < 255 {
		w.faults++
	}
	if r.Reason < WorkerBusy {
		if o.failures++; w.fails < 255 {
			w.fails++
		}
	}
}
