package p2p

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kith-mesh/kith/p2p/coord"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The neighbourhood's protocols: an exchange of places and candidates, timed,
// and the agreement of links.
var (
	Meet = Protocol{Name: "meet", Version: "1.0.0", MaxMessage: 64 << 10, Deadline: 15 * time.Second, Streams: 8, Rate: 10, Burst: 40}
	Link = Protocol{Name: "link", Version: "1.0.0", MaxMessage: 256, Deadline: 15 * time.Second, Streams: 8, Rate: 5, Burst: 20}
)

const (
	neighbourTag = "neighbour" // protects a link's connection
	maxNews      = 64          // exchanges whose hints wait to be read
	// mostWorked bounds how much of a round trip a peer may call its own work:
	// a liar gains no more by it.
	mostWorked = 2 * time.Millisecond
)

// neighbourhood runs an overlay on a Host: it carries out its steps and serves
// the other side of them.
type neighbourhood struct {
	h    *Host
	poke chan struct{} // something changed: plan again
	news chan news

	mu        sync.Mutex // over all below
	o         *overlay
	told      int // version of the links that callbacks know
	callbacks []func([]Neighbour)
	protected map[peer.ID]bool
}

// news is what one peer hinted at.
type news struct {
	from  peer.ID
	hints []hint
}

func newNeighbourhood(h *Host, cfg NeighbourhoodConfig) *neighbourhood {
	n := &neighbourhood{
		h: h, poke: make(chan struct{}, 1), news: make(chan news, maxNews), protected: make(map[peer.ID]bool),
		o: newOverlay(h.id, cfg.withDefaults(), rand.New(rand.NewPCG(h.cfg.Seed, 0x6b697468))),
	}
	h.OnMember(n.member)
	h.Handle(Meet, n.serveMeet)
	h.Handle(Link, n.serveLink)
	return n
}

// with runs f on the overlay.
func (n *neighbourhood) with(f func(o *overlay, now time.Time)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n.o, time.Now())
}

func (n *neighbourhood) wake() {
	select {
	case n.poke <- struct{}{}:
	default:
	}
}

func (n *neighbourhood) member(id peer.ID, joined bool) {
	relayed, outbound := n.path(id)
	n.with(func(o *overlay, now time.Time) {
		if joined {
			o.joined(id, relayed, outbound, now)
		} else {
			o.left(id, now)
		}
	})
	n.wake()
}

// path tells whether every connection to a peer goes through a relay, and
// whether we dialled one.
func (n *neighbourhood) path(id peer.ID) (relayed, outbound bool) {
	conns := n.h.raw.Network().ConnsToPeer(id)
	relayed = len(conns) > 0 && !slices.ContainsFunc(conns, func(c network.Conn) bool { return !c.Stat().Limited })
	outbound = slices.ContainsFunc(conns, func(c network.Conn) bool { return c.Stat().Direction == network.DirOutbound })
	return relayed, outbound
}

// run plans and carries out until ctx ends; it returns when its last step has.
func (n *neighbourhood) run(ctx context.Context) {
	var steps sync.WaitGroup
	defer steps.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case got := <-n.news:
			n.learn(got)
			continue
		case <-timer.C:
		case <-n.poke:
		}
		var todo []step
		var wait time.Duration
		n.with(func(o *overlay, now time.Time) { todo, wait = o.plan(now) })
		for _, s := range todo {
			steps.Go(func() {
				n.do(ctx, s)
				n.with(func(o *overlay, _ time.Time) { o.done(s.id) })
				n.wake()
			})
		}
		n.tell()
		timer.Reset(wait)
	}
}

// tell protects the connections of the links and calls those who want to know,
// if the links changed. Only run calls it.
func (n *neighbourhood) tell() {
	n.mu.Lock()
	if n.told == n.o.version {
		n.mu.Unlock()
		return
	}
	n.told = n.o.version
	links, callbacks := n.o.neighbours(), slices.Clone(n.callbacks)
	n.mu.Unlock()
	manager, now := n.h.raw.ConnManager(), make(map[peer.ID]bool, len(links))
	for _, l := range links {
		now[l.ID] = true
		if !n.protected[l.ID] {
			manager.Protect(l.ID, neighbourTag)
		}
	}
	for id := range n.protected {
		if !now[id] {
			manager.Unprotect(id, neighbourTag)
		}
	}
	n.protected = now
	for _, f := range callbacks {
		f(slices.Clone(links))
	}
}

func (n *neighbourhood) do(ctx context.Context, s step) {
	if s.do == stepMeet || s.do == stepPropose {
		n.refresh(s.id)
	}
	switch s.do {
	case stepMeet:
		n.meet(ctx, s.id)
	case stepPropose:
		n.propose(ctx, s.id, s.as)
	case stepRelease:
		n.release(ctx, s.id)
	case stepHangUp:
		n.hangUp(s.id)
	}
}

// refresh has the addresses of a member that is not connected taken again: those
// that nobody confirmed lapse.
func (n *neighbourhood) refresh(id peer.ID) {
	var record []byte
	n.with(func(o *overlay, _ time.Time) {
		if c := o.known[id]; c != nil && !c.connected {
			record = c.record
		}
	})
	if len(record) == 0 {
		return
	}
	if _, err := n.h.Learn(record); err != nil {
		n.h.log.Debug("peer record not taken again", "peer", id, "err", err)
	}
}

// meet exchanges with a member, dialling it if need be, and times the trip. The
// first exchange on a connection also opens a stream: a ping is timed instead.
func (n *neighbourhood) meet(ctx context.Context, id peer.ID) {
	var warm bool
	var req []byte
	var err error
	n.with(func(o *overlay, now time.Time) {
		if c := o.known[id]; c != nil {
			warm = c.warm
		}
	})
	req, err = n.half(id, 0)
	if err != nil {
		n.h.log.Warn("exchange not written", "err", err)
		return
	}
	start := time.Now()
	answer, err := n.h.Call(ctx, id, Meet, req)
	took := time.Since(start)
	if err != nil {
		n.fail(ctx, id)
		return
	}
	m, err := parseMeet(answer)
	if err != nil {
		n.h.log.Warn("peer misbehaved", "peer", id, "protocol", Meet.Name, "err", err)
		n.fail(ctx, id)
		return
	}
	took -= min(m.worked, mostWorked, took/2)
	if !warm {
		start = time.Now()
		if _, err := n.h.Call(ctx, id, Meet, nil); err != nil {
			n.fail(ctx, id)
			return
		}
		took = time.Since(start)
	}
	n.take(id, m)
	n.with(func(o *overlay, now time.Time) {
		if c := o.known[id]; c != nil {
			c.warm = c.connected
			c.idle = now
		}
		o.timed(id, took, now)
		if !m.linked {
			o.disagreed(id, now)
		}
	})
	n.learn(news{from: id, hints: m.hints})
}

func (n *neighbourhood) fail(ctx context.Context, id peer.ID) {
	if ctx.Err() != nil {
		return
	}
	n.with(func(o *overlay, now time.Time) { o.failed(id, now) })
}

// half writes our half of an exchange with a peer.
func (n *neighbourhood) half(to peer.ID, worked time.Duration) ([]byte, error) {
	m := meet{capacity: n.h.Capacity(), worked: worked}
	record, err := n.h.Record()
	if err != nil {
		return nil, err
	}
	n.with(func(o *overlay, now time.Time) {
		m.coord = o.space.Coordinate()
		m.hints = o.hintsFor(to, now)
		if c := o.known[to]; c != nil {
			m.linked = c.linked()
			if !bytes.Equal(c.shown, record) {
				m.record, c.shown = record, record
			}
		}
	})
	return m.marshal(), nil
}

// take notes what a peer told of itself.
func (n *neighbourhood) take(from peer.ID, m meet) {
	record := m.record
	if len(record) > 0 {
		if id, err := n.h.Learn(record); err != nil || id != from {
			n.h.log.Debug("peer's own record not taken", "peer", from, "err", err)
			record = nil
		}
	}
	n.with(func(o *overlay, now time.Time) {
		o.met(from, m.coord, m.capacity, now)
		if c := o.known[from]; c != nil && len(record) > 0 {
			c.record = record
		}
	})
}

// learn verifies hints and takes them.
func (n *neighbourhood) learn(got news) {
	for _, hint := range got.hints {
		if len(hint.record) > 0 && !n.holds(hint) {
			id, err := n.h.Learn(hint.record)
			if err != nil || id != hint.id {
				n.h.log.Debug("hint not taken", "peer", got.from, "about", hint.id, "err", err)
				continue
			}
		}
		n.with(func(o *overlay, now time.Time) {
			o.hear(got.from, hint.id, hint.record, hint.coord, hint.age, now)
		})
	}
	n.wake()
}

// holds tells whether the very record was verified before.
func (n *neighbourhood) holds(h hint) (same bool) {
	n.with(func(o *overlay, _ time.Time) {
		c := o.known[h.id]
		same = c != nil && bytes.Equal(c.record, h.record)
	})
	return same
}

func (n *neighbourhood) serveMeet(_ context.Context, from peer.ID, req []byte) ([]byte, error) {
	start := time.Now()
	if len(req) == 0 {
		return nil, nil
	}
	m, err := parseMeet(req)
	if err != nil {
		return nil, Refuse(CodeMalformed, "%v", err)
	}
	n.take(from, m)
	n.with(func(o *overlay, now time.Time) {
		if !m.linked {
			o.disagreed(from, now)
		}
	})
	select {
	case n.news <- news{from: from, hints: m.hints}:
	default: // more than we can read: others will tell again
	}
	return n.half(from, time.Since(start))
}

func (n *neighbourhood) propose(ctx context.Context, id peer.ID, as want) {
	req := linkRequest{action: linkPropose, far: as == wantFar}
	b, err := n.h.Call(ctx, id, Link, req.marshal())
	if err != nil {
		n.fail(ctx, id)
		return
	}
	answer, err := parseLinkAnswer(b)
	if err != nil {
		n.h.log.Warn("peer misbehaved", "peer", id, "protocol", Link.Name, "err", err)
		n.fail(ctx, id)
		return
	}
	n.with(func(o *overlay, now time.Time) { o.agreed(id, as, answer.linked, answer.retry, now) })
}

func (n *neighbourhood) release(ctx context.Context, id peer.ID) {
	b, err := n.h.Call(ctx, id, Link, linkRequest{action: linkRelease}.marshal())
	var answer linkAnswer
	if err == nil {
		answer, err = parseLinkAnswer(b)
	}
	// Untold or not, the link is over for us; the next exchange tells the other.
	n.with(func(o *overlay, _ time.Time) { o.letGo(id, err == nil && answer.linked) })
}

func (n *neighbourhood) serveLink(ctx context.Context, from peer.ID, req []byte) ([]byte, error) {
	r, err := parseLinkRequest(req)
	if err != nil {
		return nil, Refuse(CodeMalformed, "%v", err)
	}
	var answer linkAnswer
	var displaced peer.ID
	n.with(func(o *overlay, now time.Time) {
		switch r.action {
		case linkPropose:
			answer.linked, answer.retry, displaced = o.proposed(from, r.far, now)
		case linkRelease:
			answer.linked = o.released(from)
		case linkEnd:
			o.ended(from, now)
		}
	})
	if displaced != "" {
		// The handler's time is ours to spend; the displaced learns from the next
		// exchange if this fails.
		if _, err := n.h.Call(ctx, displaced, Link, linkRequest{action: linkEnd}.marshal()); err != nil {
			n.h.log.Debug("end of link not told", "peer", displaced, "err", err)
		}
	}
	n.wake()
	return answer.marshal(), nil
}

// hangUp closes connections that were made to measure, unless somebody else
// came to use them.
func (n *neighbourhood) hangUp(id peer.ID) {
	idle := []string{
		string(Meet.ID(n.h.cfg.Mesh)), string(Link.ID(n.h.cfg.Mesh)),
		"/kith/" + n.h.cfg.Mesh.Prefix() + "/hello/", "/kith/" + n.h.cfg.Mesh.Prefix() + "/gossip/",
		"/kith/" + n.h.cfg.Mesh.Prefix() + "/kad/", "/ipfs/id/", "/ipfs/ping/",
	}
	for _, c := range n.h.raw.Network().ConnsToPeer(id) {
		for _, s := range c.GetStreams() {
			name := string(s.Protocol())
			if !slices.ContainsFunc(idle, func(p string) bool { return strings.HasPrefix(name, p) }) {
				n.with(func(o *overlay, _ time.Time) {
					if k := o.known[id]; k != nil {
						k.idle = time.Now() // in use: look again later
					}
				})
				return
			}
		}
	}
	if err := n.h.raw.Network().ClosePeer(id); err != nil {
		n.h.log.Debug("connection not closed", "peer", id, "err", err)
	}
}

// know brings a member into the table whose record was verified: from the peer
// cache, an invite or a lookup.
func (n *neighbourhood) know(id peer.ID, record []byte) {
	n.with(func(o *overlay, now time.Time) {
		o.hear("", id, record, coord.Coordinate{}, 0, now)
	})
	n.wake()
}
