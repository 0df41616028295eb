package runner

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// meterTick is how often a running task is metered.
const meterTick = 10 * time.Millisecond

// meter reads what a process has used.
type meter struct {
	clock int32 // the process's CPU clock
	statm *os.File
}

func newMeter(pid int) (*meter, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return nil, fmt.Errorf("meter child: %w", err)
	}
	return &meter{clock: int32(^pid)<<3 | 2, statm: f}, nil // CPUCLOCK_SCHED of pid
}

func (m *meter) cpu() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(m.clock, &ts); err != nil {
		return 0, fmt.Errorf("read CPU clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// resident is the process's resident size in bytes.
func (m *meter) resident() (int64, error) {
	pages, err := m.field(1)
	return pages * int64(os.Getpagesize()), err
}

// field reads the nth number of statm.
func (m *meter) field(n int) (int64, error) {
	var buf [128]byte
	got, err := m.statm.ReadAt(buf[:], 0)
	if got == 0 {
		return 0, fmt.Errorf("read statm: %w", err)
	}
	return statmField(buf[:got], n)
}

func statmField(b []byte, n int) (int64, error) {
	var v int64
	at, seen := 0, false
	for _, c := range b {
		if c >= '0' && c <= '9' {
			v, seen = v*10+int64(c-'0'), true
			continue
		}
		if at == n && seen {
			return v, nil
		}
		at, v, seen = at+1, 0, false
	}
	return 0, fmt.Errorf("statm %q has no field %d", b, n)
}

func (m *meter) close() { m.statm.Close() }
