package dht

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/memnet"
)

// TestWarm looks things up among twenty nodes in virtual time: nobody
// bootstraps, and every goroutine ends with the bubble.
func TestWarm(t *testing.T) {
	const n = 20
	m := newMesh(t)
	synctest.Test(t, func(t *testing.T) {
		net := memnet.New(memnet.Config{Latency: func(_, _ netip.Addr) time.Duration { return 20 * time.Millisecond }})
		defer net.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		var hosts []*p2p.Host
		var warm []peer.AddrInfo
		for i := range n {
			key, id := newKey(t)
			listen := memnet.Listen(memnet.IP(i))
			h, err := p2p.New(p2p.Config{Key: key, Mesh: m.id, Token: m.token(id), Simulated: true, Seed: uint64(i + 1),
				Options: p2p.SimulatedOptions(net.Transport(memnet.IP(i)), nil), Listen: []ma.Multiaddr{listen}})
			if err != nil {
				t.Fatal(err)
			}
			hosts, warm = append(hosts, h), append(warm, peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{listen}})
		}
		var tables []*Service
		var stopped sync.WaitGroup // tables end before hosts do
		tctx, stop := context.WithCancel(ctx)
		defer stopped.Wait()
		defer stop()
		for i, h := range hosts {
			s, err := New(h, Config{Simulated: true, Warm: warm})
			if err != nil {
				t.Fatal(err)
			}
			running.Go(func() {
				if err := h.Run(ctx); err != nil {
					t.Errorf("host %d: %v", i, err)
				}
			})
			<-h.Ready()
			stopped.Go(func() {
				if err := s.Run(tctx); err != nil {
					t.Errorf("table %d: %v", i, err)
				}
			})
			tables = append(tables, s)
		}
		for i := range 5 {
			root := sum(t, fmt.Sprint(i))
			if err := tables[i].Provide(ctx, root); err != nil {
				t.Fatal(err)
			}
			got, err := tables[n-1-i].FindProviders(ctx, root, 3)
			if err != nil || len(got) != 1 || got[0].ID != hosts[i].ID() {
				t.Errorf("providers of root %d: %v, %v", i, got, err)
			}
		}
		if tables[0].Size() < n/2 {
			t.Errorf("the routing table has %d of %d", tables[0].Size(), n-1)
		}
	})
	if _, err := New(nil, Config{Warm: []peer.AddrInfo{{}}}); err == nil {
		t.Error("Warm without Simulated is accepted")
	}
}
