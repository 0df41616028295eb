package transfer

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/memnet"
	"github.com/kith-mesh/kith/storage"
)

// simMembers runs n members over memnet in a bubble, until stop.
func (m *testMesh) simMembers(t *testing.T, n int, uplink func(i int) float64) (out []*member, stop func()) {
	t.Helper()
	net := memnet.New(memnet.Config{
		Latency: func(_, _ netip.Addr) time.Duration { return 20 * time.Millisecond },
		Uplink: func(a netip.Addr) float64 {
			for i := range n {
				if memnet.IP(i) == a {
					return uplink(i)
				}
			}
			return 0
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i := range n {
		key, id := newKey(t)
		token, err := auth.Mint(m.root, auth.Subject{Peer: id, Rights: auth.AllRights, Issued: time.Now().Add(-time.Minute), Expires: time.Now().Add(24 * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		h, err := p2p.New(p2p.Config{Key: key, Mesh: m.id, Token: token, Simulated: true, Seed: uint64(i + 1),
			Options: p2p.SimulatedOptions(net.Transport(memnet.IP(i)), nil), Listen: []ma.Multiaddr{memnet.Listen(memnet.IP(i))}})
		if err != nil {
			t.Fatal(err)
		}
		st := newStore(t, "")
		s, err := New(h, st, Config{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []func(context.Context) error{h.Run, s.Run} {
			running.Go(func() {
				if err := f(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		<-h.Ready()
		out = append(out, &member{h: h, st: st, s: s})
	}
	return out, func() {
		cancel()
		running.Wait()
		net.Close()
	}
}

// TestSlowGiver has a fast giver take over what a slow one was asked for: with
// 10 MB/s and 20 kB/s, 4 MB must not take as long as the slow one would.
func TestSlowGiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		rate := []float64{20 << 10, 10 << 20, 10 << 20, 10 << 20}
		ms, stop := m.simMembers(t, 4, func(i int) float64 { return rate[i] })
		defer stop()
		data := noise(4<<20, 1)
		o := storage.AddOptions{ChunkSize: 64 << 10}
		root := add(t, ms[0].st, data, o)
		add(t, ms[1].st, data, o)
		to := ms[2]
		for _, g := range ms[:2] {
			if err := to.h.Connect(t.Context(), peer.AddrInfo{ID: g.h.ID(), Addrs: g.h.Raw().Addrs()}); err != nil {
				t.Fatal(err)
			}
		}
		begun := time.Now()
		if err := to.s.Fetch(t.Context(), All(root.CID, ms[0].h.ID(), ms[1].h.ID()), nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 8*time.Second {
			t.Errorf("it took %v", took)
		}
		if !bytes.Equal(content(t, to.st, root.CID), data) {
			t.Error("another content")
		}
		// From one far giver: as fast as its uplink but for a few round trips.
		to = ms[3]
		big := noise(16<<20, 2)
		root = add(t, ms[1].st, big, o)
		if err := to.h.Connect(t.Context(), peer.AddrInfo{ID: ms[1].h.ID(), Addrs: ms[1].h.Raw().Addrs()}); err != nil {
			t.Fatal(err)
		}
		begun = time.Now()
		if err := to.s.Fetch(t.Context(), All(root.CID, ms[1].h.ID()), nil); err != nil {
			t.Fatal(err)
		}
		took := time.Since(begun)
		if took > 2400*time.Millisecond {
			t.Errorf("16 MiB at 10 MiB/s over a round trip of 40 ms took %v", took)
		}
		t.Log("16 MiB at 10 MiB/s:", took)
	})
}

// TestSlowCrew has slow givers fill all places: one that is fast, and hinted
// last, must get its turn all the same.
func TestSlowCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		const slow = 5
		ms, stop := m.simMembers(t, slow+2, func(i int) float64 {
			if i < slow {
				return 3 << 10
			}
			return 10 << 20
		})
		defer stop()
		data := noise(1<<20, 1)
		o := storage.AddOptions{ChunkSize: 64 << 10}
		to := ms[slow+1]
		want := Want{Length: -1}
		for _, g := range ms[:slow+1] {
			want.Root = add(t, g.st, data, o).CID
			want.From = append(want.From, g.h.ID())
			if err := to.h.Connect(t.Context(), peer.AddrInfo{ID: g.h.ID(), Addrs: g.h.Raw().Addrs()}); err != nil {
				t.Fatal(err)
			}
		}
		begun := time.Now()
		if err := to.s.Fetch(t.Context(), want, nil); err != nil {
			t.Fatal(err)
		}
		took := time.Since(begun)
		t.Log("took", took)
		if took > 45*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestManyAsks has one peer ask for nothing all the time: what it can make this
// node look up is bounded.
func TestManyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		ms, stop := m.simMembers(t, 2, func(int) float64 { return 10 << 20 })
		defer stop()
		if err := ms[0].h.Connect(t.Context(), peer.AddrInfo{ID: ms[1].h.ID(), Addrs: ms[1].h.Raw().Addrs()}); err != nil {
			t.Fatal(err)
		}
		c, err := storage.SumBytes([]byte("not there"))
		if err != nil {
			t.Fatal(err)
		}
		msg, err := ask{root: c, blocks: []cid.Cid{c}}.marshal()
		if err != nil {
			t.Fatal(err)
		}
		st, err := ms[0].h.Open(t.Context(), ms[1].h.ID(), Blocks)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		const asks = 5 * memberAsks
		begun := time.Now()
		go func() {
			for range asks {
				if err := st.WriteMsg(msg); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		for range asks {
			if _, err := st.ReadMsg(); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took < 2*time.Second {
			t.Errorf("%d asks were answered in %v", asks, took)
		}
	})
}

// TestStall ends a fetch that brings next to nothing, and no slow one that goes
// on, however long it takes.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		rate := []float64{1 << 10, 8 << 10, 1 << 20}
		ms, stop := m.simMembers(t, len(rate), func(i int) float64 { return rate[i] })
		defer stop()
		to := ms[2]
		for i, ends := range []error{ErrUnavailable, nil} {
			g := ms[i]
			root := add(t, g.st, noise(4<<20, byte(i)), storage.AddOptions{ChunkSize: 16 << 10})
			if err := to.h.Connect(t.Context(), peer.AddrInfo{ID: g.h.ID(), Addrs: g.h.Raw().Addrs()}); err != nil {
				t.Fatal(err)
			}
			want := All(root.CID, g.h.ID())
			want.Stall = 2 * time.Minute
			begun := time.Now()
			err := to.s.Fetch(t.Context(), want, nil)
			if took := time.Since(begun); !errors.Is(err, ends) || (err == nil) != (took > 4*time.Minute) || took < want.Stall {
				t.Errorf("%.0f bytes a second: %v after %v, want %v", rate[i], err, took, ends)
			}
		}
	})
}
