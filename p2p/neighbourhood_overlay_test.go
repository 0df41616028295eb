package p2p

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// overlays runs many overlays against each other in one loop, without a
// network: a step takes effect at once, and the round trip it would have
// measured comes from a matrix.
type overlays struct {
	t     *testing.T
	rtt   [][]time.Duration
	nodes []*overlay
	dead  map[int]bool
	at    map[peer.ID]int
	conns map[[2]int]bool
	now   time.Time

	meets, hints, dials, links int
}

func newOverlays(t *testing.T, rtt [][]time.Duration, cfg NeighbourhoodConfig) *overlays {
	s := &overlays{t: t, rtt: rtt, at: map[peer.ID]int{}, conns: map[[2]int]bool{}, dead: map[int]bool{}, now: time.Unix(1e9, 0)}
	for i := range rtt {
		id := peer.ID(fmt.Sprintf("node-%04d", i))
		s.at[id] = i
		s.nodes = append(s.nodes, newOverlay(id, cfg.withDefaults(), rand.New(rand.NewPCG(uint64(i), 1))))
	}
	return s
}

func (s *overlays) connect(i, j int) {
	if i > j {
		i, j = j, i
	}
	if i == j || s.conns[[2]int{i, j}] {
		return
	}
	s.dials++
	s.conns[[2]int{i, j}] = true
	a, b := s.nodes[i], s.nodes[j]
	a.joined(b.self, false, true, s.now)
	b.joined(a.self, false, false, s.now)
	a.known[b.self].record, b.known[a.self].record = []byte(b.self), []byte(a.self)
}

func (s *overlays) disconnect(i, j int) {
	if i > j {
		i, j = j, i
	}
	delete(s.conns, [2]int{i, j})
	s.nodes[i].left(s.nodes[j].self, s.now)
	s.nodes[j].left(s.nodes[i].self, s.now)
}

func (s *overlays) kill(i int) {
	s.dead[i] = true
	for c := range s.conns {
		if c[0] == i || c[1] == i {
			s.disconnect(c[0], c[1])
		}
	}
}

func (s *overlays) run(for_ time.Duration) {
	for end := s.now.Add(for_); s.now.Before(end); s.now = s.now.Add(100 * time.Millisecond) {
		for i, o := range s.nodes {
			if s.dead[i] {
				continue
			}
			steps, _ := o.plan(s.now)
			for _, step := range steps {
				s.do(i, step)
				o.done(step.id)
			}
		}
	}
}

func (s *overlays) do(i int, st step) {
	o, j := s.nodes[i], s.at[st.id]
	if s.dead[j] {
		o.failed(st.id, s.now)
		return
	}
	p := s.nodes[j]
	if st.do != stepHangUp {
		s.connect(i, j)
	}
	switch st.do {
	case stepMeet:
		s.meets++
		there, back := o.hintsFor(p.self, s.now), p.hintsFor(o.self, s.now)
		s.hints += len(there) + len(back)
		p.met(o.self, o.space.Coordinate(), Capacity{}, s.now)
		o.met(p.self, p.space.Coordinate(), Capacity{}, s.now)
		noise := 0.97 + 0.06*o.rng.Float64()
		o.known[p.self].idle = s.now
		o.timed(p.self, time.Duration(noise*float64(s.rtt[i][j])), s.now)
		for _, h := range there {
			p.hear(o.self, h.id, h.record, h.coord, h.age, s.now)
		}
		for _, h := range back {
			o.hear(p.self, h.id, h.record, h.coord, h.age, s.now)
		}
	case stepPropose:
		s.links++
		ok, retry, displaced := p.proposed(o.self, st.as == wantFar, s.now)
		if displaced != "" {
			s.nodes[s.at[displaced]].ended(p.self, s.now)
		}
		o.agreed(p.self, st.as, ok, retry, s.now)
	case stepRelease:
		s.links++
		o.letGo(p.self, p.released(o.self))
	case stepHangUp:
		s.disconnect(i, j)
	}
}

// check holds what must always be true.
func (s *overlays) check() {
	s.t.Helper()
	for i, o := range s.nodes {
		if s.dead[i] {
			continue
		}
		near, far := o.degree()
		if near > o.cfg.MaxNear+o.cfg.Near || far > o.cfg.MaxFar+o.cfg.Far+1 {
			s.t.Errorf("node %d holds %d near and %d far links", i, near, far)
		}
		if len(o.known) > o.cfg.Candidates+len(s.nodes) {
			s.t.Errorf("node %d knows %d", i, len(o.known))
		}
		for id, c := range o.known {
			if other := s.nodes[s.at[id]]; c.linked() && (other.known[o.self] == nil || !other.known[o.self].linked()) {
				s.t.Errorf("node %d holds a link with %s, which does not", i, id)
			}
		}
	}
}

// recall is the share of the true nearest that are linked, over all nodes.
func (s *overlays) recall() float64 {
	hit, all := 0, 0
	for i, o := range s.nodes {
		if s.dead[i] {
			continue
		}
		var order []int
		for j := range s.nodes {
			if j != i && !s.dead[j] {
				order = append(order, j)
			}
		}
		slices.SortFunc(order, func(a, b int) int { return int(s.rtt[i][a] - s.rtt[i][b]) })
		for _, j := range order[:min(o.cfg.Near, len(order))] {
			all++
			if c := o.known[s.nodes[j].self]; c != nil && c.linked() {
				hit++
			}
		}
	}
	return float64(hit) / float64(all)
}

// continents is a matrix of round trips: 10-30 ms inside one of three, 80-180 ms
// between them. Planar places nodes; without, every pair inside is drawn by
// itself, which no coordinate can hold.
func continents(seed uint64, n int, planar bool) [][]time.Duration {
	rng := rand.New(rand.NewPCG(seed, 3))
	between := [3][3]float64{{0, 80, 140}, {80, 0, 110}, {140, 110, 0}}
	x, y := make([]float64, n), make([]float64, n)
	for i := range n {
		x[i], y[i] = rng.Float64()*13, rng.Float64()*13
	}
	m := make([][]time.Duration, n)
	for i := range m {
		m[i] = make([]time.Duration, n)
	}
	for i := range n {
		for j := range i {
			ms := 10 + math.Hypot(x[i]-x[j], y[i]-y[j])
			if !planar {
				ms = 10 + 20*rng.Float64()
			}
			if b := between[i%3][j%3]; b > 0 {
				ms += b
			}
			m[i][j] = time.Duration(ms * float64(time.Millisecond))
			m[j][i] = m[i][j]
		}
	}
	return m
}

// From a cold start, all knowing one bootstrap contact alone.
func TestOverlayFindsTheNearest(t *testing.T) {
	for _, planar := range []bool{true, false} {
		t.Run(fmt.Sprintf("planar=%v", planar), func(t *testing.T) {
			s := newOverlays(t, continents(1, 100, planar), NeighbourhoodConfig{})
			for i := 1; i < len(s.nodes); i++ {
				s.connect(0, i)
			}
			for range 4 {
				s.run(30 * time.Second)
				t.Logf("%v: recall %.2f, %d connections, %d dials, %d exchanges, %d hints, %d link messages",
					s.now.Sub(time.Unix(1e9, 0)).Round(time.Second), s.recall(), len(s.conns), s.dials, s.meets, s.hints, s.links)
			}
			s.check()
			if r := s.recall(); r < 0.85 {
				t.Errorf("recall %.2f after two minutes, want at least 0.85", r)
			}
			if per := 2 * float64(len(s.conns)) / float64(len(s.nodes)); per > 40 {
				t.Errorf("%.0f connections a node, want at most 40", per)
			}
			s.run(3 * time.Minute)
			meets, hints, links := s.meets, s.hints, s.links
			s.run(4 * time.Minute)
			t.Logf("idle: %.1f exchanges, %.2f hints and %.2f link messages a node and minute; recall %.2f, %d connections", float64(s.meets-meets)/400,
				float64(s.hints-hints)/400, float64(s.links-links)/400, s.recall(), len(s.conns))
			s.check()
			if per := float64(s.meets-meets) / 400; per > 8 {
				t.Errorf("%.1f exchanges a node and minute when idle, want at most 8", per)
			}
		})
	}
}
