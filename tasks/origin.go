package tasks

import (
	"cmp"
	"fmt"
	"strconv"
	"time"
)

// Origin decides one job: it offers, leases, re-leases and judges its tasks. It
// is not safe for concurrent use, and keeps no reference to a clock.
type Origin struct {
	cfg    OriginConfig
	job    Job
	state  State
	finish Finish // when over

	stage  Stage
	stages [2]phase
	queue  *queue // of the current stage
	slots  int    // replicas that the queued tasks need
	live   int    // assignments believed to be worked on

	peers  []*peer // an index is never given to another peer while anything names it
	byID   map[PeerID]int32
	spare  []int32 // indexes of forgotten peers
	wants  []int32 // peers with a want
	leases map[LeaseID]*lease
	made   uint64 // leases ever
	timers timers
	search search
	pace   pace

	releases, copies, failures uint32
	holding                    map[hold]*held
	idle                       []hold      // of holding, waiting to be tried again
	fault                      string      // this node's own trouble with outputs
	lastFault                  string      // what a worker said when it failed last, not the program
	outputs                    map[CID]CID // some that were given: tasks with the same output share its text
	assembling                 bool        // an Assemble is out
	assembleTries              uint

	now     time.Time
	began   bool
	dirty   bool      // the queue, the wants or who is free changed
	hint    *peer     // whose want alone changed
	tail    bool      // the queue was found empty
	tailed  time.Time // when leases were last looked through for that
	rejudge []uint32  // restored tasks with answers
	out     []Effect
	revoked map[*lease][]Ref
	order   []*lease // of revoked
}

// phase is one stage's tasks.
type phase struct {
	tasks   []Task
	work    []work
	results []Result
	decided uint32
}

// work is what the origin knows of one task.
type work struct {
	attempts []attempt
	answers  []answer
	want     uint8  // answers that the judge asked for
	replicas uint32 // ever assigned, so that each has its number
	fails    uint8  // of the program
	faults   uint8  // of workers
	asking   bool   // a timer looks after what is to be shown
	class    uint8  // of its place in the queue
	need     uint8  // replicas that it stands in the queue for
	decided  bool
	releases uint32
	again    time.Time // when its place in the queue is looked at; zero: no timer is set
}

type attempt struct {
	lease      *lease
	peer       int32
	replica    uint32
	state      AttemptState
	reason     Reason
	rtt        time.Duration
	start, end time.Time
	output     CID
	promise    *promise // what it committed to; nil: nothing
}

// answer is a held output.
type answer struct {
	peer    int32
	replica uint32
	folder  bool
	lease   LeaseID
	output  CID
	size    int64
}

type hold struct {
	index  uint32
	output CID
}

// maxAttempts bounds a task's history. The oldest that ended are forgotten; a
// receipt for one of those is of an unknown lease.
const maxAttempts = 32

// NewOrigin takes a job whose tasks are cut and durable. It fails on a config,
// spec or task list that no machine could run.
func NewOrigin(cfg OriginConfig, job Job, list []Task) (*Origin, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(job); err != nil {
		return nil, fmt.Errorf("origin of job %s: %w", job.ID, err)
	}
	most := MaxTasks
	if job.Spec.Reduce != nil {
		most = MaxReduceInputs
	}
	if len(list) == 0 || len(list) > most {
		return nil, fmt.Errorf("origin of job %s: %d tasks: must be 1 to %d", job.ID, len(list), most)
	}
	for i, t := range list {
		if t.Ref != (Ref{StageMap, uint32(i)}) {
			return nil, fmt.Errorf("origin of job %s: task %d is named %v: must be in order", job.ID, i, t.Ref)
		}
	}
	o := &Origin{cfg: cfg, job: job, state: Running, byID: make(map[PeerID]int32),
		leases: make(map[LeaseID]*lease), holding: make(map[hold]*held), revoked: make(map[*lease][]Ref)}
	o.enter(StageMap, list)
	return o, nil
}

// enter begins a stage with none of its tasks decided.
func (o *Origin) enter(s Stage, list []Task) {
	o.stage = s
	o.stages[s] = phase{tasks: list, work: make([]work, len(list)), results: make([]Result, len(list))}
	o.outputs = map[CID]CID{}
	o.queue, o.slots = newQueue(len(list)), 0
	o.pace = pace{}
	for _, p := range o.peers {
		p.resetRate()
		p.promises = nil
	}
	want := max(int(o.job.Spec.Verify.Replicas), 1)
	each := min(want, firstAttempts)
	first := make([]attempt, len(list)*each)
	for i := range list {
		w := o.work(uint32(i))
		w.want, w.attempts = uint8(want), first[i*each:i*each:(i+1)*each]
		o.update(uint32(i), classFresh)
	}
}

// firstAttempts is for how many attempts at a task there is memory from a stage's
// begin on, so that a job takes little more at its end.
const firstAttempts = 3

// maxOutputs bounds the outputs whose text is shared.
const maxOutputs = 1024

func (o *Origin) share(output CID) CID {
	if same, ok := o.outputs[output]; ok {
		return same
	}
	if len(o.outputs) >= maxOutputs {
		clear(o.outputs)
	}
	o.outputs[output] = output
	return output
}

func (o *Origin) work(index uint32) *work { return &o.stages[o.stage].work[index] }

// Step takes one event and returns what must be done, in order. Once the job is
// over only receipts and reports are answered.
func (o *Origin) Step(now time.Time, ev Event) []Effect {
	if now.Before(o.now) {
		now = o.now
	}
	o.now, o.out = now, nil
	if !o.began {
		o.begin()
	}
	switch ev := ev.(type) {
	case BidIn:
		o.onBid(ev)
	case RefusedBy:
		o.onRefused(ev)
	case LeaseFailed:
		o.onLeaseFailed(ev)
	case ReportIn:
		o.onReport(ev)
	case ReceiptIn:
		o.onReceipt(ev.Receipt, ev.Opens)
	case CommitIn:
		o.onCommit(ev.Commitment)
	case RevealTold:
		o.onTold(ev)
	case HeldOutput:
		o.onHeld(ev)
	case HoldFailed:
		o.onHoldFailed(ev)
	case PeerCame:
		o.onCame(ev.Worker)
	case PeerGone:
		o.onGone(ev.Worker)
	case InputsBack:
		o.onInputsBack()
	case CancelJob:
		o.end(Finish{State: Cancelled, Reason: cmp.Or(ev.Reason, CancelledByUser), Detail: clip(ev.Detail)})
	case Superseded:
		if ev.Term >= o.job.Term && ev.By != o.cfg.Self {
			o.end(Finish{State: Cancelled, Reason: StaleTerm, Detail: fmt.Sprintf("held by %s at term %d", ev.By, ev.Term)})
		}
	case Assembled:
		if o.state == Assembling && o.assembling {
			o.end(Finish{State: Done, Output: ev.Output, Size: ev.Size})
		}
	case AssembleFailed:
		if o.state == Assembling && o.assembling {
			o.assembling, o.fault = false, ev.Detail
			o.timers.push(timer{at: now.Add(doubled(2*time.Second, o.assembleTries, time.Minute)), kind: timerAssemble})
			o.assembleTries++
		}
	case Tick:
	}
	for range 4 { // what is due at once is done at once
		o.expire()
		o.seek()
		if next := o.Next(); next.IsZero() || next.After(now) {
			break
		}
	}
	o.tellRevoked()
	return o.out
}

func (o *Origin) emit(e Effect) { o.out = append(o.out, e) }

// begin is the first Step: of a new job, or of a restored one, which may have
// been stopped between any two effects.
func (o *Origin) begin() {
	o.began = true
	if o.state.Over() {
		return
	}
	for _, index := range o.rejudge {
		if o.state.Over() {
			return
		}
		if decided, over := o.judge(index); over != nil {
			o.end(*over)
		} else if !decided {
			o.update(index, classRelease)
		}
	}
	o.rejudge = nil
	if o.commits() {
		for index := range o.stages[o.stage].work {
			o.ask(uint32(index))
		}
	}
	o.advance()
	o.askWorkers()
}

// advance goes on when a stage is decided.
func (o *Origin) advance() {
	ph := &o.stages[o.stage]
	if o.state != Running || int(ph.decided) < len(ph.tasks) {
		return
	}
	if o.stage == StageMap && o.job.Spec.Reduce != nil {
		o.enter(StageReduce, []Task{o.reduceTask()})
		o.search = search{}
		return
	}
	o.state = Assembling
	o.search = search{}
	o.assemble()
}

func (o *Origin) assemble() {
	o.assembling = true
	o.emit(Assemble{o.stage})
}

// reduceTask reads all outputs: in order on stdin, and each as a file.
func (o *Origin) reduceTask() Task {
	results := o.stages[StageMap].results
	t := Task{Ref: Ref{StageReduce, 0}, Inputs: make(map[string]Span, len(results))}
	for i, r := range results {
		out := Span{Root: r.Output, Length: -1}
		t.Inputs[fmt.Sprintf("%06d", i)] = out
		if r.Folder {
			out.Path = "stdout"
		}
		t.Stdin = append(t.Stdin, out)
		t.Size += r.Size
	}
	return t
}

// end makes the job over: durable first, then workers are told.
func (o *Origin) end(f Finish) {
	if o.state.Over() {
		return
	}
	o.state, o.finish = f.State, f
	o.emit(f)
	for _, p := range o.peers {
		for _, l := range p.leases {
			o.emit(Revoke{Worker: p.id, Lease: l.id})
		}
		p.leases, p.holds = nil, 0
	}
	clear(o.revoked)
	o.order = nil
	o.live, o.slots, o.wants, o.timers = 0, 0, nil, nil
	o.queue = newQueue(len(o.stages[o.stage].tasks))
	o.search.collecting, o.search.again = false, time.Time{}
}

// Next is when Step must be called with Tick at the latest; zero when only an
// event can move the job.
func (o *Origin) Next() time.Time {
	if !o.began {
		return o.now
	}
	next := o.search.next(o)
	if len(o.timers) > 0 {
		next = earlier(next, o.timers[0].at)
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// doubled is base times 2 to the n, at most most.
func doubled(base time.Duration, n uint, most time.Duration) time.Duration {
	for ; n > 0 && base < most; n-- {
		base *= 2
	}
	return min(base, most)
}

func (o *Origin) nextLease() LeaseID {
	o.made++
	return LeaseID("t" + strconv.FormatUint(o.job.Term, 10) + "-" + strconv.FormatUint(o.made, 10))
}

// Results gives the results of a stage in task order. It is complete when
// Assemble asks for it.
func (o *Origin) Results(stage Stage) []Result {
	if int(stage) >= len(o.stages) {
		return nil
	}
	ph := &o.stages[stage]
	list := make([]Result, 0, ph.decided)
	for i := range ph.work {
		if ph.work[i].decided {
			list = append(list, ph.results[i])
		}
	}
	return list
}

// Outputs gives the outputs of a stage in task order, when Assemble asks for it.
func (o *Origin) Outputs(stage Stage) []CID {
	ph := &o.stages[stage]
	list := make([]CID, len(ph.results))
	for i := range list {
		list[i] = ph.results[i].Output
	}
	return list
}

// Granted reports whether worker holds a lease of that name with anything
// undecided: what a ticket is checked by. It is false once the job is over.
func (o *Origin) Granted(id LeaseID, worker PeerID) bool {
	l := o.leases[id]
	return l != nil && !o.state.Over() && o.peers[l.peer].id == worker
}
