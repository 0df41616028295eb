package sim_test

import (
	"cmp"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/testnet/bench"
	"github.com/kith-mesh/kith/testnet/sim"
)

// The measure locality: see docs/benchmarks.md. `make bench-locality` runs it.
// KITH_BENCH names its cases, or is "locality" for all; a case of another mesh
// or load is measured with KITH_BENCH_NODES and KITH_BENCH_SHARE.
func TestBenchLocality(t *testing.T) {
	want := strings.Split(os.Getenv("KITH_BENCH"), ",")
	if want[0] == "" {
		t.Skip("KITH_BENCH is not set: the measure takes minutes")
	}
	wants := func(name string) bool {
		for _, w := range want {
			if w == "locality" || w == name {
				return true
			}
		}
		return false
	}
	emit := func(l bench.Line) {
		l.Bench = "locality"
		if err := l.WriteJSON(os.Stdout); err != nil {
			t.Error(err)
		}
		if l.Missed() {
			t.Errorf("%s: %.3f %s, want %s", l.Case, l.Value, l.Unit, l.Goal)
		}
	}
	nodes, seeds := envInt(t, "KITH_BENCH_NODES", 100), envInt(t, "KITH_BENCH_SEEDS", 3)
	large := envInt(t, "KITH_BENCH_LARGE", 400)
	// One large mesh serves all its cases: it takes the most CPU to place itself.
	big := sync.OnceValue(func() borne {
		return bear(t, loadOf{nodes: large, seed: 1, warm: 1000, settle: 150, reach: wants("reach/400") || wants("nearest/400"), idle: !wants("messages/400")})
	})
	// Four hundred nodes live in 2 GB: TestMain's bound would have them collect all the time.
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(10 << 30))
	if wants("score") || wants("messages/100") || wants("messages/400") {
		var uniform borne
		for seed := range seeds {
			uniform.add(bear(t, loadOf{nodes: nodes, seed: uint64(seed + 1)}), seeds)
		}
		emit(bench.Line{Case: "score", Value: (uniform.random - uniform.rtt) / (uniform.random - uniform.best), Unit: "of 1",
			Note: uniform.String()}.ValueAtLeast(0.85))
		emit(bench.Line{Case: "uniform", Value: uniform.took, Unit: "s"}.With("oracle", uniform.oracle).RatioAtMost(1.4))
		emit(bench.Line{Case: "messages/100", Value: uniform.messages(), Unit: "messages a task", Note: uniform.costs()})
		if wants("messages/400") {
			measured := big()
			emit(bench.Line{Case: "messages/400", Value: measured.messages(), Unit: "messages a task", Note: measured.costs()}.
				With("messages/100", uniform.messages()).RatioWithin(0.2))
		}
	}
	if wants("hotspot") {
		var hot borne
		for seed := range seeds {
			hot.add(bear(t, loadOf{nodes: nodes, seed: uint64(seed + 1), hot: true}), seeds)
		}
		emit(bench.Line{Case: "hotspot", Value: hot.took, Unit: "s", Note: hot.String()}.With("oracle", hot.oracle).RatioAtMost(1.4))
	}
	if wants("rings-only") {
		b := bear(t, loadOf{nodes: nodes, seed: 1, hot: true, rings: true})
		l := bench.Line{Case: "rings-only", Value: b.took, Unit: "s", Note: "hotspot without far probes, which must fail it: " + b.String()}.
			With("oracle", b.oracle).RatioAtLeast(1.4)
		emit(l)
	}
	if wants("reach/400") || wants("nearest/400") {
		r := big().reach
		note := "radius " + r.Radius.String() + ", taken by " + strconv.FormatFloat(r.Took, 'f', 1, 64) + " nodes, " + strconv.FormatFloat(r.Copies, 'f', 0, 64) + " copies"
		emit(bench.Line{Case: "reach/400", Value: r.Inside, Unit: "of those inside the radius", Note: note}.ValueAtLeast(0.95))
		emit(bench.Line{Case: "nearest/400", Value: r.Nearest, Unit: "of the nearest 12"}.ValueAtLeast(0.85))
	}
}

func envInt(t *testing.T, name string, otherwise int) int {
	v, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(otherwise)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// loadOf is one run of the measure.
type loadOf struct {
	nodes      int
	seed       uint64
	warm       int  // jobs before those measured; 700, ten seconds of a hundred nodes
	settle     int  // seconds before that; 45. More nodes take longer to find the nearest
	hot, rings bool // five nodes of one continent submit all; no far probes
	reach      bool // before the load, 20 nodes offer a job each
	idle       bool // no load at all
}

// borne is what a run came to, or the mean of several. Seconds.
type borne struct {
	rtt, random, best float64 // round trip to the worker: ours, at random, the oracle's
	took, oracle      float64 // mean completion
	offers, others    float64 // messages a task
	reach             sim.Reach
}

func (b *borne) add(o borne, of int) {
	n := float64(of)
	for _, f := range []struct {
		sum *float64
		one float64
	}{{&b.rtt, o.rtt}, {&b.random, o.random}, {&b.best, o.best}, {&b.took, o.took}, {&b.oracle, o.oracle},
		{&b.offers, o.offers}, {&b.others, o.others}} {
		*f.sum += f.one / n
	}
}

func (b borne) messages() float64 { return b.offers + b.others }

func (b borne) String() string {
	return "rtt " + ms(b.rtt) + ", random " + ms(b.random) + ", oracle " + ms(b.best)
}

func (b borne) costs() string {
	return strconv.FormatFloat(b.offers, 'f', 1, 64) + " copies of offers, " + strconv.FormatFloat(b.others, 'f', 1, 64) + " of bids, probes, leases and reports"
}

func ms(s float64) string { return strconv.FormatFloat(s*1000, 'f', 1, 64) + " ms" }

func bear(t *testing.T, c loadOf) (b borne) {
	lat := sim.Continents(c.seed, c.nodes)
	cfg := sim.LoadConfig{Seed: c.seed, Nodes: c.nodes, Latency: lat, Share: float64(envInt(t, "KITH_BENCH_SHARE", 70)) / 100,
		Warm: cmp.Or(c.warm, 700), Measured: envInt(t, "KITH_BENCH_JOBS", 1000)}
	if c.hot {
		cfg.Origins = []int{0, 3, 6, 9, 12}
	}
	l := sim.NewLoad(cfg)
	b.random, _ = l.Means(l.Random(c.seed))
	b.best, b.oracle = l.Means(l.Oracle())
	mesh := sim.Config{Nodes: c.nodes, Seed: c.seed, Latency: lat, Service: l.ServiceOf, Settle: time.Duration(envInt(t, "KITH_BENCH_SETTLE", cmp.Or(c.settle, 45))) * time.Second}
	if c.rings {
		mesh.Setup = func(_ int, n *node.Config) {
			n.Seams.Market.Origin.Probes, n.Seams.Market.Origin.MaxRadius = -1, sim.Far
		}
	}
	sim.Run(t, mesh, func(m *sim.Mesh) {
		if c.reach {
			var from []int
			for i := range 20 {
				from = append(from, i*c.nodes/20+i%3)
			}
			b.reach = m.Reach(from, 12)
		}
		if c.idle {
			return
		}
		placed, cost := m.Bear(l)
		b.rtt, b.took = l.Means(placed)
		n := float64(cfg.Measured)
		b.offers, b.others = float64(cost.Offers)/n, float64(cost.Task)/n
	})
	return b
}
