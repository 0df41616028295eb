//go:build unix

package state

import (
	"errors"

	"golang.org/x/sys/unix"
)

// noRoom says that a write failed for lack of room: the disk's, a quota's, or
// what one file may have.
func noRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}
