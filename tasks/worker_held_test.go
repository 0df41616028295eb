package tasks_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kith-mesh/kith/tasks"
)

// A worker whose receipts wait long for a second worker's, each under a lease of
// its own, goes on reporting: it names no more leases than a report may.
func TestReportNamesWhatMatters(t *testing.T) {
	now := time.Unix(1000, 0)
	w, err := tasks.NewWorker(tasks.WorkerConfig{Self: "me", Rand: rand.New(rand.NewPCG(1, 1)), MaxReceipts: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	last, most := tasks.Report{}, 0
	var step func(ev tasks.WorkerEvent)
	step = func(ev tasks.WorkerEvent) {
		for _, e := range w.Step(now, ev) {
			switch e := e.(type) {
			case tasks.Start:
				now = now.Add(time.Millisecond)
				step(tasks.Ran{Origin: "o", Job: "j", Lease: e.Lease, Ref: e.Execution.Ref, Outcome: tasks.Outcome{Output: "x"}})
			case tasks.Deliver:
				last, most = e.Report, max(most, len(e.Report.Held))
				step(tasks.Delivered{Origin: "o", Job: "j"})
				for _, r := range e.Receipts {
					step(tasks.VerdictsIn{Origin: "o", Verdicts: []tasks.Verdict{{Job: "j", Ref: r.Ref, Lease: r.Lease, Worker: "me", Status: tasks.Pending}}})
				}
			}
		}
	}
	for i := range 3 * tasks.MaxHeld {
		step(tasks.LeaseIn{Lease: tasks.Lease{ID: tasks.LeaseID(fmt.Sprint("t1-", i)), Job: "j", Origin: "o", Worker: "me", Program: "p", Tasks: 9999,
			Assignments: []tasks.Assignment{{Task: tasks.Task{Ref: tasks.Ref{Index: uint32(i)}}}}, Duration: time.Minute, Grace: time.Hour}})
		now = now.Add(50 * time.Millisecond)
		step(tasks.WorkerTick{})
	}
	now = now.Add(10 * time.Second)
	step(tasks.WorkerTick{})
	if most > tasks.MaxHeld {
		t.Errorf("a report named %d leases, at most %d may be", most, tasks.MaxHeld)
	}
	if len(last.Held) > 0 || w.Status().Receipts == 0 {
		t.Errorf("the last names %d leases that wait for a verdict alone; %+v", len(last.Held), w.Status())
	}
}

// Two origins of one job may name their leases alike: neither hears of the
// other's runs.
func TestOriginsDoNotMix(t *testing.T) {
	now := time.Unix(1000, 0)
	w, err := tasks.NewWorker(tasks.WorkerConfig{Self: "me", Rand: rand.New(rand.NewPCG(1, 1)), Limits: tasks.SetLimits{Slots: 2}})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []tasks.PeerID{"other", "own"} {
		w.Step(now, tasks.LeaseIn{Lease: tasks.Lease{ID: "t1-1", Job: "j", Origin: o, Worker: "me", Program: "p",
			Assignments: []tasks.Assignment{{}}, Duration: time.Minute}})
	}
	for _, e := range w.Step(now, tasks.Ran{Origin: "own", Job: "j", Lease: "t1-1", Outcome: tasks.Outcome{Output: "secret"}}) {
		if d, ok := e.(tasks.Deliver); ok && d.To != "own" && len(d.Receipts) > 0 {
			t.Errorf("%s was told of the run for another", d.To)
		}
	}
	if s := w.Status(); s.Running != 1 || s.Receipts != 1 {
		t.Errorf("%+v", s)
	}
}

// An origin that is done with a job answers a heartbeat that it holds no such
// job, perhaps before its verdicts are here: a receipt that it was not shown since
// is shown once more, and only what that is answered with lets go of it.
func TestDisownedReceiptsAreShownAgain(t *testing.T) {
	now := time.Unix(1000, 0)
	w, err := tasks.NewWorker(tasks.WorkerConfig{Self: "me", Rand: rand.New(rand.NewPCG(1, 1)), Limits: tasks.SetLimits{Slots: 1}})
	if err != nil {
		t.Fatal(err)
	}
	var shown, released, stopped int
	step := func(ev tasks.WorkerEvent) {
		shown = 0
		for _, e := range w.Step(now, ev) {
			switch e := e.(type) {
			case tasks.Deliver:
				shown = len(e.Receipts)
			case tasks.ReleaseJob:
				released++
			case tasks.Stop:
				stopped++
			}
		}
	}
	step(tasks.LeaseIn{Lease: tasks.Lease{ID: "t1-1", Job: "j", Origin: "o", Worker: "me", Program: "p", Duration: time.Minute, Grace: time.Hour,
		Assignments: []tasks.Assignment{{Task: tasks.Task{Ref: tasks.Ref{Index: 0}}}, {Task: tasks.Task{Ref: tasks.Ref{Index: 1}}}}}})
	step(tasks.Ran{Origin: "o", Job: "j", Lease: "t1-1", Outcome: tasks.Outcome{Output: "x"}})
	if shown != 1 {
		t.Fatalf("%d receipts are delivered", shown)
	}
	step(tasks.Delivered{Origin: "o", Job: "j"})
	now = now.Add(5 * time.Second)
	step(tasks.WorkerTick{})
	if shown != 0 {
		t.Fatalf("the heartbeat shows %d receipts", shown)
	}
	now = now.Add(time.Second)
	step(tasks.DeliverFailed{Origin: "o", Job: "j", Reason: tasks.StaleTerm})
	if shown != 1 || released != 0 || stopped != 1 {
		t.Fatalf("after a heartbeat that was disowned: %d receipts shown, %d jobs released, %d runs stopped", shown, released, stopped)
	}
	step(tasks.Ran{Origin: "o", Job: "j", Lease: "t1-1", Ref: tasks.Ref{Index: 1}, Outcome: tasks.Outcome{Output: "y"}})
	if released != 0 || w.Status().Receipts != 1 {
		t.Fatalf("before the answer: released %d, %+v", released, w.Status())
	}
	step(tasks.DeliverFailed{Origin: "o", Job: "j", Reason: tasks.StaleTerm})
	if released != 1 || w.Status().Receipts != 0 {
		t.Errorf("after the receipt was disowned: released %d, %+v", released, w.Status())
	}
}
