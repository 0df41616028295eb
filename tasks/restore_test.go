package tasks_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// After a restart nothing waits for what the node's own worker was at, and what
// that had done counts all the same.
func TestOwnLeasesEndWithTheNode(t *testing.T) {
	now := time.Unix(1000, 0)
	spec := tasks.Spec{Program: "p", Tasks: 3}.WithDefaults()
	job := tasks.Job{ID: "job", Term: 1, Spec: spec}
	list := []tasks.Task{{Ref: tasks.Ref{Index: 0}}, {Ref: tasks.Ref{Index: 1}}, {Ref: tasks.Ref{Index: 2}}}
	o, err := tasks.RestoreOrigin(tasks.OriginConfig{Self: "me", Rand: rand.New(rand.NewPCG(1, 1))}, job, tasks.Records{Tasks: list, Grants: []tasks.GrantRecord{
		{Lease: "t1-1", Worker: "me", Indexes: []uint32{0, 1}, Replicas: []uint32{0, 0}},
		{Lease: "t1-2", Worker: "other", Indexes: []uint32{2}, Replicas: []uint32{0}},
	}}, now)
	if err != nil {
		t.Fatal(err)
	}
	o.Step(now, tasks.Tick{})
	if s := o.Status(); s.Waiting != 2 || s.Leased != 1 {
		t.Errorf("%d tasks wait and %d are leased, want 2 and 1", s.Waiting, s.Leased)
	}
	held := false
	for _, e := range o.Step(now, tasks.ReceiptIn{Receipt: tasks.Receipt{Job: "job", Lease: "t1-1", Worker: "me", Output: "out", Inline: []byte("x")}}) {
		_, ok := e.(tasks.Hold)
		held = held || ok
	}
	if !held {
		t.Error("what the worker had done was not taken")
	}
}
