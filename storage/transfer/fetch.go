package transfer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/storage"
)

// ErrUnavailable: no peer that could be asked has all the blocks. Ask again
// when more peers are connected, or give hints.
var ErrUnavailable = errors.New("no reachable peer has it")

// ErrTooLarge: there are more bytes than the Want's Limit.
var ErrTooLarge = errors.New("larger than is wanted")

// Want is what to fetch.
type Want struct {
	Root           cid.Cid
	Path           string
	Offset, Length int64 // of a file; Length -1: to the end
	// Ticket opens a job's root at those who accept it. A root fetched by a
	// ticket is served on to nobody without one.
	Ticket []byte
	// From are peers to ask first.
	From []peer.ID
	// Limit is how many bytes of blocks peers may give; 0: no limit but the
	// store's. More is ErrTooLarge.
	Limit int64
	// Stall ends a fetch as ErrUnavailable when peers gave less than half a MiB
	// in that time; 0: it goes on as long as somebody gives anything.
	Stall time.Duration
}

// All is the Want for a whole root.
func All(root cid.Cid, from ...peer.ID) Want { return Want{Root: root, Length: -1, From: from} }

func (w Want) span() storage.Span {
	return storage.Span{Root: w.Root, Path: w.Path, Offset: w.Offset, Length: w.Length}
}

func (w Want) check() error {
	if err := w.span().Check(); err != nil {
		return err
	}
	if len(w.Ticket) > maxTicket || len(w.From) > maxHints {
		return fmt.Errorf("a ticket of %d bytes and %d hints: at most %d and %d", len(w.Ticket), len(w.From), maxTicket, maxHints)
	}
	return nil
}

const (
	maxHints = 64
	// A fetch that brings fewer than slowBytes in slowAfter asks one peer more
	// at once, at most maxExtra beside Config.Peers.
	slowAfter = 10 * time.Second
	slowBytes = 512 << 10
	maxExtra  = 12
)

// flightKey names equal fetches.
type flightKey struct {
	span   storage.Span
	ticket string
}

// flight is a fetch that others may wait for.
type flight struct {
	done chan struct{}
	err  error
}

// Fetch brings the blocks that the span needs into the store and returns when
// they survive a crash. What is stored already is not fetched again. progress
// is called now and then with bytes had so far and in all (-1: not known yet).
//
// The blocks are kept until Fetch returns; a caller who wants them longer pins
// the root or holds its Use from before the call. Fetches of the same span
// wait for the one that is going on; they see no progress.
func (s *Service) Fetch(ctx context.Context, want Want, progress func(done, total int64)) error {
	if err := want.check(); err != nil {
		return fmt.Errorf("fetch %s: %w", want.Root, err)
	}
	k := flightKey{want.span(), string(want.Ticket)}
	for {
		s.mu.Lock()
		f, ok := s.flights[k]
		if !ok {
			f = &flight{done: make(chan struct{})}
			s.flights[k] = f
		}
		s.mu.Unlock()
		if !ok {
			f.err = s.fetch(ctx, want, progress)
			s.mu.Lock()
			delete(s.flights, k)
			s.mu.Unlock()
			close(f.done)
			return f.err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return fmt.Errorf("fetch %s: %w", want.Root, ctx.Err())
		}
		if f.err == nil {
			return nil
		}
		// It had its own context and hints: try with ours.
	}
}

func (s *Service) fetch(ctx context.Context, want Want, progress func(done, total int64)) (err error) {
	fail := func(err error) error { return fmt.Errorf("fetch %s: %w", want.Root, err) }
	defer s.st.Use(want.Root)()
	if done, err := s.here(ctx, want, progress); err != nil {
		return fail(err)
	} else if done {
		return nil
	}
	plan, err := storage.NewPlan(want.span())
	if err != nil {
		return fail(err)
	}
	w, err := s.begin(ctx, want)
	if err != nil {
		return fail(err)
	}
	b := newBoard(ctx, s, want, plan, w, progress)
	if err := s.settle(ctx, want, b, s.gather(ctx, want, b)); err != nil {
		return fail(err)
	}
	b.report(true)
	return nil
}

// begin starts storing what a want brings.
func (s *Service) begin(ctx context.Context, want Want) (*storage.Session, error) {
	audience := storage.Nobody
	if len(want.Ticket) > 0 {
		audience = storage.Job
	}
	return s.st.Begin(ctx, want.Root, audience)
}

// settle makes what came survive a crash, also of a fetch that failed or was given
// up: the next one goes on from there. err is how gathering ended.
func (s *Service) settle(ctx context.Context, want Want, b *board, err error) error {
	ctx = context.WithoutCancel(ctx)
	err = errors.Join(err, b.w.Flush(ctx))
	if b.proved {
		err = errors.Join(err, s.passOn(ctx, want.Root))
	}
	b.w.Close()
	return err
}

// here is the short way for what is stored already: nothing is written.
func (s *Service) here(ctx context.Context, want Want, progress func(done, total int64)) (bool, error) {
	plan, err := storage.NewPlan(want.span())
	if err != nil {
		return false, err
	}
	all, err := s.st.Satisfy(ctx, plan)
	if all && err == nil && progress != nil {
		progress(plan.Progress())
	}
	return all, err
}

// passOn lets members have a root whose first block a peer gave without a
// ticket. What came with one stays the job's.
func (s *Service) passOn(ctx context.Context, root cid.Cid) error {
	r, err := s.st.Root(ctx, root)
	if err != nil {
		return err
	}
	if r.Audience != storage.Nobody {
		return nil
	}
	return s.st.Share(ctx, root, storage.Mesh)
}

// gather brings what the board lacks, within the want's pace.
func (s *Service) gather(ctx context.Context, want Want, b *board) error {
	if done, err := b.begin(); done || err != nil {
		return err
	}
	if want.Stall <= 0 {
		return s.gatherAll(ctx, want, b)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var pacing sync.WaitGroup
	pacing.Go(func() {
		tick := time.NewTicker(want.Stall)
		defer tick.Stop()
		for before := int64(0); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			now := b.brought()
			if now-before < slowBytes {
				cancel(fmt.Errorf("%w: %d bytes came in %v", ErrUnavailable, now-before, want.Stall))
				return
			}
			before = now
		}
	})
	err := s.gatherAll(ctx, want, b)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrUnavailable) {
		err = cause
	}
	cancel(nil)
	pacing.Wait()
	return err
}

// gatherAll runs peers against the board until it is done or nobody is left:
// first the hints, then who says that it has the root, then connected members,
// then whoever speaks bitswap. A job's root is at those who are hinted.
func (s *Service) gatherAll(ctx context.Context, want Want, b *board) error {
	ctx, cancel := context.WithCancel(ctx)
	crew := &crew{s: s, want: want, b: b, left: make(chan struct{}), tried: map[peer.ID]bool{s.h.ID(): true}}
	// Every goroutine of the crew ends before the session does.
	defer func() {
		cancel()
		crew.drain()
	}()
	crew.queue(want.From...)
	var more []func(context.Context) []peer.ID
	if len(want.Ticket) == 0 {
		more = append(more, func(ctx context.Context) []peer.ID { return s.providers(ctx, want.Root) }, s.members)
	}
	pace := time.NewTicker(slowAfter)
	defer pace.Stop()
	var before int64
	for {
		crew.hire(ctx)
		if crew.working == 0 {
			if len(more) == 0 {
				break
			}
			crew.queue(more[0](ctx)...)
			more = more[1:]
			continue
		}
		select {
		case <-pace.C:
			// Whoever gives next to nothing must not keep better ones waiting.
			now := b.brought()
			slow := now-before < slowBytes
			before = now
			if !slow || crew.extra >= maxExtra || b.full() {
				continue
			}
			crew.extra++
			if len(crew.next) == 0 && len(more) > 0 {
				crew.queue(crew.find(ctx, more[0])...)
				more = more[1:]
			}
		case <-b.over:
			return b.failure()
		case <-crew.left:
			crew.working--
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !b.finished() && len(want.Ticket) == 0 {
		if err := s.fetchBitswap(ctx, want, b); err != nil {
			b.blame("", err)
		}
	}
	if b.finished() {
		return b.failure()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return b.unavailable()
}

// crew is the peers at work on one fetch.
type crew struct {
	s       *Service
	want    Want
	b       *board
	next    []peer.ID
	tried   map[peer.ID]bool
	working int
	extra   int // more at once than Config.Peers
	left    chan struct{}
}

// find asks for more peers, no longer than the fetch lasts.
func (c *crew) find(ctx context.Context, f func(context.Context) []peer.ID) []peer.ID {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan []peer.ID, 1)
	go func() { found <- f(ctx) }()
	select {
	case <-c.b.over:
		cancel()
	case ids := <-found:
		return ids
	}
	return <-found
}

func (c *crew) queue(ids ...peer.ID) {
	for _, id := range ids {
		if !c.tried[id] {
			c.tried[id] = true
			c.next = append(c.next, id)
		}
	}
}

func (c *crew) hire(ctx context.Context) {
	for c.working < c.s.cfg.Peers+c.extra && len(c.next) > 0 {
		id := c.next[0]
		c.next = c.next[1:]
		c.working++
		go func() {
			g := giver{s: c.s, id: id, want: c.want, b: c.b}
			if err := g.run(ctx); err != nil && ctx.Err() == nil {
				c.b.blame(id, err)
			}
			c.b.leave(id)
			c.left <- struct{}{}
		}()
	}
}

func (c *crew) drain() {
	for ; c.working > 0; c.working-- {
		<-c.left
	}
}

const (
	maxProviders  = 20
	providersWait = 15 * time.Second
)

func (s *Service) providers(ctx context.Context, root cid.Cid) []peer.ID {
	if s.cfg.Providers == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, providersWait)
	defer cancel()
	infos, err := s.cfg.Providers.FindProviders(ctx, root, maxProviders)
	if err != nil {
		s.cfg.Log.Debug("no providers found", "root", root.String(), "err", err)
	}
	ids := make([]peer.ID, 0, len(infos))
	for _, i := range infos {
		ids = append(ids, i.ID)
	}
	return ids
}

// maxMembers is how many connected members are asked when nobody is known to
// have a root.
const maxMembers = 16

func (s *Service) members(context.Context) []peer.ID {
	var ids []peer.ID
	for _, m := range s.h.Members() {
		if m.Path != p2p.PathRelayed && len(ids) < maxMembers {
			ids = append(ids, m.ID)
		}
	}
	return ids
}
