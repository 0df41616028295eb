package gossip

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kith-mesh/kith/p2p"
	"github.com/libp2p/go-libp2p/core/peer"
)

// links is the set of agreed links as pubsub reads it, without locks: its
// filter and its scores run inside its own loop.
type links struct {
	now atomic.Pointer[linkSet]
}

type linkSet struct {
	all     map[peer.ID]bool
	relayed []peer.ID // pubsub does not reach them: they get offers by request
}

func (l *links) set(ns []p2p.Neighbour) {
	s := &linkSet{all: make(map[peer.ID]bool, len(ns))}
	for _, n := range ns {
		s.all[n.ID] = true
		if n.Relayed {
			s.relayed = append(s.relayed, n.ID)
		}
	}
	l.now.Store(s)
}

func (l *links) has(id peer.ID) bool {
	s := l.now.Load()
	return s != nil && s.all[id]
}

func (l *links) relayed() []peer.ID {
	s := l.now.Load()
	if s == nil {
		return nil
	}
	return slices.Clone(s.relayed)
}

const (
	randomDegree = 6 // gossipsub's own D
	randomEvery  = 5 * time.Second
)

// keepRandom stands in for the neighbourhood when RandomOverlay is set: a pair
// of members is linked when a hash of the two says so, which gives each about
// randomDegree links anywhere in the mesh.
func (s *Service) keepRandom(ctx context.Context) {
	tick := time.NewTicker(randomEvery)
	defer tick.Stop()
	for {
		known := s.h.Known()
		var drawn []p2p.Neighbour
		for _, c := range known {
			if drawnTogether(s.h.ID(), c.ID, len(known)+1) {
				drawn = append(drawn, p2p.Neighbour{ID: c.ID})
				if !c.Connected {
					if err := s.h.Connect(ctx, peer.AddrInfo{ID: c.ID}); err != nil {
						s.cfg.Log.Debug("random link not connected", "peer", c.ID, "err", err)
					}
				}
			}
		}
		s.links.set(drawn)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func drawnTogether(a, b peer.ID, members int) bool {
	x, y := []byte(a), []byte(b)
	if bytes.Compare(x, y) > 0 {
		x, y = y, x
	}
	sum := sha256.Sum256(slices.Concat(x, y))
	return float64(binary.BigEndian.Uint64(sum[:])) < float64(randomDegree)/float64(members)*math.MaxUint64
}
