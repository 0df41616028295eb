package pack

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// dataSync flushes a file's bytes and what is needed to read them back.
func dataSync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// startEvery is after how many bytes the disk is set to work, before a flush.
const startEvery = 4 << 20

// StartSync is told that a file was written from one place to another. Now and
// then it begins to bring that to the disk, and does not wait, so that the flush
// that waits finds little to do. It promises nothing.
func StartSync(f *os.File, from, to int64) {
	if a, b := from/startEvery, to/startEvery; a != b {
		_ = unix.SyncFileRange(int(f.Fd()), a*startEvery, (b-a)*startEvery, unix.SYNC_FILE_RANGE_WRITE)
	}
}
