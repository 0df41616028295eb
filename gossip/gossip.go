// Package gossip carries small messages to many: offers, to those near enough
// to care, and published jobs, to the whole mesh.
//
// Offers have a PubSub of their own whose overlay is the neighbourhood graph.
// Whoever finds itself outside of an offer's radius ignores it, without blame,
// and so does not pass it on. Jobs travel by plain gossipsub with peer scores.
// The package never learns what the payloads mean.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/p2p/coord"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// Config of a Service. Zero fields take the defaults beside them.
type Config struct {
	OfferRate  rate.Limit // offers taken from one origin, per second; 40
	OfferBurst int        // at once; 80
	JobRate    rate.Limit // job messages of up to 4 KiB taken from one origin, per second; 20. A larger one counts as several
	JobBurst   int        // at once; 200

	Now        func() time.Time // wall clock, for stamps; default time.Now
	Log        *slog.Logger     // default: none
	Registerer prometheus.Registerer

	// IgnoreRadius takes and passes on every offer, and RandomOverlay sends
	// offers over random links instead of the neighbourhood's. They are what the
	// simulation leaves out to show what the radius and the overlay are worth;
	// no node sets them.
	IgnoreRadius  bool
	RandomOverlay bool
}

func (c Config) withDefaults() Config {
	if c.OfferRate == 0 {
		c.OfferRate = 40
	}
	if c.OfferBurst == 0 {
		c.OfferBurst = 80
	}
	if c.JobRate == 0 {
		c.JobRate = 20
	}
	if c.JobBurst == 0 {
		c.JobBurst = 200
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) check() error {
	var errs []error
	if c.OfferRate < 0 || c.JobRate < 0 {
		errs = append(errs, fmt.Errorf("OfferRate is %g and JobRate %g, want both above 0", c.OfferRate, c.JobRate))
	}
	if c.OfferBurst < 0 || c.JobBurst < 0 {
		errs = append(errs, fmt.Errorf("OfferBurst is %d and JobBurst %d, want both above 0", c.OfferBurst, c.JobBurst))
	}
	if len(errs) > 0 {
		return fmt.Errorf("gossip config: %w", errors.Join(errs...))
	}
	return nil
}

// Offered is an offer that reached this node inside its radius. It was signed
// by Origin; the rest is Origin's claim.
type Offered struct {
	Origin    peer.ID
	Payload   []byte
	Coord     coord.Coordinate // zero if the origin had none
	Radius    time.Duration    // of round trip, at most MaxRadius
	TTL       time.Duration    // from now, at most MaxTTL
	Predicted time.Duration    // round trip to Origin: measured, else by coordinates
}

// Service is a node's end of both topics. OnOffer and OnJob come before Run.
type Service struct {
	h      *p2p.Host
	cfg    Config
	filter *filter
	links  links
	bring  *perOrigin // what one neighbour may bring of all origins together
	counts counts

	mu      sync.Mutex
	onOffer []func(context.Context, Offered)
	onJob   []func(context.Context, peer.ID, []byte)
	offers  *pubsub.Topic
	jobs    *pubsub.Topic
	stamp   time.Time     // of the last offer of ours
	stamped time.Time     // when that was, on the monotonic clock
	ready   chan struct{} // closed when the topics are joined
	ended   chan struct{} // closed when Run returns
}

// New makes a service on a host; it must come before the host's Run. Nothing
// starts before the service's own Run.
func New(h *p2p.Host, cfg Config) (*Service, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Service{
		h: h, cfg: cfg, filter: newFilter(h, cfg.OfferRate, cfg.OfferBurst, cfg.IgnoreRadius),
		bring: newPerOrigin(bringOffers*cfg.OfferRate, bringOffers*cfg.OfferBurst),
		ready: make(chan struct{}), ended: make(chan struct{}),
	}
	if err := s.counts.register(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	if !cfg.RandomOverlay {
		h.OnNeighbours(s.links.set)
	}
	h.Handle(Direct, s.serveDirect)
	return s, nil
}

// OnOffer has f called with every offer from others that reached this node
// inside its radius, one at a time. F must not block for long: offers that come
// meanwhile are dropped when pubsub's buffer is full.
func (s *Service) OnOffer(f func(context.Context, Offered)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onOffer = append(s.onOffer, f)
}

// OnJob has f called with every message of others on the jobs topic; from is
// the member that signed it.
func (s *Service) OnJob(f func(ctx context.Context, from peer.ID, payload []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onJob = append(s.onJob, f)
}

// Run joins both topics and serves them until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer close(s.ended)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	offers, o, err := s.joinOffers(ctx)
	if err != nil {
		return fmt.Errorf("gossip: offers: %w", err)
	}
	jobs, j, err := s.joinJobs(ctx)
	if err != nil {
		return fmt.Errorf("gossip: jobs: %w", err)
	}
	all.Go(func() { s.readOffers(ctx, offers, &all) })
	all.Go(func() { s.readJobs(ctx, jobs) })
	all.Go(func() { s.mend(ctx, o, j) })
	if s.cfg.RandomOverlay {
		all.Go(func() { s.keepRandom(ctx) })
	}
	close(s.ready)
	<-ctx.Done()
	return nil
}

// running waits until the topics are joined.
func (s *Service) running(ctx context.Context) error {
	select {
	case <-s.ended:
		return errors.New("gossip: not running")
	default:
	}
	select {
	case <-s.ready:
		return nil
	case <-s.ended:
		return errors.New("gossip: not running")
	case <-ctx.Done():
		return fmt.Errorf("gossip: not running: %w", ctx.Err())
	}
}

// PublishOffer sends an offer to those within radius of this node, a round
// trip; each drops it ttl after it came.
func (s *Service) PublishOffer(ctx context.Context, payload []byte, radius, ttl time.Duration) error {
	switch {
	case len(payload) > MaxOffer:
		return fmt.Errorf("publish offer: %d bytes, at most %d", len(payload), MaxOffer)
	case radius < time.Microsecond:
		return fmt.Errorf("publish offer: radius is %v, want above 0", radius)
	case ttl < time.Millisecond:
		return fmt.Errorf("publish offer: ttl is %v, want above 0", ttl)
	}
	if err := s.running(ctx); err != nil {
		return err
	}
	e := envelope{payload: payload, place: s.h.Coordinate(), radius: min(radius, MaxRadius), ttl: min(ttl, MaxTTL), stamp: s.nextStamp()}
	b, err := e.seal(s.h.Seal)
	if err != nil {
		return err
	}
	if err := s.offers.Publish(ctx, b); err != nil {
		return fmt.Errorf("publish offer: %w", err)
	}
	s.counts.published.Add(1)
	return nil
}

// nextStamp is later than any before, so that two offers of the same words
// differ, and runs as time does: those who hear them ask that of an origin's
// clock. A wall clock that is set back counts for nothing until the stamps are so
// far ahead of it that others would take none of them.
func (s *Service) nextStamp() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	if !s.stamp.IsZero() {
		ran := s.stamp.Add(time.Since(s.stamped))
		if ahead := ran.Sub(now); ahead > 0 && ahead <= clockSkew {
			now = ran
		}
		if now.Equal(s.stamp) {
			now = now.Add(time.Nanosecond)
		}
	}
	s.stamp, s.stamped = now, time.Now()
	return now
}

// PublishJob sends a message to every member that listens to the jobs topic.
func (s *Service) PublishJob(ctx context.Context, payload []byte) error {
	if len(payload) == 0 || len(payload) > MaxJob {
		return fmt.Errorf("publish job: %d bytes, want 1 to %d", len(payload), MaxJob)
	}
	if err := s.running(ctx); err != nil {
		return err
	}
	if err := s.jobs.Publish(ctx, payload); err != nil {
		return fmt.Errorf("publish job: %w", err)
	}
	return nil
}
