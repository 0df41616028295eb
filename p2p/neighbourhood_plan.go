package p2p

import (
	"cmp"
	"slices"
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxInPlay   = 6   // steps at once
	firstRounds = 48  // exchanges at full pace after the start: the coordinate needs them
	placing     = 12  // of which the first go to anyone, since nothing can be predicted yet
	reachFactor = 2.0 // who is predicted within this many times the farthest near link is measured
	reachSlack  = 10 * time.Millisecond
	probeIdle   = 30 * time.Second // how long a connection without a link is kept after the last exchange
	maxStandby  = 8                // connections without a link that we dialled and keep
	wander      = 8                // one exchange in so many goes to anyone, for news from afar
)

// step is one thing to do; its result must come back through done and the
// method that takes it.
type step struct {
	do stepKind
	id peer.ID
	as want // of a proposal
}

type stepKind uint8

const (
	stepMeet stepKind = iota
	stepPropose
	stepRelease
	stepHangUp
)

// hurry brings the pace back to the fastest.
func (o *overlay) hurry(now time.Time) {
	o.pace = o.cfg.Fast
	if next := now.Add(o.cfg.Fast); next.Before(o.nextRun) {
		o.nextRun = next
	}
}

// done ends a step's turn.
func (o *overlay) done(id peer.ID) {
	o.inPlay--
	if c := o.known[id]; c != nil {
		c.busy = false
	}
}

// plan gives what to do now and when to ask again.
func (o *overlay) plan(now time.Time) (steps []step, wait time.Duration) {
	if now.Before(o.nextRun) {
		return nil, o.nextRun.Sub(now)
	}
	o.expire(now)
	take := func(c *contact, do stepKind, as want) {
		c.busy = true
		if !c.connected {
			c.probe = true
		}
		o.inPlay++
		steps = append(steps, step{do: do, id: c.id, as: as})
	}
	news := o.planLinks(now, take)
	if c, explore := o.planMeet(now); c != nil && o.inPlay < maxInPlay {
		news = news || explore
		take(c, stepMeet, wantNone)
	}
	for _, c := range o.spare(now) {
		take(c, stepHangUp, wantNone)
	}
	if o.rounds < firstRounds || news {
		o.pace = o.cfg.Fast
	} else {
		o.pace = min(o.pace*5/4, o.cfg.Slow)
	}
	wait = o.pace + time.Duration(o.rng.Int64N(int64(o.pace/5)+1)) - o.pace/10
	o.nextRun = now.Add(wait)
	return steps, wait
}

// spare lists the connections to end: those that only served us and served
// their time, and the longest idle of those we dialled for whatever reason
// beyond the few that may stand by.
func (o *overlay) spare(now time.Time) (out []*contact) {
	var standby []*contact
	for _, c := range o.sorted() {
		switch {
		case !c.connected || c.linked() || c.busy || now.Sub(c.idle) <= probeIdle:
		case c.probe:
			out = append(out, c)
		case c.outbound:
			standby = append(standby, c)
		}
	}
	if len(standby) > maxStandby {
		out = append(out, slices.MinFunc(standby, func(a, b *contact) int { return a.idle.Compare(b.idle) }))
	}
	return out
}

// planLinks proposes what is wanted and releases what no longer is, and tells
// whether it had anything to do.
func (o *overlay) planLinks(now time.Time, take func(*contact, stepKind, want)) bool {
	some := false
	step := func(c *contact, do stepKind, as want) {
		if !c.busy && o.inPlay < maxInPlay {
			some = true
			take(c, do, as)
		}
	}
	wanted := o.nearest(now)
	agreed := 0
	for _, c := range wanted {
		switch {
		case c.mine == wantNear:
			agreed++
		case c.linked() || !now.Before(c.refused):
			step(c, stepPropose, wantNear)
		}
	}
	var far []*contact
	for _, c := range o.sorted() {
		switch {
		case c.mine == wantNear && agreed >= o.cfg.Near && !slices.Contains(wanted, c):
			step(c, stepRelease, wantNone)
		case c.mine == wantFar:
			far = append(far, c)
		}
	}
	slices.SortStableFunc(far, func(a, b *contact) int { return a.term.Compare(b.term) })
	switch {
	case len(far) > o.cfg.Far:
		step(far[0], stepRelease, wantNone)
	case len(far) < o.cfg.Far || len(far) > 0 && now.After(far[0].term):
		if o.rounds >= placing/2 {
			if c := o.drawFar(wanted, now); c != nil {
				step(c, stepPropose, wantFar)
			}
		}
	}
	return some
}

// drawFar draws anyone that is no neighbour, evenly.
func (o *overlay) drawFar(wanted []*contact, now time.Time) *contact {
	var fit []*contact
	for _, c := range o.sorted() {
		if !c.linked() && !c.busy && c.reachable(now) && !now.Before(c.refused) && !slices.Contains(wanted, c) {
			fit = append(fit, c)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return fit[o.rng.IntN(len(fit))]
}

// planMeet picks with whom to exchange next; explore: it may be a better
// neighbour than those we have.
func (o *overlay) planMeet(now time.Time) (c *contact, explore bool) {
	var anyone []*contact
	for _, c := range o.sorted() {
		if !c.busy && c.reachable(now) {
			anyone = append(anyone, c)
		}
	}
	if len(anyone) == 0 {
		return nil, false
	}
	defer func() { o.rounds++ }()
	if o.rounds < placing {
		// Those never measured first: one sample of many places beats many of one.
		o.rng.Shuffle(len(anyone), func(i, j int) { anyone[i], anyone[j] = anyone[j], anyone[i] })
		return slices.MinFunc(anyone, func(a, b *contact) int { return cmp.Compare(len(a.rtts), len(b.rtts)) }), false
	}
	if o.rounds%wander == 0 {
		if o.pace > o.cfg.Slow/2 && o.rounds%(wander*wander) != 0 { // dials cost more than exchanges
			anyone = slices.DeleteFunc(anyone, func(c *contact) bool { return !c.connected })
		}
		if len(anyone) > 0 {
			return anyone[o.rng.IntN(len(anyone))], false
		}
		return nil, false
	}
	if c := o.unmeasured(anyone); c != nil && o.rounds%3 != 0 {
		return c, true
	}
	links := slices.DeleteFunc(slices.Clone(anyone), func(c *contact) bool { return !c.linked() })
	if len(links) == 0 {
		links = anyone
	}
	return slices.MinFunc(links, func(a, b *contact) int { return a.idle.Compare(b.idle) }), false
}

// unmeasured is the predicted nearest of whom nothing was measured, while it is
// among the nearest that Explore allows and not plainly too far.
func (o *overlay) unmeasured(fit []*contact) *contact {
	byGuess := slices.Clone(fit)
	byKey(byGuess, o.guess)
	for _, c := range byGuess[:min(len(byGuess), o.cfg.Explore)] {
		if c.rtt == 0 && o.worthMeasuring(c.coord) {
			return c
		}
	}
	return nil
}

// worthMeasuring tells whether somebody who stands there may be nearer than the
// neighbours we have.
func (o *overlay) worthMeasuring(at coord.Coordinate) bool {
	var rtts []time.Duration
	for _, c := range o.known {
		if c.mine == wantNear {
			rtts = append(rtts, c.rtt)
		}
	}
	if len(rtts) < o.cfg.Near || !at.Valid() {
		return true
	}
	limit := time.Duration(reachFactor*float64(slices.Max(rtts))) + reachSlack
	return o.space.DistanceTo(at) < limit
}
