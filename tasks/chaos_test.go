package tasks_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"pgregory.net/rapid"
)

// chaos is a mesh whose workers die, come back, lie, dawdle and lose messages,
// and whose origin is killed and restored.
func chaos(r *rapid.T) {
	replicas := uint32(rapid.SampledFrom([]int{1, 1, 2, 3}).Draw(r, "replicas"))
	s := spec(replicas, rapid.Bool().Draw(r, "reduce"))
	s.Retry.Max = 100
	m := newSim(r, rapid.Uint64().Draw(r, "seed"), s, rapid.IntRange(1, 60).Draw(r, "tasks"))
	m.checks = true
	m.loss = rapid.SampledFrom([]float64{0, 0, 0.05, 0.3}).Draw(r, "loss")
	nodes := rapid.IntRange(1, 12).Draw(r, "nodes")
	liars := rapid.IntRange(0, 2).Draw(r, "liars")
	honest := 0
	for i := range max(nodes, int(replicas)+liars) {
		n := m.node(fmt.Sprintf("w%d", i), time.Duration(m.rng.IntN(200))*time.Millisecond, uint32(m.rng.IntN(4)+1), 0.1+m.rng.Float64())
		if i > 0 && i <= liars {
			n.liar = true
		} else {
			honest++
		}
	}
	if replicas == 1 {
		for _, n := range m.nodes {
			n.liar = false
		}
	}
	broken := m.rng.Float64() * 0.2
	plain := m.outcome
	m.outcome = func(n *simNode, ref tasks.Ref) tasks.Outcome {
		if m.rng.Float64() < broken {
			return tasks.Outcome{Reason: tasks.WorkerFault, Detail: "disk"}
		}
		return plain(n, ref)
	}
	m.holds = func(n *simNode, out tasks.CID) tasks.Reason {
		switch {
		case n.dead:
			return tasks.OutputMissing
		case m.rng.Float64() < 0.02:
			return tasks.InputUnavailable
		case n.liar && m.rng.Float64() < 0.3:
			return tasks.OutputMissing
		}
		return tasks.OK
	}
	service := m.service
	m.service = func(n *simNode, ref tasks.Ref) time.Duration {
		d := service(n, ref)
		if m.rng.Float64() < 0.05 {
			d *= 40 // stuck for a while
		}
		return d
	}
	for range rapid.IntRange(0, 12).Draw(r, "deaths") {
		n := m.nodes[m.rng.IntN(len(m.nodes))]
		notice := m.rng.IntN(2) == 0
		m.after(time.Duration(m.rng.IntN(20000))*time.Millisecond, func() {
			if n.dead {
				return
			}
			m.kill(n, notice)
			m.after(time.Duration(m.rng.IntN(20000))*time.Millisecond, func() { m.boot(n) })
		})
	}
	for range rapid.IntRange(0, 3).Draw(r, "restarts") {
		m.after(time.Duration(m.rng.IntN(15000))*time.Millisecond, func() {
			if !m.down && m.finished.IsZero() {
				m.restart(time.Duration(m.rng.IntN(5000)) * time.Millisecond)
			}
		})
	}
	for range rapid.IntRange(0, 2).Draw(r, "pauses") {
		n := m.nodes[m.rng.IntN(len(m.nodes))]
		m.after(time.Duration(m.rng.IntN(10000))*time.Millisecond, func() {
			m.work(n, tasks.SetLimits{Slots: n.slots, Paused: true, Until: m.now.Add(5 * time.Second)})
		})
	}
	m.run(3 * time.Hour)
	m.done()
	if os.Getenv("KITH_CHAOS_LOG") != "" {
		fmt.Printf("%v %+v\n", m.finished.Sub(m.began), m.origin.Status())
	}
}

func TestChaos(t *testing.T) {
	rapid.Check(t, chaos)
}
