// Package dht is the mesh's Kademlia table, under the mesh's own prefix: who
// has a root, where a peer is, and small signed records that expire.
//
// It never says who is a member: it runs on the gated host, on which only
// members meet. What it returns is what peers claim; records alone are proved.
package dht

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ipfs/go-cid"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/kith-mesh/kith/p2p"
)

// ErrStopped: the table does not run any more.
var ErrStopped = errors.New("dht has stopped")

// Config of a table. The zero value is a node's usual one.
type Config struct {
	// Simulated starts from Warm alone: no refresh, no bootstrap, no waiting.
	Simulated bool
	// Warm fills the routing table at once, for simulation.
	Warm []peer.AddrInfo
	// Revoked tells whose records count no more. Nil: nobody's.
	Revoked func(peer.ID) bool
	// Now is the wall clock, for records' expiry. Default time.Now.
	Now func() time.Time
	// Log gets what no caller would hear of. Default: nothing is logged.
	Log *slog.Logger
}

// What peers can make us keep.
const (
	maxProviderRows = 128 << 10 // about 200 bytes each
	providerShare   = 16 << 10  // of one member
	maxRecords      = 2048      // at most maxRecord bytes each
	recordShare     = 64        // of one member
)

// Service is this node's part of the table. It is safe for concurrent use;
// calls wait until Run has started it.
type Service struct {
	h       *p2p.Host
	cfg     Config
	started chan struct{}
	stopped chan struct{}
	kad     *kad.IpfsDHT // set when started is closed
	values  *bounded
}

// New makes a table that Run will start.
func New(h *p2p.Host, cfg Config) (*Service, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Revoked == nil {
		cfg.Revoked = func(peer.ID) bool { return false }
	}
	if len(cfg.Warm) > 0 && !cfg.Simulated {
		return nil, errors.New("dht config: Warm is for simulation: set Simulated, or let it bootstrap")
	}
	return &Service{h: h, cfg: cfg, started: make(chan struct{}), stopped: make(chan struct{}),
		values: newValues(maxRecords, recordShare)}, nil
}

// Prefix of the table's protocol in a host's mesh.
func Prefix(h *p2p.Host) protocol.ID { return protocol.ID("/kith/" + h.Mesh().Prefix()) }

// Run takes part in the table until ctx ends. Call it once.
func (s *Service) Run(ctx context.Context) (err error) {
	defer close(s.stopped)
	opts := []kad.Option{
		kad.ProtocolPrefix(Prefix(s.h)),
		// A node that is not known to be unreachable serves: on a LAN or on
		// loopback nobody ever is, and a table of clients finds nothing. For
		// the same reason no filter of private addresses or of address
		// diversity stands here; whom to dial where is the host's decision.
		kad.Mode(kad.ModeAutoServer),
		kad.Validator(record.NamespacedValidator{namespace: s.validator()}),
		kad.ProviderDatastore(newProviders(maxProviderRows, providerShare)),
		kad.ValueDatastore(s.values),
		kad.MaxRecordAge(maxTTL + skew),
		kad.LookupCheckConcurrency(16),
		kad.ProviderManagerOpts(records.ProvideValidity(provideValidity)),
	}
	if s.cfg.Simulated {
		opts = append(opts, kad.DisableAutoRefresh(), kad.Mode(kad.ModeServer))
	}
	k, err := kad.New(s.h.Gated(), opts...)
	if err != nil {
		return fmt.Errorf("start dht: %w", err)
	}
	defer func() {
		if cerr := k.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("stop dht: %w", cerr))
		}
	}()
	for _, w := range s.cfg.Warm {
		if w.ID == s.h.ID() {
			continue
		}
		s.h.Gated().Peerstore().AddAddrs(w.ID, w.Addrs, peerstore.PermanentAddrTTL)
		if _, err := k.RoutingTable().TryAddPeer(w.ID, true, false); err != nil {
			s.cfg.Log.Debug("peer not added to the routing table", "peer", w.ID, "err", err)
		}
	}
	s.kad = k
	close(s.started)
	if !s.cfg.Simulated {
		// It looks for more by itself whenever a member connects.
		if err := k.Bootstrap(ctx); err != nil {
			return fmt.Errorf("bootstrap dht: %w", err)
		}
	}
	<-ctx.Done()
	return nil
}

// provideValidity is how long a provider record counts; announce again within.
const provideValidity = 48 * time.Hour

// running waits for Run. The context it returns ends with the table.
func (s *Service) running(ctx context.Context) (*kad.IpfsDHT, error) {
	select {
	case <-s.started:
	case <-s.stopped:
		return nil, ErrStopped
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-s.stopped:
		return nil, ErrStopped
	default:
		return s.kad, nil
	}
}

// Size is how many peers the routing table holds; 0 when it does not run.
func (s *Service) Size() int {
	select {
	case <-s.started:
		return s.kad.RoutingTable().Size()
	default:
		return 0
	}
}

// FindPeer returns the addresses that a peer is said to have.
func (s *Service) FindPeer(ctx context.Context, id peer.ID) (peer.AddrInfo, error) {
	k, err := s.running(ctx)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("find peer %s: %w", id, err)
	}
	ai, err := k.FindPeer(ctx, id)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("find peer %s: %w", id, err)
	}
	return ai, nil
}

// Provide announces that this node has root. It fails when nobody is there to
// be told.
func (s *Service) Provide(ctx context.Context, root cid.Cid) error {
	k, err := s.running(ctx)
	if err != nil {
		return fmt.Errorf("provide %s: %w", root, err)
	}
	if err := k.Provide(ctx, root, true); err != nil {
		return fmt.Errorf("provide %s: %w", root, err)
	}
	return nil
}

// FindProviders returns at most limit other peers that announced root. When
// the context ends first, it returns those found by then.
func (s *Service) FindProviders(ctx context.Context, root cid.Cid, limit int) ([]peer.AddrInfo, error) {
	if limit < 1 {
		return nil, fmt.Errorf("find providers of %s: limit is %d: want 1 or more", root, limit)
	}
	k, err := s.running(ctx)
	if err != nil {
		return nil, fmt.Errorf("find providers of %s: %w", root, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var out []peer.AddrInfo
	// One more, since this node may be among them.
	for ai := range k.FindProvidersAsync(ctx, root, limit+1) {
		if ai.ID != s.h.ID() && len(out) < limit {
			out = append(out, ai)
		}
	}
	return out, nil
}
