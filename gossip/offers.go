package gossip

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/kith-mesh/kith/p2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Offers, Jobs and Direct are the wire names of this package. The first two are
// pubsub's streams, whose limits are pubsub's options; Direct brings offers to
// members that are reached through a relay only, which pubsub leaves out.
var (
	Offers = p2p.Protocol{Name: "gossip/offers", Version: "1.0.0", MaxMessage: offersFrame}
	Jobs   = p2p.Protocol{Name: "gossip/jobs", Version: "1.0.0", MaxMessage: jobsFrame}
	Direct = p2p.Protocol{Name: "gossip/direct", Version: "1.0.0", MaxMessage: MaxOffer + sealSpace, Deadline: 10 * time.Second, Streams: 16, Rate: 20, Burst: 100}
)

const (
	offersFrame = 64 << 10
	jobsFrame   = 256 << 10
	offersTopic = "offers"

	// The scores by which pubsub tells links from other connections. A peer
	// without a link is graylisted: its messages are dropped unread, though not
	// its subscriptions, which it announces once.
	linkedScore   = 1
	unlinkedScore = -1000
	graylistScore = -500

	maxDirect = 16 // offers on their way to relayed members at once
)

// A degree that no neighbourhood reaches: then pubsub grafts all that the
// filter lets through, and prunes none for being many.
const allLinks = 256

func offerParams() pubsub.GossipSubParams {
	p := pubsub.DefaultGossipSubParams()
	p.D, p.Dlo, p.Dhi, p.Dscore, p.Dout = allLinks, allLinks, 2*allLinks, 0, 0
	p.Dlazy, p.GossipFactor = 0, 0 // no word of what was sent to those without a link
	p.PruneBackoff, p.UnsubscribeBackoff = time.Second, time.Second
	p.Connectors, p.MaxPendingConnections = 0, 0
	return p
}

// offerScores takes links for good and all others for bad, and links that bring
// forged offers for bad too, for a while.
func offerScores(linked func(peer.ID) bool) (*pubsub.PeerScoreParams, *pubsub.PeerScoreThresholds) {
	return &pubsub.PeerScoreParams{
			SkipAtomicValidation: true,
			AppSpecificWeight:    1,
			AppSpecificScore: func(p peer.ID) float64 {
				if linked(p) {
					return linkedScore
				}
				return unlinkedScore
			},
			DecayInterval: time.Second, DecayToZero: 0.01,
			Topics: map[string]*pubsub.TopicScoreParams{offersTopic: {
				SkipAtomicValidation: true, TopicWeight: 1,
				TimeInMeshQuantum:              time.Minute, // pubsub divides by it even at weight 0
				InvalidMessageDeliveriesWeight: -20, InvalidMessageDeliveriesDecay: pubsub.ScoreParameterDecay(10 * time.Minute),
			}},
		}, &pubsub.PeerScoreThresholds{
			SkipAtomicValidation: true,
			GossipThreshold:      -1, PublishThreshold: -1, GraylistThreshold: graylistScore,
		}
}

// idOf names an offer by its bytes: whoever brings it, it is the same.
func idOf(m *pb.Message) string {
	sum := sha256.Sum256(m.GetData())
	return string(sum[:20])
}

func features(f pubsub.GossipSubFeature, _ protocol.ID) bool {
	return f == pubsub.GossipSubFeatureMesh || f == pubsub.GossipSubFeatureIdontwant
}

func (s *Service) joinOffers(ctx context.Context) (*pubsub.Subscription, overlay, error) {
	id := Offers.ID(s.h.Mesh())
	opts := []pubsub.Option{
		pubsub.WithGossipSubProtocols([]protocol.ID{id}, features),
		pubsub.WithGossipSubParams(offerParams()),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), // the envelope is signed: it must outlive the hop over a relay
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(idOf),
		pubsub.WithSeenMessagesTTL(seenTTL),
		pubsub.WithMaxMessageSize(offersFrame),
		pubsub.WithMaxControlMessageSize(offersFrame / 2),
		pubsub.WithSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(offersTopic)),
		pubsub.WithPeerOutboundQueueSize(128),
		pubsub.WithValidateWorkers(1),
		pubsub.WithPeerFilter(func(p peer.ID, _ string) bool { return s.links.has(p) }),
		pubsub.WithPeerScore(offerScores(s.links.has)),
		pubsub.WithFloodPublish(true),
		pubsub.WithRawTracer(tracer{&s.counts}),
	}
	ps, err := pubsub.NewGossipSub(ctx, s.h.Gated(), opts...)
	if err != nil {
		return nil, overlay{}, err
	}
	if err := ps.RegisterTopicValidator(offersTopic, s.validateOffer); err != nil {
		return nil, overlay{}, err
	}
	topic, err := ps.Join(offersTopic)
	if err != nil {
		return nil, overlay{}, err
	}
	s.offers = topic
	sub, err := topic.Subscribe(pubsub.WithBufferSize(256))
	return sub, overlay{ps, id}, err
}

// validated is what the validator found, for the reader.
type validated struct {
	envelope
	away time.Duration
}

func (s *Service) validateOffer(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	if m.ValidatorData != nil {
		return pubsub.ValidationAccept // a direct one, judged before
	}
	if from == s.h.ID() {
		return pubsub.ValidationAccept
	}
	if !s.bring.allow(from, 0, time.Now()) {
		s.counts.verdict(limited)
		return pubsub.ValidationIgnore
	}
	v, got := s.judge(m.GetData())
	switch v {
	case take:
		m.ValidatorData = got
		return pubsub.ValidationAccept
	case forged:
		s.cfg.Log.Warn("peer misbehaved", "peer", from, "protocol", Offers.Name, "err", "forged or malformed offer")
		return pubsub.ValidationReject
	default:
		return pubsub.ValidationIgnore
	}
}

// judge opens an offer and decides about it.
func (s *Service) judge(b []byte) (verdict, *validated) {
	e, err := openEnvelope(b)
	if err != nil {
		s.counts.verdict(forged)
		return forged, nil
	}
	if e.origin == s.h.ID() {
		return stale, nil // our own, from a neighbour that did not know
	}
	v, away := s.filter.judge(e, time.Now(), s.cfg.Now())
	s.counts.verdict(v)
	return v, &validated{envelope: e, away: away}
}

// readOffers delivers, and brings what was taken to relayed neighbours.
func (s *Service) readOffers(ctx context.Context, sub *pubsub.Subscription, all *sync.WaitGroup) {
	defer sub.Cancel()
	slots := make(chan struct{}, maxDirect)
	for {
		m, err := sub.Next(ctx)
		if err != nil {
			return // ctx ended, and pubsub with it
		}
		var origin peer.ID
		if v, ok := m.ValidatorData.(*validated); ok {
			origin = v.origin
			s.deliver(ctx, v)
		}
		for _, to := range s.links.relayed() {
			if to == origin || to == m.ReceivedFrom {
				continue
			}
			select {
			case slots <- struct{}{}:
			default:
				s.cfg.Log.Debug("offer not sent over relay: too many on their way", "peer", to)
				continue
			}
			all.Go(func() {
				defer func() { <-slots }()
				s.sendDirect(ctx, to, m.GetData())
			})
		}
	}
}

func (s *Service) deliver(ctx context.Context, v *validated) {
	s.counts.delivered.Add(1)
	s.mu.Lock()
	handlers := s.onOffer
	s.mu.Unlock()
	for _, f := range handlers {
		f(ctx, Offered{Origin: v.origin, Payload: v.payload, Coord: v.place, Radius: v.radius, TTL: v.ttl, Predicted: v.away})
	}
}

func (s *Service) sendDirect(ctx context.Context, to peer.ID, b []byte) {
	s.counts.sent.Add(1)
	if _, err := s.h.Call(ctx, to, Direct, b); err != nil {
		s.cfg.Log.Debug("offer not sent over relay", "peer", to, "err", err)
	}
}

// serveDirect takes an offer from a neighbour that pubsub does not reach, and
// passes it on like any other. One that was here before counts once: pubsub
// knows it by its bytes.
func (s *Service) serveDirect(ctx context.Context, from peer.ID, b []byte) ([]byte, error) {
	if !s.links.has(from) {
		return nil, p2p.Refuse(p2p.CodeRights, "no link with this node")
	}
	if err := s.running(ctx); err != nil {
		return nil, p2p.Refuse(p2p.CodeBusy, "not running")
	}
	s.counts.received.Add(1)
	v, got := s.judge(b)
	switch v {
	case take:
	case forged:
		return nil, p2p.Refuse(p2p.CodeMalformed, "the offer is forged or malformed")
	default:
		return nil, nil
	}
	err := s.offers.Publish(ctx, b, pubsub.WithValidatorData(got))
	var ignored pubsub.ValidationError
	if err != nil && !errors.As(err, &ignored) {
		return nil, err
	}
	return nil, nil
}
