package tasks_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/verify"
)

// TestStallersEndNoTask: near workers that say every second that they are at work
// and answer nothing keep a task from an honest one for a while, and not for ever.
// A task that all of them have is copied ever less often.
func TestStallersEndNoTask(t *testing.T) {
	for _, replicas := range []uint32{1, 2} {
		if had := stalled(t, replicas, 4); !had["honest 1"] || !had["honest 2"] {
			t.Errorf("%d replicas: in an hour only %v had the task", replicas, had)
		}
		// 5 seconds, 10, 20 and so on are an hour after ten copies.
		if had := stalled(t, replicas, 20); len(had) < 8 || len(had) > 10+int(replicas) {
			t.Errorf("%d replicas: %d of 20 that stall had the task within an hour", replicas, len(had))
		}
	}
}

// stalled is who had the one task of a job within an hour, of so many that stall
// and two honest ones farther away, which get it and keep it too.
func stalled(t *testing.T, replicas uint32, stall int) map[tasks.PeerID]bool {
	t.Helper()
	sp := spec(replicas, false)
	sp.Resources.Timeout = time.Second
	now := epochStart
	o, err := tasks.NewOrigin(tasks.OriginConfig{Self: "origin", Judge: verify.Decide, Rand: rand.New(rand.NewPCG(1, 2))},
		tasks.Job{ID: "job", Spec: sp, Term: 1}, []tasks.Task{{}})
	if err != nil {
		t.Fatal(err)
	}
	peers := []tasks.PeerID{"honest 1", "honest 2"}
	for i := range stall {
		peers = append(peers, tasks.PeerID(fmt.Sprint("stalls ", i)))
	}
	held, had := map[tasks.PeerID][]tasks.LeaseID{}, map[tasks.PeerID]bool{}
	step := func(ev tasks.Event) {
		for _, e := range o.Step(now, ev) {
			if g, ok := e.(tasks.Grant); ok {
				held[g.Lease.Worker] = append(held[g.Lease.Worker], g.Lease.ID)
				had[g.Lease.Worker] = true
			}
		}
		if err := o.Check(); err != nil {
			t.Fatalf("after %T: %v", ev, err)
		}
	}
	step(tasks.Tick{})
	for range 3600 {
		now = now.Add(time.Second)
		for i, w := range peers {
			st := tasks.Standing{RTT: time.Millisecond}
			if i < 2 {
				st.RTT = 40 * time.Millisecond
			}
			if len(held[w]) == 0 {
				step(tasks.BidIn{Bid: tasks.Bid{Job: "job", Worker: w, Slots: 1}, Standing: st})
			} else {
				step(tasks.ReportIn{Report: tasks.Report{Job: "job", Worker: w, Slots: 1, Held: held[w]}, Standing: st})
			}
		}
		step(tasks.Tick{})
	}
	return had
}
