package tasks_test

import (
	"container/heap"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/verify"
)

// tb is what testing.T and rapid.T share.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// sim is one origin and its workers in virtual time: real machines, and a
// network that delays, loses and cuts.
type sim struct {
	t     tb
	rng   *rand.Rand
	now   time.Time
	queue simQueue
	seq   int

	spec   tasks.Spec
	job    tasks.Job
	tasks  []tasks.Task
	cfg    tasks.OriginConfig
	origin *tasks.Origin
	epoch  int // of the origin process
	down   bool
	wake   time.Time
	disk   tasks.Records

	nodes   []*simNode
	loss    float64
	service func(n *simNode, ref tasks.Ref) time.Duration
	outcome func(n *simNode, ref tasks.Ref) tasks.Outcome
	holds   func(n *simNode, out tasks.CID) tasks.Reason
	checks  bool // invariants after each step: slow
	onStep  func()

	starts   map[tasks.Ref]int
	blamed   map[tasks.PeerID][]tasks.Reason
	events   int
	grants   int
	messages int
	first    time.Duration // until the first result
	began    time.Time
	finished time.Time
}

type simNode struct {
	id    tasks.PeerID
	w     *tasks.Worker
	rtt   time.Duration
	slots uint32
	speed float64
	liar  bool
	dead  bool
	epoch int
	wake  time.Time
	inFly map[string]int                    // runs under way, by key
	cheat func([]tasks.Event) []tasks.Event // what it says in place of what it should
}

// commitment is the hash of a receipt with a nonce that its worker alone knows.
func commitment(r tasks.Receipt) tasks.Commitment {
	return tasks.Commitment{Job: r.Job, Ref: r.Ref, Replica: r.Replica, Lease: r.Lease, Worker: r.Worker,
		Hash: sha256.Sum256(fmt.Appendf(nil, "%v nonce of %s", r, r.Worker))}
}

func receiptIn(r tasks.Receipt, committed bool) tasks.ReceiptIn {
	if !committed {
		return tasks.ReceiptIn{Receipt: r}
	}
	h := commitment(r).Hash
	return tasks.ReceiptIn{Receipt: r, Opens: &h}
}

type simEvent struct {
	at  time.Time
	seq int
	do  func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || (q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq)
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *simQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

var epochStart = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func spec(replicas uint32, reduce bool) tasks.Spec {
	s := tasks.Spec{Name: "test", Program: "bafyprogram"}
	if replicas > 1 {
		s.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: replicas}
	}
	if reduce {
		s.Reduce = &tasks.Reduce{Program: "bafyreduce"}
	}
	return s.WithDefaults()
}

func newSim(t tb, seed uint64, s tasks.Spec, count int) *sim {
	m := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: epochStart, began: epochStart, spec: s, starts: make(map[tasks.Ref]int), blamed: make(map[tasks.PeerID][]tasks.Reason)}
	m.job = tasks.Job{ID: "job", Spec: s, Submitter: "user", Term: 1}
	m.cfg = tasks.OriginConfig{Self: "origin", Judge: verify.Decide, Rand: m.rng}
	for i := range count {
		m.tasks = append(m.tasks, tasks.Task{Ref: tasks.Ref{Index: uint32(i)}, Size: 1})
	}
	m.disk.Tasks = m.tasks
	m.service = func(n *simNode, _ tasks.Ref) time.Duration {
		return time.Duration(float64(200*time.Millisecond) / n.speed)
	}
	m.outcome = func(n *simNode, ref tasks.Ref) tasks.Outcome {
		out := tasks.Outcome{Output: tasks.CID(fmt.Sprintf("out-%v-%d", ref.Stage, ref.Index)), Inline: []byte{}}
		if n.liar {
			out.Output += tasks.CID("-lie-" + n.id)
		}
		return out
	}
	m.holds = func(*simNode, tasks.CID) tasks.Reason { return tasks.OK }
	m.first = -1
	var err error
	if m.origin, err = tasks.NewOrigin(m.cfg, m.job, m.tasks); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *sim) node(id string, rtt time.Duration, slots uint32, speed float64) *simNode {
	n := &simNode{id: tasks.PeerID(id), rtt: rtt, slots: slots, speed: speed}
	m.boot(n)
	m.nodes = append(m.nodes, n)
	return n
}

func (m *sim) boot(n *simNode) {
	w, err := tasks.NewWorker(tasks.WorkerConfig{Self: n.id, Rand: m.rng, Limits: tasks.SetLimits{Slots: n.slots}})
	if err != nil {
		m.t.Fatal(err)
	}
	n.w, n.dead, n.wake, n.inFly = w, false, time.Time{}, make(map[string]int)
	n.epoch++
}

func (m *sim) after(d time.Duration, do func()) {
	m.seq++
	heap.Push(&m.queue, simEvent{m.now.Add(d), m.seq, do})
}

// run goes on until the job is over or the time is up.
func (m *sim) run(limit time.Duration) {
	m.t.Helper()
	m.step(tasks.Tick{})
	end := m.now.Add(limit)
	for m.finished.IsZero() && m.queue.Len() > 0 && m.queue[0].at.Before(end) {
		e := heap.Pop(&m.queue).(simEvent)
		m.now = e.at
		e.do()
	}
	if m.finished.IsZero() {
		m.now = end
	}
}

func (m *sim) step(ev tasks.Event) {
	if m.down {
		return
	}
	m.events++
	effects := m.origin.Step(m.now, ev)
	if m.checks {
		if err := m.origin.Check(); err != nil {
			m.t.Fatalf("after %T at %v: %v", ev, m.now.Sub(m.began), err)
		}
	}
	for _, e := range effects {
		m.effect(e)
	}
	if m.onStep != nil {
		m.onStep()
	}
	if next := m.origin.Next(); !next.IsZero() && (m.wake.IsZero() || next.Before(m.wake) || !m.wake.After(m.now)) {
		m.wake = next
		epoch := m.epoch
		m.after(next.Sub(m.now), func() {
			if m.epoch == epoch && !m.wake.After(m.now) {
				m.wake = time.Time{}
				m.step(tasks.Tick{})
			}
		})
	}
}

func (m *sim) find(id tasks.PeerID) *simNode {
	for _, n := range m.nodes {
		if n.id == id {
			return n
		}
	}
	m.t.Fatalf("an effect names %q, which is no worker", id)
	return nil
}

func (m *sim) standing(n *simNode) tasks.Standing { return tasks.Standing{RTT: n.rtt} }

// tell sends a message to a worker.
func (m *sim) tell(id tasks.PeerID, ev tasks.WorkerEvent, lost func()) {
	n := m.find(id)
	m.messages++
	epoch := n.epoch
	if m.rng.Float64() < m.loss {
		if lost != nil {
			m.after(time.Second, lost)
		}
		return
	}
	m.after(n.rtt/2, func() {
		if n.dead || n.epoch != epoch {
			if lost != nil {
				m.after(n.rtt/2, lost)
			}
			return
		}
		m.work(n, ev)
	})
}

func (m *sim) effect(e tasks.Effect) {
	switch e := e.(type) {
	case tasks.Announce:
		for _, n := range m.nodes {
			if n.rtt <= e.Offer.Radius {
				m.tell(n.id, tasks.OfferIn{Offer: e.Offer, RTT: n.rtt}, nil)
			}
		}
	case tasks.Probe:
		for _, i := range m.rng.Perm(len(m.nodes))[:min(e.N, len(m.nodes))] {
			m.tell(m.nodes[i].id, tasks.OfferIn{Offer: e.Offer, RTT: m.nodes[i].rtt, Probe: true}, nil)
		}
	case tasks.Grant:
		m.disk.Grants = append(m.disk.Grants, e.Lease.Record())
		m.grants++
		l := e.Lease
		m.tell(l.Worker, tasks.LeaseIn{Lease: l}, func() {
			m.step(tasks.LeaseFailed{Lease: l.ID, Worker: l.Worker, Reason: tasks.WorkerFault})
		})
	case tasks.Renew:
		m.tell(e.Worker, tasks.RenewIn{Origin: "origin", Job: "job", Leases: e.Leases}, nil)
	case tasks.Revoke:
		m.tell(e.Worker, tasks.RevokeIn{Origin: "origin", Job: "job", Lease: e.Lease, Refs: e.Refs}, nil)
	case tasks.Hold:
		n, epoch := m.find(e.Worker), m.epoch
		if e.Limit <= 0 {
			m.t.Fatal("an output without a limit")
		}
		m.after(n.rtt, func() {
			if m.epoch != epoch {
				return
			}
			if why := m.holds(n, e.Output); why != tasks.OK {
				m.step(tasks.HoldFailed{Ref: e.Ref, Worker: e.Worker, Output: e.Output, Reason: why})
				return
			}
			m.step(tasks.HeldOutput{Ref: e.Ref, Worker: e.Worker, Output: e.Output, Size: 7})
		})
	case tasks.Record:
		m.disk.Attempts = append(m.disk.Attempts, e.Attempt)
		if e.Attempt.Reason.Blames() {
			m.blamed[e.Attempt.Worker] = append(m.blamed[e.Attempt.Worker], e.Attempt.Reason)
		}
		m.verdicts(e.Verdict)
	case tasks.Commit:
		m.disk.Commitments = append(m.disk.Commitments, e.Commitment)
	case tasks.Reveal:
		m.tell(e.Worker, tasks.RevealIn{Origin: "origin", Job: "job", Lease: e.Lease, Ref: e.Ref, Replica: e.Replica}, nil)
		n, epoch := m.find(e.Worker), m.epoch
		m.after(n.rtt, func() {
			if m.epoch == epoch && !n.dead {
				m.step(tasks.RevealTold{Worker: e.Worker, Lease: e.Lease, Ref: e.Ref, Replica: e.Replica})
			}
		})
	case tasks.Blame:
		m.blamed[e.Worker] = append(m.blamed[e.Worker], e.Reason)
	case tasks.Decide:
		for _, r := range m.disk.Results {
			if r.Ref == e.Result.Ref {
				m.t.Fatalf("two results for %v", r.Ref)
			}
		}
		if m.first < 0 {
			m.first = m.now.Sub(m.began)
		}
		m.disk.Results = append(m.disk.Results, e.Result)
		m.verdicts(e.Verdicts...)
	case tasks.Answer:
		m.verdicts(e.Verdicts...)
	case tasks.Assemble:
		epoch := m.epoch
		m.after(time.Millisecond, func() {
			if m.epoch == epoch {
				m.step(tasks.Assembled{Output: "assembled", Size: 1})
			}
		})
	case tasks.Finish:
		if m.disk.Finish != nil {
			m.t.Fatalf("finished twice")
		}
		m.disk.Finish = &e
		m.finished = m.now
	default:
		m.t.Fatalf("unknown effect %T", e)
	}
}

func (m *sim) verdicts(list ...tasks.Verdict) {
	for _, v := range list {
		m.tell(v.Worker, tasks.VerdictsIn{Origin: "origin", Verdicts: []tasks.Verdict{v}}, nil)
	}
}

// restart kills the origin and brings it back from its disk.
func (m *sim) restart(pause time.Duration) {
	m.down = true
	m.epoch++
	epoch := m.epoch
	m.after(pause, func() {
		if m.epoch != epoch {
			return
		}
		disk := m.disk
		disk.Grants, disk.Attempts, disk.Results = slices.Clone(disk.Grants), slices.Clone(disk.Attempts), slices.Clone(disk.Results)
		disk.Commitments = slices.Clone(disk.Commitments)
		o, err := tasks.RestoreOrigin(m.cfg, m.job, disk, m.now)
		if err != nil {
			m.t.Fatal(err)
		}
		m.origin, m.down, m.wake = o, false, time.Time{}
		m.step(tasks.Tick{})
		for _, n := range m.nodes {
			if !n.dead {
				m.work(n, tasks.OriginSeen{Origin: "origin"})
			}
		}
	})
}

func (m *sim) kill(n *simNode, notice bool) {
	n.dead = true
	n.epoch++
	if notice {
		m.after(n.rtt, func() { m.step(tasks.PeerGone{Worker: n.id}) })
	}
}

func (m *sim) work(n *simNode, ev tasks.WorkerEvent) {
	if n.dead {
		return
	}
	m.events++
	effects := n.w.Step(m.now, ev)
	if m.checks {
		if err := n.w.Check(); err != nil {
			m.t.Fatalf("worker %s after %T: %v", n.id, ev, err)
		}
	}
	for _, e := range effects {
		m.workerEffect(n, e)
	}
	if next := n.w.Next(); !next.IsZero() && (n.wake.IsZero() || next.Before(n.wake) || !n.wake.After(m.now)) {
		n.wake = next
		epoch := n.epoch
		m.after(next.Sub(m.now), func() {
			if n.epoch == epoch && !n.wake.After(m.now) {
				n.wake = time.Time{}
				m.work(n, tasks.WorkerTick{})
			}
		})
	}
}

// ask sends a message to the origin.
func (m *sim) ask(n *simNode, evs []tasks.Event, done func(ok bool)) {
	m.messages++
	epoch := n.epoch
	reply := func(ok bool, d time.Duration) {
		if done != nil {
			m.after(d, func() {
				if n.epoch == epoch {
					done(ok)
				}
			})
		}
	}
	if m.rng.Float64() < m.loss {
		reply(false, time.Second)
		return
	}
	m.after(n.rtt/2, func() {
		if m.down {
			reply(false, n.rtt/2)
			return
		}
		for _, ev := range evs {
			m.step(ev)
		}
		reply(true, n.rtt/2)
	})
}

func (m *sim) workerEffect(n *simNode, e tasks.WorkerEffect) {
	switch e := e.(type) {
	case tasks.SendBid:
		m.ask(n, []tasks.Event{tasks.BidIn{Bid: e.Bid, Standing: m.standing(n)}}, nil)
	case tasks.Refuse:
		if e.Lease == "" {
			m.ask(n, []tasks.Event{tasks.RefusedBy{Worker: n.id, Reason: e.Reason, RetryAfter: e.RetryAfter}}, nil)
		} else {
			m.ask(n, []tasks.Event{tasks.LeaseFailed{Lease: e.Lease, Worker: n.id, Reason: e.Reason, RetryAfter: e.RetryAfter}}, nil)
		}
	case tasks.Start:
		m.starts[e.Execution.Ref]++
		key := fmt.Sprint(e.Lease, e.Execution.Ref, e.Replica)
		m.seq++
		id := m.seq
		n.inFly[key] = id
		epoch := n.epoch
		m.after(m.service(n, e.Execution.Ref), func() {
			if n.epoch == epoch && n.inFly[key] == id {
				delete(n.inFly, key)
				m.work(n, tasks.Ran{Origin: "origin", Job: "job", Lease: e.Lease, Ref: e.Execution.Ref, Replica: e.Replica, Outcome: m.outcome(n, e.Execution.Ref)})
			}
		})
	case tasks.Stop:
		key := fmt.Sprint(e.Lease, e.Ref, e.Replica)
		epoch := n.epoch
		m.after(0, func() {
			if _, ok := n.inFly[key]; ok && n.epoch == epoch {
				delete(n.inFly, key)
				m.work(n, tasks.Ran{Origin: "origin", Job: "job", Lease: e.Lease, Ref: e.Ref, Replica: e.Replica, Outcome: tasks.Outcome{Reason: tasks.WorkerFault}})
			}
		})
	case tasks.Deliver:
		evs := []tasks.Event{tasks.ReportIn{Report: e.Report, Standing: m.standing(n)}}
		for _, r := range e.Commits {
			evs = append(evs, tasks.CommitIn{Commitment: commitment(r)})
		}
		for _, r := range slices.Concat(e.Reveals, e.Receipts) {
			evs = append(evs, receiptIn(r, m.spec.Verify.Mode == tasks.VerifyQuorum && r.Reason < tasks.WorkerBusy))
		}
		if n.cheat != nil {
			evs = n.cheat(evs)
		}
		m.ask(n, evs, func(ok bool) {
			if ok {
				m.work(n, tasks.Delivered{Origin: "origin", Job: "job"})
			} else {
				m.work(n, tasks.DeliverFailed{Origin: "origin", Job: "job"})
			}
		})
	case tasks.ReleaseOutput, tasks.ReleaseJob:
	default:
		m.t.Fatalf("unknown effect %T", e)
	}
}

// done fails the test unless the job is done with every task decided rightly.
func (m *sim) done() {
	m.t.Helper()
	if m.disk.Finish == nil || m.disk.Finish.State != tasks.Done {
		m.t.Fatalf("after %v: %+v; finish %+v; why %+v", m.now.Sub(m.began), m.origin.Status(), m.disk.Finish, m.origin.Why(m.now))
	}
	want := len(m.tasks)
	if m.spec.Reduce != nil {
		want++
	}
	if len(m.disk.Results) != want {
		m.t.Fatalf("%d results of %d", len(m.disk.Results), want)
	}
	for _, r := range m.disk.Results {
		if right := tasks.CID(fmt.Sprintf("out-%v-%d", r.Ref.Stage, r.Ref.Index)); m.spec.Verify.Mode == tasks.VerifyQuorum && r.Output != right {
			m.t.Fatalf("%v: accepted %s", r.Ref, r.Output)
		}
		seen := make(map[tasks.PeerID]bool)
		for _, w := range r.Workers {
			if seen[w] {
				m.t.Fatalf("%v: %s counted twice", r.Ref, w)
			}
			seen[w] = true
		}
		if len(seen) < int(m.spec.Verify.Replicas) {
			m.t.Fatalf("%v: only %d agreed", r.Ref, len(seen))
		}
	}
}

// pop runs one event.
func pop(m *sim) {
	e := heap.Pop(&m.queue).(simEvent)
	m.now = e.at
	e.do()
}
