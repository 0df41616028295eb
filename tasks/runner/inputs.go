package runner

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	sysfs "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
)

// inputs is /in: a folder of named host files and folders that can only be
// read. Links are followed as long as they stay within their folder. A reduce
// has an input for every task of the map, so few are kept open at once.
type inputs struct {
	sysfs.UnimplementedFS
	named map[string]input
	names []string
	roots []openRoot // of folders, the one used last at the end
	open  int
}

// input is a folder, or a single file.
type input struct {
	path string
	dir  bool
}

// openRoot is a folder input in use.
type openRoot struct {
	name string
	root *os.Root
}

// maxRoots is how many folder inputs are open at once.
const maxRoots = 16

// place looks at files under one input. *os.Root is one.
type place interface {
	Lstat(name string) (fs.FileInfo, error)
	Stat(name string) (fs.FileInfo, error)
	Readlink(name string) (string, error)
	Open(name string) (*os.File, error)
}

// single is an input that is one file, which is no link. It has no other name.
type single string

func (f single) Lstat(string) (fs.FileInfo, error) { return os.Lstat(string(f)) }
func (f single) Stat(string) (fs.FileInfo, error)  { return os.Lstat(string(f)) }
func (f single) Readlink(string) (string, error)   { return "", fs.ErrInvalid }
func (f single) Open(string) (*os.File, error)     { return os.Open(string(f)) }

func openInputs(paths map[string]string) (*inputs, error) {
	in := &inputs{named: map[string]input{}}
	for name, p := range paths {
		info, err := os.Lstat(p)
		if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is %v, neither file nor folder", p, info.Mode().Type())
		}
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", name, err)
		}
		in.named[name] = input{path: p, dir: info.IsDir()}
		in.names = append(in.names, name)
	}
	slices.Sort(in.names)
	return in, nil
}

// root opens a folder input, and closes the one that was not used for longest.
func (in *inputs) root(name, path string) (*os.Root, error) {
	for i, r := range in.roots {
		if r.name == name {
			in.roots = append(slices.Delete(in.roots, i, i+1), r)
			return r.root, nil
		}
	}
	if len(in.roots) == maxRoots {
		if err := in.roots[0].root.Close(); err != nil {
			return nil, err
		}
		in.roots = slices.Delete(in.roots, 0, 1)
	}
	r, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	in.roots = append(in.roots, openRoot{name, r})
	return r, nil
}

// find gives the place that holds name and the path in it.
func (in *inputs) find(name string) (place, string, sysfs.Errno) {
	top, rest, below := strings.Cut(name, "/")
	i, ok := in.named[top]
	switch {
	case !ok:
		return nil, "", sysfs.ENOENT
	case !i.dir && below:
		return nil, "", sysfs.ENOTDIR
	case !i.dir:
		return single(i.path), "", 0
	}
	root, err := in.root(top, i.path)
	if err != nil {
		return nil, "", errnoOf(err)
	}
	if !below {
		rest = "."
	}
	return root, rest, 0
}

// info tells of the file at name; follow says whether a last link is followed.
func (in *inputs) info(name string, follow bool) (fs.FileInfo, sysfs.Errno) {
	root, p, errno := in.find(name)
	if errno != 0 {
		return nil, errno
	}
	look := root.Lstat
	if follow {
		look = root.Stat
	}
	info, err := look(p)
	if err != nil {
		return nil, errnoOf(err)
	}
	return info, 0
}

// errnoOf hides host paths and whatever else an error tells.
func errnoOf(err error) sysfs.Errno {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, fs.ErrNotExist):
		return sysfs.ENOENT
	case errors.Is(err, fs.ErrPermission):
		return sysfs.EACCES
	case errors.Is(err, fs.ErrExist):
		return sysfs.EEXIST
	}
	errno := sysfs.UnwrapOSError(err)
	if errno == sysfs.EIO && strings.Contains(err.Error(), "escapes") { // os.Root's refusal
		return sysfs.EPERM
	}
	return errno
}

func modeOf(info fs.FileInfo) fs.FileMode {
	if info.IsDir() {
		return fs.ModeDir | 0o555
	}
	return info.Mode().Type() | 0o444
}

func (in *inputs) stat(name string, follow bool) (sys.Stat_t, sysfs.Errno) {
	name = clean(name)
	if name == "." {
		return stat(inode("in", "."), fs.ModeDir|0o555, 0), 0
	}
	info, errno := in.info(name, follow)
	if errno != 0 {
		return sys.Stat_t{}, errno
	}
	return stat(inode("in", name), modeOf(info), info.Size()), 0
}

// Stat implements sys.FS.
func (in *inputs) Stat(name string) (sys.Stat_t, sysfs.Errno) { return in.stat(name, true) }

// Lstat implements sys.FS.
func (in *inputs) Lstat(name string) (sys.Stat_t, sysfs.Errno) { return in.stat(name, false) }

// Readlink implements sys.FS.
func (in *inputs) Readlink(name string) (string, sysfs.Errno) {
	root, p, errno := in.find(clean(name))
	if errno != 0 {
		return "", errno
	}
	to, err := root.Readlink(p)
	if err != nil {
		return "", errnoOf(err)
	}
	if strings.HasPrefix(to, "/") || strings.Contains(to, ":") { // the host's own names
		return "", sysfs.EPERM
	}
	return to, 0
}

// OpenFile implements sys.FS.
func (in *inputs) OpenFile(name string, flag sysfs.Oflag, _ fs.FileMode) (sysfs.File, sysfs.Errno) {
	name = clean(name)
	if name == "." {
		if writing(flag) {
			return nil, sysfs.EISDIR
		}
		return &folder{ino: inode("in", "."), mode: fs.ModeDir | 0o555, list: in.top}, 0
	}
	info, errno := in.info(name, flag&sysfs.O_NOFOLLOW == 0)
	switch {
	case errno != 0 && flag&sysfs.O_CREAT != 0 && errno == sysfs.ENOENT:
		return nil, sysfs.EROFS
	case errno != 0:
		return nil, errno
	case info.IsDir() && writing(flag):
		return nil, sysfs.EISDIR
	case info.IsDir():
		return &folder{ino: inode("in", name), mode: modeOf(info), list: func() ([]sysfs.Dirent, sysfs.Errno) { return in.list(name) }}, 0
	case info.Mode().Type() == fs.ModeSymlink:
		return nil, sysfs.ELOOP
	case !info.Mode().IsRegular(): // opening a pipe would wait for ever
		return nil, sysfs.EACCES
	case flag&sysfs.O_DIRECTORY != 0:
		return nil, sysfs.ENOTDIR
	case writing(flag):
		return nil, sysfs.EROFS
	case in.open >= maxOpen:
		return nil, sysfs.EAGAIN
	}
	root, p, errno := in.find(name)
	if errno != 0 {
		return nil, errno
	}
	f, err := root.Open(p)
	if err != nil {
		return nil, errnoOf(err)
	}
	in.open++
	return &inputFile{f: f, in: in, ino: inode("in", name), size: info.Size()}, 0
}

func (in *inputs) top() ([]sysfs.Dirent, sysfs.Errno) {
	var out []sysfs.Dirent
	for _, name := range in.names {
		info, errno := in.info(name, true)
		if errno != 0 {
			return nil, errno
		}
		out = append(out, sysfs.Dirent{Ino: inode("in", name), Name: name, Type: info.Mode().Type()})
	}
	return out, 0
}

func (in *inputs) list(name string) ([]sysfs.Dirent, sysfs.Errno) {
	root, p, errno := in.find(name)
	if errno != 0 {
		return nil, errno
	}
	f, err := root.Open(p)
	if err != nil {
		return nil, errnoOf(err)
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, errnoOf(err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	out := make([]sysfs.Dirent, 0, len(entries))
	for _, e := range entries {
		out = append(out, sysfs.Dirent{Ino: inode("in", name+"/"+e.Name()), Name: e.Name(), Type: e.Type()})
	}
	return out, 0
}

// What would change anything is refused.
func (*inputs) Mkdir(string, fs.FileMode) sysfs.Errno      { return sysfs.EROFS }
func (*inputs) Chmod(string, fs.FileMode) sysfs.Errno      { return sysfs.EROFS }
func (*inputs) Rename(string, string) sysfs.Errno          { return sysfs.EROFS }
func (*inputs) Rmdir(string) sysfs.Errno                   { return sysfs.EROFS }
func (*inputs) Unlink(string) sysfs.Errno                  { return sysfs.EROFS }
func (*inputs) Link(string, string) sysfs.Errno            { return sysfs.EROFS }
func (*inputs) Symlink(string, string) sysfs.Errno         { return sysfs.EROFS }
func (*inputs) Utimens(string, int64, int64) sysfs.Errno   { return sysfs.EROFS }
func (*inputFile) Write([]byte) (int, sysfs.Errno)         { return 0, sysfs.EBADF }
func (*inputFile) Pwrite([]byte, int64) (int, sysfs.Errno) { return 0, sysfs.EBADF }
func (*inputFile) Truncate(int64) sysfs.Errno              { return sysfs.EBADF }
func (*inputFile) Utimens(int64, int64) sysfs.Errno        { return sysfs.EROFS }

// inputFile is an open file of /in.
type inputFile struct {
	sysfs.UnimplementedFile
	f    *os.File
	in   *inputs
	ino  sys.Inode
	size int64
	at   int64
}

func (f *inputFile) Ino() (sys.Inode, sysfs.Errno) { return f.ino, 0 }
func (f *inputFile) Stat() (sys.Stat_t, sysfs.Errno) {
	return stat(f.ino, 0o444, f.size), 0
}

func (f *inputFile) Read(p []byte) (int, sysfs.Errno) {
	n, errno := f.Pread(p, f.at)
	f.at += int64(n)
	return n, errno
}

func (f *inputFile) Pread(p []byte, off int64) (int, sysfs.Errno) {
	if f.f == nil {
		return 0, sysfs.EBADF
	}
	if off < 0 {
		return 0, sysfs.EINVAL
	}
	n, err := f.f.ReadAt(p, off)
	if err == io.EOF {
		err = nil
	}
	return n, errnoOf(err)
}

func (f *inputFile) Seek(off offset, whence int) (at int64, errno sysfs.Errno) {
	if at, errno = seek(f.at, f.size, off, whence); errno == 0 {
		f.at = at
	}
	return at, errno
}

func (f *inputFile) Close() sysfs.Errno {
	if f.f == nil {
		return 0
	}
	err := f.f.Close()
	f.f = nil
	f.in.open--
	return errnoOf(err)
}
