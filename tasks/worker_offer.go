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
	if len(w.missed) >= w.cfg.MaxOffers {
		w.missed = slices.Delete(w.missed, 0, 1)
	}
	w.missed = append(w.missed, missed{ev, w.now})
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
}

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
func (w *Worker) unfit(r Resources) (Reason, time.Duration) {
	switch wait := w.wait(); {
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
	case w.queued >= w.cfg.MaxQueue || wait > w.cfg.QueueTime || w.owed >= w.cfg.MaxReceipts:
		return WorkerBusy, max(wait/2, time.Second)
	}
	return OK, 0
}

func (w *Worker) onOffer(ev OfferIn) {
	why, again := ev.Able, time.Minute
	if why == OK {
		if why, again = w.unfit(ev.Offer.Needs); why == OK && ev.Offer.MaxRTT > 0 && ev.RTT > ev.Offer.MaxRTT && ev.Offer.Origin != w.cfg.Self {
			why, again = TooFar, 10*time.Minute
		}
	}
	if why != OK {
		if ev.Able == OK && (why == WorkerPaused || why == WorkerFull || why == WorkerLacks) {
			w.miss(OfferIn{Offer: ev.Offer, RTT: ev.RTT, Cached: ev.Cached})
		}
		if ev.Probe {
			w.emit(Refuse{To: ev.Offer.Origin, Job: ev.Offer.Job, Reason: why, RetryAfter: again})
		}
		return
	}
	if ev.Probe {
		w.emit(SendBid{To: ev.Offer.Origin, Bid: w.bidOn(ev)})
		return
	}
	if s := w.find(ev.Offer.Origin, ev.Offer.Job); s != nil && (len(s.queue) > 0 || s.running(w) > 0) {
		return // its reports ask for more
	}
	w.offers = slices.DeleteFunc(w.offers, func(b pendingBid) bool {
		return b.offer.Offer.Job == ev.Offer.Job && b.offer.Offer.Origin == ev.Offer.Origin
	})
	if len(w.offers) >= w.cfg.MaxOffers {
		return
	}
	w.offers = append(w.offers, pendingBid{offer: ev, due: w.now.Add(w.delay(ev.RTT))})
}

// delay lets the nearest and idlest bid first: half a round trip, kappa times
// the queue, and up to 2 ms so that equals do not meet.
func (w *Worker) delay(rtt time.Duration) time.Duration {
	d := max(rtt, 0)/2 + time.Duration(w.cfg.Kappa*float64(w.wait()))
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
		if why, _ := w.unfit(b.offer.Offer.Needs); why == OK {
			w.emit(SendBid{To: b.offer.Offer.Origin, Bid: w.bidOn(b.offer)})
		}
	}
	w.offers = kept
}

func (w *Worker) bidOn(ev OfferIn) Bid {
	each := cores(ev.Offer.Needs)
	bid := Bid{Job: ev.Offer.Job, Worker: w.cfg.Self, Slots: w.limits.Slots / each, Queue: w.wait(), Cached: ev.Cached}
	if idle := w.limits.Slots - min(w.slots, w.limits.Slots); idle >= each && w.queued == 0 {
		bid.Slots = idle / each
	}
	w.promised(ev.Offer.Origin, ev.Offer.Job)
	if len(w.bids) >= w.cfg.MaxOffers {
		w.bids = slices.Delete(w.bids, 0, 1)
	}
	w.bids = append(w.bids, told{ev.Offer.Origin, ev.Offer.Job, bid.Queue})
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

// wait predicts how long one more task would wait before it starts.
func (w *Worker) wait() time.Duration {
	if w.queued == 0 && w.slots < w.limits.Slots {
		return 0
	}
	var work time.Duration
	for _, r := range w.running {
		work += w.left(r) * time.Duration(cores(r.lease.lease.Needs))
	}
	for _, s := range w.jobs {
		for _, l := range s.leases {
			n := 0
			for _, r := range l.runs {
				if r.state == runQueued {
					n++
				}
			}
			work += w.service(l.lease.Program) * time.Duration(n) * time.Duration(cores(l.lease.Needs))
		}
	}
	return work / time.Duration(max(w.limits.Slots, 1))
}
