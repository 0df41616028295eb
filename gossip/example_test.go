package gossip_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/kith-mesh/kith/gossip"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/memnet"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Two members on an in-memory network; one offers work, the other hears of it.
func Example() {
	wire := memnet.New(memnet.Config{})
	root, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	a, hostA := member(wire, 0, root, nil)
	b, hostB := member(wire, 1, root, []peer.AddrInfo{{ID: hostA.ID(), Addrs: []ma.Multiaddr{memnet.Listen(memnet.IP(0))}}})

	heard := make(chan gossip.Offered, 16)
	b.OnOffer(func(_ context.Context, o gossip.Offered) { heard <- o })
	var all sync.WaitGroup
	for _, run := range []func(context.Context) error{hostA.Run, hostB.Run, a.Run, b.Run} {
		all.Go(func() { must(run(ctx)) })
	}
	// The overlay takes a moment to form: offer until somebody hears.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for done := false; !done; {
		must(a.PublishOffer(ctx, []byte("four tasks wait"), 100*time.Millisecond, time.Minute))
		select {
		case o := <-heard:
			fmt.Printf("%s: %v\n", o.Payload, o.Origin == hostA.ID())
			done = true
		case <-tick.C:
		}
	}
	cancel()
	all.Wait()
	must(wire.Close())
	// Output: four tasks wait: true
}

func member(wire *memnet.Network, i int, root crypto.PrivKey, bootstrap []peer.AddrInfo) (*gossip.Service, *p2p.Host) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(err)
	id, err := peer.IDFromPrivateKey(key)
	must(err)
	mesh, err := auth.MeshOf(root.GetPublic())
	must(err)
	token, err := auth.Mint(root, auth.Subject{Peer: id, Rights: auth.Submit | auth.Work, Expires: time.Now().Add(time.Hour)})
	must(err)
	h, err := p2p.New(p2p.Config{
		Key: key, Mesh: mesh, Token: token, Bootstrap: bootstrap,
		Simulated: true, Listen: []ma.Multiaddr{memnet.Listen(memnet.IP(i))},
		Options:       []libp2p.Option{libp2p.Transport(wire.Transport(memnet.IP(i))), libp2p.NoSecurity},
		Neighbourhood: p2p.NeighbourhoodConfig{Fast: 10 * time.Millisecond},
	})
	must(err)
	s, err := gossip.New(h, gossip.Config{OfferRate: 100, OfferBurst: 100})
	must(err)
	return s, h
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
