package sim_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/testnet/sim"
)

// slow makes every task take long against leases and heartbeats.
func slow(d time.Duration) func(int, tasks.Execution) time.Duration {
	return func(int, tasks.Execution) time.Duration { return d }
}

// attemptsOf are a worker's assignments that the origin remembers.
func attemptsOf(origin *sim.Node, id tasks.JobID, worker *sim.Node) (list []tasks.AttemptStatus) {
	for _, task := range origin.Attempts(id, tasks.StageMap) {
		for _, a := range task.Attempts {
			if a.Worker == tasks.PeerID(worker.ID.String()) {
				list = append(list, a)
			}
		}
	}
	return list
}

// why is what a job waits for, as one text.
func why(n *sim.Node, id tasks.JobID) string {
	var b strings.Builder
	for _, w := range n.Job(id).Why {
		b.WriteString(w.Text + "\n")
	}
	return b.String()
}

// A worker dies together with the origin. The origin that is back asks the
// workers of before: one that started anew has nothing left, and one that is gone
// is not waited for as long as a lease may last. One that lives goes on.
func TestWorkerDiesWithOrigin(t *testing.T) {
	for name, c := range map[string]struct {
		back   bool          // the worker starts again
		within time.Duration // of the origin's being back, its task is free
		says   string
	}{
		"for good": {false, 11 * time.Second, "not heard since this node started again"},
		"and back": {true, 2 * time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			sim.Run(t, sim.Config{Service: slow(40 * time.Second)}, func(m *sim.Mesh) {
				origin, worker, other := m.Nodes[0], m.Nodes[3], m.Nodes[2]
				id := origin.Submit(origin.Numbers(5))
				m.Until("both work", time.Minute, func() bool { return worker.Running() > 0 && other.Running() > 0 })
				origin.Crash()
				worker.Crash()
				if c.back {
					worker.Start()
				}
				origin.Start()
				back := time.Now()
				m.Until("the job is in hand", time.Second, func() bool { return len(attemptsOf(origin, id, worker)) > 0 })
				if c.says != "" {
					m.Until("why says that the worker is missing", c.within, func() bool { return strings.Contains(why(origin, id), c.says) })
				}
				m.Until("its task is free", c.within-time.Since(back), func() bool {
					list := attemptsOf(origin, id, worker) // people are shown a step once it is durable
					return len(list) > 0 && list[0].State == tasks.AttemptLost
				})
				if a := attemptsOf(origin, id, other); len(a) == 0 || a[0].State != tasks.AttemptHeld {
					t.Errorf("the worker that lives has lost its lease: %+v", a)
				}
				if v := origin.Await(id, 10*time.Minute); v.Status.State != tasks.Done || v.Status.Decided != 5 {
					t.Errorf("%+v", v.Status)
				}
				if n := len(other.Runs()); n > 2 {
					t.Errorf("the worker that lives ran %d tasks of 5: it was given one twice", n)
				}
			})
		})
	}
}
