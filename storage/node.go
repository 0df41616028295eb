package storage

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/pb"
	"github.com/ipfs/go-cid"
	"github.com/spaolacci/murmur3"
)

// Bounds on nodes from others. Kubo makes at most 1,024 children a file node
// and folders within one block.
const (
	maxFileLinks = 1 << 14
	maxDirLinks  = 1 << 16
	maxFanout    = 1 << 12
	maxDepth     = 256 // folders, shards and file levels together
	maxName      = 255
	maxSize      = 1 << 60
)

type kind uint8

const (
	kindFile kind = iota
	kindDir
	kindShard
	kindSymlink
)

// node is a checked UnixFS node.
type node struct {
	kind   kind
	data   []byte // a file's own bytes, before its children's; a symlink's target
	size   int64  // a file's bytes, children included; of a folder, what it claims
	kids   []kid
	width  int // a shard's index width in bits
	prefix int // length of the index before each name in a shard
}

type kid struct {
	cid  cid.Cid
	name string // with a shard's index still before it
	size int64  // a file part's exact bytes; of a folder's entry, what it claims
}

// parseNode checks data, which already hashed to c.
func parseNode(c cid.Cid, data []byte) (*node, error) {
	if c.Prefix().Codec == cid.Raw {
		return &node{kind: kindFile, data: data, size: int64(len(data))}, nil
	}
	pn, err := merkledag.DecodeProtobuf(data)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w: %w", c, err, ErrNode)
	}
	f, err := unixfs.FSNodeFromBytes(pn.Data())
	if err != nil {
		return nil, fmt.Errorf("node %s: %w: %w", c, err, ErrNode)
	}
	n, err := checkNode(pn, f)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w: %w", c, err, ErrNode)
	}
	return n, nil
}

func checkNode(pn *merkledag.ProtoNode, f *unixfs.FSNode) (*node, error) {
	links := pn.Links()
	n := &node{kids: make([]kid, len(links))}
	for i, l := range links {
		if err := CheckCID(l.Cid); err != nil {
			return nil, err
		}
		n.kids[i] = kid{cid: l.Cid, name: l.Name, size: int64(min(l.Size, maxSize))}
		if n.size += n.kids[i].size; n.size > maxSize {
			n.size = maxSize
		}
	}
	switch f.Type() {
	case pb.Data_File, pb.Data_Raw:
		return n, n.checkFile(f)
	case pb.Data_Directory:
		n.kind = kindDir
		if len(links) > maxDirLinks {
			return nil, fmt.Errorf("a folder node of %d entries, at most %d are read", len(links), maxDirLinks)
		}
		for _, k := range n.kids {
			if err := checkName(k.name); err != nil {
				return nil, err
			}
		}
		return n, nil
	case pb.Data_HAMTShard:
		return n, n.checkShard(f)
	case pb.Data_Symlink:
		n.kind, n.data, n.size = kindSymlink, f.Data(), int64(len(f.Data()))
		if len(links) > 0 || len(n.data) > 4096 {
			return nil, fmt.Errorf("a symlink with %d links and %d bytes", len(links), len(n.data))
		}
		return n, nil
	}
	return nil, fmt.Errorf("type %v is not supported", f.Type())
}

func (n *node) checkFile(f *unixfs.FSNode) error {
	sizes := f.BlockSizes()
	if len(n.kids) > maxFileLinks {
		return fmt.Errorf("a file node of %d links, at most %d are read", len(n.kids), maxFileLinks)
	}
	if len(sizes) != len(n.kids) {
		return fmt.Errorf("%d links and %d sizes", len(n.kids), len(sizes))
	}
	n.kind, n.data = kindFile, f.Data()
	sum := uint64(len(n.data))
	for i, s := range sizes {
		if s > maxSize || sum > maxSize {
			return fmt.Errorf("a file of more than %d bytes", int64(maxSize))
		}
		sum += s
		n.kids[i].size = int64(s)
	}
	if sum != f.FileSize() || sum > maxSize {
		return fmt.Errorf("it says %d bytes, its parts have %d", f.FileSize(), sum)
	}
	n.size = int64(sum)
	return nil
}

func (n *node) checkShard(f *unixfs.FSNode) error {
	fan := f.Fanout()
	if fan < 8 || fan > maxFanout || bits.OnesCount64(fan) != 1 {
		return fmt.Errorf("a shard of fan-out %d", fan)
	}
	if f.HashType() != 0x22 {
		return fmt.Errorf("a shard with hash function 0x%x, murmur3 is 0x22", f.HashType())
	}
	if uint64(len(n.kids)) > fan {
		return fmt.Errorf("a shard of fan-out %d with %d links", fan, len(n.kids))
	}
	n.kind, n.width = kindShard, bits.TrailingZeros64(fan)
	n.prefix = len(fmt.Sprintf("%X", fan-1))
	for _, k := range n.kids {
		if len(k.name) < n.prefix {
			return fmt.Errorf("a shard entry named %q", k.name)
		}
		if len(k.name) > n.prefix {
			if err := checkName(k.name[n.prefix:]); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkName refuses names that are not one plain path element.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("entry name %.300q is not a plain name of at most %d bytes", name, maxName)
	}
	return nil
}

// find returns the child that is named name, or, in a shard, the shard that
// must hold it: level counts the shards above.
func (n *node) find(name string, level int) (k kid, deeper, ok bool) {
	switch n.kind {
	case kindDir:
		for _, k := range n.kids {
			if k.name == name {
				return k, false, true
			}
		}
	case kindShard:
		h := murmur3.Sum64([]byte(name))
		at := level * n.width
		if at+n.width > 64 {
			return kid{}, false, false
		}
		idx := h << at >> (64 - n.width)
		prefix := fmt.Sprintf("%0*X", n.prefix, idx)
		for _, k := range n.kids {
			switch {
			case k.name == prefix:
				return k, true, true
			case k.name == prefix+name:
				return k, false, true
			}
		}
	}
	return kid{}, false, false
}

// splitPath cleans a slash-separated path inside a root. Empty is the root.
func splitPath(path string) ([]string, error) {
	if len(path) > 4096 {
		return nil, fmt.Errorf("a path of %d bytes, at most 4096 are read", len(path))
	}
	var out []string
	for e := range strings.SplitSeq(path, "/") {
		if e == "" {
			continue
		}
		if err := checkName(e); err != nil {
			return nil, fmt.Errorf("path %q: %w", path, err)
		}
		out = append(out, e)
	}
	if len(out) > maxDepth {
		return nil, fmt.Errorf("path of %d elements, at most %d are read", len(out), maxDepth)
	}
	return out, nil
}
