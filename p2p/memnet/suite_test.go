package memnet_test

import (
	"crypto/rand"
	"net/netip"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	tptest "github.com/libp2p/go-libp2p/p2p/transport/testsuite"

	"github.com/kith-mesh/kith/p2p/memnet"
)

// libp2p's own suite for transports, in real time.
func TestTransportSuite(t *testing.T) {
	for name, delay := range map[string]time.Duration{"no delay": 0, "200us": 200 * time.Microsecond} {
		t.Run(name, func(t *testing.T) {
			n := memnet.New(memnet.Config{Latency: func(a, b netip.Addr) time.Duration { return delay }})
			defer n.Close()
			a, id := newTransport(t, n, 0)
			b, _ := newTransport(t, n, 1)
			subtests := tptest.Subtests
			if testing.Short() || delay > 0 {
				subtests = subtests[:6]
			}
			tptest.SubtestTransportWithFs(t, a, b, "/ip4/"+memnet.IP(0).String()+"/tcp/0", id, subtests)
		})
	}
}

func newTransport(t *testing.T, n *memnet.Network, i int) (*memnet.Transport, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := n.Transport(memnet.IP(i))(key, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tr, id
}
