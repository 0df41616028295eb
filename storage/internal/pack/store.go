package pack

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

var (
	// ErrNotFound: no record has the key.
	ErrNotFound = errors.New("no such record")
	// ErrDamaged: the record's bytes are not those that were put.
	ErrDamaged = errors.New("record is damaged")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("store of packs is closed")
)

// Options of a store; zero fields have defaults.
type Options struct {
	// Size in bytes from which on a pack is sealed. Default 256 MiB, at most 1 GiB.
	Size int64
	// Records from which on a pack is sealed. Default 65,536.
	Records int
	// Files that stay open. Default 256.
	Files int
	// Log gets what recovery cut off and what Compact found damaged.
	Log *slog.Logger
}

// Store is a folder of packs. It is safe for concurrent use; a key must not be
// deleted while it is put.
type Store struct {
	dir string
	o   Options

	mu    sync.RWMutex
	index map[spot]place
	packs map[uint32]*file

	dropped []string // keys of records that Open found damaged

	appends sync.Mutex // orders writes to the active pack
	active  *file      // nil: none yet
	next    uint32     // pack number
	head    []byte     // scratch

	compacts sync.Mutex
	used     atomic.Int64
	closed   atomic.Bool
}

// spot is where a key stands in the index: a tag and 32 bytes.
type spot [33]byte

// place of a record.
type place struct {
	pack uint32
	off  uint32
	size uint32 // of the data
}

// spotOf holds SHA-256 multihashes themselves; another key's spot is its
// SHA-512/256, which nobody can make collide.
func spotOf(key string) (s spot) {
	if len(key) == 34 && key[0] == 0x12 && key[1] == 0x20 {
		copy(s[1:], key[2:])
		return s
	}
	s[0] = 1
	sum := sha512.Sum512_256([]byte(key))
	copy(s[1:], sum[:])
	return s
}

// Open opens or makes the folder, and reads where records lie.
func Open(dir string, o Options) (*Store, error) {
	if o.Size == 0 {
		o.Size = 256 << 20
	}
	if o.Records == 0 {
		o.Records = 1 << 16
	}
	if o.Files == 0 {
		o.Files = 256
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Size < 0 || o.Size > 1<<30 || o.Records < 0 || o.Files < 0 {
		return nil, fmt.Errorf("packs of %d bytes and %d records, %d files: want at most 1 GiB, and none negative", o.Size, o.Records, o.Files)
	}
	s := &Store{dir: dir, o: o, index: map[spot]place{}, packs: map[uint32]*file{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of packs: %w", err)
	}
	if err := errors.Join(syncDir(filepath.Dir(dir)), s.load()); err != nil {
		return nil, errors.Join(fmt.Errorf("open packs in %s: %w", dir, err), s.Close())
	}
	return s, nil
}

const suffix = ".pack"

// load reads every pack, oldest first: of two records of a key the later holds.
func (s *Store) load() error {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var ids []uint32
	for _, n := range names {
		base, ok := strings.CutSuffix(n.Name(), suffix)
		if id, err := strconv.ParseUint(base, 16, 32); ok && err == nil {
			ids = append(ids, uint32(id))
		}
	}
	slices.Sort(ids)
	for i, id := range ids {
		if err := s.loadFile(id, i == len(ids)-1); err != nil {
			return err
		}
		s.next = id + 1
	}
	s.spareHandles()
	return nil
}

func (s *Store) pathOf(id uint32) string {
	return filepath.Join(s.dir, fmt.Sprintf("%08x%s", id, suffix))
}

func (s *Store) loadFile(id uint32, last bool) error {
	p := &file{id: id, path: s.pathOf(id)}
	f, err := os.OpenFile(p.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	p.h.Store(f)
	s.packs[id] = p
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	var head [fileHead]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return err
	}
	if p.mark, err = parseFileHead(head[:n]); err != nil {
		return fmt.Errorf("pack %s: %w", p.path, err)
	}
	p.entries, err = readIndex(f, fi.Size(), p.mark)
	end := fi.Size()
	switch {
	case err == nil:
		p.sealed.Store(true)
	case errors.Is(err, errTorn):
		if end, err = s.recover(p, f, fi.Size()); err != nil {
			return err
		}
	default:
		return err
	}
	p.written.Store(end)
	p.synced.Store(end)
	p.size = end
	s.used.Add(end)
	for _, e := range p.entries {
		s.point(p, e)
	}
	switch {
	case p.sealed.Load():
		p.entries = nil
	case last:
		s.active = p
	default:
		s.seal(p)
	}
	return nil
}

// recover cuts a pack without an index after its last whole record.
func (s *Store) recover(p *file, f *os.File, size int64) (end int64, err error) {
	var bad []string
	if p.entries, bad, end, err = scan(f, size); err != nil {
		return 0, fmt.Errorf("read %s: %w", p.path, err)
	}
	s.dropped = append(s.dropped, bad[:min(len(bad), maxDropped-min(len(s.dropped), maxDropped))]...)
	if end < size {
		s.o.Log.Warn("the end of a pack was not whole and is cut off", "pack", p.path, "bytes", size-end)
	}
	if p.mark == 0 {
		p.mark, end = newMark(), max(end, fileHead)
		if _, err := f.WriteAt(newFileHead(p.mark), 0); err != nil {
			return 0, err
		}
	}
	// The flush is also for what was written and not flushed before a crash,
	// and now counts.
	return end, errors.Join(f.Truncate(end), f.Sync())
}

// point lets the index hold e; s.mu is held, or nobody else has s.
func (s *Store) point(p *file, e entry) {
	k := spotOf(e.key)
	s.unpoint(k, len(e.key))
	s.index[k] = place{p.id, e.off, e.size}
	p.live += e.length()
}

func (s *Store) unpoint(k spot, keyLen int) {
	if old, ok := s.index[k]; ok {
		delete(s.index, k)
		if p := s.packs[old.pack]; p != nil {
			p.live -= recordHead + int64(keyLen) + int64(old.size)
		}
	}
}

// Get returns a record's data, in buf if that has Overhead more room. With check
// it compares the data's checksum; without, the head's alone.
func (s *Store) Get(key string, buf []byte, check bool) ([]byte, error) {
	k := spotOf(key)
	for {
		s.mu.RLock()
		at, ok := s.index[k]
		p := s.packs[at.pack]
		s.mu.RUnlock()
		if s.closed.Load() {
			return nil, ErrClosed
		}
		if !ok {
			return nil, ErrNotFound
		}
		data, err := p.get(key, at, buf, check)
		if err == nil || errors.Is(err, ErrDamaged) {
			return data, err
		}
		s.mu.RLock()
		now := s.index[k]
		s.mu.RUnlock()
		if s.closed.Load() {
			return nil, ErrClosed
		}
		if now == at {
			return nil, fmt.Errorf("read %s: %w", p.path, err)
		}
		// Compact moved it, and removed the file under us.
	}
}

// Overhead is what a record takes beside its data, at most.
const Overhead = recordHead + MaxKey

func (p *file) get(key string, at place, buf []byte, check bool) ([]byte, error) {
	start := recordHead + len(key)
	n := start + int(at.size)
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if err := p.readAt(buf, int64(at.off)); err != nil {
		if err == io.EOF { // the file is shorter than it was
			return nil, ErrDamaged
		}
		return nil, err
	}
	r, err := parseHead(buf, int64(at.off))
	if err != nil || r.magic != blockMagic || r.key != key || r.size != int(at.size) {
		return nil, ErrDamaged
	}
	data := buf[start:]
	if check && !r.whole(data) {
		return nil, ErrDamaged
	}
	return data, nil
}

// Size returns the length of a record's data. It reads no disk.
func (s *Store) Size(key string) (int, error) {
	k := spotOf(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	at, ok := s.index[k]
	if s.closed.Load() {
		return 0, ErrClosed
	}
	if !ok {
		return 0, ErrNotFound
	}
	return int(at.size), nil
}

// Delete forgets a record. See the package for when its room comes back, and
// when it may.
func (s *Store) Delete(key string) error {
	if s.closed.Load() {
		return ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unpoint(spotOf(key), len(key))
	return nil
}

// Each calls f for every key, pack by pack, until f fails. f may delete.
func (s *Store) Each(f func(key string) error) error {
	s.mu.RLock()
	ids := slices.Sorted(maps.Keys(s.packs))
	s.mu.RUnlock()
	for _, id := range ids {
		s.mu.RLock()
		p := s.packs[id]
		s.mu.RUnlock()
		if s.closed.Load() {
			return ErrClosed
		}
		if p == nil {
			continue
		}
		entries, err := s.entriesOf(p)
		if err != nil {
			return err
		}
		for _, e := range entries {
			s.mu.RLock()
			at, ok := s.index[spotOf(e.key)]
			s.mu.RUnlock()
			if ok && at == (place{id, e.off, e.size}) {
				if err := f(e.key); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// entriesOf returns all records of a pack, also those that are deleted.
func (s *Store) entriesOf(p *file) ([]entry, error) {
	s.appends.Lock()
	if !p.sealed.Load() {
		defer s.appends.Unlock()
		return slices.Clone(p.entries), nil
	}
	s.appends.Unlock()
	size := p.written.Load()
	entries, err := readIndex(at{p}, size, p.mark)
	if errors.Is(err, errTorn) {
		s.o.Log.Error("the index of a pack is damaged", "pack", p.path)
		entries, _, _, err = scan(at{p}, size)
	}
	if err != nil {
		return nil, fmt.Errorf("read the index of %s: %w", p.path, err)
	}
	return entries, nil
}

// at reads a pack at offsets.
type at struct{ p *file }

func (a at) ReadAt(b []byte, off int64) (int, error) {
	if err := a.p.readAt(b, off); err != nil {
		return 0, err
	}
	return len(b), nil
}

// maxDropped bounds the keys that Dropped tells.
const maxDropped = 10_000

// Dropped lists keys whose only record Open found damaged: they are not there.
func (s *Store) Dropped() (keys []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, k := range s.dropped {
		if _, ok := s.index[spotOf(k)]; !ok {
			keys = append(keys, k)
		}
	}
	return keys
}

// Used is what the packs take on disk, in bytes.
func (s *Store) Used() int64 { return s.used.Load() }

// Close ends the store. Batches that are not committed are lost.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.appends.Lock()
	defer s.appends.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, p := range s.packs {
		if f := p.h.Swap(nil); f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
