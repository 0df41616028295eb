package tasks

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// onReceipt takes a worker's word of one assignment. A receipt of any lease
// that was granted is good while its task is undecided. opens is what it hashes
// to, when it shows a committed answer.
func (o *Origin) onReceipt(r Receipt, opens *Hash) {
	if r.Job != o.job.ID {
		return
	}
	v := Verdict{Job: r.Job, Ref: r.Ref, Replica: r.Replica, Lease: r.Lease, Worker: r.Worker, Status: Rejected}
	w, a := o.assignment(v)
	if a == nil {
		if w != nil {
			o.answerLate(v, r, w)
		}
		return
	}
	p := o.peers[a.peer]
	p.gone, p.heard = false, o.now
	switch a.state {
	case AttemptAnswered:
		v.Status = Pending
		o.emit(Answer{[]Verdict{v}})
		return
	case AttemptRejected, AttemptFailed:
		o.reject(v, a.reason)
		return
	}
	if why := o.shown(r, a, opens); why != OK {
		o.unmask(r.Ref.Index, a, why, r.Detail)
		return
	} else if o.unasked(r.Ref.Index, a) || w.spokenBy(a) { // not asked for yet; or under another lease: one peer answers once
		v.Status = Pending
		o.emit(Answer{[]Verdict{v}})
		return
	}
	if r.Reason >= LateReceipt || (r.Reason == OK && r.Output == "") {
		o.unmask(r.Ref.Index, a, BadReceipt, r.Detail)
		return
	}
	if r.Reason != OK {
		o.onFailure(r, p, w, a)
		return
	}
	if int64(len(r.Inline)) > o.limit() {
		o.unmask(r.Ref.Index, a, OutputTooLarge, fmt.Sprintf("%d bytes, at most %d are allowed", len(r.Inline), o.limit()))
		return
	}
	if a.promise == nil {
		o.measure(p, a.lease, r.Ref.Index, a)
	}
	o.settle(r.Ref.Index, a, AttemptAnswered, OK)
	r.Output = o.share(r.Output)
	a.output = r.Output
	p.refused = OK
	o.enough(w, a, r.Ref)
	o.update(r.Ref.Index, w.class)
	if have := w.answerOf(r.Output); have != nil { // another's equal bytes are here
		o.keep(r.Ref.Index, r.Output, have.size, have.folder)
		return
	}
	if h := (hold{r.Ref.Index, r.Output}); o.holding[h] == nil {
		o.hold(h, &held{worker: r.Worker, inline: r.Inline})
	}
	if r.Inline == nil { // the fetch takes time: say that the receipt is here
		v.Status = Pending
		o.emit(Answer{[]Verdict{v}})
	}
}

// assignment finds what a worker speaks of. Without an attempt it has been answered
// why, unless there is a task: that one takes no more answers.
func (o *Origin) assignment(v Verdict) (*work, *attempt) {
	if int(v.Ref.Stage) >= len(o.stages) || int(v.Ref.Index) >= len(o.stages[v.Ref.Stage].work) {
		o.accuse(v, WrongTask)
		return nil, nil
	}
	w := &o.stages[v.Ref.Stage].work[v.Ref.Index]
	if w.decided || o.state.Over() || v.Ref.Stage != o.stage {
		return w, nil
	}
	l := o.leases[v.Lease]
	switch {
	case l == nil:
		o.reject(v, UnknownLease)
		return nil, nil
	case o.peers[l.peer].id != v.Worker:
		o.accuse(v, NotItsLease)
		return nil, nil
	case !slices.Contains(l.items, item{v.Ref.Index, v.Replica}):
		o.accuse(v, WrongTask)
		return nil, nil
	}
	a := w.attempt(l, v.Replica)
	if a == nil { // its history was forgotten
		o.reject(v, UnknownLease)
		return nil, nil
	}
	return w, a
}

// accuse rejects what no worker that keeps to the rules says. It counts once
// while the worker is kept away for it.
func (o *Origin) accuse(v Verdict, why Reason) {
	o.reject(v, why)
	p := o.meet(v.Worker)
	if p == nil || o.now.Before(p.backoff) {
		return
	}
	p.rejected++
	o.punish(p)
	o.emit(Blame{Worker: v.Worker, Reason: why})
}

// enough takes a task from its worker that has answered it under another lease.
func (o *Origin) enough(w *work, a *attempt, ref Ref) {
	for i := range w.attempts {
		if b := &w.attempts[i]; b != a && b.peer == a.peer && b.held() {
			o.revoke(b.lease, ref)
			o.close(b, AttemptRevoked, OK)
		}
	}
}

func (o *Origin) reject(v Verdict, why Reason) {
	v.Status, v.Reason = Rejected, why
	o.emit(Answer{[]Verdict{v}})
}

// answerLate repeats the verdict of a decided task, or refuses as late.
func (o *Origin) answerLate(v Verdict, r Receipt, w *work) {
	v.Reason = LateReceipt
	if w.decided && r.Reason == OK {
		result := &o.stages[v.Ref.Stage].results[v.Ref.Index]
		for _, id := range result.Workers {
			if id == r.Worker && r.Output == result.Output {
				v.Status, v.Reason, v.Related = Accepted, OK, result.Related
			}
		}
		if v.Status != Accepted && r.Output != result.Output && o.job.Spec.Verify.Mode == VerifyQuorum {
			v.Reason = OutputMismatch
		}
	}
	o.emit(Answer{[]Verdict{v}})
}

// measure learns a worker's pace from a receipt.
func (o *Origin) measure(p *peer, l *lease, index uint32, a *attempt) {
	p.worked(o.now)
	o.search.moved = true
	if !a.held() {
		return
	}
	for k, it := range l.items {
		if it.index == index && it.replica == a.replica {
			took := o.now.Sub(a.start)
			if l.pace > 0 {
				expect := l.pace*time.Duration(int(l.ahead)+k+1) + p.standing.RTT
				o.pace.ratio(took.Seconds() / expect.Seconds())
			}
			break
		}
	}
	o.pace.served(p.pace() * time.Duration(p.slots))
}

// condemn blames a worker for an attempt.
func (o *Origin) condemn(index uint32, a *attempt, detail string) {
	p := o.peers[a.peer]
	p.rejected++
	o.punish(p)
	o.note(index, a, detail)
}

// note makes durable what an attempt failed for, then tells its worker.
func (o *Origin) note(index uint32, a *attempt, detail string) {
	v := o.verdict(index, a)
	v.Status, v.Reason = Rejected, a.reason
	o.emit(Record{Attempt: Attempt{Ref: v.Ref, Replica: v.Replica, Lease: v.Lease, Worker: v.Worker, Reason: v.Reason, Detail: clip(detail)}, Verdict: v})
}

// verdict begins one on an attempt at a task of this stage.
func (o *Origin) verdict(index uint32, a *attempt) Verdict {
	return Verdict{Job: o.job.ID, Ref: Ref{o.stage, index}, Replica: a.replica, Lease: a.lease.id, Worker: o.peers[a.peer].id}
}

// onFailure judges a receipt that says the run failed. The program's failures
// count against the job's retries; the worker's only keep it away for a while.
func (o *Origin) onFailure(r Receipt, p *peer, w *work, a *attempt) {
	o.settle(r.Ref.Index, a, AttemptFailed, r.Reason)
	w.releases++
	o.releases++
	p.failed++
	o.note(r.Ref.Index, a, r.Detail)
	if r.Reason >= WorkerBusy {
		p.refused = r.Reason
		if r.Reason == WorkerFault && w.faults < 255 {
			w.faults++
		}
		if o.lastFault = r.Reason.String(); r.Detail != "" {
			o.lastFault += ": " + strings.ToValidUTF8(r.Detail[:min(len(r.Detail), 300)], "")
		}
		switch {
		case r.Reason == WorkerFull: // no fault: all that it had in hand comes back at once
			o.rest(p, fullPause)
		case !o.now.Before(p.backoff): // else it is the same trouble, with the rest of what it had in hand
			o.punish(p)
		}
		o.update(r.Ref.Index, classRelease)
		return
	}
	if p.strikes = 0; w.fails < 255 {
		w.fails++
	}
	o.failures++
	if same := w.failedAlike(r.Reason); !o.job.Spec.Nondeterministic && same >= max(2, int(o.job.Spec.Verify.Replicas)) {
		o.fail(r, fmt.Sprintf("failed alike on %d workers", same))
		return
	}
	if uint32(w.fails) > o.job.Spec.Retry.Max {
		o.fail(r, fmt.Sprintf("failed %d times", w.fails))
		return
	}
	o.update(r.Ref.Index, classRelease)
}

// failedAlike counts the workers that a task failed on for one reason.
func (w *work) failedAlike(why Reason) int {
	var list []int32
	for i := range w.attempts {
		if a := &w.attempts[i]; a.state == AttemptFailed && a.reason == why && !contains(list, a.peer) {
			list = append(list, a.peer)
		}
	}
	return len(list)
}

func (o *Origin) fail(r Receipt, how string) {
	f := Finish{State: Failed, Reason: TooManyFailures}
	if r.Ref.Stage == StageReduce {
		f.Reason = ReduceFailed
	}
	f.Detail = fmt.Sprintf("%s task %d %s: %v", r.Ref.Stage, r.Ref.Index, how, r.Reason)
	if d := clip(r.Detail); d != "" {
		f.Detail += ": " + d
	}
	o.end(f)
}

func (w *work) answerOf(output CID) *answer {
	for i := range w.answers {
		if w.answers[i].output == output {
			return &w.answers[i]
		}
	}
	return nil
}

func (o *Origin) onHeld(ev HeldOutput) {
	h := hold{ev.Ref.Index, ev.Output}
	if ev.Ref.Stage != o.stage || o.state != Running {
		return
	}
	if o.holding[h] == nil {
		return
	}
	delete(o.holding, h)
	o.fault = ""
	if !o.work(ev.Ref.Index).decided {
		o.keep(ev.Ref.Index, ev.Output, ev.Size, ev.Folder)
	}
}

// keep makes answers of all receipts of a task whose bytes are now held.
func (o *Origin) keep(index uint32, output CID, size int64, folder bool) {
	w := o.work(index)
	output = o.share(output)
	from := len(w.answers)
	for i := range w.attempts {
		a := &w.attempts[i]
		if a.state != AttemptAnswered || a.output != output || w.hasAnswer(a.peer) {
			continue
		}
		w.answers = append(w.answers, answer{peer: a.peer, replica: a.replica, lease: a.lease.id,
			output: output, size: size, folder: folder})
		o.peers[a.peer].answered++
	}
	decided, over := o.judge(index)
	if decided {
		return
	}
	for _, a := range w.answers[from:] { // not decided: they wait, on disk
		id := o.peers[a.peer].id
		ref := Ref{o.stage, index}
		o.emit(Record{
			Attempt: Attempt{Ref: ref, Replica: a.replica, Lease: a.lease, Worker: id, Output: output, Size: size, Folder: folder},
			Verdict: Verdict{Job: o.job.ID, Ref: ref, Replica: a.replica, Lease: a.lease, Worker: id, Status: Pending}})
	}
	if over != nil {
		o.end(*over)
		return
	}
	o.update(index, w.class)
	o.ask(index)
}

func (w *work) hasAnswer(peer int32) bool {
	for i := range w.answers {
		if w.answers[i].peer == peer {
			return true
		}
	}
	return false
}

// judge decides a task if its answers suffice, or tells that they never will.
func (o *Origin) judge(index uint32) (decided bool, over *Finish) {
	w := o.work(index)
	if len(w.answers) == 0 {
		return false, nil
	}
	j := Judgement{Decided: true, Output: w.answers[0].output}
	if o.job.Spec.Verify.Mode == VerifyQuorum {
		list := make([]Answered, len(w.answers))
		for i, a := range w.answers {
			list[i] = Answered{o.peers[a.peer].id, a.output}
		}
		j = o.cfg.Judge(o.job.Spec.Verify, o.job.Spec.Retry, list)
	}
	switch {
	case j.Decided:
		o.decide(index, j.Output)
		return true, nil
	case j.NoQuorum:
		return false, &Finish{State: Failed, Reason: NoQuorum, Detail: fmt.Sprintf("%s task %d: %s", o.stage, index, j.Detail)}
	}
	w.want = uint8(min(len(w.answers)+int(j.More), 255))
	return false, nil
}

// decide accepts an output: result and verdicts in one transaction.
func (o *Origin) decide(index uint32, output CID) {
	ph, ref := &o.stages[o.stage], Ref{o.stage, index}
	w := &ph.work[index]
	d := Decide{Result: Result{Ref: ref, Output: output}}
	w.decided = true
	var agreed []int32
	for _, a := range w.answers {
		if a.output == output {
			agreed = append(agreed, a.peer)
			d.Result.Size, d.Result.Folder = a.size, a.folder
			d.Result.Workers = append(d.Result.Workers, o.peers[a.peer].id)
		}
	}
	d.Result.Related = o.commits() && o.unrelated(agreed) < o.job.Spec.Verify.Replicas
	for i := range w.attempts {
		a := &w.attempts[i]
		p := o.peers[a.peer]
		switch {
		case a.state == AttemptAnswered:
			v := o.verdict(index, a)
			v.Status = Accepted
			switch {
			case a.output == output:
				a.state, v.Related = AttemptAccepted, d.Result.Related
				p.accepted++
				p.strikes = 0
			case o.job.Spec.Verify.Mode == VerifyQuorum:
				v.Status, v.Reason = Rejected, OutputMismatch
				p.rejected++
				o.punish(p)
			default:
				v.Status, v.Reason = Rejected, LateReceipt
			}
			if v.Status == Rejected {
				a.state, a.reason = AttemptRejected, v.Reason
			}
			d.Verdicts = append(d.Verdicts, v)
			if h := (hold{index, a.output}); a.output != output {
				delete(o.holding, h)
			}
		case a.held():
			o.revoke(a.lease, ref)
			o.close(a, AttemptRevoked, OK)
		case a.promised():
			o.revoke(a.lease, ref)
			o.settle(index, a, AttemptRevoked, OK)
		}
		o.unlink(a.lease)
	}
	ph.results[index] = d.Result
	ph.decided++
	w.answers = nil
	o.update(index, w.class)
	o.emit(d)
	o.advance()
}

// revoke tells a worker at the Step's end that a task is no longer needed.
func (o *Origin) revoke(l *lease, ref Ref) {
	if o.revoked[l] == nil {
		o.order = append(o.order, l)
	}
	o.revoked[l] = append(o.revoked[l], ref)
}

func (o *Origin) tellRevoked() {
	for _, l := range o.order {
		o.emit(Revoke{Worker: o.peers[l.peer].id, Lease: l.id, Refs: o.revoked[l]})
	}
	clear(o.revoked)
	o.order = o.order[:0]
}

// held is an output on its way here.
type held struct {
	worker PeerID
	inline []byte
	idle   bool // this node failed to store it: tried again by a timer
}

// holdPause is between tries to store an output here.
const holdPause = 5 * time.Second

func (o *Origin) hold(h hold, x *held) {
	o.holding[h] = x
	o.emit(Hold{Ref: Ref{o.stage, h.index}, Worker: x.worker, Output: h.output, Inline: x.inline, Limit: o.limit()})
}

// limit is how many bytes an output may have.
func (o *Origin) limit() int64 { return cmp.Or(o.job.Spec.Resources.Output, DefaultOutput) }

// onHoldFailed blames the worker whose bytes are missing and tries the next that
// gave the same answer. This node's own trouble is no worker's fault.
func (o *Origin) onHoldFailed(ev HoldFailed) {
	h := hold{ev.Ref.Index, ev.Output}
	x := o.holding[h]
	if x == nil || x.worker != ev.Worker || ev.Ref.Stage != o.stage || o.state != Running {
		return
	}
	if !ev.Reason.Blames() {
		o.fault = clip(cmp.Or(ev.Detail, ev.Reason.String()))
		if x.idle = true; len(o.idle) == 0 {
			o.timers.push(timer{at: o.now.Add(holdPause), kind: timerHold})
		}
		o.idle = append(o.idle, h)
		return
	}
	delete(o.holding, h)
	w := o.work(ev.Ref.Index)
	var next *held
	for i := range w.attempts {
		a := &w.attempts[i]
		p := o.peers[a.peer]
		switch {
		case a.state != AttemptAnswered || a.output != ev.Output || w.hasAnswer(a.peer):
		case p.id == ev.Worker:
			a.state, a.reason, a.end = AttemptRejected, ev.Reason, o.now
			o.condemn(ev.Ref.Index, a, ev.Detail)
		case next == nil:
			next = &held{worker: p.id}
		}
	}
	if next != nil {
		o.hold(h, next)
	}
	o.leaseAgain(ev.Ref.Index)
}

// holdAgain retries what could not be stored.
func (o *Origin) holdAgain() {
	list := o.idle
	o.idle = nil
	for _, h := range list {
		if x := o.holding[h]; x != nil && x.idle {
			x.idle = false
			o.hold(h, x)
		}
	}
}
