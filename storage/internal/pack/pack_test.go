package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// value is the n-th record's data, some empty, some beyond smallData.
func value(n int) []byte {
	b := make([]byte, n*n*7919%90_000)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b)
	return b
}

// keyOf is a multihash for most, another key for some.
func keyOf(n int) string {
	if n%5 == 0 {
		return fmt.Sprintf("key %d", n)
	}
	h := sha256.Sum256(fmt.Append(nil, n))
	return "\x12\x20" + string(h[:])
}

func put(t testing.TB, s *Store, ns ...int) {
	t.Helper()
	b := s.Batch()
	for _, n := range ns {
		if err := b.Put(keyOf(n), value(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
}

// has wants exactly the records from lo to hi but those that skip says.
func has(t testing.TB, s *Store, lo, hi int, skip func(n int) bool) {
	t.Helper()
	want := map[string]bool{}
	for n := lo; n < hi; n++ {
		got, err := s.Get(keyOf(n), nil, true)
		size, sizeErr := s.Size(keyOf(n))
		if skip != nil && skip(n) {
			if !errors.Is(err, ErrNotFound) || !errors.Is(sizeErr, ErrNotFound) {
				t.Errorf("record %d: %d bytes, %v, want none", n, len(got), err)
			}
			continue
		}
		want[keyOf(n)] = true
		if err != nil || sizeErr != nil || size != len(value(n)) || !bytes.Equal(got, value(n)) {
			t.Errorf("record %d: %d bytes, %v, want %d", n, len(got), err, len(value(n)))
		}
	}
	seen := 0
	err := s.Each(func(k string) error {
		if seen++; !want[k] {
			t.Errorf("Each tells of %q", k)
		}
		return nil
	})
	if err != nil || seen != len(want) {
		t.Errorf("Each tells %d keys, %v; want %d", seen, err, len(want))
	}
}

func onDisk(t testing.TB, dir string) (n int64, files []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		fi, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		n += fi.Size()
	}
	return n, files
}

func upTo(lo, hi int) (ns []int) {
	for n := lo; n < hi; n++ {
		ns = append(ns, n)
	}
	return ns
}

// dyingFile is a file whose reads and writes fail as a dying disk's do.
func dyingFile(t testing.TB) *os.File {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("no file whose reads fail as a dying disk's do")
	}
	f, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0) // EIO where nothing is mapped
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestPutAndOpenAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "packs")
	small := Options{Size: 300 << 10, Files: 2}
	s := open(t, dir, small)
	for n := range 60 {
		put(t, s, n)
	}
	put(t, s, upTo(60, 90)...)
	has(t, s, 0, 90, nil)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(keyOf(1), nil, true); !errors.Is(err, ErrClosed) {
			t.Errorf("get after close: %v", err)
		}
		s = open(t, dir, small)
		has(t, s, 0, 90, nil)
	}
	n, files := onDisk(t, dir)
	if n != s.Used() || len(files) < 4 {
		t.Errorf("%d files of %d bytes, used is %d", len(files), n, s.Used())
	}
	put(t, s, 90)
	has(t, s, 0, 91, nil)
	if err := s.Batch().Put("", nil); err == nil {
		t.Error("an empty key is taken")
	}
}

func TestUncommittedIsNotThere(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	put(t, s, 1)
	b := s.Batch()
	if err := b.Put(keyOf(2), value(2)); err != nil {
		t.Fatal(err)
	}
	has(t, s, 1, 3, func(n int) bool { return n == 2 })
	b.Discard()
	has(t, s, 1, 3, func(n int) bool { return n == 2 })
	put(t, s, 3)
	has(t, s, 1, 4, func(n int) bool { return n == 2 })
}

// TestTornTail cuts an unsealed pack at every length, and changes each of its
// bytes: the records before that point are there, and behind a changed one, the
// pack can be written to, and what is said to be stored is whole.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	var ends []int64
	for n := 1; n < 5; n++ {
		b := s.Batch()
		if err := b.Put(keyOf(n), []byte(fmt.Sprint("value ", n))); err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, s.Used())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, files := onDisk(t, dir)
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	try := func(b []byte, want func(n int) bool) {
		t.Helper()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "00000000.pack"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			s, err := Open(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			for n := 1; n < 5; n++ {
				got, err := s.Get(keyOf(n), nil, true)
				if err == nil && string(got) == fmt.Sprint("value ", n) {
					continue
				}
				if !errors.Is(err, ErrNotFound) {
					t.Fatalf("record %d: %q, %v", n, got, err)
				} else if want(n) {
					t.Fatalf("record %d is lost", n)
				}
			}
			put(t, s, 7)
			if got, err := s.Get(keyOf(7), nil, true); err != nil || !bytes.Equal(got, value(7)) {
				t.Fatalf("written after recovery: %v", err)
			}
			if n, _ := onDisk(t, dir); n != s.Used() {
				t.Fatalf("%d bytes on disk, used is %d", n, s.Used())
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := range whole {
		least := 0
		for least < len(ends) && ends[least] <= int64(n) {
			least++
		}
		if n%3 == 0 || n > int(ends[2]) {
			try(whole[:n], func(r int) bool { return r <= least })
		}
		if n >= fileHead && n%3 == 1 {
			bad := bytes.Clone(whole)
			bad[n] ^= 0x40
			try(bad, func(r int) bool { return r != least+1 })
		}
	}
}

// TestSpoiledHead: where a record's head is spoiled, data that looks like records is
// not taken for any but by who is sure, and what lies behind is found and kept.
func TestSpoiledHead(t *testing.T) {
	forged := appendHead(nil, blockMagic, keyOf(2), []byte("forged"))
	forged = append(forged, "forged"...)
	var crowd []byte // of heads of records that are not whole
	for range 5000 {
		crowd = appendHead(crowd, blockMagic, "k", make([]byte, 200_000))
	}
	for _, c := range []struct {
		name string
		data []byte
	}{{"forged", forged}, {"crowd", crowd}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			var log bytes.Buffer
			o := Options{Log: slog.New(slog.NewTextHandler(&log, nil)), Sure: func(_ string, data []byte) bool { return string(data) != "forged" }}
			s := open(t, dir, o)
			put(t, s, 1, 2)
			off := s.Used()
			b := s.Batch()
			if err := errors.Join(b.Put("spoiled", c.data), b.Commit()); err != nil {
				t.Fatal(err)
			}
			lost := s.Used() - off
			for n := 3; n < 20; n++ {
				put(t, s, n)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			_, files := onDisk(t, dir)
			raw, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			raw[off+9] ^= 1
			if err := os.WriteFile(files[0], raw, 0o600); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, o)
			has(t, s, 1, 20, nil)
			if n, _ := onDisk(t, dir); n != int64(len(raw)) || !s.Torn() {
				t.Errorf("%d bytes are left of %d, torn is %t", n, len(raw), s.Torn())
			}
			if says := log.String(); !strings.Contains(says, fmt.Sprintf("bytes=%d\n", lost)) || strings.Contains(says, "cut off") {
				t.Errorf("it logs %q; want %d lost bytes and no torn end", says, lost)
			}

			defer func(was int64) { guesses = was }(guesses)
			guesses = 3 * int64(len(raw))
			r := counting{bytes.NewReader(raw), new(int64)}
			found, err := scan(r, int64(len(raw)), MaxData, o.Sure)
			if err != nil || *r.n > 5*guesses || found.end != int64(len(raw)) {
				t.Errorf("with little time, %d bytes are read of %d, up to %d, %v", *r.n, len(raw), found.end, err)
			}
		})
	}
}

// TestClaimedSizes: in data whose own head is spoiled, heads that claim more bytes
// than any record has cost no reading, and no record behind them.
func TestClaimedSizes(t *testing.T) {
	var crowd []byte
	for range 100 {
		h := appendHead(nil, blockMagic, "k", nil)
		binary.LittleEndian.PutUint32(h[4:], 200_000)
		binary.LittleEndian.PutUint32(h[16:], crc32.Update(crc32.Checksum(h[:16], crcTable), crcTable, []byte("k")))
		crowd = append(crowd, h...)
	}
	dir := t.TempDir()
	o := Options{Most: 100_000}
	s := open(t, dir, o)
	if err := s.Batch().Put("k", make([]byte, o.Most+1)); err == nil {
		t.Error("more than the most is put")
	}
	b := s.Batch()
	if err := errors.Join(b.Put("spoiled", crowd), b.Commit()); err != nil {
		t.Fatal(err)
	}
	put(t, s, upTo(1, 20)...)
	s.Close()
	_, files := onDisk(t, dir)
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[fileHead+9] ^= 1
	if err := os.WriteFile(files[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	defer func(was int64) { guesses = was }(guesses)
	guesses = 5 * 200_000
	has(t, open(t, dir, o), 1, 20, nil)
	r := counting{bytes.NewReader(raw), new(int64)}
	if _, err := scan(r, int64(len(raw)), o.Most, nil); err != nil || *r.n > 2*int64(len(raw)) {
		t.Errorf("%d bytes are read of %d, %v", *r.n, len(raw), err)
	}
}

// counting counts what is read.
type counting struct {
	r io.ReaderAt
	n *int64
}

func (c counting) ReadAt(b []byte, off int64) (int, error) {
	*c.n += int64(len(b))
	return c.r.ReadAt(b, off)
}

// TestFakeIndex: data that looks like the end of a sealed pack must not hide
// what lies before it.
func TestFakeIndex(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	put(t, s, 1, 2)
	off := s.Used() + recordHead + int64(len(keyOf(3)))
	fake := appendIndex(nil, nil, off, 0)
	b := s.Batch()
	if err := errors.Join(b.Put(keyOf(3), fake), b.Commit(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	for n := 1; n < 4; n++ {
		if _, err := s.Size(keyOf(n)); err != nil {
			t.Errorf("record %d: %v", n, err)
		}
	}
}

func TestDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{Size: 100 << 10})
	put(t, s, upTo(1, 20)...)
	s.Close()
	_, files := onDisk(t, dir)
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, value(1))
	b[at+10] ^= 1
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{Size: 100 << 10})
	if _, err := s.Get(keyOf(1), nil, true); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a damaged record: %v", err)
	}
	if _, err := s.Get(keyOf(1), nil, false); err != nil {
		t.Fatalf("without a check: %v", err)
	}
	put(t, s, 1) // a second time, and it is the later that holds, also when opened again
	has(t, s, 1, 20, nil)
	s.Close()
	s = open(t, dir, Options{Size: 100 << 10})
	has(t, s, 1, 20, nil)
	// The damaged index of a sealed pack costs nothing but time.
	if b, err = os.ReadFile(files[0]); err != nil {
		t.Fatal(err)
	}
	s.Close()
	b[len(b)-trailerSize-3] ^= 1
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{Size: 100 << 10})
	has(t, s, 1, 20, nil)
	if err := os.WriteFile(files[0], append([]byte(fileMagic+"\x02"), b[9:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil {
		t.Error("a pack of a later version is opened")
	}
}

func TestCompact(t *testing.T) {
	dir := t.TempDir()
	o := Options{Size: 200 << 10}
	s := open(t, dir, o)
	put(t, s, upTo(0, 100)...)
	full := s.Used()
	odd := func(n int) bool { return n%2 == 1 }
	for n := range 100 {
		if odd(n) {
			if err := s.Delete(keyOf(n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var left int64
	for n := 0; n < 100; n += 2 {
		left += int64(len(value(n))) + Overhead
	}
	open := s.Batch() // what is being written stays where it is
	if err := open.Put(keyOf(200), value(200)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		has(t, s, 0, 100, odd)
	}
	if err := open.Commit(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(keyOf(200), nil, true); err != nil || !bytes.Equal(got, value(200)) {
		t.Errorf("written while compacting: %v", err)
	}
	if err := s.Delete(keyOf(200)); err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	n, files := onDisk(t, dir)
	if n != s.Used() || n > left*8/7+100<<10 {
		t.Errorf("%d bytes in %d files, used is %d, was %d; %d are left", n, len(files), s.Used(), full, left)
	}
	s.Close()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for n := 0; n < 100; n += 2 {
		if got, err := s.Get(keyOf(n), nil, true); err != nil || !bytes.Equal(got, value(n)) {
			t.Errorf("record %d after compacting: %v", n, err)
		}
		if err := s.Delete(keyOf(n)); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 201 {
		if err := s.Delete(keyOf(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, files := onDisk(t, dir); n > fileHead || n != s.Used() {
		t.Errorf("nothing is left, and %d bytes in %d files; used is %d", n, len(files), s.Used())
	}
}

// TestTogether writes, reads, deletes and compacts at once.
func TestTogether(t *testing.T) {
	dir := t.TempDir()
	o := Options{Size: 100 << 10, Files: 2}
	s := open(t, dir, o)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 40 {
				n := w*40 + i
				put(t, s, n)
				if got, err := s.Get(keyOf(n), make([]byte, 0, 100<<10), true); err != nil || !bytes.Equal(got, value(n)) {
					t.Errorf("record %d: %v", n, err)
				}
				if n%3 == 0 {
					if err := s.Delete(keyOf(n)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if err := s.Compact(t.Context()); err != nil {
			t.Error(err)
		}
	}
	third := func(n int) bool { return n%3 == 0 }
	has(t, s, 0, 160, third)
	if n, _ := onDisk(t, dir); n != s.Used() {
		t.Errorf("%d bytes on disk, used is %d", n, s.Used())
	}
	s.Close()
	s = open(t, dir, o)
	for n := range 160 {
		if _, err := s.Size(keyOf(n)); err != nil && !third(n) {
			t.Errorf("record %d after opening again: %v", n, err)
		}
	}
}

// TestFullDisk: a write that fails leaves all before it, and the pack in use.
func TestFailedWrite(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	put(t, s, 1)
	f := s.active.h.Load()
	r, err := os.Open(f.Name()) // can't be written
	if err != nil {
		t.Fatal(err)
	}
	s.active.h.Store(r)
	b := s.Batch()
	if err := b.Put(keyOf(2), value(2)); err == nil {
		t.Fatal("a write to a file that can't be written succeeded")
	}
	b.Discard()
	f.Close()
	put(t, s, 3) // in another pack: the first could not be cut back
	has(t, s, 1, 4, func(n int) bool { return n == 2 })
}

func TestFailedFlush(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	put(t, s, 1)
	b := s.Batch()
	if err := b.Put(keyOf(2), value(2)); err != nil {
		t.Fatal(err)
	}
	f := s.active.h.Load()
	closed, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	s.active.h.Store(closed)
	if err := b.Commit(); err == nil {
		t.Fatal("a commit without a flush succeeded")
	}
	s.active.h.Store(f)
	b = s.Batch()
	put(t, s, 3) // not behind what may be lost
	b.Discard()
	has(t, s, 1, 4, func(n int) bool { return n == 2 })
}

func FuzzScan(f *testing.F) {
	b := newFileHead(9)
	var entries []entry
	for n := range 4 {
		e := entry{key: keyOf(n), off: uint32(len(b)), size: uint32(n * 10)}
		b = appendHead(b, blockMagic, e.key, value(n)[:n*10])
		b = append(b, value(n)[:n*10]...)
		entries = append(entries, e)
	}
	f.Add(b)
	f.Add(appendIndex(bytes.Clone(b), entries, int64(len(b)), 9))
	f.Add(b[:len(b)-3])
	spoiled := bytes.Clone(b)
	spoiled[entries[1].off+5] ^= 1
	f.Add(spoiled)
	f.Fuzz(func(t *testing.T, b []byte) {
		size := int64(len(b))
		found, err := scan(bytes.NewReader(b), size, MaxData, nil)
		if err != nil || found.end > size || found.lost > max(found.end-fileHead, 0) {
			t.Fatalf("scan ends at %d of %d, %d are lost, %v", found.end, size, found.lost, err)
		}
		entries := found.entries
		check := func(e entry) {
			if int64(e.off)+e.length() > size {
				t.Fatalf("record from %d with %d bytes in %d", e.off, e.size, size)
			}
		}
		for _, e := range entries {
			check(e)
		}
		mark, err := parseFileHead(b)
		if err != nil {
			return
		}
		if entries, err = readIndex(bytes.NewReader(b), size, mark); err == nil {
			for _, e := range entries {
				check(e)
			}
		}
	})
}

func BenchmarkPutSmall(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	data := make([]byte, 300)
	b.SetParallelism(16)
	var mu sync.Mutex
	n := 0
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			key := keyOf(n)
			mu.Unlock()
			batch := s.Batch()
			if err := errors.Join(batch.Put(key, data), batch.Commit()); err != nil {
				b.Error(err)
			}
		}
	})
}

// TestMoveYields: a record that was deleted or put again while it was being moved
// stays so.
func TestMoveYields(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	put(t, s, 1, 2, 3)
	b := s.Batch()
	for n := 1; n < 4; n++ {
		w, err := b.put(keyOf(n), value(n))
		if err != nil {
			t.Fatal(err)
		}
		w.was = s.index[spotOf(keyOf(n))]
	}
	if err := s.Delete(keyOf(1)); err != nil {
		t.Fatal(err)
	}
	put(t, s, 2)
	later := s.index[spotOf(keyOf(2))]
	if err := b.commit(true); err != nil {
		t.Fatal(err)
	}
	has(t, s, 1, 4, func(n int) bool { return n == 1 })
	if s.index[spotOf(keyOf(2))] != later {
		t.Error("a move undid a later put")
	}
}

// TestSparedHandle: a reader that took a handle right before it was closed reads.
func TestSparedHandle(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	put(t, s, 1)
	s.packs[0].h.Load().Close()
	if got, err := s.Get(keyOf(1), nil, true); err != nil || !bytes.Equal(got, value(1)) {
		t.Error(err)
	}
}

// TestCompactCantWrite: a disk that fails the writes of a compaction is told of, and
// takes no record.
func TestCompactCantWrite(t *testing.T) {
	s := open(t, t.TempDir(), Options{Records: 4})
	put(t, s, upTo(1, 5)...)
	put(t, s, 6, 7)
	if err := s.Delete(keyOf(2)); err != nil {
		t.Fatal(err)
	}
	p := s.active
	f := p.h.Swap(dyingFile(t))
	if err := s.Compact(t.Context()); !Medium(err) {
		t.Errorf("compacted with %v; want the failed write", err)
	}
	p.h.Store(f)
	has(t, s, 1, 8, func(n int) bool { return n == 2 || n == 5 })
}

// TestCompactDamaged: a damaged record is named when Compact leaves it behind;
// while the index of its pack is damaged too, the pack stays, and what is whole
// in it can be read.
func TestCompactDamaged(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(b []byte)
	}{
		{"record", func(b []byte) { b[bytes.Index(b, value(3))+10] ^= 1 }},
		{"record and index", func(b []byte) { b[bytes.Index(b, value(3))+10] ^= 1; b[len(b)-trailerSize-3] ^= 1 }},
		{"head and index", func(b []byte) { b[bytes.Index(b, []byte(keyOf(3)))] ^= 1; b[len(b)-trailerSize-3] ^= 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{Records: 8})
			put(t, s, upTo(1, 10)...)
			_, files := onDisk(t, dir)
			b, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			c.spoil(b)
			if err := os.WriteFile(files[0], b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.Delete(keyOf(1)), s.Delete(keyOf(2)), s.Delete(keyOf(8)), s.Compact(t.Context())); err != nil {
				t.Fatal(err)
			}
			for n := 4; n < 8; n++ {
				if got, err := s.Get(keyOf(n), nil, true); err != nil || !bytes.Equal(got, value(n)) {
					t.Errorf("record %d: %v", n, err)
				}
			}
			_, err = s.Get(keyOf(3), nil, true)
			dropped := s.Dropped()
			if gone := len(dropped) == 1 && dropped[0] == keyOf(3) && errors.Is(err, ErrNotFound); !gone && !errors.Is(err, ErrDamaged) {
				t.Errorf("the damaged record: %v, dropped %q", err, dropped)
			}
			if n, _ := onDisk(t, dir); n != s.Used() {
				t.Errorf("%d bytes on disk, used is %d", n, s.Used())
			}
		})
	}
}

// TestCompactUnreadable: what the disk can't read stays where it is, is named until it
// is put again or read after all, and stops nothing.
func TestCompactUnreadable(t *testing.T) {
	dying := dyingFile(t)
	s := open(t, t.TempDir(), Options{})
	put(t, s, 1, 2, 3, 4)
	if err := s.Delete(keyOf(2)); err != nil {
		t.Fatal(err)
	}
	f := s.active.h.Swap(dying)
	if _, err := s.Get(keyOf(1), nil, true); !Medium(err) {
		t.Fatalf("the file's read: %v", err)
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Error(err)
	}
	named := func(want ...string) {
		t.Helper()
		got := s.Dropped()
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("dropped is %q, want %q", got, want)
		}
	}
	named(keyOf(1), keyOf(3), keyOf(4))
	put(t, s, 3)
	named(keyOf(1), keyOf(4))
	s.packs[0].h.Store(f)
	if _, err := s.Get(keyOf(1), nil, true); err != nil {
		t.Error(err)
	}
	named(keyOf(4))
	has(t, s, 1, 5, func(n int) bool { return n == 2 })
	named()
}

var badDisk = func() error {
	if runtime.GOOS == "windows" {
		return syscall.Errno(23) // ERROR_CRC
	}
	return syscall.EIO
}()

// holed is a file of which the disk can't read the bytes from lo to hi.
type holed struct {
	io.ReaderAt
	lo, hi int64
}

func (h holed) ReadAt(b []byte, off int64) (int, error) {
	if off < h.hi && off+int64(len(b)) > h.lo {
		return 0, &os.PathError{Op: "read", Path: "a pack", Err: badDisk}
	}
	return h.ReaderAt.ReadAt(b, off)
}

// TestOpenUnreadable: where the disk can't read a sector of a pack, what lies elsewhere
// is there, and nothing of the pack is changed: once it can, all is there again.
func TestOpenUnreadable(t *testing.T) {
	defer func(was func(*os.File) io.ReaderAt) { reader = was }(reader)
	for _, c := range []struct {
		name string
		pack int
		at   func(size, third int64) int64 // third: where the pack's third record begins
	}{
		{"head of a sealed pack", 0, func(_, _ int64) int64 { return 0 }},
		{"index", 0, func(size, _ int64) int64 { return size - 1 }},
		{"head", 1, func(_, _ int64) int64 { return 0 }},
		{"data", 1, func(_, third int64) int64 { return third + 20_000 }},
		{"head of a record", 1, func(_, third int64) int64 { return third }},
		{"end", 1, func(size, _ int64) int64 { return size - 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			o := Options{Records: 6}
			reader = func(f *os.File) io.ReaderAt { return f }
			s := open(t, dir, o)
			put(t, s, upTo(1, 12)...)
			at := map[int]place{}
			for n := 1; n < 12; n++ {
				at[n] = s.index[spotOf(keyOf(n))]
			}
			s.Close()
			_, files := onDisk(t, dir)
			path := files[c.pack]
			was, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lo := c.at(int64(len(was)), int64(at[3+6*c.pack].off)) / sector * sector
			reader = func(f *os.File) io.ReaderAt {
				if f.Name() == path {
					return holed{f, lo, lo + sector}
				}
				return f
			}
			var log bytes.Buffer
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			s = open(t, dir, o)
			gone := 0
			for n := 1; n < 12; n++ {
				end := int64(at[n].off) + recordHead + int64(len(keyOf(n))+len(value(n)))
				_, err := s.Get(keyOf(n), nil, true)
				if int(at[n].pack) == c.pack && int64(at[n].off) < lo+sector && end > lo {
					gone++
				} else if err != nil {
					t.Errorf("record %d: %v", n, err)
				}
			}
			if !s.Torn() || !strings.Contains(log.String(), "can't read all") || gone > 3 {
				t.Errorf("torn is %t, %d records are gone, the log says %q", s.Torn(), gone, &log)
			}
			put(t, s, 12)
			for n := 1; n < 12; n++ {
				if err := s.Delete(keyOf(n)); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(s.Compact(t.Context()), s.Close()); err != nil {
				t.Fatal(err)
			}
			if is, err := os.ReadFile(path); err != nil || !bytes.Equal(is, was) {
				t.Errorf("the pack has %d bytes, had %d, %v: want it as it was", len(is), len(was), err)
			}
			reader = func(f *os.File) io.ReaderAt { return f }
			s = open(t, dir, o)
			for n := 1; n < 13; n++ {
				if _, err := s.Get(keyOf(n), nil, true); err != nil && (n == 12 || int(at[n].pack) == c.pack) {
					t.Errorf("read after all, record %d: %v", n, err)
				}
			}
		})
	}
	t.Run("too much", func(t *testing.T) {
		dir := t.TempDir()
		reader = func(f *os.File) io.ReaderAt { return f }
		s := open(t, dir, Options{})
		b := s.Batch()
		if err := errors.Join(b.Put("k", make([]byte, 2*maxUnread*sector)), b.Commit(), s.Close()); err != nil {
			t.Fatal(err)
		}
		reader = func(f *os.File) io.ReaderAt { return holed{f, 0, 1 << 30} }
		_, err := Open(dir, Options{})
		if err == nil || !Medium(err) || !strings.Contains(err.Error(), "00000000.pack") || !strings.Contains(err.Error(), "good disk") {
			t.Errorf("%v; want which pack can't be read, and what to do", err)
		}
	})
}

// TestEachUnreadable: a sealed pack whose index the disk can't read is passed over,
// also by Compact, and stays.
func TestEachUnreadable(t *testing.T) {
	s := open(t, t.TempDir(), Options{Records: 4})
	put(t, s, upTo(1, 5)...)
	put(t, s, 6, 7)
	p := s.packs[0]
	if !p.sealed.Load() {
		t.Fatal("the first pack has no index")
	}
	f := p.h.Swap(dyingFile(t))
	var keys []string
	err := s.Each(func(k string) error { keys = append(keys, k); return nil })
	if err != nil || !slices.Equal(keys, []string{keyOf(6), keyOf(7)}) {
		t.Errorf("Each tells of %q, %v; want those of the pack that can be read", keys, err)
	}
	if err := errors.Join(s.Delete(keyOf(2)), s.Compact(t.Context())); err != nil {
		t.Error(err)
	}
	p.h.Store(f)
	has(t, s, 1, 8, func(n int) bool { return n == 2 || n == 5 })
}
