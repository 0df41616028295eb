//go:build linux || freebsd

package runner

import "syscall"

// needsGuard: the kernel itself kills a child whose parent is gone.
const needsGuard = false

func childAttributes(guarded bool) *syscall.SysProcAttr {
	if guarded { // its end must come from the pipe
		return &syscall.SysProcAttr{Setpgid: true}
	}
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
