package market

import (
	"slices"
	"time"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/tasks"
)

const (
	nearestAsked = 12                   // able peers that the first offer should reach
	radiusSlack  = 1.3                  // for the error of coordinates
	mostAsked    = 18                   // and at the most: where many are about equally near, the slack would reach hundreds
	minRadius    = 5 * time.Millisecond // below it, jitter decides who is inside
)

// firstRadius is how far a job's first offer goes: a little beyond the nearest
// able peers that this node knows, so that as many hear it in a large mesh as in
// a small one. It is 0, for the machine's own default, as
// long as no such peer's distance is known.
func firstRadius(known []p2p.Candidate, distance func(p2p.Candidate) (time.Duration, bool), kinds []tasks.Kind) time.Duration {
	var near []time.Duration
	for _, c := range known {
		able := !c.Capacity.Paused && !c.Capacity.Full && slices.ContainsFunc(c.Capacity.Kinds, func(k string) bool { return slices.Contains(kinds, tasks.Kind(k)) })
		if d, ok := distance(c); able && ok {
			near = append(near, d)
		}
	}
	if len(near) == 0 {
		return 0
	}
	slices.Sort(near)
	d := time.Duration(radiusSlack * float64(near[min(nearestAsked, len(near))-1]))
	if len(near) > mostAsked {
		d = min(d, near[mostAsked-1])
	}
	return max(minRadius, d)
}

// distance is the round trip to a candidate, measured or else predicted.
func (s *Service) distance(c p2p.Candidate) (time.Duration, bool) {
	if c.RTT > 0 {
		return c.RTT, true
	}
	return s.host.Predict(c.ID)
}
