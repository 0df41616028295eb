package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kith-mesh/kith/testnet"
)

// up starts a node that dies at points, and writes down that it may be there.
func (r *run) up(p *testnet.Process, points string) error {
	p.Env = r.env()
	if points != "" {
		p.Env = r.env("KITH_CRASH_AT="+points, "KITH_CRASH_LOG="+r.crashes(p))
	}
	return errors.Join(r.ups.Append(Entry{Op: Up, Node: p.ID}), p.Start(r.Exe, "--cpu", "1"))
}

// down ends a node that has not ended yet, and writes down that it is gone.
func (r *run) down(p *testnet.Process) error {
	return errors.Join(p.Kill(), r.ups.Append(Entry{Op: Down, Node: p.ID}))
}

// crashes is where a node writes down the point that it dies at.
func (r *run) crashes(p *testnet.Process) string { return filepath.Join(r.Dir, p.Name+".crash") }

// lives kills a node and starts it again until there were enough kills.
func (r *run) lives(ctx context.Context, number int, p *testnet.Process, enough func()) error {
	var at []armed
	after := r.millis(200, 1500)
	for {
		select {
		case <-p.Exited():
		case <-time.After(after):
		case <-ctx.Done():
		}
		byUs := true
		select {
		case <-p.Exited():
			byUs = false
		default:
		}
		if err := r.down(p); err != nil {
			return err
		}
		point, err := lastLine(r.crashes(p))
		if err != nil {
			return err
		}
		var exit *exec.ExitError
		if !byUs && (point == "" || !errors.As(p.State(), &exit) || !killed(exit)) {
			r.fault("%s ended by itself: %v\n%s", p.Name, p.State(), p.Tail())
		}
		if r.died(at, point, byUs) {
			enough()
		}
		if ctx.Err() != nil {
			return nil
		}
		down := r.millis(0, 500)
		if r.intn(10) == 0 || r.wantsHosts() && r.intn(2) == 0 { // long enough for another host to take its published jobs
			down = r.millis(2500, 4500)
		}
		wait(ctx, down)
		if ctx.Err() != nil {
			return nil
		}
		at, after = r.next(number)
		if err := r.up(p, crashAt(at)); err != nil {
			return err
		}
	}
}

func killed(e *exec.ExitError) bool {
	s, ok := e.Sys().(syscall.WaitStatus)
	return ok && s.Signaled() && s.Signal() == syscall.SIGKILL
}

// lastLine takes the point that a process wrote down as it died; "" when none.
func lastLine(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err == nil {
		err = os.Remove(path)
	}
	return string(b[:max(0, len(b)-1)]), err
}

// died counts a death, and reports whether there were enough.
func (r *run) died(at []armed, point string, outside bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Kills++
	if point == "" && outside {
		r.report.Outside++
	}
	r.aim.died(at, point)
	missing := r.aim.missing()
	if r.report.Kills%20 == 0 {
		fmt.Fprintf(r.Out, "%v: %d kills, %d outside; to go: %s\n", time.Since(r.begin).Round(time.Second), r.report.Kills, r.report.Outside, strings.Join(missing, ", "))
	}
	return r.report.Kills >= r.Kills && len(missing) == 0 || r.report.Kills >= 4*r.Kills
}

// hostSteps come when an origin of published jobs dies and is away for long: often,
// while they alone are missing.
var hostSteps = []string{"state/term", "state/yield"}

func (r *run) wantsHosts() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.aim.only(hostSteps)
}

// next says where a node's next life ends: at a point, or at an instant.
func (r *run) next(number int) (at []armed, after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rand.IntN(5) == 0 && 4*r.report.Outside < max(r.report.Kills, 20) {
		return nil, time.Duration(r.rand.IntN(3000)) * time.Millisecond
	}
	life := 5 * time.Second // long enough for jobs to end
	if n := len(r.aim.missing()); n > 0 && n < len(r.Points)/5 && !r.aim.only(hostSteps) {
		life *= 2 // what is left needs peace: an answer that is accepted, say
	}
	return r.aim.next(func(point string) bool {
		switch step, _, _ := strings.Cut(point, ":"); step {
		case "state/redeem":
			return number == 0 // it lets others join
		case "state/setting":
			return number == r.Nodes-1 // it has the client that pauses
		}
		return true
	}), life + time.Duration(r.rand.Int64N(int64(life)))
}
