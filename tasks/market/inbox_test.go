package market

import (
	"fmt"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
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

// A job hears of who comes, but not of whom it brought by asking; that one is
// heard of when it was gone since.
func TestWhoComesIsHeardOf(t *testing.T) {
	d := &desk{inbox: newInbox[deskEvent](&pool{}), probes: map[peer.ID]bool{"probed": true}}
	s := &Service{desks: map[tasks.JobID]*desk{"j": d}}
	s.member("other", true)
	s.member("probed", true)
	s.member("probed", false)
	s.member("probed", true)
	var got []string
	for _, e := range d.inbox.take(9) {
		got = append(got, fmt.Sprintf("%T %v", e.ev, e.ev))
	}
	other, probed := idOf("other"), idOf("probed")
	if want := []string{fmt.Sprintf("tasks.PeerCame {%s}", other), fmt.Sprintf("tasks.PeerGone {%s}", probed), fmt.Sprintf("tasks.PeerCame {%s}", probed)}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// What came in one message weighs as much as its proofs, each once.
func TestWeight(t *testing.T) {
	of := func(b *wire.SignedBatch) deskEvent { return deskEvent{receipt: &wire.SignedReceipt{Batch: b}} }
	a, b := &wire.SignedBatch{Sealed: make([]byte, 1000)}, &wire.SignedBatch{Sealed: make([]byte, 200)}
	if got := weight([]deskEvent{{}, of(a), of(a), of(b)}); got != 4*eventBytes+1200 {
		t.Errorf("%d", got)
	}
}
