package sim

import (
	"time"

	"github.com/kith-mesh/kith/tasks/market"
)

// Reach is how far the first offers of a few jobs came. All are means.
type Reach struct {
	Inside  float64 // share that got the offer, of the peers that find themselves inside its radius
	Nearest float64 // share that got it, of the truly nearest
	Took    float64 // peers that got it
	Copies  float64 // of the offer, delivered
	Radius  time.Duration
}

// Reach has some nodes offer one job each, one after the other, in a mesh that
// is idle otherwise, and looks who got the first offer.
func (m *Mesh) Reach(origins []int, nearest int) (r Reach) {
	m.t.Helper()
	n := float64(len(origins))
	for _, i := range origins {
		origin := m.Nodes[i]
		had, traffic := m.delivered(), m.Traffic()
		radius := origin.firstOffer(time.Minute)
		Sleep(time.Second) // the last copies
		got, cost := m.delivered(), m.Traffic().Sub(traffic)
		inside, reached := 0, 0
		for j, o := range m.Nodes {
			if j == i {
				continue
			}
			away, ok := o.Host().RTT(origin.ID)
			if !ok {
				away = o.Host().Distance(origin.Host().Coordinate())
			}
			if away <= radius {
				inside++
			}
			if got[j] > had[j] {
				r.Took += 1 / n
				if away <= radius {
					reached++
				}
			}
		}
		r.Inside += float64(reached) / float64(max(inside, 1)) / n
		for _, j := range m.Latency.Nearest(i)[:nearest] {
			if got[j] > had[j] {
				r.Nearest += 1 / float64(nearest) / n
			}
		}
		r.Copies += float64(cost.Offers) / n
		r.Radius += radius / time.Duration(len(origins))
	}
	return r
}

// firstOffer runs a job and gives the radius of its first offer.
func (n *Node) firstOffer(within time.Duration) (radius time.Duration) {
	n.m.t.Helper()
	events := n.Market().Subscribe("")
	defer events.Close()
	id := n.Submit(n.Numbers(1))
	for radius == 0 {
		ev, err := events.Next(n.m.background())
		if err != nil {
			n.m.t.Fatal(err)
		}
		if ev.Kind == market.JobOffered && ev.Job == id {
			radius = ev.RTT
		}
	}
	n.Await(id, within)
	return radius
}
