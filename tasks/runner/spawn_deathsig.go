//go:build linux || freebsd

package runner

import "syscall"

// needsGuard: the kernel itself kills a child whose parent is gone.
const needsGuard = false

func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
