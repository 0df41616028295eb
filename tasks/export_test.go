package tasks

import "fmt"

// Check finds what must never be true of an origin between two Steps.
func (o *Origin) Check() error {
	if o.state.Over() {
		if o.Next().After(o.now) {
			return fmt.Errorf("over, but Next is %v", o.Next())
		}
		return nil
	}
	slots, live, queued, decided := 0, 0, 0, uint32(0)
	ph := &o.stages[o.stage]
	holds := make(map[int32]uint32)
	for i := range ph.work {
		w := &ph.work[i]
		if w.decided {
			decided++
			if ph.results[i].Output == "" || o.queue.has(uint32(i)) {
				return fmt.Errorf("task %d: decided without result, or queued", i)
			}
			for _, a := range w.attempts {
				if a.held() {
					return fmt.Errorf("task %d: decided and held", i)
				}
			}
			continue
		}
		need := w.needs()
		if need != w.need || (need > 0) != o.queue.has(uint32(i)) {
			return fmt.Errorf("task %d: needs %d, noted %d, queued %v", i, need, w.need, o.queue.has(uint32(i)))
		}
		slots += int(need)
		if need > 0 {
			queued++
		}
		if len(w.attempts) > maxAttempts+int(w.want) {
			return fmt.Errorf("task %d: %d attempts", i, len(w.attempts))
		}
		seen := make(map[int32]bool)
		for _, a := range w.attempts {
			if a.held() {
				live++
				holds[a.peer]++
				if !a.lease.live || o.leases[a.lease.id] != a.lease {
					return fmt.Errorf("task %d: held under lease %s, which is not live", i, a.lease.id)
				}
			}
			if a.promised() != (o.peers[a.peer].promises[uint32(i)] && a.promised()) {
				return fmt.Errorf("task %d: %s committed, which is not noted", i, o.peers[a.peer].id)
			}
			if a.state == AttemptRevealing && !w.asking {
				return fmt.Errorf("task %d: nobody waits for what %s is to show", i, o.peers[a.peer].id)
			}
			if a.held() || a.spoken() {
				if seen[a.peer] {
					return fmt.Errorf("task %d: two replicas with %s", i, o.peers[a.peer].id)
				}
				seen[a.peer] = true
			}
		}
		if need == 0 && live == 0 && len(o.holding) == 0 && len(w.answers) == 0 && len(seen) == 0 {
			return fmt.Errorf("task %d: nobody has it and it waits for nobody", i)
		}
	}
	if slots != o.slots || live != o.live || queued != o.queue.n || decided != ph.decided {
		return fmt.Errorf("slots %d/%d live %d/%d queued %d/%d decided %d/%d", slots, o.slots, live, o.live, queued, o.queue.n, decided, ph.decided)
	}
	for i, p := range o.peers {
		if p.id != "" && p.holds != holds[int32(i)] {
			return fmt.Errorf("%s holds %d, noted %d", p.id, holds[int32(i)], p.holds)
		}
	}
	if o.state == Running && o.began && (o.queue.n > 0 || o.live > 0) && o.Next().IsZero() {
		return fmt.Errorf("%d tasks wait and %d run, but Next is not set", o.queue.n, o.live)
	}
	if o.queue.entries > 2*o.queue.n+1025 || len(o.timers) > 8*(o.live+o.queue.n+len(o.peers))+1024 {
		return fmt.Errorf("%d entries, %d timers for %d queued, %d live", o.queue.entries, len(o.timers), o.queue.n, o.live)
	}
	if len(o.Why(o.now)) == 0 {
		return fmt.Errorf("undecided without a reason")
	}
	for id, l := range o.leases {
		if l.left <= 0 {
			return fmt.Errorf("lease %s is remembered for nothing", id)
		}
	}
	return nil
}

// Check finds what must never be true of a worker between two Steps.
func (w *Worker) Check() error {
	var slots, queued, owed uint32
	var memory int64
	for _, r := range w.running {
		slots += cores(r.lease.lease.Needs)
		memory += r.lease.lease.Needs.Memory
	}
	for _, s := range w.jobs {
		queued += uint32(len(s.queue))
		owed += uint32(len(s.owed))
		if len(s.leases) == 0 && s.running(w) == 0 {
			return fmt.Errorf("job %s is kept for nothing", s.job)
		}
		for _, l := range s.leases {
			if len(l.runs) == 0 {
				return fmt.Errorf("lease %s is kept for nothing", l.lease.ID)
			}
		}
		if len(s.leases) > 0 && !s.out && s.due.IsZero() {
			return fmt.Errorf("job %s has no next report", s.job)
		}
	}
	if slots != w.slots || memory != w.memory || queued != w.queued || owed != w.owed {
		return fmt.Errorf("slots %d/%d memory %d/%d queued %d/%d owed %d/%d", slots, w.slots, memory, w.memory, queued, w.queued, owed, w.owed)
	}
	if slots > w.limits.Slots && len(w.running) > 1 {
		return fmt.Errorf("%d slots taken of %d", slots, w.limits.Slots)
	}
	return nil
}
