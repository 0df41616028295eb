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

// registry knows our protocols by their wire names: those that are served here
// and those that we only call.
type registry struct {
	mesh   auth.MeshID
	mu     sync.RWMutex
	byID   map[protocol.ID]Protocol
	served map[protocol.ID]bool
}

func newRegistry(mesh auth.MeshID) *registry {
	return &registry{mesh: mesh, byID: map[protocol.ID]Protocol{}, served: map[protocol.ID]bool{}}
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
	if r.served[id] {
		panic(fmt.Sprintf("p2p: protocol %s is handled twice", id))
	}
	r.byID[id], r.served[id] = p, true
	return id, p
}

// note makes a protocol known that this node calls, so that its limits hold for
// our own streams too.
func (r *registry) note(id protocol.ID, p Protocol) {
	if _, ok := r.get(id); ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.byID[id]; !ok {
		r.byID[id] = p
	}
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
