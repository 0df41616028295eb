package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/kith-mesh/kith/storage"
	"github.com/kith-mesh/kith/storage/transfer"
	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/market"
)

// Damaged blocks are read or fetched again as soon as a read finds them, and then so often.
const (
	mendEvery = 30 * time.Second
	mendTime  = 2 * time.Minute // for one root
	fewBlocks = 3               // are named; more are counted
)

const mendFix = "add the same file again with kith add, or connect a member that has it; 'kith doctor' lists what is damaged"

// mender reads or fetches again, from whoever has them, stored blocks that a read
// found damaged.
type mender struct {
	found    chan struct{} // holds one token when there is something new
	repaired chan struct{} // the same, when something is whole again

	// Of the blocks that are still damaged, what was said of them last; mend's alone.
	said map[cid.Cid]failure
}

// failure is why a block could not be fetched, and how often.
type failure struct {
	why   string
	tries int
}

func newMender() *mender {
	return &mender{found: make(chan struct{}, 1), repaired: make(chan struct{}, 1), said: map[cid.Cid]failure{}}
}

// failed logs that a block could not be fetched: aloud once, and again when the
// cause is another.
func (m *mender) failed(log *slog.Logger, block cid.Cid, err error) {
	f, known := m.said[block]
	why := err.Error()
	if errors.Is(err, transfer.ErrUnavailable) {
		why = transfer.ErrUnavailable.Error() // whoever was asked, and in what order
	}
	level := slog.LevelWarn
	if known && f.why == why {
		level = slog.LevelDebug
	} else {
		f.why = why
	}
	f.tries++
	m.said[block] = f
	log.Log(context.Background(), level, "damaged block could not be fetched again", "cid", block.String(), "tries", f.tries, "err", err)
}

// only forgets what was said of blocks that are no longer damaged.
func (m *mender) only(damage []storage.Damage) {
	still := map[cid.Cid]bool{}
	for _, d := range damage {
		still[d.Block] = true
	}
	maps.DeleteFunc(m.said, func(c cid.Cid, _ failure) bool { return !still[c] })
}

// hear is told of each damaged block.
func (m *mender) hear(cid.Cid) {
	select {
	case m.found <- struct{}{}:
	default:
	}
}

// hearRepair is told when some of them are whole again.
func (m *mender) hearRepair() {
	select {
	case m.repaired <- struct{}{}:
	default:
	}
}

// tellRepairs tells the market, which may read blocks itself, and wait for none that
// is being fetched.
func (n *Node) tellRepairs(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.mender.repaired:
			n.market.InputsBack()
		}
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
		n.mender.only(damage)
		tried := map[cid.Cid]error{}
		for _, d := range damage {
			n.mendBlock(ctx, d, tried)
		}
	}
}

// mendBlock reads the block once more, since a disk may fail for a moment only, and
// else tries its roots until one brought it. A root that was tried before, for another
// of its blocks, is not tried again.
func (n *Node) mendBlock(ctx context.Context, d storage.Damage, tried map[cid.Cid]error) {
	if _, err := n.store.Get(ctx, d.Block); err == nil {
		n.log.Info("damaged block is whole again", "cid", d.Block.String())
		return
	}
	var failed error
	for _, r := range d.Roots {
		err, known := tried[r.CID]
		if !known {
			tctx, stop := context.WithTimeout(ctx, mendTime)
			err = n.transfer.Fetch(tctx, transfer.Want{Root: r.CID, Length: -1}, nil)
			stop()
			tried[r.CID] = err
		}
		if err == nil {
			n.log.Info("damaged block fetched again", "cid", d.Block.String(), "root", r.CID.String())
			return
		}
		failed = errors.Join(failed, err)
	}
	if ctx.Err() == nil {
		n.mender.failed(n.log, d.Block, failed)
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
	err := m.open()
	if lost(err) {
		err = m.again(err)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func lost(err error) bool {
	return errors.Is(err, storage.ErrCorrupt) || errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrIncomplete)
}

// open opens what is left.
func (m *mended) open() error {
	s := m.span
	r, err := m.d.store.Open(m.ctx, s.Root, s.Path, s.Offset, s.Length)
	if err != nil {
		return err
	}
	if m.r != nil {
		m.r.Close() // nothing can fail: it only lets go
	}
	m.r = r
	return nil
}

func (m *mended) Read(b []byte) (int, error) {
	for {
		n, err := m.r.Read(b)
		m.passed(int64(n))
		if n > 0 || !lost(err) {
			return n, err
		}
		if err := m.again(err); err != nil {
			return 0, err
		}
	}
}

// WriteTo leaves the copying to the store's reader.
func (m *mended) WriteTo(w io.Writer) (total int64, err error) {
	for {
		n, err := io.Copy(w, m.r)
		m.passed(n)
		if total += n; !lost(err) {
			return total, err
		}
		if err := m.again(err); err != nil {
			return total, err
		}
	}
}

// passed takes n bytes off what is still to be read.
func (m *mended) passed(n int64) {
	m.span.Offset += n
	if m.span.Length >= 0 {
		m.span.Length -= n
	}
	m.fresh = m.fresh && n == 0
}

// again fetches and opens what is left, after opening it or a read failed with err.
func (m *mended) again(err error) error {
	if m.fresh { // and is not there all the same
		return m.d.hurt(m.ctx, m.span.Root, err)
	}
	m.fresh = true
	if err := m.d.bring(m.ctx, m.span, nil, nil); err != nil {
		return err
	}
	return m.open()
}

func (m *mended) Close() error { return m.r.Close() }

var _ market.Damages = (*jobData)(nil)
