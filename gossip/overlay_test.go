package gossip

import (
	"testing"
	"time"
)

const (
	meshNodes = 60
	meshWarm  = 2 * time.Minute
	// An offer to a continent's dozen nearest may cost so many copies: a flood of
	// the same graph costs its whole degree at every node.
	meshCopies = 300
)

func TestOffersReachTheNear(t *testing.T) {
	inMesh(t, meshNodes, Config{}, meshWarm, func(m *testMesh) {
		recall, degree := m.links()
		e := m.predictionError()
		r := m.reach(10)
		t.Logf("links: recall %.2f, degree %.1f; median error of predictions %.2f; offers reach %.2f of those inside, %.2f of the true 12 nearest, %.0f copies each; %d connections",
			recall, degree, e, r.inside, r.nearest, r.copies, m.net.Connections())
		if recall < 0.85 {
			t.Errorf("%.2f of the six nearest are linked, want at least 0.85", recall)
		}
		if e > 0.3 {
			t.Errorf("predictions are off by %.2f in the median, want at most 0.3", e)
		}
		if r.inside < 0.95 || r.nearest < 0.85 {
			t.Errorf("offers reach %.2f of those inside and %.2f of the true 12 nearest, want at least 0.95 and 0.85", r.inside, r.nearest)
		}
		if r.copies > meshCopies {
			t.Errorf("%.0f copies an offer, want at most %d", r.copies, meshCopies)
		}
	})
}
