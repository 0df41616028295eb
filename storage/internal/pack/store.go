package pack

import (
	"cmp"
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
	// Most bytes of data in a record. Default and at most MaxData. The less, the less is
	// lost where what was put looks like the heads of larger ones.
	Most int
	// Files that stay open. Default 256.
	Files int
	// Log gets what recovery cut off and what Compact found damaged.
	Log *slog.Logger
	// Sure, when not nil, says whether data can be what was put under the key. It is
	// asked where the end of the record before is not known: data may hold what looks
	// like a record.
	Sure func(key string, data []byte) bool
}

// Store is a folder of packs. It is safe for concurrent use; a key must not be
// deleted while it is put.
type Store struct {
	dir string
	o   Options

	mu    sync.RWMutex
	index map[spot]place
	packs map[uint32]*file

	dropped map[string]place // of records that Open or Compact found damaged: where they are still pointed at
	torn    bool             // Open found bytes that are no record

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
	if o.Most == 0 {
		o.Most = MaxData
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
	if o.Most < 0 || o.Most > MaxData {
		return nil, fmt.Errorf("packs of records of %d bytes: want 0 for the default, or at most %d", o.Most, MaxData)
	}
	s := &Store{dir: dir, o: o, index: map[spot]place{}, packs: map[uint32]*file{}, dropped: map[string]place{}}
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
		s.spareHandles()
	}
	return nil
}

func (s *Store) pathOf(id uint32) string {
	return filepath.Join(s.dir, fmt.Sprintf("%08x%s", id, suffix))
}

// reader is what Open reads a pack by. Tests let it fail.
var reader = func(f *os.File) io.ReaderAt { return f }

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
	r := reader(f)
	var head [fileHead]byte
	n, err := r.ReadAt(head[:], 0)
	if Medium(err) {
		n, p.unread = 0, true
	} else if err != nil && err != io.EOF {
		return err
	}
	if p.mark, err = parseFileHead(head[:n]); err != nil {
		return fmt.Errorf("pack %s: %w", p.path, err)
	}
	p.entries, err = readIndex(r, fi.Size(), p.mark)
	end := fi.Size()
	p.unread = p.unread || Medium(err)
	switch {
	case err == nil:
		p.sealed.Store(true)
	case errors.Is(err, errTorn) || Medium(err):
		if end, err = s.recover(p, f, r, fi.Size()); err != nil {
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
	case p.unread: // it gets no index, and nothing is appended to it
	case last:
		s.active = p
	default:
		s.seal(p)
	}
	return nil
}

// recover cuts a pack without an index after its last whole record, unless the disk
// can't read all of it: another time it may.
func (s *Store) recover(p *file, f *os.File, r io.ReaderAt, size int64) (end int64, err error) {
	found, err := scan(r, size, s.o.Most, s.o.Sure)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", p.path, err)
	}
	s.drop(place{}, found.bad...)
	p.entries, end = found.entries, found.end
	if p.unread = p.unread || found.unread > 0; p.unread {
		s.torn = true
		s.o.Log.Error("the disk can't read all of a pack: what it can is used, and the pack stays as it is, also when its blocks are deleted", "pack", p.path, "unread", found.unread)
		if err := f.Sync(); err != nil {
			s.o.Log.Warn("a pack was not flushed", "pack", p.path, "err", err)
		}
		return size, nil
	}
	s.torn = s.torn || found.lost > 0 || end < size
	if found.lost > 0 {
		s.o.Log.Error("a pack is damaged before its last whole record, and what lies there is lost", "pack", p.path, "bytes", found.lost)
	}
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

func (p *file) placeOf(e entry) place { return place{p.id, e.off, e.size} }

// holds reports whether the index has the key at this place.
func (s *Store) holds(key string, at place) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.index[spotOf(key)] == at
}

// files lists the packs, oldest first. They stay while compacts is held.
func (s *Store) files() []*file {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.SortedFunc(maps.Values(s.packs), func(a, b *file) int { return cmp.Compare(a.id, b.id) })
}

// point lets the index hold e; s.mu is held, or nobody else has s.
func (s *Store) point(p *file, e entry) {
	k := spotOf(e.key)
	s.unpoint(k, len(e.key))
	s.index[k] = p.placeOf(e)
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
		_, dropped := s.dropped[key]
		s.mu.RUnlock()
		if s.closed.Load() {
			return nil, ErrClosed
		}
		if !ok {
			return nil, ErrNotFound
		}
		data, err := p.get(key, at, buf, check)
		if err == nil && dropped { // the disk could not read it once
			s.mu.Lock()
			delete(s.dropped, key)
			s.mu.Unlock()
		}
		if err == nil || errors.Is(err, ErrDamaged) {
			return data, err
		}
		if s.closed.Load() {
			return nil, ErrClosed
		}
		if s.holds(key, at) {
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

// Each calls f for every key, pack by pack, until f fails. It passes over packs
// whose records the disk can't list. f may delete; Compact waits.
func (s *Store) Each(f func(key string) error) error {
	s.compacts.Lock()
	defer s.compacts.Unlock()
	for _, p := range s.files() {
		if s.closed.Load() {
			return ErrClosed
		}
		entries, err := s.entriesOf(p)
		if Medium(err) { // what it holds can't be told, but others' can
			s.o.Log.Error("a pack is passed over: the disk can't read where its records lie", "pack", p.path, "err", err)
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !s.holds(e.key, p.placeOf(e)) {
				continue
			}
			if err := f(e.key); err != nil {
				return err
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
		var found found
		found, err = scan(at{p}, size, s.o.Most, s.o.Sure)
		entries = found.entries
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

// drop notes that records are lost; s.mu is held, or nobody else has s.
func (s *Store) drop(at place, keys ...string) {
	for _, k := range keys[:min(len(keys), maxDropped-len(s.dropped))] {
		s.dropped[k] = at
	}
}

// Dropped lists keys whose only record Open or Compact found damaged: they are
// not there, or the disk could not read them, and no Get has since.
func (s *Store) Dropped() (keys []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for k, was := range s.dropped {
		if at, ok := s.index[spotOf(k)]; !ok || at == was {
			keys = append(keys, k)
		}
	}
	return keys
}

// Torn reports whether Open found bytes that are no record, so that there may be
// lost records whose keys nobody can tell.
func (s *Store) Torn() bool { return s.torn }

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
