package p2p

import (
	"context"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Reachability is what is known of how others reach this node.
type Reachability struct {
	State       ReachState
	Listening   []ma.Multiaddr // on this machine
	Told        []ma.Multiaddr // what peers are told
	Reachable   []ma.Multiaddr // public ones that peers dialled back
	Unreachable []ma.Multiaddr // public ones that they could not
	Untested    []ma.Multiaddr // public ones that no peer has tried yet
	Relays      []ma.Multiaddr // our addresses through relays
	NATTCP      string         // kind of NAT in front of us, as far as observed: "", cone, symmetric
	NATUDP      string
}

// ReachState sums a Reachability up.
type ReachState string

// The states. Local means that nothing public is even listened on or mapped:
// only the LAN, or this machine, can reach the node.
const (
	ReachUnknown ReachState = "unknown"
	ReachPublic  ReachState = "public"
	ReachPrivate ReachState = "private"
	ReachRelayed ReachState = "relayed"
	ReachLocal   ReachState = "local"
)

// reach follows libp2p's findings. AutoRelay and the relay service listen to
// an event that AutoNAT v1 alone emits; we speak v2 alone, and translate.
type reach struct {
	h       *Host
	sub     event.Subscription
	emitter event.Emitter

	mu       sync.Mutex
	addrs    event.EvtHostReachableAddrsChanged
	said     network.Reachability
	tcp, udp network.NATDeviceType
}

func newReach(h *Host) *reach {
	r := &reach{h: h}
	if h.cfg.Simulated {
		return r
	}
	bus := h.raw.EventBus()
	var err error
	if r.sub, err = bus.Subscribe([]any{new(event.EvtHostReachableAddrsChanged), new(event.EvtNATDeviceTypeChanged)}, eventbus.Name("kith")); err != nil {
		h.log.Error("reachability is not followed", "err", err)
	}
	if r.emitter, err = bus.Emitter(new(event.EvtLocalReachabilityChanged), eventbus.Stateful); err != nil {
		h.log.Error("reachability is not told to relays", "err", err)
	}
	return r
}

func (r *reach) run(ctx context.Context) {
	if r.sub == nil || r.emitter == nil {
		return
	}
	// With nothing public there is nothing to test: look for a relay at once.
	r.say(network.ReachabilityUnknown)
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-r.sub.Out():
			if !ok {
				return
			}
			r.take(e)
		}
	}
}

func (r *reach) take(e any) {
	switch e := e.(type) {
	case event.EvtHostReachableAddrsChanged:
		r.mu.Lock()
		r.addrs = e
		said := r.said
		r.mu.Unlock()
		state := network.ReachabilityUnknown
		switch {
		case len(e.Reachable) > 0:
			state = network.ReachabilityPublic
		case len(e.Unreachable) > 0 && len(e.Unknown) == 0:
			state = network.ReachabilityPrivate
		}
		if state != said {
			r.say(state)
		}
	case event.EvtNATDeviceTypeChanged:
		r.mu.Lock()
		defer r.mu.Unlock()
		if e.TransportProtocol == network.NATTransportTCP {
			r.tcp = e.NatDeviceType
		} else {
			r.udp = e.NatDeviceType
		}
	}
}

func (r *reach) say(state network.Reachability) {
	r.mu.Lock()
	r.said = state
	r.mu.Unlock()
	if err := r.emitter.Emit(event.EvtLocalReachabilityChanged{Reachability: state}); err != nil {
		r.h.log.Warn("reachability is not told to relays", "err", err)
	}
}

func (r *reach) close() {
	if r.sub != nil {
		_ = r.sub.Close()
	}
	if r.emitter != nil {
		_ = r.emitter.Close()
	}
}

// Reachability reports how others reach this node, as far as it is known now.
func (h *Host) Reachability() Reachability {
	r := h.reach
	r.mu.Lock()
	out := Reachability{
		Reachable: slices.Clone(r.addrs.Reachable), Unreachable: slices.Clone(r.addrs.Unreachable), Untested: slices.Clone(r.addrs.Unknown),
		NATTCP: natName(r.tcp), NATUDP: natName(r.udp),
	}
	said := r.said
	r.mu.Unlock()
	out.Listening = slices.DeleteFunc(h.raw.Network().ListenAddresses(), isRelayed)
	out.Told = h.net.tell(h.raw.Addrs())
	public := false
	for _, a := range out.Told {
		if isRelayed(a) {
			out.Relays = append(out.Relays, a)
		} else {
			public = public || manet.IsPublicAddr(a)
		}
	}
	switch {
	case said == network.ReachabilityPublic:
		out.State = ReachPublic
	case len(out.Relays) > 0:
		out.State = ReachRelayed
	case said == network.ReachabilityPrivate:
		out.State = ReachPrivate
	case !public:
		out.State = ReachLocal
	default:
		out.State = ReachUnknown
	}
	return out
}

func natName(t network.NATDeviceType) string {
	switch t {
	case network.NATDeviceTypeEndpointIndependent:
		return "cone"
	case network.NATDeviceTypeEndpointDependent:
		return "symmetric"
	}
	return ""
}
