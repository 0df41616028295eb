package p2p

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/zeroconf/v2"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Members of open meshes announce themselves on the LAN under this mDNS
// service; their charter, asked for over libp2p, says of which mesh they are.
const (
	lanService   = "_kith._udp"
	lanDomain    = "local"
	lanAddr      = "dnsaddr="
	maxLANPeers  = 32
	maxLANAddrs  = 8
	lanAskFor    = 5 * time.Second
	lanDials     = 4
	lanWellKnown = 4101 // zeroconf wants a port; peers read the addresses
)

// Found is an open mesh that a peer of the LAN belongs to.
type Found struct {
	Charter auth.Charter
	Signed  []byte // the charter as its root signed it
	Peer    peer.AddrInfo
}

// Discover looks for open meshes on the LAN until ctx ends, and returns one
// peer of each, in the order in which they answered. Whoever is on the LAN can
// announce a mesh: show its name to the user before joining.
func Discover(ctx context.Context, cfg JoinConfig) ([]Found, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Key == nil {
		return nil, errors.New("discover: no key")
	}
	h, err := newcomerHost(cfg)
	if err != nil {
		return nil, fmt.Errorf("discover: %w", err)
	}
	defer h.Close()
	var mu sync.Mutex
	var out []Found
	var asking sync.WaitGroup
	seen := map[peer.ID]bool{}
	err = browse(ctx, func(pi peer.AddrInfo) {
		if seen[pi.ID] || len(seen) >= maxLANPeers || pi.ID == h.ID() {
			return
		}
		seen[pi.ID] = true
		asking.Go(func() {
			found, err := AskCharter(ctx, h, pi)
			if err != nil {
				cfg.Log.Debug("a peer of the LAN has no open charter", "peer", pi.ID, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if !slices.ContainsFunc(out, func(f Found) bool { return f.Charter.Mesh == found.Charter.Mesh }) {
				out = append(out, found)
			}
		})
	})
	asking.Wait()
	if err != nil {
		return nil, fmt.Errorf("discover: %w", err)
	}
	return out, nil
}

// AskCharter asks one peer for the charter of its open mesh.
func AskCharter(ctx context.Context, h host.Host, pi peer.AddrInfo) (Found, error) {
	ctx, cancel := context.WithTimeout(ctx, lanAskFor)
	defer cancel()
	if err := h.Connect(ctx, pi); err != nil {
		return Found{}, unreachable(pi.ID, err)
	}
	s, err := h.NewStream(network.WithNoDial(ctx, "charter"), pi.ID, charterProtocol)
	if err != nil {
		return Found{}, err
	}
	defer s.Close()
	if err := s.SetReadDeadline(time.Now().Add(lanAskFor)); err != nil {
		return Found{}, err
	}
	b, err := readFrame(bufio.NewReader(s), auth.MaxCharter, firstRead)
	if err != nil {
		return Found{}, err
	}
	f, err := decodeFrame(b)
	if err != nil {
		return Found{}, err
	}
	c, err := auth.ParseCharter(f.payload)
	if err != nil {
		return Found{}, err
	}
	if !c.Open {
		return Found{}, errors.New("the mesh is not open")
	}
	return Found{Charter: c, Signed: f.payload, Peer: pi}, nil
}

// browse calls f, from one goroutine, for each peer that announces itself,
// until ctx ends.
func browse(ctx context.Context, f func(peer.AddrInfo)) error {
	entries := make(chan *zeroconf.ServiceEntry, 64)
	var reading sync.WaitGroup
	reading.Go(func() {
		for e := range entries {
			for _, pi := range readEntry(e.Text) {
				f(pi)
			}
		}
	})
	err := zeroconf.Browse(ctx, lanService, lanDomain, entries) // closes entries
	reading.Wait()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("mDNS: %w", err)
	}
	return nil
}

// readEntry reads the addresses in an announcement, which anybody on the LAN can
// make: names, and addresses that lead back into this machine, do not count.
func readEntry(texts []string) []peer.AddrInfo {
	var addrs []ma.Multiaddr
	for _, t := range texts {
		s, ok := strings.CutPrefix(t, lanAddr)
		if !ok || len(addrs) >= maxLANAddrs {
			continue
		}
		a, err := ma.NewMultiaddr(s)
		if err != nil || isRelayed(a) {
			continue
		}
		ip, ok := ipOf(a)
		if !ok || ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() {
			continue
		}
		addrs = append(addrs, a)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if err != nil {
		return nil
	}
	return infos
}

// advertise announces a member of an open mesh on the LAN, and dials others
// that do: hello tells which of them are of this mesh.
func (h *Host) advertise(ctx context.Context) {
	if h.openCharter() == nil || h.cfg.NoMDNS || h.net.alone {
		return
	}
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { h.announce(ctx) })
	tried := map[peer.ID]time.Time{}
	slots := make(chan struct{}, lanDials)
	if err := browse(ctx, func(pi peer.AddrInfo) {
		if pi.ID == h.id || h.connectedTo(pi.ID) || time.Since(tried[pi.ID]) < mostRedialBackoff {
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			return // it will announce itself again
		}
		if len(tried) >= maxLANPeers {
			clear(tried)
		}
		tried[pi.ID] = time.Now()
		work.Go(func() {
			defer func() { <-slots }()
			if err := h.approach(ctx, pi); err != nil && ctx.Err() == nil {
				h.log.Debug("a peer of the LAN is no member", "peer", pi.ID, "err", err)
			}
		})
	}); err != nil {
		h.log.Warn("other members on the LAN are not looked for", "err", err)
	}
}

// approach connects to a peer that announced itself. Its addresses are its own
// word, not this machine's user's.
func (h *Host) approach(ctx context.Context, pi peer.AddrInfo) error {
	good := slices.DeleteFunc(slices.Clone(pi.Addrs), func(a ma.Multiaddr) bool { return !h.net.dialable(pi.ID, a, pi.Addrs) })
	if err := h.dial(ctx, peer.AddrInfo{ID: pi.ID, Addrs: good}); err != nil {
		return err
	}
	return h.gate.wait(ctx, pi.ID)
}

// announce publishes our LAN addresses, anew when they change.
func (h *Host) announce(ctx context.Context) {
	ticker := time.NewTicker(viewAge)
	defer ticker.Stop()
	var server *zeroconf.Server
	var told []string
	for {
		if texts, ips := h.lanTexts(); !slices.Equal(texts, told) && len(ips) > 0 {
			if server != nil {
				server.Shutdown()
			}
			name := fmt.Sprintf("kith-%016x", rand.Uint64()) // says nothing of who we are
			var err error
			server, err = zeroconf.RegisterProxy(name, lanService, lanDomain, lanWellKnown, name, ips, texts, nil)
			if err != nil {
				h.log.Warn("not announced on the LAN", "err", err)
			}
			told = texts
		}
		select {
		case <-ctx.Done():
			if server != nil {
				server.Shutdown()
			}
			return
		case <-ticker.C:
		}
	}
}

// lanTexts is what an announcement says, and the IPs that mDNS wants beside it.
func (h *Host) lanTexts() (texts, ips []string) {
	addrs, err := h.raw.Network().InterfaceListenAddresses()
	if err != nil {
		h.log.Warn("own interfaces are not known", "err", err)
		return nil, nil
	}
	for _, a := range h.net.tell(addrs) {
		ip, err := manet.ToIP(a)
		if err != nil || len(texts) >= maxLANAddrs {
			continue
		}
		texts = append(texts, lanAddr+a.String()+"/p2p/"+h.id.String())
		if !slices.Contains(ips, ip.String()) && !net.IP(ip).IsUnspecified() {
			ips = append(ips, ip.String())
		}
	}
	slices.Sort(texts)
	return texts, ips
}
