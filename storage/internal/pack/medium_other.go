//go:build !windows

package pack

import (
	"errors"
	"syscall"
)

// Medium says of a failed read that the disk itself could not read what it holds.
func Medium(err error) bool { return errors.Is(err, syscall.EIO) }
