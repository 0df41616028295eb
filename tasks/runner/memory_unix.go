//go:build unix

package runner

import (
	"os"

	"golang.org/x/sys/unix"
)

// reserve takes address space that holds nothing yet.
func (l *linear) reserve(size uint64) (err error) {
	if size == 0 {
		return nil
	}
	page := uint64(os.Getpagesize())
	l.all, err = unix.Mmap(-1, 0, int((size+page-1)/page*page), unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	return err
}

func (l *linear) commit(size uint64) error {
	page := uint64(os.Getpagesize())
	end := min((size+page-1)/page*page, uint64(len(l.all)))
	return unix.Mprotect(l.all[l.used/page*page:end], unix.PROT_READ|unix.PROT_WRITE)
}

// Free implements experimental.LinearMemory.
func (l *linear) Free() {
	if l.all != nil {
		if err := unix.Munmap(l.all); err != nil {
			l.m.err = err
		}
		l.all = nil
	}
}
