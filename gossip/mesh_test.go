package gossip

import (
	"context"
	"fmt"
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
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// testMesh is whole hosts with gossip over memnet, three continents apart, in
// virtual time. Every node knows one bootstrap contact alone.
type testMesh struct {
	t     *testing.T
	net   *memnet.Network
	rtt   [][]time.Duration
	hosts []*p2p.Host
	svcs  []*Service
	at    map[peer.ID]int
	got   []sync.Map // by node: payload -> Offered
	jobs  []sync.Map
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

// inMesh runs f inside a bubble with n nodes that have had warm to find each
// other.
func inMesh(t *testing.T, n int, cfg Config, warm time.Duration, f func(*testMesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := startMesh(t, n, cfg)
		defer m.close()
		time.Sleep(warm)
		f(m)
	})
}

func startMesh(t *testing.T, n int, cfg Config) *testMesh {
	t.Helper()
	m := &testMesh{t: t, rtt: continents(7, n), at: map[peer.ID]int{}, got: make([]sync.Map, n), jobs: make([]sync.Map, n)}
	index := map[netip.Addr]int{}
	for i := range n {
		index[memnet.IP(i)] = i
	}
	m.net = memnet.New(memnet.Config{Latency: func(from, to netip.Addr) time.Duration {
		return m.rtt[index[from]][index[to]] / 2
	}})
	root, _ := testKey(t, 1<<20)
	id, err := auth.MeshOf(root.GetPublic())
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, m.stop = context.WithCancel(t.Context())
	var bootstrap []peer.AddrInfo
	for i := range n {
		key, self := testKey(t, i)
		token, err := auth.Mint(root, auth.Subject{Peer: self, Rights: auth.Submit | auth.Work, Expires: time.Now().Add(24 * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		h, err := p2p.New(p2p.Config{
			Key: key, Mesh: id, Token: token, Simulated: true, Bootstrap: bootstrap, Seed: uint64(i + 1),
			Listen:  []ma.Multiaddr{memnet.Listen(memnet.IP(i))},
			Options: []libp2p.Option{libp2p.Transport(m.net.Transport(memnet.IP(i))), libp2p.NoSecurity},
		})
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(h, cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.OnOffer(func(_ context.Context, o Offered) { m.got[i].Store(string(o.Payload), o) })
		s.OnJob(func(_ context.Context, _ peer.ID, b []byte) { m.jobs[i].Store(string(b), true) })
		m.hosts, m.svcs, m.at[self] = append(m.hosts, h), append(m.svcs, s), i
		if i == 0 {
			bootstrap = []peer.AddrInfo{{ID: self, Addrs: []ma.Multiaddr{memnet.Listen(memnet.IP(0))}}}
		}
		m.wg.Go(func() {
			if err := h.Run(ctx); err != nil {
				t.Errorf("host %d: %v", i, err)
			}
		})
		m.wg.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Errorf("gossip %d: %v", i, err)
			}
		})
	}
	return m
}

func (m *testMesh) close() {
	m.stop()
	m.wg.Wait()
	if err := m.net.Close(); err != nil {
		m.t.Error(err)
	}
	// pubsub and libp2p end what is left of theirs within a second.
	time.Sleep(time.Minute)
	synctest.Wait()
}

func netIP(i int) netip.Addr { return memnet.IP(i) }

// nearest lists the other nodes from the truly nearest on.
func (m *testMesh) nearest(i int) []int {
	var order []int
	for j := range m.hosts {
		if j != i {
			order = append(order, j)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return int(m.rtt[i][a] - m.rtt[i][b]) })
	return order
}

// links is the share of each node's six truly nearest that it has links with,
// and the mean degree.
func (m *testMesh) links() (recall, degree float64) {
	hit, all := 0, 0
	for i, h := range m.hosts {
		linked := map[int]bool{}
		for _, n := range h.Neighbours() {
			linked[m.at[n.ID]] = true
			degree++
		}
		for _, j := range m.nearest(i)[:6] {
			all++
			if linked[j] {
				hit++
			}
		}
	}
	return float64(hit) / float64(all), degree / float64(len(m.hosts))
}

// reach publishes from some nodes, each with a radius of 1.3 times its 12th
// nearest's predicted round trip, and tells how many got it of those who find
// themselves inside, of the true twelve nearest, and how many copies an offer
// cost.
type reach struct{ inside, nearest, copies float64 }

func (m *testMesh) reach(origins int) reach {
	m.t.Helper()
	before := m.received()
	var in, inAll, near, nearAll int
	for k := range origins {
		i := k * len(m.hosts) / origins
		var predicted []time.Duration
		for _, j := range m.nearest(i)[:12] {
			predicted = append(predicted, m.guess(i, j))
		}
		radius := slices.Max(predicted) * 13 / 10
		name := fmt.Sprintf("offer %d", k)
		if err := m.svcs[i].PublishOffer(m.t.Context(), []byte(name), radius, 10*time.Second); err != nil {
			m.t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		for j := range m.hosts {
			if j == i {
				continue
			}
			_, got := m.got[j].Load(name)
			if inside(m.guess(j, i), radius) {
				inAll++
				if got {
					in++
				}
			}
		}
		for _, j := range m.nearest(i)[:12] {
			nearAll++
			if _, got := m.got[j].Load(name); got {
				near++
			}
		}
	}
	return reach{float64(in) / float64(inAll), float64(near) / float64(nearAll), float64(m.received()-before) / float64(origins)}
}

// guess is what node i takes for its round trip to j.
func (m *testMesh) guess(i, j int) time.Duration {
	if d, ok := m.hosts[i].RTT(m.hosts[j].ID()); ok {
		return d
	}
	return m.hosts[i].Distance(m.hosts[j].Coordinate())
}

func (m *testMesh) received() (n int64) {
	for _, s := range m.svcs {
		n += s.Stats().Received
	}
	return n
}

func (m *testMesh) predictionError() float64 {
	var errs []float64
	for i, h := range m.hosts {
		for j := range i {
			d := h.Distance(m.hosts[j].Coordinate())
			errs = append(errs, math.Abs(float64(d-m.rtt[i][j]))/float64(m.rtt[i][j]))
		}
	}
	slices.Sort(errs)
	return errs[len(errs)/2]
}

// continents is a matrix of round trips: 10-30 ms inside one of three, 80-180 ms
// between them.
func continents(seed uint64, n int) [][]time.Duration {
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
