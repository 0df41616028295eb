package tasks

import (
	"slices"
	"time"
)

// timers is a heap of what is due when.
type timers []timer

type timer struct {
	at    time.Time
	kind  timerKind
	index uint32
	stage Stage // of timerRequeue and timerReveal
	lease *lease
}

type timerKind uint8

const (
	timerLease    timerKind = iota // look at a lease
	timerRequeue                   // a task's soft exclusion is over
	timerBackoff                   // a peer may be given work again
	timerAssemble                  // try again
	timerHold                      // try to store outputs again
	timerTail                      // look whether the queue is still empty
	timerReveal                    // look for what a task's workers were to show
)

func (t *timers) push(x timer) {
	h := append(*t, x)
	if len(h) == cap(h) && len(h) > 256 {
		h = h.compact()
	}
	*t = h
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h[i].at.Before(h[up].at) {
			return
		}
		h[up], h[i] = h[i], h[up]
		i = up
	}
}

// compact drops the timers of leases that ended, each time the heap would grow.
func (t timers) compact() timers {
	kept := make(timers, 0, len(t))
	for _, x := range t {
		if x.kind != timerLease || (x.lease.live && x.at.Equal(x.lease.check)) {
			kept = append(kept, x)
		}
	}
	slices.SortFunc(kept, func(a, b timer) int { return a.at.Compare(b.at) })
	return slices.Grow(kept, len(kept)+64)
}

func (t *timers) pop() timer {
	h := *t
	top, last := h[0], len(h)-1
	h[0] = h[last]
	h[last] = timer{}
	h = h[:last]
	*t = h
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h); c++ {
			if h[c].at.Before(h[least].at) {
				least = c
			}
		}
		if least == i {
			return top
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}

// expire runs what is due. What it pushes anew is due later.
func (o *Origin) expire() {
	for len(o.timers) > 0 && !o.timers[0].at.After(o.now) && !o.state.Over() {
		switch t := o.timers.pop(); t.kind {
		case timerLease:
			if t.lease.live && t.at.Equal(t.lease.check) {
				o.look(t.lease)
			}
		case timerRequeue:
			if t.stage != o.stage {
				break
			}
			if w := o.work(t.index); t.at.Equal(w.again) {
				w.again = time.Time{}
				if o.queue.has(t.index) {
					o.update(t.index, w.class)
				}
			}
		case timerBackoff:
			o.dirty, o.hint = true, nil
		case timerHold:
			o.holdAgain()
		case timerTail:
			o.tail = false
		case timerReveal:
			if int(t.index) < len(o.stages[o.stage].work) && t.stage == o.stage {
				o.askAgain(t.index)
			}
		case timerAssemble:
			if o.state == Assembling && !o.assembling {
				o.assemble()
			}
		}
	}
}

// atTail looks through all leases when the queue ran empty: then a task is slow
// sooner. A queue that flaps is looked at ten times a second at the most.
func (o *Origin) atTail() {
	const pause = 100 * time.Millisecond
	if o.queue.n > 0 || o.live == 0 {
		o.tail = false
		return
	}
	if o.tail {
		return
	}
	o.tail = true
	if wait := pause - o.now.Sub(o.tailed); wait > 0 && !o.tailed.IsZero() {
		o.timers.push(timer{at: o.now.Add(wait), kind: timerTail})
		return
	}
	o.tailed = o.now
	for _, p := range o.peers {
		for _, l := range p.leases {
			o.watch(l)
		}
	}
}
