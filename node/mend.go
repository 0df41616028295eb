package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/storage/transfer"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
)

// Damaged blocks are fetched again as soon as a read finds them, and then so often.
const (
	mendEvery = 30 * time.Second
	mendTime  = 2 * time.Minute // for one root
	fewBlocks = 3               // are named; more are counted
)

const mendFix = "add the same file again with kith add, or connect a member that has it; 'kith doctor' lists what is damaged"

// mender fetches again, from whoever has them, stored blocks that a read found
// damaged.
type mender struct {
	found chan struct{} // holds one token when there is something new
}

func newMender() *mender { return &mender{found: make(chan struct{}, 1)} }

// hear is told of each damaged block.
func (m *mender) hear(cid.Cid) {
	select {
	case m.found <- struct{}{}:
	default:
	}
}

func (n *Node) mend(ctx context.Context) error {
	tick := time.NewTicker(mendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.mender.found:
		case <-tick.C:
		}
		damage, err := n.store.Damaged(ctx)
		if err != nil {
			if ctx.Err() == nil {
				n.log.Error("damaged blocks not listed", "err", err)
			}
			continue
		}
		for _, d := range damage {
			n.mendBlock(ctx, d)
		}
	}
}

// mendBlock tries the block's roots until one brought it.
func (n *Node) mendBlock(ctx context.Context, d storage.Damage) {
	var failed error
	for _, r := range d.Roots {
		tctx, stop := context.WithTimeout(ctx, mendTime)
		err := n.transfer.Fetch(tctx, transfer.Want{Root: r.CID, Length: -1}, nil)
		stop()
		if err == nil {
			n.log.Info("damaged block fetched again", "cid", d.Block.String(), "root", r.CID.String())
			return
		}
		failed = errors.Join(failed, err)
	}
	if ctx.Err() == nil {
		n.log.Warn("damaged block could not be fetched again", "cid", d.Block.String(), "err", failed)
	}
}

// damageUnder names what is damaged among the blocks of the roots, or "".
func damageUnder(ctx context.Context, store *storage.Store, roots map[cid.Cid]bool) string {
	list, err := store.Damaged(ctx)
	if err != nil {
		return ""
	}
	var names []string
	for _, d := range list {
		for _, r := range d.Roots {
			if !roots[r.CID] {
				continue
			}
			name := "block " + d.Block.String()
			if r.CID != d.Block {
				name += " of " + r.CID.String()
			}
			names = append(names, name)
			break
		}
	}
	return countedBlocks(names)
}

// countedBlocks names a few damaged blocks.
func countedBlocks(names []string) string {
	switch n := len(names); {
	case n == 0:
		return ""
	case n == 1:
		return names[0] + " is damaged on this node's disk"
	case n <= fewBlocks:
		return strings.Join(names, ", ") + " are damaged on this node's disk"
	default:
		return fmt.Sprintf("%s and %d more are damaged on this node's disk", strings.Join(names[:fewBlocks], ", "), n-fewBlocks)
	}
}

// Damaged says which blocks that a job keeps here are damaged, or "".
func (d *jobData) Damaged(ctx context.Context, roots []tasks.CID) string {
	of := map[cid.Cid]bool{}
	for _, r := range roots {
		if c, err := decode(r); err == nil {
			of[c] = true
		}
	}
	if text := damageUnder(ctx, d.store, of); text != "" {
		return text + ", and fetched again as soon as a member has it: " + mendFix
	}
	return ""
}

// lossy tells a job's reader of what is lost in the market's word.
type lossy struct{ io.ReadCloser }

func (l lossy) Read(b []byte) (int, error) {
	n, err := l.ReadCloser.Read(b)
	return n, lossOf(err)
}

func lossOf(err error) error {
	if lost(err) {
		return fmt.Errorf("%w: %w", market.ErrLost, err)
	}
	return err
}

// hurt adds to an error of the store or of a fetch which blocks of root are damaged.
func (d *dataBackend) hurt(ctx context.Context, root cid.Cid, err error) error {
	if !errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrIncomplete) && !errors.Is(err, transfer.ErrUnavailable) {
		return err
	}
	if text := damageUnder(ctx, d.store, map[cid.Cid]bool{root: true}); text != "" {
		return &damagedError{text, err}
	}
	return err
}

// damagedError is a read that met damaged blocks that nobody else gave.
type damagedError struct {
	what string
	err  error
}

func (e *damagedError) Error() string { return e.what + ": " + e.err.Error() }
func (e *damagedError) Unwrap() error { return e.err }

// mended reads a span from the store, and fetches again what it finds damaged or
// gone on its way.
type mended struct {
	ctx   context.Context
	d     *dataBackend
	span  storage.Span // what is still to be read
	r     io.ReadCloser
	fresh bool // what it reads was just fetched
}

func (d *dataBackend) openMended(ctx context.Context, span storage.Span) (io.ReadCloser, error) {
	m := &mended{ctx: ctx, d: d, span: span}
	if err := m.open(); err != nil {
		return nil, err
	}
	return m, nil
}

func lost(err error) bool {
	return errors.Is(err, storage.ErrCorrupt) || errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrIncomplete)
}

// open opens what is left; a root that is damaged is fetched again, once.
func (m *mended) open() (err error) {
	s := m.span
	m.r, err = m.d.store.Open(m.ctx, s.Root, s.Path, s.Offset, s.Length)
	if !lost(err) {
		return err
	}
	m.fresh = true
	if err := m.d.bring(m.ctx, s, nil, nil); err != nil {
		return err
	}
	m.r, err = m.d.store.Open(m.ctx, s.Root, s.Path, s.Offset, s.Length)
	return err
}

func (m *mended) Read(b []byte) (int, error) {
	for {
		n, err := m.r.Read(b)
		m.span.Offset += int64(n)
		if m.span.Length >= 0 {
			m.span.Length -= int64(n)
		}
		if n > 0 || !lost(err) {
			m.fresh = m.fresh && n == 0
			return n, err
		}
		if m.fresh { // and is not there all the same
			return 0, m.d.hurt(m.ctx, m.span.Root, err)
		}
		m.fresh = true
		if err := m.d.bring(m.ctx, m.span, nil, nil); err != nil {
			return 0, err
		}
		again, err := m.d.store.Open(m.ctx, m.span.Root, m.span.Path, m.span.Offset, m.span.Length)
		if err != nil {
			return 0, err
		}
		m.r.Close() // nothing can fail: it only lets go
		m.r = again
	}
}

func (m *mended) Close() error { return m.r.Close() }

var _ market.Damages = (*jobData)(nil)
