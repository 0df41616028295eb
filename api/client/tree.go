package client

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/kith-mesh/kith/api"
)

// AddPath stores a file or a folder of this machine. Links to files are
// followed; anything else that is neither file nor folder is an error.
func (c *Client) AddPath(ctx context.Context, path string, opts api.AddOptions, progress Progress) (api.Root, error) {
	info, err := os.Stat(path)
	if err != nil {
		return api.Root{}, err
	}
	if opts.Name == "" {
		opts.Name = filepath.Base(path)
	}
	switch {
	case info.IsDir():
		return c.addFolder(ctx, path, opts, progress)
	case !info.Mode().IsRegular():
		return api.Root{}, fmt.Errorf("%s is neither a file nor a folder (%v): add what it names", path, info.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return api.Root{}, err
	}
	defer f.Close()
	progress.tell(0, info.Size())
	return c.AddFile(ctx, &counter{r: f, total: info.Size(), progress: progress}, info.Size(), opts)
}

func (c *Client) addFolder(ctx context.Context, path string, opts api.AddOptions, progress Progress) (api.Root, error) {
	entries, total, err := scan(path)
	if err != nil {
		return api.Root{}, err
	}
	progress.tell(0, total)
	pr, pw := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := pack(pw, path, entries, &counter{total: total, progress: progress})
		pw.CloseWithError(err)
		packed <- err
	}()
	var out api.Root
	err = c.upload(ctx, "/api/v1/data", api.MediaTar, pr, -1, opts, &out)
	pr.CloseWithError(io.ErrClosedPipe) // ends the packer when the node stopped reading
	if perr := <-packed; perr != nil && !errors.Is(perr, io.ErrClosedPipe) {
		return api.Root{}, perr
	}
	return out, err
}

type entry struct {
	name string // slash-separated, relative
	dir  bool
	exec bool
	size int64
}

func scan(root string) ([]entry, int64, error) {
	var out []entry
	var total int64
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if !utf8.ValidString(rel) {
			return fmt.Errorf("%q: its name is not UTF-8: rename it", p)
		}
		info, err := os.Stat(p) // follows links
		if errors.Is(err, fs.ErrNotExist) && d.Type()&fs.ModeSymlink != 0 {
			return fmt.Errorf("%s is a link to nothing: remove it", p)
		}
		if err != nil {
			return err
		}
		e := entry{name: filepath.ToSlash(rel), dir: d.IsDir(), exec: info.Mode()&0o111 != 0, size: info.Size()}
		switch {
		case e.dir:
			e.size, e.exec = 0, false
		case info.IsDir():
			return fmt.Errorf("%s is a link to a folder: replace it by the folder, or remove it", p)
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder (%v): remove it", p, info.Mode().Type())
		}
		total += e.size
		out = append(out, e)
		return nil
	})
	return out, total, err
}

// pack writes entries as a tar stream whose bytes depend on names, contents and
// the executable bit alone.
func pack(w io.Writer, root string, entries []entry, count *counter) error {
	t := tar.NewWriter(w)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: e.size, Format: tar.FormatPAX}
		if e.exec {
			h.Mode = 0o755
		}
		if e.dir {
			h.Name, h.Typeflag, h.Mode = e.name+"/", tar.TypeDir, 0o755
		}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		if e.dir {
			continue
		}
		if err := packFile(t, filepath.Join(root, filepath.FromSlash(e.name)), e.size, count); err != nil {
			return err
		}
	}
	return t.Close()
}

func packFile(t *tar.Writer, path string, size int64, count *counter) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	count.r = f
	n, err := io.Copy(t, io.LimitReader(count, size))
	if err == nil && n < size {
		err = fmt.Errorf("%s shrank from %d to %d bytes while it was read: add it again", path, size, n)
	}
	return err
}

// counter tells progress of what is read through it.
type counter struct {
	r        io.Reader
	done     int64
	total    int64
	progress Progress
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.done += int64(n)
	if n > 0 {
		c.progress.tell(c.done, c.total)
	}
	return n, err
}

// Get writes a file or folder to dest, which must not exist: whole, or not at
// all. A file is written as it comes to the node; a folder once it is there.
func (c *Client) Get(ctx context.Context, of api.Content, dest string, progress Progress) error {
	if _, err := os.Lstat(dest); err == nil {
		return fmt.Errorf("%s: %w: remove it or name another with --out", dest, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	resp, err := c.send(ctx, request{method: "GET", path: dataPath(of.Root, "tar"), query: query(of)})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dir, err := os.MkdirTemp(filepath.Dir(dest), ".kith-get-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := unpack(dir, resp.Body, progress); err != nil {
		var own *unpackError
		if errors.As(err, &own) {
			return err
		}
		return cut(ctx, c, err)
	}
	return os.Rename(filepath.Join(dir, "content"), dest)
}

// unpackError is a fault of this machine or of the stream's content, not of the
// connection.
type unpackError struct{ error }

func (e *unpackError) Unwrap() error { return e.error }

// unpack writes a tar stream below dir and nowhere else.
func unpack(dir string, r io.Reader, progress Progress) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return &unpackError{err}
	}
	defer root.Close()
	t := tar.NewReader(r)
	count := &counter{r: t, progress: progress}
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.FromSlash(strings.TrimSuffix(h.Name, "/"))
		if !filepath.IsLocal(name) {
			return &unpackError{fmt.Errorf("content names %q, which is not inside it: not written", h.Name)}
		}
		if _, sparse := h.PAXRecords["GNU.sparse.map"]; sparse || h.PAXRecords["GNU.sparse.major"] != "" {
			return &unpackError{fmt.Errorf("content has %q with holes in it: not written", h.Name)}
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeSymlink:
			if !staysInside(root, name, h.Linkname) {
				return &unpackError{fmt.Errorf("content has a link %q to %q, which is not inside it: not written", h.Name, h.Linkname)}
			}
			err = root.Symlink(filepath.FromSlash(h.Linkname), name)
		case tar.TypeReg:
			if err := unpackFile(root, name, h.FileInfo().Mode().Perm(), count, h.Size); err != nil {
				return err
			}
		default:
			err = fmt.Errorf("content has %q of type %q, which is neither file, folder nor link: not written", h.Name, h.Typeflag)
		}
		if err != nil {
			return &unpackError{err}
		}
	}
}

// staysInside tells whether a link at name leads nowhere outside, whatever else
// is written: its own folder is no link, and the way up comes first in target,
// since ".." of what comes after a name may be anywhere.
func staysInside(root *os.Root, name, target string) bool {
	if target == "" || strings.ContainsAny(target, "\\\x00") || filepath.IsAbs(target) || strings.HasPrefix(target, "/") || filepath.VolumeName(target) != "" {
		return false
	}
	up := -1 // the stream's one folder becomes the destination
	for dir := filepath.Dir(filepath.Clean(name)); dir != "."; dir = filepath.Dir(dir) {
		if info, err := root.Lstat(dir); err == nil && !info.IsDir() {
			return false
		}
		up++
	}
	if up < 0 {
		return false
	}
	down := false
	for e := range strings.SplitSeq(target, "/") {
		switch e {
		case "", ".":
		case "..":
			if up--; up < 0 || down {
				return false
			}
		default:
			down = true
		}
	}
	return true
}

// A file's bytes are written so many at once: a write has a cost of its own.
const copyBuffer = 256 << 10

func unpackFile(root *os.Root, name string, mode fs.FileMode, r io.Reader, size int64) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return &unpackError{err}
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return &unpackError{err}
	}
	w := &sink{w: f}
	n, err := io.CopyBuffer(w, io.LimitReader(r, size), make([]byte, min(size, copyBuffer)+1))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if w.err != nil {
		err = &unpackError{w.err}
	}
	if cerr := f.Close(); err == nil && cerr != nil {
		err = &unpackError{cerr}
	}
	return err
}

// sink remembers its writer's own errors apart from the stream's.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.err = err
	return n, err
}
