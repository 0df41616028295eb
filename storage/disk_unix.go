//go:build unix

package storage

import (
	"errors"

	"golang.org/x/sys/unix"
)

// DiskFree is how many bytes may be written to the disk of a folder.
func DiskFree(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// diskFull says that a write failed for lack of room: the disk's, a quota's, or
// what one file may have.
func diskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}
