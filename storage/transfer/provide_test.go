package transfer

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/storage"
)

// notices is a table of providers that all members of a test share.
type notices struct {
	mu    sync.Mutex
	who   map[cid.Cid][]peer.AddrInfo
	fails int
	told  int
}

// at is the table as one node sees it.
type at struct {
	*notices
	self func() peer.AddrInfo
}

func (n at) Provide(_ context.Context, root cid.Cid) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told++
	if n.fails > 0 {
		n.fails--
		return errors.New("nobody is there")
	}
	n.who[root] = append(n.who[root], n.self())
	return nil
}

func (n at) FindProviders(_ context.Context, root cid.Cid, limit int) ([]peer.AddrInfo, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.who[root][:min(limit, len(n.who[root]))], nil
}

func TestProvideAndFind(t *testing.T) {
	m := newMesh(t)
	board := &notices{who: map[cid.Cid][]peer.AddrInfo{}}
	var a *member
	a = m.member(Config{Providers: at{board, func() peer.AddrInfo { return addrs(a.h) }}})
	b := m.member(Config{Providers: at{board, func() peer.AddrInfo { return peer.AddrInfo{} }}})
	connect(t, b.h, a.h)
	mesh := add(t, a.st, noise(100_000, 1), small)
	job := add(t, a.st, noise(100_000, 2), storage.AddOptions{Audience: storage.Job})
	a.s.ProvideSoon()
	until(t, "the root is announced", func() bool {
		board.mu.Lock()
		defer board.mu.Unlock()
		return len(board.who[mesh.CID]) == 1
	})
	if err := b.s.Fetch(t.Context(), All(mesh.CID), nil); err != nil {
		t.Errorf("without hints: %v", err)
	}
	if err := a.s.Provide(t.Context(), job.CID); err != nil {
		t.Error(err)
	}
	if err := a.s.Provide(t.Context(), mustSum(t, "unknown")); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("provide what is not here: %v", err)
	}
	board.mu.Lock()
	defer board.mu.Unlock()
	if len(board.who[job.CID]) != 0 {
		t.Error("a job's root was announced")
	}
}

func TestReprovide(t *testing.T) {
	m := newMesh(t)
	now := time.Unix(2e9, 0)
	board := &notices{who: map[cid.Cid][]peer.AddrInfo{}, fails: 1}
	st := newStore(t, "")
	h := m.host()
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := New(h, st, Config{Providers: at{board, func() peer.AddrInfo { return peer.AddrInfo{ID: h.ID()} }},
		Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	add(t, st, []byte("one"), storage.AddOptions{})
	add(t, st, []byte("two"), storage.AddOptions{})
	for _, c := range []struct {
		pass time.Duration
		told int
		left bool
	}{{0, 1, true}, {0, 3, false}, {time.Hour, 3, false}, {11*time.Hour + time.Minute, 5, false}} {
		now = now.Add(c.pass)
		if left := s.provideDue(t.Context()); left != c.left || board.told != c.told {
			t.Errorf("after %v: told %d times, left %v; want %d, %v", c.pass, board.told, left, c.told, c.left)
		}
	}
}

func TestConfig(t *testing.T) {
	_, err := Config{Peers: -1, Window: 1, Serving: -1, Reprovide: time.Second}.filled()
	if err == nil {
		t.Fatal("faults are accepted")
	}
	for _, word := range []string{"peers", "window", "serving", "reprovide"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not told in: %v", word, err)
		}
	}
}
