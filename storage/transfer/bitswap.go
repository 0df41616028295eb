package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/bitswap/server"
	blockformat "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/storage"
)

// swap is bitswap while it runs.
type swap struct {
	b *bitswap.Bitswap
}

// startBitswap begins to serve; the returned function ends it.
func (s *Service) startBitswap() (stop func()) {
	net := bsnet.NewFromIpfsHost(s.h.Gated())
	aud := &audiences{s: s, known: map[cid.Cid]audience{}}
	// The defaults cost 157 goroutines; the windows are wider than the
	// defaults, which leave the pipe empty most of the time.
	b := bitswap.New(context.Background(), net, nil, blockstore{s.st},
		bitswap.WithPeerBlockRequestFilter(aud.allows),
		bitswap.EngineBlockstoreWorkerCount(2),
		bitswap.EngineTaskWorkerCount(2),
		bitswap.TaskWorkerCount(2),
		bitswap.MaxOutstandingBytesPerPeer(16<<20),
		bitswap.WithTargetMessageSize(1<<20),
		bitswap.MaxCidSize(maxCID),
		bitswap.MaxQueuedWantlistEntriesPerPeer(1024),
		bitswap.WithServerOption(server.WithWantHaveReplaceSize(1024)),
		bitswap.WithClientOption(client.BroadcastControlEnable(false)),
		bitswap.WithoutDuplicatedBlockStats(),
	)
	s.mu.Lock()
	s.swap = &swap{b: b}
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		s.swap = nil
		s.mu.Unlock()
		if err := b.Close(); err != nil {
			s.cfg.Log.Warn("bitswap did not close", "err", err)
		}
		net.Stop()
	}
}

// audiences is the filter of what bitswap serves: it knows peer and CID alone,
// so a job's blocks are never served by it. Answers are remembered for
// a moment, since one want is asked about several times.
type audiences struct {
	s     *Service
	mu    sync.Mutex
	known map[cid.Cid]audience
}

type audience struct {
	widest storage.Audience // 0: none
	at     time.Time
}

const (
	audienceTime = 2 * time.Second
	audienceMax  = 4096
)

func (a *audiences) allows(p peer.ID, c cid.Cid) bool {
	widest := a.widest(c)
	if a.s.h.IsMember(p) {
		return widest >= storage.Mesh
	}
	if widest < storage.Public {
		return false
	}
	a.s.busy.mark(p)
	return true
}

func (a *audiences) widest(c cid.Cid) storage.Audience {
	now := time.Now()
	a.mu.Lock()
	got, ok := a.known[c]
	a.mu.Unlock()
	if ok && now.Sub(got.at) < audienceTime {
		return got.widest
	}
	widest, _, err := a.s.st.Audience(context.Background(), c)
	if err != nil {
		a.s.cfg.Log.Error("audience of a block is not known", "cid", c.String(), "err", err)
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= audienceMax {
		clear(a.known)
	}
	a.known[c] = audience{widest, now}
	return widest
}

const (
	swapBatch = 64 // blocks
	swapStall = 20 * time.Second
)

// fetchBitswap asks those who speak nothing but bitswap: strangers that are
// connected, or hinted and reachable.
func (s *Service) fetchBitswap(ctx context.Context, want Want, b *board) error {
	s.mu.Lock()
	sw := s.swap
	s.mu.Unlock()
	if sw == nil {
		return nil
	}
	from := s.swappers(ctx, want.From)
	if len(from) == 0 {
		return nil
	}
	busy := func() { // or p2p sends them away, as strangers
		for _, id := range from {
			s.busy.mark(id)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.NewTimer(swapStall)
	defer stall.Stop()
	over := make(chan struct{})
	go func() {
		defer close(over)
		cancel(b.stalls(ctx, stall, busy))
	}()
	defer func() { cancel(nil); <-over }()
	ses := sw.b.NewSession(ctx)
	errs := make(chan error, 2)
	for range cap(errs) {
		go func() {
			for {
				blocks := b.take(ctx, "", swapBatch, 0)
				if len(blocks) == 0 {
					errs <- context.Cause(ctx)
					return
				}
				busy()
				ch, err := ses.GetBlocks(ctx, blocks)
				if err != nil {
					cancel(err)
					errs <- err
					return
				}
				for blk := range ch {
					stall.Reset(swapStall)
					busy()
					if err := b.gave("", blk.Cid(), blk.RawData(), nil); err != nil {
						cancel(err)
						errs <- err
						return
					}
				}
			}
		}()
	}
	var first error
	for range cap(errs) {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	b.leave("")
	return first
}

// stalls gives an error when the timer, which is reset by all that comes, has run
// out, and nil when the fetch is over. While a reader holds things up nothing is to
// come: then the timer is reset too, and keep called.
func (b *board) stalls(ctx context.Context, timer *time.Timer, keep func()) error {
	look := time.NewTicker(p2p.StrangerTime / 2)
	defer look.Stop()
	for {
		select {
		case <-timer.C:
			return errors.New("bitswap brought nothing for a while")
		case <-look.C:
			if b.full() {
				keep()
				timer.Reset(swapStall)
			}
		case <-b.over:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// swappers lists strangers who speak bitswap, after connecting to those hinted.
func (s *Service) swappers(ctx context.Context, hints []peer.ID) []peer.ID {
	h := s.h.Gated()
	for _, id := range hints {
		if s.h.IsMember(id) || id == h.ID() {
			continue
		}
		s.busy.mark(id)
		one, cancel := context.WithTimeout(ctx, 10*time.Second)
		if err := h.Connect(one, peer.AddrInfo{ID: id}); err != nil {
			s.cfg.Log.Debug("hinted peer not reached", "peer", id, "err", err)
		}
		cancel()
	}
	var out []peer.ID
	for _, id := range h.Network().Peers() {
		if s.h.IsMember(id) {
			continue
		}
		ps, err := h.Peerstore().GetProtocols(id)
		if err != nil {
			continue
		}
		for _, p := range ps {
			if strings.HasPrefix(string(p), "/ipfs/bitswap") && !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out
}

// blockstore shows bitswap what is stored. Bitswap writes nothing: what it
// fetches, Fetch stores.
type blockstore struct{ st *storage.Store }

var errReadOnly = errors.New("bitswap's view of the store is read-only")

func (b blockstore) Has(ctx context.Context, c cid.Cid) (bool, error) { return b.st.Has(ctx, c) }

func (b blockstore) Get(ctx context.Context, c cid.Cid) (blockformat.Block, error) {
	data, err := b.st.Get(ctx, c)
	if err != nil {
		return nil, swapErr(c, err)
	}
	return blockformat.NewBlockWithCid(data, c)
}

func (b blockstore) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	n, err := b.st.Size(ctx, c)
	return max(n, 1), swapErr(c, err) // boxo's server sends no block of size 0
}

func swapErr(c cid.Cid, err error) error {
	if errors.Is(err, storage.ErrNotFound) {
		return ipld.ErrNotFound{Cid: c}
	}
	if err != nil {
		return fmt.Errorf("bitswap: %w", err)
	}
	return nil
}

func (blockstore) DeleteBlock(context.Context, cid.Cid) error          { return errReadOnly }
func (blockstore) Put(context.Context, blockformat.Block) error        { return errReadOnly }
func (blockstore) PutMany(context.Context, []blockformat.Block) error  { return errReadOnly }
func (blockstore) AllKeysChan(context.Context) (<-chan cid.Cid, error) { return nil, errReadOnly }
