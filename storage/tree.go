package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	ipld "github.com/ipfs/go-ipld-format"
)

// maxEntries bounds what one add or walk visits.
const maxEntries = 1 << 24

// AddPath adds a file or a folder of this machine, pinned. Symbolic links
// inside a folder are added as links and not followed; path itself is.
// Anything that is not a file, folder or link is an error.
func (s *Store) AddPath(ctx context.Context, name string, o AddOptions) (Root, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return Root{}, fmt.Errorf("add: %w", err)
	}
	if o.Name == "" {
		o.Name = filepath.Base(name)
	}
	if fi.IsDir() {
		return s.AddTree(ctx, os.DirFS(name), o)
	}
	if !fi.Mode().IsRegular() {
		return Root{}, fmt.Errorf("add %s: a %v is neither a file nor a folder", name, fi.Mode().Type())
	}
	f, err := os.Open(name)
	if err != nil {
		return Root{}, fmt.Errorf("add: %w", err)
	}
	defer f.Close()
	if o, err = o.filled(); err != nil {
		return Root{}, fmt.Errorf("add %s: %w", name, err)
	}
	o.total = fi.Size()
	return s.add(ctx, o, true, func(a *adder) (ipld.Node, error) {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		n, size, err := a.file(ctx, f)
		a.files, a.size = 1, size
		return n, err
	})
}

// AddTree adds a folder, pinned. Links as in AddPath.
func (s *Store) AddTree(ctx context.Context, fsys fs.FS, o AddOptions) (Root, error) {
	o, err := o.filled()
	if err != nil {
		return Root{}, fmt.Errorf("add: %w", err)
	}
	if o.total, err = treeSize(ctx, fsys); err != nil {
		return Root{}, fmt.Errorf("add: %w", err)
	}
	return s.add(ctx, o, true, func(a *adder) (ipld.Node, error) {
		return a.tree(ctx, fsys, ".", 0)
	})
}

func treeSize(ctx context.Context, fsys fs.FS) (int64, error) {
	var total int64
	n := 0
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if n++; n > maxEntries {
			return fmt.Errorf("more than %d entries", maxEntries)
		}
		switch {
		case d.IsDir(), d.Type() == fs.ModeSymlink:
		case d.Type().IsRegular():
			fi, err := d.Info()
			if err != nil {
				return err
			}
			total += fi.Size()
		default:
			return fmt.Errorf("%s: a %v is neither a file, a folder nor a link", name, d.Type())
		}
		return ctx.Err()
	})
	return total, err
}

func (a *adder) tree(ctx context.Context, fsys fs.FS, dir string, depth int) (ipld.Node, error) {
	if depth > maxDepth/2 {
		return nil, fmt.Errorf("%s: folders deeper than %d", dir, maxDepth/2)
	}
	ents, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, err
	}
	serv := dag{ctx: ctx, sink: a.sink}
	d, err := uio.NewDirectory(serv, uio.WithCidBuilder(v1))
	if err != nil {
		return nil, err
	}
	for _, e := range ents {
		name := path.Join(dir, e.Name())
		if err := checkName(e.Name()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		n, err := a.entry(ctx, fsys, name, e, depth)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := d.AddChild(ctx, e.Name(), n); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	n, err := d.GetNode()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return n, serv.Add(ctx, n)
}

func (a *adder) entry(ctx context.Context, fsys fs.FS, name string, e fs.DirEntry, depth int) (n ipld.Node, err error) {
	switch {
	case e.IsDir():
		return a.tree(ctx, fsys, name, depth+1)
	case e.Type() == fs.ModeSymlink:
		target, err := fs.ReadLink(fsys, name)
		if err != nil {
			return nil, err
		}
		data, err := unixfs.SymlinkData(filepath.ToSlash(target))
		if err != nil {
			return nil, err
		}
		pn := merkledag.NodeWithData(data)
		if err := pn.SetCidBuilder(v1); err != nil {
			return nil, err
		}
		return pn, a.sink.put(ctx, pn.Cid(), pn.RawData())
	case !e.Type().IsRegular():
		return nil, fmt.Errorf("a %v is neither a file, a folder nor a link", e.Type())
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, size, err := a.file(ctx, io.Reader(f))
	a.files++
	a.size += size
	return n, err
}
