package tasks_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// shared is a worker that several origins use.
type shared struct {
	t    *testing.T
	w    *tasks.Worker
	now  time.Time
	runs map[tasks.PeerID]int // that were started
}

func newShared(t *testing.T, change func(*tasks.WorkerConfig)) *shared {
	t.Helper()
	cfg := tasks.WorkerConfig{Self: "me", Rand: rand.New(rand.NewPCG(1, 1)), Limits: tasks.SetLimits{Slots: 1}}
	if change != nil {
		change(&cfg)
	}
	w, err := tasks.NewWorker(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &shared{t: t, w: w, now: time.Unix(1000, 0), runs: map[tasks.PeerID]int{}}
}

func (c *shared) step(ev tasks.WorkerEvent) []tasks.WorkerEffect {
	out := c.w.Step(c.now, ev)
	for _, e := range out {
		if s, ok := e.(tasks.Start); ok {
			c.runs[s.Origin]++
		}
	}
	return out
}

// lease gives tasks of one job; it reports whether they were taken.
func (c *shared) lease(origin tasks.PeerID, job string, n int, bytes int64) bool {
	l := tasks.Lease{ID: tasks.LeaseID(fmt.Sprint("t1-", c.now.UnixNano())), Job: tasks.JobID(job), Origin: origin, Worker: "me", Program: "p", Tasks: 1 << 20,
		Duration: time.Hour, Grace: time.Hour}
	for i := range n {
		l.Assignments = append(l.Assignments, tasks.Assignment{Task: tasks.Task{Ref: tasks.Ref{Index: uint32(i)}}})
	}
	c.now = c.now.Add(1)
	for _, e := range c.step(tasks.LeaseIn{Lease: l, Bytes: bytes}) {
		if r, ok := e.(tasks.Refuse); ok {
			if r.Reason != tasks.WorkerBusy || r.RetryAfter <= 0 {
				c.t.Fatalf("refused as %+v", r)
			}
			return false
		}
	}
	return true
}

// bid offers a job of an origin by a probe; it gives the wait that is told.
func (c *shared) bid(origin tasks.PeerID, job string) (wait time.Duration, ok bool) {
	for _, e := range c.step(tasks.OfferIn{Probe: true, Offer: tasks.Offer{Job: tasks.JobID(job), Origin: origin, Program: "p"}}) {
		if b, ok := e.(tasks.SendBid); ok {
			return b.Bid.Queue, true
		}
	}
	return 0, false
}

// An origin that fills a worker has its own part of it: others' leases are taken,
// they bid, and their tasks have their turn.
func TestOneOriginLeavesRoom(t *testing.T) {
	c := newShared(t, nil)
	taken := 0
	for i := range 200 {
		if c.lease("flood", fmt.Sprint("j", i), 16, 4096) {
			taken++
		}
	}
	if s := c.w.Status(); s.Queued+s.Running > 512 || s.Jobs > 64 || taken == 0 || taken == 200 {
		t.Fatalf("%d of 200 leases were taken: %+v", taken, s)
	}
	if wait, ok := c.bid("honest", "h"); !ok || wait > 10*time.Second {
		t.Errorf("bids for another's job: %v, a wait of %v", ok, wait)
	}
	if !c.lease("honest", "h", 100, 4096) {
		t.Fatal("another's lease was refused")
	}
	if _, ok := c.bid("flood", "more"); ok {
		t.Error("it bids for more of the origin that floods it")
	}
}

// Tasks start one origin after the other, however many jobs one of them brought.
func TestOriginsTakeTurns(t *testing.T) {
	c := newShared(t, nil)
	var running []tasks.Start
	step := func(ev tasks.WorkerEvent) {
		for _, e := range c.step(ev) {
			if s, ok := e.(tasks.Start); ok {
				running = append(running, s)
			}
		}
	}
	give := func(origin tasks.PeerID, job string, n int) {
		l := tasks.Lease{ID: "t1-1", Job: tasks.JobID(job), Origin: origin, Worker: "me", Program: "p", Tasks: 99, Duration: time.Hour, Grace: time.Hour}
		for i := range n {
			l.Assignments = append(l.Assignments, tasks.Assignment{Task: tasks.Task{Ref: tasks.Ref{Index: uint32(i)}}})
		}
		step(tasks.LeaseIn{Lease: l})
	}
	for i := range 40 {
		give("flood", fmt.Sprint("j", i), 4)
	}
	give("honest", "h", 20)
	for range 40 {
		s := running[0]
		running = running[1:]
		c.now = c.now.Add(time.Second)
		step(tasks.Ran{Origin: s.Origin, Job: s.Execution.Job, Lease: s.Lease, Ref: s.Execution.Ref, Outcome: tasks.Outcome{Output: "x"}})
	}
	if c.runs["honest"] < 19 {
		t.Errorf("of %d tasks that were started, %d are of the second origin: want half", c.runs["honest"]+c.runs["flood"], c.runs["honest"])
	}
}

// Bytes are bounded as well: of leases, and of receipts that are never judged.
func TestOneOriginsBytes(t *testing.T) {
	c := newShared(t, func(w *tasks.WorkerConfig) { w.MaxBytes = 1 << 20 })
	if !c.lease("flood", "a", 1, 900<<10) || c.lease("flood", "b", 1, 200<<10) {
		t.Error("the second lease does not fit")
	}
	if !c.lease("honest", "h", 1, 900<<10) {
		t.Error("another's lease was refused")
	}

	c = newShared(t, func(w *tasks.WorkerConfig) { w.MaxBytes = 1 << 20; w.Limits.Slots = 4 })
	var done []tasks.Start
	run := func(ev tasks.WorkerEvent) {
		queue := []tasks.WorkerEvent{ev}
		for len(queue) > 0 {
			e := queue[0]
			queue = queue[1:]
			c.now = c.now.Add(time.Millisecond)
			for _, f := range c.step(e) {
				if s, ok := f.(tasks.Start); ok {
					done = append(done, s)
					queue = append(queue, tasks.Ran{Origin: s.Origin, Job: s.Execution.Job, Lease: s.Lease, Ref: s.Execution.Ref,
						Outcome: tasks.Outcome{Output: "x", Inline: make([]byte, 60<<10)}})
				}
			}
		}
	}
	l := tasks.Lease{ID: "t1-1", Job: "a", Origin: "flood", Worker: "me", Program: "p", Tasks: 999, Duration: time.Hour, Grace: time.Hour}
	for i := range 200 {
		l.Assignments = append(l.Assignments, tasks.Assignment{Task: tasks.Task{Ref: tasks.Ref{Index: uint32(i)}}})
	}
	run(tasks.LeaseIn{Lease: l})
	if n := c.runs["flood"]; n < 10 || n > 25 {
		t.Errorf("%d tasks of 60 KiB ran for an origin that judges none, with 1 MiB for it", n)
	}
	l.Origin, l.Job = "honest", "h"
	run(tasks.LeaseIn{Lease: l})
	if n := c.runs["honest"]; n < 10 {
		t.Errorf("%d tasks of another ran", n)
	}
}

// Leases that take all the bytes there are begin all the same.
func TestFullOfLeases(t *testing.T) {
	c := newShared(t, func(w *tasks.WorkerConfig) { w.MaxBytes = 1 << 20 })
	for i := range 4 {
		origin := tasks.PeerID(fmt.Sprint("o", i))
		if !c.lease(origin, "a", 1, 1<<20) {
			t.Fatalf("the lease of %s was refused", origin)
		}
	}
	if c.runs["o0"] != 1 {
		t.Error("nothing runs")
	}
}

// Offers of one origin do not displace another's.
func TestOneOriginsOffers(t *testing.T) {
	c := newShared(t, nil)
	offer := func(origin tasks.PeerID, job string) {
		c.step(tasks.OfferIn{RTT: 100 * time.Millisecond, Offer: tasks.Offer{Job: tasks.JobID(job), Origin: origin, Program: "p"}})
	}
	bids := func() map[tasks.PeerID]int {
		c.now = c.now.Add(time.Second)
		n := map[tasks.PeerID]int{}
		for _, e := range c.step(tasks.WorkerTick{}) {
			if b, ok := e.(tasks.SendBid); ok {
				n[b.To]++
			}
		}
		return n
	}
	for i := range 1000 {
		offer("flood", fmt.Sprint("j", i))
	}
	offer("honest", "h")
	for i := range 1000 {
		offer("flood", fmt.Sprint("k", i))
	}
	if n := bids(); n["honest"] != 1 || n["flood"] != 64 {
		t.Errorf("bids by origin: %v", n)
	}
	for i := range 1000 { // from many at once: whoever has most makes room
		offer(tasks.PeerID(fmt.Sprint("flood", i%8)), fmt.Sprint("j", i))
	}
	offer("honest", "h")
	sum := 0
	n := bids()
	for _, k := range n {
		sum += k
	}
	if n["honest"] != 1 || sum > 256 {
		t.Errorf("%d bids; by origin: %v", sum, n)
	}
	// The same while the owner pauses: what was missed is bid for after.
	c.step(tasks.SetLimits{Slots: 1, Paused: true})
	offer("honest", "h")
	for i := range 1000 {
		offer("flood", fmt.Sprint("m", i))
	}
	c.step(tasks.SetLimits{Slots: 1})
	if n := bids(); n["honest"] != 1 {
		t.Errorf("bids after the pause: %v", n)
	}
}
