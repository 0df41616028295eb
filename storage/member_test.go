package storage

import (
	"context"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
)

// A block that a peer sent, whatever is in it, becomes part of a folder whole or
// not at all.
func FuzzFolderMember(f *testing.F) {
	f.Add([]byte{}, true)
	f.Add([]byte("raw"), false)
	f.Add(merkledag.NodeWithData(unixfs.FilePBData([]byte("in a node"), 9)).RawData(), true)
	f.Add(unixfs.EmptyDirNode().RawData(), true)
	s := newStore(f, false, func(c *Config) { c.MaxBytes = 64 << 20 })
	f.Fuzz(func(t *testing.T, b []byte, node bool) {
		ctx := context.Background()
		codec := uint64(cid.Raw)
		if node {
			codec = cid.DagProtobuf
		}
		c, err := cid.V1Builder{Codec: codec, MhType: 0x12}.Sum(b)
		if err != nil {
			t.Fatal(err)
		}
		w, err := s.Begin(ctx, c, Mesh)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := w.Put(ctx, c, b); err != nil {
			return
		}
		if err := w.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		r, err := s.AddFolder(ctx, []Member{{Name: "x", CID: c}}, AddOptions{Owner: "fuzz"})
		if err != nil {
			return
		}
		if !s.Complete(ctx, r.CID) {
			t.Error("added and not complete")
		}
		if err := s.Unpin(ctx, r.CID, "fuzz"); err != nil {
			t.Fatal(err)
		}
	})
}
