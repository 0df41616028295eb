package storage

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Usage of the store's disk, in bytes.
type Usage struct {
	Bytes int64 `json:"bytes"` // blocks, and their files' overhead
	Max   int64 `json:"max"`   // 0: no limit
	Free  int64 `json:"free"`  // on the disk; -1 when not known
}

// quota counts what sessions promised to write and have not yet.
type quota struct {
	mu       sync.Mutex
	promised int64
	free     int64 // when last asked
	asked    int64 // bytes promised since
	last     time.Time
}

// Usage reports how full the store is.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	n, err := s.blocks.used(ctx)
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Bytes: n, Max: s.cfg.MaxBytes, Free: -1}
	if s.cfg.Dir != "" {
		if u.Free, err = diskFree(s.cfg.Dir); err != nil {
			return Usage{}, fmt.Errorf("ask for free space of %s: %w", s.cfg.Dir, err)
		}
	}
	return u, nil
}

// room fails with ErrFull when n more bytes would not fit.
func (s *Store) room(ctx context.Context, n int64) error {
	s.quota.mu.Lock()
	defer s.quota.mu.Unlock()
	return s.roomLocked(ctx, n)
}

func (s *Store) roomLocked(ctx context.Context, n int64) error {
	q := &s.quota
	used, err := s.blocks.used(ctx)
	if err != nil {
		return err
	}
	if m := s.cfg.MaxBytes; m > 0 && used+q.promised+n > m {
		return fmt.Errorf("%d bytes more than the %d used would pass the limit of %d; collect garbage, unpin or raise the limit: %w",
			n, used+q.promised, m, ErrFull)
	}
	if s.cfg.Dir == "" {
		return nil
	}
	if q.asked += n; q.last.IsZero() || q.asked > 64<<20 || time.Since(q.last) > 5*time.Second {
		if q.free, err = diskFree(s.cfg.Dir); err != nil {
			return fmt.Errorf("ask for free space of %s: %w", s.cfg.Dir, err)
		}
		q.last, q.asked = time.Now(), n
	}
	if q.free-q.asked-q.promised < s.cfg.MinFree {
		return fmt.Errorf("the disk of %s has %d bytes free and %d are kept free; free some: %w",
			s.cfg.Dir, q.free, s.cfg.MinFree, ErrFull)
	}
	return nil
}

// reserve promises n bytes; unreserve takes a promise back, kept or not.
func (s *Store) reserve(ctx context.Context, n int64) error {
	s.quota.mu.Lock()
	defer s.quota.mu.Unlock()
	if err := s.roomLocked(ctx, n); err != nil {
		return err
	}
	s.quota.promised += n
	return nil
}

func (s *Store) unreserve(n int64) {
	s.quota.mu.Lock()
	s.quota.promised -= n
	s.quota.mu.Unlock()
}
