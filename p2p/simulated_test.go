package p2p

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/memnet"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// simHosts runs n hosts over memnet, 20 ms apart, until the returned stop.
func simHosts(t *testing.T, m *testMesh, n int, each func(i int, cfg *Config), setup func(*Host)) (hosts []*Host, net *memnet.Network, stop func()) {
	t.Helper()
	net = memnet.New(memnet.Config{Latency: func(_, _ netip.Addr) time.Duration { return 20 * time.Millisecond }})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i := range n {
		key, id := newKey(t)
		cfg := Config{
			Key: key, Mesh: m.id, Token: m.token(id, auth.AllRights, 24*time.Hour), Simulated: true, Seed: uint64(i + 1),
			Options: SimulatedOptions(net.Transport(memnet.IP(i)), nil), Listen: []ma.Multiaddr{memnet.Listen(memnet.IP(i))},
		}
		if each != nil {
			each(i, &cfg)
		}
		h, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if setup != nil {
			setup(h)
		}
		hosts = append(hosts, h)
	}
	for _, h := range hosts {
		running.Go(func() {
			if err := h.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		<-h.Ready()
	}
	return hosts, net, func() {
		cancel()
		running.Wait()
		net.Close()
	}
}

func TestSimulatedBubbleEnds(t *testing.T) {
	m := newTestMesh(t)
	synctest.Test(t, func(t *testing.T) {
		hosts, _, stop := simHosts(t, m, 3, nil, serveEcho)
		defer stop()
		for _, h := range hosts[1:] {
			if err := h.Connect(t.Context(), peer.AddrInfo{ID: hosts[0].ID(), Addrs: hosts[0].raw.Addrs()}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := hosts[1].Call(t.Context(), hosts[0].ID(), echo, []byte("first")); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if _, err := hosts[1].Call(t.Context(), hosts[0].ID(), echo, []byte("second")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != 40*time.Millisecond {
			t.Errorf("a call on a kept-open stream took %s, want one round trip of 40ms", took)
		}
		time.Sleep(2 * pipeIdle)
		if hosts[1].caller.size() > 2 { // the neighbourhood's own
			t.Errorf("%d request streams after a long silence", hosts[1].caller.size())
		}
		if _, err := hosts[1].Call(t.Context(), hosts[0].ID(), echo, []byte("third")); err != nil {
			t.Fatal(err)
		}
	})
}

// Virtual time: a stranger is closed after exactly its time, however it hides.
func TestSimulatedStrangerTime(t *testing.T) {
	m, other := newTestMesh(t), newTestMesh(t)
	synctest.Test(t, func(t *testing.T) {
		hosts, _, stop := simHosts(t, m, 2, func(i int, cfg *Config) {
			if i == 1 {
				id, err := peer.IDFromPrivateKey(cfg.Key)
				if err != nil {
					t.Fatal(err)
				}
				cfg.Mesh, cfg.Token = other.id, other.token(id, auth.AllRights, time.Hour)
			}
		}, nil)
		defer stop()
		begun := time.Now()
		if err := hosts[1].Connect(t.Context(), peer.AddrInfo{ID: hosts[0].ID(), Addrs: hosts[0].raw.Addrs()}); RefusalCode(err) != CodeOtherMesh {
			t.Fatalf("got %v", err)
		}
		for hosts[0].connectedTo(hosts[1].ID()) {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(begun); took < StrangerTime || took > StrangerTime+time.Second {
			t.Errorf("closed after %s, want %s", took, StrangerTime)
		}
	})
}

// A mesh cut in two finds itself again after the cut heals, with no invite.
func TestSimulatedRejoin(t *testing.T) {
	m := newTestMesh(t)
	synctest.Test(t, func(t *testing.T) {
		var first peer.AddrInfo
		hosts, net, stop := simHosts(t, m, 6, nil, nil)
		defer stop()
		first = peer.AddrInfo{ID: hosts[0].ID(), Addrs: hosts[0].raw.Addrs()}
		for _, h := range hosts[1:] {
			if err := h.Connect(t.Context(), first); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		side := func(i int) int { return i % 2 }
		crossings := func(i int) (n int) {
			for j, o := range hosts {
				if side(i) != side(j) && hosts[i].IsMember(o.ID()) {
					n++
				}
			}
			return n
		}
		var even, odd []netip.Addr
		for i := range hosts {
			if side(i) == 0 {
				even = append(even, memnet.IP(i))
			} else {
				odd = append(odd, memnet.IP(i))
			}
		}
		net.Partition(even, odd)
		time.Sleep(3 * time.Minute)
		for i := range hosts {
			if n := crossings(i); n != 0 {
				t.Errorf("host %d still has %d members beyond the cut", i, n)
			}
		}
		net.HealAll()
		time.Sleep(10 * time.Minute)
		for i := range hosts {
			if crossings(i) == 0 {
				t.Errorf("host %d has no member on the other side", i)
			}
		}
	})
}
