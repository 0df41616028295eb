package transfer

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/storage"
)

// A span is read in order from two givers, with some of its blocks here already,
// and nothing of it is stored.
func TestOpen(t *testing.T) {
	m := newMesh(t)
	data := bytes.Clone(noise(3<<20+5, 1))
	copy(data[1<<20:], data[:600_000]) // leaves that occur twice
	opts := storage.AddOptions{ChunkSize: 100_000}
	var givers []*member
	for range 2 {
		g := m.member(Config{})
		givers = append(givers, g)
	}
	var root storage.Root
	for _, g := range givers {
		root = add(t, g.st, data, opts)
	}
	to := m.member(Config{})
	add(t, to.st, data[200_000:300_000], opts)
	for _, g := range givers {
		connect(t, to.h, g.h)
	}
	before, err := to.st.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sp := range [][2]int64{{0, -1}, {0, 0}, {99_999, 2}, {150_000, 1_234_567}, {3 << 20, -1}} {
		want := data[sp[0]:]
		if sp[1] >= 0 {
			want = want[:sp[1]]
		}
		w := All(root.CID, givers[0].h.ID(), givers[1].h.ID())
		w.Offset, w.Length = sp[0], sp[1]
		r, err := to.s.Open(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if n, err := io.Copy(&got, r); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("span %v: %d bytes, %v; want %d", sp, n, err, len(want))
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := r.Read(make([]byte, 1)); err == nil {
			t.Error("read after close")
		}
	}
	after, err := to.st.Usage(t.Context())
	if err != nil || after.Bytes != before.Bytes {
		t.Errorf("the store had %d bytes, has %d, %v", before.Bytes, after.Bytes, err)
	}
	w := All(root.CID, givers[0].h.ID())
	w.Offset = int64(len(data)) + 1
	if _, err := to.s.Open(t.Context(), w); !errors.Is(err, storage.ErrSpan) {
		t.Errorf("beyond the end: %v", err)
	}
	half, err := to.s.Open(t.Context(), All(root.CID, givers[0].h.ID()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(half, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if err := half.Close(); err != nil { // also while blocks come
		t.Error(err)
	}
	other, err := storage.SumBytes([]byte("nobody has this"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := to.s.Open(t.Context(), All(other, givers[0].h.ID())); !errors.Is(err, ErrUnavailable) {
		t.Errorf("what nobody has: %v", err)
	}
}

// What is read is stored as well when the reader says so, whole at its end, and as
// far as it came when it is closed early.
func TestOpenFetch(t *testing.T) {
	m := newMesh(t)
	data := bytes.Clone(noise(3<<20+5, 1))
	copy(data[1<<20:], data[:600_000]) // leaves that occur twice
	g, to := m.member(Config{}), m.member(Config{})
	opts := storage.AddOptions{ChunkSize: 100_000}
	root := add(t, g.st, data, opts).CID
	add(t, to.st, data[200_000:300_000], opts)
	connect(t, to.h, g.h)
	defer to.st.Use(root)()

	early, err := to.s.OpenFetch(t.Context(), All(root, g.h.ID()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(early, make([]byte, 500_000)); err != nil {
		t.Error(err)
	}
	if err := early.Close(); err != nil {
		t.Error(err)
	}
	if has, err := to.st.Has(t.Context(), root); !has || err != nil {
		t.Errorf("the root's node after half of a read: %v, %v", has, err)
	}

	r, err := to.s.OpenFetch(t.Context(), All(root, g.h.ID()))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v; want %d", len(got), err, len(data))
	}
	if !to.st.Complete(t.Context(), root) {
		t.Error("what was read to its end is not stored")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := to.s.OpenFetch(t.Context(), Want{Root: root, Offset: int64(len(data)) + 1, Length: -1}); !errors.Is(err, storage.ErrSpan) {
		t.Errorf("beyond the end: %v", err)
	}
	if r, err := to.st.Root(t.Context(), root); err != nil || r.Audience != storage.Mesh {
		t.Errorf("the root is %+v, %v; want it passed on to the mesh", r, err)
	}
}

// A reader that rests has nothing asked for. That is no reason to send peers away:
// not one that lacked a block before, nor those that speak bitswap alone.
func TestReaderRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore(t, "")
		root := add(t, st, noise(40_000, 9), storage.AddOptions{ChunkSize: 1000}).CID
		plan, err := storage.NewReading(storage.Whole(root), 1, false)
		if err != nil {
			t.Fatal(err)
		}
		b := newBoard(t.Context(), &Service{metrics: newMetrics(nil)}, All(root), plan, nil, nil)
		b.st, b.reading = newStore(t, ""), true
		// next has a peer asked for a block, which it gives or lacks.
		next := func(id peer.ID, gives bool) (asked bool) {
			t.Helper()
			b.mu.Lock()
			cs := b.assign(id, 1)
			b.mu.Unlock()
			for _, c := range cs {
				if !gives {
					b.lack(id, c)
				} else if data, err := st.Get(t.Context(), c); err != nil {
					t.Error(err)
				} else if err := b.gave(id, c, data, nil); err != nil {
					t.Error(err)
				}
			}
			return len(cs) > 0
		}
		if !next("a", true) || !next("a", false) || !next("b", true) {
			t.Fatal("nothing is asked for")
		}
		if next("a", true) || next("b", true) || b.hopeless("a") {
			t.Error("a reader rests, and a peer is asked, or takes its leave")
		}
		var kept atomic.Int32
		ended := make(chan error, 1)
		timer := time.NewTimer(swapStall)
		go func() { ended <- b.stalls(t.Context(), timer, func() { kept.Add(1) }) }()
		time.Sleep(10 * swapStall)
		b.mu.Lock()
		plan.Take()
		b.mu.Unlock()
		if !next("a", true) || kept.Load() < 40 {
			t.Errorf("nothing is asked for when the reader goes on, and strangers were kept %d times", kept.Load())
		}
		b.mu.Lock()
		plan.Take()
		b.mu.Unlock()
		if err := <-ended; err == nil {
			t.Error("a reader waits in vain, and nothing ends that")
		}
	})
}
