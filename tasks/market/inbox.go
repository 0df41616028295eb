package market

import (
	"sync"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// inbox is a queue with one reader, who waits on ready. Writers never block:
// what peers leave is bounded in sum, and a quarter of that is the most that one
// of them has waiting, so that none shuts the others out. That holds for the
// number of things in one inbox, and for the bytes in all that share a pool.
type inbox[T any] struct {
	bytes *pool

	mu     sync.Mutex
	closed bool
	items  []item[T]
	waits  map[tasks.PeerID]int // items that each peer left
	ready  chan struct{}        // holds one token when there may be items
}

// item is what waits, who left it (nobody, if it is this node's own), and what it
// takes.
type item[T any] struct {
	v     T
	from  tasks.PeerID
	bytes int
}

func newInbox[T any](bytes *pool) *inbox[T] {
	return &inbox[T]{bytes: bytes, ready: make(chan struct{}, 1), waits: map[tasks.PeerID]int{}}
}

// push leaves what must not be lost.
func (q *inbox[T]) push(vs ...T) {
	q.mu.Lock()
	if !q.closed {
		q.append("", 0, vs)
	}
	q.mu.Unlock()
	q.rouse()
}

// offer leaves what a peer sent and what takes so many bytes, all or nothing: not
// when most items wait, or a quarter of that of this peer. What comes at once from
// a peer of which nothing waits fits if there is room at all.
func (q *inbox[T]) offer(most int, from tasks.PeerID, bytes int, vs ...T) bool {
	q.mu.Lock()
	taken := q.fits(most, from, len(vs)) && q.bytes.take(from, bytes)
	if taken {
		q.append(from, bytes, vs)
	}
	q.mu.Unlock()
	if taken {
		q.rouse()
	}
	return taken
}

// room reports whether offer would take one thing now.
func (q *inbox[T]) room(most int, from tasks.PeerID, bytes int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.fits(most, from, 1) && q.bytes.fits(from, bytes)
}

// fits and append are called with the lock held.
func (q *inbox[T]) fits(most int, from tasks.PeerID, n int) bool {
	mine := q.waits[from]
	return !q.closed && len(q.items)+n <= most && (mine == 0 || mine+n <= most/4)
}

func (q *inbox[T]) append(from tasks.PeerID, bytes int, vs []T) {
	for i, v := range vs {
		if i > 0 {
			bytes = 0 // all that came at once counts with the first
		}
		q.items = append(q.items, item[T]{v, from, bytes})
	}
	if from != "" && len(vs) > 0 {
		q.waits[from] += len(vs)
	}
}

func (q *inbox[T]) rouse() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take gives what waits, at most n.
func (q *inbox[T]) take(n int) []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]T, min(n, len(q.items)))
	for i := range out {
		it := &q.items[i]
		out[i] = it.v
		if it.from != "" {
			if q.waits[it.from]--; q.waits[it.from] == 0 {
				delete(q.waits, it.from)
			}
			q.bytes.give(it.from, it.bytes)
		}
		*it = item[T]{}
	}
	if q.items = q.items[len(out):]; len(q.items) == 0 {
		q.items = nil
	} else {
		q.rouse()
	}
	return out
}

// close gives back what nobody reads any more, and takes nothing from then on.
func (q *inbox[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items {
		if it.from != "" {
			q.bytes.give(it.from, it.bytes)
		}
	}
	q.closed, q.items, q.waits = true, nil, map[tasks.PeerID]int{}
}

// poolBytes bounds what peers sent and nobody has looked at, in all inboxes of a
// node together; a quarter of it one peer's.
const poolBytes = 128 << 20

// pool counts bytes that peers left. The zero value is ready.
type pool struct {
	mu  sync.Mutex
	sum int
	of  map[tasks.PeerID]int
}

// take counts bytes in, unless they are too many.
func (p *pool) take(from tasks.PeerID, bytes int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.fit(from, bytes) {
		return false
	}
	if p.of == nil {
		p.of = map[tasks.PeerID]int{}
	}
	if p.sum += bytes; bytes > 0 {
		p.of[from] += bytes
	}
	return true
}

func (p *pool) fits(from tasks.PeerID, bytes int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fit(from, bytes)
}

// fit is called with the lock held.
func (p *pool) fit(from tasks.PeerID, bytes int) bool {
	return p.sum+bytes <= poolBytes && p.of[from]+bytes <= poolBytes/4
}

func (p *pool) give(from tasks.PeerID, bytes int) {
	if bytes == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sum -= bytes
	if p.of[from] -= bytes; p.of[from] == 0 {
		delete(p.of, from)
	}
}

// alarm is a timer for a machine's Next.
type alarm struct{ t *time.Timer }

func newAlarm() *alarm {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &alarm{t}
}

// set arms the alarm for at; zero disarms it.
func (a *alarm) set(at time.Time) {
	if at.IsZero() {
		a.t.Stop()
		return
	}
	a.t.Reset(max(time.Until(at), 0))
}
