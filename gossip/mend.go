package gossip

import (
	"context"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// mendEvery is how often pubsub's peers are held against the members that are
// connected; one that is missing twice is given to it again.
const mendEvery = 5 * time.Second

// overlay is a pubsub and the protocol that it speaks.
type overlay struct {
	ps *pubsub.PubSub
	id protocol.ID
}

// mend brings back members that pubsub gave up. It forgets a connected peer for
// good when a stream to it can't be opened once, or ends four times within ten
// minutes, as it does when a member is restarted again and again; it hears of
// peers by events of identify alone, so one such event is sent again.
func (s *Service) mend(ctx context.Context, overlays ...overlay) {
	again, err := s.h.Gated().EventBus().Emitter(new(event.EvtPeerProtocolsUpdated))
	if err != nil {
		s.cfg.Log.Error("pubsub is not mended", "err", err)
		return
	}
	defer again.Close()
	missing := map[protocol.ID]map[peer.ID]bool{}
	tick := time.NewTicker(mendEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, o := range overlays {
			now := s.missing(o)
			for p := range now {
				if missing[o.id][p] {
					s.cfg.Log.Debug("member given to pubsub again", "peer", p, "protocol", o.id)
					if err := again.Emit(event.EvtPeerProtocolsUpdated{Peer: p, Added: []protocol.ID{o.id}}); err != nil {
						return // the host is closed
					}
				}
			}
			missing[o.id] = now
		}
	}
}

// missing lists the members that are connected directly, speak the protocol, and
// are not pubsub's peers.
func (s *Service) missing(o overlay) map[peer.ID]bool {
	out := map[peer.ID]bool{}
	h := s.h.Gated()
	for _, p := range h.Network().Peers() {
		if s.h.IsMember(p) && h.Network().Connectedness(p) == network.Connected { // not limited, as by a relay
			out[p] = true
		}
	}
	for _, p := range o.ps.ListPeers("") {
		delete(out, p)
	}
	for p := range out {
		if has, err := h.Peerstore().SupportsProtocols(p, o.id); err != nil || len(has) == 0 {
			delete(out, p)
		}
	}
	return out
}
