//go:build unix

package runner

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// openFiles is the child's limit of file descriptors: a task's, and its own.
const openFiles = 2*maxOpen + 64

// setLimit lowers a limit for good. What the system already forbids stays.
func setLimit(name string, which int, value uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(which, &now); err != nil {
		return fmt.Errorf("read limit of %s: %w", name, err)
	}
	hard := min(value, uint64(now.Max))
	if err := unix.Setrlimit(which, limitOf(hard)); err != nil {
		return fmt.Errorf("limit %s to %d: %w", name, hard, err)
	}
	return nil
}

// common sets what holds from the first moment.
func (w *walls) common() error {
	if err := setLimit("core files", unix.RLIMIT_CORE, 0); err != nil {
		return err
	}
	if err := setLimit("open files", unix.RLIMIT_NOFILE, openFiles); err != nil {
		return err
	}
	w.add("rlimits")
	return nil
}

// limitCPU is the backstop for when nobody meters any more. It counts the
// process's whole life.
func limitCPU(most time.Duration) error {
	if most <= 0 {
		return nil
	}
	return setLimit("CPU time", unix.RLIMIT_CPU, uint64((most+time.Second-1)/time.Second))
}
