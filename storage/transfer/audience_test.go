package transfer

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	bstore "github.com/ipfs/boxo/blockstore"
	blockformat "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/storage"
)

func TestJobAudience(t *testing.T) {
	m := newMesh(t)
	var a *member
	var job, other storage.Root
	check := func(_ context.Context, from peer.ID, root cid.Cid, ticket []byte) error {
		if string(ticket) == "lease" && root == job.CID {
			return nil
		}
		return errors.New("no such lease")
	}
	a = m.member(Config{Check: check})
	b := m.member(Config{})
	connect(t, b.h, a.h)
	data := noise(100_000, 1)
	job = add(t, a.st, data, storage.AddOptions{ChunkSize: 16 << 10, Audience: storage.Job, Owner: "job:1"})
	other = add(t, a.st, noise(50_000, 2), storage.AddOptions{ChunkSize: 16 << 10, Audience: storage.Job, Owner: "job:2"})

	for name, ticket := range map[string]string{"no ticket": "", "a bad ticket": "false"} {
		w := All(job.CID, a.h.ID())
		w.Ticket = []byte(ticket)
		if err := b.s.Fetch(t.Context(), w, nil); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w := All(other.CID, a.h.ID())
	w.Ticket = []byte("lease")
	if err := b.s.Fetch(t.Context(), w, nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a ticket of another job: %v", err)
	}
	// A block of another job under the root that the ticket opens.
	st, err := b.h.Open(t.Context(), a.h.ID(), Blocks)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Reset()
	msg, err := ask{root: job.CID, ticket: []byte("lease"), blocks: []cid.Cid{other.CID, job.CID}}.marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := st.WriteMsg(msg); err != nil {
		t.Fatal(err)
	}
	ans, err := st.ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	if states, err := parseAnswer(ans, 2); err != nil || states[0] != refused || states[1] != follows {
		t.Errorf("states %v, %v: want the other job's block refused", states, err)
	}

	w = All(job.CID, a.h.ID())
	w.Ticket = []byte("lease")
	if err := b.s.Fetch(t.Context(), w, nil); err != nil || !bytes.Equal(content(t, b.st, job.CID), data) {
		t.Fatalf("with the ticket: %v", err)
	}
	if aud, _, err := b.st.Audience(t.Context(), job.CID); aud != storage.Job || err != nil {
		t.Errorf("fetched by ticket, audience %v, %v", aud, err)
	}
	if err := b.s.Fetch(t.Context(), All(job.CID), nil); err != nil {
		t.Error(err)
	}
	if aud, _, err := b.st.Audience(t.Context(), job.CID); aud != storage.Job || err != nil {
		t.Errorf("found here without a ticket, audience %v, %v", aud, err)
	}
	c := m.member(Config{})
	connect(t, c.h, b.h)
	if err := c.s.Fetch(t.Context(), w, nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("passed on by one who checks no tickets: %v", err)
	}
	// A wider root that holds the same block opens it.
	if err := a.st.Share(t.Context(), job.CID, storage.Mesh); err != nil {
		t.Fatal(err)
	}
	connect(t, c.h, a.h)
	if err := c.s.Fetch(t.Context(), All(job.CID, a.h.ID()), nil); err != nil {
		t.Errorf("shared with the mesh: %v", err)
	}
}

func TestMeshesShareNothing(t *testing.T) {
	one, two := newMesh(t), newMesh(t)
	a, b := one.member(Config{Bitswap: true}), two.member(Config{})
	root := add(t, a.st, noise(50_000, 1), small)
	if err := b.h.Connect(t.Context(), addrs(a.h)); err == nil {
		t.Error("connected across meshes")
	}
	if err := b.s.Fetch(t.Context(), All(root.CID, a.h.ID()), nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("fetched across meshes: %v", err)
	}
}

// foreign is a node of somebody else's software: plain libp2p and bitswap.
type foreign struct {
	host.Host
	bs *bitswap.Bitswap
	st bstore.Blockstore
}

func newForeign(t *testing.T) *foreign {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	st := bstore.NewBlockstore(dssync.MutexWrap(ds.NewMapDatastore()))
	net := bsnet.NewFromIpfsHost(h)
	bs := bitswap.New(t.Context(), net, nil, st)
	t.Cleanup(func() {
		bs.Close()
		net.Stop()
		h.Close()
	})
	return &foreign{h, bs, st}
}

func TestBitswapServesByAudience(t *testing.T) {
	m := newMesh(t)
	a := m.member(Config{Bitswap: true})
	f := newForeign(t)
	public := add(t, a.st, []byte("for all"), storage.AddOptions{Audience: storage.Public})
	mesh := add(t, a.st, []byte("for members"), storage.AddOptions{})
	job := add(t, a.st, []byte("for a job"), storage.AddOptions{Audience: storage.Job})
	if err := f.Connect(t.Context(), addrs(a.h)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	blk, err := f.bs.GetBlock(ctx, public.CID)
	if err != nil || string(blk.RawData()) != "for all" {
		t.Fatalf("public block: %v", err)
	}
	if !a.s.Busy(f.ID()) {
		t.Error("a stranger who was served is not busy")
	}
	empty := add(t, a.st, nil, storage.AddOptions{Audience: storage.Public})
	if blk, err := f.bs.GetBlock(ctx, empty.CID); err != nil || len(blk.RawData()) != 0 {
		t.Errorf("a public block of no bytes: %v", err)
	}
	aud := &audiences{s: a.s, known: map[cid.Cid]audience{}}
	b := m.member(Config{})
	connect(t, b.h, a.h)
	for _, c := range []struct {
		who  peer.ID
		what cid.Cid
		want bool
	}{
		{f.ID(), public.CID, true}, {f.ID(), mesh.CID, false}, {f.ID(), job.CID, false},
		{b.h.ID(), public.CID, true}, {b.h.ID(), mesh.CID, true}, {b.h.ID(), job.CID, false},
		{b.h.ID(), mustSum(t, "unknown"), false},
	} {
		if got := aud.allows(c.who, c.what); got != c.want {
			t.Errorf("%s asks for %s: %v, want %v", c.who, c.what, got, c.want)
		}
	}
	// The answer to a want that is refused: none is sent, or that it is not here.
	ch, err := f.bs.GetBlocks(ctx, []cid.Cid{mesh.CID, job.CID, public.CID})
	if err != nil {
		t.Fatal(err)
	}
	if blk := <-ch; blk == nil || blk.Cid() != public.CID {
		t.Errorf("got %v, want the public block alone", blk)
	}
}

func mustSum(t *testing.T, s string) cid.Cid {
	t.Helper()
	c, err := storage.SumBytes([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBitswapFetchesFromForeigners(t *testing.T) {
	m := newMesh(t)
	a := m.member(Config{Bitswap: true})
	f := newForeign(t)
	src := newStore(t, "")
	data := noise(1<<20, 9)
	root := add(t, src, data, small)
	p, err := storage.NewPlan(storage.Whole(root.CID))
	if err != nil {
		t.Fatal(err)
	}
	for n, ok := p.Next(); ok; n, ok = p.Next() {
		d, err := src.Get(t.Context(), n.CID)
		if err != nil {
			t.Fatal(err)
		}
		blk, err := blockformat.NewBlockWithCid(d, n.CID)
		if err := errors.Join(err, f.st.Put(t.Context(), blk), p.Got(n.CID, len(d), d)); err != nil {
			t.Fatal(err)
		}
	}
	a.h.Gated().Peerstore().AddAddrs(f.ID(), f.Addrs(), time.Hour)
	until(t, "bitswap runs", func() bool { a.s.mu.Lock(); defer a.s.mu.Unlock(); return a.s.swap != nil })
	if err := a.s.Fetch(t.Context(), All(root.CID, f.ID()), nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, a.st, root.CID), data) {
		t.Error("another content")
	}
	// Foreigners do not send it, and need not.
	if err := a.s.Fetch(t.Context(), All(mustSum(t, ""), f.ID()), nil); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

func TestPublicBlocksToStrangers(t *testing.T) {
	m := newMesh(t)
	a := m.member(Config{})
	public := add(t, a.st, []byte("for all"), storage.AddOptions{Audience: storage.Public})
	mesh := add(t, a.st, []byte("for members"), storage.AddOptions{})
	states, err := a.s.judge(t.Context(), "stranger", ask{root: public.CID, blocks: []cid.Cid{public.CID, mesh.CID}}, storage.Public)
	if err != nil || states[0] != follows || states[1] != absent {
		t.Errorf("states %v, %v: a stranger gets the public block, and is not told of the other", states, err)
	}
	states, err = a.s.judge(t.Context(), "stranger", ask{root: mesh.CID, blocks: []cid.Cid{mesh.CID, public.CID}}, storage.Public)
	if err != nil || states[0] != absent || states[1] != follows {
		t.Errorf("states %v, %v under a mesh root", states, err)
	}
}
