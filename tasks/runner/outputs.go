package runner

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"

	sysfs "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
)

// outputs is /out. Names live in memory; a file's bytes live in scratch under a
// number, so that no guest's name ever meets the host's file system here, and
// what a task may write is counted to the byte.
type outputs struct {
	sysfs.UnimplementedFS
	scratch *os.Root
	book    *ledger
	serial  *int
	root    *node
	count   int // nodes ever made
	open    int
	held    map[string]struct{} // files in scratch
}

// node is a file or a folder.
type node struct {
	ino   sys.Inode
	kids  map[string]*node // of a folder; nil for a file
	file  string           // in scratch
	size  int64
	opens int
	links int // 0: unlinked
}

func newOutputs(scratch *os.Root, book *ledger, serial *int) *outputs {
	o := &outputs{scratch: scratch, book: book, serial: serial, held: map[string]struct{}{}}
	o.root = &node{ino: inode("out", "."), kids: map[string]*node{}, links: 1}
	return o
}

func (n *node) dir() bool { return n.kids != nil }

func (n *node) stat() sys.Stat_t {
	if n.dir() {
		return stat(n.ino, fs.ModeDir|0o755, 0)
	}
	return stat(n.ino, 0o644, n.size)
}

// find walks to name. The parent is there even if the last element is not.
func (o *outputs) find(name string) (parent *node, base string, found *node, errno sysfs.Errno) {
	if len(name) > maxPath {
		return nil, "", nil, sysfs.ENAMETOOLONG
	}
	name = clean(name)
	if name == "." {
		return nil, "", o.root, 0
	}
	if !fs.ValidPath(name) {
		return nil, "", nil, sysfs.EPERM
	}
	at := o.root
	dir, base := path.Split(name)
	for rest := dir; rest != ""; {
		var part string
		part, rest = cutSlash(rest)
		next := at.kids[part]
		if next == nil {
			return nil, "", nil, sysfs.ENOENT
		}
		if !next.dir() {
			return nil, "", nil, sysfs.ENOTDIR
		}
		at = next
	}
	if !validName(base) {
		return nil, "", nil, sysfs.ENAMETOOLONG
	}
	return at, base, at.kids[base], 0
}

func cutSlash(s string) (first, rest string) {
	for i := range len(s) {
		if s[i] == '/' {
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// add makes a node, or unwinds a program that makes too many.
func (o *outputs) add(parent *node, base string, dir bool) *node {
	if o.count++; o.count > maxEntries {
		o.book.exceed("more than " + strconv.Itoa(maxEntries) + " files and folders in /out")
	}
	n := &node{ino: inode("out", strconv.Itoa(o.count)), links: 1}
	if dir {
		n.kids = map[string]*node{}
	} else {
		*o.serial++
		n.file = "f" + strconv.Itoa(*o.serial)
	}
	parent.kids[base] = n
	return n
}

// drop takes a name away, and the bytes with the last user.
func (o *outputs) drop(parent *node, base string, n *node) {
	delete(parent.kids, base)
	n.links = 0
	o.settle(n)
}

func (o *outputs) settle(n *node) {
	if n.dir() || n.links > 0 || n.opens > 0 {
		return
	}
	if err := o.scratch.Remove(n.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.book.err = err // not fail: files are also closed when nothing runs
	}
	delete(o.held, n.file)
	o.book.refund(n.size)
	n.size = 0
}

// OpenFile implements sys.FS.
func (o *outputs) OpenFile(name string, flag sysfs.Oflag, _ fs.FileMode) (sysfs.File, sysfs.Errno) {
	parent, base, n, errno := o.find(name)
	switch {
	case errno != 0:
		return nil, errno
	case n == nil && flag&sysfs.O_CREAT == 0:
		return nil, sysfs.ENOENT
	case n != nil && flag&sysfs.O_CREAT != 0 && flag&sysfs.O_EXCL != 0:
		return nil, sysfs.EEXIST
	case n != nil && n.dir() && writing(flag):
		return nil, sysfs.EISDIR
	case n != nil && !n.dir() && flag&sysfs.O_DIRECTORY != 0:
		return nil, sysfs.ENOTDIR
	case o.open >= maxOpen:
		return nil, sysfs.EAGAIN
	}
	if n != nil && n.dir() {
		o.open++
		return &folder{ino: n.ino, mode: fs.ModeDir | 0o755, list: n.list, done: func() { o.open-- }}, 0
	}
	if n == nil {
		n = o.add(parent, base, false)
	}
	f, err := o.scratch.OpenFile(n.file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		o.book.fail(err)
	}
	o.held[n.file] = struct{}{}
	o.open++
	n.opens++
	out := &outputFile{o: o, n: n, f: f, flag: flag}
	if flag&sysfs.O_TRUNC != 0 && n.size > 0 {
		if errno := out.resize(0); errno != 0 {
			out.Close()
			return nil, errno
		}
	}
	return out, 0
}

func (n *node) list() ([]sysfs.Dirent, sysfs.Errno) {
	out := make([]sysfs.Dirent, 0, len(n.kids))
	for name, kid := range n.kids {
		out = append(out, sysfs.Dirent{Ino: kid.ino, Name: name, Type: kid.stat().Mode.Type()})
	}
	slices.SortFunc(out, func(a, b sysfs.Dirent) int { return cmp.Compare(a.Name, b.Name) })
	return out, 0
}

// Stat implements sys.FS.
func (o *outputs) Stat(name string) (sys.Stat_t, sysfs.Errno) {
	_, _, n, errno := o.find(name)
	if errno == 0 && n == nil {
		errno = sysfs.ENOENT
	}
	if errno != 0 {
		return sys.Stat_t{}, errno
	}
	return n.stat(), 0
}

// Lstat implements sys.FS. There are no links.
func (o *outputs) Lstat(name string) (sys.Stat_t, sysfs.Errno) { return o.Stat(name) }

// Mkdir implements sys.FS.
func (o *outputs) Mkdir(name string, _ fs.FileMode) sysfs.Errno {
	parent, base, n, errno := o.find(name)
	if errno != 0 {
		return errno
	}
	if n != nil {
		return sysfs.EEXIST
	}
	o.add(parent, base, true)
	return 0
}

// Rename implements sys.FS.
func (o *outputs) Rename(from, to string) sysfs.Errno {
	fromParent, fromBase, n, errno := o.find(from)
	if errno != 0 {
		return errno
	}
	toParent, toBase, old, errno := o.find(to)
	switch {
	case errno != 0:
		return errno
	case n == nil:
		return sysfs.ENOENT
	case fromParent == nil || toParent == nil || n.holds(toParent):
		return sysfs.EINVAL
	case n == old:
		return 0
	case old != nil && old.dir() && !n.dir():
		return sysfs.EISDIR
	case old != nil && !old.dir() && n.dir():
		return sysfs.ENOTDIR
	case old != nil && len(old.kids) > 0:
		return sysfs.ENOTEMPTY
	}
	if old != nil {
		o.drop(toParent, toBase, old)
	}
	delete(fromParent.kids, fromBase)
	toParent.kids[toBase] = n
	return 0
}

// holds reports whether other is n or below it.
func (n *node) holds(other *node) bool {
	if n == other {
		return true
	}
	for _, kid := range n.kids {
		if kid.holds(other) {
			return true
		}
	}
	return false
}

// Rmdir implements sys.FS.
func (o *outputs) Rmdir(name string) sysfs.Errno {
	parent, base, n, errno := o.find(name)
	switch {
	case errno != 0:
		return errno
	case n == nil:
		return sysfs.ENOENT
	case !n.dir():
		return sysfs.ENOTDIR
	case parent == nil:
		return sysfs.EPERM
	case len(n.kids) > 0:
		return sysfs.ENOTEMPTY
	}
	o.drop(parent, base, n)
	return 0
}

// Unlink implements sys.FS.
func (o *outputs) Unlink(name string) sysfs.Errno {
	parent, base, n, errno := o.find(name)
	switch {
	case errno != 0:
		return errno
	case n == nil:
		return sysfs.ENOENT
	case n.dir():
		return sysfs.EISDIR
	}
	o.drop(parent, base, n)
	return 0
}

// Times and permissions are accepted and don't stick; links are refused.
func (*outputs) Chmod(string, fs.FileMode) sysfs.Errno    { return 0 }
func (*outputs) Utimens(string, int64, int64) sysfs.Errno { return 0 }
func (*outputs) Link(string, string) sysfs.Errno          { return sysfs.EPERM }
func (*outputs) Symlink(string, string) sysfs.Errno       { return sysfs.EPERM }
func (*outputs) Readlink(string) (string, sysfs.Errno)    { return "", sysfs.EINVAL }

// send tells the parent what is there, folders before what is in them.
func (o *outputs) send(w *bufio.Writer) error {
	return o.root.walk("", func(name string, n *node) error {
		return writeMessage(w, frameFile, fileMessage{Path: name, Dir: n.dir(), Size: n.size, Name: n.file})
	})
}

func (n *node) walk(prefix string, visit func(string, *node) error) error {
	list, _ := n.list()
	for _, e := range list {
		kid := n.kids[e.Name]
		if err := visit(prefix+e.Name, kid); err != nil {
			return err
		}
		if err := kid.walk(prefix+e.Name+"/", visit); err != nil {
			return err
		}
	}
	return nil
}

// discard removes what a failed task wrote.
func (o *outputs) discard() error {
	var errs []error
	for name := range o.held {
		if err := o.scratch.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// outputFile is an open file of /out.
type outputFile struct {
	sysfs.UnimplementedFile
	o    *outputs
	n    *node
	f    *os.File // nil: closed
	flag sysfs.Oflag
	at   int64
}

func (f *outputFile) Ino() (sys.Inode, sysfs.Errno)    { return f.n.ino, 0 }
func (f *outputFile) Stat() (sys.Stat_t, sysfs.Errno)  { return f.n.stat(), 0 }
func (f *outputFile) Utimens(int64, int64) sysfs.Errno { return 0 }
func (f *outputFile) IsAppend() bool                   { return f.flag&sysfs.O_APPEND != 0 }

func (f *outputFile) SetAppend(on bool) sysfs.Errno {
	f.flag &^= sysfs.O_APPEND
	if on {
		f.flag |= sysfs.O_APPEND
	}
	return 0
}

func (f *outputFile) Read(p []byte) (int, sysfs.Errno) {
	n, errno := f.Pread(p, f.at)
	f.at += int64(n)
	return n, errno
}

func (f *outputFile) Pread(p []byte, off int64) (int, sysfs.Errno) {
	switch {
	case f.f == nil || f.flag&sysfs.O_WRONLY != 0:
		return 0, sysfs.EBADF
	case off < 0:
		return 0, sysfs.EINVAL
	}
	n, err := f.f.ReadAt(p, off)
	if err != nil && err != io.EOF {
		f.o.book.fail(err)
	}
	return n, 0
}

func (f *outputFile) Write(p []byte) (int, sysfs.Errno) {
	at := f.at
	if f.IsAppend() {
		at = f.n.size
	}
	n, errno := f.Pwrite(p, at)
	if errno == 0 {
		f.at = at + int64(n)
	}
	return n, errno
}

func (f *outputFile) Pwrite(p []byte, off int64) (int, sysfs.Errno) {
	switch {
	case f.f == nil || f.flag&(sysfs.O_RDWR|sysfs.O_WRONLY) == 0:
		return 0, sysfs.EBADF
	case off < 0 || off > 1<<61:
		return 0, sysfs.EINVAL
	case len(p) == 0:
		return 0, 0
	}
	if grown := off + int64(len(p)) - f.n.size; grown > 0 {
		f.o.book.charge(grown)
		f.n.size += grown
	}
	if _, err := f.f.WriteAt(p, off); err != nil {
		f.o.book.fail(err)
	}
	return len(p), 0
}

func (f *outputFile) Truncate(size int64) sysfs.Errno {
	switch {
	case f.f == nil || f.flag&(sysfs.O_RDWR|sysfs.O_WRONLY) == 0:
		return sysfs.EBADF
	case size < 0 || size > 1<<61:
		return sysfs.EINVAL
	}
	return f.resize(size)
}

func (f *outputFile) resize(size int64) sysfs.Errno {
	if size > f.n.size {
		f.o.book.charge(size - f.n.size)
	} else {
		f.o.book.refund(f.n.size - size)
	}
	f.n.size = size
	if err := f.f.Truncate(size); err != nil {
		f.o.book.fail(err)
	}
	return 0
}

func (f *outputFile) Seek(off offset, whence int) (at int64, errno sysfs.Errno) {
	if at, errno = seek(f.at, f.n.size, off, whence); errno == 0 {
		f.at = at
	}
	return at, errno
}

func (f *outputFile) Close() sysfs.Errno {
	if f.f == nil {
		return 0
	}
	err := f.f.Close()
	f.f = nil
	f.o.open--
	f.n.opens--
	if err != nil {
		f.o.book.err = err
	}
	f.o.settle(f.n)
	return 0
}
