package p2p

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kith-mesh/kith/p2p/internal/pb"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// A member that gives up its membership, before its token is revoked, must not
// keep what it opened as a member.
func TestWhoWasMemberIsClosed(t *testing.T) {
	t.Parallel()
	m := newTestMesh(t)
	a, b := m.host(m.config(), serveEcho), m.host(m.config(), nil)
	gone := make(chan struct{}, 8)
	a.raw.Network().Notify(&network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) {
		if c.RemotePeer() == b.ID() {
			gone <- struct{}{}
		}
	}})
	m.connect(b, a)
	if _, err := b.Call(t.Context(), a.ID(), echo, []byte("x")); err != nil {
		t.Fatal(err)
	}
	s, err := b.raw.NewStream(t.Context(), a.ID(), Hello.ID(m.id))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := writeHello(s, hello{clock: time.Now()}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Fatal("still connected")
	}
}

// Strangers who take all their places must not keep a member of old out.
func TestFullOfStrangers(t *testing.T) {
	t.Parallel()
	m := newTestMesh(t)
	cfg := m.config()
	cfg.MaxStrangers = 1
	a := m.host(cfg, nil)
	bcfg := m.config()
	b := m.host(bcfg, nil)
	m.connect(b, a)
	until(t, "they are apart", func() bool {
		_ = b.raw.Network().ClosePeer(a.ID())
		return !a.connectedTo(b.ID())
	})
	hold := func() { // until the place is taken
		s := stranger(t)
		until(t, "the place is taken", func() bool {
			if err := s.Connect(t.Context(), addrInfo(a)); err != nil {
				return false
			}
			a.gate.mu.Lock()
			defer a.gate.mu.Unlock()
			return a.gate.peers[s.ID()] != nil
		})
	}
	hold()
	if err := b.Connect(t.Context(), addrInfo(a)); err != nil {
		t.Errorf("a member of old: %v", err)
	}
}

// One who makes identities must not make a protocol refuse everybody else.
func TestBoundsForgetWhoLeft(t *testing.T) {
	b := newBounds(Protocol{Streams: 1, Rate: 1, Burst: 1})
	now := time.Now()
	for i := range maxShares {
		id := peer.ID(fmt.Sprint("one of many ", i))
		if _, refusal := b.enter(id, 1, now); refusal != nil {
			t.Fatal(refusal)
		}
		b.leave(id, now)
	}
	if _, refusal := b.enter("somebody", 1, now); refusal != nil {
		t.Error(refusal)
	}
}

func TestAnnouncementsFromAnybody(t *testing.T) {
	const id = "/p2p/12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2"
	var texts []string
	for _, a := range []string{"/ip4/127.0.0.1/tcp/22", "/dns4/example.org/tcp/1", "/ip6/::1/tcp/5432", "/ip4/0.0.0.0/tcp/1", "/ip4/192.168.1.9/tcp/4101"} {
		texts = append(texts, lanAddr+a+id)
	}
	got := readEntry(texts)
	if len(got) != 1 || len(got[0].Addrs) != 1 || got[0].Addrs[0].String() != "/ip4/192.168.1.9/tcp/4101" {
		t.Errorf("read %v", got)
	}
}

// Addresses that peers made us learn must go when their peer is forgotten.
func TestForgottenAddresses(t *testing.T) {
	t.Parallel()
	m := newTestMesh(t)
	a := m.host(m.config(), nil)
	var first peer.ID
	for i := range maxBook + 1 {
		key, id := newKey(t)
		if i == 0 {
			first = id
		}
		h := &Host{cfg: Config{Key: key, Now: time.Now}, id: id, book: newBook(nil), net: &netView{any: true}, raw: addressed{a.raw}}
		rec, err := h.Record()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Learn(rec); err != nil {
			t.Fatal(err)
		}
	}
	if a.book.size() > maxBook {
		t.Errorf("%d pages", a.book.size())
	}
	if a.RecordOf(first) != nil {
		t.Fatal("the first was not forgotten")
	}
	if got := a.raw.Peerstore().Addrs(first); len(got) > 0 {
		t.Errorf("libp2p still has %v", got)
	}
}

type addressed struct{ host.Host }

func (addressed) Addrs() []ma.Multiaddr { return addrs("/ip4/8.8.8.8/tcp/1") }

func TestKindsCanBeShown(t *testing.T) {
	if _, err := readCapacity(&pb.Capacity{Kinds: []string{"wasm\x1b[2J"}}); err == nil {
		t.Error("a kind that clears the screen")
	}
}

// Who serves reads no more than a request may have.
func TestMaxRequest(t *testing.T) {
	t.Parallel()
	m := newTestMesh(t)
	bulk := Protocol{Name: "test/bulk", Version: "1.0.0", MaxMessage: 1 << 20, MaxRequest: 1 << 10}
	loose := bulk
	loose.MaxRequest = 0
	a := m.host(m.config(), func(h *Host) {
		h.Handle(bulk, func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return make([]byte, 1<<19), nil })
	})
	b := m.host(m.config(), nil)
	m.connect(b, a)
	if _, err := b.Call(t.Context(), a.ID(), bulk, make([]byte, 2<<10)); err == nil || !strings.Contains(err.Error(), "1024") {
		t.Errorf("a large request: %v", err)
	}
	if got, err := b.Call(t.Context(), a.ID(), bulk, make([]byte, 1<<10)); err != nil || len(got) != 1<<19 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	c := m.host(m.config(), nil)
	m.connect(c, a)
	if _, err := c.Call(t.Context(), a.ID(), loose, make([]byte, 8<<10)); err == nil {
		t.Error("who ignores the limit is served")
	}
}
