package storage

import (
	"context"
	"fmt"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/hamt"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// Member names stored content in a new folder.
type Member struct {
	Name string
	CID  cid.Cid
}

// AddFolder makes a folder of files and folders that are stored already, pinned.
// All of them must be complete. Two members of one name are an error.
func (s *Store) AddFolder(ctx context.Context, members []Member, o AddOptions) (Root, error) {
	o, err := o.filled()
	if err != nil {
		return Root{}, fmt.Errorf("add folder: %w", err)
	}
	roots := make([]cid.Cid, len(members))
	seen := make(map[string]bool, len(members))
	for i, m := range members {
		if err := checkName(m.Name); err != nil {
			return Root{}, fmt.Errorf("add folder: %w", err)
		}
		if seen[m.Name] {
			return Root{}, fmt.Errorf("add folder: two members are named %q", m.Name)
		}
		seen[m.Name], roots[i] = true, m.CID
	}
	defer s.Use(roots...)()
	return s.add(ctx, o, false, func(a *adder) (ipld.Node, error) {
		type known struct {
			size  uint64 // of the block and all below it
			bytes int64
			files int
		}
		have := map[cid.Cid]known{} // many tasks of a job leave the same
		links := make([]ipld.Link, len(members))
		for i, m := range members {
			k, ok := have[m.CID]
			if !ok {
				var err error
				if k.size, k.bytes, k.files, err = s.measure(ctx, m.CID); err != nil {
					return nil, fmt.Errorf("%s: %w", m.Name, err)
				}
				have[m.CID] = k
			}
			a.size, a.files = a.size+k.bytes, a.files+k.files
			links[i] = ipld.Link{Name: m.Name, Size: k.size, Cid: m.CID}
		}
		return makeFolder(ctx, dag{ctx: ctx, sink: a.sink}, links)
	})
}

// measure gives what a folder tells of a stored root: the bytes of its blocks,
// and of its files, and how many they are.
func (s *Store) measure(ctx context.Context, c cid.Cid) (size uint64, bytes int64, files int, err error) {
	if c.Prefix().Codec == cid.Raw {
		n, err := s.Size(ctx, c)
		return uint64(n), int64(n), 1, err
	}
	n, err := s.member(ctx, c)
	if err != nil {
		return 0, 0, 0, err
	}
	if size, err = n.Size(); err != nil {
		return 0, 0, 0, err
	}
	r, err := s.Root(ctx, c)
	return size, r.Size, r.Files, err
}

// A folder of more names than wideFolder is sharded by wideShard, the widest that
// readers take: 100,000 names make 6,000 blocks then, and 29,000 by boxo's 256.
const (
	wideFolder = 16 << 10
	wideShard  = 1024
)

// makeFolder stores the folder of links that boxo's io.NewDirectory would make
// of them one by one, up to wideFolder: a HAMT from the same size on. Adding one by one compares
// each name with all before it.
func makeFolder(ctx context.Context, serv ipld.DAGService, links []ipld.Link) (ipld.Node, error) {
	estimate := 0
	for _, l := range links {
		estimate += len(l.Name) + l.Cid.ByteLen()
	}
	if estimate > uio.HAMTShardingSize {
		width := uio.DefaultShardWidth
		if len(links) > wideFolder {
			width = wideShard
		}
		shard, err := hamt.NewShard(serv, width)
		if err != nil {
			return nil, err
		}
		shard.SetCidBuilder(v1)
		for i := range links {
			if err := shard.SetLink(ctx, links[i].Name, &links[i]); err != nil {
				return nil, fmt.Errorf("%s: %w", links[i].Name, err)
			}
		}
		return shard.Node() // stores all of it
	}
	n := unixfs.EmptyDirNode()
	if err := n.SetCidBuilder(v1); err != nil {
		return nil, err
	}
	for i := range links {
		if err := n.AddRawLink(links[i].Name, &links[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", links[i].Name, err)
		}
	}
	return n, serv.Add(ctx, n)
}

// member decodes a stored block for a folder's link to it.
func (s *Store) member(ctx context.Context, c cid.Cid) (ipld.Node, error) {
	data, err := s.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	b, err := newBlock(c, data)
	if err != nil {
		return nil, err
	}
	if c.Prefix().Codec == cid.Raw {
		return merkledag.DecodeRawBlock(b)
	}
	return merkledag.DecodeProtobufBlock(b)
}
