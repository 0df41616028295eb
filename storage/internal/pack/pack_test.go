package pack

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
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
// bytes: the records before that point are there, the pack can be written to,
// and what is said to be stored is whole.
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
	try := func(b []byte, least int) {
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
			found := 0
			for n := 1; n < 5; n++ {
				got, err := s.Get(keyOf(n), nil, true)
				if err == nil && string(got) == fmt.Sprint("value ", n) {
					found++
				} else if !errors.Is(err, ErrNotFound) {
					t.Fatalf("record %d: %q, %v", n, got, err)
				} else if n <= least {
					t.Fatalf("record %d of %d is lost", n, least)
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
			try(whole[:n], least)
		}
		if n >= fileHead && n%3 == 1 {
			bad := bytes.Clone(whole)
			bad[n] ^= 0x40
			try(bad, least)
		}
	}
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
	f.Fuzz(func(t *testing.T, b []byte) {
		size := int64(len(b))
		entries, _, end, err := scan(bytes.NewReader(b), size)
		if err != nil || end > size {
			t.Fatalf("scan ends at %d of %d, %v", end, size, err)
		}
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
