package pack

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"
)

// file is one pack.
type file struct {
	id   uint32
	path string
	mark uint64
	h    atomic.Pointer[os.File] // nil: opened for each read

	// Appends: under Store.appends.
	entries []entry // until it is sealed
	sealed  atomic.Bool
	written atomic.Int64 // where the next record begins

	syncs  sync.Mutex // one flush at a time
	synced atomic.Int64
	failed atomic.Pointer[error] // a write or flush failed: nothing more is appended

	// Under Store.mu.
	live    int64 // bytes of records that the index points at
	pending int   // batches that wrote here and are not committed
	size    int64 // of the file, as counted in Store.used
}

func (p *file) readAt(b []byte, off int64) error {
	f := p.h.Load()
	if f == nil {
		var err error
		if f, err = os.Open(p.path); err != nil {
			return err
		}
		defer f.Close()
	}
	_, err := f.ReadAt(b, off)
	return err
}

// fail remembers the first error, which all later users get: after a failed
// flush nobody knows what the disk has.
func (p *file) fail(err error) error {
	p.failed.CompareAndSwap(nil, &err)
	return *p.failed.Load()
}

// flush returns when the first end bytes survive a crash. Whoever comes while
// one flush runs shares the next.
func (p *file) flush(end int64) error {
	if p.synced.Load() >= end {
		return nil
	}
	p.syncs.Lock()
	defer p.syncs.Unlock()
	if p.synced.Load() >= end {
		return nil
	}
	if e := p.failed.Load(); e != nil {
		return *e
	}
	to := p.written.Load()
	if err := dataSync(p.h.Load()); err != nil {
		return p.fail(fmt.Errorf("flush %s: %w", p.path, err))
	}
	p.synced.Store(to)
	return nil
}

// scanStep is how much is read at once to find small records.
const scanStep = 256 << 10

// scan reads records from the start, each wholly, up to the first head that is
// none, and returns those whose data is whole, the keys of the others, and where
// the last whole one ends.
func scan(r io.ReaderAt, size int64) (entries []entry, bad []string, end int64, err error) {
	buf := make([]byte, 0, scanStep)
	var from int64 // of buf in the pack
	// window returns the bytes from off on, n at most.
	window := func(off int64, n int64) ([]byte, error) {
		n = min(n, size-off)
		if off < from || off+n > from+int64(len(buf)) {
			want := min(max(n, scanStep), size-off)
			if int64(cap(buf)) < want {
				buf = make([]byte, 0, want)
			}
			if _, err := r.ReadAt(buf[:want], off); err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			buf, from = buf[:want], off
		}
		return buf[off-from : off-from+n], nil
	}
	end = fileHead
	for at := end; at < min(size, math.MaxUint32); {
		b, err := window(at, recordHead+MaxKey)
		if err != nil {
			return nil, nil, 0, err
		}
		rec, err := parseHead(b, at)
		if err != nil || rec.magic != blockMagic || rec.end() > size {
			break
		}
		at = rec.end()
		data, err := window(rec.dataStart, int64(rec.size))
		if err != nil {
			return nil, nil, 0, err
		}
		if !rec.whole(data) {
			if len(bad) < maxDropped {
				bad = append(bad, rec.key)
			}
			continue
		}
		entries = append(entries, entry{key: rec.key, off: uint32(rec.off), size: uint32(rec.size)})
		end = at
	}
	return entries, bad, min(end, size), nil
}

// readIndex returns the records of a sealed pack, or errTorn.
func readIndex(f io.ReaderAt, size int64, mark uint64) ([]entry, error) {
	if mark == 0 || size < fileHead+recordHead+trailerSize {
		return nil, errTorn
	}
	var t [trailerSize]byte
	if _, err := f.ReadAt(t[:], size-trailerSize); err != nil {
		return nil, err
	}
	off, ok := parseTrailer(t[:], size, mark)
	if !ok {
		return nil, errTorn
	}
	b := make([]byte, size-trailerSize-off)
	if _, err := f.ReadAt(b, off); err != nil {
		return nil, err
	}
	return parseIndex(b, off)
}
