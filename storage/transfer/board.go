package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/storage"
)

const (
	// maxAskers is how many peers may be asked for one block at the same time.
	maxAskers = 2
	// stallAfter is how long those asked for a block may take together before
	// one more is asked, as if they held it back.
	stallAfter = 10 * time.Second
	// stealAfter is how long a block is on its way before an idle peer is
	// asked for it too.
	stealAfter = 2 * time.Second
	// lookahead is how many blocks beyond those asked for are kept known.
	lookahead = 64
)

// board is one fetch's work: which blocks are needed, who was asked, what came.
type board struct {
	s        *Service
	st       *storage.Store
	w        *storage.Session // nil: what comes is not stored
	reading  bool             // what comes is read in order by Open's caller
	ctx      context.Context  // of the fetch; used while peers bring blocks
	want     Want
	progress func(done, total int64)
	over     chan struct{} // closed when all blocks came or the fetch failed

	mu     sync.Mutex
	plan   *storage.Plan
	free   []storage.Need // known, not asked for, in order
	order  []*job         // asked for, oldest first
	jobs   map[cid.Cid]*job
	lacks  map[peer.ID]map[cid.Cid]bool
	givers map[peer.ID]bool // at work
	wake   chan struct{}    // closed and replaced when there may be work
	ended  bool
	bytes  int64 // that peers brought
	proved bool  // a peer gave the root's first block without a ticket
	err    error
	blames []string

	reportMu sync.Mutex // one call of progress at a time
	told     time.Time
}

// job is a block that was asked for.
type job struct {
	need   storage.Need
	askers []peer.ID
	since  time.Time
	came   bool
}

func newBoard(ctx context.Context, s *Service, want Want, plan *storage.Plan, w *storage.Session, progress func(done, total int64)) *board {
	return &board{s: s, st: s.st, w: w, ctx: ctx, want: want, progress: progress, plan: plan, over: make(chan struct{}),
		jobs: map[cid.Cid]*job{}, lacks: map[peer.ID]map[cid.Cid]bool{}, givers: map[peer.ID]bool{}, wake: make(chan struct{})}
}

// begin takes what is stored; done means that nothing is missing.
func (b *board) begin() (done bool, err error) {
	b.mu.Lock()
	b.look()
	done, err = b.ended, b.err
	b.mu.Unlock()
	b.report(true)
	return done, err
}

// look finds blocks to ask for, taking those that are stored. b.mu is held.
func (b *board) look() {
	before := b.plan.Ready()
	for !b.ended && len(b.free) < lookahead && b.ctx.Err() == nil {
		n, ok := b.plan.Next()
		if !ok {
			break
		}
		here, err := b.local(n)
		if err != nil {
			b.end(err)
			return
		}
		if !here {
			b.free = append(b.free, n)
		}
	}
	if b.plan.Done() {
		b.end(nil)
	}
	if !before && b.plan.Ready() {
		b.rouse() // a reader waits for what was here
	}
}

func (b *board) local(n storage.Need) (bool, error) {
	ctx := b.ctx
	if b.w == nil {
		return b.localData(n)
	}
	here, err := b.w.Touch(ctx, n.CID)
	if err != nil {
		return false, err
	}
	if !here {
		// An empty leaf is in its CID. Nobody who speaks bitswap sends it: boxo's
		// servers, Kubo's too, take a block of no bytes for one that they lack.
		if !n.Leaf || n.Size > 0 || storage.Verify(n.CID, nil) != nil {
			return false, nil
		}
		if err := b.w.Put(ctx, n.CID, nil); err != nil {
			return false, err
		}
		return true, b.plan.Got(n.CID, 0, nil)
	}
	if n.Leaf && !b.reading {
		length, err := b.st.Size(ctx, n.CID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && n.Size >= 0 && int64(length) != n.Size {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, b.plan.Got(n.CID, length, nil)
	}
	return b.localData(n)
}

func (b *board) localData(n storage.Need) (bool, error) {
	data, err := b.st.Get(b.ctx, n.CID)
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrCorrupt) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, b.plan.Got(n.CID, len(data), data)
}

// full reports that the reader, not the peers, holds things up.
func (b *board) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reading && b.plan.Ready()
}

// brought is how many bytes peers gave so far.
func (b *board) brought() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// end finishes the fetch, once. b.mu is held.
func (b *board) end(err error) {
	if !b.ended {
		b.ended, b.err = true, err
		close(b.over)
	}
}

func (b *board) finished() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended
}

func (b *board) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// take gives the peer up to n blocks to ask for, waiting until there are some,
// or, if patience is not 0, so long. None means that patience ended, or that the
// peer has nothing more to do here.
func (b *board) take(ctx context.Context, id peer.ID, n int, patience time.Duration) []cid.Cid {
	begun := time.Now()
	for {
		b.mu.Lock()
		blocks := b.assign(id, n)
		stop := b.ended || ctx.Err() != nil || len(blocks) == 0 && b.hopeless(id)
		wake := b.wake
		b.mu.Unlock()
		if stop {
			return nil
		}
		if len(blocks) > 0 {
			return blocks
		}
		if patience > 0 && time.Since(begun) > patience {
			return nil
		}
		timer := time.NewTimer(stealAfter / 4)
		select {
		case <-wake:
		case <-timer.C:
		case <-b.over:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// assign is take without waiting. b.mu is held.
func (b *board) assign(id peer.ID, n int) []cid.Cid {
	b.givers[id] = true
	b.look()
	if givers := len(b.givers); givers > 1 && len(b.free) < lookahead {
		// What is left is all known: smaller and smaller asks, so that the givers
		// end together, however fast each is.
		n = min(n, max(len(b.free)/(2*givers), 1))
	}
	lacks := b.lacks[id]
	var out []cid.Cid
	now := time.Now()
	rest := b.free[:0]
	for _, need := range b.free {
		if len(out) >= n || lacks[need.CID] {
			rest = append(rest, need)
			continue
		}
		j := &job{need: need, askers: []peer.ID{id}, since: now}
		b.jobs[need.CID] = j
		b.order = append(b.order, j)
		out = append(out, need.CID)
	}
	b.free = rest
	if len(out) > 0 {
		return out
	}
	// Nothing new: share the load of whoever is slow.
	for _, j := range b.order {
		if len(out) >= max(1, n/4) {
			break
		}
		age := now.Sub(j.since)
		if j.came || age < stealAfter || len(j.askers) >= maxAskers && age < stallAfter || lacks[j.need.CID] || slices.Contains(j.askers, id) {
			continue
		}
		j.askers = append(j.askers, id)
		j.since = now
		out = append(out, j.need.CID)
		b.s.metrics.moved.Inc()
	}
	return out
}

// hopeless reports that the peer lacks all that is known to be needed. While a
// reader holds things up that is nothing, and what comes then it may have. b.mu is
// held.
func (b *board) hopeless(id peer.ID) bool {
	lacks := b.lacks[id]
	if len(lacks) == 0 || len(b.free)+len(b.jobs) == 0 {
		return false
	}
	for _, n := range b.free {
		if !lacks[n.CID] {
			return false
		}
	}
	for _, j := range b.jobs {
		if !lacks[j.need.CID] {
			return false
		}
	}
	return true
}

// gave takes a block that a peer sent. The error is the peer's fault. free, which
// may be nil, gets a leaf's bytes when they are not used any more.
func (b *board) gave(id peer.ID, c cid.Cid, data []byte, free func([]byte)) error {
	b.mu.Lock()
	j := b.jobs[c]
	if b.ended || j == nil || j.came {
		b.mu.Unlock()
		return nil // it came from another meanwhile
	}
	b.mu.Unlock()
	if err := b.keep(c, data); err != nil {
		if errors.Is(err, storage.ErrCorrupt) || errors.Is(err, storage.ErrNode) {
			b.s.metrics.liars.Inc()
			return fmt.Errorf("peer sent wrong bytes: %w", err)
		}
		b.mu.Lock()
		b.end(err)
		b.mu.Unlock()
		return nil
	}
	b.s.metrics.fetched.Add(float64(len(data)))
	b.mu.Lock()
	if j.came || b.ended {
		b.mu.Unlock()
		return nil
	}
	j.came = true
	b.bytes += int64(len(data))
	if c.Equals(b.want.Root) && len(b.want.Ticket) == 0 {
		b.proved = true
	}
	delete(b.jobs, c)
	b.trim()
	if err := b.got(c, data, free); err != nil {
		b.end(err) // the root itself is not usable, whoever gives it
	} else if err := b.tooLarge(); err != nil {
		b.end(err)
	} else {
		b.look()
	}
	b.rouse()
	b.mu.Unlock()
	b.report(false)
	return nil
}

// got gives the plan a block that was kept. A leaf's bytes are not needed once
// they are written or read. b.mu is held.
func (b *board) got(c cid.Cid, data []byte, free func([]byte)) error {
	switch {
	case c.Prefix().Codec != cid.Raw || free == nil:
		return b.plan.Got(c, len(data), data)
	case b.reading:
		return b.plan.Lend(c, data, func() { free(data) })
	}
	free(data) // the plan wants a leaf's length alone
	return b.plan.Got(c, len(data), nil)
}

// tooLarge compares what came, and what is said to come, with the limit. b.mu is
// held.
func (b *board) tooLarge() error {
	most := b.want.Limit
	if _, total := b.plan.Progress(); most > 0 && max(b.bytes, total) > most {
		return fmt.Errorf("%d bytes of at most %d: %w", max(b.bytes, total), most, ErrTooLarge)
	}
	return nil
}

// keep verifies a block and, unless it is only to be read, writes it.
func (b *board) keep(c cid.Cid, data []byte) error {
	if b.w == nil {
		return storage.Verify(c, data)
	}
	return b.w.Put(b.ctx, c, data)
}

// trim forgets jobs at the front that are done. b.mu is held.
func (b *board) trim() {
	i := 0
	for i < len(b.order) && b.order[i].came {
		i++
	}
	if b.order = b.order[i:]; len(b.order) > 4*len(b.jobs)+maxAsk {
		b.order = slices.DeleteFunc(b.order, func(j *job) bool { return j.came })
	}
}

// lack records that a peer does not have a block, which others may be asked for.
func (b *board) lack(id peer.ID, cs ...cid.Cid) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lacks[id] == nil {
		b.lacks[id] = map[cid.Cid]bool{}
	}
	for _, c := range cs {
		b.lacks[id][c] = true
		b.release(id, c)
	}
	b.rouse()
}

// leave gives back all that a peer was asked for and did not bring.
func (b *board) leave(id peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range slices.Clone(b.order) {
		if !j.came && slices.Contains(j.askers, id) {
			b.release(id, j.need.CID)
			b.s.metrics.moved.Inc()
		}
	}
	delete(b.lacks, id)
	delete(b.givers, id)
	b.rouse()
}

// release ends a peer's part in a job. b.mu is held.
func (b *board) release(id peer.ID, c cid.Cid) {
	j := b.jobs[c]
	if j == nil {
		return
	}
	j.askers = slices.DeleteFunc(j.askers, func(a peer.ID) bool { return a == id })
	if len(j.askers) > 0 {
		return
	}
	delete(b.jobs, c)
	j.came = true // for order; the need goes back
	b.trim()
	b.free = slices.Insert(b.free, 0, j.need)
}

// rouse wakes all that wait in take. b.mu is held.
func (b *board) rouse() {
	close(b.wake)
	b.wake = make(chan struct{})
}

const maxBlames = 8

// blame remembers why a peer could not give, for the error in the end.
func (b *board) blame(id peer.ID, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.blames) < maxBlames {
		who := "others"
		if id != "" {
			who = id.String()
		}
		b.blames = append(b.blames, fmt.Sprintf("%s: %v", who, err))
	}
	b.s.cfg.Log.Debug("peer could not give", "peer", id, "err", err)
}

func (b *board) unavailable() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.blames) == 0 {
		return ErrUnavailable
	}
	return fmt.Errorf("%w: %v", ErrUnavailable, b.blames)
}

// report calls progress, at most ten times a second unless now.
func (b *board) report(now bool) {
	if b.progress == nil {
		return
	}
	b.reportMu.Lock()
	defer b.reportMu.Unlock()
	t := time.Now()
	if !now && t.Sub(b.told) < 100*time.Millisecond {
		return
	}
	b.told = t
	b.mu.Lock()
	done, total := b.plan.Progress()
	b.mu.Unlock()
	b.progress(done, total)
}
