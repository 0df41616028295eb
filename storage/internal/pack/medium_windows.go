package pack

import (
	"errors"

	"golang.org/x/sys/windows"
)

// Medium says of a failed read that the disk itself could not read what it holds.
func Medium(err error) bool {
	return errors.Is(err, windows.ERROR_CRC) || errors.Is(err, windows.ERROR_SECTOR_NOT_FOUND) ||
		errors.Is(err, windows.ERROR_READ_FAULT) || errors.Is(err, windows.ERROR_IO_DEVICE)
}
