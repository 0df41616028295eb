package storage

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ipfs/go-cid"
	_ "modernc.org/sqlite"
	"pgregory.net/rapid"
)

func openDB(t testing.TB, dir string) *sql.DB {
	t.Helper()
	dsn := "file:" + filepath.Join(dir, "kith.db") + "?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)"
	if dir == "" {
		dsn = "file::memory:?_txlock=immediate"
	}
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		t.Fatal(err)
	}
	if dir == "" {
		db.SetMaxOpenConns(1)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// newStore opens a store in a new folder, or in memory.
func newStore(t testing.TB, disk bool, change ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{MinFree: 1}
	if disk {
		cfg.Dir = t.TempDir()
	}
	cfg.DB = openDB(t, cfg.Dir)
	for _, f := range change {
		f(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// both runs a test on a store on disk and on one in memory.
func both(t *testing.T, f func(t *testing.T, s *Store)) {
	t.Run("disk", func(t *testing.T) { f(t, newStore(t, true)) })
	t.Run("memory", func(t *testing.T) { f(t, newStore(t, false)) })
}

func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

func add(t testing.TB, s *Store, data []byte, o AddOptions) Root {
	t.Helper()
	r, err := s.AddBytes(t.Context(), data, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readAll(t testing.TB, s *Store, root cid.Cid, path string, off, length int64) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), root, path, off, length)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKnownCIDs(t *testing.T) {
	// What `ipfs add --cid-version=1 --raw-leaves --chunker=size-1048576` gives.
	for _, c := range []struct {
		data []byte
		want string
	}{
		{nil, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"},
		{[]byte("hello world"), "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"},
	} {
		s := newStore(t, false)
		if got := add(t, s, c.data, AddOptions{}).CID.String(); got != c.want {
			t.Errorf("%d bytes: %s, want %s", len(c.data), got, c.want)
		}
		if got, err := SumBytes(c.data); err != nil || got.String() != c.want {
			t.Errorf("SumBytes of %d bytes: %s, %v, want %s", len(c.data), got, err, c.want)
		}
	}
}

func TestAddAndOpen(t *testing.T) {
	both(t, func(t *testing.T, s *Store) {
		data := noise(5<<20+17, 1)
		var last, total int64
		root := add(t, s, data, AddOptions{Name: "five", Audience: Public, Progress: func(d, n int64) { last, total = d, n }})
		if root.Size != int64(len(data)) || root.Files != 1 || last != root.Size || total != root.Size {
			t.Fatalf("root %+v, progress %d of %d", root, last, total)
		}
		if got := readAll(t, s, root.CID, "", 0, -1); !bytes.Equal(got, data) {
			t.Fatal("another content")
		}
		if sum, err := Sum(t.Context(), bytes.NewReader(data), 0); err != nil || sum.CID != root.CID {
			t.Fatalf("Sum is %s, %v; the CID is %s", sum.CID, err, root.CID)
		}
		for _, sp := range [][2]int64{{0, 0}, {int64(len(data)), 0}, {int64(len(data)), -1}, {1 << 20, 1 << 20}, {1<<20 - 1, 2}, {17, -1}} {
			want := data[sp[0]:]
			if sp[1] >= 0 {
				want = want[:sp[1]]
			}
			if got := readAll(t, s, root.CID, "", sp[0], sp[1]); !bytes.Equal(got, want) {
				t.Errorf("span %v: another content", sp)
			}
		}
		for _, sp := range [][2]int64{{-1, 1}, {0, -2}, {int64(len(data)) + 1, -1}, {int64(len(data)), 1}, {0, int64(len(data)) + 1}, {1 << 62, 1 << 62}} {
			if _, err := s.Open(t.Context(), root.CID, "", sp[0], sp[1]); !errors.Is(err, ErrSpan) {
				t.Errorf("span %v: %v, want ErrSpan", sp, err)
			}
		}
		if a, ok, err := s.Audience(t.Context(), root.CID); a != Public || !ok || err != nil {
			t.Errorf("audience %v %v %v", a, ok, err)
		}
		r, err := s.Root(t.Context(), root.CID)
		if err != nil || r.Name != "five" || r.Size != root.Size {
			t.Errorf("Root gives %+v, %v", r, err)
		}
	})
}

func TestSpansAgainstSlices(t *testing.T) {
	s := newStore(t, false)
	rapid.Check(t, func(rt *rapid.T) {
		data := noise(rapid.IntRange(0, 40_000).Draw(rt, "size"), rapid.Uint64Range(0, 5).Draw(rt, "seed"))
		chunk := rapid.Int64Range(16, 9000).Draw(rt, "chunk")
		if rapid.Bool().Draw(rt, "repeated") {
			data = bytes.Repeat(data[:min(len(data), 100)], 50)
		}
		root, err := s.AddBytes(t.Context(), data, AddOptions{ChunkSize: chunk})
		if err != nil {
			rt.Fatal(err)
		}
		off := rapid.IntRange(0, len(data)).Draw(rt, "offset")
		n := rapid.IntRange(-1, len(data)-off).Draw(rt, "length")
		want := data[off:]
		if n >= 0 {
			want = want[:n]
		}
		r, err := s.Open(t.Context(), root.CID, "", int64(off), int64(n))
		if err != nil {
			rt.Fatal(err)
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, want) {
			rt.Fatalf("%d bytes, %v; want %d", len(got), err, len(want))
		}
	})
}

func tree() fstest.MapFS {
	return fstest.MapFS{
		"a.txt":         {Data: []byte("alpha")},
		"empty":         {Data: nil},
		"sub/b.bin":     {Data: noise(3<<20, 2)},
		"sub/deep/c":    {Data: []byte("gamma")},
		"sub/deep/link": {Data: []byte("../b.bin"), Mode: os.ModeSymlink},
	}
}

func TestFolders(t *testing.T) {
	both(t, func(t *testing.T, s *Store) {
		fsys := tree()
		root, err := s.AddTree(t.Context(), fsys, AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if root.Files != 4 || root.Size != 5+(3<<20)+5 {
			t.Errorf("root %+v", root)
		}
		var paths []string
		err = s.Walk(t.Context(), root.CID, "", func(e Entry) error {
			paths = append(paths, e.Path+":"+string(e.Type))
			if f, ok := fsys[e.Path]; ok && e.Type == File && e.Size != int64(len(f.Data)) {
				t.Errorf("%s has %d bytes, want %d", e.Path, e.Size, len(f.Data))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want := ":folder a.txt:file empty:file sub:folder sub/b.bin:file sub/deep:folder sub/deep/c:file sub/deep/link:symlink"
		if got := strings.Join(paths, " "); got != want {
			t.Errorf("walk\n%s, want\n%s", got, want)
		}
		if got := readAll(t, s, root.CID, "sub/deep/c", 1, 3); string(got) != "amm" {
			t.Errorf("sub/deep/c[1:4] is %q", got)
		}
		if _, err := s.Open(t.Context(), root.CID, "sub", 0, -1); !errors.Is(err, ErrIsDir) {
			t.Errorf("open a folder: %v", err)
		}
		if _, err := s.Open(t.Context(), root.CID, "a.txt/x", 0, -1); !errors.Is(err, ErrNotDir) {
			t.Errorf("open below a file: %v", err)
		}
		if _, err := s.Open(t.Context(), root.CID, "nope", 0, -1); !errors.Is(err, ErrNotFound) {
			t.Errorf("open what is not there: %v", err)
		}
		dest := filepath.Join(t.TempDir(), "out")
		if err := s.Export(t.Context(), root.CID, dest, nil); err != nil {
			t.Fatal(err)
		}
		again, err := s.AddPath(t.Context(), dest, AddOptions{})
		if err != nil || again.CID != root.CID {
			t.Errorf("exported and added again: %s, %v; want %s", again.CID, err, root.CID)
		}
		if err := s.Export(t.Context(), root.CID, dest, nil); !errors.Is(err, os.ErrExist) {
			t.Errorf("export onto a folder that exists: %v", err)
		}
	})
}

func TestHugeFolderIsSharded(t *testing.T) {
	s := newStore(t, false)
	fsys := fstest.MapFS{}
	for i := range 6000 {
		fsys["file-with-quite-a-long-name-"+time.Duration(i).String()] = &fstest.MapFile{Data: []byte{byte(i), byte(i >> 8)}}
	}
	root, err := s.AddTree(t.Context(), fsys, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, n, err := s.lookup(t.Context(), root.CID, "")
	if err != nil || n.kind != kindShard {
		t.Fatalf("kind %v, %v: want a shard", n.kind, err)
	}
	ents, err := s.Ls(t.Context(), root.CID, "")
	if err != nil || len(ents) != len(fsys) {
		t.Fatalf("%d entries, %v", len(ents), err)
	}
	for i := range 60 {
		name := "file-with-quite-a-long-name-" + time.Duration(i*100).String()
		i *= 100
		if got := readAll(t, s, root.CID, name, 0, -1); !bytes.Equal(got, []byte{byte(i), byte(i >> 8)}) {
			t.Fatalf("%s: %v", name, got)
		}
	}
	if !s.Complete(t.Context(), root.CID) {
		t.Error("not complete")
	}
	if _, err := s.Stat(t.Context(), root.CID, "file-that-is-not-there"); !errors.Is(err, ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
}

// spoil changes a byte in the middle of a block on disk.
func spoil(t testing.TB, s *Store, c cid.Cid) {
	t.Helper()
	data, err := s.Get(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	packs, err := filepath.Glob(filepath.Join(s.cfg.Dir, "packs", "*.pack"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range packs {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(b, data)
		if at < 0 {
			continue
		}
		b[at+len(data)/2] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no pack has %s", c)
}

func TestDamagedBlockIsNeverServed(t *testing.T) {
	s := newStore(t, true)
	data := noise(3<<20, 3)
	root := add(t, s, data, AddOptions{})
	var leaf cid.Cid
	p, err := NewPlan(Whole(root.CID))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.fill(t.Context(), p, func(c cid.Cid, _ int) { leaf = c }, nil); err != nil {
		t.Fatal(err)
	}
	spoil(t, s, leaf)
	if _, err := s.Get(t.Context(), leaf); !errors.Is(err, ErrCorrupt) {
		t.Errorf("get: %v", err)
	}
	if _, err := s.Send(t.Context(), leaf, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("send: %v", err)
	}
	r, err := s.Open(t.Context(), root.CID, "", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); !errors.Is(err, ErrCorrupt) || !bytes.HasPrefix(data, got) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if s.Complete(t.Context(), root.CID) {
		t.Error("complete in spite of a damaged block")
	}
	// Adding it again repairs it.
	add(t, s, data, AddOptions{})
	if got := readAll(t, s, root.CID, "", 0, -1); !bytes.Equal(got, data) || !s.Complete(t.Context(), root.CID) {
		t.Error("not repaired")
	}
}

func TestQuota(t *testing.T) {
	s := newStore(t, true, func(c *Config) { c.MaxBytes = 4 << 20 })
	keep := add(t, s, noise(2<<20, 1), AddOptions{})
	before, err := s.Usage(t.Context())
	if err != nil || before.Bytes < 2<<20 || before.Max != 4<<20 || before.Free <= 0 {
		t.Fatalf("usage %+v, %v", before, err)
	}
	if _, err := s.AddBytes(t.Context(), noise(3<<20, 2), AddOptions{}); !errors.Is(err, ErrFull) {
		t.Fatalf("add beyond the limit: %v", err)
	}
	// Not known to be too large: it must not leave the store full either.
	if _, err := s.AddReader(t.Context(), io.LimitReader(rand.NewChaCha8([32]byte{9}), 3<<20), AddOptions{}); !errors.Is(err, ErrFull) {
		t.Fatalf("add a stream beyond the limit: %v", err)
	}
	after, err := s.Usage(t.Context())
	if err != nil || after.Bytes > before.Bytes+64<<10 {
		t.Errorf("usage was %d, is %d, %v", before.Bytes, after.Bytes, err)
	}
	if s.quota.promised != 0 {
		t.Errorf("%d bytes are promised still", s.quota.promised)
	}
	// What is there already needs no room.
	path := filepath.Join(t.TempDir(), "again")
	if err := os.WriteFile(path, noise(2<<20, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddPath(t.Context(), path, AddOptions{}); err != nil {
		t.Errorf("add what is there: %v", err)
	}
	// Garbage makes room by itself.
	if err := s.Unpin(t.Context(), keep.CID, User); err != nil {
		t.Fatal(err)
	}
	add(t, s, noise(3<<20, 2), AddOptions{})
}

// A question about room changes nothing, and room that has come back since the
// disk was last asked counts.
func TestRoom(t *testing.T) {
	s := newStore(t, true, func(c *Config) { c.MaxBytes, c.MinFree = 1<<40, 1<<60 })
	for _, n := range []int64{1, 1 << 61, 1} { // more than the disk has, and than the limit
		if err := s.Room(n); !errors.Is(err, ErrFull) {
			t.Errorf("%d bytes: %v, want full", n, err)
		}
	}
	s.cfg.MinFree = 0
	s.quota = quota{last: time.Now()} // nothing was free a moment ago
	if err := s.Room(1); err != nil {
		t.Error(err)
	}
}

func TestConfigAndOptions(t *testing.T) {
	if _, err := Open(Config{MaxBytes: -1, MinFree: -2}); err == nil || !strings.Contains(err.Error(), "DB") || !strings.Contains(err.Error(), "MaxBytes") || !strings.Contains(err.Error(), "MinFree") {
		t.Errorf("not every fault is told: %v", err)
	}
	s := newStore(t, false)
	for _, o := range []AddOptions{{ChunkSize: -1}, {ChunkSize: MaxBlock + 1}, {Audience: 9}, {Name: strings.Repeat("x", 5000)}} {
		if _, err := s.AddBytes(t.Context(), []byte("x"), o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	if _, err := s.AddPath(t.Context(), os.DevNull, AddOptions{}); err == nil || !strings.Contains(err.Error(), os.DevNull) {
		t.Errorf("a device is accepted: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(context.Background(), mustSum([]byte("x"))); !errors.Is(err, ErrClosed) {
		t.Errorf("get after close: %v", err)
	}
	if _, err := s.AddBytes(context.Background(), []byte("x"), AddOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("add after close: %v", err)
	}
}

func mustSum(b []byte) cid.Cid {
	c, err := SumBytes(b)
	if err != nil {
		panic(err)
	}
	return c
}
