package p2p

import (
	"context"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// gatedHost is the host that packages get. Protocols that strangers may speak
// pass; all others wait for hello.
type gatedHost struct {
	host.Host
	h *Host
}

// SetStreamHandler serves pid to members, and to strangers when it is open.
func (g *gatedHost) SetStreamHandler(pid protocol.ID, f network.StreamHandler) {
	g.Host.SetStreamHandler(pid, g.guard(f))
}

// SetStreamHandlerMatch does the same for a matched set of protocols.
func (g *gatedHost) SetStreamHandlerMatch(pid protocol.ID, match func(protocol.ID) bool, f network.StreamHandler) {
	g.Host.SetStreamHandlerMatch(pid, match, g.guard(f))
}

func (g *gatedHost) guard(f network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) {
		if !g.h.protos.open(s.Protocol()) {
			if err := g.h.gate.wait(g.h.tasks.ctx, s.Conn().RemotePeer()); err != nil {
				g.h.metrics.gateClosed()
				_ = s.ResetWithError(network.StreamGated)
				return
			}
		}
		f(s)
	}
}

// NewStream dials when needed and allowed, and waits for hello unless all pids
// are open to strangers.
func (g *gatedHost) NewStream(ctx context.Context, to peer.ID, pids ...protocol.ID) (network.Stream, error) {
	for _, pid := range pids {
		if !g.h.protos.open(pid) {
			if err := g.meet(ctx, to); err != nil {
				return nil, err
			}
			break
		}
	}
	return g.Host.NewStream(ctx, to, pids...)
}

// meet makes sure that there is a connection to a member.
func (g *gatedHost) meet(ctx context.Context, to peer.ID) error {
	if g.Host.Network().Connectedness(to) == network.NotConnected {
		if no, _ := network.GetNoDial(ctx); no {
			return network.ErrNoConn
		}
		if err := g.h.dial(ctx, peer.AddrInfo{ID: to}); err != nil {
			return err
		}
	}
	return g.h.gate.wait(ctx, to)
}

// newStream opens a stream of one of our own protocols.
func (h *Host) newStream(ctx context.Context, to peer.ID, p Protocol, id protocol.ID) (network.Stream, error) {
	h.protos.note(id, p)
	ctx, cancel := context.WithTimeout(ctx, min(p.Deadline, openTimeout))
	defer cancel()
	if !p.Direct {
		ctx = network.WithAllowLimitedConn(ctx, p.Name)
	}
	if to == h.id {
		return nil, errSelf
	}
	if !p.Open {
		if err := h.gated.meet(ctx, to); err != nil {
			return nil, err
		}
	}
	return h.raw.NewStream(ctx, to, id)
}
