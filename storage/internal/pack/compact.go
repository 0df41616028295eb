package pack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
)

// wasteful is the share of a pack, one in so many bytes, that must be deleted
// for the rest to be copied.
const wasteful = 8

// Compact gives room back: of each pack of which an eighth or more is deleted,
// what is left goes to the newest pack, and the file is removed. It needs room
// for one pack's rest at a time.
func (s *Store) Compact(ctx context.Context) error {
	s.compacts.Lock()
	defer s.compacts.Unlock()
	if s.closed.Load() {
		return ErrClosed
	}
	s.appends.Lock()
	if p := s.active; p != nil && p.written.Load() > fileHead && s.wastes(p) {
		// Begin another pack, so that this one can be done like the rest.
		s.active = nil
		s.seal(p)
	}
	s.appends.Unlock()
	s.mu.RLock()
	ids := slices.Sorted(maps.Keys(s.packs))
	s.mu.RUnlock()
	for _, id := range ids {
		s.mu.RLock()
		p := s.packs[id]
		s.mu.RUnlock()
		s.appends.Lock()
		active := p == s.active
		s.appends.Unlock()
		if active || !s.wastes(p) {
			continue
		}
		if err := s.rewrite(ctx, p); err != nil {
			return fmt.Errorf("compact %s: %w", p.path, err)
		}
	}
	return nil
}

// wastes reports whether a pack that no batch writes to is worth rewriting.
func (s *Store) wastes(p *file) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return p.pending == 0 && (p.size-fileHead-p.live)*wasteful >= p.size || p.pending == 0 && p.live == 0
}

// rewriteLoad is how many bytes are copied between two flushes.
const rewriteLoad = 32 << 20

func (s *Store) rewrite(ctx context.Context, p *file) error {
	entries, err := s.entriesOf(p)
	if err != nil {
		return err
	}
	b := s.Batch()
	defer func() { b.Discard() }()
	var bytes int64
	var buf []byte
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		was := place{p.id, e.off, e.size}
		s.mu.RLock()
		now, ok := s.index[spotOf(e.key)]
		s.mu.RUnlock()
		if !ok || now != was {
			continue
		}
		if n := int(e.length()); cap(buf) < n {
			buf = make([]byte, n)
		}
		data, err := p.get(e.key, was, buf, true)
		if errors.Is(err, ErrDamaged) {
			s.o.Log.Error("a damaged record is not kept", "pack", p.path, "offset", e.off)
			s.drop(e.key, was)
			continue
		}
		if err != nil {
			return err
		}
		w, err := b.put(e.key, data)
		if err != nil {
			return err
		}
		w.was = was
		if bytes += e.length(); bytes >= rewriteLoad {
			if err := b.commit(true); err != nil {
				return err
			}
			bytes = 0
		}
	}
	if err := b.commit(true); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.packs, p.id)
	s.mu.Unlock()
	s.used.Add(-p.size)
	if f := p.h.Swap(nil); f != nil {
		err = f.Close()
	}
	return errors.Join(err, os.Remove(p.path))
}

// drop forgets a record if it lies there still.
func (s *Store) drop(key string, was place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := spotOf(key); s.index[k] == was {
		s.unpoint(k, len(key))
	}
}
