package storage

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Usage of the store's disk, in bytes.
type Usage struct {
	Bytes int64 `json:"bytes"` // blocks, deleted ones until a collection, and overhead
	Max   int64 `json:"max"`   // 0: no limit
	Free  int64 `json:"free"`  // on the disk; -1 when not known
}

// quota counts what sessions promised to write and have not yet.
type quota struct {
	mu       sync.Mutex
	promised int64
	free     int64 // when last asked
	asked    int64 // bytes promised since, also those that are written now
	last     time.Time
}

// Usage reports how full the store is.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	u := Usage{Bytes: s.blocks.used(), Max: s.cfg.MaxBytes, Free: -1}
	if s.cfg.Dir != "" {
		var err error
		if u.Free, err = DiskFree(s.cfg.Dir); err != nil {
			return Usage{}, fmt.Errorf("ask for free space of %s: %w", s.cfg.Dir, err)
		}
	}
	return u, nil
}

// Room fails with ErrFull, saying why, when n more bytes would not fit now.
func (s *Store) Room(n int64) error {
	s.quota.mu.Lock()
	defer s.quota.mu.Unlock()
	return s.roomLocked(n)
}

func (s *Store) roomLocked(n int64) error {
	q := &s.quota
	used := s.blocks.used()
	if m := s.cfg.MaxBytes; m > 0 && used+q.promised+n > m {
		return fmt.Errorf("%w: %d bytes more than the %d used would pass its limit of %d; unpin, collect garbage or raise the limit",
			ErrFull, n, used+q.promised, m)
	}
	if s.cfg.Dir == "" {
		return nil
	}
	full := func() bool { return q.free-q.asked-q.promised-n < s.cfg.MinFree }
	if q.last.IsZero() || q.asked+n > 64<<20 || time.Since(q.last) > 5*time.Second || full() {
		var err error
		if q.free, err = DiskFree(s.cfg.Dir); err != nil {
			return fmt.Errorf("ask for free space of %s: %w", s.cfg.Dir, err)
		}
		q.last, q.asked = time.Now(), 0
	}
	if full() {
		return fmt.Errorf("%w: %d bytes are free on its disk and %d are kept free; free some on the disk of %s",
			ErrFull, q.free, s.cfg.MinFree, s.cfg.Dir)
	}
	return nil
}

// reserve promises n bytes; unreserve takes a promise back, kept or not.
func (s *Store) reserve(n int64) error {
	s.quota.mu.Lock()
	defer s.quota.mu.Unlock()
	if err := s.roomLocked(n); err != nil {
		return err
	}
	s.quota.promised += n
	s.quota.asked += n
	return nil
}

func (s *Store) unreserve(n int64) {
	s.quota.mu.Lock()
	s.quota.promised -= n
	s.quota.mu.Unlock()
}
