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

// StartSync begins to write these bytes to the disk and does not wait, so that
// the flush that waits finds little to do. It promises nothing.
func StartSync(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
