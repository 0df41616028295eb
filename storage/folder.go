package storage

import (
	"context"
	"fmt"

	"github.com/ipfs/boxo/ipld/merkledag"
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
		serv := dag{ctx: ctx, sink: a.sink}
		d, err := uio.NewDirectory(serv, uio.WithCidBuilder(v1))
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			n, err := s.member(ctx, m.CID)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.Name, err)
			}
			if err := d.AddChild(ctx, m.Name, n); err != nil {
				return nil, fmt.Errorf("%s: %w", m.Name, err)
			}
			r, err := s.Root(ctx, m.CID)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.Name, err)
			}
			a.size, a.files = a.size+r.Size, a.files+r.Files
		}
		n, err := d.GetNode()
		if err != nil {
			return nil, err
		}
		return n, serv.Add(ctx, n)
	})
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
