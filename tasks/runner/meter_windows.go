package runner

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// meterTick is how often a running task is metered.
const meterTick = 20 * time.Millisecond

// meter reads what a process has used.
type meter struct{ process windows.Handle }

var getProcessMemoryInfo = windows.NewLazySystemDLL("kernel32.dll").NewProc("K32GetProcessMemoryInfo")

// memoryCounters is PROCESS_MEMORY_COUNTERS.
type memoryCounters struct {
	size           uint32
	pageFaults     uint32
	peakWorkingSet uintptr
	workingSet     uintptr
	quota          [4]uintptr
	pagefile       uintptr
	peakPagefile   uintptr
}

func newMeter(pid int) (*meter, error) {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return nil, fmt.Errorf("meter child: %w", err)
	}
	return &meter{process: h}, nil
}

func (m *meter) cpu() (time.Duration, error) {
	var created, exited, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(m.process, &created, &exited, &kernel, &user); err != nil {
		return 0, fmt.Errorf("read process times: %w", err)
	}
	ticks := func(f windows.Filetime) int64 { return int64(f.HighDateTime)<<32 | int64(f.LowDateTime) }
	return time.Duration(ticks(kernel)+ticks(user)) * 100, nil
}

// resident is the process's working set in bytes.
func (m *meter) resident() (int64, error) {
	c := memoryCounters{}
	c.size = uint32(unsafe.Sizeof(c))
	ok, _, err := getProcessMemoryInfo.Call(uintptr(m.process), uintptr(unsafe.Pointer(&c)), uintptr(c.size))
	if ok == 0 {
		return 0, fmt.Errorf("read process memory: %w", err)
	}
	return int64(c.workingSet), nil
}

func (m *meter) close() { windows.CloseHandle(m.process) }
