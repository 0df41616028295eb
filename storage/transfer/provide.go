package transfer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/kith-mesh/kith/storage"
)

// Provide announces that this node has root, if its audience may find it so: a
// job's root is fetched from those who are known to have it.
func (s *Service) Provide(ctx context.Context, root cid.Cid) error {
	if s.cfg.Providers == nil {
		return nil
	}
	r, err := s.st.Root(ctx, root)
	if err != nil {
		return fmt.Errorf("provide: %w", err)
	}
	if r.Audience < storage.Mesh {
		return nil
	}
	if err := s.cfg.Providers.Provide(ctx, root); err != nil {
		return fmt.Errorf("provide %s: %w", root, err)
	}
	return s.st.Provided(ctx, root, s.cfg.Now())
}

// ProvideSoon makes Run announce pinned roots that were not yet, without
// waiting for its next turn.
func (s *Service) ProvideSoon() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

const (
	provideTurn  = 5 * time.Minute
	provideRetry = 15 * time.Second
	provideBatch = 64
	provideWait  = time.Minute
)

func (s *Service) provideLoop(ctx context.Context) {
	timer := time.NewTimer(provideRetry)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
		}
		next := provideTurn
		if s.provideDue(ctx) {
			next = provideRetry
		}
		timer.Reset(next)
	}
}

// provideDue announces what is due, and reports whether something is left.
func (s *Service) provideDue(ctx context.Context) (left bool) {
	for {
		roots, err := s.st.Unprovided(ctx, s.cfg.Now().Add(-s.cfg.Reprovide), provideBatch)
		if err != nil {
			s.cfg.Log.Error("roots to announce are not known", "err", err)
			return true
		}
		for _, r := range roots {
			one, cancel := context.WithTimeout(ctx, provideWait)
			err := s.Provide(one, r.CID)
			cancel()
			if ctx.Err() != nil {
				return true
			}
			if err != nil && !errors.Is(err, storage.ErrNotFound) {
				s.cfg.Log.Debug("root not announced", "root", r.CID.String(), "err", err)
				return true
			}
		}
		if len(roots) < provideBatch {
			return false
		}
	}
}
