package gossip

import (
	"fmt"
	"testing"
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/libp2p/go-libp2p/core/peer"
)

type fakeNear struct {
	rtt  map[peer.ID]time.Duration
	dist time.Duration
}

func (n fakeNear) RTT(id peer.ID) (time.Duration, bool) { d, ok := n.rtt[id]; return d, ok }
func (n fakeNear) Distance(c coord.Coordinate) time.Duration {
	if !c.Valid() {
		return 0
	}
	return n.dist
}

func TestFilter(t *testing.T) {
	const ms = time.Millisecond
	wall, now := time.Unix(2e9, 0), time.Unix(5, 0)
	near := fakeNear{rtt: map[peer.ID]time.Duration{"near": 10 * ms, "far": 100 * ms}, dist: 50 * ms}
	e := func(origin string, radius time.Duration, stamp time.Time) envelope {
		return envelope{origin: peer.ID(origin), place: testPlace(), radius: radius, ttl: 10 * time.Second, stamp: stamp}
	}
	lost := e("nobody", 500*ms, wall)
	lost.place = coord.Coordinate{}
	for name, tc := range map[string]struct {
		e    envelope
		want verdict
		away time.Duration
	}{
		"measured inside":           {e("near", 12*ms, wall), take, 10 * ms},
		"measured, within slack":    {e("far", 96*ms, wall), take, 100 * ms},
		"measured outside":          {e("far", 95*ms, wall), outside, 100 * ms},
		"predicted inside":          {e("stranger", 50*ms, wall), take, 50 * ms},
		"predicted outside":         {e("stranger", 30*ms, wall), outside, 50 * ms},
		"lies about its place":      {e("far", 50*ms, wall), outside, 100 * ms},
		"neither":                   {lost, outside, 0},
		"clock days off":            {e("near", 12*ms, wall.Add(-48*time.Hour)), stale, 0},
		"clock half an hour off":    {e("near", 12*ms, wall.Add(30*time.Minute)), take, 10 * ms},
		"tiny radius, tiny network": {e("near", 9500*time.Microsecond, wall), take, 10 * ms},
	} {
		f := newFilter(near, 5, 5, false)
		if v, away := f.judge(tc.e, now, wall); v != tc.want || away != tc.away {
			t.Errorf("%s: verdict %d at %v, want %d at %v", name, v, away, tc.want, tc.away)
		}
	}
	f := newFilter(near, 5, 5, true)
	if v, _ := f.judge(e("far", ms, wall), now, wall); v != take {
		t.Errorf("IgnoreRadius: verdict %d, want take", v)
	}
}

func TestFilterLimitsOrigins(t *testing.T) {
	f := newFilter(fakeNear{dist: time.Millisecond}, 1, 3, false)
	start := time.Unix(100, 0)
	var n time.Duration
	at := func(origin string, after time.Duration) verdict {
		n++ // no two of a stamp
		after += n
		v, _ := f.judge(envelope{origin: peer.ID(origin), place: testPlace(), radius: time.Second, ttl: time.Second, stamp: start.Add(after)}, start.Add(after), start.Add(after))
		return v
	}
	for i, want := range []verdict{take, take, take, limited} {
		if got := at("a", 0); got != want {
			t.Errorf("message %d: verdict %d, want %d", i, got, want)
		}
	}
	if at("b", 0) != take || at("a", 1100*time.Millisecond) != take {
		t.Error("another origin, or the same later, was limited")
	}
	for i := range maxOrigins * 2 {
		at(fmt.Sprint("flood", i), 2*time.Second)
	}
	if len(f.origins) > maxOrigins {
		t.Errorf("%d origins remembered, at most %d", len(f.origins), maxOrigins)
	}
}

func TestFilterDropsReplays(t *testing.T) {
	f := newFilter(fakeNear{dist: time.Millisecond}, 5, 5, false)
	sent, wall := time.Unix(2e9, 0), time.Unix(2e9, 0).Add(17*time.Minute) // the clocks disagree
	now := time.Unix(50, 0)
	e := envelope{origin: "a", place: testPlace(), radius: time.Second, ttl: 5 * time.Second, stamp: sent}
	if v, _ := f.judge(e, now, wall); v != take {
		t.Fatalf("fresh: verdict %d", v)
	}
	for _, tc := range []struct {
		after, stamp time.Duration
		want         verdict
	}{
		{20 * time.Second, 0, stale},                      // the same in other bytes
		{time.Minute, 0, stale},                           // a replay
		{time.Minute, time.Minute, take},                  // a new one
		{61 * time.Second, 50 * time.Second, take},        // overtaken on its way
		{2 * time.Minute, 50 * time.Second, stale},        // replayed
		{seenTTL + 2*time.Minute, 20 * time.Minute, take}, // after a silence
	} {
		e.stamp = sent.Add(tc.stamp)
		if v, _ := f.judge(e, now.Add(tc.after), wall.Add(tc.after)); v != tc.want {
			t.Errorf("after %v, stamped %v: verdict %d, want %d", tc.after, tc.stamp, v, tc.want)
		}
	}
}

func TestDrawnTogetherIsMutualAndSparse(t *testing.T) {
	const n = 200
	total := 0
	for i := range n {
		for j := range n {
			a, b := peer.ID(fmt.Sprint(i)), peer.ID(fmt.Sprint(j))
			if drawnTogether(a, b, n) != drawnTogether(b, a, n) {
				t.Fatalf("%d and %d disagree", i, j)
			}
			if i != j && drawnTogether(a, b, n) {
				total++
			}
		}
	}
	if per := float64(total) / n; per < randomDegree*0.7 || per > randomDegree*1.3 {
		t.Errorf("%.1f random links each, want about %d", per, randomDegree)
	}
}

// Whoever repeats an origin's offers must not use up its rate, and what is
// remembered for that is bounded.
func TestFilterKnowsWhatItTook(t *testing.T) {
	f := newFilter(fakeNear{dist: time.Millisecond}, 1, 2, false)
	start, now := time.Unix(2e9, 0), time.Unix(50, 0)
	at := func(after time.Duration) verdict {
		v, _ := f.judge(envelope{origin: "a", place: testPlace(), radius: time.Second, ttl: time.Second, stamp: start.Add(after)}, now.Add(after), start.Add(after))
		return v
	}
	for i, want := range []verdict{take, stale, stale, stale} {
		if got := at(0); got != want {
			t.Errorf("copy %d: verdict %d, want %d", i, got, want)
		}
	}
	if at(1) != take || at(2) != limited {
		t.Error("copies were counted against the origin's rate")
	}
	for i := range 3 * maxTaken {
		at(time.Duration(i+2) * time.Second)
	}
	o := f.origins["a"]
	if len(o.taken) > maxTaken || !o.repeats(start.UnixNano()) || o.repeats(start.Add(time.Hour).UnixNano()) {
		t.Errorf("%d stamps are remembered, from %d on", len(o.taken), o.floor)
	}
}
