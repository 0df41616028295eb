package runner

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// needsGuard: the job object ends the children when our handle closes.
const needsGuard = false

// canPause: the job object caps CPU instead.
const canPause = false

func pauseProcess(int) error  { return errors.ErrUnsupported }
func resumeProcess(int) error { return errors.ErrUnsupported }
func killGroup(*os.Process)   {}

func brokenPipe(err error) bool {
	return errors.Is(err, windows.ERROR_BROKEN_PIPE) || errors.Is(err, windows.ERROR_NO_DATA)
}

func childAttributes(bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		HideWindow:    true,
		CreationFlags: windows.BELOW_NORMAL_PRIORITY_CLASS | windows.CREATE_NEW_PROCESS_GROUP,
	}
}

// tie is the job object that all children are in.
type tie struct{ job windows.Handle }

// cpuRate is JOBOBJECT_CPU_RATE_CONTROL_INFORMATION with its union as a rate.
type cpuRate struct {
	flags uint32
	rate  uint32 // of all cores' cycles, in 1/10000
}

const (
	cpuRateEnable  = 0x1
	cpuRateHardCap = 0x4
)

func (t *tie) open(cores float64) error {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return fmt.Errorf("create job object: %w", err)
	}
	var limits windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE |
		windows.JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION
	_, err = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits)))
	if n := float64(runtime.NumCPU()); err == nil && cores < n {
		rate := cpuRate{flags: cpuRateEnable | cpuRateHardCap, rate: max(uint32(cores/n*10_000), 1)}
		_, err = windows.SetInformationJobObject(job, windows.JobObjectCpuRateControlInformation,
			uintptr(unsafe.Pointer(&rate)), uint32(unsafe.Sizeof(rate)))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("limit job object: %w", err), windows.CloseHandle(job))
	}
	t.job = job
	return nil
}

func (t *tie) add(p *os.Process) error {
	h, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(p.Pid))
	if err != nil {
		return fmt.Errorf("open child: %w", err)
	}
	defer windows.CloseHandle(h)
	if err := windows.AssignProcessToJobObject(t.job, h); err != nil {
		return fmt.Errorf("assign child to job object: %w", err)
	}
	return nil
}

func (t *tie) close() { windows.CloseHandle(t.job) }
