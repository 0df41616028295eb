package market

import (
	"context"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/wire"
)

// benchInbox bounds the offers that wait to be looked at, a quarter of them of one
// origin.
const benchInbox = 1024

// offerBytes is the most that one of them takes.
const offerBytes = wire.MaxOffer

// hear takes an offer. With no answer wanted it may be dropped: there are more.
func (b *bench) hear(origin peer.ID, o tasks.Offer, answer chan<- []tasks.WorkerEffect) bool {
	s := b.s
	if !b.inbox.room(benchInbox, idOf(origin), offerBytes) {
		return false // before anything is looked up for it
	}
	ev := tasks.OfferIn{Offer: o, Able: s.able(o), Probe: answer != nil}
	var ok bool
	if ev.RTT, ok = s.rtt(origin); !ok {
		ev.RTT = s.host.Distance(o.Coord)
	}
	return b.inbox.offer(benchInbox, idOf(origin), offerBytes, benchEvent{ev: ev, answer: answer})
}

// able is this node's own filter: what it runs and what its owner allows. What of
// that the limits say, the machine asks itself.
func (s *Service) able(o tasks.Offer) tasks.Reason {
	switch {
	case !slices.Contains(s.cfg.Kinds, o.Kind):
		return tasks.WorkerLacks
	case s.cfg.Room() != nil:
		return tasks.WorkerFull
	case s.cfg.Allow != nil:
		return s.cfg.Allow(o)
	}
	return tasks.OK
}

// cached looks up whether all of some roots are here. It is asked for what is bid
// for alone, so that offers cost no look at the store.
func (s *Service) cached(roots []tasks.CID) bool {
	ctx, ok := s.crew.enter()
	if !ok {
		return false
	}
	defer s.crew.leave()
	for _, root := range roots {
		if !s.cfg.Data.Cached(ctx, root) {
			return false
		}
	}
	return true
}

// SetLimits changes what the device gives: slots, memory, pause. Tasks that run
// go on.
func (s *Service) SetLimits(l tasks.SetLimits) {
	s.mu.Lock()
	s.cfg.Limits = l
	s.mu.Unlock()
	if s.bench != nil {
		s.bench.push(l)
	}
}

// Limits is what SetLimits said last.
func (s *Service) Limits() tasks.SetLimits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Limits
}

// bid tells an origin what this node would take. One that does not arrive is
// not repeated: the offer comes again.
func (b *bench) bid(ctx context.Context, f tasks.SendBid) {
	f.Bid.Cached = b.s.cached(f.Reads)
	req, err := wire.MarshalBid(f.Bid)
	if err != nil {
		b.s.log.Error("bid not encoded", "err", err)
		return
	}
	id, err := peerOf(f.To)
	if err != nil {
		b.s.log.Error("bid for no peer", "err", err)
		return
	}
	if id == b.s.host.ID() {
		_, err = b.s.serveBid(ctx, id, req)
	} else {
		b.s.metrics.sent("bid")
		_, err = b.s.host.Call(ctx, id, bidProtocol, req)
	}
	if err != nil && ctx.Err() == nil {
		b.s.log.Debug("bid not taken", "job", f.Bid.Job, "peer", id, "err", err)
	}
}
