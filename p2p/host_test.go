package p2p

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestConfigTellsAllFaults(t *testing.T) {
	m, other := newTestMesh(t), newTestMesh(t)
	cfg := m.config()
	cfg.Mesh, cfg.Root, cfg.Charter, cfg.Agent, cfg.Simulated, cfg.MaxStrangers = "short", other.root, []byte("x"), strings.Repeat("a", 100), true, -1
	_, err := New(cfg)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"Mesh:", "Root:", "Charter:", "Agent:", "Simulated:", "MaxStrangers"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "LoadOrCreateKey") {
		t.Errorf("no key: %v", err)
	}
}

func TestListenSaysWhatIsTaken(t *testing.T) {
	m := newTestMesh(t)
	a := m.host(m.config(), nil)
	cfg := m.config()
	cfg.Listen = a.Reachability().Listening
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), cfg.Listen[0].String()) {
		t.Errorf("got %v", err)
	}
	if err := h.Run(t.Context()); err == nil {
		t.Error("ran twice")
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	before := goleak.IgnoreCurrent()
	m := newTestMesh(t)
	unused, err := New(m.config())
	if err != nil {
		t.Fatal(err)
	}
	if err := unused.Close(); err != nil {
		t.Error(err)
	}
	hosts := make([]*Host, 2)
	var stops []func()
	for i := range hosts {
		if hosts[i], err = New(m.config()); err != nil {
			t.Fatal(err)
		}
		began := make(chan struct{}, 1)
		hosts[i].Handle(echo, func(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) {
			began <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		})
		stops = append(stops, m.run(hosts[i]))
		if i == 1 {
			m.connect(hosts[1], hosts[0])
			go func() { _, _ = hosts[0].Call(context.Background(), hosts[1].ID(), echo, nil) }()
			<-began
		}
	}
	for _, stop := range stops {
		stop()
	}
	goleak.VerifyNone(t, before)
}

func TestQUICAndTCP(t *testing.T) {
	m := newTestMesh(t)
	for _, listen := range []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"} {
		t.Run(listen, func(t *testing.T) {
			cfg := m.config()
			cfg.Listen = addrs(listen)
			b := m.host(cfg, serveEcho)
			a := m.host(m.config(), nil)
			m.connect(a, b)
			if _, err := a.Call(t.Context(), b.ID(), echo, make([]byte, 60<<10)); err != nil {
				t.Fatal(err)
			}
			mem, ok := a.Member(b.ID())
			if !ok || mem.Path != PathLoopback || mem.Inbound || !mem.Addr.Equal(b.Reachability().Listening[0]) {
				t.Errorf("member %+v", mem)
			}
			state := a.raw.Network().ConnsToPeer(b.ID())[0].ConnState()
			if strings.Contains(listen, "tcp") && state.Security != "/tls/1.0.0" {
				t.Errorf("secured by %s, want TLS first", state.Security)
			}
		})
	}
	cfg := m.config()
	cfg.NoQUIC, cfg.Listen = true, addrs("/ip4/127.0.0.1/udp/0/quic-v1")
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Run(t.Context()); err == nil {
		t.Error("listens on QUIC with QUIC off")
	}
}

func TestReachabilityFollowsAutoNAT(t *testing.T) {
	m := newTestMesh(t)
	h := m.host(m.config(), nil)
	if got := h.Reachability(); got.State != ReachLocal || len(got.Listening) != 1 || len(got.Told) != 1 {
		t.Errorf("at first %+v", got)
	}
	sub, err := h.raw.EventBus().Subscribe(new(event.EvtLocalReachabilityChanged))
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	emit, err := h.raw.EventBus().Emitter(new(event.EvtHostReachableAddrsChanged))
	if err != nil {
		t.Fatal(err)
	}
	defer emit.Close()
	pub := addrs("/ip4/8.8.8.8/tcp/1")
	for _, c := range []struct {
		evt  event.EvtHostReachableAddrsChanged
		want ReachState
		told network.Reachability
	}{
		{event.EvtHostReachableAddrsChanged{Reachable: pub}, ReachPublic, network.ReachabilityPublic},
		{event.EvtHostReachableAddrsChanged{Unreachable: pub}, ReachPrivate, network.ReachabilityPrivate},
	} {
		if err := emit.Emit(c.evt); err != nil {
			t.Fatal(err)
		}
		until(t, string(c.want), func() bool { return h.Reachability().State == c.want })
		for e := range sub.Out() {
			if e.(event.EvtLocalReachabilityChanged).Reachability == c.told {
				break
			}
		}
	}
}

// A public member relays for one that others can't reach; control traffic
// passes, and the member's path says so.
func TestRelayedMember(t *testing.T) {
	m := newTestMesh(t)
	relay := m.host(m.config(), nil)
	emit, err := relay.raw.EventBus().Emitter(new(event.EvtHostReachableAddrsChanged))
	if err != nil {
		t.Fatal(err)
	}
	defer emit.Close()
	if err := emit.Emit(event.EvtHostReachableAddrsChanged{Reachable: addrs("/ip4/8.8.8.8/tcp/1")}); err != nil {
		t.Fatal(err)
	}
	until(t, "the relay service runs", func() bool {
		for _, id := range relay.raw.Mux().Protocols() {
			if id == hopProtocol {
				return true
			}
		}
		return false
	})
	hidden := m.host(m.config(), func(h *Host) {
		serveEcho(h)
		h.HandleStream(bulk, func(context.Context, *Stream) error { return nil })
	})
	m.connect(hidden, relay)
	via := addrInfo(relay).Addrs[0].Encapsulate(ma.StringCast("/p2p/" + relay.ID().String() + "/p2p-circuit"))
	reserve(t, hidden, relay)
	a := m.host(m.config(), nil)
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: hidden.ID(), Addrs: []ma.Multiaddr{via}}); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Call(t.Context(), hidden.ID(), echo, []byte("over")); err != nil || string(got) != "over" {
		t.Errorf("a call over the relay: %q, %v", got, err)
	}
	if mem, ok := a.Member(hidden.ID()); !ok || mem.Path != PathRelayed {
		t.Errorf("member %+v", mem)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := a.Open(ctx, hidden.ID(), bulk); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("bulk did not wait for a direct path: %v", err)
	}
}

func TestSeal(t *testing.T) {
	m := newTestMesh(t)
	h, err := New(m.config())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	b, err := h.Seal("test-a", []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	if id, got, err := OpenSealed("test-a", 1000, b); err != nil || id != h.ID() || string(got) != "payload" {
		t.Errorf("%s, %q, %v", id, got, err)
	}
	if _, _, err := OpenSealed("test-b", 1000, b); err == nil {
		t.Error("opened under another domain")
	}
	if _, _, err := OpenSealed("test-a", len(b)-1, b); err == nil {
		t.Error("opened above the bound")
	}
	for i := range b {
		bad := append([]byte{}, b...)
		bad[i] ^= 1
		if _, got, err := OpenSealed("test-a", 1000, bad); err == nil && string(got) != "payload" {
			t.Fatalf("byte %d changed, opened as %q", i, got)
		}
	}
}

func TestMetrics(t *testing.T) {
	m := newTestMesh(t)
	reg := prometheus.NewRegistry()
	cfg := m.config()
	cfg.Registerer = reg
	a, b := m.host(cfg, nil), m.host(m.config(), serveEcho)
	m.connect(a, b)
	if _, err := a.Call(t.Context(), b.ID(), echo, nil); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, f := range families {
		got[f.GetName()] = true
		for _, series := range f.GetMetric() {
			for _, l := range series.GetLabel() {
				if strings.Contains(l.GetValue(), b.ID().String()) {
					t.Errorf("%s is labelled with a peer", f.GetName())
				}
			}
		}
	}
	for _, want := range []string{"kith_p2p_members", "kith_p2p_calls_total", "kith_p2p_hellos_total", "kith_p2p_call_seconds"} {
		if !got[want] {
			t.Errorf("no metric %s", want)
		}
	}
}

func TestProtocol(t *testing.T) {
	if id := echo.ID(auth.MeshID(strings.Repeat("abcdefgh", 7)[:52])); id != "/kith/abcdefghabcdefgh/echo/1.0.0" {
		t.Errorf("ID %s", id)
	}
	for name, p := range map[string]Protocol{
		"no name": {Version: "1"}, "upper case": {Name: "Echo", Version: "1"}, "no version": {Name: "x"},
		"large": {Name: "x", Version: "1", MaxMessage: mostMaxMessage + 1}, "below zero": {Name: "x", Version: "1", Streams: -1},
	} {
		if p.Check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, p := range []Protocol{Hello, JoinProtocol, Renew} {
		if err := p.Check(); err != nil {
			t.Error(err)
		}
	}
	r := &Refusal{Code: CodeBusy, Text: "full", RetryAfter: 2 * time.Second}
	if !errors.Is(r, &Refusal{Code: CodeBusy}) || errors.Is(r, &Refusal{Code: CodeRate}) || !strings.Contains(r.Error(), "2s") {
		t.Errorf("refusal %v", r)
	}
}

func TestDialRank(t *testing.T) {
	relay := "/ip4/8.8.4.4/tcp/1/p2p/12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2/p2p-circuit"
	delay := map[string]time.Duration{}
	for _, d := range rankTCPFirst(addrs("/ip4/8.8.8.8/udp/1/quic-v1", relay, "/ip4/8.8.8.8/tcp/1")) {
		delay[d.Addr.String()] = d.Delay
	}
	if len(delay) != 3 || delay["/ip4/8.8.8.8/tcp/1"] != 0 || delay["/ip4/8.8.8.8/udp/1/quic-v1"] < 200*time.Millisecond || delay[relay] < 500*time.Millisecond {
		t.Errorf("delays %v", delay)
	}
	if got := rankTCPFirst(addrs("/ip4/8.8.8.8/udp/1/quic-v1")); len(got) != 1 || got[0].Delay != 0 {
		t.Errorf("QUIC alone: %v", got)
	}
}
