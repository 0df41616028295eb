package p2p

import (
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Members lists the connected members, in the order of their IDs.
func (h *Host) Members() []Member {
	ids := h.memberIDs()
	out := make([]Member, 0, len(ids))
	for _, id := range ids {
		if m, ok := h.Member(id); ok {
			out = append(out, m)
		}
	}
	return out
}

func (h *Host) memberIDs() []peer.ID {
	h.gate.mu.Lock()
	ids := make([]peer.ID, 0, len(h.gate.peers))
	for id, p := range h.gate.peers {
		if p.member {
			ids = append(ids, id)
		}
	}
	h.gate.mu.Unlock()
	slices.SortFunc(ids, compareIDs)
	return ids
}

func compareIDs(a, b peer.ID) int { return strings.Compare(string(a), string(b)) }

// Member is what is known of one connected member; false if the peer is not
// connected or not a member.
func (h *Host) Member(id peer.ID) (Member, bool) {
	h.gate.mu.Lock()
	p := h.gate.peers[id]
	if p == nil || !p.member {
		h.gate.mu.Unlock()
		return Member{}, false
	}
	m := Member{ID: id, Grant: p.grant, Agent: p.agent, Capacity: p.capacity, Coord: p.coord, Since: p.since, Inbound: p.inbound, ClockAhead: p.ahead}
	h.gate.mu.Unlock()
	if c, ok := h.near.candidate(id); ok {
		m.RTT = c.RTT
		if c.Coord.Valid() {
			m.Coord = c.Coord
		}
		if len(c.Capacity.Kinds) > 0 || c.Capacity.Cores > 0 {
			m.Capacity = c.Capacity
		}
	}
	m.Path, m.Addr = PathNone, nil
	for _, c := range h.raw.Network().ConnsToPeer(id) {
		if path := h.net.path(c); m.Path == PathNone || nearer(path, m.Path) {
			m.Path, m.Addr = path, c.RemoteMultiaddr()
			m.Inbound = c.Stat().Direction == network.DirInbound
		}
	}
	return m, true
}

// IsMember reports whether a peer is connected and has shown a valid token.
func (h *Host) IsMember(id peer.ID) bool { return h.gate.isMember(id) }

var pathOrder = []Path{PathLoopback, PathLAN, PathDirect, PathRelayed}

func nearer(a, b Path) bool { return slices.Index(pathOrder, a) < slices.Index(pathOrder, b) }
