package sim_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/testnet/sim"
)

// holdersOf are the hosts that hold a job now, and at which term.
func holdersOf(m *sim.Mesh, hosts []*sim.Node, id tasks.JobID) map[int]uint64 {
	at := map[int]uint64{}
	for _, n := range hosts {
		if n.Node == nil {
			continue
		}
		if v, err := n.Market().Job(context.Background(), id); err == nil && v.Record.Origin() && !v.Record.State.Over() {
			at[n.Index] = v.Record.Term
		}
	}
	return at
}

// A cut that comes right after a job was published leaves an origin at term 1 on
// either side. When it heals one yields; the submitter accepts one answer, and the
// one that yielded never says that it is done.
func TestTwoAdopters(t *testing.T) {
	cfg := sim.Config{Nodes: 7, Service: slow(12 * time.Second), Setup: func(i int, c *node.Config) { c.Light = i == 6 }}
	sim.Run(t, cfg, func(m *sim.Mesh) {
		submitter, hosts := m.Nodes[6], m.Nodes[:6]
		body := text(400)
		spec := submitter.WordCount(body, 10)
		id := submitter.Publish(spec)
		m.Until("claimed on both sides", time.Minute, func() bool {
			claimed := func(ns []*sim.Node) bool {
				for _, n := range ns {
					if _, err := n.Market().Job(context.Background(), id); err == nil {
						return true
					}
				}
				return false
			}
			return claimed(hosts[:3]) && claimed(hosts[3:])
		})
		addrs := func(ns ...*sim.Node) (out []netip.Addr) {
			for _, n := range ns {
				out = append(out, n.Addr)
			}
			return out
		}
		m.Net.Partition(addrs(append(hosts[:3:3], submitter)...), addrs(hosts[3:]...))
		m.Until("two origins", 2*time.Minute, func() bool { return len(holdersOf(m, hosts, id)) == 2 })
		for i, term := range holdersOf(m, hosts, id) {
			if term != 1 {
				t.Errorf("node %d is origin at term %d, want 1", i, term)
			}
		}
		m.Net.HealAll()
		m.Until("one origin", 5*time.Minute, func() bool { return len(holdersOf(m, hosts, id)) == 1 })
		m.Until("answered", 30*time.Minute, func() bool { return submitter.Job(id).Answer != nil })
		a := submitter.Job(id).Answer
		if a.State != tasks.Done || submitter.Read(a.Output) != sim.CountWords(body) {
			t.Errorf("%+v", a)
		}
		sim.Sleep(2 * time.Minute) // whoever has another answer would give it now
		if now := submitter.Job(id).Answer; *now != *a {
			t.Errorf("the answer was %+v and is %+v", a, now)
		}
		for _, n := range hosts {
			v, err := n.Market().Job(context.Background(), id)
			if done := err == nil && v.Status.State == tasks.Done; done != (m.Index(a.Origin) == n.Index) {
				t.Errorf("node %d: done %v, and the answer is of node %d", n.Index, done, m.Index(a.Origin))
			}
		}
	})
}

// grants counts the leases that a node granted at term 1, up or not.
func grants(n *sim.Node, id tasks.JobID) int {
	r, err := n.State().Records(context.Background(), id, 1)
	if err != nil {
		panic(err)
	}
	return len(r.Grants)
}

// The origin of a published job is away until its successor is at work, or has
// answered; the submitter has started again meanwhile, or is away itself. When the
// old origin is back it takes nothing up, says who holds the job, and ends its copy.
func TestOriginReturns(t *testing.T) {
	for name, c := range map[string]struct {
		answered  bool // before it is back
		restarted bool // the submitter, after it has the answer
		away      bool // the submitter, while the old origin comes back
	}{
		"while its successor works":                        {},
		"while its successor works, and the submitter not": {away: true},
		"after the end":                                    {answered: true},
		"after the end, with a restarted submitter":        {answered: true, restarted: true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := sim.Config{Nodes: 6, Service: slow(12 * time.Second), Setup: func(i int, c *node.Config) { c.Light = i == 5 }}
			sim.Run(t, cfg, func(m *sim.Mesh) {
				submitter, hosts := m.Nodes[5], m.Nodes[:5]
				body := text(200)
				id := submitter.Publish(submitter.WordCount(body, 10))
				m.Until("an origin at work", time.Minute, func() bool { return len(holdersOf(m, hosts, id)) == 1 })
				var old, next *sim.Node
				for i := range holdersOf(m, hosts, id) {
					old = m.Nodes[i]
				}
				m.Until("cut into tasks", time.Minute, func() bool { return old.Job(id).Status.Tasks > 0 })
				old.Crash()
				m.Until("a successor", 5*time.Minute, func() bool { return len(holdersOf(m, hosts, id)) == 1 })
				for i, term := range holdersOf(m, hosts, id) {
					if next = m.Nodes[i]; term != 2 {
						t.Fatalf("node %d is origin at term %d, want 2", i, term)
					}
				}
				m.Until("the submitter heard so", time.Minute, func() bool { return submitter.Job(id).Term == 2 })
				if c.answered {
					m.Until("answered", 30*time.Minute, func() bool { return submitter.Job(id).Answer != nil })
					sim.Sleep(time.Minute) // all have heard so
				}
				if c.restarted || c.away {
					submitter.Stop()
				}
				if c.restarted {
					submitter.Start()
				}
				before := grants(old, id)
				old.Start()
				if !c.answered {
					m.Until("the old origin names the new one", time.Minute, func() bool {
						return strings.Contains(why(old, id), next.ID.String()+" is its origin, at term 2")
					})
				}
				if c.away {
					submitter.Start()
				}
				m.Until("answered", 30*time.Minute, func() bool { return submitter.Job(id).Answer != nil })
				if a := submitter.Job(id).Answer; a.Term != 2 || m.Index(a.Origin) != next.Index || submitter.Read(a.Output) != sim.CountWords(body) {
					t.Errorf("the answer is %+v, want one of node %d at term 2", a, next.Index)
				}
				m.Until("the old origin lets go", time.Minute, func() bool { return old.Job(id).Status.State.Over() })
				v := old.Job(id)
				if v.Status.State != tasks.Cancelled || v.Status.Reason != tasks.AnsweredElse || !strings.Contains(v.Status.Detail, "of "+next.ID.String()+", at term 2: ") {
					t.Errorf("the old origin says %v, %v: %s", v.Status.State, v.Status.Reason, v.Status.Detail)
				}
				if now := grants(old, id); now > before {
					t.Errorf("the old origin granted %d leases before it died, and %d since", before, now-before)
				}
			})
		})
	}
}

// A host that did not hear that a job has its answer takes it up, and is told by
// the submitter, also when that one has started again since.
func TestAnsweredIsTold(t *testing.T) {
	cfg := sim.Config{Nodes: 4, Service: slow(12 * time.Second), Setup: func(i int, c *node.Config) { c.Light = i == 3 }}
	sim.Run(t, cfg, func(m *sim.Mesh) {
		submitter, hosts := m.Nodes[3], m.Nodes[:3]
		id := submitter.Publish(submitter.WordCount(text(100), 10))
		m.Until("an origin at work", time.Minute, func() bool { return len(holdersOf(m, hosts, id)) == 1 })
		var keeper *sim.Node
		m.Until("a keeper", time.Minute, func() bool {
			for _, n := range hosts {
				if v, err := n.Market().Job(context.Background(), id); err == nil && !v.Record.Origin() {
					keeper = n
				}
			}
			return keeper != nil
		})
		keeper.Crash()
		m.Until("answered", 30*time.Minute, func() bool { return submitter.Job(id).Answer != nil })
		sim.Sleep(time.Minute) // all others have heard so
		submitter.Stop()
		submitter.Start()
		keeper.Start()
		m.Until("the keeper lets go", 5*time.Minute, func() bool {
			v, err := keeper.Market().Job(context.Background(), id)
			return err != nil || v.Status.State.Over()
		})
	})
}
