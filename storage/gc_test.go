package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
)

func gc(t testing.TB, s *Store) GCReport {
	t.Helper()
	r, err := s.GC(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func count(t testing.TB, s *Store) (n int) {
	t.Helper()
	if err := s.blocks.each(t.Context(), func(key) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGCKeepsPinned(t *testing.T) {
	both(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		shared := noise(2<<20, 1)
		a := add(t, s, shared, AddOptions{Audience: Job, Owner: "job:1"})
		b := add(t, s, append(bytes.Clone(shared), noise(1<<20, 2)...), AddOptions{Owner: "job:2"})
		if r := gc(t, s); r.Removed != 0 || r.Kept != 5 {
			t.Fatalf("first: %+v, want 3 leaves and 2 nodes kept", r)
		}
		leaf := mustSum(shared[:1<<20])
		if aud, _, err := s.Audience(ctx, leaf); aud != Mesh || err != nil {
			t.Errorf("a shared leaf has audience %v, %v: the widest is mesh", aud, err)
		}
		if err := s.ReleaseOwner(ctx, "job:2"); err != nil {
			t.Fatal(err)
		}
		if r := gc(t, s); r.Removed != 2 || r.Kept != 3 {
			t.Fatalf("second: %+v, want b's own leaf and node removed", r)
		}
		if aud, _, err := s.Audience(ctx, leaf); aud != Job || err != nil {
			t.Errorf("now its audience is %v, %v: want job", aud, err)
		}
		if s.Complete(ctx, b.CID) || !s.Complete(ctx, a.CID) {
			t.Error("the wrong one is complete")
		}
		if _, err := s.Root(ctx, b.CID); !errors.Is(err, ErrNotFound) {
			t.Errorf("root b: %v", err)
		}
		if err := s.Pin(ctx, b.CID, User, time.Time{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("pin what is not here: %v", err)
		}
		release := s.Use(a.CID)
		if err := s.Unpin(ctx, a.CID, "job:1"); err != nil {
			t.Fatal(err)
		}
		if err := s.Unpin(ctx, a.CID, "job:1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("unpin twice: %v", err)
		}
		if r := gc(t, s); r.Removed != 0 {
			t.Errorf("in use: %+v", r)
		}
		release()
		release()
		if r := gc(t, s); r.Removed != 3 || count(t, s) != 0 {
			t.Errorf("at the end: %+v, %d left", r, count(t, s))
		}
	})
}

func TestPinsExpire(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := newStore(t, false, func(c *Config) { c.Now = func() time.Time { return now } })
	r := add(t, s, []byte("x"), AddOptions{Until: now.Add(time.Hour), Owner: "upload"})
	pins, err := s.Pins(t.Context())
	if err != nil || len(pins) != 1 || pins[0] != (Pin{r.CID, "upload", now.Add(time.Hour)}) {
		t.Fatalf("%+v, %v", pins, err)
	}
	now = now.Add(59 * time.Minute)
	if gc(t, s).Removed != 0 {
		t.Error("removed before its time")
	}
	now = now.Add(2 * time.Minute)
	if pins, err := s.Pins(t.Context()); err != nil || len(pins) != 0 {
		t.Errorf("%+v, %v", pins, err)
	}
	if gc(t, s).Removed != 1 {
		t.Error("not removed")
	}
}

func TestGCKeepsSessions(t *testing.T) {
	s := newStore(t, true)
	ctx := t.Context()
	root, old := mustSum([]byte("root")), mustSum([]byte("old"))
	add(t, s, []byte("old"), AddOptions{})
	w, err := s.Begin(ctx, root, Mesh)
	if err != nil {
		t.Fatal(err)
	}
	if here, err := w.Touch(ctx, old); !here || err != nil {
		t.Fatalf("touch: %v, %v", here, err)
	}
	if err := w.Put(ctx, root, []byte("toor")); !errors.Is(err, ErrCorrupt) {
		t.Errorf("put of wrong bytes: %v", err)
	}
	if err := w.Put(ctx, root, []byte("root")); err != nil {
		t.Fatal(err)
	}
	if err := s.Unpin(ctx, old, User); err != nil {
		t.Fatal(err)
	}
	gc(t, s)
	if err := w.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	gc(t, s)
	for _, c := range []cid.Cid{root, old} {
		if ok, err := s.Has(ctx, c); !ok || err != nil {
			t.Errorf("%s: %v, %v", c, ok, err)
		}
	}
	if held, err := s.Belong(ctx, root, []cid.Cid{root, old, mustSum(nil)}); err != nil || fmt.Sprint(held) != "[true true false]" {
		t.Errorf("belong: %v, %v", held, err)
	}
	w.Close()
	if gc(t, s).Removed != 2 {
		t.Error("not removed after the session")
	}
}

// TestGCRaces adds, re-adds, pins, uses, fetches by session and unpins the same
// few files while collections run: whatever was acknowledged must be whole.
func TestGCRaces(t *testing.T) {
	both(t, func(t *testing.T, s *Store) {
		ctx, cancel := context.WithCancel(t.Context())
		files := make([][]byte, 6)
		for i := range files {
			files[i] = append(noise(3000, 7), noise(5000, uint64(i))...)
		}
		o := AddOptions{ChunkSize: 1000}
		var wg, collector sync.WaitGroup
		collector.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.GC(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
		for n := range 4 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(n), 1))
				for range 25 {
					data := files[rng.IntN(len(files))]
					owner := Owner(fmt.Sprint("w", n))
					o := o
					o.Owner = owner
					var root cid.Cid
					switch rng.IntN(2) {
					case 0:
						r, err := s.AddBytes(t.Context(), data, o)
						if err != nil {
							t.Error(err)
							return
						}
						root = r.CID
					case 1: // as a fetch does: use, session, pin
						var err error
						if root, err = refetch(t.Context(), s, data, owner); err != nil {
							t.Error(err)
							return
						}
					}
					r, err := s.Open(t.Context(), root, "", 0, -1)
					if err != nil {
						t.Errorf("pinned by %s: %v", owner, err)
						return
					}
					got, err := io.ReadAll(r)
					r.Close()
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("pinned by %s: %d bytes, %v", owner, len(got), err)
						return
					}
					if err := s.Unpin(t.Context(), root, owner); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		cancel()
		collector.Wait()
		gc(t, s)
		if n := count(t, s); n != 0 {
			t.Errorf("%d blocks are left with nothing pinned", n)
		}
	})
}

// refetch brings data's blocks through a session, top down, as from a peer.
func refetch(ctx context.Context, s *Store, data []byte, owner Owner) (root cid.Cid, err error) {
	from := map[cid.Cid][]byte{}
	a := &adder{o: AddOptions{ChunkSize: 1000}, sink: mapSink(from)}
	n, _, err := a.file(ctx, bytes.NewReader(data))
	if err != nil {
		return cid.Undef, err
	}
	root = n.Cid()
	defer s.Use(root)()
	w, err := s.Begin(ctx, root, Mesh)
	if err != nil {
		return cid.Undef, err
	}
	p, err := NewPlan(Whole(root))
	if err != nil {
		return cid.Undef, err
	}
	for need, ok := p.Next(); ok; need, ok = p.Next() {
		d := from[need.CID]
		if _, err := w.Touch(ctx, need.CID); err != nil {
			return cid.Undef, err
		}
		if err := errors.Join(w.Put(ctx, need.CID, d), p.Got(need.CID, len(d), d)); err != nil {
			return cid.Undef, err
		}
	}
	err = w.Flush(ctx)
	w.Close()
	if err != nil {
		return cid.Undef, err
	}
	return root, s.Pin(ctx, root, owner, time.Time{})
}

type mapSink map[cid.Cid][]byte

func (m mapSink) put(_ context.Context, c cid.Cid, data []byte) error {
	m[c] = bytes.Clone(data)
	return nil
}

func (m mapSink) get(_ context.Context, c cid.Cid) ([]byte, error) { return m[c], nil }

// TestPinDuringMark pins and uses a root after the collector marked and before
// it sweeps.
func TestPinDuringMark(t *testing.T) {
	s := newStore(t, false)
	ctx := t.Context()
	root := add(t, s, noise(3<<20, 5), AddOptions{})
	if err := s.Unpin(ctx, root.CID, User); err != nil {
		t.Fatal(err)
	}
	g := &collection{s: s, marked: map[key]struct{}{}}
	s.marking = true // as GC sets it
	if err := s.Pin(ctx, root.CID, "late", time.Time{}); err != nil {
		t.Fatal(err)
	}
	var keys []key
	if err := s.blocks.each(ctx, func(k key) error { keys = append(keys, k); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := g.sweep(ctx, keys); err != nil {
		t.Fatal(err)
	}
	if g.report.Removed != 0 || !s.Complete(ctx, root.CID) {
		t.Errorf("%+v: a root pinned after the mark lost blocks", g.report)
	}
}

func TestGCKeepsWhatADamagedNodeHid(t *testing.T) {
	s := newStore(t, false)
	root := add(t, s, noise(3<<20, 5), AddOptions{})
	m := s.blocks.(*memBlocks)
	m.m[keyOf(root.CID)] = []byte("rot")
	if r := gc(t, s); r.Damaged != 1 || r.Removed != 0 {
		t.Errorf("%+v: want the leaves kept by the index", r)
	}
}

func TestPinInheritsAudience(t *testing.T) {
	s := newStore(t, false)
	ctx := t.Context()
	root, err := s.AddTree(ctx, tree(), AddOptions{Audience: Job, Owner: "job:1"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Stat(ctx, root.CID, "sub")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(ctx, e.CID, "job:2", time.Time{}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Root(ctx, e.CID); err != nil || r.Audience != Job {
		t.Errorf("%+v, %v: a part of a job's root is the job's", r, err)
	}
	if err := s.Share(ctx, e.CID, Mesh); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Root(ctx, e.CID); err != nil || r.Audience != Mesh {
		t.Errorf("%+v, %v after Share", r, err)
	}
	if err := s.Share(ctx, mustSum([]byte("absent")), Mesh); !errors.Is(err, ErrNotFound) {
		t.Errorf("share what is not here: %v", err)
	}
	if err := s.Share(ctx, e.CID, Nobody); err == nil {
		t.Error("shared with nobody")
	}
}

// TestUnpinUnpublishes: what was public is the members' alone once nobody but
// jobs pins it; adding it again does not open it.
func TestUnpinUnpublishes(t *testing.T) {
	s := newStore(t, false)
	ctx := t.Context()
	r, err := s.AddBytes(ctx, []byte("for all"), AddOptions{Audience: Public})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(ctx, r.CID, "job:1", time.Time{}); err != nil {
		t.Fatal(err)
	}
	want := func(when string, want Audience) {
		t.Helper()
		if a, _, err := s.Audience(ctx, r.CID); err != nil || a != want {
			t.Errorf("%s: %v, %v; want %v", when, a, err, want)
		}
	}
	if err := s.Unpin(ctx, r.CID, User); err != nil {
		t.Fatal(err)
	}
	want("a job alone pins it", Mesh)
	if err := s.Unpin(ctx, r.CID, "job:1"); err != nil {
		t.Fatal(err)
	}
	want("nobody pins it", Mesh)
	if _, err := s.AddBytes(ctx, []byte("for all"), AddOptions{}); err != nil {
		t.Fatal(err)
	}
	want("added again for members", Mesh)
}
