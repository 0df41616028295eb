package storage

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/hamt"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/spaolacci/murmur3"
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
	byName := make([]int32, len(members))
	for i, m := range members {
		if err := checkName(m.Name); err != nil {
			return Root{}, fmt.Errorf("add folder: %w", err)
		}
		byName[i] = int32(i)
	}
	slices.SortFunc(byName, func(a, b int32) int { return strings.Compare(members[a].Name, members[b].Name) })
	for k := range len(byName) - 1 {
		if name := members[byName[k]].Name; name == members[byName[k+1]].Name {
			return Root{}, fmt.Errorf("add folder: two members are named %q", name)
		}
	}
	weights := map[cid.Cid]weight{} // many tasks of a job leave the same
	for _, m := range members {
		weights[m.CID] = weight{}
	}
	defer s.Use(slices.Collect(maps.Keys(weights))...)()
	return s.add(ctx, o, false, func(a *adder) (ipld.Node, error) {
		for _, m := range members {
			w := weights[m.CID]
			if w.files == 0 { // or an empty folder: measured again
				if w, err = s.measure(ctx, m.CID); err != nil {
					return nil, fmt.Errorf("%s: %w", m.Name, err)
				}
				weights[m.CID] = w
			}
			a.size, a.files = a.size+w.bytes, a.files+w.files
		}
		return makeFolder(ctx, dag{ctx: ctx, sink: a.sink}, members, weights)
	})
}

// weight is what a folder tells of a member.
type weight struct {
	blocks uint64 // bytes of its blocks
	bytes  int64  // of its files
	files  int
}

// link is a folder's to a member.
func (w weight) link(m Member) *ipld.Link {
	return &ipld.Link{Name: m.Name, Size: w.blocks, Cid: m.CID}
}

// measure gives the weight of a stored root.
func (s *Store) measure(ctx context.Context, c cid.Cid) (w weight, err error) {
	if c.Prefix().Codec == cid.Raw {
		n, err := s.Size(ctx, c)
		return weight{uint64(n), int64(n), 1}, err
	}
	n, err := s.member(ctx, c)
	if err != nil {
		return w, err
	}
	if w.blocks, err = n.Size(); err != nil {
		return w, err
	}
	r, err := s.Root(ctx, c)
	w.bytes, w.files = r.Size, r.Files
	return w, err
}

// A folder of more names than wideFolder is sharded by wideShard, the widest that
// readers take: 100,000 names make 6,000 blocks then, and 29,000 by boxo's 256.
const (
	wideFolder = 16 << 10
	wideShard  = 1024
)

// makeFolder stores the folder of members that boxo's io.NewDirectory would make
// of them one by one, up to wideFolder: a HAMT from the same size on. Adding one by one compares
// each name with all before it.
func makeFolder(ctx context.Context, serv ipld.DAGService, members []Member, weights map[cid.Cid]weight) (ipld.Node, error) {
	estimate := 0
	for _, m := range members {
		estimate += len(m.Name) + m.CID.ByteLen()
	}
	if estimate > uio.HAMTShardingSize {
		width := uio.DefaultShardWidth
		if len(members) > wideFolder {
			width = wideShard
		}
		return makeShards(ctx, serv, width, members, weights)
	}
	n := unixfs.EmptyDirNode()
	if err := n.SetCidBuilder(v1); err != nil {
		return nil, err
	}
	for _, m := range members {
		if err := n.AddRawLink(m.Name, weights[m.CID].link(m)); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	return n, serv.Add(ctx, n)
}

// shardStep is after how many names of a wide folder what is full of it is stored
// and forgotten.
const shardStep = 4 << 10

// makeShards stores a HAMT. It takes the names in the order of their hashes, so
// that a child of the root is whole before the next begins, and need not stay in
// memory: boxo's nodes take some 300 bytes a name.
func makeShards(ctx context.Context, serv ipld.DAGService, width int, members []Member, weights map[cid.Cid]weight) (ipld.Node, error) {
	type place struct {
		hash   uint64 // whose first bits are the place in the root
		member int32
	}
	places := make([]place, len(members))
	for i, m := range members {
		places[i] = place{murmur3.Sum64([]byte(m.Name)), int32(i)}
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.hash, b.hash) })
	out := &lagging{DAGService: serv}
	shard, err := hamt.NewShard(out, width)
	if err != nil {
		return nil, err
	}
	shard.SetCidBuilder(v1)
	rest := 64 - bits.Len(uint(width-1))
	for i, n := 0, 0; i < len(places); i, n = i+1, n+1 {
		if n >= shardStep && places[i].hash>>rest != places[i-1].hash>>rest {
			n = 0
			if shard, err = out.reopen(shard); err != nil {
				return nil, err
			}
		}
		m := members[places[i].member]
		if err := shard.SetLink(ctx, m.Name, weights[m.CID].link(m)); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	root, err := shard.Node()
	if err != nil {
		return nil, err
	}
	return root, serv.Add(ctx, root)
}

// lagging holds back the node that was added last: a shard adds itself after all
// below it, and only the last root counts.
type lagging struct {
	ipld.DAGService
	last ipld.Node
}

func (l *lagging) Add(ctx context.Context, n ipld.Node) error {
	before := l.last
	l.last = n
	if before == nil {
		return nil
	}
	return l.DAGService.Add(ctx, before)
}

// reopen stores what is below a root, and gives the root without that in memory.
func (l *lagging) reopen(root *hamt.Shard) (*hamt.Shard, error) {
	n, err := root.Node()
	if err != nil {
		return nil, err
	}
	l.last = nil
	return hamt.NewHamtFromDag(l, n)
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
