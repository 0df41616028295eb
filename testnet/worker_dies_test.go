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
	t.Run("while it computes, for good", func(t *testing.T) {
		l := l.in(t)
		id := alone(l)
		l.must(a.Kill())
		l.says(l.origin, id, "1 gone")
		l.resume(b)
		j := l.found(l.origin, id)
		by(l, j, b)
		if j.Releases != 1 {
			t.Errorf("%d releases, want 1", j.Releases)
		}
		l.start(a)
	})
	t.Run("while it computes, and back", func(t *testing.T) {
		l := l.in(t)
		id := alone(l)
		l.must(a.Kill())
		l.start(a)
		l.says(l.origin, id, "paused")
		l.resume(a)
		by(l, l.found(l.origin, id), a)
	})
	t.Run("its receipt kept and not sent, for good", func(t *testing.T) {
		l := l.in(t)
		id := alone(l, "KITH_CRASH_AT=state/receipt:after")
		l.died(a)
		l.says(l.origin, id, "1 gone")
		l.resume(b)
		by(l, l.found(l.origin, id), b)
		l.start(a)
	})
	t.Run("its receipt kept and not sent, and back", func(t *testing.T) {
		l := l.in(t)
		id := alone(l, "KITH_CRASH_AT=state/receipt:after")
		l.died(a)
		l.start(a) // paused: all that it can do is deliver
		by(l, l.found(l.origin, id), a)
	})
	t.Run("its receipt not kept, and back", func(t *testing.T) {
		l := l.in(t)
		id := alone(l, "KITH_CRASH_AT=state/receipt:before")
		l.died(a)
		l.start(a)
		l.says(l.origin, id, "paused")
		l.resume(a)
		by(l, l.found(l.origin, id), a)
	})
	t.Run("its verdict not noted, and back", func(t *testing.T) {
		l := l.in(t)
		id := alone(l, "KITH_CRASH_AT=state/settle:before")
		l.died(a)
		by(l, l.found(l.origin, id), a)
		l.start(a)
		by(l, l.found(l.origin, id), a)
	})
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
