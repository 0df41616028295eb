package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
)

// giver asks one peer for blocks. Two asks are on their way at any time, so
// that the peer never waits for us; what it sends is read while what it sent
// before is verified and written.
type giver struct {
	s    *Service
	id   peer.ID
	want Want
	b    *board
}

var errLacks = errors.New("it does not have the blocks")

// batch is one ask.
type batch struct {
	blocks []cid.Cid
	sent   time.Time
}

type arrival struct {
	c    cid.Cid
	data []byte
}

// open opens a stream to a member, or else for public blocks to a stranger.
func (g *giver) open(ctx context.Context) (*p2p.Stream, error) {
	st, err := g.s.h.Open(ctx, g.id, Blocks)
	if err == nil || !errors.Is(err, p2p.ErrStranger) || len(g.want.Ticket) > 0 {
		return st, err
	}
	return g.s.h.Open(ctx, g.id, PublicBlocks)
}

// idleAfter ends a stream that has nothing to ask for; the other side would
// end it soon. A new one is opened when there is work again.
const idleAfter = 10 * time.Second

// run works until the board has nothing more for this peer.
func (g *giver) run(ctx context.Context) error {
	for refused := 0; ; {
		blocks := g.b.take(ctx, g.id, g.first(), 0)
		if len(blocks) == 0 {
			if g.b.finished() || ctx.Err() != nil {
				return nil
			}
			return errLacks
		}
		err := g.session(ctx, blocks)
		if err == nil {
			refused = 0
			continue
		}
		var r *p2p.Refusal
		if !errors.As(err, &r) || r.Code != p2p.CodeBusy && r.Code != p2p.CodeRate || refused == maxRefused {
			return err
		}
		// It has the blocks, and more to do than it may at once: others may take
		// them meanwhile.
		refused++
		g.b.leave(g.id)
		wait := time.NewTimer(min(max(r.RetryAfter, 10*time.Millisecond), 5*time.Second))
		select {
		case <-wait.C:
		case <-g.b.over:
		case <-ctx.Done():
		}
		wait.Stop()
	}
}

// maxRefused is how often in a row a busy peer is asked again.
const maxRefused = 60

func (g *giver) first() int { return min(8, g.s.cfg.Window/2) }

// session is the life of one stream.
func (g *giver) session(ctx context.Context, blocks []cid.Cid) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	st, err := g.open(ctx)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, st.Reset)()

	asked := make(chan batch)
	size := make(chan int, 1) // how many blocks the next ask may have
	size <- g.first()
	arrivals := make(chan arrival, 4)
	const parts = 2 + acceptors
	results := make(chan error, parts)
	end := func(err error) {
		if err != nil {
			cancel(err)
		}
		results <- err
	}
	go func() { end(g.ask(ctx, st, blocks, asked, size)) }()
	go func() { end(g.read(ctx, st, asked, size, arrivals)) }()
	for range acceptors {
		go func() { end(g.accept(arrivals)) }()
	}
	var first error
	for range parts {
		if err := <-results; err != nil && first == nil {
			first = err
		}
	}
	if cause := context.Cause(ctx); first != nil && cause != nil {
		first = cause
	}
	_ = st.Close() // all that was to come has come
	return first
}

// ask sends asks until there is no more work for the peer. It closes asked.
func (g *giver) ask(ctx context.Context, st *p2p.Stream, blocks []cid.Cid, asked chan<- batch, size chan int) error {
	defer close(asked)
	for ; len(blocks) > 0; blocks = g.more(ctx, size) {
		b, err := ask{root: g.want.Root, ticket: g.want.Ticket, blocks: blocks}.marshal()
		if err != nil {
			return err
		}
		sent := time.Now()
		if err := st.WriteMsg(b); err != nil {
			return err
		}
		select {
		case asked <- batch{blocks, sent}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return st.CloseWrite()
}

func (g *giver) more(ctx context.Context, size chan int) []cid.Cid {
	n := <-size
	size <- n
	return g.b.take(ctx, g.id, n, idleAfter)
}

// read takes answers and blocks off the stream. It closes arrivals.
func (g *giver) read(ctx context.Context, st *p2p.Stream, asked <-chan batch, size chan int, arrivals chan<- arrival) error {
	defer close(arrivals)
	for b := range asked {
		msg, err := st.ReadMsg()
		if err != nil {
			return g.readErr(err)
		}
		states, err := parseAnswer(msg, len(b.blocks))
		if err != nil {
			return err
		}
		var missing []cid.Cid
		for i, c := range b.blocks {
			if states[i] != follows {
				missing = append(missing, c)
			}
		}
		if len(missing) > 0 {
			g.b.lack(g.id, missing...)
		}
		for i, c := range b.blocks {
			if states[i] != follows {
				continue
			}
			data, err := st.ReadMsgPooled()
			if err != nil {
				return g.readErr(err)
			}
			select {
			case arrivals <- arrival{c, data}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		g.resize(size, len(b.blocks), time.Since(b.sent))
	}
	return nil
}

func (g *giver) readErr(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("it hung up: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// resize aims at asks that take about a second: large for the fast, so that
// the pipe never dries up, and small for the slow, whose blocks others take.
func (g *giver) resize(size chan int, n int, took time.Duration) {
	cur := <-size
	switch {
	case took < time.Second && n >= cur:
		cur = min(2*cur, g.s.cfg.Window/2)
	case took > 4*time.Second:
		cur = max(cur/2, 1)
	}
	size <- cur
}

// acceptors verify one peer's blocks at once.
const acceptors = 2

// accept verifies and stores what came.
func (g *giver) accept(arrivals <-chan arrival) error {
	for a := range arrivals {
		if len(a.data) == 0 && !isEmpty(a.c) {
			g.b.lack(g.id, a.c)
			continue
		}
		if err := g.b.gave(g.id, a.c, a.data, p2p.FreeMsg); err != nil {
			g.s.cfg.Log.Warn("peer misbehaved", "peer", g.id, "protocol", Blocks.Name, "err", err)
			return err // read stops with the context
		}
	}
	return nil
}

func isEmpty(c cid.Cid) bool {
	e, err := c.Prefix().Sum(nil)
	return err == nil && e.Equals(c)
}
