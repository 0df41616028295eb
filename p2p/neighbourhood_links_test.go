package p2p

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/libp2p/go-libp2p/core/peer"
)

func TestNeighbourhoodConfig(t *testing.T) {
	if err := (NeighbourhoodConfig{}).withDefaults().validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	err := NeighbourhoodConfig{Near: -1, MaxFar: 100, Slow: time.Microsecond}.withDefaults().validate()
	for _, want := range []string{"Near is -1", "MaxFar is 100", "Slow is 1µs"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want it to name %q", err, want)
		}
	}
}

func TestOverlayHealsAfterDeaths(t *testing.T) {
	s := newOverlays(t, continents(2, 40, true), NeighbourhoodConfig{})
	for i := 1; i < len(s.nodes); i++ {
		s.connect(0, i)
	}
	s.run(2 * time.Minute)
	for i := range s.nodes {
		if i%4 == 0 {
			s.kill(i) // the bootstrap contact too
		}
	}
	s.run(2 * time.Minute)
	t.Logf("recall among the living %.2f", s.recall())
	if r := s.recall(); r < 0.85 {
		t.Errorf("recall %.2f two minutes after a quarter died, want at least 0.85", r)
	}
	s.check()
	s.run(45 * time.Minute)
	for i, o := range s.nodes {
		for id := range o.known {
			if !s.dead[i] && s.dead[s.at[id]] {
				t.Fatalf("node %d still knows the dead %s", i, id)
			}
		}
	}
}

// Noise in the round trips must not swap links back and forth.
func TestOverlayDoesNotFlap(t *testing.T) {
	s := newOverlays(t, continents(3, 40, true), NeighbourhoodConfig{})
	for i := 1; i < len(s.nodes); i++ {
		s.connect(0, i)
	}
	s.run(10 * time.Minute)
	before := 0
	for _, o := range s.nodes {
		before += o.version
	}
	s.run(20 * time.Minute)
	changes := -before
	for _, o := range s.nodes {
		changes += o.version
	}
	per := float64(changes) / float64(len(s.nodes)) / 20
	t.Logf("%.2f changes of links a node and minute", per)
	if per > 0.6 { // the far ones are drawn again each quarter of an hour
		t.Errorf("%.2f changes of links a node and minute, want at most 0.6", per)
	}
}

func TestOverlayOfTwoAndThree(t *testing.T) {
	for n := 2; n <= 3; n++ {
		s := newOverlays(t, continents(1, n, true), NeighbourhoodConfig{})
		for i := 1; i < n; i++ {
			s.connect(0, i)
		}
		s.run(time.Minute)
		for i, o := range s.nodes {
			if got := len(o.neighbours()); got != n-1 {
				t.Errorf("%d nodes: node %d has %d links, want %d", n, i, got, n-1)
			}
		}
	}
}

func newTestOverlay(cfg NeighbourhoodConfig) *overlay {
	return newOverlay("self", cfg.withDefaults(), rand.New(rand.NewPCG(1, 1)))
}

func meetAt(o *overlay, id string, rtt time.Duration, now time.Time) {
	o.joined(peer.ID(id), false, true, now)
	o.timed(peer.ID(id), rtt, now)
}

func TestProposalsAreBounded(t *testing.T) {
	o, now := newTestOverlay(NeighbourhoodConfig{Near: 2, MaxNear: 3, Far: 1, MaxFar: 2, Explore: 4}), time.Unix(100, 0)
	for i := range 8 {
		meetAt(o, fmt.Sprint("p", i), time.Duration(10+i)*time.Millisecond, now)
	}
	for i, want := range []bool{false, true, true, true, false} {
		if i == 0 {
			continue
		}
		if ok, _, _ := o.proposed(peer.ID(fmt.Sprint("p", i)), false, now); ok != want {
			t.Errorf("near proposal %d: %v, want %v", i, ok, want)
		}
	}
	ok, _, displaced := o.proposed("p0", false, now)
	if !ok || displaced != "p3" {
		t.Errorf("a nearer one: agreed %v, displaced %q; want it to displace p3", ok, displaced)
	}
	if ok, retry, _ := o.proposed("p3", false, now); ok || retry <= 0 {
		t.Errorf("the displaced: agreed %v, retry %v", ok, retry)
	}
	for i, want := range []bool{true, true, false} {
		if ok, _, _ := o.proposed(peer.ID(fmt.Sprint("p", 5+i)), true, now); ok != want {
			t.Errorf("far proposal %d: %v, want %v", i, ok, want)
		}
	}
	if ok, _, _ := o.proposed("stranger", false, now); ok {
		t.Error("a link with one that is not connected")
	}
	// A wish of ours is never displaced.
	o.agreed("p0", wantNear, true, 0, now)
	o.agreed("p1", wantNear, true, 0, now)
	o.agreed("p2", wantNear, true, 0, now)
	meetAt(o, "nearest", time.Millisecond, now)
	if ok, _, displaced := o.proposed("nearest", false, now); ok || displaced != "" {
		t.Errorf("agreed %v and displaced %q, all links being ours", ok, displaced)
	}
}

func TestReleaseKeepsWhatTheOtherWants(t *testing.T) {
	o, now := newTestOverlay(NeighbourhoodConfig{}), time.Unix(100, 0)
	meetAt(o, "a", time.Millisecond, now)
	if ok, _, _ := o.proposed("a", false, now); !ok {
		t.Fatal("not agreed")
	}
	o.agreed("a", wantNear, true, 0, now)
	if !o.released("a") || len(o.neighbours()) != 1 {
		t.Error("a link that we want ended by the other's release")
	}
	if o.letGo("a", false); len(o.neighbours()) != 0 {
		t.Error("a link that nobody wants lives on")
	}
	if o.released("a") || o.released("unknown") {
		t.Error("a link that is not there was kept")
	}
}

func TestLostAnswersHeal(t *testing.T) {
	o, now := newTestOverlay(NeighbourhoodConfig{}), time.Unix(100, 0)
	meetAt(o, "a", time.Millisecond, now)
	o.proposed("a", false, now)
	if o.disagreed("a", now.Add(time.Second)); len(o.neighbours()) != 1 {
		t.Error("a link fell while it was being agreed")
	}
	if o.disagreed("a", now.Add(settleTime+time.Second)); len(o.neighbours()) != 0 {
		t.Error("a link that only we hold lives on")
	}
}

// One peer can fill only its share of the table, and never with what is known.
func TestHintsAreBounded(t *testing.T) {
	o, now := newTestOverlay(NeighbourhoodConfig{}), time.Unix(10000, 0)
	o.joined("liar", false, true, now)
	for i := range 1000 {
		o.hear("liar", peer.ID(fmt.Sprint("made-up", i)), []byte("r"), coord.Coordinate{}, 0, now)
	}
	if n := len(o.known); n > maxUnmet+1 {
		t.Errorf("%d known after one peer's flood, want at most %d", n, maxUnmet+1)
	}
	o.hear("liar", "self", []byte("r"), coord.Coordinate{}, 0, now)
	o.hear("liar", "no-record", nil, coord.Coordinate{}, 0, now)
	o.hear("liar", "old", []byte("r"), coord.Coordinate{}, time.Hour, now)
	for _, id := range []peer.ID{"self", "no-record", "old"} {
		if o.known[id] != nil {
			t.Errorf("%s was taken", id)
		}
	}
	for p := range 30 {
		from := peer.ID(fmt.Sprint("liar", p))
		o.joined(from, false, true, now)
		for i := range maxUnmet {
			o.hear(from, peer.ID(fmt.Sprint("made-up", p, "-", i)), []byte("r"), coord.Coordinate{}, 0, now)
		}
	}
	if n := len(o.known); n > o.cfg.Candidates {
		t.Errorf("%d known, want at most %d", n, o.cfg.Candidates)
	}
	// One dial is enough to drop what only a hint vouched for, and to keep it out.
	o.failed("made-up0", now)
	o.hear("liar0", "made-up0", []byte("r"), coord.Coordinate{}, 0, now)
	if o.known["made-up0"] != nil {
		t.Error("one that could not be reached came back at once")
	}
}

func TestAbsurdTripsAreRefused(t *testing.T) {
	o, now := newTestOverlay(NeighbourhoodConfig{}), time.Unix(100, 0)
	o.joined("a", false, true, now)
	for _, rtt := range []time.Duration{-time.Second, coord.MaxRTT + 1} {
		if o.timed("a", rtt, now); o.known["a"].rtt != 0 {
			t.Errorf("%v was taken", rtt)
		}
	}
	for _, ms := range []int{50, 10, 11, 900, 10} {
		o.timed("a", time.Duration(ms)*time.Millisecond, now)
	}
	if got := o.known["a"].rtt; got != 11*time.Millisecond {
		t.Errorf("median %v, want 11ms", got)
	}
}
