package runner

import (
	"hash/fnv"
	"io"
	"io/fs"
	"path"
	"strings"

	sysfs "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
)

// maxOpen bounds a task's open files.
const maxOpen = 256

// clean brings a guest's path into the form of fs.ValidPath.
func clean(name string) string {
	return path.Clean(strings.TrimLeft(name, "/"))
}

// inode numbers a path, the same on every host.
func inode(mount, name string) sys.Inode {
	h := fnv.New64a()
	h.Write([]byte(mount + "/" + name))
	return h.Sum64() | 1 // zero would mean unknown
}

// stat is all that a program learns of a file.
func stat(ino sys.Inode, mode fs.FileMode, size int64) sys.Stat_t {
	if mode.IsDir() {
		size = 0
	}
	return sys.Stat_t{Ino: ino, Mode: mode, Nlink: 1, Size: size, Atim: fileTime, Mtim: fileTime, Ctim: fileTime}
}

// folder is an open folder: a listing as of its first reading.
type folder struct {
	sysfs.DirFile
	ino  sys.Inode
	mode fs.FileMode
	list func() ([]sysfs.Dirent, sysfs.Errno) // sorted by name
	rest []sysfs.Dirent
	read bool
	done func()
}

func (f *folder) Dev() (uint64, sysfs.Errno)       { return 0, 0 }
func (f *folder) Ino() (sys.Inode, sysfs.Errno)    { return f.ino, 0 }
func (f *folder) Stat() (sys.Stat_t, sysfs.Errno)  { return stat(f.ino, f.mode, 0), 0 }
func (f *folder) Sync() sysfs.Errno                { return 0 }
func (f *folder) Datasync() sysfs.Errno            { return 0 }
func (f *folder) Utimens(int64, int64) sysfs.Errno { return 0 }
func (f *folder) Seek(off offset, whence int) (int64, sysfs.Errno) {
	if off != 0 || whence != io.SeekStart {
		return 0, sysfs.EISDIR
	}
	f.read = false
	return 0, 0
}

func (f *folder) Readdir(n int) ([]sysfs.Dirent, sysfs.Errno) {
	if !f.read {
		rest, errno := f.list()
		if errno != 0 {
			return nil, errno
		}
		f.rest, f.read = rest, true
	}
	if n <= 0 || n > len(f.rest) {
		n = len(f.rest)
	}
	out := f.rest[:n]
	f.rest = f.rest[n:]
	return out, 0
}

func (f *folder) Close() sysfs.Errno {
	if f.done != nil {
		f.done()
		f.done = nil
	}
	return 0
}

// offset is an int64: spelled so, vet doesn't take Seek for io.Seeker's.
type offset = int64

// seek moves an offset in a file of size bytes.
func seek(at, size, off int64, whence int) (int64, sysfs.Errno) {
	switch whence {
	case io.SeekStart:
		at = 0
	case io.SeekCurrent:
	case io.SeekEnd:
		at = size
	default:
		return 0, sysfs.EINVAL
	}
	if off > 0 && at > 1<<62-off || at+off < 0 {
		return 0, sysfs.EINVAL
	}
	return at + off, 0
}

func writing(flag sysfs.Oflag) bool {
	return flag&(sysfs.O_RDWR|sysfs.O_WRONLY|sysfs.O_APPEND|sysfs.O_CREAT|sysfs.O_TRUNC) != 0
}
