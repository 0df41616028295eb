package sim_test

import (
	"math"
	"testing"
	"time"

	"github.com/kith-mesh/kith/testnet/sim"
)

// The queues of the comparison come to what theory says: one server at a share
// of s, on its own, answers after 1/(1-s) services.
func TestQueuesAreExact(t *testing.T) {
	one := sim.NewLoad(sim.LoadConfig{Seed: 1, Nodes: 1, Latency: sim.Continents(1, 1), Share: 0.5, Warm: 1000, Measured: 400_000})
	for name, placed := range map[string][]sim.Placed{"random": one.Random(1), "oracle": one.Oracle()} {
		if rtt, took := one.Means(placed); rtt != 0 || math.Abs(took-2) > 0.1 {
			t.Errorf("%s: one server at half its load: %.3f s at %.3f s, want 2 at 0", name, took, rtt)
		}
	}
	many := sim.NewLoad(sim.LoadConfig{Seed: 1, Nodes: 30, Latency: sim.Continents(1, 30), Share: 0.7, Warm: 1000, Measured: 50_000})
	randomRTT, randomTook := many.Means(many.Random(1))
	oracleRTT, oracleTook := many.Means(many.Oracle())
	if want := 1/(1-0.7) + randomRTT; math.Abs(randomTook-want) > 0.3 {
		t.Errorf("random: %.3f s, want %.3f", randomTook, want)
	}
	if oracleTook > 1.1 || oracleRTT > randomRTT/3 {
		t.Errorf("oracle: %.3f s at %.3f s, random %.3f s at %.3f s", oracleTook, oracleRTT, randomTook, randomRTT)
	}
}

// A short load on a small mesh: the whole way that the measure goes, and bounds
// that hold for any seed.
func TestLoadGoesNear(t *testing.T) {
	lat := sim.Continents(2, 15)
	l := sim.NewLoad(sim.LoadConfig{Seed: 2, Nodes: 15, Latency: lat, Share: 0.4, Warm: 20, Measured: 60})
	sim.Run(t, sim.Config{Nodes: 15, Seed: 2, Latency: lat, Service: l.ServiceOf, Settle: 20 * time.Second}, func(m *sim.Mesh) {
		placed, cost := m.Bear(l)
		rtt, took := l.Means(placed)
		random, _ := l.Means(l.Random(2))
		_, oracle := l.Means(l.Oracle())
		t.Logf("%.1f ms, %.2f s; random %.1f ms, oracle %.2f s; %+v", rtt*1000, took, random*1000, oracle, cost)
		if rtt > random/2 {
			t.Errorf("work went %.1f ms far, at random it goes %.1f", rtt*1000, random*1000)
		}
		if took > 1.6*oracle {
			t.Errorf("jobs took %.2f s, the oracle's %.2f", took, oracle)
		}
		if cost.Offers == 0 || cost.Task == 0 {
			t.Errorf("no messages were counted: %+v", cost)
		}
	})
}
