package p2p

import (
	"fmt"
	"hash/fnv"
	"maps"
	"strings"
	"sync"

	"github.com/kith-mesh/kith/p2p/auth"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// registry knows our protocols by their wire names.
type registry struct {
	mesh auth.MeshID
	mu   sync.RWMutex
	byID map[protocol.ID]Protocol
}

func newRegistry(mesh auth.MeshID) *registry {
	return &registry{mesh: mesh, byID: map[protocol.ID]Protocol{}}
}

// add fills p's defaults. A faulty or doubly served protocol is a fault of the
// program, not of its input.
func (r *registry) add(p Protocol) (protocol.ID, Protocol) {
	if err := p.Check(); err != nil {
		panic("p2p: " + err.Error())
	}
	p = p.withDefaults()
	id := p.ID(r.mesh)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.byID[id]; ok {
		panic(fmt.Sprintf("p2p: protocol %s is handled twice", id))
	}
	r.byID[id] = p
	return id, p
}

func (r *registry) get(id protocol.ID) (Protocol, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p, ok := r.byID[id]
	return p, ok
}

func (r *registry) all() map[string]Protocol {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make(map[string]Protocol, len(r.byID))
	for id, p := range maps.All(r.byID) {
		out[string(id)] = p
	}
	return out
}

// exempt protocols are libp2p's own: reachability needs them before hello.
var exempt = map[protocol.ID]bool{
	"/ipfs/id/1.0.0":                   true,
	"/ipfs/id/push/1.0.0":              true,
	"/ipfs/ping/1.0.0":                 true,
	"/libp2p/circuit/relay/0.2.0/hop":  true,
	"/libp2p/circuit/relay/0.2.0/stop": true,
	"/libp2p/dcutr":                    true,
	"/libp2p/autonat/2/dial-request":   true,
	"/libp2p/autonat/2/dial-back":      true,
	"/kith/charter/" + charterVersion:  true,
}

const (
	bitswapPrefix  = "/ipfs/bitswap"
	charterVersion = "1.0.0"
)

// open reports a protocol that strangers may speak: it decides by itself whom
// it serves. Bitswap's filter does so by audience.
func (r *registry) open(id protocol.ID) bool {
	if exempt[id] || strings.HasPrefix(string(id), bitswapPrefix) {
		return true
	}
	p, ok := r.get(id)
	return ok && p.Open
}

func seedOf(id peer.ID) uint64 {
	f := fnv.New64a()
	f.Write([]byte(id))
	return f.Sum64() | 1
}
