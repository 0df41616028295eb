package transfer

import (
	"context"
	"errors"
	"io"

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
// that the peer is part of without a ticket. It holds one block at a time.
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
	for i, c := range a.blocks {
		if states[i] != follows {
			continue
		}
		if least == storage.Public {
			s.busy.mark(st.Peer())
		}
		data, err := s.read(ctx, c)
		if err != nil && !errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrCorrupt) {
			return err
		}
		// An empty message says that the block can't be had after all. The
		// empty block itself looks the same, and hashes right.
		if err := st.WriteMsg(data); err != nil {
			return err
		}
		s.metrics.served.Add(float64(len(data)))
	}
	return nil
}

// read takes a slot, so that many peers together do not flood the disk; slots
// are given in turn, and no peer holds one while it is slow to receive.
func (s *Service) read(ctx context.Context, c cid.Cid) ([]byte, error) {
	select {
	case s.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.reading }()
	return s.st.Get(ctx, c)
}
