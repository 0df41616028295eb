package testnet

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps the console's Ctrl-C from a child.
func ownGroup(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
