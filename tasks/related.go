package tasks

import "slices"

// related reports whether two peers may belong to one owner, as far as is known.
func (p *peer) related(q *peer) bool {
	return slices.ContainsFunc(p.standing.Kin, func(k string) bool { return slices.Contains(q.standing.Kin, k) })
}

// shun says of those who have a task whether a peer is related to one of them;
// nil: it is related to nobody.
func (o *Origin) shun(p *peer) func(have []int32) bool {
	if len(p.standing.Kin) == 0 {
		return nil
	}
	return func(have []int32) bool {
		return slices.ContainsFunc(have, func(i int32) bool { return o.peers[i].related(p) })
	}
}

// unrelated counts peers of which no two are related: each that is not to those
// counted before.
func (o *Origin) unrelated(list []int32) (n uint32) {
	var counted []*peer
	for _, i := range list {
		p := o.peers[i]
		if !slices.ContainsFunc(counted, p.related) {
			counted = append(counted, p)
		}
	}
	return uint32(len(counted))
}
