package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/kith-mesh/kith/storage/internal/pack"
)

// Export writes root, a file or a folder, to dest, which must not exist; its
// parent must. Nothing is written outside dest: a symbolic link whose target
// leaves it, or names that would, are ErrEscape. A file is written beside dest
// first and renamed when it is whole; a folder that failed is left as it is.
func (s *Store) Export(ctx context.Context, root cid.Cid, dest string, progress func(done, total int64)) error {
	return s.ExportPath(ctx, root, "", dest, progress)
}

// ExportPath exports what a path inside root leads to.
func (s *Store) ExportPath(ctx context.Context, root cid.Cid, p, dest string, progress func(done, total int64)) error {
	defer s.Use(root)()
	if _, err := os.Lstat(dest); err == nil {
		return fmt.Errorf("export to %s: it is there already: %w", dest, os.ErrExist)
	}
	top, err := s.Stat(ctx, root, p)
	if err != nil {
		return fmt.Errorf("export %s: %w", root, err)
	}
	x := &exporter{s: s, progress: progress, total: top.Size}
	if top.Type == Folder {
		// What the folder claims may be wrong, and counts nodes too.
		if x.total, err = s.weigh(ctx, root, p); err != nil {
			return fmt.Errorf("export %s: %w", root, err)
		}
	}
	dir, base := filepath.Split(dest)
	if dir == "" {
		dir = "."
	}
	if free, err := DiskFree(dir); err == nil && free < x.total {
		return fmt.Errorf("export %s: %d bytes do not fit into the %d free in %s: %w", root, x.total, free, dir, ErrFull)
	}
	if base == "" || base == "." || base == ".." {
		return fmt.Errorf("export to %q: give a name that does not exist yet", dest)
	}
	x.report(0)
	switch top.Type {
	case Symlink:
		return fmt.Errorf("export %s: a symbolic link alone is not exported: %w", root, ErrEscape)
	case File:
		err = x.single(ctx, top.CID, dir, base)
	default:
		err = x.folder(ctx, root, p, dest)
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", root, err)
	}
	return nil
}

func (s *Store) weigh(ctx context.Context, root cid.Cid, p string) (total int64, err error) {
	err = s.Walk(ctx, root, p, func(e Entry) error {
		if e.Type == File {
			if total += e.Size; total > maxSize {
				return fmt.Errorf("more than %d bytes: %w", int64(maxSize), ErrNode)
			}
		}
		return nil
	})
	return total, err
}

type exporter struct {
	s           *Store
	progress    func(done, total int64)
	done, total int64
}

func (x *exporter) report(n int64) {
	x.done += n
	if x.progress != nil {
		x.progress(x.done, x.total)
	}
}

// single writes one file and renames it into place.
func (x *exporter) single(ctx context.Context, c cid.Cid, dir, base string) (err error) {
	f, err := os.CreateTemp(dir, "."+base+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = errors.Join(x.copy(ctx, c, f), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Chmod(f.Name(), 0o644); err != nil {
		return err
	}
	// Link refuses an existing name where rename would replace it.
	dest := filepath.Join(dir, base)
	if err := os.Link(f.Name(), dest); err == nil {
		return os.Remove(f.Name())
	} else if errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Rename(f.Name(), dest)
}

func (x *exporter) folder(ctx context.Context, root cid.Cid, p, dest string) (err error) {
	if err := os.Mkdir(dest, 0o755); err != nil {
		return err
	}
	// A Root refuses every path that leaves it, through links as well.
	to, err := os.OpenRoot(dest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	return x.s.Walk(ctx, root, p, func(e Entry) error {
		if e.Path == "" {
			return nil
		}
		name := filepath.FromSlash(e.Path)
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%q: %w", e.Path, ErrEscape)
		}
		switch e.Type {
		case Folder:
			return to.Mkdir(name, 0o755)
		case Symlink:
			if err := checkLink(e.Path, e.Target); err != nil {
				return err
			}
			return to.Symlink(filepath.FromSlash(e.Target), name)
		}
		f, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		return errors.Join(x.copy(ctx, e.CID, f), f.Close())
	})
}

// checkLink refuses a link at p whose target is absolute or leaves the folder.
// The way up may only come first: p's parents are folders, but what comes after
// a name may be a link, of which ".." is anywhere.
func checkLink(p, target string) error {
	bad := fmt.Errorf("link %q to %q: %w", p, target, ErrEscape)
	if target == "" || strings.ContainsAny(target, "\\\x00") || path.IsAbs(target) || filepath.IsAbs(target) || filepath.VolumeName(target) != "" {
		return bad
	}
	up, down := strings.Count(path.Clean(p), "/"), false
	for e := range strings.SplitSeq(target, "/") {
		switch e {
		case "", ".":
		case "..":
			if up--; up < 0 || down {
				return bad
			}
		default:
			down = true
		}
	}
	return nil
}

func (x *exporter) copy(ctx context.Context, c cid.Cid, to *os.File) error {
	from, err := x.s.Open(ctx, c, "", 0, -1)
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = io.Copy(&exported{x: x, to: to}, from)
	return err
}

// exported is where a file is written to, and tells how far it is.
type exported struct {
	x  *exporter
	to *os.File
	at int64
}

func (e *exported) Write(b []byte) (int, error) {
	n, err := e.to.Write(b)
	pack.StartSync(e.to, e.at, e.at+int64(n))
	e.at += int64(n)
	e.x.report(int64(n))
	return n, err
}
