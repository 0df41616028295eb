package tasks

import (
	"slices"
	"time"
)

// account is what one origin has here. Each has its turn, whatever it brought:
// tasks start one origin after the other, and within one, job after job.
type account struct {
	origin PeerID
	jobs   []*served // in the order they came
	turn   int
	queued uint32
	owed   uint32 // receipts without a verdict
	bytes  int64  // of its leases and of those receipts
}

// bookOf gives an origin's account, and makes it when there is none.
func (w *Worker) bookOf(origin PeerID) *account {
	if b := w.account(origin); b != nil {
		return b
	}
	b := &account{origin: origin}
	w.books = append(w.books, b)
	return b
}

// account is nil for an origin that has nothing here.
func (w *Worker) account(origin PeerID) *account {
	for _, b := range w.books {
		if b.origin == origin {
			return b
		}
	}
	return nil
}

// closed forgets a job, and its origin with the last one.
func (w *Worker) closed(s *served) {
	b := s.book
	b.jobs = slices.DeleteFunc(b.jobs, func(x *served) bool { return x == s })
	if len(b.jobs) == 0 {
		w.books = slices.DeleteFunc(w.books, func(x *account) bool { return x == b })
	}
}

// queue and unqueue count a run that waits to start; owes and settles a receipt
// that waits for its verdict.
func (w *Worker) queue(r *run) {
	w.queued++
	r.served.book.queued++
	r.lease.queued++
}

func (w *Worker) unqueue(r *run) {
	w.queued--
	r.served.book.queued--
	r.lease.queued--
}

func (w *Worker) owes(r *run) {
	w.owed++
	r.served.book.owed++
	w.weigh(r.served.book, r.receipt.weight())
}

func (w *Worker) settles(r *run) {
	w.owed--
	r.served.book.owed--
	w.weigh(r.served.book, -r.receipt.weight())
}

func (w *Worker) weigh(b *account, bytes int64) {
	w.bytes += bytes
	b.bytes += bytes
}

// weight is about what a receipt takes.
func (r Receipt) weight() int64 {
	return 256 + int64(len(r.Inline)) + int64(len(r.Log)) + int64(len(r.Detail))
}

// laden reports whether nothing more of an origin may start, since it judges so
// little of what it has. Leases alone do not hold it up: they go when they are
// done.
func (w *Worker) laden(b *account) bool {
	return b.owed >= w.cfg.MaxReceipts || w.owed >= workerShares*w.cfg.MaxReceipts ||
		b.owed > 0 && b.bytes >= w.cfg.MaxBytes || w.owed > 0 && w.bytes >= workerShares*w.cfg.MaxBytes
}

// hasRoom reports whether a lease fits within its origin's bounds, and those of
// all.
func (w *Worker) hasRoom(l *Lease, bytes int64) bool {
	b, n := w.account(l.Origin), uint32(len(l.Assignments))
	if b == nil {
		b = &account{}
	}
	if w.find(l.Origin, l.Job) == nil && (len(b.jobs) >= w.cfg.MaxJobs || len(w.jobs) >= workerShares*w.cfg.MaxJobs) {
		return false
	}
	return b.queued+n <= w.cfg.MaxQueue && w.queued+n <= workerShares*w.cfg.MaxQueue &&
		b.bytes+bytes <= w.cfg.MaxBytes && w.bytes+bytes <= workerShares*w.cfg.MaxBytes
}

// wait predicts how long one more task of an origin would wait before it starts.
// Whatever else another origin has here beyond the work that this node likes to
// have in hand starts after it, since all have their turn.
func (w *Worker) wait(origin PeerID) time.Duration {
	return w.waitBeside(origin, w.cfg.Ahead*time.Duration(max(w.limits.Slots, 1)))
}

// fairWait is wait with none of that: what others brought counts no more than
// its turns.
func (w *Worker) fairWait(origin PeerID) time.Duration { return w.waitBeside(origin, 0) }

func (w *Worker) waitBeside(origin PeerID, most time.Duration) time.Duration {
	if w.queued == 0 && w.slots < w.limits.Slots {
		return 0
	}
	var work time.Duration
	for _, r := range w.running {
		work += w.left(r) * time.Duration(cores(r.lease.lease.Needs))
	}
	turns := uint32(1)
	if b := w.account(origin); b != nil {
		turns += b.queued
	}
	for _, b := range w.books {
		if b.queued == 0 {
			continue
		}
		all := time.Duration(0)
		for _, s := range b.jobs {
			for _, l := range s.leases {
				all += w.service(l.lease.Program) * time.Duration(l.queued) * time.Duration(cores(l.lease.Needs))
			}
		}
		if b.origin != origin && turns < b.queued {
			all = min(all, max(all/time.Duration(b.queued)*time.Duration(turns), most))
		}
		work += all
	}
	return work / time.Duration(max(w.limits.Slots, 1))
}

// keep adds x to a list of which each origin may have most, and all together
// workerShares times that: the oldest of the same origin makes room, or else the
// oldest of whoever has most.
func keep[T any](list []T, most int, of func(T) PeerID, x T) []T {
	count := map[PeerID]int{}
	for _, o := range list {
		count[of(o)]++
	}
	from := of(x)
	if count[from] < most && len(list) >= workerShares*most {
		for _, o := range list { // not a map's order
			if count[of(o)] > count[from] {
				from = of(o)
			}
		}
	}
	if count[from] >= most || len(list) >= workerShares*most {
		if i := slices.IndexFunc(list, func(o T) bool { return of(o) == from }); i >= 0 {
			list = slices.Delete(list, i, i+1)
		}
	}
	return append(list, x)
}
