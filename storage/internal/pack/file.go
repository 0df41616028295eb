package pack

import (
	"bytes"
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
	unread  bool         // Open could not read all of it: it is neither changed nor removed
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
	if f := p.h.Load(); f != nil {
		if _, err := f.ReadAt(b, off); !errors.Is(err, os.ErrClosed) {
			return err
		}
		// spareHandles closed it under us.
	}
	f, err := os.Open(p.path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(b, off)
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

// scanStep is how much is read at once to find small records, and sector where the
// disk could not read as much.
const (
	scanStep = 256 << 10
	sector   = 4 << 10
)

// maxUnread bounds the sectors of one pack that scan reads around: each may take a
// disk seconds.
const maxUnread = 256

// around reads what a disk can read; the rest is zero.
type around struct {
	r      io.ReaderAt
	unread map[int64]bool // sectors
}

func (a around) read(b []byte, off int64) error {
	if len(a.unread) == 0 {
		if _, err := a.r.ReadAt(b, off); !Medium(err) {
			return notEOF(err)
		}
	}
	for len(b) > 0 {
		s := off / sector
		part := b[:min(int64(len(b)), (s+1)*sector-off)]
		if !a.unread[s] {
			_, err := a.r.ReadAt(part, off)
			if Medium(err) {
				if a.unread[s] = true; len(a.unread) > maxUnread {
					return fmt.Errorf("more than %d places can't be read: put a copy on a good disk in its place, or move it away to go on without what it holds: %w", maxUnread, err)
				}
			} else if notEOF(err) != nil {
				return err
			}
		}
		if a.unread[s] {
			clear(part)
		}
		b, off = b[len(part):], off+int64(len(part))
	}
	return nil
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// found is what scan reads.
type found struct {
	entries []entry  // of whole records
	bad     []string // keys of records whose data is not whole
	lost    int64    // bytes between whole records that are no record
	end     int64    // of the last whole record
	unread  int64    // bytes that the disk could not read, at most
}

// guesses bounds what one scan reads to no avail where it looks for a record, in
// bytes: some seconds' work. Data that was put may hold any number of heads. When it
// is used up, a head is believed its length, which costs the records there. Tests lower it.
var guesses int64 = 4 << 30

// scan reads records from the start, each wholly. Where there is none it looks for
// the next one that is whole: a head that the disk spoiled must not hide what lies
// behind it. Data that was put may look like records too, so from there on sure,
// unless it is nil, must say of a record that it is one. None has more than most
// bytes of data, whatever its head says. What the disk can't read is
// taken for zeros.
func scan(r io.ReaderAt, size int64, most int, sure func(key string, data []byte) bool) (f found, err error) {
	disk := around{r, map[int64]bool{}}
	buf := make([]byte, 0, scanStep)
	var from int64 // of buf in the pack
	// window returns the bytes from off on, at least n if the pack has them.
	window := func(off int64, n int64) ([]byte, error) {
		n = min(n, size-off)
		if off < from || off+n > from+int64(len(buf)) {
			want := min(max(n, scanStep), size-off)
			if int64(cap(buf)) < want {
				buf = make([]byte, 0, want)
			}
			if err := disk.read(buf[:want], off); err != nil {
				return nil, err
			}
			buf, from = buf[:want], off
		}
		return buf[off-from:], nil
	}
	f.end = fileHead
	told := f.end // what lies before it is a record, or lost
	strayed, guessed := false, int64(0)
	for at := f.end; at < min(size, math.MaxUint32); {
		b, err := window(at, recordHead+MaxKey)
		if err != nil {
			return found{}, err
		}
		if strayed {
			switch i := bytes.Index(b, []byte(blockMagic)); {
			case i < 0:
				at += int64(max(len(b)-1, 1)) // the last byte may begin one
				continue
			case i > 0:
				at += int64(i)
				continue
			}
		}
		rec, err := parseHead(b, at)
		if err != nil || rec.magic != blockMagic || rec.size > most || rec.end() > size {
			strayed = true
			at++
			continue
		}
		data, err := window(rec.dataStart, int64(rec.size))
		if err != nil {
			return found{}, err
		}
		data = data[:rec.size]
		whole := rec.whole(data)
		if strayed && (!whole || sure != nil && !sure(rec.key, data)) {
			if guessed += int64(rec.size); guessed < guesses {
				at++
			} else {
				at = rec.end()
			}
			continue
		}
		at = rec.end()
		if whole {
			f.lost += rec.off - told
			f.entries = append(f.entries, entry{key: rec.key, off: uint32(rec.off), size: uint32(rec.size)})
			f.end = at
		} else if len(f.bad) < maxDropped {
			f.bad = append(f.bad, rec.key)
		}
		told = at
	}
	f.end = min(f.end, size)
	f.unread = int64(len(disk.unread)) * sector
	return f, nil
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
