package node

import (
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/gossip"
	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/tasks/market"
)

// Seams is what a simulation puts in the place of the machine: the network, the
// runner, the database and the blocks. A node has none of it set.
type Seams struct {
	// Network has the transport in its Options, and whatever else of p2p's
	// config the simulation decides. Identity, mesh, token, listeners, capacity
	// and callbacks are the node's own. Nil: the real network.
	Network *p2p.Config
	// Gossip is copied for its switches.
	Gossip gossip.Config
	// Market is copied for its bounds and machines' constants.
	Market market.Config
	// Warm are members whose addresses and place in the routing table are
	// given. Set, it also keeps the DHT from refreshing.
	Warm []peer.AddrInfo

	// Key, Mesh, Token and Charter stand for the home's.
	Key     crypto.PrivKey
	Mesh    auth.MeshID
	Token   auth.Token
	Charter []byte

	Runner market.Runner  // nil: child processes
	State  *state.State   // nil: the home's database
	Blocks *storage.Store // nil: the home's

	// Around, when not nil, is given each durable step by its name (see Steps)
	// instead of its being run: tests of crashes end the process before or after
	// one, or leave it out.
	Around func(step string, do func() error) error
}

// Steps names every durable step that a node takes.
func Steps() []string {
	var names []string
	for _, c := range state.Commits {
		names = append(names, string(c))
	}
	for _, c := range storage.Commits {
		names = append(names, string(c))
	}
	return names
}
