package p2p

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/p2p/coord"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ErrStranger says that a peer has shown no valid token.
var ErrStranger = errors.New("the peer is not a member of this mesh")

// strangerMost is how long a stranger who is being served may stay, unless
// KeepStrangers says otherwise.
const strangerMost = 30 * time.Second

// expelAfter is how long one who was a member stays connected.
const expelAfter = time.Second

// gate knows who of the connected peers is a member. Every connection begins
// with hello; a peer without one is a stranger, and soon closed.
type gate struct {
	h *Host

	mu        sync.Mutex
	peers     map[peer.ID]*passage
	strangers int // inbound passages that are not members
	queue     []memberEvent
	wake      chan struct{} // holds one when queue is not empty
	refused   map[peer.ID]verdict
	troubles  troubles
	old       map[peer.ID]struct{} // members of now and before, at most maxOld

	watchers []func(peer.ID, bool)
	keepers  []func(peer.ID) bool
}

// verdict outlives the connection that it ended, for whoever was about to wait
// for it.
type verdict struct {
	why error
	at  time.Time
}

const (
	keepVerdict = 10 * time.Second
	maxVerdicts = 256
	maxOld      = 1024
)

// passage is one connected peer's state. It goes from waiting to member or
// stranger; a stranger may still become a member.
type passage struct {
	inbound bool
	done    chan struct{} // closed when waiting ends
	settled bool
	member  bool
	why     error // for a stranger

	token    auth.Token
	grant    auth.Grant
	agent    string
	capacity Capacity
	ahead    time.Duration // its clock before ours, when it said hello
	coord    coord.Coordinate
	since    time.Time
}

func (p *passage) settle() {
	if !p.settled {
		p.settled = true
		close(p.done)
	}
}

type memberEvent struct {
	id     peer.ID
	joined bool
}

func newGate(h *Host) *gate {
	return &gate{h: h, peers: map[peer.ID]*passage{}, refused: map[peer.ID]verdict{}, old: map[peer.ID]struct{}{}, wake: make(chan struct{}, 1)}
}

func (g *gate) start() {
	g.h.raw.Network().Notify(&network.NotifyBundle{ConnectedF: g.connected, DisconnectedF: g.disconnected})
}

// OnMember calls f, in order, for each peer that becomes a member or ceases to
// be a connected one. f must not block. Call it before Run.
func (h *Host) OnMember(f func(id peer.ID, joined bool)) {
	h.gate.mu.Lock()
	defer h.gate.mu.Unlock()
	h.gate.watchers = append(h.gate.watchers, f)
}

// KeepStrangers asks f before a stranger is closed: true keeps it for another
// StrangerTime, because something public is being moved to or from it.
func (h *Host) KeepStrangers(f func(peer.ID) bool) {
	h.gate.mu.Lock()
	defer h.gate.mu.Unlock()
	h.gate.keepers = append(h.gate.keepers, f)
}

func (g *gate) connected(_ network.Network, c network.Conn) {
	id, outbound := c.RemotePeer(), c.Stat().Direction == network.DirOutbound
	met := g.h.book.knows(id)
	g.mu.Lock()
	if _, ok := g.old[id]; ok {
		met = true
	}
	p := g.peers[id]
	fresh := p == nil
	if fresh {
		// Strangers who take all places can't keep out who was a member before.
		if !outbound && !met && g.strangers >= g.h.cfg.MaxStrangers {
			g.mu.Unlock()
			g.h.metrics.turnedAway()
			go0(g.h, func() { _ = c.CloseWithError(network.ConnResourceLimitExceeded) })
			return
		}
		p = g.add(id, !outbound)
	}
	g.mu.Unlock()
	if outbound {
		g.h.tasks.spawn(func(ctx context.Context) { g.greet(ctx, id) })
	}
	if fresh {
		g.h.tasks.spawn(func(ctx context.Context) { g.watch(ctx, id, p) })
	}
}

func (g *gate) add(id peer.ID, inbound bool) *passage {
	p := &passage{inbound: inbound, done: make(chan struct{})}
	g.peers[id] = p
	if inbound {
		g.strangers++
	}
	return p
}

func (g *gate) disconnected(_ network.Network, c network.Conn) { g.reap(c.RemotePeer()) }

// reap forgets a peer that has no connection left.
func (g *gate) reap(id peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.peers[id]
	if p == nil || len(g.h.raw.Network().ConnsToPeer(id)) > 0 {
		return
	}
	delete(g.peers, id)
	if p.inbound && !p.member {
		g.strangers--
	}
	if p.member {
		g.notify(id, false)
	}
	p.member = false
	if p.why == nil {
		p.why = network.ErrNoConn
	}
	p.settle()
}

// notify queues an event; deliver passes them on outside the lock, in order.
func (g *gate) notify(id peer.ID, joined bool) {
	g.queue = append(g.queue, memberEvent{id, joined})
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *gate) deliver(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.wake:
		}
		g.mu.Lock()
		events, watchers := g.queue, g.watchers
		g.queue = nil
		g.mu.Unlock()
		for _, e := range events {
			for _, f := range watchers {
				f(e.id, e.joined)
			}
		}
	}
}

// watch waits for hello, and closes the peer that has not become a member in
// time.
func (g *gate) watch(ctx context.Context, id peer.ID, p *passage) {
	timer := time.NewTimer(StrangerTime)
	defer timer.Stop()
	for begun := time.Now(); ; timer.Reset(StrangerTime) {
		select {
		case <-ctx.Done():
			return
		case <-p.done:
			g.mu.Lock()
			member, gone := p.member, g.peers[id] != p
			g.mu.Unlock()
			if member || gone {
				return
			}
			select { // a stranger: it has what is left of its time
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		case <-timer.C:
		}
		g.mu.Lock()
		member, gone := p.member, g.peers[id] != p
		if !member && !gone {
			if p.why == nil {
				p.why = fmt.Errorf("%w: it did not say hello within %s", ErrStranger, StrangerTime)
			}
			p.settle()
		}
		keepers := g.keepers
		g.mu.Unlock()
		if member || gone {
			return
		}
		kept := time.Since(begun) < strangerMost && g.served(id)
		for _, keep := range keepers {
			kept = kept || keep(id)
		}
		if !kept {
			g.h.metrics.strangerClosed()
			g.h.log.Debug("closing a stranger", "peer", id, "why", p.why)
			_ = g.h.raw.Network().ClosePeer(id)
			return
		}
	}
}

// served reports whether one of the protocols that strangers may use is open.
func (g *gate) served(id peer.ID) bool {
	for _, c := range g.h.raw.Network().ConnsToPeer(id) {
		for _, s := range c.GetStreams() {
			if p, ok := g.h.protos.get(s.Protocol()); ok && p.Open || s.Protocol() == hopProtocol {
				return true
			}
		}
	}
	return false
}

const hopProtocol = "/libp2p/circuit/relay/0.2.0/hop"

// admit records a verified hello.
func (g *gate) admit(id peer.ID, hi hello, grant auth.Grant) {
	g.mu.Lock()
	p := g.peers[id]
	if p == nil {
		p = g.add(id, true)
	}
	if !p.member {
		if p.inbound {
			g.strangers--
		}
		p.member, p.since = true, g.h.now()
		g.notify(id, true)
	}
	if _, ok := g.old[id]; !ok && len(g.old) >= maxOld {
		for gone := range g.old {
			delete(g.old, gone)
			break
		}
	}
	g.old[id] = struct{}{}
	delete(g.refused, id)
	g.troubles.clear(id)
	p.token, p.grant, p.agent, p.why = hi.token, grant, hi.agent, nil
	p.capacity = hi.capacity
	p.ahead = hi.clock.Sub(g.h.now())
	if hi.coord.Valid() {
		p.coord = hi.coord
	}
	p.settle()
	g.mu.Unlock()
	g.reap(id) // it may have gone while its token was verified
	g.h.raw.ConnManager().TagPeer(id, "member", 20)
}

// refuse records why a peer is no member, and takes membership away from one
// that was.
func (g *gate) refuse(id peer.ID, why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.refused) >= maxVerdicts {
		clear(g.refused)
	}
	g.refused[id] = verdict{why, time.Now()}
	g.troubles.note(id, why)
	p := g.peers[id]
	if p == nil {
		return
	}
	if p.member {
		p.member = false
		if p.inbound {
			g.strangers++
		}
		g.notify(id, false)
		g.h.tasks.spawn(func(ctx context.Context) { g.expel(ctx, id, p) })
	}
	p.why = why
	p.settle()
}

// expel closes a peer that was a member: the streams that it opened as one must
// not outlive that. It has the time to read why, or to say a better hello.
func (g *gate) expel(ctx context.Context, id peer.ID, p *passage) {
	timer := time.NewTimer(expelAfter)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	g.mu.Lock()
	stays := p.member || g.peers[id] != p
	g.mu.Unlock()
	if !stays {
		_ = g.h.raw.Network().ClosePeer(id)
	}
}

func (g *gate) isMember(id peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.peers[id]
	return p != nil && p.member
}

// wait blocks until a connected peer is known to be a member, at most
// StrangerTime, and says why it is not.
func (g *gate) wait(ctx context.Context, id peer.ID) error {
	g.mu.Lock()
	p := g.peers[id]
	if p == nil {
		defer g.mu.Unlock()
		if v, ok := g.refused[id]; ok && time.Since(v.at) < keepVerdict {
			return v.why
		}
		return network.ErrNoConn
	}
	if p.settled {
		defer g.mu.Unlock()
		return p.outcome()
	}
	g.mu.Unlock()
	timer := time.NewTimer(StrangerTime)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		return fmt.Errorf("%w: it did not say hello within %s", ErrStranger, StrangerTime)
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-g.h.tasks.ctx.Done():
		return context.Canceled
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return p.outcome()
}

func (p *passage) outcome() error {
	if p.member {
		return nil
	}
	if p.why == nil {
		return ErrStranger
	}
	return p.why
}
