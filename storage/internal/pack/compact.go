package pack

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	for _, p := range s.files() {
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
	if p.unread { // it may hold more than is known
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return p.pending == 0 && (p.size-fileHead-p.live)*wasteful >= p.size || p.pending == 0 && p.live == 0
}

// rewriteLoad is how many bytes are copied between two flushes.
const rewriteLoad = 32 << 20

func (s *Store) rewrite(ctx context.Context, p *file) error {
	entries, err := s.entriesOf(p)
	if Medium(err) { // what it holds can't be had, but others' room can
		s.o.Log.Error("a pack is kept: the disk can't read it", "pack", p.path, "err", err)
		return nil
	}
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
		was := p.placeOf(e)
		if !s.holds(e.key, was) {
			continue
		}
		if n := int(e.length()); cap(buf) < n {
			buf = make([]byte, n)
		}
		data, err := p.get(e.key, was, buf, true)
		if errors.Is(err, ErrDamaged) {
			s.o.Log.Error("a damaged record is not kept", "pack", p.path, "offset", e.off)
			s.lose(e.key, was)
			continue
		}
		if Medium(err) { // it stays: the disk may read it another time
			s.o.Log.Error("the disk can't read a record", "pack", p.path, "offset", e.off, "err", err)
			s.mu.Lock()
			s.drop(was, e.key)
			s.mu.Unlock()
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
	left := p.live
	if left == 0 {
		delete(s.packs, p.id)
	}
	s.mu.Unlock()
	if left > 0 { // its index is damaged, and what it lies with; or the disk can't read them
		s.o.Log.Error("a pack is kept: not all of its records were found and read", "pack", p.path, "bytes", left)
		return nil
	}
	s.used.Add(-p.size)
	if f := p.h.Swap(nil); f != nil {
		err = f.Close()
	}
	return errors.Join(err, os.Remove(p.path))
}

// lose forgets a damaged record if it lies there still.
func (s *Store) lose(key string, was place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := spotOf(key); s.index[k] == was {
		s.unpoint(k, len(key))
		s.drop(place{}, key)
	}
}
