package gossip

import (
	"sync/atomic"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"
)

// Stats counts since the start. Received is every copy of an offer that came
// in, so that its sum over all nodes is the number of transmissions.
type Stats struct {
	Published int64 // offers of our own
	Sent      int64 // copies of offers sent, our own and passed on
	Received  int64 // copies of offers that came in
	Repeated  int64 // of them, seen before
	Delivered int64 // offers taken, each once
	Outside   int64 // ignored: outside of the radius
	Limited   int64 // ignored: the origin sent too many, jobs included
	Stale     int64 // ignored: replayed or long past
	Forged    int64 // rejected
	Jobs      int64 // job messages delivered
}

// counts is Stats as it is counted.
type counts struct {
	published, sent, received, repeated, delivered, outside, limited, stale, forged, jobs atomic.Int64
}

// Stats reads the counters.
func (s *Service) Stats() Stats {
	c := &s.counts
	return Stats{
		Published: c.published.Load(), Sent: c.sent.Load(), Received: c.received.Load(), Repeated: c.repeated.Load(),
		Delivered: c.delivered.Load(), Outside: c.outside.Load(), Limited: c.limited.Load(), Stale: c.stale.Load(),
		Forged: c.forged.Load(), Jobs: c.jobs.Load(),
	}
}

func (c *counts) verdict(v verdict) {
	switch v {
	case outside:
		c.outside.Add(1)
	case limited:
		c.limited.Add(1)
	case stale:
		c.stale.Add(1)
	case forged:
		c.forged.Add(1)
	}
}

func (c *counts) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for name, m := range map[string]struct {
		help string
		v    *atomic.Int64
	}{
		"offers_published_total": {"Offers of this node.", &c.published},
		"offers_sent_total":      {"Copies of offers sent.", &c.sent},
		"offers_received_total":  {"Copies of offers that came in.", &c.received},
		"offers_repeated_total":  {"Copies of offers that were seen before.", &c.repeated},
		"offers_delivered_total": {"Offers taken.", &c.delivered},
		"offers_outside_total":   {"Offers ignored: outside of their radius.", &c.outside},
		"limited_total":          {"Messages ignored: their origin sent too many.", &c.limited},
		"offers_stale_total":     {"Offers ignored: replayed or long past.", &c.stale},
		"offers_forged_total":    {"Offers rejected: forged or malformed.", &c.forged},
		"jobs_delivered_total":   {"Messages of the jobs topic delivered.", &c.jobs},
	} {
		f := prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "kith", Subsystem: "gossip", Name: name, Help: m.help},
			func() float64 { return float64(m.v.Load()) })
		if err := r.Register(f); err != nil {
			return err
		}
	}
	return nil
}

// tracer counts what the offers' pubsub sends and gets.
type tracer struct{ c *counts }

func (t tracer) RecvRPC(rpc *pubsub.RPC) { t.c.received.Add(int64(len(rpc.GetPublish()))) }
func (t tracer) SendRPC(rpc *pubsub.RPC, _ peer.ID) {
	t.c.sent.Add(int64(len(rpc.GetPublish())))
}
func (t tracer) DuplicateMessage(*pubsub.Message)       { t.c.repeated.Add(1) }
func (tracer) OnNewOutboundStream(peer.ID, protocol.ID) {}
func (tracer) OnClosedOutboundStream(peer.ID)           {}
func (tracer) Join(string)                              {}
func (tracer) Leave(string)                             {}
func (tracer) Graft(peer.ID, string)                    {}
func (tracer) Prune(peer.ID, string)                    {}
func (tracer) ValidateMessage(*pubsub.Message)          {}
func (tracer) DeliverMessage(*pubsub.Message)           {}
func (tracer) RejectMessage(*pubsub.Message, string)    {}
func (tracer) ThrottlePeer(peer.ID)                     {}
func (tracer) DropRPC(*pubsub.RPC, peer.ID)             {}
func (tracer) UndeliverableMessage(*pubsub.Message)     {}

var _ pubsub.RawTracer = tracer{}
