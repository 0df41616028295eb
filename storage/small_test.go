package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
)

// Small files added together are what each would be by itself: readable, pinned,
// indexed; and gone when they are let go of together.
func TestAddSmall(t *testing.T) {
	both(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		var files [][]byte
		for i := range 300 {
			files = append(files, fmt.Appendf(nil, "output %d", i%150)) // each twice
		}
		files = append(files, nil)
		roots, err := s.AddSmall(ctx, files, AddOptions{Audience: Job, Owner: "job:a"})
		if err != nil || len(roots) != len(files) {
			t.Fatalf("%d roots, %v", len(roots), err)
		}
		alone := newStore(t, false)
		for i, data := range files {
			want, err := alone.AddBytes(ctx, data, AddOptions{Audience: Job, Owner: "job:a"})
			if err != nil || want.CID != roots[i].CID {
				t.Fatalf("file %d is %s, alone %s, %v", i, roots[i].CID, want.CID, err)
			}
			got, err := s.Root(ctx, want.CID)
			if err != nil || got.Size != want.Size || got.Files != 1 || got.Audience != Job {
				t.Fatalf("root of file %d: %+v, %v", i, got, err)
			}
		}
		pins, err := s.Pins(ctx)
		if err != nil || len(pins) != 151 {
			t.Fatalf("%d pins, want 151, %v", len(pins), err)
		}
		if _, err := s.GC(ctx); err != nil {
			t.Fatal(err)
		}
		all := make([]cid.Cid, len(roots))
		for i, r := range roots {
			all[i] = r.CID
			data, err := s.Get(ctx, r.CID)
			if err != nil || !bytes.Equal(data, files[i]) {
				t.Fatalf("file %d after a collection: %q, %v", i, data, err)
			}
		}
		if err := s.UnpinAll(ctx, all[:150], "job:a"); err != nil {
			t.Fatal(err)
		}
		if err := s.UnpinAll(ctx, all[:150], "job:a"); err != nil {
			t.Errorf("again: %v", err)
		}
		if _, err := s.GC(ctx); err != nil {
			t.Fatal(err)
		}
		for i, c := range all {
			if _, err := s.Get(ctx, c); errors.Is(err, ErrNotFound) != (i < 300) {
				t.Fatalf("file %d after the unpinning: %v", i, err)
			}
		}
	})
}

func TestAddSmallRefuses(t *testing.T) {
	s := newStore(t, true, func(c *Config) { c.MaxBytes = 1 << 20 })
	big := make([]byte, DefaultChunk+1)
	if _, err := s.AddSmall(t.Context(), [][]byte{{1}, big}, AddOptions{Owner: "job:a"}); err == nil {
		t.Error("a file of two blocks was added as one")
	}
	var files [][]byte
	for i := range 40 {
		files = append(files, bytes.Repeat([]byte{byte(i)}, 64<<10))
	}
	if roots, err := s.AddSmall(t.Context(), files, AddOptions{Owner: "job:a"}); !errors.Is(err, ErrFull) || roots != nil {
		t.Errorf("more than the store holds: %d roots, %v", len(roots), err)
	}
	if pins, err := s.Pins(t.Context()); err != nil || len(pins) != 0 {
		t.Errorf("%d pins after it was refused, %v", len(pins), err)
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Bytes > 256<<10 {
		t.Errorf("%d bytes are left of it, %v", u.Bytes, err)
	}
}

// A folder made at once is the folder that boxo makes one name at a time, on
// both sides of the size from which it is sharded.
func TestMakeFolder(t *testing.T) {
	s := newStore(t, false)
	ctx := t.Context()
	leaf, err := s.AddBytes(ctx, []byte("leaf"), AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := s.AddFolder(ctx, []Member{{"x", leaf.CID}}, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	edge := uio.HAMTShardingSize / (6 + leaf.CID.ByteLen())
	for _, n := range []int{0, 1, 2, 174, edge, edge + 1, 2 * edge, wideFolder + 1} {
		members := make([]Member, n)
		for i := range members {
			members[i] = Member{Name: fmt.Sprintf("%06d", n-i), CID: leaf.CID}
			if i%7 == 3 {
				members[i].CID = tree.CID
			}
		}
		got, err := s.AddFolder(ctx, members, AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if want := oneByOne(ctx, t, s, members); n <= wideFolder && got.CID != want {
			t.Errorf("%d members: %s, want %s", n, got.CID, want)
		}
		seen := 0
		if err := s.Walk(ctx, got.CID, "", func(e Entry) error {
			if e.Type == File {
				seen++
			}
			return nil
		}); err != nil || seen != n || got.Files != n || got.Size != int64(4*n) {
			t.Errorf("%d members: %d files are found, the root says %d of %d bytes, %v", n, seen, got.Files, got.Size, err)
		}
	}
}

func oneByOne(ctx context.Context, t *testing.T, s *Store, members []Member) cid.Cid {
	t.Helper()
	serv := dag{ctx: ctx, sink: s.begin()}
	d, err := uio.NewDirectory(serv, uio.WithCidBuilder(v1))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		n, err := s.member(ctx, m.CID)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.AddChild(ctx, m.Name, n); err != nil {
			t.Fatal(err)
		}
	}
	n, err := d.GetNode()
	if err != nil {
		t.Fatal(err)
	}
	return n.Cid()
}

// BenchmarkFolder is the assembling of many tasks' outputs.
func BenchmarkFolder(b *testing.B) {
	s := newStore(b, true)
	var files [][]byte
	for i := range 100_000 {
		files = append(files, fmt.Appendf(nil, "%d", i%1000))
	}
	roots, err := s.AddSmall(b.Context(), files, AddOptions{})
	if err != nil {
		b.Fatal(err)
	}
	members := make([]Member, len(roots))
	for i, r := range roots {
		members[i] = Member{fmt.Sprintf("%06d", i), r.CID}
	}
	for b.Loop() {
		if _, err := s.AddFolder(b.Context(), members, AddOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
