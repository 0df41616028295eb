//go:build unix

package testnet

import (
	"testing"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/tasks"
)

// An origin that is killed at any step of a job goes on with it when it is back:
// the output is right and every task counts once.
func TestOriginDiesAt(t *testing.T) {
	l := newLab(t, 3, nil)
	l.pause(l.origin)
	oneTask := func(s *tasks.Spec) { s.Inputs[0].Split.Size = 1000 }
	quorum := func(s *tasks.Spec) { s.Verify = tasks.Verify{Mode: tasks.VerifyQuorum, Replicas: 2} }
	for _, c := range []struct {
		state, at string
		change    func(*tasks.Spec)
	}{
		{"accepted, not split", "state/submit:after", nil},
		{"cut, not durable", "state/split:before", nil},
		{"split, not offered", "state/split:after", nil},
		{"a lease not durable", "state/grant:before", nil},
		{"leased, not told", "state/grant:after", nil},
		{"receipts in, not decided", "state/decide:before", nil},
		{"some decided, not told", "state/decide:after", nil},
		{"an answer held, not decided", "state/record:after", quorum},
		{"all of a stage decided, the next not leased", "state/grant:before:2", oneTask},
		{"the reduce leased, not told", "state/grant:after:2", oneTask},
		{"all decided, not assembled", "state/decide:after:2", oneTask},
		{"assembled, not durable", "state/finish:before", nil},
		{"done, not told", "state/finish:after", nil},
	} {
		t.Run(c.state, func(t *testing.T) {
			l := l.in(t)
			l.restart(l.origin, "KITH_CRASH_AT="+c.at)
			spec := l.wordCount(l.origin)
			if c.change != nil {
				c.change(&spec)
			}
			id := l.submit(l.origin, spec)
			l.died(l.origin)
			l.start(l.origin)
			if id == "" {
				id = l.newest(l.origin)
			}
			l.done(l.origin, id, max(int(spec.Verify.Replicas), 1))
		})
	}
}

// The same with a kill from outside, in states that a job may be in for long; and
// why names what it waits for, before and after.
func TestOriginDiesWaiting(t *testing.T) {
	scenario(t)
	l := newLab(t, 3, nil)
	a, b := l.nodes[1], l.nodes[2]
	l.pause(l.origin)
	t.Run("inputs out of reach", func(t *testing.T) {
		l := l.in(t)
		spec := l.wordCount(l.origin)
		spec.Inputs[0].Source = l.upload(a, "text", append(l.text, "elsewhere\n"...), api.AudienceMesh)
		l.must(a.Kill())
		id := l.submit(l.origin, spec)
		cause := "fetch " + string(spec.Inputs[0].Source)
		l.says(l.origin, id, cause)
		l.must(l.origin.Kill())
		l.start(l.origin)
		l.says(l.origin, id, cause)
		l.start(a)
		l.text = append(l.text, "elsewhere\n"...)
		l.done(l.origin, id, 1)
	})
	t.Run("nobody works", func(t *testing.T) {
		l := l.in(t)
		l.pause(a, b)
		id := l.submit(l.origin, l.wordCount(l.origin))
		l.says(l.origin, id, "paused")
		l.must(l.origin.Kill())
		l.start(l.origin)
		l.says(l.origin, id, "paused")
		l.resume(a, b)
		l.done(l.origin, id, 1)
	})
	t.Run("a worker computes", func(t *testing.T) {
		l := l.in(t)
		l.warm()
		l.pause(b)
		id := l.submit(l.origin, l.slow(l.origin))
		l.working(a)
		l.says(l.origin, id, "running on 1 worker")
		l.must(l.origin.Kill())
		l.pause(a) // it goes on, and takes nothing new
		l.start(l.origin)
		j := l.found(l.origin, id)
		if j.Releases > 0 {
			t.Errorf("%d leases were taken from a worker that was at work all the time", j.Releases)
		}
	})
}
