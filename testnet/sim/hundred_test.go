package sim_test

import (
	"errors"
	"testing"
	"time"

	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/testnet/sim"
)

// The jobs of a survey come from all three continents, and have as many tasks as
// an offer should find workers nearby.
var (
	origins  = []int{0, 20, 40, 61, 82, 98}
	jobTasks = uint32(12)
)

const settle = 45 * time.Second

// inHundred runs f in a mesh of a hundred nodes on three continents. Exchanges go
// on at a third of the usual interval, so that less time shows as much.
func inHundred(t *testing.T, cfg sim.Config, f func(m *sim.Mesh)) {
	t.Helper()
	if testing.Short() {
		t.Skip("a hundred nodes take seconds of CPU")
	}
	t.Parallel()
	cfg.Nodes = 100
	if cfg.Settle == 0 {
		cfg.Settle = settle
	}
	cfg.Setup = func(_ int, c *node.Config) { c.Seams.Network.Neighbourhood.Slow = 5 * time.Second }
	sim.Run(t, cfg, f)
}

// move has ten nodes of one continent and ten of another change places.
func move(m *sim.Mesh) (moved []int) {
	for i := 0; i < 30; i += 3 {
		m.Latency.Swap(i, i+1)
		moved = append(moved, i, i+1)
	}
	return moved
}

// follow is how long coordinates may take to follow a move.
const follow = 4 * time.Minute

func TestHundred(t *testing.T) {
	inHundred(t, sim.Config{}, func(m *sim.Mesh) {
		s := m.Survey(origins, jobTasks)
		t.Logf("%v; predictions off by %.2f; %d connections", s, m.PredictionError(origins), m.Net.Connections())
		for _, err := range []error{s.CheckNear(), s.CheckReach(), s.CheckContained(), s.CheckMessages(), m.CheckPredictions(origins)} {
			if err != nil {
				t.Error(err)
			}
		}
		moved, start := move(m), time.Now()
		err := m.CheckFollows(moved, follow)
		t.Logf("%v after a move: predictions off by %.2f", time.Since(start), m.PredictionError(moved))
		if err != nil {
			t.Error(err)
		}
	})
}

// Flooding instead of the radius.
func TestFloodingIsCaught(t *testing.T) {
	inHundred(t, sim.Config{Flood: true}, func(m *sim.Mesh) {
		s := m.Survey(origins, jobTasks)
		t.Log(s)
		if s.CheckContained() == nil || s.CheckMessages() == nil {
			t.Error("offers that ignore their radius pass the checks: they show nothing")
		}
	})
}

// A random overlay instead of the neighbourhood.
func TestNoOverlayIsCaught(t *testing.T) {
	inHundred(t, sim.Config{Random: true}, func(m *sim.Mesh) {
		s := m.Survey(origins, jobTasks)
		t.Log(s)
		if errors.Join(s.CheckReach(), s.CheckNear()) == nil {
			t.Error("offers over a random overlay pass the checks: they show nothing")
		}
	})
}

// Coordinates that are given are right until the network changes.
func TestGivenCoordinatesAreCaught(t *testing.T) {
	inHundred(t, sim.Config{Given: true, Settle: 20 * time.Second}, func(m *sim.Mesh) {
		if err := m.CheckPredictions(origins); err != nil {
			t.Errorf("at the start: %v", err)
		}
		err := m.CheckFollows(move(m), follow)
		t.Log(err)
		if err == nil {
			t.Error("given coordinates pass the check after a move: it shows nothing")
		}
	})
}
