//go:build !windows

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// tooOpen reports whether others than the owner may read a secret file.
func tooOpen(m fs.FileMode) bool { return m.Perm()&0o077 != 0 }

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) { // a file system without it
		err = nil
	}
	return errors.Join(err, d.Close())
}
