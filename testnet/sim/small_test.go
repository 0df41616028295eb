package sim_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/testnet/sim"
)

// text has n lines of a few words.
func text(n int) string {
	words := strings.Fields("the mesh runs near work first and loses nothing that it accepted")
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s %s %s\n", words[i%len(words)], words[i*i%len(words)], words[i*7/3%len(words)])
	}
	return b.String()
}

// job is a word count on one node.
type job struct {
	t    *testing.T
	m    *sim.Mesh
	n    *sim.Node
	body string
	id   tasks.JobID
}

func count(t *testing.T, m *sim.Mesh, n *sim.Node, change func(s *tasks.Spec)) *job {
	t.Helper()
	j := &job{t: t, m: m, n: n, body: text(400)}
	spec := n.WordCount(j.body, 10)
	if change != nil {
		change(&spec)
	}
	j.id = n.Submit(spec)
	return j
}

// halfway waits until a third of the tasks is decided and the worker runs one.
func (j *job) halfway(worker *sim.Node) {
	j.t.Helper()
	j.m.Until("a third of the tasks, and one running", time.Minute, func() bool {
		return j.n.Job(j.id).Status.Decided >= 13 && worker.Running() > 0
	})
}

// counts waits for the end and compares.
func (j *job) counts() tasks.JobStatus {
	j.t.Helper()
	v := j.n.Await(j.id, 10*time.Minute)
	if got, want := j.n.Output(v), sim.CountWords(j.body); got != want {
		j.t.Errorf("counted\n%s\nwant\n%s", got, want)
	}
	if v.Status.Decided != v.Status.Tasks || v.Status.Tasks != 41 {
		j.t.Errorf("%d of %d tasks decided, want 41 of 41", v.Status.Decided, v.Status.Tasks)
	}
	return v.Status
}

func TestJobAcrossTheMesh(t *testing.T) {
	for name, cold := range map[string]bool{"warm": false, "cold": true} {
		t.Run(name, func(t *testing.T) {
			sim.Run(t, sim.Config{Cold: cold}, func(m *sim.Mesh) {
				s := count(t, m, m.Nodes[1], nil).counts()
				if len(s.Workers) < 3 || s.Failures > 0 {
					t.Errorf("%d workers, %d failures: %+v", len(s.Workers), s.Failures, s.Workers)
				}
				for _, w := range s.Workers {
					i := m.Index(w.Worker)
					if rtt := m.Latency.RTT(1, i); i != 1 && (w.RTT < rtt || w.RTT > rtt+5*time.Millisecond) {
						t.Errorf("node %d measured at %v, is at %v", i, w.RTT, rtt)
					}
				}
			})
		})
	}
}

func TestTasksOfTheDeadAreLeasedAgain(t *testing.T) {
	for name, die := range map[string]func(*sim.Node){"killed": (*sim.Node).Kill, "crashed": (*sim.Node).Crash, "stopped": (*sim.Node).Stop} {
		t.Run(name, func(t *testing.T) {
			sim.Run(t, sim.Config{}, func(m *sim.Mesh) {
				worker := m.Nodes[3]
				j := count(t, m, m.Nodes[0], nil)
				j.halfway(worker)
				die(worker)
				if s := j.counts(); s.Releases == 0 {
					t.Errorf("nothing was leased again: %+v", s)
				}
			})
		})
	}
}

func TestCutAndHeal(t *testing.T) {
	for name, c := range map[string]struct {
		whole bool // the origin from everyone, not from one worker
		lasts time.Duration
	}{
		"worker, shortly":  {false, 4 * time.Second},
		"worker, for long": {false, 40 * time.Second},
		"origin, shortly":  {true, 4 * time.Second},
		"origin, for long": {true, 3 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			sim.Run(t, sim.Config{}, func(m *sim.Mesh) {
				origin, worker := m.Nodes[0], m.Nodes[3]
				j := count(t, m, origin, nil)
				j.halfway(worker)
				if c.whole {
					m.CutOff(origin)
				} else {
					m.Cut(origin, worker)
				}
				sim.Sleep(c.lasts)
				m.Net.HealAll()
				j.counts()
				// Whoever was away works again.
				before := len(worker.Runs())
				m.Until("the mesh has joined again", 5*time.Minute, func() bool { return origin.Host().IsMember(worker.ID) })
				count(t, m, origin, nil).counts()
				if len(worker.Runs()) == before {
					t.Error("the worker that was cut off runs nothing any more")
				}
			})
		})
	}
}

func TestOriginRestarts(t *testing.T) {
	for name, c := range map[string]struct {
		die  func(*sim.Node)
		away time.Duration
	}{
		"killed":             {(*sim.Node).Kill, 20 * time.Second},
		"crashed":            {(*sim.Node).Crash, 0},
		"stopped":            {(*sim.Node).Stop, time.Second},
		"away a few minutes": {(*sim.Node).Crash, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			sim.Run(t, sim.Config{}, func(m *sim.Mesh) {
				origin := m.Nodes[0]
				j := count(t, m, origin, nil)
				j.halfway(m.Nodes[3])
				done := j.n.Job(j.id).Status.Decided
				c.die(origin)
				sim.Sleep(c.away)
				origin.Start()
				m.Until("all that was decided is known again", 5*time.Second, func() bool { return j.n.Job(j.id).Status.Decided >= done })
				j.counts()
				ran := 0
				for _, n := range m.Nodes {
					ran += len(n.Runs())
				}
				if ran > 2*41 {
					t.Errorf("%d runs of 41 tasks", ran)
				}
			})
		})
	}
}

func TestLiarIsOutvoted(t *testing.T) {
	for _, replicas := range []uint32{2, 3} {
		t.Run(fmt.Sprintf("quorum of %d", replicas), func(t *testing.T) {
			sim.Run(t, sim.Config{}, func(m *sim.Mesh) {
				origin, liar := m.Nodes[0], m.Nodes[3]
				liar.Lie(func(honest []byte) []byte { return append([]byte("lies 1000\n"), honest...) })
				j := count(t, m, origin, func(s *tasks.Spec) {
					s.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: replicas}
				})
				s := j.counts()
				if len(liar.Runs()) == 0 {
					t.Fatal("the liar ran nothing")
				}
				var lies uint32
				for _, w := range s.Workers {
					if m.Index(w.Worker) == liar.Index {
						lies = w.Rejected
						if w.Accepted > 0 {
							t.Errorf("%d lies were accepted", w.Accepted)
						}
					} else if w.Rejected > 0 {
						t.Errorf("%d honest answers of node %d were rejected", w.Rejected, m.Index(w.Worker))
					}
				}
				if lies == 0 {
					t.Error("no lie was rejected")
				}
				for _, task := range origin.Attempts(j.id, tasks.StageMap) {
					agreed := map[tasks.PeerID]bool{}
					for _, a := range task.Attempts {
						if a.State == tasks.AttemptAccepted {
							agreed[a.Worker] = true
						}
					}
					if len(agreed) < 2 {
						t.Errorf("task %v was accepted on the word of %d peers", task.Ref, len(agreed))
					}
				}
			})
		})
	}
}

// Without a second opinion a lie stands: what the quorum is worth.
func TestLiarWithoutQuorum(t *testing.T) {
	sim.Run(t, sim.Config{}, func(m *sim.Mesh) {
		m.Nodes[3].Lie(func(honest []byte) []byte { return append([]byte("lies 1000\n"), honest...) })
		j := count(t, m, m.Nodes[0], nil)
		if got := j.n.Output(j.n.Await(j.id, 10*time.Minute)); !strings.Contains(got, "lies") {
			t.Error("the lie is gone without a quorum: the test of the quorum shows nothing")
		}
	})
}

// A member that runs no job service publishes a job, others adopt it, and it
// gets one answer; also when the origin dies half-way.
func TestPublish(t *testing.T) {
	for name, die := range map[string]bool{"adopted": false, "origin dies": true} {
		t.Run(name, func(t *testing.T) {
			cfg := sim.Config{Setup: func(i int, c *node.Config) { c.Light = i == 4 }}
			sim.Run(t, cfg, func(m *sim.Mesh) {
				n := m.Nodes[4]
				body := text(400)
				id := n.Publish(n.WordCount(body, 10))
				if die {
					var origin *sim.Node
					m.Until("adopted", time.Minute, func() bool {
						i := m.Index(n.Job(id).Origin)
						if i >= 0 {
							origin = m.Nodes[i]
						}
						return i >= 0
					})
					sim.Sleep(3 * time.Second)
					origin.Crash()
				}
				m.Until("answered", 10*time.Minute, func() bool { return n.Job(id).Answer != nil })
				a := n.Job(id).Answer
				if a.State != tasks.Done {
					t.Fatalf("%+v", a)
				}
				if got := n.Read(a.Output); got != sim.CountWords(body) {
					t.Errorf("counted\n%s\nwant\n%s", got, sim.CountWords(body))
				}
				if m.Index(a.Origin) < 0 || a.Origin == tasks.PeerID(n.ID.String()) {
					t.Errorf("the answer is from %s", a.Origin)
				}
			})
		})
	}
}
