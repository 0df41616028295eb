package tasks_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
	"github.com/kith-mesh/kith/tasks/verify"
)

// drain runs a whole job of count tasks on workers that answer at once, and
// gives the events it took.
func drain(tb testing.TB, count int, replicas uint32, workers int) int {
	rng := rand.New(rand.NewPCG(1, 1))
	list := make([]tasks.Task, count)
	for i := range list {
		list[i].Ref.Index = uint32(i)
	}
	job := tasks.Job{ID: "job", Term: 1, Spec: spec(replicas, false)}
	o, err := tasks.NewOrigin(tasks.OriginConfig{Self: "origin", Judge: verify.Decide, Rand: rng}, job, list)
	if err != nil {
		tb.Fatal(err)
	}
	now, events, done := epochStart, 0, false
	var inbox []tasks.Event
	var leases []tasks.Lease
	hash := tasks.Hash{1} // of all: what opens it was checked before
	receipt := func(l tasks.LeaseID, worker tasks.PeerID, ref tasks.Ref, replica uint32) tasks.Receipt {
		return tasks.Receipt{Job: "job", Ref: ref, Replica: replica, Lease: l, Worker: worker, Output: "out", Inline: []byte{1}}
	}
	step := func(ev tasks.Event) {
		events++
		for _, e := range o.Step(now, ev) {
			switch e := e.(type) {
			case tasks.Grant:
				leases = append(leases, e.Lease)
			case tasks.Reveal:
				inbox = append(inbox, tasks.ReceiptIn{Receipt: receipt(e.Lease, e.Worker, e.Ref, e.Replica), Opens: &hash})
			case tasks.Hold:
				inbox = append(inbox, tasks.HeldOutput{Ref: e.Ref, Worker: e.Worker, Output: e.Output, Size: 1})
			case tasks.Assemble:
				inbox = append(inbox, tasks.Assembled{Output: "all"})
			case tasks.Finish:
				done = e.State == tasks.Done
			}
		}
	}
	step(tasks.Tick{})
	names := make([]tasks.PeerID, workers)
	for i := range names {
		names[i] = tasks.PeerID(fmt.Sprintf("w%03d", i))
		step(tasks.BidIn{Bid: tasks.Bid{Job: "job", Worker: names[i], Slots: 4}})
	}
	for !done {
		if len(leases) == 0 && len(inbox) == 0 {
			now = now.Add(100 * time.Millisecond)
			step(tasks.Tick{})
			for _, n := range names {
				step(tasks.ReportIn{Report: tasks.Report{Job: "job", Worker: n, Want: 256, Slots: 4}})
			}
			if events > 100*count+10000 {
				tb.Fatalf("stuck: %+v", o.Why(now))
			}
		}
		for len(inbox) > 0 {
			ev := inbox[0]
			inbox = inbox[1:]
			step(ev)
		}
		if len(leases) > 0 {
			l := leases[0]
			leases = leases[1:]
			now = now.Add(time.Millisecond)
			for _, a := range l.Assignments {
				r := receipt(l.ID, l.Worker, a.Task.Ref, a.Replica)
				if l.Commit {
					step(tasks.CommitIn{Commitment: tasks.Commitment{Job: r.Job, Ref: r.Ref, Replica: r.Replica, Lease: r.Lease, Worker: r.Worker, Hash: hash}})
				} else {
					step(tasks.ReceiptIn{Receipt: r})
				}
			}
			step(tasks.ReportIn{Report: tasks.Report{Job: "job", Worker: l.Worker, Want: 256, Slots: 4}})
		}
	}
	return events
}

func BenchmarkOrigin(b *testing.B) {
	for _, c := range []struct {
		count    int
		replicas uint32
	}{{1000, 1}, {100_000, 1}, {100_000, 2}, {1_000_000, 1}} {
		b.Run(fmt.Sprintf("tasks=%d/replicas=%d", c.count, c.replicas), func(b *testing.B) {
			events := 0
			for b.Loop() {
				events += drain(b, c.count, c.replicas, 100)
			}
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// TestDrain keeps the benchmark's job one that ends.
func TestDrain(t *testing.T) {
	for _, replicas := range []uint32{1, 2} {
		if events := drain(t, 500, replicas, 10); events < 500 {
			t.Errorf("%d replicas: %d events", replicas, events)
		}
	}
}
