package market

import (
	"testing"
	"time"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/tasks"
)

// The first offer goes 1.3 times as far as the twelfth nearest able peer, and no
// farther than the twenty-fourth.
func TestFirstRadius(t *testing.T) {
	known := func(n int, change func(i int, c *p2p.Candidate)) []p2p.Candidate {
		list := make([]p2p.Candidate, n)
		for i := range list {
			list[i] = p2p.Candidate{RTT: time.Duration(n-i) * 10 * time.Millisecond, Capacity: p2p.Capacity{Kinds: []string{"wasm"}}}
			if change != nil {
				change(i, &list[i])
			}
		}
		return list
	}
	measured := func(c p2p.Candidate) (time.Duration, bool) { return c.RTT, c.RTT > 0 }
	for _, c := range []struct {
		name  string
		known []p2p.Candidate
		want  time.Duration
	}{
		{"nobody", nil, 0},
		{"three", known(3, nil), 39 * time.Millisecond},
		{"thirty", known(30, nil), 156 * time.Millisecond},
		{"paused do not count", known(30, func(i int, c *p2p.Candidate) { c.Capacity.Paused = i >= 18 }), 312 * time.Millisecond},
		{"without the runner", known(30, func(_ int, c *p2p.Candidate) { c.Capacity.Kinds = nil }), 0},
		{"unknown distance", known(2, func(_ int, c *p2p.Candidate) { c.RTT = 0 }), 0},
		{"hundreds equally near", known(300, func(i int, c *p2p.Candidate) { c.RTT = 10*time.Millisecond + time.Duration(i)*10*time.Microsecond }), 10*time.Millisecond + 170*time.Microsecond},
		{"next door", known(2, func(_ int, c *p2p.Candidate) { c.RTT = time.Microsecond }), minRadius},
	} {
		if got := firstRadius(c.known, measured, []tasks.Kind{tasks.KindWasm}); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
