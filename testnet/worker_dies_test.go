//go:build unix

package testnet

import (
	"testing"

	"github.com/kith-mesh/kith/api"
)

// A worker that is killed costs time and nothing else: what it had computed and
// said counts, what it had not is run elsewhere, and nothing counts twice.
func TestWorkerDies(t *testing.T) {
	scenario(t)
	l := newLab(t, 3, nil)
	a, b := l.nodes[1], l.nodes[2]
	l.pause(l.origin)
	l.warm()
	// alone gives a job to worker a, which then takes no more.
	alone := func(l *lab, env ...string) (id string) {
		l.resume(a)
		l.restart(a, env...)
		l.pause(b)
		id = l.submit(l.origin, l.slow(l.origin))
		l.working(a)
		l.pause(a)
		return id
	}
	by := func(l *lab, j api.Job, p *Process) {
		l.t.Helper()
		for _, w := range j.Workers {
			if w.Accepted > 0 && w.Peer != p.ID {
				l.t.Errorf("the answer of %s counts, want that of %s: %+v", w.Peer, p.Name, j.Workers)
			}
		}
	}
	// What becomes of a worker that has died, and of its task.
	forGood := func(l *lab, id string) {
		l.says(l.origin, id, "1 gone")
		l.resume(b)
		j := l.found(l.origin, id)
		by(l, j, b)
		if j.Releases != 1 {
			l.t.Errorf("%d releases, want 1", j.Releases)
		}
		l.start(a)
	}
	worksAgain := func(l *lab, id string) {
		l.start(a)
		l.says(l.origin, id, "paused")
		l.resume(a)
		by(l, l.found(l.origin, id), a)
	}
	delivers := func(l *lab, id string) { // paused: it can do nothing else
		l.start(a)
		by(l, l.found(l.origin, id), a)
	}
	for _, c := range []struct {
		name, at string // at: crash point
		then     func(l *lab, id string)
	}{
		{"while it computes, for good", "", forGood},
		{"while it computes, and back", "", worksAgain},
		{"its receipt kept and not sent, for good", "state/receipt:after", forGood},
		{"its receipt kept and not sent, and back", "state/receipt:after", delivers},
		{"its receipt not kept, and back", "state/receipt:before", worksAgain},
		{"its verdict not noted, and back", "state/settle:before", delivers},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := l.in(t)
			id := alone(l, "KITH_CRASH_AT="+c.at)
			if c.at == "" {
				l.must(a.Kill())
			} else {
				l.died(a)
			}
			c.then(l, id)
		})
	}
	// The origin has the receipt and dies before the verdict is durable; so does
	// the worker, which waits for the verdict.
	t.Run("before the verdict, with its origin", func(t *testing.T) {
		l := l.in(t)
		l.restart(l.origin, "KITH_CRASH_AT=state/decide:before")
		id := alone(l)
		l.died(l.origin)
		l.must(a.Kill())
		l.start(l.origin)
		l.says(l.origin, id, "not heard since this node started again")
		l.start(a)
		by(l, l.found(l.origin, id), a)
	})
}
