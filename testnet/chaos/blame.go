package chaos

import (
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// span is a time during which a node may have been down, Unix milliseconds.
type span struct{ from, to int64 }

// A node that died by itself is known to have ended a moment later, and one that
// was started takes a moment until it answers.
const (
	diesBefore = 2 * time.Second
	upAfter    = 5 * time.Second
)

// downs gathers when nodes may have been down.
func downs(nodes []Entry) map[string][]span {
	out := map[string][]span{}
	for _, e := range nodes {
		list := out[e.Node]
		switch {
		case e.Op == Down:
			out[e.Node] = append(list, span{e.At - diesBefore.Milliseconds(), 1 << 62})
		case e.Op == Up && len(list) > 0:
			list[len(list)-1].to = e.At + upAfter.Milliseconds()
		case e.Op == Up: // not before, of course
			out[e.Node] = append(list, span{0, e.At + upAfter.Milliseconds()})
		}
	}
	return out
}

// wasUp reports whether a node was up all the time.
func (c *checker) wasUp(node string, from, to int64) bool {
	list := c.downs[node]
	for _, s := range list {
		if s.from <= to && from <= s.to {
			return false
		}
	}
	return len(list) > 0 && from > 0
}

// blamed looks at who is blamed for a try. Nobody lies here, and nobody is silent:
// who did not answer when it was asked, or gave no bytes, has died since its job
// was acknowledged.
func (c *checker) blamed(name string, j *jobLog, a Try, try string, at int64) {
	switch why := tasks.Reason(a.Why); {
	case !why.Blames():
	case why != tasks.NotRevealed && why != tasks.OutputMissing:
		c.fault(name, "job %s: honest %s is blamed for the try of %s: %v", j.id, a.Worker, try, why)
	case c.wasUp(a.Worker, j.acked, at):
		c.fault(name, "job %s: %s, which was up all the time, is blamed for the try of %s: %v", j.id, a.Worker, try, why)
	}
}
