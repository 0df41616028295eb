package p2p_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/memnet"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// nbMesh is whole hosts over memnet, three continents apart, in virtual time;
// all know the first one alone.
type nbMesh struct {
	t     *testing.T
	net   *memnet.Network
	rtt   [][]time.Duration
	hosts []*p2p.Host
	at    map[peer.ID]int
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

func nbKey(t *testing.T, seed int) (crypto.PrivKey, peer.ID) {
	t.Helper()
	s := binary.BigEndian.AppendUint64(bytes.Repeat([]byte{7}, ed25519.SeedSize-8), uint64(seed))
	key, _, err := crypto.KeyPairFromStdKey(new(ed25519.NewKeyFromSeed(s)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

func startNbMesh(t *testing.T, n int, cfg p2p.NeighbourhoodConfig) *nbMesh {
	t.Helper()
	m := &nbMesh{t: t, rtt: threeContinents(5, n), at: map[peer.ID]int{}}
	index := map[netip.Addr]int{}
	for i := range n {
		index[memnet.IP(i)] = i
	}
	m.net = memnet.New(memnet.Config{Latency: func(from, to netip.Addr) time.Duration { return m.rtt[index[from]][index[to]] / 2 }})
	root, _ := nbKey(t, 1<<20)
	mesh, err := auth.MeshOf(root.GetPublic())
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, m.stop = context.WithCancel(t.Context())
	var bootstrap []peer.AddrInfo
	for i := range n {
		key, self := nbKey(t, i)
		token, err := auth.Mint(root, auth.Subject{Peer: self, Rights: auth.Work, Expires: time.Now().Add(24 * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		h, err := p2p.New(p2p.Config{
			Key: key, Mesh: mesh, Token: token, Simulated: true, Bootstrap: bootstrap, Seed: uint64(i + 1), Neighbourhood: cfg,
			Listen:  []ma.Multiaddr{memnet.Listen(memnet.IP(i))},
			Options: []libp2p.Option{libp2p.Transport(m.net.Transport(memnet.IP(i))), libp2p.NoSecurity},
		})
		if err != nil {
			t.Fatal(err)
		}
		h.SetCapacity(p2p.Capacity{Cores: float64(i + 1)})
		m.hosts, m.at[self] = append(m.hosts, h), i
		if i == 0 {
			bootstrap = []peer.AddrInfo{{ID: self, Addrs: []ma.Multiaddr{memnet.Listen(memnet.IP(0))}}}
		}
		m.wg.Go(func() {
			if err := h.Run(ctx); err != nil {
				t.Errorf("host %d: %v", i, err)
			}
		})
	}
	return m
}

func (m *nbMesh) close() {
	m.stop()
	m.wg.Wait()
	if err := m.net.Close(); err != nil {
		m.t.Error(err)
	}
	time.Sleep(time.Minute)
	synctest.Wait()
}

func (m *nbMesh) recall() float64 {
	hit, all := 0, 0
	for i, h := range m.hosts {
		var order []int
		for j := range m.hosts {
			if j != i {
				order = append(order, j)
			}
		}
		slices.SortFunc(order, func(a, b int) int { return int(m.rtt[i][a] - m.rtt[i][b]) })
		linked := map[int]bool{}
		for _, n := range h.Neighbours() {
			linked[m.at[n.ID]] = true
		}
		for _, j := range order[:6] {
			all++
			if linked[j] {
				hit++
			}
		}
	}
	return float64(hit) / float64(all)
}

func TestNeighbourhoodFormsFromOneContact(t *testing.T) {
	const n = 60
	synctest.Test(t, func(t *testing.T) {
		m := startNbMesh(t, n, p2p.NeighbourhoodConfig{})
		defer m.close()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		t.Logf("after two minutes: recall %.2f, %d connections, %+v", m.recall(), m.net.Connections(), m.net.Total())
		if r := m.recall(); r < 0.85 {
			t.Errorf("%.2f of the six nearest are linked after two minutes, want at least 0.85", r)
		}
		for i, h := range m.hosts {
			for _, nb := range h.Neighbours() {
				j := m.at[nb.ID]
				if !slices.ContainsFunc(m.hosts[j].Neighbours(), func(b p2p.Neighbour) bool { return b.ID == h.ID() }) {
					t.Errorf("node %d holds a link with %d, which does not", i, j)
				}
				if nb.RTT == 0 {
					continue // a far one that was never timed
				}
				if off := math.Abs(float64(nb.RTT-m.rtt[i][j])) / float64(m.rtt[i][j]); off > 0.05 {
					t.Errorf("node %d measured %v to %d, want %v", i, nb.RTT, j, m.rtt[i][j])
				}
			}
			if k := len(h.Known()); k < n*8/10 {
				t.Errorf("node %d knows %d members of %d", i, k, n)
			}
			for _, id := range h.SampleFar(8) {
				if id == h.ID() || slices.ContainsFunc(h.Neighbours(), func(b p2p.Neighbour) bool { return b.ID == id }) {
					t.Errorf("node %d drew itself or a neighbour as far", i)
				}
			}
		}
		time.Sleep(3 * time.Minute)
		m.net.ResetCounts()
		time.Sleep(5 * time.Minute)
		per := float64(m.net.Total().Bytes) / n / 300
		t.Logf("idle: %.0f bytes a node and second, %d connections, recall %.2f", per, m.net.Connections(), m.recall())
		if per > 400 {
			t.Errorf("%.0f bytes a node and second when idle, want at most 400", per)
		}
	})
}

// A neighbour that dies is replaced, and its return is noticed; what it offers
// is told.
func TestNeighbourhoodSurvivesADeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startNbMesh(t, 10, p2p.NeighbourhoodConfig{Near: 3})
		defer m.close()
		changes := 0
		m.hosts[1].OnNeighbours(func([]p2p.Neighbour) { changes++ })
		time.Sleep(time.Minute)
		synctest.Wait()
		ns := m.hosts[1].Neighbours()
		if len(ns) < 3 || changes == 0 {
			t.Fatalf("%d links and %d changes told after a minute", len(ns), changes)
		}
		lost := ns[0].ID
		if c := m.hosts[1].Known(); !slices.ContainsFunc(c, func(c p2p.Candidate) bool {
			return c.ID == lost && c.Capacity.Cores == float64(m.at[lost]+1)
		}) {
			t.Error("the neighbour's capacity was not told")
		}
		m.net.CutOff(memnet.IP(m.at[lost]))
		time.Sleep(90 * time.Second)
		synctest.Wait()
		after := m.hosts[1].Neighbours()
		if slices.ContainsFunc(after, func(n p2p.Neighbour) bool { return n.ID == lost }) {
			t.Error("a link with one that was cut off lives on")
		}
		if len(after) < 3 {
			t.Errorf("%d links after one was lost, want at least 3", len(after))
		}
		m.net.Reconnect(memnet.IP(m.at[lost]))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if !slices.ContainsFunc(m.hosts[1].Neighbours(), func(n p2p.Neighbour) bool { return n.ID == lost }) {
			t.Error("the nearest came back and was not linked again")
		}
	})
}

// threeContinents is a matrix of round trips: 10-30 ms inside one of three,
// 80-180 ms between them.
func threeContinents(seed uint64, n int) [][]time.Duration {
	rng := rand.New(rand.NewPCG(seed, 3))
	between := [3][3]float64{{0, 80, 140}, {80, 0, 110}, {140, 110, 0}}
	x, y := make([]float64, n), make([]float64, n)
	for i := range n {
		x[i], y[i] = rng.Float64()*13, rng.Float64()*13
	}
	m := make([][]time.Duration, n)
	for i := range m {
		m[i] = make([]time.Duration, n)
	}
	for i := range n {
		for j := range i {
			ms := 10 + math.Hypot(x[i]-x[j], y[i]-y[j])
			if b := between[i%3][j%3]; b > 0 {
				ms += b
			}
			m[i][j] = time.Duration(ms * float64(time.Millisecond))
			m[j][i] = m[i][j]
		}
	}
	return m
}
