//go:build unix && !linux && !freebsd

package runner

import "syscall"

// needsGuard: no parent-death signal here, so a guard stands between.
const needsGuard = true

func childAttributes(bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
