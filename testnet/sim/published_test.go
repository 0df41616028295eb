package sim_test

import (
	"context"
	"net/netip"
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
