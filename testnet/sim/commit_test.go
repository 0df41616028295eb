package sim_test

import (
	"context"
	"testing"
	"time"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
	"github.com/kith-mesh/kith/testnet/liar"
	"github.com/kith-mesh/kith/testnet/sim"
)

// quick makes one node fast and the others slow, so that it has committed long
// before anybody else.
func quick(node int) func(int, tasks.Execution) time.Duration {
	return func(n int, _ tasks.Execution) time.Duration {
		if n == node {
			return time.Second
		}
		return 40 * time.Second
	}
}

// committed reports whether a worker has committed to an answer that is not shown.
func committed(n *sim.Node, id tasks.JobID, worker *sim.Node) bool {
	for _, a := range attemptsOf(n, id, worker) {
		if a.State == tasks.AttemptCommitted {
			return true
		}
	}
	return false
}

// A worker that dies between its commitment and its reveal shows, when it is back,
// what it committed to. It neither works again nor is it blamed; nor is the origin
// put out that dies there.
func TestDeathBetweenCommitAndReveal(t *testing.T) {
	for name, die := range map[string]func(origin, worker *sim.Node){
		"worker": func(_, w *sim.Node) { w.Crash(); w.Start() },
		"origin": func(o, _ *sim.Node) { o.Crash(); o.Start() },
		"both":   func(o, w *sim.Node) { o.Crash(); w.Crash(); w.Start(); o.Start() },
	} {
		t.Run(name, func(t *testing.T) {
			sim.Run(t, sim.Config{Service: quick(3)}, func(m *sim.Mesh) {
				origin, worker := m.Nodes[0], m.Nodes[3]
				spec := origin.Numbers(1)
				spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 5} // all of them
				id := origin.Submit(spec)
				m.Until("one has committed", 2*time.Minute, func() bool { return committed(origin, id, worker) })
				die(origin, worker)
				v := origin.Await(id, 10*time.Minute)
				if got := origin.Output(v); got != "0 of 1\n" {
					t.Errorf("it came to %q", got)
				}
				if n := len(worker.Runs()); n != 1 {
					t.Errorf("the worker ran %d times", n)
				}
				accepted := false
				for _, a := range attemptsOf(origin, id, worker) {
					accepted = accepted || a.State == tasks.AttemptAccepted
				}
				tallies, err := origin.State().Tallies(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				for p, tally := range tallies {
					if tally.Rejected > 0 {
						t.Errorf("node %d is blamed: %+v", m.Index(p), tally)
					}
				}
				if !accepted {
					t.Errorf("what it committed to was not accepted: %+v", attemptsOf(origin, id, worker))
				}
			})
		})
	}
}

// A commitment binds over a restart of the origin: it was durable.
func TestLiarCommitsAnewAfterRestart(t *testing.T) {
	x := liar.Honest()
	cfg := sim.Config{Service: quick(-1)}
	among(t, map[int]*liar.Liar{3: x}, nil, cfg, func(l *lies) {
		origin := l.m.Nodes[0]
		var k tasks.Commitment
		l.m.Until("it has committed", time.Minute, func() bool { return committed(origin, l.id, l.m.Of(x)) })
		for _, task := range origin.Attempts(l.id, tasks.StageMap) {
			for _, a := range task.Attempts {
				if a.State == tasks.AttemptCommitted {
					k = tasks.Commitment{Job: l.id, Ref: task.Ref, Replica: a.Replica, Lease: a.Lease, Worker: a.Worker}
				}
			}
		}
		origin.Crash()
		origin.Start()
		sim.Sleep(5 * time.Second) // the old connection ends
		l.m.Until("the mesh has joined again", time.Minute, func() bool { return x.Host().IsMember(origin.ID) })
		k.Hash[0] = 1
		x.Do(func(ctx context.Context) { _ = x.Send(ctx, origin.ID, wire.WorkReport{Commits: []tasks.Commitment{k}}) })
		l.m.Until("it is found out, before anybody is asked", 5*time.Second, func() bool {
			for _, v := range x.Verdicts() {
				if v.Reason == tasks.NotAsCommitted {
					return true
				}
			}
			return false
		})
		l.right()
		l.blamed(tasks.NotAsCommitted, x)
	})
}

// Both sides keep what the other signed.
func TestBothSidesKeepProof(t *testing.T) {
	sim.Run(t, sim.Config{}, func(m *sim.Mesh) {
		origin, worker := m.Nodes[0], m.Nodes[3]
		spec := origin.Numbers(20)
		spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 3}
		id := origin.Submit(spec)
		origin.Await(id, 10*time.Minute)
		accepted := map[tasks.Ref]bool{}
		for _, task := range origin.Attempts(id, tasks.StageMap) {
			for _, a := range task.Attempts {
				if a.Worker == tasks.PeerID(worker.ID.String()) && a.State == tasks.AttemptAccepted {
					accepted[task.Ref] = true
				}
			}
		}
		if len(accepted) == 0 {
			t.Fatal("the worker did nothing: the test shows nothing")
		}
		worker.Stop() // what waits for a commit that is due anyway is settled at the next start
		worker.Start()
		m.Until("every verdict is kept", 5*time.Minute, func() bool {
			said, err := worker.State().SaidVerdicts(context.Background(), id)
			if err != nil {
				t.Fatal(err)
			}
			kept := map[tasks.Ref]bool{}
			for _, batch := range said {
				signer, payload, err := p2p.OpenSealed(wire.DomainVerdicts, wire.MaxVerdicts, batch.Sealed)
				if err != nil || signer != origin.ID {
					t.Fatalf("signed by %s, %v", signer, err)
				}
				_, vs, err := wire.UnmarshalVerdicts(payload)
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range vs {
					if v.Status == tasks.Accepted {
						kept[v.Ref] = true
					}
				}
			}
			return len(kept) == len(accepted)
		})
	})
}
