package transfer

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/storage"
)

// Of what is left, each of several givers is asked for less and less, so that none
// has a long queue when the others are done. One alone is asked for all.
func TestShares(t *testing.T) {
	m := newMesh(t)
	g, to := m.member(Config{}), m.member(Config{})
	root := add(t, g.st, noise(40_000, 9), storage.AddOptions{ChunkSize: 1000}).CID
	node, err := g.st.Get(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	asks := func(givers ...peer.ID) (out []int) {
		plan, err := storage.NewReading(storage.Whole(root), 1<<20, false)
		if err != nil {
			t.Fatal(err)
		}
		b := newBoard(t.Context(), to.s, All(root), plan, nil, nil)
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.assign(givers[0], 1)) != 1 {
			t.Fatal("the root is not asked for")
		}
		if err := plan.Got(root, len(node), node); err != nil {
			t.Fatal(err)
		}
		for _, id := range givers {
			b.assign(id, 0) // it is at work
		}
		for i := 0; ; i++ {
			n := len(b.assign(givers[i%len(givers)], 32))
			if n == 0 {
				return out
			}
			out = append(out, n)
		}
	}
	if one := asks("a"); len(one) != 2 || one[0] != 32 || one[1] != 8 {
		t.Errorf("asks of one giver: %v; want 32 and 8", one)
	}
	two := asks("a", "b")
	if two[0] != 10 || two[len(two)-1] != 1 {
		t.Errorf("asks of two givers: %v; want 10 at first and 1 at last", two)
	}
	for i := 1; i < len(two); i++ {
		if two[i] > two[i-1] {
			t.Errorf("asks of two givers grow: %v", two)
		}
	}
}
