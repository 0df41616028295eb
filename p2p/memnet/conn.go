package memnet

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
)

var errSilent = errors.New("memnet: the other side stopped answering")

// held is the arrival of what a cut holds back.
var held = time.Unix(1<<40, 0)

// link is one connection: two ends under one lock.
type link struct {
	net  *Network
	mu   sync.Mutex
	ends [2]conn
	cut  bool

	silence *time.Timer // ends a link that is cut
	fate    *time.Timer // tells the survivor of a killed end
}

// conn is one side. Its fields and those of its streams are the link's.
type conn struct {
	link *link
	side int
	t    *Transport
	addr netip.AddrPort

	scope   network.ConnManagementScope
	closed  bool
	err     error     // why, once closed
	gone    time.Time // when this side learns that the other closed
	goneErr error
	last    time.Time // latest arrival at this side: none overtakes it
	queue   []opening // streams that the other side opened
	streams map[*stream]struct{}
	sent    Count
	wake    waker
}

type opening struct {
	s  *stream
	at time.Time
}

var _ transport.CapableConn = (*conn)(nil)

func newLink(n *Network, a *Transport, aAddr netip.AddrPort, b *Transport, bAddr netip.AddrPort) *link {
	l := &link{net: n}
	for i, t := range []*Transport{a, b} {
		c := &l.ends[i]
		c.link, c.side, c.t, c.streams = l, i, t, map[*stream]struct{}{}
		c.wake.mu = &l.mu
	}
	l.ends[0].addr, l.ends[1].addr = aAddr, bAddr
	return l
}

func (c *conn) remote() *conn { return &c.link.ends[1-c.side] }

// arrive books size bytes from c and tells when they reach the other side.
func (c *conn) arrive(size int) time.Time {
	l, to := c.link, c.remote()
	at := held
	if !l.cut {
		at = l.net.depart(c.t.node, size, time.Now()).Add(l.net.latency(c.addr.Addr(), to.addr.Addr()))
	}
	if at.Before(to.last) {
		at = to.last
	}
	to.last = at
	return at
}

// broken is why this side can't be used at now, or nil.
func (c *conn) broken(now time.Time) error {
	switch {
	case c.closed:
		return c.err
	case reached(c.gone, now):
		return c.goneErr
	}
	return nil
}

// OpenStream blocks only while the other side has acceptBacklog streams waiting.
func (c *conn) OpenStream(ctx context.Context) (network.MuxedStream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l, r := c.link, c.remote()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := c.broken(time.Now()); err != nil {
		return nil, err
	}
	if len(r.queue) >= acceptBacklog {
		stop := context.AfterFunc(ctx, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			c.wake.all()
		})
		defer stop()
		for len(r.queue) >= acceptBacklog {
			c.wake.wait(c.gone)
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := c.broken(time.Now()); err != nil {
				return nil, err
			}
		}
	}
	number := l.net.opened.Add(1)
	s, p := &stream{c: c, number: number, opener: true}, &stream{c: r, number: number}
	s.peer, p.peer = p, s
	s.wake.mu, p.wake.mu = &l.mu, &l.mu
	c.streams[s] = struct{}{}
	r.streams[p] = struct{}{}
	at := c.arrive(0)
	r.queue = append(r.queue, opening{p, at})
	r.wake.poke(at)
	return s, nil
}

func (c *conn) AcceptStream() (network.MuxedStream, error) {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		now := time.Now()
		if err := c.broken(now); err != nil {
			return nil, err
		}
		next := c.gone
		if len(c.queue) > 0 {
			head := c.queue[0]
			if reached(head.at, now) {
				c.queue[0] = opening{}
				c.queue = c.queue[1:]
				if len(c.queue) == acceptBacklog-1 {
					c.remote().wake.all()
				}
				return head.s, nil
			}
			next = earliest(next, head.at)
		}
		c.wake.wait(next)
	}
}

// Close ends this side now, and the other one latency later.
func (c *conn) Close() error { return c.CloseWithError(network.ConnNoError) }

func (c *conn) CloseWithError(code network.ConnErrorCode) error {
	l := c.link
	l.mu.Lock()
	if c.closed {
		l.mu.Unlock()
		return nil
	}
	c.remote().leave(c.arrive(0), &network.ConnError{Remote: true, ErrorCode: code})
	scope := c.fail(&network.ConnError{ErrorCode: code})
	l.mu.Unlock()
	if scope != nil {
		scope.Done()
	}
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	l.forget()
	return nil
}

// abandon is Close by a dial that failed after all; the dial ends the scope.
func (c *conn) abandon() {
	c.link.mu.Lock()
	c.scope = nil
	c.link.mu.Unlock()
	c.Close()
}

// leave says that this side is to learn at a time that the other is gone.
func (c *conn) leave(at time.Time, err error) {
	if !c.gone.IsZero() && !at.Before(c.gone) {
		return
	}
	c.gone, c.goneErr = at, err
	c.wake.poke(at)
	for s := range c.streams {
		s.wake.poke(at)
	}
}

// fail ends this side, wakes what waits on it, and returns the scope to end.
func (c *conn) fail(err error) network.ConnManagementScope {
	c.closed, c.err = true, err
	scope := c.scope
	c.scope, c.queue = nil, nil
	c.wake.all()
	for s := range c.streams {
		s.in, s.head = nil, 0
		s.wake.all()
	}
	return scope
}

// setCut holds or frees what is under way. The network's lock is held.
func (l *link) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut == cut {
		return
	}
	l.cut = cut
	now := time.Now()
	for i := range l.ends {
		c := &l.ends[i]
		if cut {
			c.remap(func(t time.Time) time.Time {
				if t.After(now) {
					return held
				}
				return t
			})
			continue
		}
		again := now.Add(l.net.latency(c.remote().addr.Addr(), c.addr.Addr()))
		c.remap(func(t time.Time) time.Time {
			if t.Equal(held) {
				return again
			}
			return t
		})
	}
	if !cut {
		l.silence.Stop()
		return
	}
	l.silence = time.AfterFunc(l.net.cfg.Silence, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.cut {
			return
		}
		for i := range l.ends {
			l.ends[i].leave(time.Now(), &network.ConnError{TransportError: errSilent})
		}
	})
}

// remap changes every arrival at this side.
func (c *conn) remap(f func(time.Time) time.Time) {
	if !c.gone.IsZero() {
		c.gone = f(c.gone)
	}
	c.last = f(c.last)
	for i := range c.queue {
		c.queue[i].at = f(c.queue[i].at)
	}
	c.wake.all()
	for s := range c.streams {
		s.remap(f)
	}
}

// kill ends c without a word; the other side learns of it after a silence, or
// for a silence of 0 by a reset that takes one latency. The network's lock is held.
func (l *link) kill(c *conn, silence time.Duration) {
	l.mu.Lock()
	var scope network.ConnManagementScope
	if !c.closed {
		scope = c.fail(&network.ConnError{TransportError: errors.New("memnet: this node was stopped")})
	}
	r := c.remote()
	if silence == 0 {
		at := held
		if !l.cut {
			at = time.Now().Add(l.net.latency(c.addr.Addr(), r.addr.Addr()))
		}
		r.leave(at, &network.ConnError{Remote: true, TransportError: errors.New("memnet: connection reset by the other machine")})
	} else if l.fate == nil {
		l.fate = time.AfterFunc(silence, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			r.leave(time.Now(), &network.ConnError{TransportError: errSilent})
		})
	}
	l.mu.Unlock()
	if scope != nil {
		scope.Done()
	}
	l.forget()
}

// end closes both sides at once.
func (l *link) end() {
	l.ends[0].Close()
	l.ends[1].Close()
}

// forget drops a link whose sides are both closed. The network's lock is held.
func (l *link) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.net.links[l]; !ok || !l.ends[0].closed || !l.ends[1].closed {
		return
	}
	delete(l.net.links, l)
	l.count(l.net.counts)
	for _, t := range []*time.Timer{l.silence, l.fate} {
		if t != nil {
			t.Stop()
		}
	}
}

func (l *link) addCounts(to map[Pair]Count, reset bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count(to)
	if reset {
		l.ends[0].sent, l.ends[1].sent = Count{}, Count{}
	}
}

func (l *link) count(to map[Pair]Count) {
	for i := range l.ends {
		c := &l.ends[i]
		p := Pair{c.addr.Addr(), c.remote().addr.Addr()}
		sum := to[p]
		sum.add(c.sent)
		if sum != (Count{}) {
			to[p] = sum
		}
	}
}

func (c *conn) IsClosed() bool {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	return c.broken(time.Now()) != nil
}

func (c *conn) As(any) bool                    { return false }
func (c *conn) Transport() transport.Transport { return c.t }
func (c *conn) LocalPeer() peer.ID             { return c.t.id }
func (c *conn) RemotePeer() peer.ID            { return c.remote().t.id }
func (c *conn) RemotePublicKey() crypto.PubKey { return c.remote().t.key }
func (c *conn) LocalMultiaddr() ma.Multiaddr   { return multiaddr(c.addr) }
func (c *conn) RemoteMultiaddr() ma.Multiaddr  { return multiaddr(c.remote().addr) }

func (c *conn) ConnState() network.ConnectionState {
	return network.ConnectionState{StreamMultiplexer: "/memnet", Security: "/memnet", Transport: "tcp"}
}

func (c *conn) Scope() network.ConnScope {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.scope == nil {
		return &network.NullScope{}
	}
	return c.scope
}
