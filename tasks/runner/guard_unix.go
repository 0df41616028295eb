//go:build unix

package runner

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// guardMain starts the real child and ends it when the node is gone: when the
// pipe that only the node holds closes. A child can't watch for itself, since a
// program that spins lets nothing else of it run.
func guardMain() int {
	life := os.NewFile(3, "life")
	if life == nil {
		fmt.Fprintln(os.Stderr, "kith guard: no pipe to watch: only a node starts a guard")
		return 2
	}
	exe, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kith guard: find own binary:", err)
		return 1
	}
	cmd := exec.Command(exe, ChildArg)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "kith guard: start child:", err)
		return 1
	}
	go func() { // ends with this process
		var b [1]byte
		for {
			if _, err := life.Read(b[:]); err != nil {
				break
			}
		}
		_ = cmd.Process.Kill() // gone already, or going
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal())
		}
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kith guard: wait for child:", err)
		return 1
	}
	return 0
}
