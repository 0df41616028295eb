package p2p

import (
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Known lists the members that this node knows of, connected or not, in the
// order of their IDs: those it met and those that others told of. At most
// NeighbourhoodConfig.Candidates, and the connected ones.
func (h *Host) Known() []Candidate {
	var out []Candidate
	h.near.with(func(o *overlay, _ time.Time) {
		for _, c := range o.sorted() {
			out = append(out, c.candidate())
		}
	})
	return out
}

func (c *contact) candidate() Candidate {
	return Candidate{ID: c.id, Coord: c.coord, RTT: c.rtt, Capacity: c.capacity, Connected: c.connected, Seen: c.seen}
}

// candidate is what is known of one member.
func (n *neighbourhood) candidate(id peer.ID) (got Candidate, ok bool) {
	n.with(func(o *overlay, _ time.Time) {
		var c *contact
		if c, ok = o.known[id]; ok {
			got = c.candidate()
		}
	})
	return got, ok
}

// Coordinate is this node's place, always valid; its Error tells how far to
// trust it.
func (h *Host) Coordinate() (at coord.Coordinate) {
	h.near.with(func(o *overlay, _ time.Time) { at = o.space.Coordinate() })
	return at
}

// RTT is the round trip to a member as this node measured it, the median of
// recent ones; false if it did not.
func (h *Host) RTT(id peer.ID) (rtt time.Duration, ok bool) {
	h.near.with(func(o *overlay, _ time.Time) {
		if c := o.known[id]; c != nil {
			rtt = c.rtt
		}
	})
	return rtt, rtt > 0
}

// Distance is the predicted round trip to whoever stands at c; 0 if c is no
// valid place.
func (h *Host) Distance(c coord.Coordinate) (d time.Duration) {
	h.near.with(func(o *overlay, _ time.Time) { d = o.space.DistanceTo(c) })
	return d
}

// Predict is the predicted round trip to a member whose place is known, by
// coordinates alone.
func (h *Host) Predict(id peer.ID) (d time.Duration, ok bool) {
	h.near.with(func(o *overlay, _ time.Time) {
		if c := o.known[id]; c != nil && c.coord.Valid() {
			d = o.space.DistanceTo(c.coord)
		}
	})
	return d, d > 0
}

// Neighbours lists the links that both sides agreed to, the nearest first.
func (h *Host) Neighbours() (ns []Neighbour) {
	h.near.with(func(o *overlay, _ time.Time) { ns = o.neighbours() })
	return ns
}

// OnNeighbours has f called with all links, soon and then whenever they change,
// one call at a time and never before Run. F must not block.
func (h *Host) OnNeighbours(f func([]Neighbour)) {
	h.near.with(func(*overlay, time.Time) {
		h.near.callbacks = append(h.near.callbacks, f)
		h.near.told = -1
	})
	h.near.wake()
}

// SampleFar draws up to n different members evenly from Known, neighbours left
// out.
func (h *Host) SampleFar(n int) (ids []peer.ID) {
	h.near.with(func(o *overlay, now time.Time) {
		for _, c := range o.sorted() {
			if !c.linked() && c.reachable(now) {
				ids = append(ids, c.id)
			}
		}
		o.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	})
	return ids[:min(max(n, 0), len(ids))]
}
