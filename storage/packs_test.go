package storage

import (
	"bytes"
	"context"
	"encoding/base32"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
)

// TestMoveIn opens a home of the first layout, in which one block is damaged,
// and whose move was broken off once.
func TestMoveIn(t *testing.T) {
	from := newStore(t, true)
	data := noise(2<<20+5, 1)
	root := add(t, from, data, AddOptions{ChunkSize: 200_000})
	one := add(t, from, []byte("one block"), AddOptions{})
	lost := add(t, from, []byte("a damaged block"), AddOptions{})
	dir := from.cfg.Dir
	old := filepath.Join(dir, "blocks")
	err := from.blocks.each(t.Context(), func(k key) error {
		b, err := from.blocks.get(t.Context(), k, nil, true)
		if k == keyOf(lost.CID) {
			b = []byte("something else.")
		}
		name := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(k))
		folder := filepath.Join(old, name[len(name)-3:len(name)-1])
		return errors.Join(err, os.MkdirAll(folder, 0o700), os.WriteFile(filepath.Join(folder, name+".data"), b, 0o600))
	})
	err = errors.Join(err, os.WriteFile(filepath.Join(old, "SHARDING"), []byte("/repo/flatfs/shard/v1/next-to-last/2\n"), 0o600),
		from.Close(), os.RemoveAll(filepath.Join(dir, "packs")))
	if err != nil {
		t.Fatal(err)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := openPacks(stopped, dir, from.cfg.Log); !errors.Is(err, context.Canceled) {
		t.Fatalf("a move that is broken off: %v", err)
	}
	for range 2 {
		s, err := Open(Config{Dir: dir, DB: from.db, MinFree: 1})
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, s, root.CID, "", 0, -1); !bytes.Equal(got, data) {
			t.Error("another content after the move")
		}
		if _, err := s.Get(t.Context(), one.CID); err != nil {
			t.Error(err)
		}
		if _, err := s.Get(t.Context(), lost.CID); !errors.Is(err, ErrNotFound) {
			t.Errorf("a damaged block after the move: %v", err)
		}
		if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the old folder is there: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRoomComesBack deletes half of what is stored: so much room comes back.
func TestRoomComesBack(t *testing.T) {
	s := newStore(t, true)
	var roots []cid.Cid
	const size = 1 << 20
	for n := range 16 {
		roots = append(roots, add(t, s, noise(size, uint64(n)), AddOptions{ChunkSize: 64 << 10}).CID)
	}
	for _, r := range roots[:8] {
		if err := s.Unpin(t.Context(), r, User); err != nil {
			t.Fatal(err)
		}
	}
	if r := gc(t, s); r.Freed < 8*size {
		t.Errorf("freed %d", r.Freed)
	}
	var files int64
	err := filepath.WalkDir(s.cfg.Dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".pack" {
			fi, err := d.Info()
			files += fi.Size()
			return err
		}
		return err
	})
	u, usageErr := s.Usage(t.Context())
	if err != nil || usageErr != nil || u.Bytes != files || files < 8*size || files > 9*size {
		t.Errorf("packs have %d bytes, usage is %d, %v, %v", files, u.Bytes, err, usageErr)
	}
	for n, r := range roots[8:] {
		if got := readAll(t, s, r, "", 0, -1); !bytes.Equal(got, noise(size, uint64(n+8))) {
			t.Errorf("file %d: another content", n+8)
		}
	}
}
