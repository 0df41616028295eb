package runner

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/tasks"
)

// What programs are walled off by is logged once, and not for every child.
func TestWallsAreLoggedOnce(t *testing.T) {
	var b bytes.Buffer
	r, err := New(Config{Scratch: t.TempDir(), Log: slog.New(slog.NewTextHandler(&b, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.stands("process")
		r.stands("process, landlock")
	}
	if n := strings.Count(b.String(), "walled off"); n != 2 || r.Isolation() != "process, landlock" {
		t.Errorf("%d lines, %q:\n%s", n, r.Isolation(), &b)
	}
}

// A worker with one slot takes tasks of several jobs in turn, each in a child
// that its job keeps.
func TestJobsInTurnKeepTheirChildren(t *testing.T) {
	r := start(t, func(c *Config) { c.Slots = 1 })
	for range 5 {
		for _, job := range []string{"turn-a", "turn-b", "turn-c"} {
			if res, out := run(t, r, hello("hi"), ofJob(job)); res.Reason != tasks.OK || out != "hi" {
				t.Fatalf("%v %q", res, out)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.serial > 6 { // one before, one a job, one that waits
		t.Errorf("%d children for 15 tasks of three jobs", r.serial-1)
	}
}
