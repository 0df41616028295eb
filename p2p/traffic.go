package p2p

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"
)

// traffic counts the bytes of streams by protocol, for the metric
// kith_p2p_stream_bytes_total. What TLS, the multiplexer, TCP and IP add is not
// in it. It keeps nothing by peer: libp2p's own counter does, for as many peers
// as there ever were.
type traffic struct {
	prefix string // of our protocol IDs, cut off in labels
	desc   *prometheus.Desc
	byID   sync.Map // protocol.ID to *flow
	known  atomic.Int32
	rest   flow
}

type flow struct{ in, out atomic.Int64 }

// maxFlows bounds the protocols that are told apart. Before a stream's protocol is
// agreed on its bytes count under none, so only what we speak gets here.
const maxFlows = 64

func newTraffic(prefix string) *traffic {
	return &traffic{prefix: prefix, desc: prometheus.NewDesc("kith_p2p_stream_bytes_total",
		"Bytes of streams, by protocol and direction, without what encryption, multiplexer and TCP add.", []string{"protocol", "direction"}, nil)}
}

func (t *traffic) of(id protocol.ID) *flow {
	if f, ok := t.byID.Load(id); ok {
		return f.(*flow)
	}
	if t.known.Load() >= maxFlows {
		return &t.rest
	}
	f, had := t.byID.LoadOrStore(id, &flow{})
	if !had {
		t.known.Add(1)
	}
	return f.(*flow)
}

func (t *traffic) LogSentMessage(int64) {}
func (t *traffic) LogRecvMessage(int64) {}

func (t *traffic) LogSentMessageStream(n int64, id protocol.ID, _ peer.ID) { t.of(id).out.Add(n) }
func (t *traffic) LogRecvMessageStream(n int64, id protocol.ID, _ peer.ID) { t.of(id).in.Add(n) }

// The rest of metrics.Reporter is for readers that we don't have.
func (t *traffic) GetBandwidthForPeer(peer.ID) metrics.Stats             { return metrics.Stats{} }
func (t *traffic) GetBandwidthForProtocol(protocol.ID) metrics.Stats     { return metrics.Stats{} }
func (t *traffic) GetBandwidthTotals() metrics.Stats                     { return metrics.Stats{} }
func (t *traffic) GetBandwidthByPeer() map[peer.ID]metrics.Stats         { return nil }
func (t *traffic) GetBandwidthByProtocol() map[protocol.ID]metrics.Stats { return nil }
func (t *traffic) Reset()                                                {}
func (t *traffic) TrimIdle(time.Time)                                    {}

// Describe and Collect make it a prometheus.Collector.
func (t *traffic) Describe(c chan<- *prometheus.Desc) { c <- t.desc }

func (t *traffic) Collect(c chan<- prometheus.Metric) {
	tell := func(name string, f *flow) {
		c <- prometheus.MustNewConstMetric(t.desc, prometheus.CounterValue, float64(f.in.Load()), name, "in")
		c <- prometheus.MustNewConstMetric(t.desc, prometheus.CounterValue, float64(f.out.Load()), name, "out")
	}
	t.byID.Range(func(id, f any) bool {
		name := strings.TrimPrefix(string(id.(protocol.ID)), t.prefix)
		if name == "" {
			name = "negotiation" // before the two sides have agreed on one
		}
		tell(name, f.(*flow))
		return true
	})
	tell("others", &t.rest)
}
