package market

import (
	"sync"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// inbox is a queue with one reader, who waits on ready. Writers never block:
// what peers leave is bounded in sum, and a quarter of that is the most that one
// of them has waiting, so that none shuts the others out.
type inbox[T any] struct {
	mu    sync.Mutex
	items []item[T]
	waits map[tasks.PeerID]int // items that each peer left
	ready chan struct{}        // holds one token when there may be items
}

// item is what waits, and who left it: nobody, if it is this node's own.
type item[T any] struct {
	v    T
	from tasks.PeerID
}

func newInbox[T any]() *inbox[T] {
	return &inbox[T]{ready: make(chan struct{}, 1), waits: map[tasks.PeerID]int{}}
}

// push leaves what must not be lost.
func (q *inbox[T]) push(vs ...T) {
	q.mu.Lock()
	q.append("", vs)
	q.mu.Unlock()
	q.rouse()
}

// offer leaves what a peer sent, all or nothing: not when most items wait, or a
// quarter of that of this peer. What comes at once from a peer of which nothing
// waits fits if there is room at all.
func (q *inbox[T]) offer(most int, from tasks.PeerID, vs ...T) bool {
	q.mu.Lock()
	mine := q.waits[from]
	full := len(q.items)+len(vs) > most || mine > 0 && mine+len(vs) > most/4
	if !full {
		q.append(from, vs)
	}
	q.mu.Unlock()
	if !full {
		q.rouse()
	}
	return !full
}

// append is called with the lock held.
func (q *inbox[T]) append(from tasks.PeerID, vs []T) {
	for _, v := range vs {
		q.items = append(q.items, item[T]{v, from})
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
