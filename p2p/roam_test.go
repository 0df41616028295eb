package p2p

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A node that has lost every member tries again within half a minute however
// often it failed, and at once when its own addresses change.
func TestBackoffOfTheLonely(t *testing.T) {
	m := newTestMesh(t)
	h := m.host(m.config(), nil)
	gone := peer.ID("a member that is away")
	h.book.mu.Lock()
	h.book.peers[gone] = &page{met: time.Now(), fails: 12}
	h.book.mu.Unlock()
	rng := rand.New(rand.NewPCG(1, 1))
	retry := func() time.Duration {
		h.book.mu.Lock()
		defer h.book.mu.Unlock()
		return time.Until(h.book.peers[gone].retry)
	}
	if got := h.due(rng, 1, aloneBackoff); len(got) != 1 {
		t.Fatalf("%d are due, want the one member", len(got))
	}
	if wait := retry(); wait <= 0 || wait > aloneBackoff*3/2 {
		t.Errorf("next try in %v, want at most %v", wait, aloneBackoff*3/2)
	}
	if got := h.due(rng, 1, aloneBackoff); len(got) != 0 {
		t.Error("it is due again before its time")
	}
	h.roam()
	if got := h.due(rng, 1, mostRedialBackoff); len(got) != 1 {
		t.Error("it is not due though this machine moved")
	}
	if wait := retry(); wait > 2*redialBackoff {
		t.Errorf("next try in %v: what failed before the move still counts", wait)
	}
}
