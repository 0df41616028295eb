package tasks_test

import (
	"fmt"
	"testing"
	"time"
)

func TestJobRunsToItsEnd(t *testing.T) {
	for _, c := range []struct {
		name     string
		replicas uint32
		reduce   bool
		count    int
		nodes    int
	}{
		{"one task on one node", 1, false, 1, 1},
		{"many on one node", 1, false, 50, 1},
		{"many on five", 1, false, 200, 5},
		{"reduce", 1, true, 20, 3},
		{"quorum of two", 2, false, 100, 5},
		{"quorum of three, reduce", 3, true, 30, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newSim(t, 1, spec(c.replicas, c.reduce), c.count)
			m.checks = true
			for i := range c.nodes {
				m.node(fmt.Sprintf("w%d", i), time.Duration(i)*10*time.Millisecond, 2, 1)
			}
			m.run(10 * time.Minute)
			m.done()
			t.Logf("%v, first %v, %d grants, %d messages, %d events, status %+v", m.finished.Sub(m.began), m.first, m.grants, m.messages, m.events, m.origin.Status())
		})
	}
}
