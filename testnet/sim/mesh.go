package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/kith-mesh/kith/gossip"
	"github.com/kith-mesh/kith/node"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/kith-mesh/kith/p2p/memnet"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/testnet/liar"
)

// Config shapes a mesh. Zero fields take the default named beside them.
type Config struct {
	Nodes   int           // 5
	Seed    uint64        // of places, keys and choices; 1
	Latency *Latency      // Continents(Seed, Nodes)
	Cold    bool          // a node knows node 0 alone at first
	Settle  time.Duration // virtual time between the start and f; 30 s
	Dir     string        // of the nodes' databases and blocks; none: all in memory
	Silence time.Duration // until a cut or killed peer is given up; 10 s

	// Service is how long a task takes a node, in virtual time; 1 s. It must be
	// the same for the same arguments.
	Service func(node int, x tasks.Execution) time.Duration
	// Liars are the workers of some nodes, in the place of the market's own.
	Liars map[int]*liar.Liar
	// Setup has the last word on a node's config.
	Setup func(i int, c *node.Config)

	// Tap is told of every write to a stream.
	Tap func(pair memnet.Pair, stream uint64, opener bool, b []byte)

	// What the tests leave out to show what it is worth.
	Flood  bool // offers ignore their radius
	Random bool // the offers' overlay is random, not the neighbourhood
	Given  bool // coordinates are given at the start, not learned
}

// Mesh is a simulated mesh. Its methods are for the goroutine that runs the test.
type Mesh struct {
	Net     *memnet.Network
	Latency *Latency
	Nodes   []*Node

	t       testing.TB
	cfg     Config
	root    crypto.PrivKey
	id      auth.MeshID
	charter []byte
	given   []coord.Coordinate
	index   map[tasks.PeerID]int
	halts   sync.WaitGroup
}

// Run builds a mesh in a bubble of virtual time, waits until it has settled,
// and calls f. The mesh ends with f.
func Run(t *testing.T, cfg Config, f func(m *Mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, cfg)
		defer m.close()
		for _, n := range m.Nodes {
			n.Start()
		}
		Sleep(m.cfg.Settle)
		f(m)
	})
}

// Sleep lets virtual time pass.
func Sleep(d time.Duration) { <-time.After(d) }

func newMesh(t testing.TB, cfg Config) *Mesh {
	t.Helper()
	if cfg.Nodes == 0 {
		cfg.Nodes = 5
	}
	if cfg.Seed == 0 {
		cfg.Seed = 1
	}
	if cfg.Latency == nil {
		cfg.Latency = Continents(cfg.Seed, cfg.Nodes)
	}
	if cfg.Settle == 0 {
		cfg.Settle = 30 * time.Second
	}
	if cfg.Silence == 0 {
		cfg.Silence = 10 * time.Second
	}
	if cfg.Service == nil {
		cfg.Service = func(int, tasks.Execution) time.Duration { return time.Second }
	}
	m := &Mesh{t: t, cfg: cfg, Latency: cfg.Latency, index: map[tasks.PeerID]int{}}
	at := map[netip.Addr]int{}
	for i := range cfg.Nodes {
		at[memnet.IP(i)] = i
	}
	m.Net = memnet.New(memnet.Config{
		Silence: cfg.Silence, Tap: cfg.Tap,
		Latency: func(from, to netip.Addr) time.Duration { return cfg.Latency.RTT(at[from], at[to]) / 2 },
	})
	m.root = m.key(-1)
	var err error
	if m.id, err = auth.MeshOf(m.root.GetPublic()); err != nil {
		t.Fatal(err)
	}
	if m.charter, err = (auth.Charter{Mesh: m.id, Name: "sim", Issued: time.Now()}).Sign(m.root); err != nil {
		t.Fatal(err)
	}
	if cfg.Given {
		m.given = cfg.Latency.Coordinates(cfg.Seed)
	}
	for i := range cfg.Nodes {
		m.Nodes = append(m.Nodes, newNode(m, i))
	}
	return m
}

func (m *Mesh) close() {
	for _, n := range m.Nodes {
		if n.Node != nil {
			n.halt()
		}
	}
	m.halts.Wait()
	if err := m.Net.Close(); err != nil {
		m.t.Error(err)
	}
	for _, n := range m.Nodes {
		n.closeData()
	}
	Sleep(time.Minute) // what libp2p and pubsub have left ends
	synctest.Wait()
}

// key is the i-th node's identity; -1 is the mesh's root.
func (m *Mesh) key(i int) crypto.PrivKey {
	m.t.Helper()
	var seed [64]byte
	binary.LittleEndian.PutUint64(seed[:], m.cfg.Seed)
	binary.LittleEndian.PutUint64(seed[8:], uint64(i+1))
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(seed[:]))
	if err != nil {
		m.t.Fatal(err)
	}
	return key
}

// config is that of a node as it starts.
func (m *Mesh) config(n *Node) node.Config {
	m.t.Helper()
	token, err := auth.Mint(m.root, auth.Subject{Peer: n.ID, Rights: auth.AllRights, Issued: time.Now(), Expires: time.Now().Add(24 * time.Hour)})
	if err != nil {
		m.t.Fatal(err)
	}
	p := network(n, m.contacts(n.Index))
	if m.given != nil {
		p.Neighbourhood.Given = &m.given[n.Index]
	}
	c := node.Config{Log: logger(n.Index), Seams: node.Seams{
		Network: p,
		Gossip:  gossip.Config{IgnoreRadius: m.cfg.Flood, RandomOverlay: m.cfg.Random},
		Key:     n.key, Mesh: m.id, Token: token, Charter: m.charter,
		Runner: n.runner, State: n.state, Blocks: n.Blocks,
	}}
	if !m.cfg.Cold {
		for _, o := range m.Nodes {
			if o != n {
				c.Seams.Warm = append(c.Seams.Warm, o.info())
			}
		}
	}
	if m.cfg.Setup != nil {
		m.cfg.Setup(n.Index, &c)
	}
	if m.cfg.Liars[n.Index] != nil {
		c.Seams.Market.NoWork = true
	}
	return c
}

// contacts are the peers that a node dials at first: node 0, or on a warm start
// a few drawn from all.
func (m *Mesh) contacts(i int) (out []peer.AddrInfo) {
	if m.cfg.Cold || len(m.Nodes) <= 1 {
		if i != 0 {
			out = append(out, m.Nodes[0].info())
		}
		return out
	}
	rng := rand.New(rand.NewPCG(m.cfg.Seed, uint64(i)))
	for _, j := range rng.Perm(len(m.Nodes)) {
		if j != i && len(out) < 4 {
			out = append(out, m.Nodes[j].info())
		}
	}
	return out
}

// Index is the number of the node with an ID; -1 if there is none.
func (m *Mesh) Index(id tasks.PeerID) int {
	if i, ok := m.index[id]; ok {
		return i
	}
	return -1
}

// Of is the node of a liar, once it was started.
func (m *Mesh) Of(l *liar.Liar) *Node { return m.Nodes[m.Index(l.ID())] }

// Cut severs two nodes from each other, and Heal joins them again.
func (m *Mesh) Cut(a, b *Node)  { m.Net.Cut(a.Addr, b.Addr) }
func (m *Mesh) Heal(a, b *Node) { m.Net.Heal(a.Addr, b.Addr) }

// CutOff severs a node from all others, and Reconnect joins it again.
func (m *Mesh) CutOff(n *Node)    { m.Net.CutOff(n.Addr) }
func (m *Mesh) Reconnect(n *Node) { m.Net.Reconnect(n.Addr) }

// Until lets virtual time pass until ok, or fails the test after a while.
func (m *Mesh) Until(what string, within time.Duration, ok func() bool) {
	m.t.Helper()
	for end := time.Now().Add(within); !ok(); Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("%s: not within %v", what, within)
		}
	}
}

func (m *Mesh) background() context.Context { return m.t.Context() }

func (n *Node) info() peer.AddrInfo {
	return peer.AddrInfo{ID: n.ID, Addrs: []ma.Multiaddr{memnet.Listen(n.Addr)}}
}

// logger is silent unless KITH_TEST_LOG is set.
func logger(i int) *slog.Logger {
	if os.Getenv("KITH_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	h := slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})
	return slog.New(h).With("node", fmt.Sprint(i))
}
