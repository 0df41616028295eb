package p2p

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Trouble is why a peer was found to be no connected member, last time.
type Trouble struct {
	Why error // unreachable, with the addresses tried; or what hello came to
	At  time.Time
}

// troubles remembers them, the newest of each peer, at most maxVerdicts.
type troubles struct {
	mu sync.Mutex
	of map[peer.ID]Trouble
}

func (t *troubles) note(id peer.ID, why error) {
	// That a connection ended says nothing about its cause.
	if why == nil || errors.Is(why, network.ErrNoConn) || errors.Is(why, context.Canceled) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil || len(t.of) >= maxVerdicts {
		t.of = map[peer.ID]Trouble{}
	}
	t.of[id] = Trouble{why, time.Now()}
}

func (t *troubles) clear(id peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.of, id)
}

// Troubles tells of the peers that could not be reached, or that did not get
// through hello, since they were members last, if they ever were. Strangers may
// be among them, and what a peer says is a claim.
func (h *Host) Troubles() map[peer.ID]Trouble {
	t := &h.gate.troubles
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.of)
}
