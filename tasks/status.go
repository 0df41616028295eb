package tasks

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Wait is one reason why a job, or some of its tasks, is not further.
type Wait struct {
	Tasks uint32    // how many wait so
	Text  string    // what they wait for
	Next  time.Time // when something is tried again; zero: when an event comes
}

// JobStatus is where a job stands, without its tasks.
type JobStatus struct {
	State    State
	Reason   Reason
	Detail   string
	Stage    Stage
	Tasks    uint32 // of both stages, the reduce counted from the start
	Decided  uint32
	Leased   uint32 // undecided, with enough workers
	Waiting  uint32 // undecided, with no or too few workers
	Releases uint32 // assignments taken from the dead and the failed
	Copies   uint32 // of what is slow, once nothing else waits
	Failures uint32 // of the program
	Workers  []WorkerShare
	Output   CID
	Size     int64
	Round    uint32        // offers made in this stage
	Radius   time.Duration // of the last
}

// WorkerShare is what one peer did for a job.
type WorkerShare struct {
	Worker   PeerID
	RTT      time.Duration
	Holds    uint32 // assignments now
	Accepted uint32
	Failed   uint32
	Rejected uint32
	Backoff  time.Time // not asked before; zero: free
}

// TaskState is where a task stands.
type TaskState uint8

// The states of a task.
const (
	TaskWaiting TaskState = 1 // needs a worker, or one more
	TaskLeased  TaskState = 2 // enough workers have it, or its output is being fetched
	TaskDecided TaskState = 3
)

func (s TaskState) String() string {
	return [...]string{"unknown", "waiting", "leased", "decided"}[min(int(s), 3)]
}

// TaskStatus is one task with its history.
type TaskStatus struct {
	Ref      Ref
	State    TaskState
	Attempts []AttemptStatus // the last 32
	Releases uint32
	Result   *Result
}

// AttemptStatus is one assignment of a task to one worker.
type AttemptStatus struct {
	Worker  PeerID
	Lease   LeaseID
	Replica uint32
	RTT     time.Duration // when it was granted
	Started time.Time     // granted
	Ended   time.Time     // zero: still held
	State   AttemptState
	Reason  Reason // when failed, refused or rejected
}

// AttemptState is what became of an assignment.
type AttemptState uint8

// What became of an assignment.
const (
	AttemptHeld     AttemptState = 1 // with its worker
	AttemptLate     AttemptState = 2 // with its worker, slow: another may have it too
	AttemptAnswered AttemptState = 3 // its output is being fetched, or held and not yet judged
	AttemptAccepted AttemptState = 4
	AttemptRejected AttemptState = 5
	AttemptFailed   AttemptState = 6 // program or worker failed
	AttemptLost     AttemptState = 7 // its worker went silent or away
	AttemptRefused  AttemptState = 8 // its worker did not take it
	AttemptRevoked  AttemptState = 9 // no longer needed

	AttemptCommitted AttemptState = 10 // answered, and not shown before the others have
	AttemptRevealing AttemptState = 11 // asked to show its answer
)

func (s AttemptState) String() string {
	names := [...]string{"unknown", "held", "late", "answered", "accepted", "rejected", "failed", "lost", "refused", "revoked", "committed", "revealing"}
	if int(s) >= len(names) {
		return names[0]
	}
	return names[s]
}

// Status tells where the job stands. It costs the number of workers.
func (o *Origin) Status() JobStatus {
	s := JobStatus{State: o.state, Reason: o.finish.Reason, Detail: o.finish.Detail, Stage: o.stage,
		Tasks:    uint32(len(o.stages[StageMap].tasks)),
		Decided:  o.stages[StageMap].decided + o.stages[StageReduce].decided,
		Releases: o.releases, Copies: o.copies, Failures: o.failures, Output: o.finish.Output, Size: o.finish.Size,
		Round: o.search.round, Radius: o.search.radius}
	if o.job.Spec.Reduce != nil {
		s.Tasks++
	}
	if !o.state.Over() {
		ph := &o.stages[o.stage]
		s.Leased = uint32(len(ph.tasks)) - ph.decided - uint32(o.queue.n)
		s.Waiting = s.Tasks - s.Decided - s.Leased
	}
	for _, p := range o.peers {
		if p.id == "" || !p.used {
			continue
		}
		w := WorkerShare{Worker: p.id, RTT: p.standing.RTT, Holds: p.holds, Accepted: p.accepted, Failed: p.failed, Rejected: p.rejected}
		if p.away().After(o.now) {
			w.Backoff = p.away()
		}
		s.Workers = append(s.Workers, w)
	}
	return s
}

// Tasks gives n tasks of a stage from the one at first on.
func (o *Origin) Tasks(stage Stage, first uint32, n int) []TaskStatus {
	if int(stage) >= len(o.stages) {
		return nil
	}
	ph := &o.stages[stage]
	var list []TaskStatus
	for i := int(first); i < len(ph.work) && len(list) < n; i++ {
		w := &ph.work[i]
		t := TaskStatus{Ref: Ref{stage, uint32(i)}, State: TaskLeased, Releases: w.releases}
		if w.decided {
			t.State, t.Result = TaskDecided, &ph.results[i]
		} else if w.need > 0 || o.state.Over() {
			t.State = TaskWaiting
		}
		for _, a := range w.attempts {
			s := AttemptStatus{Worker: o.peers[a.peer].id, Lease: a.lease.id, Replica: a.replica, RTT: a.rtt,
				Started: a.start, Ended: a.end, State: a.state, Reason: a.reason}
			if o.state.Over() && a.held() {
				s.State = AttemptRevoked
			}
			t.Attempts = append(t.Attempts, s)
		}
		list = append(list, t)
	}
	return list
}

// Why says what everything that is not decided waits for, most tasks first. It
// is empty only when the job is over. It costs the number of workers and leases.
func (o *Origin) Why(now time.Time) []Wait {
	switch {
	case o.state.Over():
		return nil
	case o.state == Assembling:
		w := Wait{Tasks: uint32(len(o.stages[o.stage].tasks)), Text: "the job's output is being put together"}
		if !o.assembling {
			w.Text, w.Next = "the job's output could not be put together: "+o.fault, o.Next()
		}
		return []Wait{w}
	}
	var list []Wait
	if o.queue.n > 0 {
		list = append(list, o.whyWaiting(now))
	}
	ph := &o.stages[o.stage]
	if leased := len(ph.tasks) - int(ph.decided) - o.queue.n; leased > 0 {
		list = append(list, o.whyLeased(now, leased)...)
	}
	if o.stage == StageMap && o.job.Spec.Reduce != nil {
		list = append(list, Wait{Tasks: 1, Text: fmt.Sprintf("the reduce waits for %d map tasks", len(ph.tasks)-int(ph.decided))})
	}
	if len(list) == 0 {
		list = append(list, Wait{Tasks: uint32(o.queue.n), Text: "the job is about to start", Next: now})
	}
	slices.SortStableFunc(list, func(a, b Wait) int { return int(b.Tasks) - int(a.Tasks) })
	return list
}

func (o *Origin) whyWaiting(now time.Time) Wait {
	w := Wait{Tasks: uint32(o.queue.n), Next: o.search.next(o)}
	var notes []string
	note := func(n int, format string, args ...any) {
		if n > 0 {
			notes = append(notes, fmt.Sprintf("%d %s", n, fmt.Sprintf(format, args...)))
		}
	}
	refusals, reasons := make(map[Reason]int), []Reason(nil)
	var backing, failing, doubtful, far, gone, busy, free int
	for _, p := range o.peers {
		switch {
		case p.id == "":
		case p.gone:
			gone++
		case o.tooFar(p):
			far++
		case now.Before(p.away()) && p.refused != OK:
			if refusals[p.refused]++; refusals[p.refused] == 1 {
				reasons = append(reasons, p.refused)
			}
			backing++
			w.Next = earlier(w.Next, p.away())
		case now.Before(p.away()):
			if backing++; p.doubtful() {
				doubtful++
			} else {
				failing++
			}
			w.Next = earlier(w.Next, p.away())
		case p.holds > 0:
			busy++
		case p.refused != OK:
			if refusals[p.refused]++; refusals[p.refused] == 1 {
				reasons = append(reasons, p.refused)
			}
		case p.want > 0 && now.Sub(p.wantAt) < o.cfg.BidLife:
			free++
		}
	}
	note(busy, "busy with this job")
	note(free, "idle, but they have these tasks already or must not meet on them")
	note(failing, "kept away for a while after failing")
	note(doubtful, "kept away for answers that others contradict or whose bytes never came")
	note(far, "farther than %s", FormatDuration(o.job.Spec.Locality.MaxRTT))
	note(gone, "gone")
	slices.Sort(reasons)
	for _, r := range reasons {
		if r == WorkerFault {
			note(refusals[r], "failed or could not be reached")
		} else {
			note(refusals[r], "refused: %v", r)
		}
	}
	peers := "no peer has bid yet"
	if len(notes) > 0 {
		peers = "of the peers known, " + strings.Join(notes, ", ")
	}
	switch replicas := int(o.job.Spec.Verify.Replicas); {
	case !o.began:
		w.Text = "the job is about to start"
	case o.search.collecting:
		w.Text = fmt.Sprintf("collecting bids within %s", FormatDuration(o.search.radius.Round(time.Millisecond)))
	case replicas > 1 && busy+free+backing < replicas && o.live+free > 0:
		w.Text = fmt.Sprintf("each task needs answers from %d different peers, and %d can work for the job now; %s", replicas, busy+free+backing, peers)
	default:
		w.Text = fmt.Sprintf("waiting for a worker: %s", peers)
	}
	if tasks, times := o.faulty(); tasks > 0 {
		w.Text += fmt.Sprintf("; %d of these tasks failed by their workers' own fault, up to %d times", tasks, times)
	}
	if refusals[WorkerFault] > 0 && o.lastFault != "" {
		w.Text += "; the last one said: " + o.lastFault
	}
	return w
}

// faulty counts the waiting tasks that workers failed by their own fault. It
// looks at the longest-waiting ones only.
func (o *Origin) faulty() (tasks int, times uint8) {
	const look = 10_000
	ph := &o.stages[o.stage]
	for i := range ph.work[:min(len(ph.work), look)] {
		if w := &ph.work[i]; w.need > 0 && w.faults > 0 {
			tasks++
			times = max(times, w.faults)
		}
	}
	return tasks, times
}

func (o *Origin) whyLeased(now time.Time, leased int) []Wait {
	workers, next := 0, time.Time{}
	var unheard, silent quiet
	for _, p := range o.peers {
		if p.holds > 0 {
			workers++
		}
		for _, l := range p.leases {
			switch last := later(p.heard, l.granted); {
			case l.asked:
				unheard.add(p, l, last)
			case now.Sub(last) > l.duration/2: // it reports three times in that
				silent.add(p, l, last)
			default:
				next = earlier(next, l.check)
			}
		}
	}
	waiting, asked := o.promisedTasks()
	stuck := uint32(len(o.idle))
	fetching := min(uint32(len(o.holding))-stuck, uint32(leased))
	var list []Wait
	if stuck > 0 {
		list = append(list, Wait{Tasks: stuck, Text: "outputs could not be stored on this node: " + o.fault, Next: o.Next()})
	}
	if fetching > 0 {
		list = append(list, Wait{Tasks: fetching, Text: "outputs are being fetched"})
	}
	if waiting > 0 {
		list = append(list, Wait{Tasks: waiting, Text: "answers are committed to, and shown when as many workers as the quorum needs have committed", Next: next})
	}
	if asked > 0 {
		list = append(list, Wait{Tasks: asked, Text: "answers that were committed to are asked for", Next: o.Next()})
	}
	run := uint32(leased) - min(stuck+fetching+waiting+asked, uint32(leased))
	for _, q := range []struct {
		quiet
		text string
	}{{unheard, "not heard since this node started again"}, {silent, "not heard for " + FormatDuration(now.Sub(silent.since).Round(time.Second))}} {
		if n := min(q.tasks, run); n > 0 {
			workers -= len(q.peers)
			run -= n
			list = append(list, Wait{Tasks: n, Text: fmt.Sprintf("with %s %s: to be leased to others if it stays so", counted(len(q.peers), "worker"), q.text), Next: q.ends})
		}
	}
	if run > 0 {
		list = append(list, Wait{Tasks: run, Text: "running on " + counted(max(workers, 1), "worker"), Next: next})
	}
	return list
}

// quiet are workers that hold tasks and are not heard.
type quiet struct {
	tasks uint32
	peers map[*peer]bool
	since time.Time // the last word of the one that is silent for the longest
	ends  time.Time // the first of their leases
}

func (q *quiet) add(p *peer, l *lease, last time.Time) {
	if q.peers == nil {
		q.peers = map[*peer]bool{}
	}
	q.peers[p] = true
	q.tasks += uint32(l.open)
	q.since, q.ends = earlier(q.since, last), earlier(q.ends, l.expires)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
