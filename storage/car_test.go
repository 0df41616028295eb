package storage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

func TestCARRoundTrip(t *testing.T) {
	both(t, func(t *testing.T, s *Store) {
		root, err := s.AddTree(t.Context(), tree(), AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var car bytes.Buffer
		if err := s.ExportCAR(t.Context(), root.CID, &car); err != nil {
			t.Fatal(err)
		}
		to := newStore(t, true)
		got, err := to.ImportCAR(t.Context(), bytes.NewReader(car.Bytes()), ImportOptions{Audience: Public})
		if err != nil || len(got) != 1 || got[0].CID != root.CID || got[0].Size != root.Size || got[0].Files != root.Files {
			t.Fatalf("%+v, %v; want %+v", got, err, root)
		}
		if gc(t, to).Removed != 0 || !to.Complete(t.Context(), root.CID) {
			t.Error("not pinned whole")
		}
		var again bytes.Buffer
		if err := to.ExportCAR(t.Context(), root.CID, &again); err != nil || !bytes.Equal(again.Bytes(), car.Bytes()) {
			t.Errorf("another CAR after the round trip: %v", err)
		}
		bad := bytes.Clone(car.Bytes())
		bad[len(bad)-1] ^= 1
		if _, err := newStore(t, false).ImportCAR(t.Context(), bytes.NewReader(bad), ImportOptions{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("a flipped bit: %v", err)
		}
		cut := newStore(t, false)
		if _, err := cut.ImportCAR(t.Context(), bytes.NewReader(car.Bytes()[:car.Len()-200_000]), ImportOptions{}); err == nil {
			t.Error("a cut file is accepted")
		}
		if pins, err := cut.Pins(t.Context()); err != nil || len(pins) != 0 {
			t.Errorf("pins of a failed import: %v, %v", pins, err)
		}
	})
}

func FuzzImportCAR(f *testing.F) {
	s := newStore(f, false)
	root, err := s.AddTree(context.Background(), tree(), AddOptions{ChunkSize: MaxBlock})
	if err != nil {
		f.Fatal(err)
	}
	small := add(f, s, []byte("small"), AddOptions{})
	for _, c := range []cid.Cid{small.CID, root.CID} {
		var b bytes.Buffer
		if err := s.ExportCAR(context.Background(), c, &b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes()[:min(b.Len(), 4096)])
	}
	f.Add([]byte{})
	to := newStore(f, false, func(c *Config) { c.MaxBytes = 32 << 20 })
	f.Fuzz(func(t *testing.T, b []byte) {
		roots, err := to.ImportCAR(t.Context(), bytes.NewReader(b), ImportOptions{})
		if err != nil {
			return
		}
		for _, r := range roots {
			if !to.Complete(t.Context(), r.CID) {
				t.Errorf("imported and not complete: %s", r.CID)
			}
		}
	})
}

func FuzzParseNode(f *testing.F) {
	sink := mapSink{}
	a := &adder{o: AddOptions{ChunkSize: 10}, sink: sink}
	if _, _, err := a.file(context.Background(), bytes.NewReader(noise(100, 1))); err != nil {
		f.Fatal(err)
	}
	a.o.ChunkSize = DefaultChunk
	if _, err := a.tree(context.Background(), tree(), ".", 0); err != nil {
		f.Fatal(err)
	}
	for c, d := range sink {
		if c.Prefix().Codec == cid.DagProtobuf {
			f.Add(d)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := cid.V1Builder{Codec: cid.DagProtobuf, MhType: 0x12}.Sum(b)
		if err != nil {
			t.Fatal(err)
		}
		n, err := parseNode(c, b)
		if err != nil {
			return
		}
		if n.size < 0 || n.size > maxSize {
			t.Errorf("size %d", n.size)
		}
		for _, k := range n.kids {
			if k.size < 0 || !k.cid.Defined() {
				t.Errorf("kid %+v", k)
			}
		}
		p, err := NewPlan(Whole(c))
		if err != nil {
			t.Fatal(err)
		}
		if need, ok := p.Next(); !ok || need.CID != c {
			t.Fatal("the plan does not begin with its root")
		}
		if err := p.Got(c, len(b), b); err == nil && len(n.kids) == 0 && !p.Done() {
			t.Error("not done without children")
		}
	})
}

// craft stores a hand-made node, as a peer's would be.
func craft(t *testing.T, s *Store, data []byte, links ...*ipld.Link) cid.Cid {
	t.Helper()
	n := merkledag.NodeWithData(data)
	if err := n.SetCidBuilder(v1); err != nil {
		t.Fatal(err)
	}
	n.SetLinks(links)
	w := s.begin()
	defer w.Close()
	if err := errors.Join(w.Put(t.Context(), n.Cid(), n.RawData()), w.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	return n.Cid()
}

func TestBadNodes(t *testing.T) {
	s := newStore(t, false)
	leaf := add(t, s, []byte("12345"), AddOptions{}).CID
	file := func(sizes ...uint64) []byte {
		f := unixfs.NewFSNode(unixfs.TFile)
		for _, n := range sizes {
			f.AddBlockSize(n)
		}
		b, err := f.GetBytes()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	link := func(c cid.Cid) *ipld.Link { return &ipld.Link{Cid: c} }
	named := func(name string, c cid.Cid) *ipld.Link { return &ipld.Link{Name: name, Cid: c} }
	cases := map[string]cid.Cid{
		"lies about a leaf's size": craft(t, s, file(6), link(leaf)),
		"more sizes than links":    craft(t, s, file(5, 5), link(leaf)),
		"sizes that overflow":      craft(t, s, file(1<<63, 1<<63+5), link(leaf), link(leaf)),
		"no UnixFS":                craft(t, s, []byte("\xff\xff"), link(leaf)),
		"a folder as a part":       craft(t, s, file(0, 5), link(craft(t, s, unixfs.FolderPBData())), link(leaf)),
		"dots for a name":          craft(t, s, unixfs.FolderPBData(), named("..", leaf)),
		"a slash in a name":        craft(t, s, unixfs.FolderPBData(), named("a/b", leaf)),
	}
	hamt, err := unixfs.HAMTShardData(nil, 1<<20, 0x22)
	if err != nil {
		t.Fatal(err)
	}
	cases["a shard too wide"] = craft(t, s, hamt)
	for name, c := range cases {
		err := s.Walk(t.Context(), c, "", func(Entry) error { return nil })
		if err == nil {
			_, err = s.CompleteSpan(t.Context(), Whole(c))
		}
		if !errors.Is(err, ErrNode) && s.Complete(t.Context(), c) {
			t.Errorf("%s: %v", name, err)
		}
		r, err := s.Open(t.Context(), c, "", 0, -1)
		if err == nil {
			_, err = io.ReadAll(r)
			r.Close()
		}
		if err == nil && name != "a folder as a part" { // it has no bytes to read
			t.Errorf("%s: read without an error", name)
		}
		if err := s.Pin(t.Context(), c, User, time.Time{}); err == nil {
			t.Errorf("%s: pinned", name)
		}
	}
	deep := leaf
	for range maxDepth + 2 {
		deep = craft(t, s, file(5), link(deep))
	}
	if _, err := s.CompleteSpan(t.Context(), Whole(deep)); !errors.Is(err, ErrNode) {
		t.Errorf("too deep: %v", err)
	}
}

// TestBomb walks a few nodes that name each other 2^60 times.
func TestBomb(t *testing.T) {
	s := newStore(t, false)
	c := add(t, s, []byte("x"), AddOptions{}).CID
	for range 60 {
		c = craft(t, s, unixfs.FolderPBData(), &ipld.Link{Name: "a", Cid: c}, &ipld.Link{Name: "b", Cid: c})
	}
	if !s.Complete(t.Context(), c) {
		t.Error("not complete")
	}
	if err := s.Pin(t.Context(), c, User, time.Time{}); err != nil {
		t.Error(err)
	}
	var car bytes.Buffer
	if err := s.ExportCAR(t.Context(), c, &car); err != nil || car.Len() > 1<<16 {
		t.Errorf("CAR of %d bytes, %v", car.Len(), err)
	}
	if gc(t, s).Kept != 61 {
		t.Error("not 61 blocks")
	}
}

func TestExportStaysInside(t *testing.T) {
	s := newStore(t, false)
	leaf := add(t, s, []byte("evil"), AddOptions{}).CID
	outside := t.TempDir()
	sym := func(target string) cid.Cid {
		b, err := unixfs.SymlinkData(target)
		if err != nil {
			t.Fatal(err)
		}
		return craft(t, s, b)
	}
	dir := craft(t, s, unixfs.FolderPBData(), &ipld.Link{Name: "pwned", Cid: leaf})
	for name, c := range map[string]cid.Cid{
		"absolute link": craft(t, s, unixfs.FolderPBData(), &ipld.Link{Name: "l", Cid: sym(outside)}),
		"link upwards":  craft(t, s, unixfs.FolderPBData(), &ipld.Link{Name: "l", Cid: sym("../../x")}),
		"link and folder of one name": craft(t, s, unixfs.FolderPBData(),
			&ipld.Link{Name: "l", Cid: sym(outside)}, &ipld.Link{Name: "l", Cid: dir}),
		"inner link and folder of one name": craft(t, s, unixfs.FolderPBData(),
			&ipld.Link{Name: "k", Cid: sym("nowhere")}, &ipld.Link{Name: "k", Cid: dir}),
		"upwards through a link": craft(t, s, unixfs.FolderPBData(),
			&ipld.Link{Name: "k", Cid: sym(".")}, &ipld.Link{Name: "l", Cid: sym("k/k/../../x")}),
		"link alone": sym("x"),
	} {
		dest := filepath.Join(t.TempDir(), "out")
		if err := s.Export(t.Context(), c, dest, nil); err == nil {
			t.Errorf("%s: exported", name)
		}
	}
	if ents, err := os.ReadDir(outside); err != nil || len(ents) != 0 {
		t.Errorf("written outside: %v, %v", ents, err)
	}
	if err := s.Export(t.Context(), leaf, filepath.Join(t.TempDir(), "no", "such"), nil); err == nil || !strings.Contains(err.Error(), "no") {
		t.Errorf("into a folder that is not there: %v", err)
	}
}
