package sim

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// Survey is what jobs of a mesh showed about where their work went and what it
// cost. Its checks say what of it would be wrong in a mesh of three continents.
type Survey struct {
	Jobs   int
	Near   float64 // mean round trip to the workers, over that to as many truly nearest; 1 is the best
	Reach  float64 // share of the truly nearest (as many as tasks) that got the offer
	Strays float64 // nodes a job beyond Far that got the offer
	Copies float64 // copies of offers a job
	PerJob float64 // stream messages a job
	Tasks  uint32  // a job
}

// The bounds of the checks.
const (
	Far        = 60 * time.Millisecond // round trips above it lead to another continent
	maxNear    = 1.3
	minReach   = 0.85
	maxStrays  = 3
	maxCopies  = 600
	maxPerTask = 27
	maxError   = 0.15
)

func (s Survey) String() string {
	return fmt.Sprintf("%d jobs of %d tasks: workers at %.2f of the nearest's round trip, offers reach %.2f of the nearest and %.1f far nodes, %.0f copies and %.1f stream messages a task",
		s.Jobs, s.Tasks, s.Near, s.Reach, s.Strays, s.Copies, s.PerJob/float64(s.Tasks))
}

// CheckNear: a job's tasks go to near peers.
func (s Survey) CheckNear() error {
	if s.Near > maxNear {
		return fmt.Errorf("workers are at %.2f times the round trip of the nearest, want at most %.2f", s.Near, maxNear)
	}
	return nil
}

// CheckReach: an offer comes to those who are near.
func (s Survey) CheckReach() error {
	if s.Reach < minReach {
		return fmt.Errorf("offers reach %.2f of the nearest, want at least %.2f", s.Reach, minReach)
	}
	return nil
}

// CheckContained: an offer stays inside its radius.
func (s Survey) CheckContained() error {
	if s.Strays > maxStrays {
		return fmt.Errorf("offers reach %.1f far nodes, want at most %d", s.Strays, maxStrays)
	}
	return nil
}

// CheckMessages: what a job costs does not grow with the mesh.
func (s Survey) CheckMessages() error {
	if s.Copies > maxCopies {
		return fmt.Errorf("%.0f copies of offers a job, want at most %d", s.Copies, maxCopies)
	}
	if perTask := s.PerJob / float64(s.Tasks); perTask > maxPerTask {
		return fmt.Errorf("%.1f stream messages a task, want at most %d", perTask, maxPerTask)
	}
	return nil
}

// Survey runs a job of so many tasks on each of some nodes, one after the other.
// There should be as many free slots near a node as a job has tasks.
func (m *Mesh) Survey(origins []int, count uint32) Survey {
	m.t.Helper()
	s := Survey{Jobs: len(origins), Tasks: count}
	for _, i := range origins {
		n := m.Nodes[i]
		traffic, had := m.Traffic(), m.delivered()
		v := n.Await(n.Submit(n.Numbers(count)), 10*time.Minute)
		if v.Status.State != tasks.Done {
			m.t.Fatalf("job on node %d: %v, %v %s", i, v.Status.State, v.Status.Reason, v.Status.Detail)
		}
		Sleep(time.Second) // the last copies of offers, and of verdicts
		got := m.delivered()
		cost := m.Traffic().Sub(traffic)
		nearest := m.Latency.Nearest(i)
		s.Near += m.nearness(i, nearest, v.Status.Workers)
		for rank, j := range nearest {
			if got[j] == had[j] {
				continue
			}
			if rank < int(count) {
				s.Reach += 1 / float64(count)
			}
			if m.Latency.RTT(i, j) > Far {
				s.Strays++
			}
		}
		s.Copies += float64(cost.Offers)
		s.PerJob += float64(cost.Task)
		Sleep(5 * time.Second) // bids and leases of this job are over
	}
	for _, sum := range []*float64{&s.Near, &s.Reach, &s.Strays, &s.Copies, &s.PerJob} {
		*sum /= float64(len(origins))
	}
	return s
}

// nearness compares the workers of a job, its origin left out, with the nearest.
func (m *Mesh) nearness(origin int, nearest []int, workers []tasks.WorkerShare) float64 {
	var took, best time.Duration
	var done, k int
	for _, w := range workers {
		j := m.Index(w.Worker)
		if j == origin || j < 0 || w.Accepted == 0 {
			continue
		}
		took += m.Latency.RTT(origin, j) * time.Duration(w.Accepted)
		done += int(w.Accepted)
		best += m.Latency.RTT(origin, nearest[k])
		k++
	}
	if done == 0 {
		return 1 // all at home
	}
	return (float64(took) / float64(done)) / (float64(best) / float64(k))
}

// delivered is how many offers each node took so far.
func (m *Mesh) delivered() []int64 {
	out := make([]int64, len(m.Nodes))
	for i, n := range m.Nodes {
		if n.Node != nil {
			out[i] = n.Gossip().Stats().Delivered
		}
	}
	return out
}

// PredictionError is the median relative error of what the coordinates of some
// nodes predict for the round trips to all others.
func (m *Mesh) PredictionError(of []int) float64 {
	var errs []float64
	for _, i := range of {
		at := m.Nodes[i].Host()
		for j, o := range m.Nodes {
			if j != i && o.Node != nil {
				rtt := m.Latency.RTT(i, j)
				errs = append(errs, math.Abs(float64(at.Distance(o.Host().Coordinate())-rtt))/float64(rtt))
			}
		}
	}
	slices.SortFunc(errs, cmp.Compare)
	return errs[len(errs)/2]
}

// CheckPredictions: coordinates tell how far others are.
func (m *Mesh) CheckPredictions(of []int) error {
	if e := m.PredictionError(of); e > maxError {
		return fmt.Errorf("predictions of round trips are off by %.2f in the median, want at most %.2f", e, maxError)
	}
	return nil
}

// CheckFollows: after nodes moved, coordinates come to tell how far others are
// now, within a time that is let pass.
func (m *Mesh) CheckFollows(moved []int, within time.Duration) error {
	for end := time.Now().Add(within); ; Sleep(20 * time.Second) {
		err := m.CheckPredictions(moved)
		if err == nil {
			return nil
		}
		if !time.Now().Before(end) {
			return fmt.Errorf("%v after a move: %w", within, err)
		}
	}
}
