package runner

import (
	"fmt"
	"os"
	"strconv"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// roomToRun is the address space that a child may take beyond what it has when
// its program is loaded and the program's memory: the heap and stacks of its
// runtime, which reserves far more than it uses.
const roomToRun = 1 << 30

// confine takes away what a child never needs.
func confine() (*walls, error) {
	w := &walls{}
	if err := lowerPriority(); err != nil {
		return nil, err
	}
	if err := w.common(); err != nil {
		return nil, err
	}
	if err := ll.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("set no-new-privs: %w", err)
	}
	w.add("no-new-privs")
	return w, nil
}

// lowerPriority makes every thread nice: priority is a thread's here, and new
// ones inherit it.
func lowerPriority() error {
	for range 2 { // a thread may start another meanwhile
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				return fmt.Errorf("thread %q: %w", t.Name(), err)
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, 19); err != nil && err != unix.ESRCH {
				return fmt.Errorf("lower priority: %w", err)
			}
		}
	}
	return nil
}

// close shuts the child in before it runs anything: it keeps the files that it
// has open, its inputs to read and its own folder to write. What the kernel
// lacks is missing from the list of walls.
func (w *walls) close(m loadMessage) error {
	if err := limitCPU(m.CPU); err != nil {
		return err
	}
	if err := w.limitSpace(m.Memory); err != nil {
		return err
	}
	if err := w.landlock(m); err != nil {
		return err
	}
	return w.seccomp()
}

// limitSpace bounds address space. The race detector's shadow is too large for
// that.
func (w *walls) limitSpace(memory int64) error {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return fmt.Errorf("read own size: %w", err)
	}
	pages, err := statmField(b, 0)
	if err != nil {
		return err
	}
	now := pages * int64(os.Getpagesize())
	if now > 1<<42 {
		return nil
	}
	w.add("address space")
	return setLimit("address space", unix.RLIMIT_AS, uint64(now+memory+roomToRun))
}

func (w *walls) landlock(m loadMessage) error {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		return nil // not in this kernel, or switched off
	}
	rules := []landlock.Rule{landlock.RWDirs(m.Scratch)}
	for name, path := range m.Inputs {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("input %q: %w", name, err)
		}
		if info.IsDir() {
			rules = append(rules, landlock.RODirs(path))
		} else {
			rules = append(rules, landlock.ROFiles(path))
		}
	}
	if err := landlock.V9.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	w.add("landlock " + strconv.Itoa(abi))
	return nil
}
