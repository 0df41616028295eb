package tasks_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// A task's history stays short, however often a liar is given the task.
func TestLiarsHistoryIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	job := tasks.Job{ID: "job", Term: 1, Spec: tasks.Spec{Program: "p", Tasks: 1}.WithDefaults()}
	o, err := tasks.NewOrigin(tasks.OriginConfig{Self: "me", Rand: rand.New(rand.NewPCG(1, 1))}, job, []tasks.Task{{}})
	if err != nil {
		t.Fatal(err)
	}
	lies := 0
	for range 200 {
		now = now.Add(10 * time.Minute)
		o.Step(now, tasks.Tick{})
		effects := o.Step(now, tasks.BidIn{Bid: tasks.Bid{Job: "job", Worker: "liar", Slots: 1}})
		now = now.Add(time.Second)
		for _, e := range append(effects, o.Step(now, tasks.Tick{})...) {
			if g, ok := e.(tasks.Grant); ok {
				a := g.Lease.Assignments[0]
				o.Step(now, tasks.ReceiptIn{Receipt: tasks.Receipt{Job: "job", Lease: g.Lease.ID, Replica: a.Replica, Worker: "liar"}})
				lies++
			}
		}
	}
	if err := o.Check(); err != nil || lies < 100 {
		t.Errorf("after %d lies: %v", lies, err)
	}
}
