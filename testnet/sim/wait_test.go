package sim_test

import (
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/testnet/sim"
)

// A job that has waited long, and so is offered once a minute, does not wait for
// that when somebody comes who can do it.
func TestWaitingJobStartsWhenSomebodyCan(t *testing.T) {
	pause := func(n *sim.Node, paused bool) { n.Market().SetLimits(tasks.SetLimits{Slots: 1, Paused: paused}) }
	for name, come := range map[string]func(*sim.Node){
		"a pause ends":   func(n *sim.Node) { pause(n, false) },
		"a member comes": (*sim.Node).Start,
	} {
		t.Run(name, func(t *testing.T) {
			sim.Run(t, sim.Config{Nodes: 4}, func(m *sim.Mesh) {
				for _, n := range m.Nodes {
					pause(n, true)
				}
				origin, able := m.Nodes[0], m.Nodes[3]
				if name == "a member comes" {
					able.Stop()
				}
				sim.Sleep(time.Second)
				id := origin.Submit(origin.Numbers(1))
				sim.Sleep(5*time.Minute + 10*time.Second)
				come(able)
				began := time.Now()
				origin.Await(id, 10*time.Second)
				t.Logf("done %v later", time.Since(began))
			})
		})
	}
}
