package storage

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/ipfs/go-cid"
)

// Type of an entry.
type Type string

const (
	File    Type = "file"
	Folder  Type = "folder"
	Symlink Type = "symlink"
)

// Entry is a file, folder or symbolic link.
type Entry struct {
	Path   string // from where the listing started, "" for that itself
	Type   Type
	CID    cid.Cid
	Size   int64  // of a file: its bytes; of a folder, or of what is not stored here, what its parent claims
	Target string // of a link
}

// Name is the last element of the entry's path.
func (e Entry) Name() string { return path.Base(e.Path) }

// Stat looks at root or a path inside it.
func (s *Store) Stat(ctx context.Context, root cid.Cid, p string) (Entry, error) {
	c, n, err := s.lookup(ctx, root, p)
	if err != nil {
		return Entry{}, err
	}
	return entryOf("", c, n), nil
}

// Ls lists a folder in the order it was stored; of a file, the file itself.
func (s *Store) Ls(ctx context.Context, root cid.Cid, p string) ([]Entry, error) {
	c, n, err := s.lookup(ctx, root, p)
	if err != nil {
		return nil, err
	}
	if n.kind == kindFile || n.kind == kindSymlink {
		return []Entry{entryOf(path.Base(path.Clean("/"+p)), c, n)}, nil
	}
	var out []Entry
	err = s.children(ctx, n, func(k kid) error {
		e, _, err := s.child(ctx, k.name, k)
		if err != nil {
			return err
		}
		if out = append(out, e); len(out) > maxEntries {
			return fmt.Errorf("folder %s has more than %d entries: %w", c, maxEntries, ErrNode)
		}
		return nil
	})
	return out, err
}

// Walk calls f for everything under root or a path inside it, folders before
// what they hold, itself first. A folder that is not stored here is an error.
func (s *Store) Walk(ctx context.Context, root cid.Cid, p string, f func(Entry) error) error {
	c, n, err := s.lookup(ctx, root, p)
	if err != nil {
		return err
	}
	w := walker{s: s, f: f}
	return w.walk(ctx, entryOf("", c, n), n, 0)
}

type walker struct {
	s *Store
	f func(Entry) error
	n int
}

func (w *walker) walk(ctx context.Context, e Entry, n *node, depth int) error {
	if w.n++; w.n > maxEntries || depth > maxDepth {
		return fmt.Errorf("%s: more than %d entries or %d levels: %w", e.Path, maxEntries, maxDepth, ErrNode)
	}
	if err := w.f(e); err != nil {
		return err
	}
	if e.Type != Folder {
		return nil
	}
	if n == nil {
		return fmt.Errorf("folder %q: %w", e.Path, notFound(e.CID))
	}
	return w.s.children(ctx, n, func(k kid) error {
		e, n, err := w.s.child(ctx, path.Join(e.Path, k.name), k)
		if err != nil {
			return err
		}
		return w.walk(ctx, e, n, depth+1)
	})
}

func entryOf(path string, c cid.Cid, n *node) Entry {
	e := Entry{Path: path, Type: File, CID: c, Size: n.size}
	switch n.kind {
	case kindDir, kindShard:
		e.Type = Folder
	case kindSymlink:
		e.Type, e.Target = Symlink, string(n.data)
	}
	return e
}

// child looks at a folder's entry. The node is nil when it is a raw block or
// not stored; an inner node that is not stored is taken for a file.
func (s *Store) child(ctx context.Context, path string, k kid) (Entry, *node, error) {
	e := Entry{Path: path, Type: File, CID: k.cid, Size: k.size}
	if k.cid.Prefix().Codec == cid.Raw {
		n, err := s.Size(ctx, k.cid)
		if err == nil {
			e.Size = int64(n)
		}
		if errors.Is(err, ErrNotFound) {
			err = nil
		}
		return e, nil, err
	}
	n, err := s.node(ctx, k.cid)
	if errors.Is(err, ErrNotFound) {
		return e, nil, nil
	}
	if err != nil {
		return e, nil, fmt.Errorf("%s: %w", path, err)
	}
	return entryOf(path, k.cid, n), n, nil
}

func (s *Store) node(ctx context.Context, c cid.Cid) (*node, error) {
	data, err := s.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	return parseNode(c, data)
}

// lookup follows a path to a node.
func (s *Store) lookup(ctx context.Context, root cid.Cid, p string) (cid.Cid, *node, error) {
	names, err := splitPath(p)
	if err != nil {
		return cid.Undef, nil, err
	}
	c := root
	n, err := s.node(ctx, c)
	for level := 0; err == nil && len(names) > 0; {
		if n.kind != kindDir && n.kind != kindShard {
			return cid.Undef, nil, fmt.Errorf("path %q before %q: %w", p, names[0], ErrNotDir)
		}
		k, deeper, ok := n.find(names[0], level)
		if !ok {
			return cid.Undef, nil, fmt.Errorf("%s has no %q of path %q: %w", root, names[0], p, ErrNoPath)
		}
		level++
		if !deeper {
			names, level = names[1:], 0
		}
		c = k.cid
		if n, err = s.node(ctx, c); err == nil && deeper && n.kind != kindShard {
			err = fmt.Errorf("a shard's child %s is none: %w", c, ErrNode)
		}
	}
	return c, n, err
}

// children calls f for a folder's entries, with their plain names, through
// shards. A name has one place among the shards: one that is empty, or occurs
// twice, is no folder's but a way to make a few blocks seem endless.
func (s *Store) children(ctx context.Context, n *node, f func(kid) error) error {
	return s.shards(ctx, n, 0, map[cid.Cid]struct{}{}, f)
}

func (s *Store) shards(ctx context.Context, n *node, level int, seen map[cid.Cid]struct{}, f func(kid) error) error {
	for _, k := range n.kids {
		if err := ctx.Err(); err != nil {
			return err
		}
		if n.kind == kindDir {
			if err := f(k); err != nil {
				return err
			}
			continue
		}
		if len(k.name) > n.prefix {
			k.name = k.name[n.prefix:]
			if err := f(k); err != nil {
				return err
			}
			continue
		}
		sub, err := s.node(ctx, k.cid)
		if err != nil {
			return err
		}
		_, twice := seen[k.cid]
		seen[k.cid] = struct{}{}
		if sub.kind != kindShard || (level+2)*n.width > 64 || twice || len(sub.kids) == 0 {
			return fmt.Errorf("shard %s at level %d: %w", k.cid, level+1, ErrNode)
		}
		if err := s.shards(ctx, sub, level+1, seen, f); err != nil {
			return err
		}
	}
	return nil
}
