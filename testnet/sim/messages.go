package sim

import (
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Messages counts what a node wrote to streams, by the name of our protocols
// ("task/bid"; what is not ours by its whole ID). A frame of ours is one write.
// It is the metrics.Reporter of the node's host.
type Messages struct {
	mu   sync.Mutex
	sent map[string]Sent
}

// Sent is what went by one protocol.
type Sent struct{ Messages, Bytes int64 }

var _ metrics.Reporter = (*Messages)(nil)

// LogSentMessageStream counts.
func (m *Messages) LogSentMessageStream(size int64, p protocol.ID, _ peer.ID) {
	name := string(p)
	if rest, ok := strings.CutPrefix(name, "/kith/"); ok { // <mesh>/<name>/<version>
		_, rest, _ = strings.Cut(rest, "/")
		name = rest[:max(strings.LastIndexByte(rest, '/'), 0)]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sent == nil {
		m.sent = map[string]Sent{}
	}
	s := m.sent[name]
	s.Messages++
	s.Bytes += size
	m.sent[name] = s
}

// By is what was sent so far.
func (m *Messages) By() map[string]Sent {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.sent)
}

// The rest of metrics.Reporter, of which nothing is kept.
func (*Messages) LogSentMessage(int64)                                  {}
func (*Messages) LogRecvMessage(int64)                                  {}
func (*Messages) LogRecvMessageStream(int64, protocol.ID, peer.ID)      {}
func (*Messages) GetBandwidthForPeer(peer.ID) (s metrics.Stats)         { return s }
func (*Messages) GetBandwidthForProtocol(protocol.ID) (s metrics.Stats) { return s }
func (*Messages) GetBandwidthTotals() (s metrics.Stats)                 { return s }
func (*Messages) GetBandwidthByPeer() map[peer.ID]metrics.Stats         { return nil }
func (*Messages) GetBandwidthByProtocol() map[protocol.ID]metrics.Stats { return nil }
func (*Messages) Reset()                                                {}
func (*Messages) TrimIdle(time.Time)                                    {}

// Traffic is what jobs cost a mesh in messages.
type Traffic struct {
	Offers int64 // copies of offers that were delivered by gossip or directly
	Task   int64 // stream messages of bids, probes, leases and reports, both ways
	Jobs   int64 // the same of published jobs
	Blocks int64 // bytes of blocks
}

// Sub is what was added since an earlier count.
func (t Traffic) Sub(before Traffic) Traffic {
	return Traffic{t.Offers - before.Offers, t.Task - before.Task, t.Jobs - before.Jobs, t.Blocks - before.Blocks}
}

// Traffic counts over all nodes that are up.
func (m *Mesh) Traffic() (sum Traffic) {
	for _, n := range m.Nodes {
		for name, s := range n.Sent.By() {
			switch {
			case strings.HasPrefix(name, "task/"):
				sum.Task += s.Messages
			case strings.HasPrefix(name, "job/"):
				sum.Jobs += s.Messages
			case name == "gossip/direct":
				sum.Offers += s.Messages
			case strings.HasSuffix(name, "blocks"):
				sum.Blocks += s.Bytes
			}
		}
		if n.Node != nil {
			sum.Offers += n.Gossip().Stats().Received
		}
	}
	return sum
}
