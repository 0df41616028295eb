package sim_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/storage/transfer"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
	"github.com/kith-mesh/kith/testnet/liar"
	"github.com/kith-mesh/kith/testnet/sim"
)

// lies is a mesh with liars in it, and a job of numbers under a quorum.
type lies struct {
	t  *testing.T
	m  *sim.Mesh
	id tasks.JobID
	n  uint32 // tasks
}

// among runs a quorum job on node 0 of a mesh whose nodes named are liars. change
// may alter the spec.
func among(t *testing.T, liars map[int]*liar.Liar, change func(*tasks.Spec), cfg sim.Config, f func(l *lies)) {
	t.Helper()
	cfg.Liars = liars
	sim.Run(t, cfg, func(m *sim.Mesh) {
		l := &lies{t: t, m: m, n: 12}
		spec := m.Nodes[0].Numbers(l.n)
		spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2}
		if change != nil {
			change(&spec)
		}
		l.id = m.Nodes[0].Submit(spec)
		for _, x := range liars {
			l.bid(x)
		}
		f(l)
	})
}

// bid has a liar ask for work on the job.
func (l *lies) bid(x *liar.Liar) {
	l.t.Helper()
	if err := x.Bid(context.Background(), l.m.Nodes[0].ID, l.id); err != nil {
		l.t.Fatalf("bid: %v", err)
	}
}

// right waits for the job's end: its outputs must be the right ones.
func (l *lies) right() tasks.JobStatus {
	l.t.Helper()
	v := l.m.Nodes[0].Await(l.id, 30*time.Minute)
	if v.Status.State != tasks.Done || v.Status.Decided != l.n {
		l.t.Fatalf("%+v", v.Status)
	}
	for i, got := range l.outputs() {
		if want := fmt.Sprintf("%d of %d\n", i, l.n); got != want {
			l.t.Errorf("task %d came to %q, want %q", i, got, want)
		}
	}
	return v.Status
}

func (l *lies) outputs() (out []string) {
	l.t.Helper()
	rs, err := l.m.Nodes[0].Market().Results(context.Background(), l.id, tasks.StageMap)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, r := range rs {
		out = append(out, l.m.Nodes[0].Read(r.Output))
	}
	return out
}

// blamed checks that the liars were told the reason, that it counts against them
// on disk, and that it does against nobody else.
func (l *lies) blamed(why tasks.Reason, liars ...*liar.Liar) {
	l.t.Helper()
	tallies, err := l.m.Nodes[0].State().Tallies(context.Background())
	if err != nil {
		l.t.Fatal(err)
	}
	guilty := map[tasks.PeerID]bool{}
	for _, x := range liars {
		id := x.ID()
		guilty[id] = true
		if tallies[id].Rejected == 0 {
			l.t.Errorf("node %d is not blamed: %+v", l.m.Of(x).Index, tallies[id])
		}
		told := map[tasks.Reason]int{}
		for _, v := range x.Verdicts() {
			if v.Status == tasks.Rejected {
				told[v.Reason]++
			}
		}
		if told[why] == 0 {
			l.t.Errorf("node %d was rejected for %v, want %v", l.m.Of(x).Index, told, why)
		}
	}
	for p, t := range tallies {
		if t.Rejected > 0 && !guilty[p] {
			l.t.Errorf("node %d is blamed: %+v", l.m.Index(p), t)
		}
	}
}

// recorded checks that an attempt of the liar ended for the reason.
func (l *lies) recorded(why tasks.Reason, x *liar.Liar) {
	l.t.Helper()
	for _, task := range l.m.Nodes[0].Attempts(l.id, tasks.StageMap) {
		for _, a := range task.Attempts {
			if a.Worker == x.ID() && a.Reason == why {
				return
			}
		}
	}
	l.t.Errorf("no attempt of node %d ended for %v", l.m.Of(x).Index, why)
}

// The liars' own protocols work: without a lie they are believed.
func TestHonestLiar(t *testing.T) {
	x := liar.Honest()
	among(t, map[int]*liar.Liar{3: x}, nil, sim.Config{}, func(l *lies) {
		l.right()
		l.blamed(tasks.OK)
		accepted := 0
		for _, v := range x.Verdicts() {
			if v.Status == tasks.Accepted {
				accepted++
			}
		}
		if accepted == 0 {
			t.Errorf("none of its %d leases came to an accepted answer", len(x.Leases()))
		}
	})
}

func TestLiarSaysWrong(t *testing.T) {
	x := liar.Wrong()
	among(t, map[int]*liar.Liar{3: x}, nil, sim.Config{}, func(l *lies) {
		l.right()
		l.blamed(tasks.OutputMismatch, x)
		l.recorded(tasks.OutputMismatch, x)
	})
}

// It names the right output and never gives it.
func TestLiarGivesNothing(t *testing.T) {
	x := liar.GivesNothing()
	among(t, map[int]*liar.Liar{3: x}, nil, sim.Config{}, func(l *lies) {
		s := l.right()
		for _, w := range s.Workers {
			if l.m.Index(w.Worker) == 3 && w.Accepted+w.Rejected == 0 {
				t.Errorf("it was not judged: %+v", w)
			}
		}
	})
}

// It names an output that it invented and has not.
func TestLiarInvents(t *testing.T) {
	x := liar.Invents()
	among(t, map[int]*liar.Liar{3: x}, nil, sim.Config{}, func(l *lies) {
		l.right()
		l.blamed(tasks.OutputMissing, x)
		l.recorded(tasks.OutputMissing, x)
	})
}

// It commits, and never shows what to.
func TestLiarStalls(t *testing.T) {
	x := liar.HoldsBack()
	among(t, map[int]*liar.Liar{3: x}, nil, sim.Config{}, func(l *lies) {
		l.right()
		l.blamed(tasks.NotRevealed, x)
		l.recorded(tasks.NotRevealed, x)
	})
}

// It takes work and is not heard again, though it is there: nothing is proved.
func TestLiarNeverAnswers(t *testing.T) {
	x := liar.Silent()
	among(t, map[int]*liar.Liar{3: x}, nil, sim.Config{}, func(l *lies) {
		l.right()
		l.blamed(tasks.OK)
		if len(x.Leases()) == 0 {
			t.Error("it had no work: the test shows nothing")
		}
	})
}

// It takes work, says every second that it is at it, and never answers: others
// are given copies, and nothing is proved.
func TestLiarStallsAtWork(t *testing.T) {
	x := liar.Stalls()
	among(t, map[int]*liar.Liar{3: x}, func(s *tasks.Spec) { s.Resources.Timeout = 5 * time.Second }, sim.Config{}, func(l *lies) {
		s := l.right()
		l.blamed(tasks.OK)
		if len(x.Leases()) == 0 || s.Copies == 0 {
			t.Errorf("it had %d leases, and %d tasks were copied", len(x.Leases()), s.Copies)
		}
	})
}

// It changes its mind between commitment and reveal.
func TestLiarChangesItsAnswer(t *testing.T) {
	x := liar.Changes()
	among(t, map[int]*liar.Liar{3: x}, nil, sim.Config{}, func(l *lies) {
		l.right()
		l.blamed(tasks.NotAsCommitted, x)
		l.recorded(tasks.NotAsCommitted, x)
	})
}

// It shows its answers without having committed to them, each in the name of a
// lease that it has.
func TestLiarDoesNotCommit(t *testing.T) {
	x := liar.Uncommitted()
	among(t, map[int]*liar.Liar{3: x}, nil, sim.Config{}, func(l *lies) {
		l.right()
		l.blamed(tasks.NotCommitted, x)
		l.recorded(tasks.NotCommitted, x)
	})
}

// A commitment and its reveal in one message are refused, whole.
func TestCommitmentBesideReveal(t *testing.T) {
	x := liar.Honest()
	refused := make(chan error, 1)
	x.Report = func(l *liar.Liar, origin peer.ID, r *wire.WorkReport) {
		if len(r.Commits) == 0 || len(refused) > 0 {
			return
		}
		commits := r.Commits
		list := l.Shown()
		b, err := wire.MarshalReveals(string(l.Host().Mesh()), list)
		if err == nil {
			b, err = l.Host().Seal(wire.DomainReveals, b)
		}
		if err != nil {
			t.Error(err)
			return
		}
		refused <- l.Send(context.Background(), origin, wire.WorkReport{Commits: commits, Reveals: b})
	}
	among(t, map[int]*liar.Liar{3: x}, nil, sim.Config{}, func(l *lies) {
		l.right()
		l.blamed(tasks.OK)
		if err := <-refused; err == nil || !strings.Contains(err.Error(), "beside the commitment") {
			t.Errorf("it was taken: %v", err)
		}
	})
}

// One copies: it waits for another's commitment and passes it off as its own. The
// other helps it as far as it can: it gives it all that it sends.
func TestLiarCopiesACommitment(t *testing.T) {
	var mu sync.Mutex
	seen, copied := map[tasks.Ref]liar.Given{}, 0
	helper := liar.Helps(func(ref tasks.Ref, g liar.Given) {
		mu.Lock()
		defer mu.Unlock()
		seen[ref] = g
	})
	copier := liar.Copies(func(ref tasks.Ref) (liar.Given, bool) { // of a task that it gets first it says what it made itself
		mu.Lock()
		defer mu.Unlock()
		g, ok := seen[ref]
		if ok {
			copied++
		}
		return g, ok
	})
	// No other worker: a task goes to these two first.
	cfg := sim.Config{Nodes: 4, Setup: func(i int, c *node.Config) { c.Seams.Market.NoWork = i < 2 }}
	liars := map[int]*liar.Liar{2: helper, 3: copier}
	cfg.Liars = liars
	sim.Run(t, cfg, func(m *sim.Mesh) {
		spec := m.Nodes[0].Numbers(4)
		spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2}
		l := &lies{t: t, m: m, n: 4, id: m.Nodes[0].Submit(spec)}
		l.bid(helper)
		m.Until("the other has committed", time.Minute, func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) > 0 })
		l.bid(copier)
		m.Until("the copy is found out", 10*time.Minute, func() bool {
			for _, v := range copier.Verdicts() {
				if v.Reason == tasks.NotAsCommitted {
					return true
				}
			}
			return false
		})
		if mu.Lock(); copied == 0 {
			t.Error("it copied nothing")
		}
		mu.Unlock()
		l.blamed(tasks.NotAsCommitted, copier)
	})
}

// One waits for another's output. It asks whoever has it, with the ticket of its
// own lease: before the verdict nobody gives it, neither does bitswap's index.
func TestLiarGetsNoOutput(t *testing.T) {
	x := liar.Silent()
	cfg := sim.Config{Service: func(n int, _ tasks.Execution) time.Duration { return time.Second }}
	among(t, map[int]*liar.Liar{3: x}, func(s *tasks.Spec) { s.Verify.Replicas = 4 }, cfg, func(l *lies) {
		l.m.Until("an honest answer is committed to, and the liar has a lease of the task", 5*time.Minute, func() bool { return l.half(x) >= 0 })
		index := l.half(x)
		want := fmt.Sprintf("%d of %d\n", index, l.n)
		out, err := storage.SumBytes([]byte(want))
		if err != nil {
			t.Fatal(err)
		}
		holders := 0
		for _, n := range l.m.Nodes {
			if n == l.m.Of(x) {
				continue
			}
			if n.Blocks.Complete(context.Background(), out) {
				holders++
			}
			for _, lease := range x.Leases() {
				ticket, err := wire.MarshalTicket(wire.Ticket{Job: l.id, Lease: lease.ID})
				if err != nil {
					t.Fatal(err)
				}
				for _, tk := range [][]byte{ticket, nil} {
					ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
					err := l.m.Of(x).Transfer().Fetch(ctx, transfer.Want{Root: out, Length: -1, From: []peer.ID{n.ID}, Ticket: tk}, nil)
					cancel()
					if err == nil {
						t.Fatalf("node %d gave it", n.Index)
					}
				}
			}
			if a, ok, err := n.Blocks.Audience(context.Background(), out); err != nil || ok && a != storage.Job {
				t.Errorf("node %d would give it to %v, %v", n.Index, a, err)
			}
		}
		if holders == 0 {
			t.Error("nobody has the output: the test shows nothing")
		}
	})
}

// half is a task that the liar holds, that somebody committed to, and that is not
// decided; -1: there is none.
func (l *lies) half(x *liar.Liar) int {
	for i, task := range l.m.Nodes[0].Attempts(l.id, tasks.StageMap) {
		mine, said := false, false
		for _, a := range task.Attempts {
			mine = mine || a.Worker == x.ID() && a.State == tasks.AttemptHeld
			said = said || a.State == tasks.AttemptCommitted
		}
		if mine && said && task.State != tasks.TaskDecided {
			return i
		}
	}
	return -1
}

// It answers for another's task: under the other's lease, and under its own.
func TestLiarAnswersForAnother(t *testing.T) {
	for why, x := range map[tasks.Reason]*liar.Liar{tasks.NotItsLease: liar.AnothersLease(), tasks.WrongTask: liar.AnothersTask()} {
		t.Run(fmt.Sprint(uint32(why)), func(t *testing.T) {
			among(t, map[int]*liar.Liar{3: x}, func(s *tasks.Spec) { s.Tasks = 12 }, sim.Config{Service: func(int, tasks.Execution) time.Duration { return 5 * time.Second }}, func(l *lies) {
				l.right()
				l.blamed(why, x)
			})
		})
	}
}

// It says again what it said before, of this job and to another: nothing counts
// twice, and no lie is found in it.
func TestLiarReplays(t *testing.T) {
	x := liar.Honest()
	among(t, map[int]*liar.Liar{3: x}, nil, sim.Config{}, func(l *lies) {
		l.right()
		tally := func() map[tasks.PeerID]wire.Tally {
			all, err := l.m.Nodes[0].State().Tallies(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
		before := tally()
		spec := l.m.Nodes[0].Numbers(l.n)
		spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2}
		second := l.m.Nodes[0].Submit(spec)
		again := x.Said()
		x.Do(func(ctx context.Context) {
			for range 3 {
				for _, r := range again {
					_ = x.Send(ctx, l.m.Nodes[0].ID, r) // of a job that is over
				}
			}
		})
		sim.Sleep(3 * time.Second)
		if after := tally(); after[x.ID()] != before[x.ID()] {
			t.Errorf("what it said again counts: %v became %v", before, after)
		}
		if len(again) < 2 {
			t.Errorf("it had only %d messages to repeat", len(again))
		}
		first := l.id
		l.id = second
		l.right()
		l.id = first
		l.right()
		l.blamed(tasks.OK)
	})
}

// It gives more than the job allows: the origin stops listening, and keeps none
// of it.
func TestLiarGivesTooMuch(t *testing.T) {
	const limit = 1 << 20
	x := liar.TooMuch()
	among(t, map[int]*liar.Liar{3: x}, func(s *tasks.Spec) { s.Resources.Output = limit }, sim.Config{}, func(l *lies) {
		l.right()
		l.blamed(tasks.OutputTooLarge, x)
		l.recorded(tasks.OutputTooLarge, x)
		if use, err := l.m.Nodes[0].Blocks.Usage(context.Background()); err != nil || use.Bytes > 4*limit {
			t.Errorf("the origin's store has %d bytes, %v", use.Bytes, err)
		}
	})
}

// What a quorum of two does not promise: two that agreed on a lie beforehand win
// against the honest third, and it is he who is blamed.
func TestLiarsInCollusion(t *testing.T) {
	a, b := liar.Colludes(), liar.Colludes()
	liars := map[int]*liar.Liar{2: a, 3: b}
	cfg := sim.Config{Nodes: 4, Liars: liars, Setup: func(i int, c *node.Config) { c.Seams.Market.NoWork = i == 0 }}
	sim.Run(t, cfg, func(m *sim.Mesh) {
		spec := m.Nodes[0].Numbers(12)
		spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2}
		l := &lies{t: t, m: m, n: 12, id: m.Nodes[0].Submit(spec)}
		for x := range maps.Values(liars) {
			l.bid(x)
		}
		v := m.Nodes[0].Await(l.id, 30*time.Minute)
		if v.Status.State != tasks.Done {
			t.Fatalf("%+v", v.Status)
		}
		for i, out := range l.outputs() {
			if want := string(liar.Agreed(tasks.Ref{Index: uint32(i)})); out != want {
				t.Errorf("task %d came to %q: two that agree should have won", i, out)
			}
		}
	})
}
