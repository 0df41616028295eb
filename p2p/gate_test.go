package p2p

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// stranger is a plain libp2p host.
func stranger(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func TestMeshesDoNotMix(t *testing.T) {
	t.Parallel()
	one, two := newTestMesh(t), newTestMesh(t)
	a, b := one.host(one.config(), serveEcho), two.host(two.config(), serveEcho)
	err := a.Connect(t.Context(), addrInfo(b))
	if RefusalCode(err) != CodeOtherMesh || !strings.Contains(err.Error(), two.id.Prefix()) {
		t.Errorf("connecting: %v", err)
	}
	if _, err := a.Call(t.Context(), b.ID(), echo, nil); err == nil {
		t.Error("a call crossed the meshes")
	}
	if a.IsMember(b.ID()) || b.IsMember(a.ID()) {
		t.Error("members of different meshes")
	}
	// Whoever knows the other mesh's prefix still gets nowhere without a token.
	raw := echo
	if s, err := a.raw.NewStream(t.Context(), b.ID(), raw.ID(two.id)); err == nil {
		_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
		if err := writeFrame(s, frame{kind: kindRequest, id: 1}); err == nil {
			if n, err := s.Read(make([]byte, 10)); err == nil {
				t.Errorf("an answer of %d bytes without a token", n)
			}
		}
	}
	until(t, "they are apart", func() bool {
		return !a.connectedTo(b.ID()) && !b.connectedTo(a.ID())
	})
}

func TestTokensThatDoNotHold(t *testing.T) {
	t.Parallel()
	m, other := newTestMesh(t), newTestMesh(t)
	good := m.host(m.config(), nil)
	skewed := func(by time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(by) } }
	mint := func(c *Config, issued, expires time.Duration) {
		id, err := peer.IDFromPrivateKey(c.Key)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		c.Token, err = auth.Mint(m.root, auth.Subject{Peer: id, Rights: auth.Work, Issued: now.Add(issued), Expires: now.Add(expires)})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		change func(*Config)
		code   Code
		says   string
	}{
		"expired": {func(c *Config) {
			mint(c, -9*time.Hour, -2*time.Hour)
			c.Now = skewed(-90 * time.Minute)
		}, CodeClock, "clock"},
		"expired, clocks agree": {func(c *Config) {
			mint(c, -9*time.Hour, -61*time.Minute)
			c.Now = skewed(-59 * time.Minute)
		}, CodeTokenExpired, "invite"},
		"clock ahead": {func(c *Config) {
			mint(c, 5*time.Hour, 6*time.Hour)
			c.Now = skewed(5 * time.Hour)
		}, CodeClock, "clock"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := m.config()
			c.change(&cfg)
			h := m.host(cfg, nil)
			err := h.Connect(t.Context(), addrInfo(good))
			if RefusalCode(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			until(t, "they are apart", func() bool { return !good.connectedTo(h.ID()) })
			if good.IsMember(h.ID()) {
				t.Error("a member all the same")
			}
		})
	}
	t.Run("New refuses", func(t *testing.T) {
		cfg := m.config()
		cfg.Mesh = other.id
		if _, err := New(cfg); !errors.Is(err, auth.ErrOtherMesh) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRevokedIsClosedAndStaysOut(t *testing.T) {
	m := newTestMesh(t)
	var revoked atomic.Pointer[peer.ID]
	cfg := m.config()
	cfg.Revoked = func(id peer.ID) bool { r := revoked.Load(); return r != nil && *r == id }
	var mu sync.Mutex
	var events []bool
	a := m.host(cfg, func(h *Host) {
		h.OnMember(func(_ peer.ID, joined bool) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, joined)
		})
	})
	b := m.host(m.config(), nil)
	m.connect(b, a)
	until(t, "a knows b", func() bool { return a.IsMember(b.ID()) })
	id := b.ID()
	revoked.Store(&id)
	a.Recheck()
	until(t, "b is gone", func() bool { return !a.connectedTo(b.ID()) })
	until(t, "both events are told", func() bool { mu.Lock(); defer mu.Unlock(); return len(events) >= 2 })
	mu.Lock()
	if !events[0] || events[1] {
		t.Errorf("events %v", events)
	}
	mu.Unlock()
	until(t, "b notices", func() bool { return !b.connectedTo(a.ID()) })
	if err := b.Connect(t.Context(), addrInfo(a)); err == nil && a.IsMember(b.ID()) {
		t.Error("it came back")
	}
}

func TestExpiryIsNoticed(t *testing.T) {
	m := newTestMesh(t)
	var ahead atomic.Int64
	cfg := m.config()
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	a := m.host(cfg, nil)
	b := m.host(m.config(), nil)
	m.connect(b, a)
	ahead.Store(int64(24*time.Hour + 30*time.Minute)) // within the hour of skew
	a.Recheck()
	if !a.IsMember(b.ID()) {
		t.Fatal("closed within the allowed skew")
	}
	ahead.Store(int64(26 * time.Hour))
	a.Recheck()
	until(t, "b is gone", func() bool { return !a.connectedTo(b.ID()) })
}

// A handler behind the gate waits for hello; nothing is dropped meanwhile.
func TestHelloLate(t *testing.T) {
	t.Parallel()
	m := newTestMesh(t)
	key, id := newKey(t)
	late, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	const early protocol.ID = "/kith/test/announce/1.0.0"
	got := make(chan string, 1)
	a := m.host(m.config(), func(h *Host) {
		h.Gated().SetStreamHandler(early, func(s network.Stream) {
			b, err := io.ReadAll(s)
			if err != nil {
				t.Error(err)
			}
			got <- string(b)
			_ = s.Close()
		})
	})
	if err := late.Connect(t.Context(), addrInfo(a)); err != nil {
		t.Fatal(err)
	}
	s, err := late.NewStream(t.Context(), a.ID(), early)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("said once, before hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	until(t, "the stream waits at the gate", func() bool {
		for _, c := range a.raw.Network().ConnsToPeer(id) {
			for _, s := range c.GetStreams() {
				if s.Protocol() == early {
					return true
				}
			}
		}
		return false
	})
	select {
	case v := <-got:
		t.Fatalf("served before hello: %q", v)
	default:
	}
	hs, err := late.NewStream(t.Context(), a.ID(), Hello.ID(m.id))
	if err != nil {
		t.Fatal(err)
	}
	if err := writeHello(hs, hello{token: m.token(id, auth.Work, time.Hour), agent: "late", clock: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if v := <-got; v != "said once, before hello" {
		t.Errorf("got %q", v)
	}
	if mem, ok := a.Member(id); !ok || mem.Agent != "late" || mem.Grant.Rights != auth.Work || !mem.Inbound || mem.Path != PathLoopback {
		t.Errorf("member %+v, %v", mem, ok)
	}
}

func TestStrangers(t *testing.T) {
	t.Parallel()
	m := newTestMesh(t)
	const bitswap protocol.ID = "/ipfs/bitswap/1.2.0"
	var keep atomic.Bool
	keep.Store(true)
	cfg := m.config()
	cfg.MaxStrangers = 2
	a := m.host(cfg, func(h *Host) {
		h.KeepStrangers(func(peer.ID) bool { return keep.Load() })
		h.Gated().SetStreamHandler(bitswap, func(s network.Stream) {
			_, _ = s.Write([]byte("block"))
			_ = s.Close()
		})
		serveEcho(h)
	})
	x := stranger(t)
	if err := x.Connect(t.Context(), addrInfo(a)); err != nil {
		t.Fatal(err)
	}
	s, err := x.NewStream(t.Context(), a.ID(), bitswap)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(s); err != nil || string(b) != "block" {
		t.Errorf("bitswap to a stranger: %q, %v", b, err)
	}
	begun := time.Now()
	if s, err := x.NewStream(t.Context(), a.ID(), echo.ID(m.id)); err == nil {
		_ = writeFrame(s, frame{kind: kindRequest, id: 1})
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Error("echo served a stranger")
		}
	}
	if waited := time.Since(begun); waited > StrangerTime+3*time.Second {
		t.Errorf("the gate took %s", waited)
	}
	if !a.connectedTo(x.ID()) {
		t.Error("a stranger who is being served was closed")
	}
	if err := stranger(t).Connect(t.Context(), addrInfo(a)); err != nil {
		t.Errorf("the second slot: %v", err)
	}
	third := stranger(t)
	_ = third.Connect(t.Context(), addrInfo(a))
	until(t, "the third is turned away", func() bool { return !a.connectedTo(third.ID()) })
	b := m.host(m.config(), nil)
	keep.Store(false)
	until(t, "the strangers are closed", func() bool { _, n := a.gate.count(); return n == 0 })
	m.connect(b, a)
}

func TestGatedNewStream(t *testing.T) {
	t.Parallel()
	m := newTestMesh(t)
	a, b := m.host(m.config(), nil), m.host(m.config(), serveEcho)
	a.raw.Peerstore().AddAddrs(b.ID(), addrInfo(b).Addrs, time.Hour)
	ctx := network.WithNoDial(t.Context(), "test")
	if _, err := a.Gated().NewStream(ctx, b.ID(), echo.ID(m.id)); !errors.Is(err, network.ErrNoConn) {
		t.Errorf("dialled all the same: %v", err)
	}
	s, err := a.Gated().NewStream(t.Context(), b.ID(), echo.ID(m.id))
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Reset()
	if !a.IsMember(b.ID()) {
		t.Error("a stream before hello was done")
	}
	x := stranger(t)
	x.SetStreamHandler("/x/1", func(s network.Stream) { _ = s.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := x.Connect(ctx, addrInfo(a)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Gated().NewStream(ctx, x.ID(), "/x/1"); !errors.Is(err, ErrStranger) && !errors.Is(err, network.ErrNoConn) {
		t.Errorf("a stream to a stranger: %v", err)
	}
}
