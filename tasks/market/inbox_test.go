package market

import (
	"testing"

	"github.com/kith-mesh/kith/tasks"
)

// One peer fills its part of an inbox, and the others still have theirs; what
// was taken makes room, and this node's own is never refused.
func TestInboxIsShared(t *testing.T) {
	const most = 40
	q := newInbox[int](&pool{})
	flood := func(from tasks.PeerID) (n int) {
		for q.offer(most, from, 1, 0) {
			n++
		}
		return n
	}
	if n := flood("one"); n != most/4 {
		t.Errorf("one peer left %d, want %d", n, most/4)
	}
	if !q.offer(most, "two", 1, 2, 2, 2) {
		t.Error("another peer was refused")
	}
	if got := len(q.take(5)); got != 5 {
		t.Fatalf("took %d, want 5", got)
	}
	if n := flood("one"); n != 5 {
		t.Errorf("room for %d more of the first, want 5", n)
	}
	if q.offer(most, "three", 1, make([]int, most)...) {
		t.Error("more than the inbox has")
	}
	if !q.offer(most, "three", 1, make([]int, most/2)...) || q.offer(most, "three", 1, 3) {
		t.Error("one message of a peer that has nothing waiting fits, and no other after it")
	}
	q.push(make([]int, most)...)
	if got := len(q.take(1 << 10)); got != most/4+3+most/2+most {
		t.Errorf("%d items wait in all", got)
	}
	if len(q.waits) != 0 {
		t.Errorf("peers of which nothing waits are remembered: %v", q.waits)
	}
}
