package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/kith-mesh/kith/storage/internal/pack"
)

// Config of a store.
type Config struct {
	// Dir is the folder for blocks, made if absent. One process at a time may
	// open it. Empty keeps blocks in memory.
	Dir string
	// DB is the shared SQLite database; the store makes its own tables in it.
	DB *sql.DB
	// MaxBytes is what blocks may take; 0 is no limit but the disk's.
	MaxBytes int64
	// MinFree is what writes leave free on the disk. Default 256 MiB.
	MinFree int64
	// Now is the wall clock, for pins' expiry. Default time.Now.
	Now func() time.Time
	// Log gets what no caller would hear of. Default: nothing is logged.
	Log *slog.Logger
	// OnDamage, when not nil, hears of each stored block that a read found wrong.
	// It must not block.
	OnDamage func(cid.Cid)
	// OnRepair, when not nil, hears that some of them were replaced, or can be read
	// after all. It must not block.
	OnRepair func()
	// Commit, when not nil, runs do in a transaction of DB, which it may share with
	// others, and returns when that is durable; do's error undoes what it did.
	// Default: a transaction of its own.
	Commit func(ctx context.Context, do func(ctx context.Context, tx *sql.Tx) error) error
	// Around, when not nil, is given each durable step instead of its being run,
	// for tests of crashes.
	Around func(c Commit, do func() error) error
}

func (c Config) filled() (Config, error) {
	if c.MinFree == 0 {
		c.MinFree = 256 << 20
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if c.DB == nil {
		errs = append(errs, errors.New("no database: set DB"))
	}
	if c.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("MaxBytes is %d: want 0 for no limit, or bytes", c.MaxBytes))
	}
	if c.MinFree < 0 {
		errs = append(errs, fmt.Errorf("MinFree is %d: want bytes", c.MinFree))
	}
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("storage config: %w", err)
	}
	return c, nil
}

// Store is a node's data. It is safe for concurrent use.
type Store struct {
	cfg    Config
	blocks blocks
	db     *sql.DB

	// mu guards the protected sets below against the collector: whoever adds
	// to them, or relies on a block being there, holds it shared; a chunk of
	// deletions holds it alone. Never wait for the database while holding it.
	mu       sync.RWMutex
	sessions map[*Session]struct{}
	usesMu   sync.Mutex // within mu
	uses     map[cid.Cid]int
	late     []cid.Cid // roots protected since the collector marked
	marking  bool

	damagedMu sync.Mutex
	damaged   map[key]cid.Cid // stored bytes that a read found wrong; until a put replaces them, or Get reads them after all

	gcMu   sync.Mutex // one collection at a time
	quota  quota
	closed atomic.Bool
}

// Open opens the store, and repairs what a crash left.
func Open(cfg Config) (*Store, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	if err := migrate(context.Background(), cfg.DB); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, db: cfg.DB, sessions: map[*Session]struct{}{}, uses: map[cid.Cid]int{}, damaged: map[key]cid.Cid{}}
	if cfg.Dir == "" {
		s.blocks = newMem()
	} else if s.blocks, err = openPacks(context.Background(), cfg.Dir, cfg.Log); err != nil {
		return nil, err
	}
	if err := errors.Join(s.missDropped(context.Background()), s.missTorn(context.Background())); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends the store; the database stays open, since it is shared. Sessions
// and readers fail from then on.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.gcMu.Lock() // wait for a collection
	defer s.gcMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocks.close()
}

// Get returns a block that hashes to c, or ErrNotFound, or ErrCorrupt, also where
// the disk can't read it. The bytes are shared: do not change them.
func (s *Store) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	return s.getInto(ctx, c, nil)
}

// getInto is Get, with the bytes in buf if it has ReadRoom more room than the
// block has bytes.
func (s *Store) getInto(ctx context.Context, c cid.Cid, buf []byte) ([]byte, error) {
	if err := CheckCID(c); err != nil {
		return nil, err
	}
	d, err := s.read(ctx, c, buf, false)
	if err != nil {
		return nil, err
	}
	if err := Verify(c, d); err != nil {
		s.foundDamaged(c, err)
		return nil, err
	}
	if k := keyOf(c); s.isDamaged(k) { // the disk could not read it once
		s.forgetDamage(k)
	}
	return d, nil
}

// Send returns a block for somebody who will hash it, as every peer does: the
// bytes are compared with a checksum that was taken when they did hash to c,
// which costs a tenth of a hash. They are in buf if it has ReadRoom more room
// than the block has bytes.
func (s *Store) Send(ctx context.Context, c cid.Cid, buf []byte) ([]byte, error) {
	if err := CheckCID(c); err != nil {
		return nil, err
	}
	return s.read(ctx, c, buf, true)
}

// ReadRoom is what Send's buffer must have beside the block's bytes.
const ReadRoom = pack.Overhead

func (s *Store) read(ctx context.Context, c cid.Cid, buf []byte, check bool) ([]byte, error) {
	if d, ok := identity(c); ok {
		return d, nil
	}
	if s.closed.Load() {
		return nil, ErrClosed
	}
	d, err := s.blocks.get(ctx, keyOf(c), buf, check)
	if pack.Medium(err) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if errors.Is(err, ErrCorrupt) {
		s.foundDamaged(c, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read block %s: %w", c, err)
	}
	return d, nil
}

// Size returns a stored block's length, or ErrNotFound. It does not verify, but
// a block that a read found damaged is not there for it.
func (s *Store) Size(ctx context.Context, c cid.Cid) (int, error) {
	if err := CheckCID(c); err != nil {
		return 0, err
	}
	if d, ok := identity(c); ok {
		return len(d), nil
	}
	if s.closed.Load() {
		return 0, ErrClosed
	}
	if s.isDamaged(keyOf(c)) {
		return 0, notFound(c)
	}
	n, err := s.blocks.size(ctx, keyOf(c))
	if err != nil {
		return 0, fmt.Errorf("find block %s: %w", c, err)
	}
	return n, nil
}

// Has reports whether the block is stored. It does not verify.
func (s *Store) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := s.Size(ctx, c)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Use keeps the collector from all that is stored under the roots until
// release is called; calling it again does nothing.
func (s *Store) Use(roots ...cid.Cid) (release func()) {
	s.mu.RLock()
	s.usesMu.Lock()
	for _, r := range roots {
		s.uses[r]++
	}
	if s.marking {
		s.late = append(s.late, roots...)
	}
	s.usesMu.Unlock()
	s.mu.RUnlock()
	return sync.OnceFunc(func() {
		s.usesMu.Lock()
		defer s.usesMu.Unlock()
		for _, r := range roots {
			if s.uses[r]--; s.uses[r] <= 0 {
				delete(s.uses, r)
			}
		}
	})
}

// fill gives p what is stored. missing is called for a block that is not; it
// returns false to stop. Damaged inner nodes count as missing.
func (s *Store) fill(ctx context.Context, p *Plan, each func(c cid.Cid, length int), missing func(c cid.Cid) bool) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, ok := p.Next()
		if !ok {
			return nil
		}
		length, data, err := s.glance(ctx, n)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) {
			if !missing(n.CID) {
				return nil
			}
			p.drop(n.CID)
			continue
		}
		if err != nil {
			return err
		}
		if each != nil {
			each(n.CID, length)
		}
		if err := p.Got(n.CID, length, data); err != nil {
			return err
		}
	}
}

// glance reads an inner node, but of a leaf only its length.
func (s *Store) glance(ctx context.Context, n Need) (int, []byte, error) {
	if n.Leaf {
		length, err := s.Size(ctx, n.CID)
		if err == nil && n.Size >= 0 && int64(length) != n.Size {
			err = fmt.Errorf("block %s has %d bytes, its parent says %d: %w", n.CID, length, n.Size, ErrCorrupt)
		}
		return length, nil, err
	}
	data, err := s.Get(ctx, n.CID)
	return len(data), data, err
}

// Complete reports whether all blocks of root are stored.
func (s *Store) Complete(ctx context.Context, root cid.Cid) bool {
	ok, err := s.CompleteSpan(ctx, Whole(root))
	return ok && err == nil
}

// CompleteSpan reports whether all blocks that the span needs are stored. A
// span that what is stored contradicts is an error.
func (s *Store) CompleteSpan(ctx context.Context, span Span) (bool, error) {
	p, err := NewPlan(span)
	if err != nil {
		return false, err
	}
	return s.Satisfy(ctx, p)
}

// Satisfy gives a new plan what is stored, until something is missing; it
// reports whether nothing is.
func (s *Store) Satisfy(ctx context.Context, p *Plan) (bool, error) {
	all := true
	err := s.fill(ctx, p, nil, func(cid.Cid) bool { all = false; return false })
	return all && err == nil, err
}
