package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/p2p"
	"github.com/kith-mesh/kith/storage"
)

var small = storage.AddOptions{ChunkSize: 16 << 10}

func TestFetch(t *testing.T) {
	m := newMesh(t)
	a, b := m.member(Config{}), m.member(Config{})
	connect(t, b.h, a.h)
	data := noise(5<<20+3, 1)
	root := add(t, a.st, data, small)
	var last, total int64
	err := b.s.Fetch(t.Context(), All(root.CID, a.h.ID()), func(d, n int64) {
		if d < last {
			t.Errorf("progress went from %d to %d", last, d)
		}
		last, total = d, n
	})
	if err != nil {
		t.Fatal(err)
	}
	if last != root.Size || total != root.Size {
		t.Errorf("progress ended at %d of %d, want %d", last, total, root.Size)
	}
	if !bytes.Equal(content(t, b.st, root.CID), data) {
		t.Error("another content")
	}
	if aud, ok, err := b.st.Audience(t.Context(), root.CID); aud != storage.Mesh || !ok || err != nil {
		t.Errorf("fetched with audience %v, %v, %v", aud, ok, err)
	}
	// Now b gives it on.
	c := m.member(Config{})
	connect(t, c.h, b.h)
	if err := c.s.Fetch(t.Context(), All(root.CID, b.h.ID()), nil); err != nil || !c.st.Complete(t.Context(), root.CID) {
		t.Errorf("from the second: %v", err)
	}
	if err := c.s.Fetch(t.Context(), All(root.CID), nil); err != nil {
		t.Errorf("of what is here, with nobody to ask: %v", err)
	}
}

// Whoever gives more than is wanted is not listened to for long.
func TestFetchLimit(t *testing.T) {
	m := newMesh(t)
	a, b := m.member(Config{}), m.member(Config{})
	connect(t, b.h, a.h)
	data := noise(5<<20, 1)
	root := add(t, a.st, data, small)
	want := All(root.CID, a.h.ID())
	want.Limit = 1 << 20
	if err := b.s.Fetch(t.Context(), want, nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("5 MiB with a limit of 1: %v", err)
	}
	if use, err := b.st.Usage(t.Context()); err != nil || use.Bytes > 2<<20 {
		t.Errorf("%d bytes were stored, %v", use.Bytes, err)
	}
	want.Limit = 6 << 20
	if err := b.s.Fetch(t.Context(), want, nil); err != nil || !b.st.Complete(t.Context(), root.CID) {
		t.Errorf("with a limit of 6: %v", err)
	}
}

func TestFetchFolderAndPath(t *testing.T) {
	m := newMesh(t)
	a, b := m.member(Config{}), m.member(Config{})
	connect(t, b.h, a.h)
	fsys := fstest.MapFS{"x/one": {Data: noise(100_000, 1)}, "x/two": {Data: noise(200_000, 2)}, "three": {Data: noise(50_000, 3)}, "empty": {}}
	root, err := a.st.AddTree(t.Context(), fsys, small)
	if err != nil {
		t.Fatal(err)
	}
	w := All(root.CID, a.h.ID())
	w.Length = 0
	if err := b.s.Fetch(t.Context(), w, nil); err != nil {
		t.Fatalf("what listing needs: %v", err)
	}
	if ents, err := b.st.Ls(t.Context(), root.CID, ""); err != nil || len(ents) != 3 || ents[2].Type != storage.Folder {
		t.Errorf("ls: %+v, %v", ents, err)
	}
	if u, err := b.st.Usage(t.Context()); err != nil || u.Bytes > 2000 {
		t.Errorf("%d bytes to list a folder, %v", u.Bytes, err)
	}
	w = All(root.CID, a.h.ID())
	w.Path = "x/two"
	if err := b.s.Fetch(t.Context(), w, nil); err != nil {
		t.Fatal(err)
	}
	if ok, err := b.st.CompleteSpan(t.Context(), w.span()); !ok || err != nil {
		t.Errorf("the path is not complete: %v", err)
	}
	w.Path = "x/one"
	if ok, _ := b.st.CompleteSpan(t.Context(), w.span()); ok || b.st.Complete(t.Context(), root.CID) {
		t.Error("more was fetched than asked for")
	}
	w.Path = "x/nope"
	if err := b.s.Fetch(t.Context(), w, nil); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a path that is not there: %v", err)
	}
	if err := b.s.Fetch(t.Context(), All(root.CID, a.h.ID()), nil); err != nil || !b.st.Complete(t.Context(), root.CID) {
		t.Errorf("the whole: %v", err)
	}
}

func TestFetchSpan(t *testing.T) {
	m := newMesh(t)
	a, b := m.member(Config{}), m.member(Config{})
	connect(t, b.h, a.h)
	data := noise(4<<20, 1)
	root := add(t, a.st, data, small)
	w := Want{Root: root.CID, Offset: 1<<20 + 5, Length: 100_000, From: []peer.ID{a.h.ID()}}
	if err := b.s.Fetch(t.Context(), w, nil); err != nil {
		t.Fatal(err)
	}
	r, err := b.st.Open(t.Context(), root.CID, "", w.Offset, w.Length)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, data[w.Offset:w.Offset+w.Length]) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if u, err := b.st.Usage(t.Context()); err != nil || u.Bytes > 200_000 {
		t.Errorf("%d bytes for a span of %d, %v", u.Bytes, w.Length, err)
	}
	w.Length = 4 << 20
	if err := b.s.Fetch(t.Context(), w, nil); !errors.Is(err, storage.ErrSpan) {
		t.Errorf("beyond the end: %v", err)
	}
}

// liar serves noise for every leaf that it is asked for.
func (m *testMesh) liar(root storage.Root, honest *storage.Store) (*p2p.Host, *atomic.Int64) {
	h := m.host()
	var lies atomic.Int64
	h.HandleStream(Blocks, func(ctx context.Context, s *p2p.Stream) error {
		for {
			b, err := s.ReadMsg()
			if err != nil {
				return nil
			}
			a, err := parseAsk(b)
			if err != nil {
				return err
			}
			states := bytes.Repeat([]byte{byte(follows)}, len(a.blocks))
			ss := make([]state, len(states))
			for i := range ss {
				ss[i] = follows
			}
			ans, err := marshalAnswer(ss)
			if err != nil {
				return err
			}
			if err := s.WriteMsg(ans); err != nil {
				return err
			}
			for _, c := range a.blocks {
				data, err := honest.Get(ctx, c)
				if err != nil {
					return err
				}
				if c.Prefix().Codec == cid.Raw {
					data = noise(len(data), 77)
					lies.Add(1)
				}
				if err := s.WriteMsg(data); err != nil {
					return err
				}
			}
		}
	})
	run(m.t, h.Run)
	<-h.Ready()
	return h, &lies
}

// silent takes asks and never answers.
func (m *testMesh) silent() (*p2p.Host, *atomic.Int64) {
	h := m.host()
	var asks atomic.Int64
	h.HandleStream(Blocks, func(ctx context.Context, s *p2p.Stream) error {
		for {
			if _, err := s.ReadMsg(); err != nil {
				<-ctx.Done()
				return nil
			}
			asks.Add(1)
		}
	})
	run(m.t, h.Run)
	<-h.Ready()
	return h, &asks
}

// TestManyGivers fetches from four peers at once: two honest ones, of which one
// dies half-way, one that lies and one that never answers.
func TestManyGivers(t *testing.T) {
	m := newMesh(t)
	a, b, c := m.member(Config{}), m.member(Config{}), m.member(Config{Peers: 4, Window: 16})
	data := noise(24<<20, 1)
	root := add(t, a.st, data, small)
	add(t, b.st, data, small)
	liar, lies := m.liar(root, a.st)
	silent, asks := m.silent()
	for _, h := range []*p2p.Host{liar, silent, a.h, b.h} {
		connect(t, c.h, h)
	}
	died := make(chan struct{})
	var started atomic.Bool
	err := c.s.Fetch(t.Context(), All(root.CID, liar.ID(), silent.ID(), b.h.ID(), a.h.ID()), func(done, total int64) {
		if done > total/8 && !started.Swap(true) {
			go func() {
				defer close(died)
				b.stop()
			}()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	<-died
	if !bytes.Equal(content(t, c.st, root.CID), data) {
		t.Error("another content")
	}
	if lies.Load() == 0 || asks.Load() == 0 {
		t.Errorf("%d lies were told and %d asks ignored: the test shows nothing", lies.Load(), asks.Load())
	}
}

func TestResume(t *testing.T) {
	m := newMesh(t)
	a, b := m.member(Config{}), m.member(Config{Window: 4})
	connect(t, b.h, a.h)
	data := noise(8<<20, 1)
	root := add(t, a.st, data, small)
	release := b.st.Use(root.CID)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	err := b.s.Fetch(ctx, All(root.CID, a.h.ID()), func(int64, int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	half := Want{Root: root.CID, Length: 4 << 20, From: []peer.ID{a.h.ID()}}
	if err := b.s.Fetch(t.Context(), half, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.st.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := int64(-1)
	err = b.s.Fetch(t.Context(), All(root.CID, a.h.ID()), func(done, _ int64) {
		if first < 0 {
			first = done
		}
	})
	if err != nil || !bytes.Equal(content(t, b.st, root.CID), data) {
		t.Fatalf("resumed: %v", err)
	}
	if aud, _, err := b.st.Audience(t.Context(), root.CID); aud != storage.Mesh || err != nil {
		t.Errorf("audience %v, %v after a resumed fetch", aud, err)
	}
	if first < 4<<20 {
		t.Errorf("it resumed at %d bytes, 4 MiB were there", first)
	}
}

func TestUnavailable(t *testing.T) {
	m := newMesh(t)
	a, b := m.member(Config{}), m.member(Config{})
	connect(t, b.h, a.h)
	nowhere, err := storage.SumBytes([]byte("nowhere"))
	if err != nil {
		t.Fatal(err)
	}
	_, stranger := newKey(t)
	err = b.s.Fetch(t.Context(), All(nowhere, a.h.ID(), stranger), nil)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), a.h.ID().String()) || !strings.Contains(err.Error(), stranger.String()) {
		t.Errorf("it does not say who was asked: %v", err)
	}
	if err := b.s.Fetch(t.Context(), Want{Root: nowhere, Offset: -1, Length: -1}, nil); !errors.Is(err, storage.ErrSpan) {
		t.Errorf("a bad span: %v", err)
	}
	// Half of a file here, half there: together they do.
	data := noise(1<<20, 4)
	full := newStore(t, "")
	root := add(t, full, data, small)
	c := m.member(Config{})
	for i, n := range []*member{a, c} {
		w, err := n.st.Begin(t.Context(), root.CID, storage.Mesh)
		if err != nil {
			t.Fatal(err)
		}
		p, err := storage.NewPlan(storage.Whole(root.CID))
		if err != nil {
			t.Fatal(err)
		}
		for k := 0; ; k++ {
			need, ok := p.Next()
			if !ok {
				break
			}
			d, err := full.Get(t.Context(), need.CID)
			if err == nil && (!need.Leaf || k%2 == i) {
				err = w.Put(t.Context(), need.CID, d)
			}
			if err := errors.Join(err, p.Got(need.CID, len(d), d)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.Close()
	}
	connect(t, b.h, c.h)
	if err := b.s.Fetch(t.Context(), All(root.CID, a.h.ID(), c.h.ID()), nil); err != nil || !bytes.Equal(content(t, b.st, root.CID), data) {
		t.Errorf("of two halves: %v", err)
	}
}

func TestEqualFetchesGoOnce(t *testing.T) {
	m := newMesh(t)
	a, b := m.member(Config{}), m.member(Config{})
	connect(t, b.h, a.h)
	root := add(t, a.st, noise(2<<20, 1), small)
	errs := make(chan error)
	for range 8 {
		go func() { errs <- b.s.Fetch(t.Context(), All(root.CID, a.h.ID()), nil) }()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if len(b.s.flights) != 0 {
		t.Error("flights are left")
	}
}
