package memnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Errors of a dial.
var (
	ErrRefused = errors.New("memnet: connection refused: nothing listens there")
	ErrTimeout = errors.New("memnet: dial timed out: no such node, or it is cut off or stopped")
)

// Transport is one node's end of a Network. It implements transport.Transport.
type Transport struct {
	net   *Network
	node  *node
	id    peer.ID
	key   crypto.PubKey
	rcmgr network.ResourceManager
	gater connmgr.ConnectionGater
}

var _ transport.Transport = (*Transport)(nil)

// Transport returns the constructor that libp2p.Transport wants, for a host at
// ip. When the constructor runs, a node that was killed there comes back.
func (n *Network) Transport(ip netip.Addr) func(crypto.PrivKey, network.ResourceManager, connmgr.ConnectionGater) (*Transport, error) {
	return func(key crypto.PrivKey, rcmgr network.ResourceManager, gater connmgr.ConnectionGater) (*Transport, error) {
		if !ip.Is4() {
			return nil, fmt.Errorf("memnet: node address %v is not IPv4", ip)
		}
		id, err := peer.IDFromPrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("memnet: identity of %v: %w", ip, err)
		}
		if rcmgr == nil {
			rcmgr = &network.NullResourceManager{}
		}
		n.revive(ip)
		n.mu.Lock()
		defer n.mu.Unlock()
		return &Transport{net: n, node: n.nodeLocked(ip), id: id, key: key.GetPublic(), rcmgr: rcmgr, gater: gater}, nil
	}
}

// Protocols says TCP, so that ordinary addresses lead here.
func (t *Transport) Protocols() []int { return []int{ma.P_TCP} }

// Proxy says no.
func (t *Transport) Proxy() bool { return false }

// CanDial says yes to /ip4/x/tcp/y and no more.
func (t *Transport) CanDial(a ma.Multiaddr) bool {
	_, err := addrPort(a)
	return err == nil
}

func (t *Transport) String() string { return "memnet" }

// Dial takes one round trip, and DialTimeout when nobody answers.
func (t *Transport) Dial(ctx context.Context, raddr ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	to, err := addrPort(raddr)
	if err != nil {
		return nil, fmt.Errorf("memnet: dial %s: %w", raddr, err)
	}
	scope, err := t.rcmgr.OpenConnection(network.DirOutbound, false, raddr)
	if err != nil {
		return nil, err
	}
	c, err := t.dial(ctx, to, p, scope)
	if err != nil {
		scope.Done()
		return nil, fmt.Errorf("memnet: dial %s: %w", raddr, err)
	}
	return c, nil
}

func (t *Transport) dial(ctx context.Context, to netip.AddrPort, p peer.ID, scope network.ConnManagementScope) (*conn, error) {
	if err := scope.SetPeer(p); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.net.cfg.DialTimeout, ErrTimeout)
	defer cancel()
	here := t.node.addr
	if err := wait(ctx, t.net.latency(here, to.Addr())); err != nil {
		return nil, err
	}
	l, err := t.net.answer(here, to)
	if errors.Is(err, ErrTimeout) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if err != nil {
		if werr := wait(ctx, t.net.latency(to.Addr(), here)); werr != nil {
			return nil, werr
		}
		return nil, err
	}
	if p != "" && l.t.id != p {
		return nil, sec.ErrPeerIDMismatch{Expected: p, Actual: l.t.id}
	}
	c, err := l.offer(t, scope)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, t.net.latency(to.Addr(), here)); err != nil {
		c.abandon()
		return nil, err
	}
	if t.gater != nil && !t.gater.InterceptSecured(network.DirOutbound, c.remote().t.id, c) {
		c.abandon()
		return nil, fmt.Errorf("the connection gater refused peer %s", c.remote().t.id)
	}
	return c, nil
}

// answer finds the listener that a SYN to addr reaches.
func (n *Network) answer(from netip.Addr, to netip.AddrPort) (*listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	me := n.nodes[from]
	nd := n.nodes[to.Addr()]
	if n.closed || me == nil || me.dead || nd == nil || nd.dark || n.severed(from, to.Addr()) {
		return nil, ErrTimeout
	}
	l := nd.listeners[to.Port()]
	if l == nil {
		return nil, ErrRefused
	}
	return l, nil
}

// Listen takes the node's own address, 0.0.0.0 for the same, and port 0 for any.
func (t *Transport) Listen(laddr ma.Multiaddr) (transport.Listener, error) {
	a, err := addrPort(laddr)
	if err != nil {
		return nil, fmt.Errorf("memnet: listen %s: %w", laddr, err)
	}
	if a.Addr().IsUnspecified() {
		a = netip.AddrPortFrom(t.node.addr, a.Port())
	}
	if a.Addr() != t.node.addr {
		return nil, fmt.Errorf("memnet: listen %s: this node's address is %v", laddr, t.node.addr)
	}
	n := t.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || t.node.dead {
		return nil, fmt.Errorf("memnet: listen %s: the node is stopped", laddr)
	}
	if a.Port() == 0 {
		port, ok := t.node.freePort()
		if !ok {
			return nil, fmt.Errorf("memnet: listen %s: no port is free", laddr)
		}
		a = netip.AddrPortFrom(a.Addr(), port)
	}
	if t.node.listeners[a.Port()] != nil {
		return nil, fmt.Errorf("memnet: listen %s: the port is taken", laddr)
	}
	l := &listener{t: t, addr: a, conns: make(chan *conn, listenBacklog), done: make(chan struct{})}
	t.node.listeners[a.Port()] = l
	n.open[l] = struct{}{}
	return l, nil
}

// freePort is called with the network's lock held.
func (nd *node) freePort() (uint16, bool) {
	for range 1 << 16 {
		p := nd.nextPort
		nd.nextPort++
		if nd.nextPort < firstPort {
			nd.nextPort = firstPort
		}
		if nd.listeners[p] == nil {
			return p, true
		}
	}
	return 0, false
}

type listener struct {
	t     *Transport
	addr  netip.AddrPort
	conns chan *conn
	done  chan struct{} // closed under the network's lock by shut
}

// offer makes the connection and queues its far end for Accept.
func (l *listener) offer(from *Transport, scope network.ConnManagementScope) (*conn, error) {
	n := l.t.net
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-l.done:
		return nil, ErrRefused
	default:
	}
	if len(l.conns) == cap(l.conns) {
		return nil, fmt.Errorf("%w: its backlog is full", ErrRefused)
	}
	port, ok := from.node.freePort()
	if !ok {
		return nil, errors.New("no local port is free")
	}
	k := newLink(n, from, netip.AddrPortFrom(from.node.addr, port), l.t, l.addr)
	k.ends[0].scope = scope
	n.links[k] = struct{}{}
	l.conns <- &k.ends[1]
	return &k.ends[0], nil
}

// Accept blocks until a connection that the gater and the resource manager
// allow, or until Close.
func (l *listener) Accept() (transport.CapableConn, error) {
	for {
		select {
		case <-l.done:
			return nil, transport.ErrListenerClosed
		case c := <-l.conns:
			if err := l.admit(c); err != nil {
				c.Close()
				continue
			}
			return c, nil
		}
	}
}

func (l *listener) admit(c *conn) error {
	if g := l.t.gater; g != nil {
		if !g.InterceptAccept(c) || !g.InterceptSecured(network.DirInbound, c.RemotePeer(), c) {
			return errors.New("memnet: the connection gater refused")
		}
	}
	scope, err := l.t.rcmgr.OpenConnection(network.DirInbound, false, c.RemoteMultiaddr())
	if err != nil {
		return err
	}
	if err := scope.SetPeer(c.RemotePeer()); err != nil {
		scope.Done()
		return err
	}
	c.link.mu.Lock()
	c.scope = scope
	gone := c.closed
	c.link.mu.Unlock()
	if gone {
		scope.Done()
		return errors.New("memnet: closed before it was accepted")
	}
	return nil
}

func (l *listener) Close() error {
	l.shut()
	return nil
}

// shut ends Accept and whatever waits in the backlog.
func (l *listener) shut() {
	n := l.t.net
	n.mu.Lock()
	select {
	case <-l.done:
		n.mu.Unlock()
		return
	default:
		close(l.done)
	}
	delete(n.open, l)
	if l.t.node.listeners[l.addr.Port()] == l {
		delete(l.t.node.listeners, l.addr.Port())
	}
	n.mu.Unlock()
	for {
		select {
		case c := <-l.conns:
			c.Close()
		default:
			return
		}
	}
}

func (l *listener) Addr() net.Addr          { return net.TCPAddrFromAddrPort(l.addr) }
func (l *listener) Multiaddr() ma.Multiaddr { return multiaddr(l.addr) }

// wait is one-way travel, ended early by ctx.
func wait(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func addrPort(a ma.Multiaddr) (netip.AddrPort, error) {
	if len(a) != 2 || a[0].Protocol().Code != ma.P_IP4 || a[1].Protocol().Code != ma.P_TCP {
		return netip.AddrPort{}, errors.New("want /ip4/ADDRESS/tcp/PORT")
	}
	na, err := manet.ToNetAddr(a)
	if err != nil {
		return netip.AddrPort{}, err
	}
	tcp, ok := na.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%s is not a TCP address", na)
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}
