package p2p

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	basicconnmgr "github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
)

// What a member relays for another, per circuit: enough for control traffic
// and the odd small output; libp2p's default of 128 KiB and 2 minutes is not.
const (
	relayTime     = 30 * time.Minute
	relayBytes    = 16 << 20
	relayCircuits = 32 // per peer
)

func (h *Host) libp2pOptions() ([]libp2p.Option, error) {
	cfg := h.cfg
	opts := []libp2p.Option{
		libp2p.Identity(cfg.Key), libp2p.UserAgent(cfg.Agent), libp2p.ProtocolVersion("kith/1"),
		libp2p.NoListenAddrs, // Run listens
	}
	if cfg.Simulated {
		opts = append(opts,
			libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.Ping(false), libp2p.DisableIdentifyAddressDiscovery(),
			libp2p.ForceReachabilityPublic(), // AutoNAT v1's client stays off
			libp2p.ConnectionManager(connmgr.NullConnMgr{}), libp2p.ResourceManager(&network.NullResourceManager{}),
		)
		return append(opts, cfg.Options...), nil
	}
	manager, err := basicconnmgr.NewConnManager(cfg.MaxConnections*4/5, cfg.MaxConnections, basicconnmgr.WithGracePeriod(20*time.Second))
	if err != nil {
		return nil, err
	}
	limits, err := newResourceManager(cfg, h.protos)
	if err != nil {
		return nil, err
	}
	opts = append(opts,
		libp2p.ConnectionManager(manager), libp2p.ResourceManager(limits), libp2p.ConnectionGater(gater{h}),
		libp2p.SwarmOpts(swarm.WithDialRanker(rankTCPFirst)), libp2p.AddrsFactory(h.net.tell), libp2p.EnableAutoNATv2(),
	)
	if cfg.Registerer != nil {
		opts = append(opts, libp2p.PrometheusRegisterer(cfg.Registerer), libp2p.BandwidthReporter(h.metrics.traffic))
	} else {
		opts = append(opts, libp2p.DisableMetrics())
	}
	if h.net.alone { // UDP to nowhere else: nothing to learn from it
		opts = append(opts, libp2p.UDPBlackHoleSuccessCounter((*swarm.BlackHoleSuccessCounter)(nil)),
			libp2p.IPv6BlackHoleSuccessCounter((*swarm.BlackHoleSuccessCounter)(nil)))
	}
	if cfg.NoRelay {
		opts = append(opts, libp2p.DisableRelay())
	} else {
		resources := relay.DefaultResources()
		resources.Limit = &relay.RelayLimit{Duration: relayTime, Data: relayBytes}
		resources.MaxCircuits = relayCircuits
		opts = append(opts, libp2p.EnableRelay(), libp2p.EnableHolePunching(),
			libp2p.EnableRelayService(relay.WithResources(resources), relay.WithACL(relayACL{h})),
			libp2p.EnableAutoRelayWithPeerSource(h.relayCandidates, autorelay.WithMinCandidates(1), autorelay.WithNumRelays(2),
				autorelay.WithBootDelay(10*time.Second), autorelay.WithMinInterval(15*time.Second), autorelay.WithBackoff(time.Minute)))
	}
	if !cfg.NoPortMap && !h.net.alone {
		opts = append(opts, libp2p.NATPortMap())
	}
	if len(cfg.Options) > 0 {
		return append(opts, cfg.Options...), nil
	}
	return append(opts, transports(cfg.NoQUIC, tcpOptions(cfg)...)...), nil
}

func tcpOptions(cfg Config) []any {
	if cfg.Dialer == nil {
		return nil
	}
	return []any{tcp.WithDialerForAddr(cfg.Dialer)}
}

// transports are TCP (TLS first, it is the faster; Noise for those without)
// and QUIC.
func transports(noQUIC bool, tcpOpts ...any) []libp2p.Option {
	out := []libp2p.Option{
		libp2p.Transport(tcp.NewTCPTransport, tcpOpts...),
		libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.Security(noise.ID, noise.New),
	}
	if !noQUIC {
		out = append(out, libp2p.Transport(quic.NewTransport))
	}
	return out
}

// rankTCPFirst dials QUIC only when TCP has not answered within a quarter of a
// second: a byte over QUIC costs several times the CPU, and a QUIC connection
// carries no more than 256 streams at once.
func rankTCPFirst(addrs []ma.Multiaddr) []network.AddrDelay {
	var tcps, rest []ma.Multiaddr
	for _, a := range addrs {
		if _, err := a.ValueForProtocol(ma.P_TCP); err == nil && !isRelayed(a) {
			tcps = append(tcps, a)
		} else {
			rest = append(rest, a)
		}
	}
	out := swarm.DefaultDialRanker(tcps)
	for _, d := range swarm.DefaultDialRanker(rest) {
		if len(tcps) > 0 {
			d.Delay += swarm.PublicTCPDelay
			if isRelayed(d.Addr) {
				d.Delay = max(d.Delay, swarm.RelayDelay)
			}
		}
		out = append(out, d)
	}
	return out
}

// relayACL lets members reserve, and anyone reach a member: a newcomer may have
// no other way to the issuer of its invite.
type relayACL struct{ h *Host }

func (a relayACL) AllowReserve(id peer.ID, _ ma.Multiaddr) bool { return a.h.IsMember(id) }

func (a relayACL) AllowConnect(_ peer.ID, _ ma.Multiaddr, dest peer.ID) bool {
	return a.h.IsMember(dest)
}

// relayCandidates offers AutoRelay the members that we reach directly.
func (h *Host) relayCandidates(ctx context.Context, num int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo)
	go func() {
		defer close(out)
		for _, m := range h.Members() {
			if m.Path == PathRelayed || num <= 0 {
				continue
			}
			num--
			select {
			case out <- peer.AddrInfo{ID: m.ID, Addrs: h.raw.Peerstore().Addrs(m.ID)}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
