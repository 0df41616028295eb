package market

import (
	"context"
	"time"
)

// sweep lets go of jobs that are past their retention: their rows and what was
// kept for them.
func (s *Service) sweep(ctx context.Context) {
	for {
		if err := s.sweepOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("sweep failed", "err", err)
		}
		if !sleep(ctx, s.cfg.Sweep) {
			return
		}
	}
}

func (s *Service) sweepOnce(ctx context.Context) error {
	now := s.cfg.Now()
	jobs, err := s.cfg.Store.Jobs(ctx)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		over := j.State.Over() || j.Forgotten
		since := j.Finished
		if since.IsZero() {
			since = j.Created
		}
		owed := j.Published && j.State.Over() && !j.Forgotten
		if !over || s.desk(j.ID) != nil || !expired(now, since, j.Retention) || owed && !expired(now, since, 7*24*time.Hour) {
			continue
		}
		if err := s.hall.ask(ctx, func(h *hall) { delete(h.adoptions, j.ID) }); err != nil {
			return err // it must not speak of what is gone
		}
		if err := s.cfg.Data.Release(ctx, j.ID); err != nil {
			return err
		}
		if err := s.cfg.Store.RemoveJob(ctx, j.ID); err != nil {
			return err
		}
		s.forgetHistory(j.ID)
	}
	if err := s.cfg.Store.TrimSaid(ctx, now.Add(-saidKept), saidMost); err != nil {
		return err
	}
	gone, err := s.cfg.Store.TrimTallies(ctx, now.Add(-tallyKept), tallyMost)
	if err != nil {
		return err
	}
	s.mu.Lock()
	for _, p := range gone {
		delete(s.tallies, p)
	}
	s.mu.Unlock()
	published, err := s.cfg.Store.Published(ctx)
	if err != nil {
		return err
	}
	for _, p := range published {
		if p.Answer == nil || !expired(now, p.Answered, p.Retention) {
			continue
		}
		if err := s.hall.ask(ctx, func(h *hall) { delete(h.submissions, p.ID) }); err != nil {
			return err
		}
		if err := s.cfg.Data.Release(ctx, p.ID); err != nil {
			return err
		}
		if err := s.cfg.Store.RemovePublished(ctx, p.ID); err != nil {
			return err
		}
	}
	return nil
}

// Verdicts on this node's work are kept for so long, and so many bytes of them.
const (
	saidKept = 30 * 24 * time.Hour
	saidMost = 64 << 20
)

// What peers' receipts came to is kept for so long after the last of them, of so
// many peers.
const (
	tallyKept = 180 * 24 * time.Hour
	tallyMost = 16 << 10
)

func expired(now, since time.Time, retention time.Duration) bool {
	return !now.Before(since.Add(retention))
}
