package storage

import (
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
)

// A damaged block is told once and named with what lacks it, whether a read finds
// it or the store's opening, until it is stored again.
func TestDamageIsNamed(t *testing.T) {
	var heard []cid.Cid
	s := newStore(t, true, func(c *Config) { c.OnDamage = func(c cid.Cid) { heard = append(heard, c) } })
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
	add(t, s, data, AddOptions{})
	named("after it was added again", s, 0)
	if !s.Complete(t.Context(), root.CID) {
		t.Error("not repaired")
	}
}
