package storage

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
)

// A damaged block is told once and named with what lacks it, whether a read finds
// it or the store's opening, until it is stored again.
func TestDamageIsNamed(t *testing.T) {
	var heard []cid.Cid
	repaired := 0
	s := newStore(t, true, func(c *Config) {
		c.OnDamage = func(c cid.Cid) { heard = append(heard, c) }
		c.OnRepair = func() { repaired++ }
	})
	data := noise(3<<20, 4)
	root := add(t, s, data, AddOptions{})
	other := add(t, s, noise(1<<20, 5), AddOptions{}) // after it in the pack
	var leaves []cid.Cid
	p, err := NewPlan(Whole(root.CID))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.fill(t.Context(), p, func(c cid.Cid, _ int) { leaves = append(leaves, c) }, nil); err != nil {
		t.Fatal(err)
	}
	leaf := leaves[1]
	named := func(when string, s *Store, want int) {
		t.Helper()
		list, err := s.Damaged(t.Context())
		if err != nil || len(list) != want {
			t.Fatalf("%s: %+v, %v; want %d", when, list, err, want)
		}
		for _, d := range list {
			if keyOf(d.Block) != keyOf(leaf) || !slices.ContainsFunc(d.Roots, func(r Root) bool { return r.CID == root.CID }) {
				t.Errorf("%s: %+v", when, d)
			}
		}
	}
	named("before", s, 0)
	spoil(t, s, leaf)
	for range 2 {
		if _, err := s.Get(t.Context(), leaf); err == nil {
			t.Error("read")
		}
	}
	named("after a read", s, 1)
	if len(heard) != 1 || heard[0] != leaf {
		t.Errorf("told of %v", heard)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(s.cfg); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	named("after a restart", s, 1)
	if !s.Complete(t.Context(), other.CID) {
		t.Error("what lies behind the damaged block is gone too")
	}
	add(t, s, noise(1<<20, 6), AddOptions{})
	if repaired != 0 {
		t.Error("told of a repair before there was one")
	}
	add(t, s, data, AddOptions{})
	named("after it was added again", s, 0)
	if repaired != 1 {
		t.Errorf("told of %d repairs, want 1", repaired)
	}
	if !s.Complete(t.Context(), root.CID) {
		t.Error("not repaired")
	}
}

// A damaged block that a collection finds, as it copies what lies beside it, is
// told and named too.
func TestCollectionNamesDamage(t *testing.T) {
	var heard []cid.Cid
	s := newStore(t, true, func(c *Config) { c.OnDamage = func(c cid.Cid) { heard = append(heard, c) } })
	lost, other := add(t, s, []byte("lost"), AddOptions{}), add(t, s, noise(1<<20, 5), AddOptions{})
	spoil(t, s, lost.CID)
	if err := s.Unpin(t.Context(), other.CID, User); err != nil {
		t.Fatal(err)
	}
	gc(t, s)
	list, err := s.Damaged(t.Context())
	if err != nil || len(list) != 1 || list[0].Block != lost.CID || len(heard) != 1 || heard[0] != lost.CID {
		t.Errorf("named %+v, %v, told of %v; want %v", list, err, heard, lost.CID)
	}
}

// A block that is found damaged after a session has touched it stays so when the
// session has written others.
func TestTouchedDamageStays(t *testing.T) {
	s := newStore(t, true)
	root := add(t, s, []byte("touched"), AddOptions{}).CID
	w, err := s.Begin(t.Context(), root, Mesh)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if here, err := w.Touch(t.Context(), root); !here || err != nil {
		t.Fatal(here, err)
	}
	spoil(t, s, root)
	if _, err := s.Get(t.Context(), root); err == nil {
		t.Error("read")
	}
	other := []byte("put")
	if err := errors.Join(w.Put(t.Context(), mustSum(other), other), w.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	if list, err := s.Damaged(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v; want the one damaged block", list, err)
	}
}

// Where the disk spoiled the head of a stored block, what was stored after it is
// kept, and the block is named although nothing tells its key.
func TestSpoiledHeadIsNamed(t *testing.T) {
	s := newStore(t, true)
	lost, other := add(t, s, []byte("its head is spoiled"), AddOptions{}), add(t, s, noise(3<<20, 5), AddOptions{})
	path := filepath.Join(s.cfg.Dir, "packs", "00000000.pack")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, lost.CID.Hash())+7] ^= 1
	if err := errors.Join(s.Close(), os.WriteFile(path, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(s.cfg); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Complete(t.Context(), other.CID) {
		t.Error("what lies behind the spoiled head is gone too")
	}
	list, err := s.Damaged(t.Context())
	if err != nil || len(list) != 1 || list[0].Block != lost.CID {
		t.Errorf("damaged is %+v, %v; want %s", list, err, lost.CID)
	}
}

// A block that its CID carries is stored nowhere, and is not lost with a torn end.
func TestInlinedIsNotLost(t *testing.T) {
	s := newStore(t, true)
	h, err := mh.Sum([]byte("inlined"), mh.IDENTITY, -1)
	if err != nil {
		t.Fatal(err)
	}
	n := unixfs.EmptyDirNode() // as kubo add --inline makes it
	err = errors.Join(n.SetCidBuilder(v1), n.AddRawLink("x", &ipld.Link{Name: "x", Size: 7, Cid: cid.NewCidV1(cid.Raw, h)}))
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Begin(t.Context(), n.Cid(), Mesh)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(w.Put(t.Context(), n.Cid(), n.RawData()), w.Flush(t.Context()), s.Pin(t.Context(), n.Cid(), User, time.Time{}))
	w.Close()
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(s.cfg.Dir, "packs", "00000000.pack"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("kb torn")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(s.cfg); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if list, err := s.Damaged(t.Context()); err != nil || len(list) != 0 || !s.Complete(t.Context(), n.Cid()) {
		t.Errorf("damaged is %+v, %v; want none, and the folder whole", list, err)
	}
}

var badDisk = func() error {
	if runtime.GOOS == "windows" {
		return syscall.Errno(23) // ERROR_CRC
	}
	return syscall.EIO
}()

// What the disk could not read is damaged no more once it is read after all.
func TestReadAfterAll(t *testing.T) {
	repaired := 0
	s := newStore(t, true, func(c *Config) { c.OnRepair = func() { repaired++ } })
	root := add(t, s, []byte("the only copy"), AddOptions{}).CID
	whole := s.blocks
	s.blocks = dying{whole}
	if _, err := s.Get(t.Context(), root); !errors.Is(err, badDisk) {
		t.Fatal(err)
	}
	s.blocks = whole
	for range 2 {
		if _, err := s.Get(t.Context(), root); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.Damaged(t.Context()); err != nil || len(list) != 0 || repaired != 1 {
		t.Errorf("damaged is %+v, %v, told of %d repairs; want none, and one", list, err, repaired)
	}
	if !s.Complete(t.Context(), root) {
		t.Error("it does not count as stored")
	}
}

// dying is a disk that can't read.
type dying struct{ blocks }

func (d dying) get(context.Context, key, []byte, bool) ([]byte, error) {
	return nil, &os.PathError{Op: "read", Path: "a.pack", Err: badDisk}
}

// A block that the disk can't read is damaged like one whose bytes are wrong.
func TestUnreadableIsDamage(t *testing.T) {
	var log bytes.Buffer
	var heard []cid.Cid
	s := newStore(t, true, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		c.OnDamage = func(c cid.Cid) { heard = append(heard, c) }
	})
	root := add(t, s, []byte("can't be read"), AddOptions{}).CID
	whole := s.blocks
	s.blocks = dying{whole}
	for _, read := range []func() ([]byte, error){
		func() ([]byte, error) { return s.Get(t.Context(), root) },
		func() ([]byte, error) { return s.Send(t.Context(), root, nil) },
	} {
		if _, err := read(); !errors.Is(err, ErrCorrupt) || !errors.Is(err, badDisk) {
			t.Errorf("read: %v; want damage, and its cause", err)
		}
	}
	list, err := s.Damaged(t.Context())
	if err != nil || len(list) != 1 || list[0].Block != root || len(heard) != 1 {
		t.Errorf("damaged is %+v, %v, told of %v; want %s", list, err, heard, root)
	}
	if !strings.Contains(log.String(), badDisk.Error()) {
		t.Errorf("the log has no cause: %s", log.String())
	}
	if s.Complete(t.Context(), root) {
		t.Error("it counts as stored")
	}
	s.blocks = whole
	before := s.blocks.used()
	add(t, s, []byte("can't be read"), AddOptions{})
	if list, err := s.Damaged(t.Context()); err != nil || len(list) != 0 || s.blocks.used() == before {
		t.Errorf("added again, damaged is %+v, %v, %d bytes more", list, err, s.blocks.used()-before)
	}
}
