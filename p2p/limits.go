package p2p

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/pbnjay/memory"
)

const (
	minMemory = 128 << 20
	maxMemory = 1 << 30
	// windowBytes is what the stream multiplexer reserves for each stream.
	windowBytes = 256 << 10
)

// machineMemory is what the machine, or the container around us, has.
func machineMemory() int64 {
	total := int64(memory.TotalMemory())
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && v > 0 {
			total = min(total, v)
		}
	}
	return total
}

// newResourceManager sizes libp2p's limits from memory, and takes the stream
// limits of our own protocols from the protocols themselves: libp2p's defaults
// refuse from about a hundred streams on.
func newResourceManager(cfg Config, protos *registry) (network.ResourceManager, error) {
	total := cfg.MaxMemory
	if total == 0 {
		total = min(max(machineMemory()/8, minMemory), maxMemory)
	}
	scaling := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&scaling)
	streams := rcmgr.LimitVal(max(total/windowBytes, 512))
	conns := rcmgr.LimitVal(2*cfg.MaxConnections + cfg.MaxStrangers)
	limits := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{Memory: rcmgr.LimitVal64(total),
			Streams: 4 * streams, StreamsInbound: 2 * streams, StreamsOutbound: 4 * streams,
			Conns: 2 * conns, ConnsInbound: conns, ConnsOutbound: 2 * conns},
		// A stream is transient until its protocol is agreed: a thousand that
		// open at once are all so.
		Transient: rcmgr.ResourceLimits{Memory: rcmgr.LimitVal64(total / 2),
			Streams: 2 * streams, StreamsInbound: streams, StreamsOutbound: 2 * streams,
			Conns: conns, ConnsInbound: conns, ConnsOutbound: conns},
		PeerDefault: rcmgr.ResourceLimits{Memory: rcmgr.LimitVal64(total / 2),
			Streams: 2 * streams, StreamsInbound: streams, StreamsOutbound: 2 * streams,
			Conns: 16, ConnsInbound: 8, ConnsOutbound: 16},
		ProtocolDefault:     rcmgr.ResourceLimits{Streams: 2 * streams, StreamsInbound: streams, StreamsOutbound: 2 * streams, Memory: rcmgr.LimitVal64(total / 2)},
		ProtocolPeerDefault: rcmgr.ResourceLimits{Streams: 256, StreamsInbound: 128, StreamsOutbound: 256, Memory: rcmgr.LimitVal64(total / 4)},
	}.Build(scaling.AutoScale())
	m, err := rcmgr.NewResourceManager(&limiter{Limiter: rcmgr.NewFixedLimiter(limits), protos: protos, total: total},
		append(limiterMetrics(cfg), perAddress()...)...)
	if err != nil {
		return nil, fmt.Errorf("resource manager: %w", err)
	}
	return m, nil
}

func limiterMetrics(cfg Config) []rcmgr.Option {
	if cfg.Registerer == nil {
		return []rcmgr.Option{rcmgr.WithMetricsDisabled()}
	}
	return nil
}

// perAddress lets a household or an office behind one address have more than
// libp2p's eight connections; loopback stays unlimited.
func perAddress() []rcmgr.Option {
	wide := []rcmgr.NetworkPrefixLimit{}
	for _, p := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"} {
		wide = append(wide, rcmgr.NetworkPrefixLimit{Network: netip.MustParsePrefix(p), ConnCount: 4096})
	}
	n := len(wide) - 1
	return []rcmgr.Option{
		rcmgr.WithNetworkPrefixLimit(append(wide[:n:n], rcmgr.DefaultNetworkPrefixLimitV4...), append(wide[n:], rcmgr.DefaultNetworkPrefixLimitV6...)),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: 64}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: 64}, {PrefixLength: 48, ConnCount: 256}}),
	}
}

// limiter answers for our protocols from their own bounds.
type limiter struct {
	rcmgr.Limiter
	protos *registry
	total  int64
}

// slack is room for streams that wait for hello or are being refused: the
// refusal with its number is friendlier than a reset.
const slack = 64

func (l *limiter) GetProtocolPeerLimits(id protocol.ID) rcmgr.Limit {
	p, ok := l.protos.get(id)
	if !ok {
		return l.Limiter.GetProtocolPeerLimits(id)
	}
	in := max(p.Streams, pipesPerPeer) + slack
	return &rcmgr.BaseLimit{Streams: 2*in + 4096, StreamsInbound: in, StreamsOutbound: in + 4096, Memory: l.total}
}

func (l *limiter) GetProtocolLimits(id protocol.ID) rcmgr.Limit {
	if _, ok := l.protos.get(id); !ok {
		return l.Limiter.GetProtocolLimits(id)
	}
	return l.Limiter.GetSystemLimits()
}
