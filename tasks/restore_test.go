package tasks_test

import (
	"fmt"
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

// A worker's failure counts after a restart also when the same worker was leased
// the task again before it, and when so many leases followed that its history is
// forgotten.
func TestFailuresCountAfterRestart(t *testing.T) {
	for name, leases := range map[string]int{"leased again": 2, "history forgotten": 40} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1000, 0)
			spec := tasks.Spec{Program: "p", Tasks: 1, Nondeterministic: true, Retry: tasks.Retry{Max: 1}}.WithDefaults()
			r := tasks.Records{Tasks: []tasks.Task{{}}, Attempts: []tasks.Attempt{{Lease: "t1-1", Worker: "worker", Reason: tasks.ExitCode}}}
			for i := range leases {
				r.Grants = append(r.Grants, tasks.GrantRecord{Lease: tasks.LeaseID(fmt.Sprintf("t1-%d", i+1)), Worker: "worker", Indexes: []uint32{0}, Replicas: []uint32{uint32(i)}})
			}
			o, err := tasks.RestoreOrigin(tasks.OriginConfig{Self: "me", Rand: rand.New(rand.NewPCG(1, 1))}, tasks.Job{ID: "job", Term: 1, Spec: spec}, r, now)
			if err != nil {
				t.Fatal(err)
			}
			if a := o.Tasks(tasks.StageMap, 0, 1)[0].Attempts; leases == 2 && (len(a) != 2 || a[0].State != tasks.AttemptFailed || a[1].State != tasks.AttemptHeld) {
				t.Errorf("attempts are shown as %+v, want one that failed and one held", a)
			}
			last := r.Grants[leases-1]
			o.Step(now, tasks.ReceiptIn{Receipt: tasks.Receipt{Job: "job", Lease: last.Lease, Replica: last.Replicas[0], Worker: "worker", Reason: tasks.ExitCode}})
			if s := o.Status(); s.State != tasks.Failed {
				t.Errorf("after its second failure, with one retry, the job is %v, want failed", s.State)
			}
		})
	}
}
