package runner

import (
	"os/exec"
	"runtime"
)

// launcher starts every child from one OS thread that lives as long as they do:
// the parent-death signal follows the thread that forked.
type launcher struct {
	tie      tie
	requests chan launchRequest
	quit     chan struct{}
	cpu      float64
}

type launchRequest struct {
	cmd  *exec.Cmd
	done chan<- error
}

func newLauncher(cfg Config) *launcher {
	return &launcher{requests: make(chan launchRequest), quit: make(chan struct{}), cpu: cfg.CPU}
}

func (l *launcher) open() error { return l.tie.open(l.cpu) }

// serve runs until close. By then no child is left.
func (l *launcher) serve() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	for {
		select {
		case <-l.quit:
			l.tie.close()
			return
		case q := <-l.requests:
			q.done <- l.run(q.cmd)
		}
	}
}

func (l *launcher) run(cmd *exec.Cmd) error {
	cmd.SysProcAttr = childAttributes(len(cmd.ExtraFiles) > 0)
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := l.tie.add(cmd.Process); err != nil {
		killErr := cmd.Process.Kill()
		waitErr := cmd.Wait()
		_, _ = killErr, waitErr // it is the tie that failed
		return err
	}
	return nil
}

func (l *launcher) start(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	select {
	case l.requests <- launchRequest{cmd, done}:
		return <-done
	case <-l.quit:
		return ErrStopped
	}
}

func (l *launcher) close() { close(l.quit) }
