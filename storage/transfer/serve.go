package transfer

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/storage"
)

func (s *Service) serveMember(ctx context.Context, st *p2p.Stream) error {
	return s.serve(ctx, st, storage.Mesh)
}

func (s *Service) serveStranger(ctx context.Context, st *p2p.Stream) error {
	return s.serve(ctx, st, storage.Public)
}

// Asks taken from one stream in a second: each is several questions to the
// database, also where there is nothing to give.
const (
	memberAsks   = 200
	strangerAsks = 10
)

// serve answers asks until the peer is done. least is the narrowest audience
// that the peer is part of without a ticket. It holds three blocks at a time.
func (s *Service) serve(ctx context.Context, st *p2p.Stream, least storage.Audience) error {
	pace := rate.NewLimiter(memberAsks, 2*memberAsks)
	if least == storage.Public {
		pace = rate.NewLimiter(strangerAsks, 2*strangerAsks)
	}
	for {
		b, err := st.ReadMsg()
		if err == io.EOF || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := pace.Wait(ctx); err != nil {
			return nil // the host stops
		}
		a, err := parseAsk(b)
		if err != nil {
			return p2p.Refuse(p2p.CodeMalformed, "%v", err)
		}
		states, err := s.judge(ctx, st.Peer(), a, least)
		if err != nil {
			return err
		}
		if err := s.answer(ctx, st, a, states, least); err != nil {
			return err
		}
	}
}

// judge decides which blocks the peer gets.
func (s *Service) judge(ctx context.Context, from peer.ID, a ask, least storage.Audience) ([]state, error) {
	states := make([]state, len(a.blocks))
	root, err := s.st.Root(ctx, a.root)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	known := err == nil
	if known && root.Audience < least && least == storage.Mesh {
		if err := s.cfg.Check(ctx, from, a.root, a.ticket); err != nil {
			var r *p2p.Refusal
			if errors.As(err, &r) {
				return nil, r
			}
			return nil, p2p.Refuse(CodeTicket, "root %s: %v", a.root, err)
		}
	}
	held := make([]bool, len(a.blocks))
	if known && (root.Audience >= least || least == storage.Mesh) {
		if held, err = s.st.Belong(ctx, a.root, a.blocks); err != nil {
			return nil, err
		}
	}
	for i, c := range a.blocks {
		has, err := s.st.Has(ctx, c)
		if err != nil {
			return nil, err
		}
		if !has {
			continue
		}
		if !held[i] {
			// Another root may hold it, for a wide enough audience.
			aud, ok, err := s.st.Audience(ctx, c)
			if err != nil {
				return nil, err
			}
			if !ok || aud < least {
				if least == storage.Mesh {
					states[i] = refused // a stranger is not told what is here
				}
				continue
			}
		}
		states[i] = follows
	}
	return states, nil
}

func (s *Service) answer(ctx context.Context, st *p2p.Stream, a ask, states []state, least storage.Audience) error {
	b, err := marshalAnswer(states)
	if err != nil {
		return err
	}
	if err := st.WriteMsg(b); err != nil {
		return err
	}
	// The next block is read while one is sent.
	ctx, cancel := context.WithCancel(ctx)
	ahead := make(chan readBlock, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(ahead)
		for i, c := range a.blocks {
			if states[i] != follows {
				continue
			}
			r := s.read(ctx, c)
			select {
			case ahead <- r:
			case <-ctx.Done():
				r.free()
				return
			}
		}
	})
	defer func() {
		cancel()
		for r := range ahead {
			r.free()
		}
		reading.Wait()
	}()
	for r := range ahead {
		if least == storage.Public {
			s.busy.mark(st.Peer())
		}
		if err := r.err; err != nil && !errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrCorrupt) {
			r.free()
			return err
		}
		// An empty message says that the block can't be had after all. The
		// empty block itself looks the same, and hashes right.
		err := st.WriteMsg(r.data)
		r.free()
		if err != nil {
			return err
		}
		s.metrics.served.Add(float64(len(r.data)))
	}
	return ctx.Err()
}

// readBlock is a block on its way from the disk to a stream.
type readBlock struct {
	data []byte
	err  error
	buf  *[]byte // that data may lie in
}

// sendBuffers hold what is being sent.
var sendBuffers = sync.Pool{New: func() any { return new([]byte) }}

func (r readBlock) free() {
	if r.buf != nil {
		sendBuffers.Put(r.buf)
	}
}

// read takes a slot, so that many peers together do not flood the disk; slots
// are given in turn, and no peer holds one while it is slow to receive.
func (s *Service) read(ctx context.Context, c cid.Cid) (r readBlock) {
	select {
	case s.reading <- struct{}{}:
	case <-ctx.Done():
		return readBlock{err: ctx.Err()}
	}
	defer func() { <-s.reading }()
	n, err := s.st.Size(ctx, c)
	if err != nil {
		return readBlock{err: err}
	}
	r.buf = sendBuffers.Get().(*[]byte)
	if need := n + storage.ReadRoom; cap(*r.buf) < need {
		*r.buf = make([]byte, 0, need)
	}
	r.data, r.err = s.st.Send(ctx, c, *r.buf)
	return r
}
