package memnet_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"

	"github.com/kith-mesh/kith/p2p/memnet"
)

func newHost(net *memnet.Network, i int) (host.Host, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	return libp2p.New(
		libp2p.Identity(key),
		libp2p.Transport(net.Transport(memnet.IP(i))),
		libp2p.NoSecurity,
		libp2p.ListenAddrs(memnet.Listen(memnet.IP(i))),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
	)
}

// Two hosts 40 ms apart ping each other; the clock is virtual.
func Example() {
	// In a real test this is synctest.Test(t, func(t *testing.T) {...}): there the
	// pings take no real time and measure exactly 80 ms.
	net := memnet.New(memnet.Config{Latency: func(from, to netip.Addr) time.Duration {
		return 2 * time.Millisecond
	}})
	defer net.Close()
	a, err := newHost(net, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	b, err := newHost(net, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
		fmt.Println(err)
		return
	}
	r := <-ping.Ping(ctx, a, b.ID())
	fmt.Println(r.Error, r.RTT >= 4*time.Millisecond)
	// Output: <nil> true
}

// The hosts' goroutines all end: the bubble would panic otherwise.
func TestHostsInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memnet.New(memnet.Config{Latency: every(40 * time.Millisecond)})
		defer net.Close()
		hosts := make([]host.Host, 4)
		for i := range hosts {
			h, err := newHost(net, i)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			hosts[i] = h
		}
		gone := make(chan struct{})
		hosts[0].Network().Notify(&network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) {
			if c.RemotePeer() == hosts[2].ID() {
				close(gone)
			}
		}})
		for _, h := range hosts[1:] {
			if err := hosts[0].Connect(t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		results := ping.Ping(ctx, hosts[0], hosts[1].ID())
		for range 5 {
			if r := <-results; r.Error != nil || r.RTT != 80*time.Millisecond {
				t.Fatal(r)
			}
		}
		cancel()
		for range results {
		}
		start := time.Now()
		net.Kill(memnet.IP(2))
		hosts[2].Close()
		<-gone
		took(t, start, 30*time.Second)
	})
}
