package transfer

import (
	"sync"
	"testing"
	"testing/synctest"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/storage"
)

// TestBusyGiver fetches more roots at once than a peer serves streams: it is
// asked again, and none is said to be missing.
func TestBusyGiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		ms, stop := m.simMembers(t, 2, func(int) float64 { return 0 })
		defer stop()
		if err := ms[1].h.Connect(t.Context(), peer.AddrInfo{ID: ms[0].h.ID(), Addrs: ms[0].h.Raw().Addrs()}); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for i := range 4 * Blocks.Streams {
			root := add(t, ms[0].st, noise(100<<10, byte(i+1)), storage.AddOptions{})
			all.Go(func() {
				if err := ms[1].s.Fetch(t.Context(), Want{Root: root.CID, Length: -1, From: []peer.ID{ms[0].h.ID()}}, nil); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}
