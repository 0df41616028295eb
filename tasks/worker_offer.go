package tasks

import (
	"math"
	"slices"
	"time"
)

// pendingBid is an offer whose bid waits for its delay.
type pendingBid struct {
	offer OfferIn
	due   time.Time
}

// missed is an offer that this node would have bid for with other limits.
type missed struct {
	offer OfferIn
	at    time.Time
}

// missedLife is how long such an offer is worth a bid: its job, if it still
// waits, is offered again within a minute.
const missedLife = time.Minute

func (w *Worker) miss(ev OfferIn) {
	w.missed = slices.DeleteFunc(w.missed, func(m missed) bool {
		return m.offer.Offer.Job == ev.Offer.Job && m.offer.Offer.Origin == ev.Offer.Origin
	})
	w.missed = keep(w.missed, w.cfg.MaxOffers, func(m missed) PeerID { return m.offer.Offer.Origin }, missed{ev, w.now})
}

// reconsider takes missed offers again after the limits have changed, so that
// jobs that wait for this node need not wait for their next offer.
func (w *Worker) reconsider() {
	list := w.missed
	w.missed = nil
	for _, m := range list {
		if w.now.Sub(m.at) < missedLife {
			w.onOffer(m.offer)
		}
	}
}

// told is what a bid said of the wait.
type told struct {
	origin PeerID
	job    JobID
	wait   time.Duration
	at     time.Time
}

// toldLife is for how long a bid binds: no origin takes an older one.
const toldLife = 2 * time.Minute

// maxLater is how much later than its bid said a worker may begin: about what it
// costs the origin to find another one.
const maxLater = 250 * time.Millisecond

// promised forgets a bid, and gives the wait that it told of.
func (w *Worker) promised(origin PeerID, job JobID) (wait time.Duration, ok bool) {
	i := slices.IndexFunc(w.bids, func(p told) bool { return p.job == job && p.origin == origin })
	if i < 0 {
		return 0, false
	}
	wait = w.bids[i].wait
	w.bids = slices.Delete(w.bids, i, i+1)
	return wait, true
}

// cores is how many slots a task takes.
func cores(r Resources) uint32 {
	if !(r.CPU > 1) { // not NaN either
		return 1
	}
	return uint32(math.Ceil(min(r.CPU, maxCPU)))
}

// unfit tells why this node can't run such work at all, or not now; OK: it can.
func (w *Worker) unfit(origin PeerID, r Resources) (Reason, time.Duration) {
	b := w.account(origin)
	if b == nil {
		b = &account{}
	}
	switch wait := w.fairWait(origin); {
	case w.limits.Paused:
		again := time.Minute
		if !w.limits.Until.IsZero() {
			again = w.limits.Until.Sub(w.now)
		}
		return WorkerPaused, again
	case w.limits.Full:
		return WorkerFull, fullPause
	case cores(r) > w.limits.Slots || (w.limits.Memory > 0 && r.Memory > w.limits.Memory):
		return WorkerLacks, 10 * time.Minute
	case b.queued >= w.cfg.MaxQueue || w.queued >= workerShares*w.cfg.MaxQueue || wait > w.cfg.QueueTime || w.laden(b):
		return WorkerBusy, max(wait/2, time.Second)
	}
	return OK, 0
}

func (w *Worker) onOffer(ev OfferIn) {
	why, again := ev.Able, time.Minute
	if why == OK {
		if why, again = w.unfit(ev.Offer.Origin, ev.Offer.Needs); why == OK && ev.Offer.MaxRTT > 0 && ev.RTT > ev.Offer.MaxRTT && ev.Offer.Origin != w.cfg.Self {
			why, again = TooFar, 10*time.Minute
		}
	}
	if why != OK {
		if ev.Able == WorkerFull || ev.Able == OK && (why == WorkerPaused || why == WorkerFull || why == WorkerLacks) {
			w.miss(OfferIn{Offer: ev.Offer, RTT: ev.RTT})
		}
		if ev.Probe {
			w.emit(Refuse{To: ev.Offer.Origin, Job: ev.Offer.Job, Reason: why, RetryAfter: again})
		}
		return
	}
	if ev.Probe {
		w.emit(SendBid{To: ev.Offer.Origin, Bid: w.bidOn(ev), Reads: reads(ev.Offer)})
		return
	}
	if s := w.find(ev.Offer.Origin, ev.Offer.Job); s != nil && (len(s.queue) > 0 || s.running(w) > 0) {
		return // its reports ask for more
	}
	w.offers = slices.DeleteFunc(w.offers, func(b pendingBid) bool {
		return b.offer.Offer.Job == ev.Offer.Job && b.offer.Offer.Origin == ev.Offer.Origin
	})
	w.offers = keep(w.offers, w.cfg.MaxOffers, func(b pendingBid) PeerID { return b.offer.Offer.Origin }, pendingBid{offer: ev, due: w.now.Add(w.delay(ev))})
}

// delay lets the nearest and idlest bid first: half a round trip, kappa times
// the queue, and up to 2 ms so that equals do not meet.
func (w *Worker) delay(ev OfferIn) time.Duration {
	d := max(ev.RTT, 0)/2 + time.Duration(w.cfg.Kappa*float64(w.wait(ev.Offer.Origin)))
	if d > 0 {
		d += time.Duration(w.cfg.Rand.Int64N(int64(2 * time.Millisecond)))
	}
	return min(d, w.cfg.MaxBidDelay)
}

// bid sends the bids that are due, if the node could still take the work.
func (w *Worker) bid() {
	kept := w.offers[:0]
	for _, b := range w.offers {
		if b.due.After(w.now) {
			kept = append(kept, b)
			continue
		}
		if why, _ := w.unfit(b.offer.Offer.Origin, b.offer.Offer.Needs); why == OK {
			w.emit(SendBid{To: b.offer.Offer.Origin, Bid: w.bidOn(b.offer), Reads: reads(b.offer.Offer)})
		}
	}
	w.offers = kept
}

// reads lists what a job's tasks read, as far as its offer says.
func reads(o Offer) []CID { return append([]CID{o.Program}, o.Inputs...) }

func (w *Worker) bidOn(ev OfferIn) Bid {
	each := cores(ev.Offer.Needs)
	bid := Bid{Job: ev.Offer.Job, Worker: w.cfg.Self, Slots: w.limits.Slots / each, Queue: w.wait(ev.Offer.Origin)}
	if idle := w.limits.Slots - min(w.slots, w.limits.Slots); idle >= each && w.queued == 0 {
		bid.Slots = idle / each
	}
	w.promised(ev.Offer.Origin, ev.Offer.Job)
	w.bids = slices.DeleteFunc(w.bids, func(t told) bool { return w.now.Sub(t.at) > toldLife })
	w.bids = keep(w.bids, 4*w.cfg.MaxOffers, func(t told) PeerID { return t.origin }, told{ev.Offer.Origin, ev.Offer.Job, bid.Queue, w.now})
	if s := w.speeds[ev.Offer.Program]; s != nil {
		bid.Speed = float64(max(w.limits.Slots/each, 1)) / s.mean.Seconds()
	}
	return bid
}

// service predicts how long one task of a program takes here.
func (w *Worker) service(program CID) time.Duration {
	if s := w.speeds[program]; s != nil {
		return s.mean
	}
	return time.Second
}

// left predicts how much longer a task runs. What runs long already goes on for
// about as long as its program's tasks differ: the exponential ones, for which
// every moment is as good as the first, for three quarters of their mean.
func (w *Worker) left(r *run) time.Duration {
	each, spread := time.Second, time.Second/2
	if s := w.speeds[r.lease.lease.Program]; s != nil {
		each, spread = s.mean, s.spread
	}
	return max(each-w.now.Sub(r.started), spread, each/8)
}

// learn notes how long one task took.
func (w *Worker) learn(program CID, took time.Duration) {
	s := w.speeds[program]
	if s == nil {
		if len(w.speeds) >= maxSpeeds {
			var oldest CID
			for c, x := range w.speeds {
				if o := w.speeds[oldest]; o == nil || x.used.Before(o.used) || (x.used.Equal(o.used) && c < oldest) {
					oldest = c
				}
			}
			delete(w.speeds, oldest)
		}
		s = &speed{mean: took, spread: took / 2}
		w.speeds[program] = s
	}
	s.spread += ((took - s.mean).Abs() - s.spread) / 4
	s.mean = max(s.mean+(took-s.mean)/4, time.Microsecond)
	s.used = w.now
}
