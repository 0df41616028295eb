package p2p

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// A link that exists counts as this much nearer than it is, so that noise
	// doesn't swap it.
	holdFactor = 0.9
	// settleTime is how long the two ends of a new link may disagree about it.
	settleTime   = 10 * time.Second
	firstRefusal = 20 * time.Second
)

// degree counts links: near ones include those that only the other side wants.
func (o *overlay) degree() (near, far int) {
	for _, c := range o.known {
		switch {
		case c.mine == wantNear || c.theirs == wantNear:
			near++
		case c.linked():
			far++
		}
	}
	return near, far
}

// proposed answers a proposal: agreed, or how long not to ask again. A near one
// that finds no room may displace one that only its other side wants: displaced
// names it, and it must be told.
func (o *overlay) proposed(from peer.ID, far bool, now time.Time) (agreed bool, retry time.Duration, displaced peer.ID) {
	c := o.known[from]
	if c == nil || !c.connected {
		return false, firstRefusal, ""
	}
	near, farther := o.degree()
	switch {
	case c.linked():
	case far && farther >= o.cfg.MaxFar:
		return false, 3 * firstRefusal, ""
	case !far && near >= o.cfg.MaxNear:
		worst := o.worstGuest()
		if worst == nil || float64(o.guess(c)) >= holdFactor*float64(o.guess(worst)) {
			return false, 3 * firstRefusal, ""
		}
		displaced = worst.id
		o.unlink(worst)
		o.refusedBy(worst, now)
	}
	o.link(c, now)
	c.theirs = wantNear
	if far {
		c.theirs = wantFar
	}
	return true, 0, displaced
}

// worstGuest is the farthest near link that only its other side wants.
func (o *overlay) worstGuest() *contact {
	var worst *contact
	for _, c := range o.sorted() {
		if c.mine == wantNone && c.theirs == wantNear && (worst == nil || o.guess(c) > o.guess(worst)) {
			worst = c
		}
	}
	return worst
}

// released takes that the other side no longer wants the link, and answers
// whether we still do.
func (o *overlay) released(from peer.ID) bool {
	c := o.known[from]
	if c == nil || !c.linked() {
		return false
	}
	c.theirs = wantNone
	if c.mine == wantNone {
		o.unlink(c)
	}
	return c.linked()
}

// ended takes that the other side has no room for the link.
func (o *overlay) ended(from peer.ID, now time.Time) {
	if c := o.known[from]; c != nil && c.linked() {
		o.unlink(c)
		o.refusedBy(c, now)
	}
}

// agreed takes the answer to our proposal.
func (o *overlay) agreed(to peer.ID, as want, ok bool, retry time.Duration, now time.Time) {
	c := o.known[to]
	switch {
	case c == nil:
	case !ok:
		o.refusedBy(c, now)
		c.refused = now.Add(max(c.refuse, min(retry, longestRefuse)))
	case c.connected:
		o.link(c, now)
		c.mine, c.refuse, c.probe = as, 0, false
		if as == wantFar {
			c.term = now.Add(o.cfg.FarTerm + time.Duration(o.rng.Int64N(int64(o.cfg.FarTerm/2)+1)))
		}
	}
}

// letGo takes the answer to our release.
func (o *overlay) letGo(to peer.ID, kept bool) {
	c := o.known[to]
	if c == nil || !c.linked() {
		return
	}
	c.mine = wantNone
	if !kept {
		c.theirs = wantNone
	}
	if !c.linked() {
		o.unlink(c)
	}
}

// disagreed takes that the other side holds no link with us though we do.
func (o *overlay) disagreed(with peer.ID, now time.Time) {
	if c := o.known[with]; c != nil && c.linked() && !c.busy && now.Sub(c.since) > settleTime {
		o.unlink(c)
		o.hurry(now)
	}
}

func (o *overlay) link(c *contact, now time.Time) {
	if !c.linked() {
		c.since = now
		o.version++
	}
}

func (o *overlay) unlink(c *contact) {
	c.mine, c.theirs, c.probe = wantNone, wantNone, true
	o.version++
}

func (o *overlay) refusedBy(c *contact, now time.Time) {
	c.refuse = min(max(2*c.refuse, firstRefusal), longestRefuse)
	c.refused = now.Add(c.refuse)
}

// nearest lists who we want as near neighbours: the best by what we measured,
// those that are linked counted as a little nearer.
func (o *overlay) nearest(now time.Time) []*contact {
	var fit []*contact
	for _, c := range o.sorted() {
		if c.rtt > 0 && c.mine != wantFar && c.reachable(now) && (c.linked() || !now.Before(c.refused)) {
			fit = append(fit, c)
		}
	}
	byKey(fit, func(c *contact) time.Duration {
		if c.mine == wantNear {
			return time.Duration(holdFactor * float64(c.rtt))
		}
		return c.rtt
	})
	return fit[:min(len(fit), o.cfg.Near)]
}

// neighbours lists the links, the nearest first.
func (o *overlay) neighbours() []Neighbour {
	var ns []Neighbour
	for _, c := range o.sorted() {
		if c.linked() {
			ns = append(ns, Neighbour{
				ID: c.id, Far: c.mine != wantNear && c.theirs != wantNear,
				RTT: c.rtt, Relayed: c.relayed, Since: c.since,
			})
		}
	}
	slices.SortStableFunc(ns, func(a, b Neighbour) int { return cmp.Compare(a.RTT, b.RTT) })
	return ns
}
