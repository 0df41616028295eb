package sim_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
	"github.com/kith-mesh/kith/testnet/sim"
)

// A worker that computes is cut off: from its origin alone, or from everyone. If
// the cut is shorter than its lease it keeps its task; if longer, the task is
// leased to another and the worker delivers when the cut heals; if longer than
// lease and grace it has let go. In each case why says what the origin waits for,
// and every task counts once.
func TestCutAcrossALease(t *testing.T) {
	const grace = time.Minute
	for name, c := range map[string]struct {
		everyone bool
		lasts    time.Duration
		released bool // the task is leased to another
		holds    bool // the worker still has it when the cut heals
	}{
		"shorter than the lease, from its origin":    {false, 4 * time.Second, false, true},
		"longer than the lease, from its origin":     {false, 50 * time.Second, true, true},
		"longer than the grace, from its origin":     {false, 3 * time.Minute, true, false},
		"shorter than the lease, from everyone":      {true, 4 * time.Second, false, true},
		"longer than the lease, from everyone":       {true, 50 * time.Second, true, true},
		"longer than lease and grace, from everyone": {true, 3 * time.Minute, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := sim.Config{Nodes: 4, Silence: 75 * time.Second, Service: slow(10 * time.Minute), Setup: func(i int, c *node.Config) {
				c.Seams.Market = market.Config{NoWork: i == 0, Origin: tasks.OriginConfig{Grace: grace}}
			}}
			sim.Run(t, cfg, func(m *sim.Mesh) {
				origin := m.Nodes[0]
				id := origin.Submit(origin.Numbers(1))
				var worker *sim.Node
				m.Until("leased", time.Minute, func() bool {
					for _, n := range m.Nodes[1:] {
						if n.Running() > 0 {
							worker = n
						}
					}
					return worker != nil
				})
				if c.everyone {
					m.CutOff(worker)
				} else {
					m.Cut(origin, worker)
				}
				cut := time.Now()
				if c.released {
					m.Until("why says that the worker is silent", time.Minute, func() bool { return strings.Contains(why(origin, id), "1 worker not heard for ") })
					m.Until("leased to another", time.Minute, func() bool { return len(origin.Attempts(id, tasks.StageMap)[0].Attempts) > 1 })
				}
				sim.Sleep(c.lasts - time.Since(cut))
				status, _ := worker.Market().Work()
				if holds := status.Jobs > 0; holds != c.holds {
					t.Errorf("after %v the worker has work of %d jobs, want any: %v", c.lasts, status.Jobs, c.holds)
				}
				m.Net.HealAll()
				v := origin.Await(id, time.Hour)
				accepted := uint32(0)
				for _, w := range v.Status.Workers {
					accepted += w.Accepted
				}
				if v.Status.State != tasks.Done || v.Status.Decided != 1 || accepted != 1 {
					t.Errorf("%+v", v.Status)
				}
				if released := v.Status.Releases > 0; released != c.released {
					t.Errorf("%d releases after a cut of %v", v.Status.Releases, c.lasts)
				}
			})
		})
	}
}
