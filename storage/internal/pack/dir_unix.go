//go:build unix

package pack

import (
	"errors"
	"os"
)

// syncDir makes the names in dir survive a crash.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
