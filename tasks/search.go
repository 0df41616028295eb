package tasks

import "time"

// search is the origin's looking for workers: offers in growing radii, bids
// collected for a window after each.
type search struct {
	round      uint32 // offers made in this stage
	radius     time.Duration
	collecting bool
	probing    bool      // far peers were asked with the last offer
	opened     time.Time // of the last window
	closes     time.Time
	early      time.Time // when a bid in hand can't be beaten any more
	again      time.Time // next offer; zero: none is due
	taken      bool      // somebody else was quicker at a worker that this job's lease went to
	tries      uint      // offers repeated at one radius
	moved      bool      // some worker answered since the last offer
}

func (s *search) next(o *Origin) time.Time {
	if o.state != Running {
		return time.Time{}
	}
	if s.collecting {
		return earlier(s.closes, s.early)
	}
	return s.again
}

const (
	kappa       = 0.1                    // seconds that a bid waits a second of its worker's queue
	probeWindow = 250 * time.Millisecond // for the answers of far peers
	reachSlack  = 1.3                    // of the radius: who may still find itself inside
	barren      = 3                      // repeated offers, after which a search widens while nobody answers: who is near may stall
)

// onCame brings the next offer of waiting tasks forward: who came may be able. A
// second passes between two offers still, however many come.
func (o *Origin) onCame(id PeerID) {
	s := &o.search
	if i, ok := o.byID[id]; ok && !o.peers[i].gone {
		return // its bid or refusal is known
	}
	if o.state == Running && !s.collecting && !s.again.IsZero() {
		s.again = earlier(s.again, s.opened.Add(o.cfg.Reannounce))
	}
}

// full is the widest radius of the job's offers.
func (o *Origin) full() time.Duration {
	if most := o.job.Spec.Locality.MaxRTT; most > 0 {
		return min(most, o.cfg.MaxRadius)
	}
	return o.cfg.MaxRadius
}

func (o *Origin) window() time.Duration {
	if o.cfg.Window > 0 {
		return o.cfg.Window
	}
	w := 50*time.Millisecond + 2*o.search.radius
	if o.search.probing {
		w = max(w, probeWindow)
	}
	return min(w, 600*time.Millisecond)
}

// seek moves the search and hands out work, at the end of every Step.
func (o *Origin) seek() {
	if o.state != Running {
		return
	}
	s := &o.search
	if s.round == 0 {
		s.radius = min(o.cfg.Radius, o.full())
		o.announce(false)
	}
	switch {
	case s.collecting && o.queue.n == 0:
		s.collecting = false
	case s.collecting && !o.now.Before(s.closes):
		o.closeWindow()
	case s.collecting && !s.early.IsZero() && !o.now.Before(s.early):
		o.dirty = true
	case !s.collecting && s.taken && o.queue.n > 0 && o.poor():
		o.widen()
	case !s.collecting && !s.again.IsZero() && !o.now.Before(s.again) && o.queue.n > 0:
		if s.tries >= barren && !s.moved && s.radius < o.full() {
			o.widen()
		} else {
			o.announce(s.radius >= o.full())
		}
		s.tries++
	}
	s.taken = false
	o.assign()
	if o.queue.n == 0 {
		s.again, s.early = time.Time{}, time.Time{}
	} else if !s.collecting && s.again.IsZero() {
		s.again = o.now
		if soonest := s.opened.Add(doubled(o.cfg.Reannounce, s.tries, o.cfg.MaxReannounce)); soonest.After(o.now) {
			s.again = soonest
		}
	}
	o.atTail()
}

// announce opens a window with a new offer.
func (o *Origin) announce(probe bool) {
	s := &o.search
	s.probing = probe && o.cfg.Probes > 0
	offer := Offer{Job: o.job.ID, Term: o.job.Term, Origin: o.cfg.Self, Kind: o.job.Spec.Kind,
		Program: o.job.Spec.Program, Needs: o.job.Spec.Resources, Waiting: uint32(o.queue.n),
		Replicas: max(o.job.Spec.Verify.Replicas, 1), Round: s.round, MaxRTT: o.job.Spec.Locality.MaxRTT,
		Radius: s.radius, Window: o.window()}
	if o.stage == StageReduce {
		offer.Program = o.job.Spec.Reduce.Program
	} else {
		for _, in := range o.job.Spec.Inputs {
			offer.Inputs = append(offer.Inputs, in.Source)
		}
	}
	s.round++
	s.collecting, s.opened, s.closes = true, o.now, o.now.Add(offer.Window)
	s.again, s.early, s.moved = time.Time{}, time.Time{}, false
	o.emit(Announce{offer})
	if s.probing {
		o.emit(Probe{N: o.cfg.Probes, Offer: offer})
	}
	o.dirty = true
}

// closeWindow hands out what the bids are good for. When too few good ones came
// the search widens; while it can, tasks wait rather than go to a peer that
// would start them later than a wider search takes.
func (o *Origin) closeWindow() {
	s := &o.search
	wide := s.radius >= o.full()
	slots, peers, best := o.able(true)
	if !wide && o.short(slots, peers) && best > s.radius+o.window() {
		o.widen()
		return
	}
	s.collecting = false
	o.dirty = true
	o.assign()
	// Who is idle now may have none of what still waits.
	if slots, peers, _ = o.able(false); o.queue.n > 0 && !wide && o.short(slots, peers) {
		o.widen()
	}
}

// poor reports whether a wider search would take less time than who is free now.
func (o *Origin) poor() bool {
	_, _, best := o.able(true)
	return best > o.search.radius+o.window()
}

// short reports whether the job could use more workers than it has.
func (o *Origin) short(slots uint32, peers int) bool {
	return int(slots) < min(o.slots+o.live, int(o.cfg.MinBids)) || peers < int(o.job.Spec.Verify.Replicas)
}

func (o *Origin) widen() {
	o.search.radius = min(2*o.search.radius, o.full())
	o.announce(true)
}

// able counts the slots and the peers that work for the job, and with idle those
// that would soon, and gives the least cost of a free one.
func (o *Origin) able(idle bool) (slots uint32, peers int, best time.Duration) {
	good := o.search.radius + o.window()
	best = time.Duration(1<<63 - 1)
	for _, p := range o.peers {
		if p.id == "" || p.gone || o.tooFar(p) {
			continue
		}
		free := o.free(p)
		if free {
			best = min(best, p.cost())
		}
		if p.holds > 0 || (idle && free && p.cost() <= good) {
			slots += p.slots
			peers++
		}
	}
	return slots, peers, best
}
