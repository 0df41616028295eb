package market

import (
	"sync"
	"time"
)

// inbox is a queue with one reader, who waits on ready. Writers never block:
// those of outside events are bounded by their owner with len.
type inbox[T any] struct {
	mu    sync.Mutex
	items []T
	ready chan struct{} // holds one token when there may be items
}

func newInbox[T any]() *inbox[T] { return &inbox[T]{ready: make(chan struct{}, 1)} }

func (q *inbox[T]) push(items ...T) {
	q.mu.Lock()
	q.items = append(q.items, items...)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// offer pushes unless most items wait already.
func (q *inbox[T]) offer(most int, items ...T) bool {
	q.mu.Lock()
	full := len(q.items)+len(items) > most
	if !full {
		q.items = append(q.items, items...)
	}
	q.mu.Unlock()
	if full {
		return false
	}
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return true
}

// take gives what waits, at most n.
func (q *inbox[T]) take(n int) []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.items))
	out := q.items[:n:n]
	if q.items = q.items[n:]; len(q.items) == 0 {
		q.items = nil
	} else {
		select {
		case q.ready <- struct{}{}:
		default:
		}
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
