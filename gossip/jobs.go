package gossip

import (
	"context"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"
)

const jobsTopic = "jobs"

// jobScores blames those who bring what is invalid, and thanks those who bring
// what is new.
func jobScores() (*pubsub.PeerScoreParams, *pubsub.PeerScoreThresholds) {
	return &pubsub.PeerScoreParams{
			SkipAtomicValidation:   true,
			AppSpecificScore:       func(peer.ID) float64 { return 0 },
			BehaviourPenaltyWeight: -1, BehaviourPenaltyThreshold: 6, BehaviourPenaltyDecay: pubsub.ScoreParameterDecay(10 * time.Minute),
			DecayInterval: time.Second, DecayToZero: 0.01, RetainScore: 10 * time.Minute,
			Topics: map[string]*pubsub.TopicScoreParams{jobsTopic: {
				SkipAtomicValidation: true, TopicWeight: 1,
				TimeInMeshWeight: 0.01, TimeInMeshQuantum: time.Minute, TimeInMeshCap: 60,
				FirstMessageDeliveriesWeight: 0.5, FirstMessageDeliveriesDecay: pubsub.ScoreParameterDecay(10 * time.Minute), FirstMessageDeliveriesCap: 10,
				InvalidMessageDeliveriesWeight: -20, InvalidMessageDeliveriesDecay: pubsub.ScoreParameterDecay(30 * time.Minute),
			}},
		}, &pubsub.PeerScoreThresholds{
			SkipAtomicValidation: true,
			GossipThreshold:      -50, PublishThreshold: -100, GraylistThreshold: -200,
		}
}

func jobParams() pubsub.GossipSubParams {
	p := pubsub.DefaultGossipSubParams()
	p.Connectors, p.MaxPendingConnections = 0, 0 // no peer exchange: the neighbourhood finds members
	return p
}

func (s *Service) joinJobs(ctx context.Context) (*pubsub.Subscription, overlay, error) {
	id := Jobs.ID(s.h.Mesh())
	ps, err := pubsub.NewGossipSub(ctx, s.h.Gated(),
		pubsub.WithGossipSubProtocols([]protocol.ID{id}, features),
		pubsub.WithGossipSubParams(jobParams()),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithMaxMessageSize(jobsFrame),
		pubsub.WithMaxControlMessageSize(jobsFrame/2),
		pubsub.WithSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(jobsTopic)),
		pubsub.WithValidateWorkers(1),
		pubsub.WithPeerScore(jobScores()),
		pubsub.WithFloodPublish(true),
	)
	if err != nil {
		return nil, overlay{}, err
	}
	limits := newPerOrigin(s.cfg.JobRate, s.cfg.JobBurst)
	bring := newPerOrigin(bringJobs*s.cfg.JobRate, bringJobs*s.cfg.JobBurst)
	err = ps.RegisterTopicValidator(jobsTopic, func(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
		switch {
		case from == s.h.ID():
			return pubsub.ValidationAccept
		case len(m.GetData()) == 0 || len(m.GetData()) > MaxJob:
			s.cfg.Log.Warn("peer misbehaved", "peer", from, "protocol", Jobs.Name, "err", errTooLarge)
			return pubsub.ValidationReject
		case !bring.allow(from, len(m.GetData()), time.Now()), !limits.allow(m.GetFrom(), len(m.GetData()), time.Now()):
			s.counts.verdict(limited)
			return pubsub.ValidationIgnore
		}
		return pubsub.ValidationAccept
	})
	if err != nil {
		return nil, overlay{}, err
	}
	topic, err := ps.Join(jobsTopic)
	if err != nil {
		return nil, overlay{}, err
	}
	s.jobs = topic
	sub, err := topic.Subscribe(pubsub.WithBufferSize(64))
	return sub, overlay{ps, id}, err
}

func (s *Service) readJobs(ctx context.Context, sub *pubsub.Subscription) {
	defer sub.Cancel()
	for {
		m, err := sub.Next(ctx)
		if err != nil {
			return // ctx ended, and pubsub with it
		}
		if m.GetFrom() == s.h.ID() {
			continue
		}
		s.counts.jobs.Add(1)
		s.mu.Lock()
		handlers := s.onJob
		s.mu.Unlock()
		for _, f := range handlers {
			f(ctx, m.GetFrom(), m.GetData())
		}
	}
}

// perOrigin limits how often each origin is heard.
type perOrigin struct {
	rate  rate.Limit
	burst int
	mu    sync.Mutex
	of    map[peer.ID]*turn
}

// How many origins' rates one member may bring at once: it can make up origins
// as it likes, each with a rate of its own.
const (
	bringOffers = 10
	bringJobs   = 5
)

func newPerOrigin(limit rate.Limit, burst int) *perOrigin {
	return &perOrigin{rate: limit, burst: burst, of: make(map[peer.ID]*turn)}
}

type turn struct {
	limiter *rate.Limiter
	used    time.Time
}

// jobWeight is how many bytes count as one message: an origin's heartbeats, one
// for each of its jobs, are small and many; what is published is large and rare.
const jobWeight = 4 << 10

func (l *perOrigin) allow(id peer.ID, size int, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.of[id]
	if t == nil {
		if len(l.of) >= maxOrigins {
			var oldest peer.ID
			for p, o := range l.of {
				if oldest == "" || o.used.Before(l.of[oldest].used) {
					oldest = p
				}
			}
			delete(l.of, oldest)
		}
		t = &turn{limiter: rate.NewLimiter(l.rate, l.burst)}
		l.of[id] = t
	}
	t.used = now
	return t.limiter.AllowN(now, 1+size/jobWeight)
}
