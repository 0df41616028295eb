package tasks

import "encoding/binary"

// queue holds the tasks that need a worker. A task stands in it once, in the
// bucket of the workers that must not take it (they have it or answered it), so
// that finding work for a worker costs the number of buckets, not of tasks.
type queue struct {
	buckets []*bucket
	at      map[string]int // bucket key to place in buckets
	stamps  []uint32       // per task: the entry with this stamp is the valid one
	held    []*bucket      // per task: where it stands; nil: not queued
	n       int            // tasks queued
	entries int            // with the stale ones
}

type bucket struct {
	key  string
	deny []int32 // ascending
	heap []entry // by rank
	live int
}

type entry struct {
	rank  uint64
	index uint32
	stamp uint32
}

func newQueue(tasks int) *queue {
	return &queue{at: make(map[string]int), stamps: make([]uint32, tasks), held: make([]*bucket, tasks)}
}

func (q *queue) has(index uint32) bool { return q.held[index] != nil }

// put queues a task, or moves it when it was queued already. deny is ascending.
func (q *queue) put(index uint32, rank uint64, deny []int32) {
	q.remove(index)
	key := denyKey(deny)
	i, ok := q.at[key]
	if !ok {
		i = len(q.buckets)
		q.at[key] = i
		q.buckets = append(q.buckets, &bucket{key: key, deny: append([]int32(nil), deny...)})
	}
	b := q.buckets[i]
	b.push(entry{rank, index, q.stamps[index]})
	b.live++
	q.held[index] = b
	q.n++
	if q.entries++; q.entries > 2*q.n+1024 {
		q.compact()
	}
}

// remove takes a task out, wherever it stands.
func (q *queue) remove(index uint32) {
	if b := q.held[index]; b != nil {
		b.live--
		q.held[index] = nil
		q.stamps[index]++
		q.n--
	}
}

// peek finds the first task that worker may take, and that none of those who have
// it makes it shun. shun may be nil.
func (q *queue) peek(worker int32, shun func(have []int32) bool) (index uint32, ok bool) {
	var best *bucket
	for i := 0; i < len(q.buckets); {
		b := q.buckets[i]
		if !q.tidy(b) {
			q.drop(i)
			continue
		}
		i++
		if (best == nil || b.heap[0].rank < best.heap[0].rank) && !contains(b.deny, worker) && (shun == nil || !shun(b.deny)) {
			best = b
		}
	}
	if best == nil {
		return 0, false
	}
	return best.heap[0].index, true
}

// tidy pops stale entries off the top; false: the bucket is empty.
func (q *queue) tidy(b *bucket) bool {
	if b.live == 0 {
		return false
	}
	for top := b.heap[0]; q.held[top.index] != b || q.stamps[top.index] != top.stamp; top = b.heap[0] {
		b.pop()
		q.entries--
	}
	return true
}

func (q *queue) drop(i int) {
	b, last := q.buckets[i], len(q.buckets)-1
	q.entries -= len(b.heap)
	delete(q.at, b.key)
	if i != last {
		q.buckets[i] = q.buckets[last]
		q.at[q.buckets[i].key] = i
	}
	q.buckets[last] = nil
	q.buckets = q.buckets[:last]
}

func (q *queue) compact() {
	q.entries = 0
	for _, b := range q.buckets {
		kept := b.heap[:0]
		for _, e := range b.heap {
			if q.held[e.index] == b && q.stamps[e.index] == e.stamp {
				kept = append(kept, e)
			}
		}
		b.heap = kept
		for i := len(kept)/2 - 1; i >= 0; i-- {
			b.down(i)
		}
		q.entries += len(kept)
	}
}

func (b *bucket) push(e entry) {
	b.heap = append(b.heap, e)
	for i := len(b.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if b.heap[up].rank <= b.heap[i].rank {
			return
		}
		b.heap[up], b.heap[i] = b.heap[i], b.heap[up]
		i = up
	}
}

func (b *bucket) pop() {
	last := len(b.heap) - 1
	b.heap[0] = b.heap[last]
	b.heap = b.heap[:last]
	b.down(0)
}

func (b *bucket) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(b.heap); c++ {
			if b.heap[c].rank < b.heap[least].rank {
				least = c
			}
		}
		if least == i {
			return
		}
		b.heap[i], b.heap[least] = b.heap[least], b.heap[i]
		i = least
	}
}

func denyKey(deny []int32) string {
	if len(deny) == 0 {
		return ""
	}
	var buf [64]byte
	key := buf[:0]
	for _, d := range deny {
		key = binary.LittleEndian.AppendUint32(key, uint32(d))
	}
	return string(key)
}

func contains(list []int32, v int32) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}
