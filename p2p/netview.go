package p2p

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// netView knows this machine's interfaces. It decides which addresses are told
// to others, and which of theirs are dialled: a private address only on the
// same LAN, a loopback one only on the same machine, unless we were told so by
// this machine's user.
type netView struct {
	local   Local
	private []netip.Prefix
	any     bool // simulated: every address is as good as another
	alone   bool // listening on loopback alone

	mu      sync.Mutex
	at      time.Time
	nets    []netip.Prefix      // of our interfaces, loopback left out
	bridges []netip.Prefix      // of container bridges
	own     map[netip.Addr]bool // our addresses
	trusted map[peer.ID][]ma.Multiaddr
}

const (
	viewAge    = 15 * time.Second
	maxTrusted = 1024
)

// cgnat is the range that overlay VPNs give single addresses from.
var cgnat = netip.MustParsePrefix("100.64.0.0/10")

func newNetView(cfg Config) *netView {
	v := &netView{local: cfg.Local, private: cfg.Private, any: cfg.Simulated, trusted: map[peer.ID][]ma.Multiaddr{}}
	v.alone = len(cfg.Listen) > 0 && !slices.ContainsFunc(cfg.Listen, func(a ma.Multiaddr) bool { return !manet.IsIPLoopback(a) })
	for _, b := range cfg.Bootstrap {
		v.trust(b)
	}
	return v
}

// trust takes addresses that this machine's user gave.
func (v *netView) trust(pi peer.AddrInfo) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.trusted[pi.ID] == nil && len(v.trusted) >= maxTrusted {
		return
	}
	v.trusted[pi.ID] = slices.Clone(pi.Addrs[:min(len(pi.Addrs), maxRecordAddrs)])
}

// loopbackOK reports whether loopback addresses are told and dialled freely.
func (v *netView) loopbackOK() bool {
	return v.any || v.local == LocalAlways || v.local == LocalAuto && v.alone
}

func bridgeName(name string) bool {
	for _, p := range []string{"docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "podman", "lxcbr", "lxdbr"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// look refreshes what is known of the interfaces; v.mu is held.
func (v *netView) look() {
	if !v.at.IsZero() && time.Since(v.at) < viewAge {
		return
	}
	v.at = time.Now()
	ifaces, err := net.Interfaces()
	if err != nil {
		return // what was known before is the best there is
	}
	v.nets, v.bridges, v.own = nil, nil, map[netip.Addr]bool{}
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 {
			continue
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			ip := p.Addr().Unmap()
			v.own[ip] = true
			switch {
			case ip.IsLoopback():
			case bridgeName(i.Name):
				v.bridges = append(v.bridges, p.Masked())
			default:
				v.nets = append(v.nets, p.Masked())
			}
		}
	}
}

// sameLAN reports whether ip is on a network of ours.
func (v *netView) sameLAN(ip netip.Addr) bool {
	v.look()
	in := func(p netip.Prefix) bool { return p.Contains(ip) }
	if slices.ContainsFunc(v.nets, in) || slices.ContainsFunc(v.bridges, in) || slices.ContainsFunc(v.private, in) {
		return true
	}
	return cgnat.Contains(ip) && slices.ContainsFunc(v.nets, func(p netip.Prefix) bool { return cgnat.Contains(p.Addr()) })
}

// tell keeps of our own addresses those that others can use.
func (v *netView) tell(addrs []ma.Multiaddr) []ma.Multiaddr {
	if v.any {
		return addrs
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.look()
	out := make([]ma.Multiaddr, 0, len(addrs))
	for _, a := range addrs {
		ip, ok := ipOf(a)
		switch {
		case !ok:
			if isRelayed(a) {
				continue // "through some relay" is no address
			}
		case ip.IsLoopback():
			if !v.loopbackOK() {
				continue
			}
		case ip.IsLinkLocalUnicast():
			continue // needs a zone that means nothing elsewhere
		case v.local != LocalAlways && v.own[ip] && slices.ContainsFunc(v.bridges, func(p netip.Prefix) bool { return p.Contains(ip) }):
			continue
		}
		out = append(out, a)
	}
	return out
}

// dialable reports whether a learned address of a peer may be dialled. others
// are the addresses that are known of the same peer.
func (v *netView) dialable(id peer.ID, a ma.Multiaddr, others []ma.Multiaddr) bool {
	if v.any {
		return true
	}
	ip, ok := ipOf(a)
	if !ok {
		return true // a name: its resolution is asked about again
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if slices.ContainsFunc(v.trusted[id], func(t ma.Multiaddr) bool { return t.Equal(a) || sameHost(t, ip) }) {
		return true
	}
	switch {
	case ip.IsUnspecified(), ip.IsMulticast():
		return false
	case ip.IsLoopback():
		if v.loopbackOK() {
			return true
		}
		v.look() // a peer on this very machine has our addresses among its own
		return v.local != LocalNever && slices.ContainsFunc(others, func(o ma.Multiaddr) bool {
			other, ok := ipOf(o)
			return ok && !other.IsLoopback() && !isRelayed(o) && v.own[other]
		})
	case ip.IsPrivate(), cgnat.Contains(ip), ip.IsLinkLocalUnicast():
		return v.local == LocalAlways || v.sameLAN(ip)
	}
	return true
}

func sameHost(t ma.Multiaddr, ip netip.Addr) bool {
	o, ok := ipOf(t)
	return ok && o == ip
}

// path says how packets travel over a connection.
func (v *netView) path(c network.Conn) Path {
	a := c.RemoteMultiaddr()
	if isRelayed(a) {
		return PathRelayed
	}
	ip, ok := ipOf(a)
	if !ok || v.any {
		return PathDirect
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.look()
	switch {
	case ip.IsLoopback() || v.own[ip]:
		return PathLoopback
	case (ip.IsPrivate() || ip.IsLinkLocalUnicast()) && v.sameLAN(ip):
		return PathLAN
	}
	return PathDirect
}

func isRelayed(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// ipOf is the first IP in an address: of a relayed one, the relay's.
func ipOf(a ma.Multiaddr) (netip.Addr, bool) {
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

// gater asks the view about every address before it is dialled, and keeps the
// revoked out.
type gater struct{ h *Host }

func (g gater) revoked(id peer.ID) bool { return g.h.cfg.Revoked != nil && g.h.cfg.Revoked(id) }

func (g gater) InterceptPeerDial(id peer.ID) bool { return !g.revoked(id) }

func (g gater) InterceptAddrDial(id peer.ID, a ma.Multiaddr) bool {
	var others []ma.Multiaddr
	if g.h.raw != nil { // nil only while libp2p makes it
		others = g.h.raw.Peerstore().Addrs(id)
	}
	return g.h.net.dialable(id, a, others)
}

func (g gater) InterceptAccept(network.ConnMultiaddrs) bool { return true }

func (g gater) InterceptSecured(_ network.Direction, id peer.ID, _ network.ConnMultiaddrs) bool {
	return !g.revoked(id)
}

func (g gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
