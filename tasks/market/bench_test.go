package market

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/kith-mesh/kith/node/state"
	"github.com/kith-mesh/kith/p2p/auth"
	"github.com/kith-mesh/kith/tasks"
)

// BenchmarkTasks tells how many tasks of no work at all a second one origin
// gives out, judges and keeps durably, with two workers over memnet in real
// time.
func BenchmarkTasks(b *testing.B) {
	m := newMesh(b, func(i int, c *Config) {
		c.NoWork = i == 0
		c.Limits = tasks.SetLimits{Slots: 8}
	})
	defer m.close()
	for i := range 3 {
		n := m.add(i, auth.AllRights)
		n.runner.set(func(r *testRunner) { r.took = time.Microsecond })
	}
	n := m.all[0]
	n.halt()
	if err := n.store.Close(); err != nil {
		b.Fatal(err)
	}
	var err error
	if n.store, err = state.Open(filepath.Join(b.TempDir(), "state.db")); err != nil {
		b.Fatal(err)
	}
	n.start()
	met := make(chan struct{}, 1)
	n.host.OnMember(func(peer.ID, bool) {
		select {
		case met <- struct{}{}:
		default: // it looks again anyway
		}
	})
	for len(n.host.Members()) < 2 {
		<-met
	}
	spec, want := lineJob(n, max(b.N, 2))
	b.ResetTimer()
	id := m.submit(n, spec)
	m.want(n, m.done(n, id), want)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}
