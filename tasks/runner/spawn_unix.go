//go:build unix

package runner

import (
	"errors"
	"os"
	"syscall"
)

// tie is what else ties children to this process: nothing.
type tie struct{}

func (tie) open(float64) error    { return nil }
func (tie) add(*os.Process) error { return nil }
func (tie) close()                {}

// canPause: a child that takes too much CPU is stopped for a while.
const canPause = true

func pauseProcess(pid int) error  { return syscall.Kill(pid, syscall.SIGSTOP) }
func resumeProcess(pid int) error { return syscall.Kill(pid, syscall.SIGCONT) }

// killGroup kills a guard together with what it guards.
func killGroup(p *os.Process) {
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL) // the guard sees its pipe close as well
}

func brokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }
