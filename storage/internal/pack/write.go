package pack

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// smallData is what is copied behind its head to be written in one call.
const smallData = 32 << 10

// append writes a record at the end of the active pack. It is durable, and may
// be read, after a flush.
func (b *Batch) append(key string, data []byte) (p *file, e entry, err error) {
	s := b.s
	if len(key) == 0 || len(key) > MaxKey || len(data) > s.o.Most {
		return nil, e, fmt.Errorf("a record with a key of %d bytes and %d of data: want 1 to %d, at most %d", len(key), len(data), MaxKey, s.o.Most)
	}
	s.appends.Lock()
	defer s.appends.Unlock()
	if s.closed.Load() {
		return nil, e, ErrClosed
	}
	if p, err = s.current(); err != nil {
		return nil, e, err
	}
	if !slices.Contains(b.packs, p) {
		b.packs = append(b.packs, p)
		s.mu.Lock()
		p.pending++
		s.mu.Unlock()
	}
	off := p.written.Load()
	s.head = appendHead(s.head[:0], blockMagic, key, data)
	n := len(s.head)
	f := p.h.Load()
	if len(data) <= smallData {
		s.head = append(s.head, data...)
		_, err = f.WriteAt(s.head, off)
	} else if _, err = f.WriteAt(s.head, off); err == nil {
		_, err = f.WriteAt(data, off+int64(n))
	}
	if err != nil {
		// A full disk, most likely: what is whole stays, and so does the pack.
		if cut := f.Truncate(off); cut != nil {
			p.fail(cut)
		}
		return nil, e, fmt.Errorf("write to %s: %w", p.path, err)
	}
	e = entry{key: key, off: uint32(off), size: uint32(len(data))}
	p.entries = append(p.entries, e)
	end := off + int64(n) + int64(len(data))
	s.mu.Lock()
	p.size = end
	s.mu.Unlock()
	s.used.Add(end - off)
	p.written.Store(end)
	StartSync(f, off, end)
	return p, e, nil
}

// current returns the pack to append to; s.appends is held.
func (s *Store) current() (*file, error) {
	p := s.active
	if p != nil && p.failed.Load() == nil && p.written.Load() < s.o.Size && len(p.entries) < s.o.Records {
		return p, nil
	}
	fresh, err := s.create()
	if err != nil {
		return nil, fmt.Errorf("make a pack: %w", err)
	}
	s.active = fresh
	if p != nil {
		s.seal(p)
	}
	s.spareHandles()
	return fresh, nil
}

func (s *Store) create() (*file, error) {
	p := &file{id: s.next, path: s.pathOf(s.next), mark: newMark()}
	f, err := os.OpenFile(p.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	s.next++
	if _, err = f.Write(newFileHead(p.mark)); err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(p.path))
	}
	p.h.Store(f)
	p.written.Store(fileHead)
	p.size = fileHead
	s.used.Add(fileHead)
	s.mu.Lock()
	s.packs[p.id] = p
	s.mu.Unlock()
	return p, nil
}

// seal puts the index at the end of a pack that is no longer appended to, after
// its records are flushed: who reads the index need not look at them. If it
// fails, the pack is read from its start at the next Open. s.appends is held.
func (s *Store) seal(p *file) {
	end := p.written.Load()
	err := p.flush(end)
	if err == nil {
		f := p.h.Load()
		b := appendIndex(nil, p.entries, end, p.mark)
		if _, err = f.WriteAt(b, end); err == nil {
			err = dataSync(f)
		}
		if err == nil {
			p.written.Store(end + int64(len(b)))
			p.synced.Store(end + int64(len(b)))
			s.mu.Lock()
			p.size += int64(len(b))
			s.mu.Unlock()
			s.used.Add(int64(len(b)))
			p.entries = nil
			p.sealed.Store(true)
			return
		}
		err = errors.Join(err, f.Truncate(end))
	}
	s.o.Log.Warn("a pack got no index", "pack", p.path, "err", err)
}

// spareHandles closes the oldest sealed packs beyond the number that stays
// open; they are opened for each read.
func (s *Store) spareHandles() {
	files := s.files()
	for _, p := range files[:max(len(files)-s.o.Files, 0)] {
		if !p.sealed.Load() {
			continue
		}
		if f := p.h.Swap(nil); f != nil {
			_ = f.Close() // it was flushed
		}
	}
}

// Batch writes records that become readable and durable together, at Commit.
// One goroutine uses it at a time.
type Batch struct {
	s     *Store
	wrote []written
	packs []*file // each once; their pending counts this batch
}

type written struct {
	p   *file
	e   entry
	was place // move: where the index must still point
}

// Batch begins a batch; end it with Commit or Discard.
func (s *Store) Batch() *Batch { return &Batch{s: s} }

// Put writes a record. Its bytes are not kept.
func (b *Batch) Put(key string, data []byte) error {
	_, err := b.put(key, data)
	return err
}

func (b *Batch) put(key string, data []byte) (*written, error) {
	p, e, err := b.append(key, data)
	if err != nil {
		return nil, err
	}
	b.wrote = append(b.wrote, written{p: p, e: e})
	return &b.wrote[len(b.wrote)-1], nil
}

// Commit returns when all that was put survives a crash and can be read. On an
// error none of it can.
func (b *Batch) Commit() error { return b.commit(false) }

func (b *Batch) commit(move bool) error {
	defer b.Discard()
	for _, p := range b.packs {
		var end int64
		for _, w := range b.wrote {
			if w.p == p {
				end = int64(w.e.off) + w.e.length()
			}
		}
		if err := p.flush(end); err != nil {
			return err
		}
	}
	if b.s.closed.Load() {
		return ErrClosed
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	for _, w := range b.wrote {
		if !move || b.s.index[spotOf(w.e.key)] == w.was {
			b.s.point(w.p, w.e)
		}
	}
	return nil
}

// Discard ends a batch without what was put; after Commit it does nothing.
func (b *Batch) Discard() {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	for _, p := range b.packs {
		p.pending--
	}
	b.packs, b.wrote = nil, nil
}
