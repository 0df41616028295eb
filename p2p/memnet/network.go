package memnet

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// Config shapes a Network. The zero value is a network without delay.
type Config struct {
	// Latency is the one-way delay from one node to another; nil is none.
	Latency func(from, to netip.Addr) time.Duration
	// Uplink is a node's rate in bytes a second; nil or zero is no limit.
	Uplink func(node netip.Addr) float64
	// Window is how many bytes a stream holds unread before writes block; 1 MiB.
	Window int
	// Silence is how long a connection outlives a cut or a killed peer; 30 s, which
	// is near what QUIC's idle timeout and yamux's keepalive give.
	Silence time.Duration
	// DialTimeout bounds a dial that nobody answers; 5 s.
	DialTimeout time.Duration
	// Tap, if any, is told of every write to a stream before it returns: the
	// stream's number, and whether the side that opened it writes. It keeps no
	// part of b and calls nothing of the network.
	Tap func(pair Pair, stream uint64, opener bool, b []byte)
}

// Bounds that a test has no reason to change.
const (
	maxSegment    = 64 << 10 // a larger write arrives in pieces
	acceptBacklog = 256      // streams opened and not accepted, per side
	listenBacklog = 1024     // connections dialled and not accepted
	firstPort     = 32768    // of those the network picks
)

// Pair is one direction between two nodes.
type Pair struct{ From, To netip.Addr }

// Count is what went over a Pair: calls of Write, and their bytes, whether or
// not they ever arrived.
type Count struct{ Messages, Bytes int64 }

func (c *Count) add(d Count) { c.Messages += d.Messages; c.Bytes += d.Bytes }

// Network joins the transports made from it.
type Network struct {
	cfg Config

	mu     sync.Mutex // before any link's
	nodes  map[netip.Addr]*node
	links  map[*link]struct{}
	open   map[*listener]struct{}
	cuts   map[Pair]struct{} // ordered by unordered()
	off    map[netip.Addr]struct{}
	counts map[Pair]Count // of links that are gone
	closed bool

	opened atomic.Uint64 // streams
}

type node struct {
	addr      netip.Addr
	dead      bool // its host is out
	dark      bool // its machine does not answer either
	listeners map[uint16]*listener
	nextPort  uint16

	mu     sync.Mutex
	upFree time.Time // when the uplink has sent what it was given
}

// New returns a Network without nodes.
func New(cfg Config) *Network {
	if cfg.Window <= 0 {
		cfg.Window = 1 << 20
	}
	if cfg.Silence <= 0 {
		cfg.Silence = 30 * time.Second
	}
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 5 * time.Second
	}
	return &Network{
		cfg:    cfg,
		nodes:  map[netip.Addr]*node{},
		links:  map[*link]struct{}{},
		open:   map[*listener]struct{}{},
		cuts:   map[Pair]struct{}{},
		off:    map[netip.Addr]struct{}{},
		counts: map[Pair]Count{},
	}
}

// IP is the i-th of 12,800 public addresses of different /16 networks; past
// those the /16s repeat.
func IP(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(41 + i%50), byte(i / 50), byte(i / (50 * 256)), 1})
}

// Listen is the multiaddr to listen on at ip: its port 4101.
func Listen(ip netip.Addr) ma.Multiaddr {
	return multiaddr(netip.AddrPortFrom(ip, 4101))
}

// Cut severs a and b from each other until Heal.
func (n *Network) Cut(a, b netip.Addr) {
	n.change(func() { n.cuts[unordered(a, b)] = struct{}{} })
}

// Heal undoes Cut. What was sent meanwhile arrives one latency later.
func (n *Network) Heal(a, b netip.Addr) {
	n.change(func() { delete(n.cuts, unordered(a, b)) })
}

// CutOff severs a node from all others until Reconnect.
func (n *Network) CutOff(a netip.Addr) {
	n.change(func() { n.off[a] = struct{}{} })
}

// Reconnect undoes CutOff; cuts of single pairs stay.
func (n *Network) Reconnect(a netip.Addr) {
	n.change(func() { delete(n.off, a) })
}

// Partition cuts every node of one side from every node of the other.
func (n *Network) Partition(side, other []netip.Addr) {
	n.change(func() {
		for _, a := range side {
			for _, b := range other {
				n.cuts[unordered(a, b)] = struct{}{}
			}
		}
	})
}

// HealAll undoes every Cut, Partition and CutOff.
func (n *Network) HealAll() {
	n.change(func() {
		clear(n.cuts)
		clear(n.off)
	})
}

func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	for l := range n.links {
		l.setCut(n.severed(l.ends[0].addr.Addr(), l.ends[1].addr.Addr()))
	}
}

func (n *Network) severed(a, b netip.Addr) bool {
	if _, ok := n.cuts[unordered(a, b)]; ok {
		return true
	}
	if _, ok := n.off[a]; ok {
		return true
	}
	_, ok := n.off[b]
	return ok
}

// Kill stops a node as a power cut would: it says nothing more, and its peers
// notice after Silence. Its own host sees reset connections at once.
func (n *Network) Kill(a netip.Addr) { n.stop(a, n.cfg.Silence) }

// Crash stops a node as the death of its process would: its peers see resets
// one latency later, and dials are refused.
func (n *Network) Crash(a netip.Addr) { n.stop(a, 0) }

func (n *Network) stop(a netip.Addr, after time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	nd := n.nodeLocked(a)
	nd.dead, nd.dark = true, after > 0
	nd.listeners = map[uint16]*listener{} // its host closes them: until then they hear nothing
	for l := range n.links {
		for i := range l.ends {
			if l.ends[i].addr.Addr() == a {
				l.kill(&l.ends[i], after)
			}
		}
	}
}

// revive lets a node that was stopped come back: what peers still hold open to
// its earlier life is reset, as its machine would answer them.
func (n *Network) revive(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	nd := n.nodeLocked(a)
	if !nd.dead {
		return
	}
	nd.dead, nd.dark = false, false
	for l := range n.links {
		for i := range l.ends {
			if l.ends[i].addr.Addr() == a {
				l.kill(&l.ends[i], 0)
			}
		}
	}
}

// Counts tells what was sent over each pair since New or ResetCounts.
func (n *Network) Counts() map[Pair]Count {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[Pair]Count, len(n.counts))
	for p, c := range n.counts {
		all[p] = c
	}
	for l := range n.links {
		l.addCounts(all, false)
	}
	return all
}

// Total is the sum of Counts.
func (n *Network) Total() (sum Count) {
	for _, c := range n.Counts() {
		sum.add(c)
	}
	return sum
}

// ResetCounts starts counting anew.
func (n *Network) ResetCounts() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.counts)
	discard := map[Pair]Count{}
	for l := range n.links {
		l.addCounts(discard, true)
	}
}

// Connections is how many connections stand, each counted once.
func (n *Network) Connections() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.links)
}

// Close ends every connection and listener. Nothing of the network runs after it.
func (n *Network) Close() error {
	n.mu.Lock()
	n.closed = true
	listeners := slices.Collect(maps.Keys(n.open))
	links := slices.Collect(maps.Keys(n.links))
	n.mu.Unlock()
	for _, l := range listeners {
		l.shut()
	}
	for _, l := range links {
		l.end()
	}
	return nil
}

func (n *Network) nodeLocked(a netip.Addr) *node {
	nd := n.nodes[a]
	if nd == nil {
		nd = &node{addr: a, listeners: map[uint16]*listener{}, nextPort: firstPort}
		n.nodes[a] = nd
	}
	return nd
}

func (n *Network) latency(from, to netip.Addr) time.Duration {
	if n.cfg.Latency == nil {
		return 0
	}
	return max(n.cfg.Latency(from, to), 0)
}

// depart books size bytes on the node's uplink and tells when they have left.
func (n *Network) depart(nd *node, size int, now time.Time) time.Time {
	if n.cfg.Uplink == nil {
		return now
	}
	rate := n.cfg.Uplink(nd.addr)
	if rate <= 0 {
		return now
	}
	nd.mu.Lock()
	defer nd.mu.Unlock()
	if nd.upFree.Before(now) {
		nd.upFree = now
	}
	nd.upFree = nd.upFree.Add(time.Duration(float64(size) / rate * float64(time.Second)))
	return nd.upFree
}

func unordered(a, b netip.Addr) Pair {
	if b.Less(a) {
		a, b = b, a
	}
	return Pair{a, b}
}

func multiaddr(a netip.AddrPort) ma.Multiaddr {
	m, err := ma.NewMultiaddr(fmt.Sprintf("/ip4/%s/tcp/%d", a.Addr(), a.Port()))
	if err != nil {
		panic(fmt.Sprintf("memnet: %v is not an IPv4 address: %v", a, err))
	}
	return m
}
