package tasks

import (
	"maps"
	"slices"
	"time"
)

func (o *Origin) onBid(ev BidIn) {
	if ev.Bid.Job != o.job.ID || o.state != Running {
		return
	}
	p := o.meet(ev.Bid.Worker)
	if p == nil {
		return
	}
	o.hear(p, ev.Standing)
	p.refused, p.declined = OK, time.Time{}
	p.slots = min(max(ev.Bid.Slots, 1), maxSlots)
	p.queue = min(max(ev.Bid.Queue, 0), maxQueued)
	if ev.Bid.Speed >= 0 && ev.Bid.Speed <= 1e6 { // not NaN
		p.speed = ev.Bid.Speed
	}
	o.setWant(p, max(ev.Bid.Slots, 1))
	o.dirty = true
}

func (o *Origin) onRefused(ev RefusedBy) {
	p := o.meet(ev.Worker)
	if p == nil || o.state.Over() {
		return
	}
	p.heard, p.gone, p.refused = o.now, false, ev.Reason
	o.decline(p, ev.RetryAfter)
}

// decline notes that a peer takes nothing for a while by its own word.
func (o *Origin) decline(p *peer, d time.Duration) {
	o.setWant(p, 0)
	if until := o.now.Add(min(d, 10*time.Minute)); d > 0 && until.After(p.declined) {
		p.declined = until
		o.timers.push(timer{at: until, kind: timerBackoff})
	}
}

func (o *Origin) onLeaseFailed(ev LeaseFailed) {
	l := o.leases[ev.Lease]
	if l == nil || o.peers[l.peer].id != ev.Worker || o.state.Over() {
		return
	}
	if ev.Reason == UnknownLease { // its worker has started again since, and may well take more
		if l.live {
			o.lose(l, AttemptLost, OK)
		}
		return
	}
	p := o.peers[l.peer]
	p.refused = ev.Reason
	o.decline(p, ev.RetryAfter)
	o.punish(p)
	o.search.taken = o.search.taken || ev.Reason == WorkerBusy
	if l.live {
		o.lose(l, AttemptRefused, ev.Reason)
	}
}

func (o *Origin) onGone(id PeerID) {
	i, ok := o.byID[id]
	if !ok || o.state.Over() {
		return
	}
	p := o.peers[i]
	p.gone = true
	o.setWant(p, 0)
	for _, l := range slices.Clone(p.leases) {
		o.lose(l, AttemptLost, OK)
	}
	for _, index := range slices.Sorted(maps.Keys(p.promises)) {
		w := o.work(index)
		for k := range w.attempts {
			if a := &w.attempts[k]; a.peer == i && a.promised() {
				o.withdraw(index, a)
			}
		}
	}
}

// onReport renews what the worker still has, takes back what it lost, and notes
// what it wants.
func (o *Origin) onReport(ev ReportIn) {
	r := ev.Report
	if r.Job != o.job.ID {
		return
	}
	if o.state != Running {
		for _, id := range r.Held[:min(len(r.Held), maxWant)] {
			if o.state.Over() || o.leases[id] == nil {
				o.emit(Revoke{Worker: r.Worker, Lease: id})
			}
		}
		return
	}
	p := o.meet(r.Worker)
	if p == nil {
		return
	}
	o.hear(p, ev.Standing)
	p.slots = min(max(r.Slots, 1), maxSlots)
	p.queue = min(max(r.Queue, 0), maxQueued)
	held := make(map[LeaseID]bool, len(r.Held))
	var renewed []LeaseID
	for _, id := range r.Held[:min(len(r.Held), maxWant)] {
		if held[id] {
			continue
		}
		held[id] = true
		l := o.leases[id]
		if l == nil || l.peer != o.index(p) {
			o.emit(Revoke{Worker: r.Worker, Lease: id})
			continue
		}
		if !l.live {
			o.revive(p, l)
		}
		l.asked = false
		l.expires = o.now.Add(l.duration)
		renewed = append(renewed, id)
	}
	if len(renewed) > 0 {
		o.emit(Renew{Worker: r.Worker, Leases: renewed})
	}
	sure := max(3*time.Second, 4*p.standing.RTT) // a report may cross a grant
	for _, l := range slices.Clone(p.leases) {
		if !held[l.id] && o.now.Sub(l.granted) > sure {
			o.lose(l, AttemptLost, OK)
		}
	}
	o.setWant(p, r.Want)
	if r.Want > 0 {
		if !o.dirty {
			o.hint = p
		}
		o.dirty = true
	}
}

// revive takes a lease up again whose worker was thought dead: tasks that are
// still needed count again, the others run on as copies.
func (o *Origin) revive(p *peer, l *lease) {
	for _, it := range l.items {
		w := o.work(it.index)
		a := w.attempt(l, it.replica)
		if a == nil || w.decided || a.promise != nil || (a.state != AttemptLost && a.state != AttemptRefused) {
			continue
		}
		if slices.ContainsFunc(w.attempts, func(b attempt) bool {
			return b.peer == l.peer && (b.held() || b.spoken() || b.state == AttemptRejected)
		}) {
			o.revoke(l, Ref{o.stage, it.index}) // it has the task under a later lease
			continue
		}
		a.state = AttemptHeld
		if w.need == 0 {
			a.state = AttemptLate
		}
		a.end, a.reason = time.Time{}, OK
		l.open++
		p.holds++
		o.live++
		o.update(it.index, w.class)
	}
	if l.open > 0 {
		l.live = true
		p.leases = append(p.leases, l)
		l.expires, l.check = o.now.Add(l.duration), time.Time{}
		o.watch(l)
	}
}

// room is how many more tasks a peer may get now: one while it is a stranger,
// then about cfg.Batch of measured work, a fair share when little is left, and
// never more than twice a batch in its hands.
func (o *Origin) room(p *peer, share uint32) uint32 {
	if p.stranger() {
		return min(p.want, 1-min(p.holds, 1))
	}
	n := p.slots
	if pace := p.pace(); pace > 0 {
		n = max(n, uint32(min(o.cfg.Batch/pace, time.Duration(o.cfg.MaxBatch))))
	} else if p.speed > 0 { // its own word counts a little
		n = max(n, min(uint32(min(p.speed*o.cfg.Batch.Seconds(), 1e6)), 4*p.slots))
	}
	n = min(n, o.cfg.MaxBatch)
	free := 2*n - min(p.holds, 2*n)
	return min(p.want, n, max(share, 1), free)
}

// candidate is a free peer in a distribution.
type candidate struct {
	peer   *peer
	index  int32
	lease  *lease
	room   uint32
	finish time.Duration // when one more task would be done there
	each   time.Duration // what a task adds
}

// assign gives waiting tasks to those who want them.
func (o *Origin) assign() {
	hint := o.hint
	o.hint = nil
	if !o.dirty || o.state != Running {
		return
	}
	o.dirty = false
	if o.queue.n == 0 || len(o.wants) == 0 {
		return
	}
	share := uint32(o.slots / (2 * max(len(o.wants), o.busyPeers(), 1)))
	if hint != nil && !o.search.collecting && len(o.wants) > 1 && o.slots > len(o.wants)*int(o.cfg.MaxBatch) {
		if o.free(hint) { // enough for everyone: no need to compare
			o.distribute([]candidate{o.candidate(hint, share)})
		}
		return
	}
	supply, list, kept := uint32(0), make([]candidate, 0, len(o.wants)), o.wants[:0]
	for _, i := range o.wants {
		p := o.peers[i]
		if p.want == 0 || p.gone || o.now.Sub(p.wantAt) >= o.cfg.BidLife {
			p.wanting, p.want = false, 0
			continue
		}
		kept = append(kept, i)
		if o.free(p) {
			if c := o.candidate(p, share); c.room > 0 {
				list = append(list, c)
				supply += c.room
			}
		}
	}
	o.wants = kept
	if o.search.collecting {
		list = o.early(list, supply)
	}
	if quorum := o.job.Spec.Verify.Replicas; quorum > 1 && int(supply) > o.slots && len(list) > 1 {
		list = o.draw(list, max(2*int(quorum), 2*o.slots))
	}
	o.distribute(list)
}

func (o *Origin) candidate(p *peer, share uint32) candidate {
	each := o.paceOf(p)
	if each == 0 {
		each = time.Second / time.Duration(p.slots)
	}
	return candidate{peer: p, index: o.index(p), room: o.room(p, share),
		finish: p.cost() + each*time.Duration(p.holds+1), each: each}
}

func (o *Origin) busyPeers() int {
	n := 0
	for _, p := range o.peers {
		if p.holds > 0 {
			n++
		}
	}
	return n
}

// early keeps who need not wait for the window's end: with tasks in plenty,
// everyone; else who can't be beaten by a later bid. Replicas wait until there
// is a choice to draw from.
func (o *Origin) early(list []candidate, supply uint32) []candidate {
	s := &o.search
	s.early = time.Time{}
	if o.slots >= 4*int(supply) {
		return list
	}
	if quorum := o.job.Spec.Verify.Replicas; quorum > 1 {
		if len(list) >= 2*int(quorum) {
			return list
		}
		return nil
	}
	good := s.radius + o.window()
	kept := list[:0]
	for _, c := range list {
		if c.peer.cost() > good && s.radius < o.full() {
			continue // a wider search takes less
		}
		if at := s.opened.Add(o.unbeaten(c.peer.cost())); at.After(o.now) {
			s.early = earlier(s.early, at)
		} else {
			kept = append(kept, c)
		}
	}
	return kept
}

// unbeaten is how long after its offer a bid of such a cost may be beaten by one
// to come. A bid by gossip waits half a round trip and kappa times the queue, and
// travels a whole one: after t, idle peers inside the reach are left only while t
// is under 1.5 times their round trip, and then the busy. The answer to a probe
// travels one round trip.
func (o *Origin) unbeaten(cost time.Duration) time.Duration {
	reach := time.Duration(reachSlack * float64(o.search.radius))
	t := min(cost, reach) * 3 / 2
	t += time.Duration(kappa * float64(max(cost-reach, 0)))
	if o.search.probing {
		t = max(t, cost)
	}
	return t
}

// draw puts the n cheapest candidates in random order and drops the rest, so
// that nobody can choose whose answer stands beside its own.
func (o *Origin) draw(list []candidate, n int) []candidate {
	slices.SortStableFunc(list, func(a, b candidate) int { return int(a.peer.cost() - b.peer.cost()) })
	list = list[:min(n, len(list))]
	o.cfg.Rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for i := range list {
		list[i].each = time.Second
		list[i].finish = time.Duration(i)
	}
	return list
}

// distribute gives each task to the candidate that would be done with it first.
// Replicas go to who is not related to those that have the task, while there is
// such a candidate.
func (o *Origin) distribute(list []candidate) {
	all := slices.Clone(list)
	if o.commits() {
		o.give(all, o.shun)
	}
	o.give(all, func(*peer) func([]int32) bool { return nil })
	for i := range all {
		if c := &all[i]; c.lease != nil {
			o.seal(c.peer, c.lease)
			c.peer.want = 0
		}
	}
	o.wants = slices.DeleteFunc(o.wants, func(i int32) bool {
		if p := o.peers[i]; p.want == 0 {
			p.wanting = false
			return true
		}
		return false
	})
	o.dirty = false // what take queued anew, nobody here may have
}

// give hands out what candidates have room for and do not shun.
func (o *Origin) give(all []candidate, shun func(*peer) func(have []int32) bool) {
	heap := make([]*candidate, 0, len(all))
	for i := range all {
		if all[i].room > 0 {
			heap = append(heap, &all[i])
		}
	}
	less := func(a, b *candidate) int {
		if a.finish != b.finish {
			if a.finish < b.finish {
				return -1
			}
			return 1
		}
		return int(a.index) - int(b.index)
	}
	slices.SortFunc(heap, less) // sorted is a heap
	for len(heap) > 0 && o.queue.n > 0 {
		c := heap[0]
		index, ok := o.queue.peek(c.index, shun(c.peer))
		if ok {
			if c.lease == nil {
				c.lease = o.open(c.peer)
			}
			o.take(c.peer, c.lease, index)
			c.room--
			c.finish += c.each
		}
		if !ok || c.room == 0 {
			heap[0] = heap[len(heap)-1]
			heap = heap[:len(heap)-1]
		}
		for i := 0; ; { // sift down
			least := i
			for k := 2*i + 1; k <= 2*i+2 && k < len(heap); k++ {
				if less(heap[k], heap[least]) < 0 {
					least = k
				}
			}
			if least == i {
				break
			}
			heap[i], heap[least] = heap[least], heap[i]
			i = least
		}
	}
}
