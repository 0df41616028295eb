//go:build unix && !linux

package runner

import (
	"fmt"
	"os/exec"
	"strconv"
	"sync"
	"time"
)

// meterTick is how often a running task is metered. Each reading is a ps.
const meterTick = 500 * time.Millisecond

// meter reads what a process has used, through ps: without cgo these systems
// tell no more of another process.
type meter struct {
	pid string

	mu   sync.Mutex
	when time.Time
	last usage
}

func newMeter(pid int) (*meter, error) { return &meter{pid: strconv.Itoa(pid)}, nil }

// read is at most a tenth of a second old.
func (m *meter) read() (usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.when.IsZero() && time.Since(m.when) < 100*time.Millisecond {
		return m.last, nil
	}
	out, err := exec.Command("ps", "-o", "time=,rss=", "-p", m.pid).Output()
	if err != nil {
		return usage{}, fmt.Errorf("ps -p %s: %w", m.pid, err)
	}
	if m.last, err = parsePS(string(out)); err == nil {
		m.when = time.Now()
	}
	return m.last, err
}

func (m *meter) cpu() (time.Duration, error) {
	u, err := m.read()
	return u.cpu, err
}

// resident is the process's resident size in bytes.
func (m *meter) resident() (int64, error) {
	u, err := m.read()
	return u.resident, err
}

func (m *meter) close() {}
