//go:build !windows

package testnet

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps the terminal's Ctrl-C from a child, in a session of its own: Linux
// shares the CPU among sessions, and a node's programs are nice within theirs alone.
func ownGroup(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
