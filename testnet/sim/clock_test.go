package sim_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/testnet/sim"
)

// clocks are how far each node's wall clock is ahead of the true time.
type clocks []atomic.Int64

func (c clocks) set(i int, d time.Duration) { c[i].Store(int64(d)) }

func (c clocks) setup(i int, cfg *node.Config) {
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(c[i].Load())) }
}

// Nodes whose clocks stand an hour apart run each other's jobs as others do.
func TestClocksApart(t *testing.T) {
	at := make(clocks, 5)
	at.set(1, time.Hour)
	at.set(3, time.Hour)
	sim.Run(t, sim.Config{Setup: func(i int, c *node.Config) { at.setup(i, c); c.Light = i == 4 }}, func(m *sim.Mesh) {
		for i := range 2 {
			origin := m.Nodes[i]
			spec := origin.Numbers(20)
			spec.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 3}
			if v := origin.Await(origin.Submit(spec), time.Minute); v.Status.State != tasks.Done || v.Status.Releases > 0 {
				t.Errorf("at node %d: %+v", i, v.Status)
			}
		}
		id := m.Nodes[4].Publish(m.Nodes[4].WordCount(text(100), 10))
		m.Until("answered", 2*time.Minute, func() bool { return m.Nodes[4].Job(id).Answer != nil })
	})
}

// A clock jumps by an hour, forward and back, while a job runs: its leases neither
// end at once nor live for ever, and what comes later is heard at once.
func TestClockJumps(t *testing.T) {
	for name, c := range map[string]struct {
		who  int
		jump time.Duration
	}{
		"the origin's, forward": {0, time.Hour}, "a worker's, forward": {1, time.Hour},
		"the origin's, back": {0, -time.Hour}, "a worker's, back": {1, -time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			at := make(clocks, 5)
			cfg := sim.Config{Service: slow(40 * time.Second), Setup: func(i int, c *node.Config) { at.setup(i, c); c.Seams.Market.NoWork = i == 0 }}
			sim.Run(t, cfg, func(m *sim.Mesh) {
				origin, worker := m.Nodes[0], m.Nodes[1]
				for _, jump := range []time.Duration{c.jump, 0} {
					id := origin.Submit(origin.Numbers(16))
					m.Until("the worker works", time.Minute, func() bool { return worker.Running() > 0 })
					at.set(c.who, jump)
					v := origin.Await(id, 10*time.Minute)
					if v.Status.State != tasks.Done || v.Status.Releases > 0 {
						t.Errorf("after a jump to %v: %+v", jump, v.Status)
					}
					if n := len(m.Nodes[c.who].Host().Members()); n != 4 {
						t.Errorf("after a jump to %v it has %d members", jump, n)
					}
				}
				id := origin.Submit(origin.Numbers(16))
				m.Until("the worker works", time.Minute, func() bool { return worker.Running() > 0 })
				at.set(c.who, c.jump)
				worker.Kill()
				at.set(c.who, 0)
				m.Until("its task is leased to another", 2*time.Minute, func() bool { return origin.Job(id).Status.Releases > 0 })
				if v := origin.Await(id, 10*time.Minute); v.Status.State != tasks.Done {
					t.Errorf("%+v", v.Status)
				}
			})
		})
	}
}

// A node whose clock is a day off is not let in; a job that waits for workers says
// so, and goes on when the clock is right.
func TestClockFarOff(t *testing.T) {
	at := make(clocks, 2)
	sim.Run(t, sim.Config{Nodes: 2, Silence: time.Minute, Setup: func(i int, c *node.Config) { at.setup(i, c); c.Seams.Market.NoWork = i == 0 }}, func(m *sim.Mesh) {
		origin := m.Nodes[0]
		at.set(1, 48*time.Hour)
		m.Until("it is let go", 5*time.Minute, func() bool { return len(origin.Host().Members()) == 0 })
		id := origin.Submit(origin.Numbers(4))
		m.Until("why names the clocks", 5*time.Minute, func() bool {
			return strings.Contains(why(origin, id), "1 not let in, since the clocks are more than an hour apart")
		})
		at.set(1, 0)
		if v := origin.Await(id, 15*time.Minute); v.Status.State != tasks.Done {
			t.Errorf("%+v", v.Status)
		}
	})
}
