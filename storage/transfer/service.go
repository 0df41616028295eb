package transfer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/storage"
)

// Providers finds and announces who has a root; the DHT does.
type Providers interface {
	Provide(ctx context.Context, root cid.Cid) error
	// FindProviders returns at most limit peers that said they have root.
	FindProviders(ctx context.Context, root cid.Cid, limit int) ([]peer.AddrInfo, error)
}

// Config of a Service. The zero value serves and fetches by the bulk protocol
// alone, and refuses every ticket.
type Config struct {
	// Providers finds peers when hints do not do, and announces roots. Nil: neither.
	Providers Providers
	// Check decides whether a peer may fetch a job's root by the ticket it
	// shows. Nil refuses all.
	Check func(ctx context.Context, from peer.ID, root cid.Cid, ticket []byte) error
	// Bitswap serves mesh and public blocks to what speaks it, and fetches
	// from it what no member has. It costs goroutines: off in simulation.
	Bitswap bool
	// Peers that one fetch asks at once. Default 4.
	Peers int
	// Window is how many blocks may be asked of one peer at once, 2 to 256.
	// Default 128.
	Window int
	// Serving is how many blocks are read from disk at once for others. Default 4.
	Serving int
	// Reprovide is how often a root is announced again. Default 12 hours.
	Reprovide time.Duration
	// Now is the wall clock. Default time.Now.
	Now func() time.Time
	// Log gets peers' misbehaviour. Default: nothing is logged.
	Log        *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

func (c Config) filled() (Config, error) {
	if c.Check == nil {
		c.Check = func(context.Context, peer.ID, cid.Cid, []byte) error {
			return p2p.Refuse(CodeTicket, "this node accepts no tickets")
		}
	}
	if c.Peers == 0 {
		c.Peers = 4
	}
	if c.Window == 0 {
		c.Window = maxAsk
	}
	if c.Serving == 0 {
		c.Serving = 4
	}
	if c.Reprovide == 0 {
		c.Reprovide = 12 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if c.Peers < 1 || c.Peers > 64 {
		errs = append(errs, fmt.Errorf("peers is %d: want 1 to 64", c.Peers))
	}
	if c.Window < 2 || c.Window > 2*maxAsk {
		errs = append(errs, fmt.Errorf("window is %d: want 2 to %d blocks", c.Window, 2*maxAsk))
	}
	if c.Serving < 1 {
		errs = append(errs, fmt.Errorf("serving is %d: want 1 or more", c.Serving))
	}
	if c.Reprovide < time.Minute {
		errs = append(errs, fmt.Errorf("reprovide is %v: want a minute or more", c.Reprovide))
	}
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("transfer config: %w", err)
	}
	return c, nil
}

// Service fetches and serves blocks. It is safe for concurrent use.
type Service struct {
	h       *p2p.Host
	st      *storage.Store
	cfg     Config
	metrics *metrics
	reading chan struct{} // a slot for each block being read for others
	busy    strangers
	wake    chan struct{} // roots to provide

	mu      sync.Mutex
	flights map[flightKey]*flight // equal fetches go once
	swap    *swap                 // bitswap, while it runs
}

// New registers the protocols on h; call it before h runs.
func New(h *p2p.Host, st *storage.Store, cfg Config) (*Service, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	s := &Service{
		h: h, st: st, cfg: cfg,
		metrics: newMetrics(cfg.Registerer),
		reading: make(chan struct{}, cfg.Serving),
		wake:    make(chan struct{}, 1),
		flights: map[flightKey]*flight{},
	}
	s.busy.seen = map[peer.ID]time.Time{}
	h.HandleStream(Blocks, s.serveMember)
	h.HandleStream(PublicBlocks, s.serveStranger)
	h.KeepStrangers(s.Busy)
	return s, nil
}

// Run serves bitswap and announces roots, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	select {
	case <-s.h.Ready():
	case <-ctx.Done():
		return nil
	}
	if s.cfg.Bitswap {
		defer s.startBitswap()()
	}
	if s.cfg.Providers == nil {
		<-ctx.Done()
		return nil
	}
	s.provideLoop(ctx)
	return nil
}

// Busy reports whether a public block was moved to or from the peer, a
// stranger perhaps, within the time that strangers have.
func (s *Service) Busy(id peer.ID) bool { return s.busy.is(id) }

// strangers remembers who moved public blocks lately. Its size is bounded by
// those who may be connected.
type strangers struct {
	mu   sync.Mutex
	seen map[peer.ID]time.Time
}

const maxStrangersSeen = 1024

func (b *strangers) mark(id peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if len(b.seen) >= maxStrangersSeen {
		for k, t := range b.seen {
			if now.Sub(t) > p2p.StrangerTime {
				delete(b.seen, k)
			}
		}
		if len(b.seen) >= maxStrangersSeen {
			return
		}
	}
	b.seen[id] = now
}

func (b *strangers) is(id peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, ok := b.seen[id]
	return ok && time.Since(t) <= p2p.StrangerTime
}
